"""What the middleware of a live agent may ask for, outside of its turns."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from trio_sagents.abc import Scope
from trio_sagents.agent import AsyncFunction
from trio_sagents.data.cursors import Channel
from trio_sagents.data.events import Event, TodosUpdated
from trio_sagents.data.json import JSON, Opaque
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.records import Lifecycle, Saved
from trio_sagents.data.state import State
from trio_sagents.data.todos import Todo
from trio_sagents.exceptions import PersistenceError, SagentsError
from trio_sagents.supervisor._change import Change

if TYPE_CHECKING:
    from trio_sagents.supervisor._live import LiveAgent


@attrs.frozen(eq=False)
class Home:
    """A live agent, as its middleware sees it; implements `agent.AgentHome`."""

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
        live.runtime.registry.context.run(live.nursery.start_soon, function, *args)

    @property
    def usage(self) -> Usage:
        return Usage()

    def add_usage(self, usage: Usage) -> None:
        """No turn runs that it could count for."""

    async def notify(self, middleware_id: str, message: Opaque) -> None:
        """Hand a message to a middleware, in a task of the agent's: it ends with the agent.

        Raises:
            LookupError: there is no such middleware.
            MiddlewareError: it raised.
            AgentNotRunning: the agent ended first.

        Cancellation: the middleware goes on with the message.
        """
        live = self.live
        live.touch()
        ended = trio.Event()
        errors: list[SagentsError | LookupError | None] = []

        async def run() -> None:
            try:
                await live.pipeline.notify(self, middleware_id, message)
                errors.append(None)
            except (SagentsError, LookupError) as exc:
                errors.append(exc)
            finally:
                ended.set()

        live.nursery.start_soon(run)
        await ended.wait()
        if not errors:
            raise live.entry.not_running()
        if errors[0] is not None:
            raise errors[0]


def lifecycle_of(metadata: JSON | None) -> Lifecycle:
    """Return what a change of the metadata is called to a store."""
    return "on_title_generated" if metadata is not None and "title" in metadata else "on_step"
