"""A live agent: what it is doing, what it tells, and when it may leave.

Everything but waiting is synchronous: whoever decides looks and acts in one step. The agent's own task (`serve`) is woken by
an event and then looks for itself; nothing is ever handed to it, so nothing can be lost on the way.
"""

import contextvars
import datetime
import functools
from collections.abc import Callable

import attrs
import trio

from trio_sagents._trio.timers import Timer
from trio_sagents.agent import Pipeline
from trio_sagents.agent._agent import id_of
from trio_sagents.broadcast import Feed, Tracked
from trio_sagents.data.config import SessionPolicy
from trio_sagents.data.cursors import Channel, Cursor
from trio_sagents.data.events import (
    AgentStateUpdated,
    ChainError,
    Event,
    Snapshot,
    StatusChanged,
    TurnEnded,
    TurnStarted,
)
from trio_sagents.data.ids import AGENTS_TOPIC, conversation_topic
from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.json import JSON
from trio_sagents.data.outcomes import Cancelled, Failed, TurnOutcome, Unanswered, Usage
from trio_sagents.data.status import HELD, CancelCause, ShutdownReason, Status
from trio_sagents.exceptions import Conflict, PersistenceError
from trio_sagents.supervisor._answering import Answering
from trio_sagents.supervisor._blueprint import Blueprint
from trio_sagents.supervisor._expiry import expire_later
from trio_sagents.supervisor._home import Home
from trio_sagents.supervisor._idle import IdleClock
from trio_sagents.supervisor._intake import Intake
from trio_sagents.supervisor._ledger import Ledger
from trio_sagents.supervisor._registry import Entry, Phase
from trio_sagents.supervisor._runtime import Runtime, wall_clock
from trio_sagents.supervisor._turns import Turn
from trio_sagents.supervisor._words import enrol_waiting, say_last_word, snapshot_of

THREADS = 40
"""Threads that one agent may have at once."""


@attrs.define(eq=False)
class LiveAgent:
    """One agent, from the end of its boot until its last word."""

    entry: Entry
    runtime: Runtime = attrs.field(repr=False)
    blueprint: Blueprint = attrs.field(repr=False)
    ledger: Ledger = attrs.field(repr=False)
    nursery: trio.Nursery
    """The agent's own: its turns live there, and end with it."""
    status: Status = Status.IDLE
    turn: Turn | None = None
    """The turn that runs, until its last commit has landed."""
    needs_repair: bool = False
    """Whether a failed write cut the history; the next turn closes it first."""
    is_released: bool = False
    """Whether a message came since the queue was held."""
    has_ended: bool = False
    shutdown_reason: ShutdownReason = ShutdownReason.CRASHED
    """Once it has ended: why."""
    has_last_turn: bool = False
    """Whether it may begin one more turn before it leaves: for what was accepted before it was asked to, with grace."""
    was_cut: bool = False
    """Whether its last turn was cut."""
    last_activity: float = attrs.field(factory=trio.current_time)
    started_at: datetime.datetime = attrs.field(factory=wall_clock)
    idle: IdleClock = attrs.field(factory=IdleClock)
    intake: Intake = attrs.field(init=False)
    hooks: int = 0
    """Hooks that run for a caller from outside."""
    landing: trio.Event | None = None
    """Set when the decision that is on its way is on record, or refused; None where none is."""
    pipeline: Pipeline = attrs.field(init=False)
    _threads: trio.CapacityLimiter | None = None
    _status_after: Status = Status.IDLE
    """What the last turn left: the status, unless a follow-up turn begins at once."""
    _feeds: dict[Channel, Feed] = attrs.field(factory=dict)
    _wake: trio.Event | None = None
    _rest: trio.Event | None = None
    """Set when it comes to rest, where somebody waits for that."""
    expiry: Timer | None = None
    """When what nobody decides is decided by itself."""
    _tracked: Tracked | None = None
    _forget_viewers: Callable[[], None] | None = None

    def __attrs_post_init__(self) -> None:
        self.intake = Intake(self.entry, self)
        self.pipeline = Pipeline(self.blueprint.agent, tools=self.blueprint.agent.own_tools)
        self.ledger.transforms = tuple((id_of(one), one.transform_row) for one in self.pipeline.having("transform_row"))

    @property
    def home(self) -> Home:
        """What its middleware may ask for; made anew, for it holds the agent."""
        return Home(self)

    @property
    def answering(self) -> Answering:
        """The way of decisions into it; made anew, for it holds the agent."""
        return Answering(self)

    @property
    def viewers(self) -> int:
        """How many watch."""
        return self.idle.viewers

    @property
    def policy(self) -> SessionPolicy:
        """The session's own."""
        return self.blueprint.policy

    @property
    def threads(self) -> trio.CapacityLimiter:
        """For tools that are plain functions. The agent's own: threads that nobody can stop keep no other agent waiting."""
        if self._threads is None:
            self._threads = trio.CapacityLimiter(THREADS)
        return self._threads

    # ── beginning

    def go_live(self) -> None:
        """Accept commands, and enrol whoever waits. No checkpoint: nobody sees half of it."""
        if self.turn is None and self.ledger.interrupt is not None:
            self.status = Status.INTERRUPTED
        self.entry.live = self
        self.entry.has_booted = True
        self.entry.phase = Phase.LIVE
        presence = self.runtime.presence
        self._tracked = presence.enter(AGENTS_TOPIC, self.entry.agent_id, functools.partial(self._meta, self.status))
        topic = conversation_topic(self.entry.conversation_id)
        self._forget_viewers = presence.watch_count(topic, self._viewers_changed)
        self.idle.begin(presence.count(topic))
        waiting = self.runtime.subscriptions.get(self.entry.conversation_id)
        if waiting:
            enrol_waiting(self, tuple(waiting))
        expire_later(self)
        self.entry.become_ready()

    def _meta(self, status: Status) -> JSON:
        return {
            "status": status.value,
            "conversation_id": self.entry.conversation_id,
            "last_activity_at": self.last_activity_at.isoformat(),
        }

    # ── what it tells

    @property
    def is_accepting(self) -> bool:
        """Whether it takes commands."""
        return self.entry.phase is Phase.LIVE and not self.has_ended

    @property
    def last_activity_at(self) -> datetime.datetime:
        """The instant of the last activity."""
        return wall_clock() - datetime.timedelta(seconds=trio.current_time() - self.last_activity)

    def feed(self, channel: Channel) -> Feed:
        """Return its events on a channel."""
        feed = self._feeds.get(channel)
        if feed is None:
            entry = self.entry
            feed = self._feeds[channel] = Feed(
                entry.agent_id, entry.conversation_id, self.ledger.incarnation, channel, self.policy.replay_events, self._snapshot
            )
        return feed

    def publish(self, event: Event, channel: Channel = "main") -> None:
        """Tell the subscribers; free of cost for those that do not listen now."""
        if not self.has_ended and (channel == "main" or channel in self._feeds):
            self.feed(channel).publish(event)

    def _snapshot(self, place: Cursor, replaces: Cursor | None) -> Snapshot:
        return snapshot_of(self, place, replaces)

    def _set_status(self, status: Status, data: object, turn_id: str | None) -> None:
        self.status = status
        self.publish(StatusChanged(status, data if isinstance(data, str) else self.ledger.interrupt, turn_id))
        if self._tracked is not None:
            self._tracked.update(functools.partial(self._meta, status))

    # ── what happens to it

    def touch(self) -> None:
        """Renew the idle clock. An assignment: the timer looks at it when it is due."""
        self.last_activity = trio.current_time()

    def wake(self) -> None:
        """Have the agent's task look."""
        if self._wake is not None:
            self._wake.set()
        self._tell_rest()

    def message_came(self, *, interrupts: bool) -> None:
        """A message was accepted."""
        self.touch()
        self.is_released = True
        if self.status is Status.INTERRUPTED and self.ledger.interrupt is None:
            self._set_status(Status.IDLE, None, None)
        if interrupts and self.turn is not None:
            self.turn.cancel(CancelCause.SUPERSEDED)
        self.wake()

    @property
    def is_leaving(self) -> bool:
        """Whether it was asked to leave, or has left."""
        return self.has_ended or self.entry.phase is Phase.STOPPING

    def go_on(self, interrupt: Interrupt, suspended: JSON, used: Usage) -> None:
        """The interrupt is answered, and that is on record: its turn goes on, or is over, where the agent leaves without grace."""
        accepted = self.intake.accepted[interrupt.interrupt_id]
        self.touch()
        turn = Turn(self, interrupt.turn_id, accepted.actor, message_ids=[interrupt.interrupt_id])
        turn.open_again(suspended, used)
        may_begin = self.has_last_turn or not self.is_leaving
        self.has_last_turn = False
        if not (may_begin and self._start(turn, accepted.context)):
            self.turn = turn
            turn.close()

    def finish_work(self) -> None:
        """It was asked to leave, with grace: what was accepted, and what no turn runs for yet, gets its turn."""
        self.has_last_turn = self.turn is None
        self.wake()

    def write_failed(self, error: PersistenceError) -> None:
        """A write was refused: where another writer took over, this agent has no business here any more."""
        if isinstance(error, Conflict) and not self.has_ended:
            self.entry.request_stop(ShutdownReason.FENCED, CancelCause.FENCED, deadline=trio.current_time())

    def _viewers_changed(self, viewers: int) -> None:
        self.idle.viewers_changed(self, viewers)

    def look(self) -> None:
        """The timer says that it may be due to leave."""
        self.idle.look(self)

    # ── its own task

    async def serve(self) -> None:
        """Answer what is queued until it is time to leave.

        Cancellation: the turn is settled by its own task; the caller ends the agent.
        """
        while True:
            # No checkpoint from the look to the close: between the timer and this task others have run, so what counts is what
            # is there now, not what woke us (test_message_at_the_idle_deadline_is_answered).
            if self.turn is None:
                if self.is_leaving and not self.has_last_turn:
                    return
                if self._has_runnable():
                    self.has_last_turn = False
                    self._begin_turn()
                elif self.is_leaving and not self.is_receiving:
                    return
                elif not self.is_leaving and (reason := self._reason_to_leave()) is not None:
                    self.entry.phase = Phase.STOPPING
                    self.entry.reason = reason
                    return
            await self._wait()

    async def _wait(self) -> None:
        self.idle.arm(self)
        self._wake = trio.Event()
        try:
            await self._wake.wait()
        except trio.Cancelled:
            if self.turn is not None:
                self.turn.watch_stuck_tools()
            raise
        finally:
            self._wake = None

    def _has_runnable(self) -> bool:
        return bool(self.ledger.queue) and self.ledger.interrupt is None and (self.is_released or self.status not in HELD)

    def _reason_to_leave(self) -> ShutdownReason | None:
        if self.is_receiving or not self.ledger.is_at_rest:
            return None
        return self.idle.reason_to_leave(self)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing runs, nothing runnable is queued, and nothing is being accepted."""
        return self.turn is None and not self._has_runnable() and not self.is_receiving

    @property
    def is_receiving(self) -> bool:
        """Whether a message or a decision is on its way to the store."""
        return bool(self.intake.flights or self.hooks) or self.landing is not None

    async def wait_idle(self) -> None:
        """Wait until it is at rest; AgentNotRunning where it ended first."""
        while not self.is_at_rest:
            if self.has_ended:
                raise self.entry.not_running()
            if self._rest is None:
                self._rest = trio.Event()
            await self._rest.wait()
        await trio.lowlevel.checkpoint()

    def _tell_rest(self) -> None:
        if self._rest is not None and (self.has_ended or self.is_at_rest):
            self._rest.set()
            self._rest = None

    # ── turns

    def _begin_turn(self) -> None:
        first = next(iter(self.ledger.queue))
        accepted = self.intake.accepted.get(first)
        actor = self.blueprint.scope if accepted is None else accepted.actor
        context = self.runtime.registry.context if accepted is None else accepted.context
        self.is_released = False
        self._start(Turn(self, self.ledger.new_id(), actor), context)

    def _start(self, turn: Turn, context: contextvars.Context) -> bool:
        """Begin a turn; False where the nursery is closed: the agent was cancelled, and waits for its last write alone."""
        try:
            context.run(self.nursery.start_soon, turn.run)
        except RuntimeError:
            return False
        # No checkpoint until it is told: the task has not begun.
        self.turn = turn
        self.publish(TurnStarted(turn.turn_id))
        self._set_status(Status.RUNNING, None, turn.turn_id)
        return True

    def turn_ended(self, turn: Turn, outcome: TurnOutcome, status: Status, data: str | None, unsaved: PersistenceError | None) -> None:
        """The turn has one outcome now, and it is on record unless `unsaved` says why not."""
        self.turn = None
        self._status_after = status
        self.was_cut = isinstance(outcome, Cancelled)
        self.touch()
        if unsaved is not None:
            self.needs_repair = True
            self.publish(ChainError(unsaved, unsaved=True, turn_id=turn.turn_id))
            main = self.feed("main")
            main.publish(self._snapshot(Cursor(main.incarnation, "main", main.seq + 1), None))
        elif isinstance(outcome, Failed):
            self.publish(ChainError(outcome.error, turn_id=turn.turn_id))
        self.publish(TurnEnded(turn.turn_id, outcome))
        self.is_released = False  # what came during a turn that failed is held until the next message
        if not (self.ledger.queue and status not in HELD and self.is_accepting):
            self._set_status(status, data, turn.turn_id)  # a follow-up turn shows no idle in between
        if "debug" in self._feeds and self._feeds["debug"].subscriptions:
            self.publish(AgentStateUpdated(self.ledger.state()), "debug")
        self.intake.settle(turn.message_ids, outcome)
        expire_later(self)
        self.wake()

    # ── ending

    async def wait_settled(self) -> None:
        """Wait, at most `settle_timeout`, until the last submitted write has ended."""
        if not self.ledger.is_at_rest:
            # Cancellation: whoever cancelled the agent waits for this: the id must not be free while a write of it is pending.
            deadline = trio.current_time() + self.policy.settle_timeout
            if self.turn is not None:
                deadline = min(deadline, self.turn.settle_deadline)  # one time for both: the turn has used some of it
            with trio.CancelScope(shield=True, deadline=deadline):
                await self.ledger.wait_at_rest()

    def end(self, reason: ShutdownReason) -> None:
        """Say the last word. Synchronous, and once."""
        self.idle.stop()
        self.ledger.abandon()
        if self.turn is not None:
            self.turn.abandon()
        if self.status is Status.RUNNING:  # a follow-up turn was to come
            self._set_status(self._status_after, None, None)
        if self._feeds:
            say_last_word(self, self._feeds, reason)
        self.has_ended = True
        self.shutdown_reason = reason
        # Both are there from `go_live` on, before which nobody ends it.
        if self._tracked is not None and self._forget_viewers is not None:  # pragma: no branch
            self._tracked.leave()
            self._forget_viewers()
        # What holds it goes, so it is gone with its last handle, and the collector has nothing to find.
        self._feeds.clear()
        if self.expiry is not None:
            self.expiry.cancel()
        self._tracked = self._forget_viewers = self.expiry = None
        self.intake.settle(tuple(self.intake.accepted), Unanswered(reason))
        self.intake.close()
        self._tell_rest()
