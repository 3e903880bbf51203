"""Which agents there are: looked up and reserved in one synchronous step, so there are never two for one conversation."""

import contextvars
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Protocol

import attrs
import trio

from trio_sagents._trio.tree import is_inside
from trio_sagents.broadcast import Subscription
from trio_sagents.conversation.messages_in import Posted
from trio_sagents.data.cursors import Channel
from trio_sagents.data.decisions import Decision
from trio_sagents.data.events import Event
from trio_sagents.data.json import Opaque, Options
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.data.records import Owner, Row
from trio_sagents.data.scopes import Scope
from trio_sagents.data.state import State
from trio_sagents.data.status import CancelCause, ShutdownReason
from trio_sagents.exceptions import AgentNotRunning, AgentStopped, LimitExceeded, StartFailed
from trio_sagents.supervisor._info import AgentInfo
from trio_sagents.supervisor._receipts import Receipt


class Phase(Enum):
    """Where an entry stands. There is no way back."""

    BOOTING = "booting"
    LIVE = "live"
    STOPPING = "stopping"


class Failure:
    """Why a boot did not succeed: the stage, and the error."""

    __slots__ = ("error", "stage")

    def __init__(self, stage: str, error: BaseException) -> None:
        self.stage: str = stage
        self.error: BaseException = error


class RunningAgent(Protocol):
    """An agent that is live, as the registry, handles and sessions see it. What composes an agent implements it."""

    @property
    def entry(self) -> "Entry":
        """Its reservation."""
        ...

    @property
    def options(self) -> Options:
        """The host's own options of this session: `SessionOpts.app_internal`."""
        ...

    @property
    def grace_period(self) -> float:
        """Seconds that its turn may take to finish if the sessions close, or drain."""
        ...

    @property
    def incarnation(self) -> str:
        """Names the agent among all that ever ran for its conversation."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether the agent runs on another node, and this is a mirror of it."""
        ...

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing runs, nothing runnable is queued, and nothing is being accepted."""
        ...

    @property
    def is_running(self) -> bool:
        """Whether a turn runs."""
        ...

    @property
    def queued(self) -> int:
        """How many accepted messages wait for a turn."""
        ...

    @property
    def was_cut(self) -> bool:
        """Whether its last turn was cut."""
        ...

    async def post(self, posted: Posted, actor: Scope) -> Receipt:
        """Accept a message; see `Inbox.post`."""
        ...

    async def resume(self, decisions: Sequence[Decision], actor: Scope) -> Receipt:
        """Record decisions; see `Approvals.resume`."""
        ...

    async def dismiss(self, actor: Scope, interrupt_id: str | None = None) -> None:
        """Acknowledge a halt; see `Approvals.dismiss`."""
        ...

    async def add_rows(self, rows: Sequence[Row], actor: Scope) -> None:
        """Add rows to the transcript; see `Host.add_rows`."""
        ...

    def publish(self, event: Event, channel: Channel) -> None:
        """Send an event of the host's to the subscribers."""
        ...

    async def notify(self, middleware_id: str, message: Opaque) -> None:
        """Hand a message to a middleware; see `Host.notify`."""
        ...

    async def cancel_turn(self, turn_id: str | None) -> TurnOutcome | None:
        """Cut the running turn, wait until it is settled, and return its outcome; None if nothing, or another turn, runs."""
        ...

    def touch(self) -> None:
        """Renew the idle clock."""
        ...

    def info(self, *, with_middleware: bool = False) -> AgentInfo:
        """Return a picture of the agent; with the settings of its middleware, if they are asked for. Of a mirror, what is known here."""
        ...

    async def look(self) -> AgentInfo:
        """Return a picture of the agent, with the settings of its middleware."""
        ...

    async def read_state(self) -> State:
        """Return the last committed state."""
        ...

    async def stop(self, grace_period: float) -> None:
        """Stop the agent, and return when it has ended; from inside its own task tree, only ask."""
        ...

    async def wait_idle(self) -> None:
        """Wait until the agent is at rest; raise AgentNotRunning if it ended first."""
        ...

    def enrol(self, subscription: Subscription) -> None:
        """Let a subscription follow the agent."""
        ...

    def wake(self) -> None:
        """Have the agent's task look whether it has work, or may leave."""
        ...

    def finish_work(self) -> None:
        """The agent was asked to leave, with grace: what was accepted, and what no turn runs for yet, gets its turn."""
        ...


class OwnedAgent(RunningAgent, Protocol):
    """An agent, as the task sees it that owns it."""

    def go_live(self) -> None:
        """Accept commands, and enrol whoever waits."""
        ...

    async def serve(self) -> None:
        """Answer what is queued until it is time to leave."""
        ...

    async def wait_settled(self) -> None:
        """Wait, for a bounded time, until the last submitted write has ended."""
        ...

    def end(self, reason: ShutdownReason) -> None:
        """Publish the last event."""
        ...


@attrs.define(eq=False)
class Entry:
    """One reservation of an agent id, from the decision to start until the agent's last write has ended."""

    agent_id: str
    conversation_id: str
    scope: Scope = attrs.field(repr=False)
    """Of the call that made it."""
    owner: Owner
    request_opts: Options = attrs.field(repr=False)
    phase: Phase = Phase.BOOTING
    live: "RunningAgent | None" = attrs.field(default=None, repr=False)
    """The agent, from the end of its boot until its own end."""
    has_booted: bool = False
    failure: Failure | None = None
    """Why the boot failed."""
    stage: str = "start"
    """How far the boot has come."""
    cancel_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Around everything the agent does."""
    reason: ShutdownReason | None = None
    """Why the agent is asked to leave; the first reason wins."""
    cause: CancelCause | None = None
    """What a turn that is cut by that is told."""
    task: "trio.lowlevel.Task | None" = None
    started_is_taken: bool = False
    """Whether a call has returned this boot with `started=True`."""
    _is_ready: bool = False
    """Whether the boot has ended, well or not."""
    _ready: trio.Event | None = None
    """Made when somebody waits for the end of the boot, and gone with it."""
    _ended: trio.Event | None = None
    has_ended: bool = False
    shutdown_reason: ShutdownReason = ShutdownReason.CRASHED
    """Why the agent has ended, once it has."""
    is_look: bool = False
    """Whether this only looks for an agent on another node: where there is none, nothing starts, and whoever waits looks again."""
    _when_ended: "Callable[[Entry], None] | None" = attrs.field(default=None, repr=False)

    @property
    def is_accepting(self) -> bool:
        """Whether the agent takes commands."""
        return self.phase is Phase.LIVE

    @property
    def is_leaving(self) -> bool:
        """Whether the agent was asked to leave, or has left."""
        return self.phase is Phase.STOPPING

    def request_stop(self, reason: ShutdownReason, cause: CancelCause, *, deadline: float) -> None:
        """Ask the agent to leave: it accepts nothing from now on, and is cancelled at `deadline`. The earliest deadline counts."""
        if self.phase is not Phase.STOPPING:
            self.phase = Phase.STOPPING
            self.reason = self.reason or reason
            self.cause = self.cause or cause
        if self.live is None:
            self.cancel_scope.cancel()
        elif self.live.is_at_rest:
            self.live.wake()  # it waits, and leaves when it looks
        elif deadline <= trio.current_time():
            self.cancel_scope.cancel()
        else:
            self.live.finish_work()
            self.cancel_scope.deadline = min(self.cancel_scope.deadline, deadline)

    def fence(self) -> None:
        """Another writer took over the conversation: this agent has no business here any more."""
        self.request_stop(ShutdownReason.FENCED, CancelCause.FENCED, deadline=trio.current_time())

    def become_ready(self) -> None:
        """The boot has ended, well or not: wake whoever waits for it."""
        self._is_ready = True
        if self._ready is not None:
            self._ready.set()
            self._ready = None

    async def wait_ready(self) -> None:
        """Wait for the end of the boot."""
        if self._is_ready:
            await trio.lowlevel.checkpoint()
            return
        if self._ready is None:
            self._ready = trio.Event()
        await self._ready.wait()

    def end(self) -> None:
        """The id is free: wake whoever waits for that."""
        self.has_ended = True
        if self._ended is not None:
            self._ended.set()
        if self._when_ended is not None:
            self._when_ended(self)

    def call_when_ended(self, function: "Callable[[Entry], None]") -> None:
        """Have a function called when the id is free; it must not raise. There is one such function."""
        self._when_ended = function

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the end of the agent."""
        return self._ended is not None and self._ended.statistics().tasks_waiting > 0

    async def wait_ended(self) -> None:
        """Wait until the id is free."""
        if self.has_ended:
            await trio.lowlevel.checkpoint()
            return
        if self._ended is None:
            self._ended = trio.Event()
        await self._ended.wait()

    def start_failed(self) -> StartFailed:
        """Return a new error for one caller of a boot that failed."""
        failure = self.failure
        error = StartFailed(self.conversation_id, failure.stage if failure is not None else self.stage)
        error.__cause__ = failure.error if failure is not None else AgentStopped(self.conversation_id)
        return error

    def not_running(self) -> AgentNotRunning:
        """Return a new error for a command that comes too late."""
        stopped = self.reason in {ShutdownReason.STOPPED, ShutdownReason.CLOSED, ShutdownReason.DRAINED}
        return AgentStopped(self.conversation_id) if stopped else AgentNotRunning(self.conversation_id)


async def end_entry(entry: Entry, grace_period: float) -> None:
    """Ask the agent of an entry to leave, and wait until it has; from inside its own task tree, ask and pass one checkpoint."""
    entry.request_stop(ShutdownReason.STOPPED, CancelCause.STOPPED, deadline=trio.current_time() + grace_period)
    if is_inside(entry.task):
        await trio.lowlevel.checkpoint()
        return
    await entry.wait_ended()


@attrs.define(eq=False)
class Registry:
    """All entries, by agent id."""

    max_sessions: int
    max_sessions_per_scope: int
    context: contextvars.Context = attrs.field(factory=contextvars.copy_context)
    """The one in which `open_sessions` was entered: every agent runs in a copy."""
    _entries: dict[str, Entry] = attrs.field(factory=dict)
    # Invariant: an id is here exactly while its agent boots, lives or ends.
    _by_owner: dict[tuple[type, Owner], dict[Entry, None]] = attrs.field(factory=dict)
    # Invariant: the same entries, by owner, in the order of their starts.

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries.values()))

    def find(self, agent_id: str, conversation_id: str) -> Entry | None:
        """Return the entry of a conversation; None if it has none, also if the host's `agent_id_fun` gave its id to another one."""
        entry = self._entries.get(agent_id)
        return entry if entry is not None and entry.conversation_id == conversation_id else None

    def is_taken(self, agent_id: str) -> bool:
        """Return whether any conversation has this agent id."""
        return agent_id in self._entries

    def reserve(self, entry: Entry) -> None:
        """Put a new entry in. No checkpoint between `find` and here.

        Raises:
            ValueError: another conversation has this agent id: the host's `agent_id_fun` gives one id to two. Whose it is, is not told.
            LimitExceeded: there are `max_sessions` agents, or the owner has `max_sessions_per_scope`.
        """
        if entry.agent_id in self._entries:
            raise ValueError(
                f"agent_id_fun gives conversation {entry.conversation_id!r} the agent id {entry.agent_id!r}, which another conversation "
                "has now; it must give each conversation an id of its own"
            )
        if len(self._entries) >= self.max_sessions:
            raise LimitExceeded("max_sessions", len(self._entries) + 1, most=self.max_sessions)
        own = self._by_owner.get((type(entry.owner), entry.owner), {})
        if entry.owner is not None and len(own) >= self.max_sessions_per_scope:
            raise LimitExceeded("max_sessions_per_scope", len(own) + 1, most=self.max_sessions_per_scope)
        self._by_owner.setdefault((type(entry.owner), entry.owner), {})[entry] = None
        self._entries[entry.agent_id] = entry

    def release(self, entry: Entry) -> None:
        """Take an entry out, and wake whoever waits for its end."""
        if self._entries.get(entry.agent_id) is entry:
            del self._entries[entry.agent_id]
        key = (type(entry.owner), entry.owner)
        own = self._by_owner.get(key, {})
        own.pop(entry, None)
        if not own:
            self._by_owner.pop(key, None)
        entry.live = entry.task = None
        entry.end()

    def owned_by(self, owner: Owner) -> tuple[Entry, ...]:
        """Return the entries of one owner."""
        return tuple(self._by_owner.get((type(owner), owner), ()))
