"""The middleware host: what the middleware of a live agent may ask for, inside and outside of its turns."""

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import trio

from trio_sagents.agent import AsyncFunction, Pipeline, id_of
from trio_sagents.conversation.rows import own_row
from trio_sagents.conversation.state import Step
from trio_sagents.data.cursors import Channel
from trio_sagents.data.events import Event, TodosUpdated
from trio_sagents.data.json import JSON, Opaque, Options, plain_json
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.records import Lifecycle, Row
from trio_sagents.data.scopes import Scope
from trio_sagents.data.state import OlderMessages, State
from trio_sagents.data.status import CancelCause
from trio_sagents.data.todos import Todo
from trio_sagents.supervisor._blueprint import Blueprint
from trio_sagents.supervisor._journal import Journal
from trio_sagents.supervisor._lifetime import Lifetime
from trio_sagents.supervisor._registry import Entry
from trio_sagents.supervisor._services import Services

log: Final = logging.getLogger("trio_sagents")


@attrs.define(eq=False)
class Host:
    """A live agent, as its middleware sees it; implements `agent.MiddlewareHost`."""

    entry: Entry = attrs.field(repr=False)
    services: Services = attrs.field(repr=False)
    blueprint: Blueprint = attrs.field(repr=False)
    journal: Journal = attrs.field(repr=False)
    nursery: trio.Nursery = attrs.field(repr=False)
    """The agent's own."""

    @property
    def conversation_id(self) -> str:
        """The conversation's id."""
        return self.entry.conversation_id

    @property
    def agent_id(self) -> str:
        """The agent's id."""
        return self.entry.agent_id

    @property
    def scope(self) -> Scope:
        """The agent's scope."""
        return self.blueprint.scope

    def state(self) -> State:
        """Return the last committed state."""
        return self.journal.state.picture()

    def publish(self, event: Event, channel: Channel = "main") -> None:
        """Send an event to the subscribers."""
        self.journal.publish(event, channel)

    @property
    def options(self) -> Options:
        """The host's own options of the session."""
        return self.blueprint.options

    @property
    def values(self) -> Options:
        """Empty: no turn runs here."""
        return {}

    async def older_messages(self, before: str | None, limit: int) -> OlderMessages:
        """Return a page of the messages before the window. Cancellation: nothing is changed."""
        return await self.journal.older_messages(before, limit)

    async def update(
        self, todos: Sequence[Todo] | None, metadata: JSON | None, rows: Sequence[Row] = (), covers: str | None = None
    ) -> None:
        """Keep todos, keys of the metadata, and rows of the transcript; durable when this returns.

        Raises:
            AgentNotRunning: the agent has ended.
            LimitExceeded: the metadata would grow too large; nothing was done.
            PersistenceError: it could not be stored.

        Cancellation: either nothing was submitted, or it is kept.
        """
        if self.entry.has_ended:
            raise self.entry.not_running()
        await self._update(todos, metadata, self.scope, None, rows, covers)

    async def add_rows(self, rows: Sequence[Row], actor: Scope) -> None:
        """Keep rows that somebody outside adds to the transcript; raises and cancellation as of `update`."""
        if self.entry.has_ended:
            raise self.entry.not_running()
        await self._update(None, None, actor, None, rows)

    async def _update(  # what one change may hold
        self,
        todos: Sequence[Todo] | None,
        metadata: JSON | None,
        actor: Scope,
        turn_id: str | None,
        rows: Sequence[Row] = (),
        covers: str | None = None,
    ) -> None:
        lifecycle: Lifecycle = "on_title_generated" if metadata is not None and "title" in metadata else "on_step"
        events = () if todos is None else (TodosUpdated(tuple(todos), turn_id),)
        moment = self.journal.moment()
        shown = tuple(own_row(row, self.journal.ids.new(), turn_id, moment.now) for row in rows)
        new_rows = [made.row_id for row, made in zip(rows, shown, strict=True) if self._is_new(row)]
        step = Step(
            lifecycle=lifecycle,
            actor=actor,
            todos=todos,
            metadata=metadata,
            rows=shown,
            new_rows=new_rows,
            events=events,
            covers=covers,
        )
        await self.journal.submit(step).wait()

    def _is_new(self, row: Row) -> bool:
        """Return whether a row is certainly new: whether an earlier agent has used its key, nobody knows."""
        if row.key is None:
            return True
        return self.journal.add_own_key(row.key) and not self.journal.state.is_restored

    def start_soon(self, function: AsyncFunction, *args: Opaque) -> None:
        """Start a task in the agent's nursery; what it raises crashes the agent."""
        entry = self.entry

        async def run() -> None:
            try:
                await function(*args)
            except Exception:
                entry.cause = entry.cause or CancelCause.CRASHED  # what a turn that is cut by this is told
                raise

        self.services.registry.context.run(functools.partial(self.nursery.start_soon, run, name=f"{self.agent_id} middleware"))

    @property
    def usage(self) -> Usage:
        """Zero: no turn runs here."""
        return Usage()

    @property
    def usage_by_model(self) -> Mapping[str, Usage]:
        """Empty: no turn runs here."""
        return {}

    def add_usage(self, usage: Usage, model: str, unreported: Usage) -> None:
        """Do nothing: no turn runs that the usage could count for."""


@attrs.define(eq=False)
class HookCaller:
    """Calls hooks for callers from outside, in tasks of the agent: a hook ends with the agent, which does not leave under it."""

    host: Host
    pipeline: Pipeline
    lifetime: Lifetime

    async def notify(self, middleware_id: str, message: Opaque) -> None:
        """Hand a message to a middleware.

        Raises:
            LookupError: there is no such middleware.
            MiddlewareError: the middleware raised.
            AgentNotRunning: the agent ended first.

        Cancellation: the middleware continues with the message.
        """
        self.lifetime.touch()
        await self.call(self.pipeline.notify, self.host, middleware_id, message)

    def summaries(self) -> Mapping[str, JSON]:
        """Return every middleware by its id, in order, with what it tells of its settings.

        A middleware without a `debug_summary` has an empty object. What fails, or is not JSON, is logged and left out.
        """
        found: dict[str, JSON] = {}
        for middleware in self.pipeline.agent.middleware:
            if not hasattr(middleware, "debug_summary"):
                found[id_of(middleware)] = {}
                continue
            try:
                summary: JSON = plain_json(middleware.debug_summary(), "debug_summary")
            except Exception:  # the boundary to the host's middleware: a picture of the agent must not fail for it
                log.exception("middleware %r failed in debug_summary, in conversation %r", id_of(middleware), self.host.conversation_id)
            else:
                found[id_of(middleware)] = summary
        return found

    async def call(self, function: AsyncFunction, *args: Opaque) -> Opaque:
        """Call a hook in a task of the agent, for a caller who is not.

        Raises:
            AgentNotRunning: the agent ended first.

        Cancellation: the hook continues.
        """
        ended = trio.Event()
        outcome: list[tuple[Opaque, Exception | None]] = []

        async def task() -> None:
            try:
                outcome.append((await function(*args), None))
            except Exception as exc:  # noqa: BLE001  # handed to the caller, who raises it
                outcome.append((None, exc))
            finally:
                self.lifetime.holds -= 1
                ended.set()
                self.host.journal.bell.ring()

        try:
            self.host.nursery.start_soon(task)
        except RuntimeError:  # the nursery is closed: the agent is cancelled from outside, and waits for its last tasks
            raise self.host.entry.not_running() from None
        self.lifetime.holds += 1  # no checkpoint since: the task has not begun
        await ended.wait()
        if not outcome:
            raise self.host.entry.not_running()
        value, error = outcome[0]
        if error is not None:
            raise error
        return value
