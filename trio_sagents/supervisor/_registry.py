"""Which agents there are: looked up and reserved in one synchronous step, so there are never two for one conversation."""

import contextvars
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

import attrs
import trio

from trio_sagents.data.json import Options
from trio_sagents.data.records import Owner
from trio_sagents.data.scopes import Scope
from trio_sagents.data.status import CancelCause, ShutdownReason
from trio_sagents.exceptions import AgentNotRunning, AgentStopped, LimitExceeded, StartFailed

if TYPE_CHECKING:
    from trio_sagents.supervisor._live import LiveAgent


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
    live: "LiveAgent | None" = attrs.field(default=None, repr=False)
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
    _ready: trio.Event | None = None
    _ended: trio.Event | None = None
    has_ended: bool = False

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

    def become_ready(self) -> None:
        """The boot has ended, well or not: wake whoever waits for it."""
        if self._ready is not None:
            self._ready.set()

    async def wait_ready(self) -> None:
        """Wait for the end of the boot."""
        if self._ready is None:
            self._ready = trio.Event()
        await self._ready.wait()

    def end(self) -> None:
        """The id is free: wake whoever waits for that."""
        self.has_ended = True
        if self._ended is not None:
            self._ended.set()

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
