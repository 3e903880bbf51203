"""What the middleware of a live agent may ask for, outside of its turns."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from trio_sagents.agent import AsyncFunction
from trio_sagents.data.cursors import Channel
from trio_sagents.data.events import Event, TodosUpdated
from trio_sagents.data.json import JSON, Opaque
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.records import Lifecycle, Saved
from trio_sagents.data.scopes import Scope
from trio_sagents.data.state import State
from trio_sagents.data.status import CancelCause
from trio_sagents.data.todos import Todo
from trio_sagents.exceptions import PersistenceError
from trio_sagents.supervisor._change import Change

if TYPE_CHECKING:
    from trio_sagents.supervisor._live import LiveAgent


@attrs.frozen(eq=False)
class Home:
    """A live agent, as its middleware sees it; implements `agent.MiddlewareHost`."""

    live: "LiveAgent" = attrs.field(repr=False)

    @property
    def conversation_id(self) -> str:
        return self.live.ledger.conversation_id

    @property
    def agent_id(self) -> str:
        return self.live.entry.agent_id

    @property
    def scope(self) -> Scope:
        return self.live.blueprint.scope

    def state(self) -> State:
        return self.live.ledger.state()

    def publish(self, event: Event, channel: Channel = "main") -> None:
        self.live.publish(event, channel)

    async def update(self, todos: Sequence[Todo] | None, metadata: JSON | None) -> None:
        live = self.live
        if live.has_ended:
            raise live.entry.not_running()

        def then(_saved: Saved | None, error: PersistenceError | None) -> None:
            if error is not None:
                live.write_failed(error)
            elif todos is not None:
                live.publish(TodosUpdated(tuple(todos)))
            live.wake()  # it looks again whether it may leave: not while a write is pending

        change = Change(lifecycle=lifecycle_of(metadata), actor=live.blueprint.scope, todos=todos, metadata=metadata)
        await live.ledger.submit(change, then).wait()

    def start_soon(self, function: AsyncFunction, *args: Opaque) -> None:
        live = self.live

        async def run() -> None:
            try:
                await function(*args)
            except Exception:
                live.entry.cause = live.entry.cause or CancelCause.CRASHED  # what a turn that is cut by this is told
                raise

        live.runtime.registry.context.run(functools.partial(live.nursery.start_soon, run, name=f"{live.entry.agent_id} middleware"))

    @property
    def usage(self) -> Usage:
        return Usage()

    @property
    def usage_by_model(self) -> Mapping[str, Usage]:
        return {}

    def add_usage(self, usage: Usage, model: str, unreported: Usage) -> None:
        """No turn runs that it could count for."""

    async def notify(self, middleware_id: str, message: Opaque) -> None:
        """Hand a message to a middleware, in a task of the agent's: it ends with the agent.

        Raises:
            LookupError: there is no such middleware.
            MiddlewareError: it raised.
            AgentNotRunning: the agent ended first.

        Cancellation: the middleware goes on with the message.
        """
        self.live.touch()
        await self.run(self.live.pipeline.notify, self, middleware_id, message)

    async def run(self, function: AsyncFunction, *args: Opaque) -> Opaque:
        """Call a hook in a task of the agent's, for a caller who is not: it ends with the agent, which does not leave under it.

        Raises:
            AgentNotRunning: the agent ended first.

        Cancellation: the hook goes on.
        """
        live = self.live
        ended = trio.Event()
        outcome: list[tuple[Opaque, Exception | None]] = []

        async def task() -> None:
            try:
                outcome.append((await function(*args), None))
            except Exception as exc:  # noqa: BLE001  # handed to the caller, who raises it
                outcome.append((None, exc))
            finally:
                live.hooks -= 1
                ended.set()
                live.wake()

        try:
            live.nursery.start_soon(task)
        except RuntimeError:  # the nursery is closed: the agent is cancelled from outside, and waits for its last tasks
            raise live.entry.not_running() from None
        live.hooks += 1  # no checkpoint since: the task has not begun
        await ended.wait()
        if not outcome:
            raise live.entry.not_running()
        value, error = outcome[0]
        if error is not None:
            raise error
        return value


def lifecycle_of(metadata: JSON | None) -> Lifecycle:
    """Return what a change of the metadata is called to a store."""
    return "on_title_generated" if metadata is not None and "title" in metadata else "on_step"
