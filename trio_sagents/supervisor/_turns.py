"""The turns of one agent, one after the other: how a turn begins, runs, is cut and settled, and ends.

Whatever ends it, a turn ends once: with one outcome, in the continuation of its last commit. A turn whose model and tools had
finished is completed, even if a cancellation came during that commit. When a turn is cut, what was said and done is kept in one
commit, in bounded time: if the store does not answer within `settle_timeout`, the turn ends as failed, and what the store says later
is shown when it comes.
"""

import contextvars
import logging
import math
from collections.abc import Mapping
from typing import Final

import attrs
import trio

from trio_sagents._trio.failures import log_failure
from trio_sagents._trio.groups import leaves, must_exit, split
from trio_sagents._trio.timers import Timer
from trio_sagents.agent import EXPECTED, Pipeline, run_turn
from trio_sagents.conversation.messages_in import poster_of_turn
from trio_sagents.conversation.status import Happening, happening_of
from trio_sagents.conversation.turn_steps import TurnRecord
from trio_sagents.data.errors import public_text, source_of
from trio_sagents.data.events import AgentStateUpdated, ChainError, ToolIgnoresCancellation, TurnEnded, TurnStarted
from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.json import JSON, Options
from trio_sagents.data.messages import FROM_TOOL, Poster
from trio_sagents.data.outcomes import Cancelled, Failed, Interrupted, TurnOutcome, Usage
from trio_sagents.data.scopes import Scope
from trio_sagents.data.status import HELD, CancelCause
from trio_sagents.exceptions import MiddlewareError, PersistenceError
from trio_sagents.supervisor._host import Host
from trio_sagents.supervisor._live_turn import LiveTurn
from trio_sagents.supervisor._receipts import Accepted, Receipts
from trio_sagents.supervisor._services import Origin
from trio_sagents.supervisor._status_board import StatusBoard

log: Final = logging.getLogger("trio_sagents")
THREADS: Final = 40
"""Threads that one agent may have at once."""


def _nothing(_error: PersistenceError | None) -> None:
    """Stands for the end of a turn that has ended."""


@attrs.define(eq=False)
class Turn:
    """A turn that runs: a task in the agent's nursery."""

    work: LiveTurn
    pipeline: Pipeline
    context: contextvars.Context
    """The context variables with which the turn runs."""
    cancel_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Around the turn alone: the agent survives it."""
    cause: CancelCause | None = None
    """Why the turn is being cancelled; the first cause wins."""
    ended: trio.Event = attrs.field(factory=trio.Event)
    told: TurnOutcome | None = None
    """The outcome as everybody was told; it differs from that of `work` if the store did not answer in time."""
    settle_deadline: float = math.inf
    """Until when the end of the turn may take to be saved, once the turn has come to its end."""
    _stuck_timer: Timer | None = None
    """Names the tools that ignore the cancellation."""

    @property
    def turn_id(self) -> str:
        """The turn's id."""
        return self.work.turn_id

    @property
    def continues(self) -> bool:
        """Whether the turn continues after an interrupt that was decided."""
        return self.work.continues

    @property
    def message_ids(self) -> list[str]:
        """The messages that the turn took; or, if it continues, the id of the interrupt."""
        return self.work.message_ids

    @property
    def has_asked(self) -> bool:
        """Whether a call of the turn waits for a person already."""
        return bool(self.work.progress.waiting())

    @property
    def is_halted(self) -> bool:
        """Whether a call has halted the turn: it ends as interrupted when the calls that run have ended."""
        return self.work.progress.halt.is_set

    @property
    def outcome(self) -> TurnOutcome | None:
        """How the turn ends, once that is decided."""
        return self.work.outcome if self.told is None else self.told

    async def run(self) -> None:
        """Run to the end and settle; a task in the agent's nursery."""
        error: BaseException | None = None
        onward: BaseException | None = None
        try:
            try:
                with self.cancel_scope:
                    if not self.message_ids:
                        await self.work.take(tuple(self.work.journal.state.queue.values()), is_first=True)
                    await run_turn(self.pipeline, self.work)
            except BaseException as exc:  # noqa: ASYNC103, BLE001  # settled below, then raised again unless it is an expected outcome
                error, onward = split(exc)
                if error is not None and all(isinstance(leaf, EXPECTED) for leaf in leaves(error)):
                    error = leaves(error)[0]  # of several tools that could not be kept, the first tells enough
            self._log(error, onward)
            await self._settle(error, onward)
            if onward is not None:
                raise onward
            if error is not None and not isinstance(error, EXPECTED):
                raise error
        finally:
            del error, onward  # they hold this frame, which holds them

    def _log(self, error: BaseException | None, onward: BaseException | None) -> None:
        """Log what ended the turn, unless it was logged where it was raised, or crashes the agent, which is logged there."""
        where = (self.turn_id, self.work.conversation_id)
        if isinstance(error, MiddlewareError):
            log_failure(logging.ERROR, error, "a middleware failed in turn %r of conversation %r", *where)
        elif error is not None and onward is not None:
            log_failure(logging.ERROR, error, "turn %r of conversation %r raised while it was cancelled", *where)

    def cancel(self, cause: CancelCause) -> None:
        """Cut the turn; the agent survives. The first cause wins."""
        self.cause = self.cause or cause
        if not self.cancel_scope.cancel_called:
            self.cancel_scope.cancel()
            self.watch_stuck_tools()

    def watch_stuck_tools(self) -> None:
        """Name the tools that still run `cancel_grace` after the turn was cut."""
        if self._stuck_timer is None:
            deadline = trio.current_time() + self.work.blueprint.policy.cancel_grace
            self._stuck_timer = self.work.services.timers.call_at(deadline, self._name_stuck_tools)

    def _name_stuck_tools(self) -> None:
        # The end of the turn takes its timer away.
        if not self.ended.is_set():  # pragma: no branch
            for opened in self.work.progress.open_calls.values():
                if opened.status == "executing" and not opened.in_thread and opened.result is None:
                    self.work.publish(ToolIgnoresCancellation(attrs.evolve(opened.call, status="executing"), self.turn_id))

    def stop_watching(self) -> None:
        """The turn has ended."""
        if self._stuck_timer is not None:
            self._stuck_timer.cancel()
            self._stuck_timer = None

    async def _settle(self, error: BaseException | None, onward: BaseException | None) -> None:
        work = self.work
        work.stop_drafts()
        if work.outcome is None:
            if work.failed is not None:
                # Memory is back at the last commit: what would close the turn closes steps that do not exist.
                work.outcome = Failed(work.failed)
                work.on_end(work.failed)
                return
            if must_exit(onward):
                self.cause = self.cause or CancelCause.HOST_FAILED
            self.close(error)
        # A turn has an outcome by its last write alone.
        if work.last_write is None or work.last_write.has_ended:
            return
        # Cancellation: the host's, a stop's or the turn's own; what was said and done is kept all the same, in bounded time.
        self.settle_deadline = trio.current_time() + work.blueprint.policy.settle_timeout
        with trio.CancelScope(shield=True, deadline=self.settle_deadline):
            await work.last_write.wait_ended()
        self.give_up()

    def close(self, error: BaseException | None = None) -> None:
        """Submit what closes the turn as it is now: as cut, or as failed by `error`."""
        if error is None:
            self.work.close(Cancelled(self.cause or self.work.entry.cause or CancelCause.HOST_CANCELLED))
        else:
            self.work.close(Failed(error if isinstance(error, Exception) else RuntimeError(repr(error))))

    def give_up(self) -> None:
        """The store did not answer within `settle_timeout`: nobody knows whether the end of the turn is on record."""
        # A turn that has ended is its agent's no more.
        if not self.ended.is_set():  # pragma: no branch
            conversation_id = self.work.conversation_id
            error = PersistenceError(
                f"the store did not answer within settle_timeout while a turn of conversation {conversation_id!r} was settled; what the "
                "turn said last may be stored, or not"
            )
            error.source = f"store {self.work.services.commits.store.name}"
            self.work.on_end(error)


@attrs.define(eq=False)
class Turns:
    """The turn that runs, and how the next one begins."""

    host: Host
    pipeline: Pipeline
    board: StatusBoard
    receipts: Receipts
    posters: Mapping[Poster | None, Scope]
    """The scopes of those who posted what an earlier agent accepted, as the boot has restored them."""
    turn: Turn | None = None
    """The turn that runs, until its last commit is durable."""
    was_cut: bool = False
    """Whether the last turn was cut."""
    has_last_turn: bool = False
    """Whether one more turn may begin before the agent leaves: for what was accepted before it was asked to leave, with grace."""
    unattended: int = 0
    """How many turns have followed each other that no person started."""
    patience: float = math.inf
    """Until when the store was waited for at the end of a turn that was given up; `math.inf` once it has answered."""
    _untold: Happening | None = None
    """How the last turn ended, if a follow-up turn begins at once: viewers see no other status between the two."""
    _threads: trio.CapacityLimiter | None = None

    @property
    def is_at_rest(self) -> bool:
        """Whether no turn runs, and none is to run with what is queued."""
        return self.turn is None and not self.board.may_begin(self.host.journal.state)

    @property
    def may_begin(self) -> bool:
        """Whether a turn may begin with what is queued."""
        return self.is_over and self.board.may_begin(self.host.journal.state)

    @property
    def is_over(self) -> bool:
        """Whether no turn runs, and the end of the last one is on record.

        Race: a message may be durable before the end of a turn that was given up. A turn that began between the two would close what
        that end closes, too (test_turn_begins_after_the_end_of_a_turn_that_was_given_up).
        """
        return self.turn is None and math.isinf(self.patience)

    def threads(self) -> trio.CapacityLimiter:
        """Return the limiter of tools that are plain functions. The agent's own: stuck threads keep no other agent waiting."""
        if self._threads is None:
            self._threads = trio.CapacityLimiter(THREADS)
        return self._threads

    def begin(self) -> None:
        """Begin a turn with what is queued."""
        journal = self.host.journal
        if not self._may_attend():
            self._untold = None
            self.board.tell(Happening.PAUSED)
            return
        first = next(iter(journal.state.queue))
        accepted = self.receipts.accepted.get(first)
        actor = self.scope_of(first) if accepted is None else accepted.actor
        context = self.host.services.registry.context if accepted is None else accepted.context
        turn = self._new(TurnRecord(journal.ids.new(), actor), context)
        turn.work.given = {} if accepted is None else accepted.values
        self.board.is_released = False
        self._start(turn)

    def _may_attend(self) -> bool:
        """Count a turn that no person started; return False if there were too many of them."""
        queue = self.host.journal.state.queue
        accepted = [self.receipts.accepted.get(message_id) for message_id in queue]
        if any(each is None or not each.is_unattended for each in accepted):
            self.unattended = 0
            return True
        if self.unattended >= self.host.blueprint.policy.max_unattended_turns:
            log.warning(
                "conversation %r waits for a person: %d turns in a row were started by tools or middleware (max_unattended_turns)",
                self.host.conversation_id,
                self.unattended,
            )
            return False
        self.unattended += 1
        return True

    def carry_on(self, interrupt: Interrupt, suspended: JSON, used: Usage, accepted: Accepted) -> None:
        """An interrupt is decided, and that is on record: its turn continues; or it is over, if the agent leaves without grace."""
        self.receipts.accepted[interrupt.interrupt_id] = accepted
        self.board.lifetime.touch()
        # It continues as the turn of whoever began it. Whoever decided is on record, and nothing runs in their name.
        actor, context, values = self._beginning_of(interrupt.turn_id)
        turn = self._new(TurnRecord(interrupt.turn_id, actor), context)
        turn.work.given = values
        turn.work.message_ids.append(interrupt.interrupt_id)
        turn.work.open_again(suspended, used)
        self._start_or_close(turn)

    def begin_with(self, message_id: str, turn_id: str, accepted: Accepted) -> None:
        """A message that a person posted is on record as the first of a turn: the turn begins.

        If the agent leaves without grace, the turn is over at once: it is closed as every turn that the leaving cuts.
        """
        self.unattended = 0
        turn = self._new(TurnRecord(turn_id, accepted.actor), accepted.context)
        turn.work.given = accepted.values
        turn.work.message_ids.append(message_id)
        self._start_or_close(turn)

    def _start_or_close(self, turn: Turn) -> None:
        """Start a turn that is on record already; or close it, if the agent leaves without grace."""
        may_begin = self.has_last_turn or not self.host.entry.is_leaving
        self.has_last_turn = False
        if may_begin and self._start(turn):
            return
        self.turn = turn
        if not turn.continues:
            self._tell_begun(turn)
        turn.close()

    def continue_cut(self, turn_id: str) -> None:
        """Continue a turn that a crash has cut, as the turn of whoever began it. Its open calls run, or wait for people."""
        journal = self.host.journal
        actor, context, values = self._beginning_of(turn_id)
        turn = self._new(TurnRecord(turn_id, actor), context)
        turn.work.given = values
        turn.work.open_again({}, Usage())
        said = [each for each in journal.state.messages if each.turn_id == turn_id and each.role == "user"]
        turn.work.message_ids.extend(each.message_id for each in said if FROM_TOOL not in each.metadata)
        # Whoever posts one of these messages again waits for this turn.
        self.receipts.accepted.update({message_id: Accepted(actor, "queue", context) for message_id in turn.work.message_ids[:1]})
        self._start(turn)

    def scope_of(self, message_id: str) -> Scope:
        """Return the scope of whoever posted a message that an earlier agent accepted, as the boot has restored it."""
        state = self.host.journal.state
        message = state.queue.get(message_id) or next(each for each in reversed(state.messages) if each.message_id == message_id)
        return self.posters.get(message.posted_by, self.host.scope)

    def _beginning_of(self, turn_id: str) -> tuple[Scope, contextvars.Context, Options]:
        """Return the scope, the context variables and the values of the post that began a turn.

        After a restart the scope is what the boot has restored, and there are no values.
        """
        services = self.host.services
        origin = services.origins.get(self.host.conversation_id)
        if origin is not None and origin.turn_id == turn_id:
            return origin.actor, origin.context, origin.values
        poster = poster_of_turn(self.host.journal.state.messages, turn_id)
        return self.posters.get(poster, self.host.scope), services.registry.context, {}

    def _new(self, record: TurnRecord, context: contextvars.Context) -> Turn:
        host = self.host
        work = LiveTurn(
            host.entry,
            host.services,
            host.blueprint,
            host.journal,
            host.nursery,
            record=record,
            receipts=self.receipts,
            limiter=self.threads,
            on_end=lambda error: self._ended(turn, error),
        )
        turn = Turn(work, self.pipeline, context)
        return turn

    def _start(self, turn: Turn) -> bool:
        """Start a turn; False if the nursery is closed: the agent was cancelled, and waits for its last write alone."""
        try:
            turn.context.run(self.host.nursery.start_soon, turn.run)
        except RuntimeError:
            return False
        # No checkpoint until the status is told: the task has not begun.
        self.turn = turn
        self._tell_begun(turn)
        return True

    def _tell_begun(self, turn: Turn) -> None:
        self._untold = None
        self.host.publish(TurnStarted(turn.turn_id))
        self.board.tell(Happening.BEGAN, turn.turn_id)

    def _ended(self, turn: Turn, unsaved: PersistenceError | None) -> None:
        """The one end of a turn. Synchronous: outcome, status, events and answers are one step."""
        if turn.ended.is_set():
            self._stored_late(turn, unsaved)
            return
        work = turn.work
        outcome = Failed(unsaved) if unsaved is not None else work.outcome
        assert outcome is not None
        work.progress.draft = None
        work.progress.open_calls = {}
        turn.told = outcome
        turn.ended.set()
        turn.stop_watching()
        if work.is_ending:
            self.patience = turn.settle_deadline
        else:
            work.on_end = _nothing  # it holds the turn, which holds the work
        self.pipeline.turn_ended(outcome, work, turn.turn_id)
        self.turn = None
        self.was_cut = isinstance(outcome, Cancelled)
        self.board.lifetime.touch()
        self._tell_end(turn, outcome, unsaved)
        self.receipts.settle(work.message_ids, outcome)
        self.host.journal.bell.ring()

    def _tell_end(self, turn: Turn, outcome: TurnOutcome, unsaved: PersistenceError | None) -> None:
        host, journal = self.host, self.host.journal
        if isinstance(outcome, Interrupted):
            origin = Origin(turn.turn_id, host.scope, turn.work.record.actor, turn.context, turn.work.given)
            host.services.remember_origin(host.conversation_id, origin)
        else:
            host.services.origins.pop(host.conversation_id, None)
        if isinstance(outcome, Failed):
            source = source_of(outcome.error) or turn.work.progress.culprit
            host.publish(ChainError(outcome.error, unsaved=unsaved is not None, turn_id=turn.turn_id, source=source))
        if unsaved is not None:
            journal.publish_snapshot()
        host.publish(TurnEnded(turn.turn_id, outcome, usage_by_model=dict(turn.work.progress.usage_by_model)))
        happening = happening_of(outcome)
        self.board.is_released = False  # what came during a turn that failed is held until the next message
        if journal.state.queue and self.board.following(happening) not in HELD and host.entry.is_accepting:
            self._untold = happening  # a follow-up turn begins at once
        else:
            self.board.tell(happening, turn.turn_id, public_text(outcome.error) if isinstance(outcome, Failed) else None)
        journal.publish_debug(lambda: AgentStateUpdated(host.state()))

    def _stored_late(self, turn: Turn, unsaved: PersistenceError | None) -> None:
        """The end of a turn that was given up is on record after all: show what there is, unless something else runs by now."""
        turn.work.on_end = _nothing
        self.patience = math.inf
        if unsaved is None and self.turn is None and turn.work.outcome is not None:
            self.board.tell(happening_of(turn.work.outcome), turn.turn_id)

    def tell_untold(self) -> None:
        """The agent ends, and the follow-up turn does not begin: tell how the last turn ended."""
        if self._untold is not None:
            happening, self._untold = self._untold, None
            self.board.tell(happening)
