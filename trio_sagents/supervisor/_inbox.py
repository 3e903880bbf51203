"""How a message gets in: examined, its place reserved, and submitted, in that order. Then it is accepted, whatever happens to the caller.

What follows the commit runs in the journal's continuation. So a caller that is cancelled leaves either nothing, or a message that
will be answered.
"""

import contextvars
import logging
from collections.abc import Sequence
from typing import Final, Protocol, assert_never

import attrs
import trio

from trio_sagents._trio.hosts import await_host
from trio_sagents._trio.tree import is_within
from trio_sagents.agent import AsyncFunction
from trio_sagents.conversation.checkpoints import Past, message_name
from trio_sagents.conversation.decisions import close_waiting
from trio_sagents.conversation.messages_in import (
    Duplicate,
    OnItsWay,
    Others,
    Place,
    Posted,
    Refused,
    Situation,
    accept,
    check_message_size,
    examine,
    message_size,
    queued_message,
    supersede,
)
from trio_sagents.conversation.outcomes import outcome_of_message, outcome_of_past, takes_part
from trio_sagents.conversation.state import Step
from trio_sagents.conversation.status import Happening
from trio_sagents.data.json import Opaque
from trio_sagents.data.messages import Message, Poster, UserMessage
from trio_sagents.data.outcomes import Interrupted, TurnOutcome, Unanswered
from trio_sagents.data.scopes import Overlap, Scope, UnknownScope
from trio_sagents.data.status import CancelCause, Status
from trio_sagents.exceptions import PersistenceError
from trio_sagents.supervisor._blueprint import Blueprint, PostContext, takes_post_context
from trio_sagents.supervisor._receipts import Accepted, PendingOutcome, Receipt, Receipts
from trio_sagents.supervisor._registry import Entry
from trio_sagents.supervisor._services import Services
from trio_sagents.supervisor._status_board import StatusBoard

log: Final = logging.getLogger("trio_sagents")


class RunningTurn(Protocol):
    """The turn that runs, as the inbox sees it."""

    @property
    def turn_id(self) -> str:
        """The turn's id."""
        ...

    @property
    def continues(self) -> bool:
        """Whether it continues after an interrupt that was decided."""
        ...

    @property
    def message_ids(self) -> Sequence[str]:
        """The messages it took; or, if it continues, the id of the interrupt."""
        ...

    @property
    def ended(self) -> trio.Event:
        """Set when it has ended."""
        ...

    @property
    def outcome(self) -> TurnOutcome | None:
        """How it ends, once that is decided."""
        ...

    @property
    def has_asked(self) -> bool:
        """Whether a call of it waits for a person already."""
        ...

    @property
    def is_halted(self) -> bool:
        """Whether a call has halted it."""
        ...

    def cancel(self, cause: CancelCause) -> None:
        """Cut the turn."""
        ...


class Turns(Protocol):
    """The turns of the agent, as the inbox sees them."""

    @property
    def turn(self) -> RunningTurn | None:
        """The turn that runs."""
        ...

    @property
    def is_at_rest(self) -> bool:
        """Whether no turn runs and none may begin."""
        ...

    def scope_of(self, message_id: str) -> Scope:
        """Return the scope of whoever posted a message that an earlier agent accepted."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether no turn runs, and the end of the last one is on record."""
        ...

    def begin_with(self, message_id: str, turn_id: str, accepted: Accepted) -> None:
        """Begin the turn of a message that was stored as its first."""
        ...


@attrs.define(eq=False)
class Reservation:
    """A message between the look at the queue and the end of its commit: its place in the queue is reserved."""

    digest: str
    ended: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class Inbox:
    """The way into one agent's queue."""

    entry: Entry
    services: Services
    blueprint: Blueprint
    board: StatusBoard
    turns: Turns
    receipts: Receipts
    reserved: dict[str, Reservation] = attrs.field(factory=dict)
    """By message id. While there is a reservation, the agent does not leave by itself."""

    async def post(self, posted: Posted, actor: Scope) -> Receipt:
        """Accept a message.

        Raises:
            AgentNotRunning: the agent takes no more messages; nothing was done.
            AgentBusy, QueueFull, MessageConflict, LimitExceeded: as their names say; nothing was done.
            PersistenceError: the message could not be stored, or the store could not say whether its id is known; the message is not
                acknowledged.

        Cancellation: either nothing was submitted, or the message is accepted and will be answered.
        """
        journal = self.board.journal
        while True:
            past = await self._recall(posted.message_id)
            # No checkpoint from the look to the reservation.
            examined = self._examine(posted, past)
            match examined:
                case Duplicate(message_id=message_id):
                    await trio.lowlevel.checkpoint()
                    pending = self._pending_outcome(message_id) if past is None else PendingOutcome(outcome_of_past(past))
                    return Receipt(message_id, duplicate=True, pending=pending)
                case OnItsWay(message_id=message_id):
                    await self.reserved[message_id].ended.wait()
                case Refused(error=error):
                    raise error
                case Place():
                    break
                case _:
                    assert_never(examined)
        message_id = journal.ids.new() if examined.message_id is None else examined.message_id
        reservation = self._reserve(message_id, posted.digest)
        try:
            seen, shown = await self._preprocess(posted, actor, message_id)
            may_decide = await self._may_decide(posted.overlap, actor)
            if not self.entry.is_accepting:
                raise self.entry.not_running()
            message = queued_message(message_id, seen, posted.digest, self._poster_of(actor))
            context = contextvars.copy_context()
            accepted = Accepted(actor, posted.overlap, context, posted.is_unattended or self._is_unattended(), posted.values, may_decide)
            step = self._step(message, shown, accepted)
            journal.check_room((step.queued or step.messages)[-1])
        except BaseException:
            journal.ids.messages.discard(message_id)
            self._release(message_id, reservation)
            raise
        write = journal.submit(step, lambda error: self._stored(message, accepted, reservation, step.begins, error))
        # Race: the agent may be stopped while this waits. Its id is released only after its last write has ended, so a message
        # that was submitted is on record before the next agent loads (test_post_is_answered_by_the_next_agent).
        await write.wait()
        return Receipt(message_id, duplicate=False, pending=accepted.pending)

    async def _recall(self, message_id: str | None) -> Past | None:
        """Return what the store has under this id before the window; None if it has nothing, or if memory knows the id.

        It checkpoints only if it has to ask the store, and never between the look at the window and the return.
        """
        journal = self.board.journal
        while message_id is not None and journal.state.older and message_id not in journal.ids.messages:
            name, older = message_name(message_id), journal.state.older
            found = await journal.recall((name,))
            # Race: a checkpoint may have left the message to the store while the store was asked: then neither knew the id when it was
            # looked for (test_post_of_an_old_message_while_a_checkpoint_is_made).
            if older == journal.state.older:
                return found.get(name)
        return None

    def _examine(self, posted: Posted, past: Past | None) -> Duplicate | OnItsWay | Refused | Place:
        if not self.entry.is_accepting:
            raise self.entry.not_running()
        journal = self.board.journal
        waits = journal.pending_wait
        situation = Situation(
            self.turns.is_at_rest and not self.board.lifetime.holds,
            {message_id: reservation.digest for message_id, reservation in self.reserved.items()},
            waits is not None and waits.by == "message",
        )
        return examine(journal.identity.conversation_id, journal.state, journal.ids, posted, situation, self.blueprint.policy, past=past)

    def _reserve(self, message_id: str, digest: str) -> Reservation:
        reservation = self.reserved[message_id] = Reservation(digest)
        self.board.journal.ids.messages.add(message_id)
        self.board.lifetime.holds += 1
        return reservation

    def _release(self, message_id: str, reservation: Reservation) -> None:
        del self.reserved[message_id]
        self.board.lifetime.holds -= 1
        reservation.ended.set()
        self.board.journal.bell.ring()

    async def _preprocess(self, posted: Posted, actor: Scope, message_id: str) -> tuple[UserMessage, UserMessage]:
        preprocessor = self.blueprint.preprocessor
        if preprocessor is None:
            await trio.lowlevel.checkpoint_if_cancelled()
            return posted.message, posted.display or posted.message
        more: tuple[Opaque, ...] = ()
        if takes_post_context(preprocessor):
            state, entry = self.board.journal.state.picture(), self.entry
            more = (
                PostContext(
                    entry.conversation_id, entry.agent_id, message_id, state, posted.display, self.blueprint.options, posted.values
                ),
            )
        function: AsyncFunction = preprocessor  # of two or of three parameters
        result = await await_host(function, posted.message, actor, *more)
        pair = result if isinstance(result, tuple) else (result, posted.display or result)
        if len(pair) != 2 or not all(isinstance(part, UserMessage) for part in pair):
            raise TypeError(
                f"message_preprocessor must return a UserMessage, or (seen by the model, seen by people), not {type(result).__name__}"
            )
        for part in pair:
            refused = check_message_size(message_size(part), self.blueprint.policy)
            if refused is not None:
                raise refused.error
        return pair[0], pair[1]

    async def _may_decide(self, overlap: Overlap, actor: Scope) -> bool:
        """Wait until it is known whether the message comes instead of a decision; return whether its sender may decide.

        Whoever may post and not decide does not get past a halt or an approval: their message waits behind it.
        """
        journal = self.board.journal
        asked: bool | None = None
        while True:
            await self._wait_for_interrupt(overlap)
            # No checkpoint from this look to the submission, once it is known.
            if self.services.access.is_synchronous or asked is not None:
                return asked is not False
            if overlap != "interrupt" and journal.state.waiting is None:
                return False
            if isinstance(actor, UnknownScope):
                return False  # posted on another node, by somebody whose scope the host cannot say here
            asked = await self.services.access.allows(actor, self.entry.conversation_id, "decide")

    async def _wait_for_interrupt(self, overlap: Overlap) -> None:
        journal = self.board.journal
        while True:
            waits, turn = journal.pending_wait, self.turns.turn
            if waits is not None and waits.by == "decision":
                await waits.write.wait_ended()
            elif overlap == "interrupt" and turn is not None and isinstance(turn.outcome, Interrupted):
                # The turn is about to wait for people: too late to cut it, and this message must not wait behind what it was to cut.
                await turn.ended.wait()
            else:
                return

    def _is_unattended(self) -> bool:
        """Return whether the caller is a task of an agent: its tool, or its middleware."""
        return is_within(self.services.nursery)

    def _step(self, message: Message, shown: UserMessage, accepted: Accepted) -> Step:
        journal = self.board.journal
        waits = journal.pending_wait
        if not accepted.may_decide or journal.state.waiting is None or (waits is not None and waits.by == "message"):
            others = Others(not self.turns.is_over, len(self.reserved) - 1, waits is not None)
            return accept(journal.moment(), message, shown, accepted.actor, others, is_unattended=accepted.is_unattended)
        return supersede(journal.moment(), message, shown, accepted.actor, self.services.access.actor_of(accepted.actor))

    def _stored(
        self, message: Message, accepted: Accepted, reservation: Reservation, begins: str | None, error: PersistenceError | None
    ) -> None:
        """Runs in the continuation: the message is durable, or it is not. `begins` is the turn that begins with it."""
        board = self.board
        if error is not None:
            board.journal.ids.messages.discard(message.message_id)
        elif board.journal.is_closed:
            accepted.pending.settle(Unanswered(self.entry.shutdown_reason))
        else:
            self.receipts.accepted[message.message_id] = accepted
            board.lifetime.touch()
            board.is_released = board.is_released or not (accepted.is_unattended and board.status is Status.PAUSED)
            if board.status is Status.INTERRUPTED and board.journal.state.waiting is None:
                self.services.origins.pop(self.entry.conversation_id, None)
                board.tell(Happening.LET_GO)
            if begins is not None:
                self.turns.begin_with(message.message_id, begins, accepted)
            turn = None if begins is not None else self.turns.turn  # a message cuts the turn that it finds, and not its own
            # Whoever may not decide does not get past what waits for a person while other calls of the turn still run. A turn that is
            # halted is cut already; when its halt is stored, `supersede_waiting` closes it.
            if accepted.overlap == "interrupt" and turn is not None and not turn.is_halted and (accepted.may_decide or not turn.has_asked):
                turn.cancel(CancelCause.SUPERSEDED)
        self._release(message.message_id, reservation)

    def supersede_waiting(self) -> None:
        """Close what waits, if a message in the queue was to interrupt the turn, and came too late to cut it.

        Race: the message was accepted while the last step of the turn, or its interrupt, was on the way to the store. The agent's task
        calls this when it looks (p15; test_interrupting_post_while_an_interrupt_is_stored).
        """
        journal = self.board.journal
        if journal.state.waiting is None or journal.pending_wait is not None or self.entry.is_leaving:
            return
        for message_id in journal.state.queue:
            accepted = self.receipts.accepted.get(message_id)
            if accepted is not None and accepted.overlap == "interrupt" and accepted.may_decide:
                by = self.services.access.actor_on_record(accepted.actor, self.entry.conversation_id)
                step = close_waiting(journal.moment(), "superseded", CancelCause.SUPERSEDED, by)
                journal.submit(attrs.evolve(step, actor=accepted.actor), self._superseded)
                return

    def _poster_of(self, actor: Scope) -> Poster | None:
        try:
            return self.services.access.poster_of(actor)
        except Exception:  # the boundary to the host's authorizer: a message is not refused for what is needed after a restart only
            log.exception("actor_of failed in conversation %r; the message does not say who posted it", self.entry.conversation_id)
            return None

    def _superseded(self, error: PersistenceError | None) -> None:
        board = self.board
        if error is None and not board.journal.is_closed:
            board.lifetime.touch()
            board.is_released = True
            self.services.origins.pop(self.entry.conversation_id, None)
            board.tell(Happening.LET_GO)

    # ── what became of a message

    def _pending_outcome(self, message_id: str) -> PendingOutcome:
        state, turn = self.board.journal.state, self.turns.turn
        accepted = self.receipts.accepted.get(message_id)
        if accepted is not None:
            return accepted.pending
        if turn is not None and turn.continues and takes_part(state, turn.turn_id, message_id):
            return self.receipts.accepted[turn.message_ids[0]].pending
        if message_id in state.queue or (turn is not None and message_id in turn.message_ids):
            # Left by an earlier agent: this one will answer it.
            accepted = Accepted(self.turns.scope_of(message_id), "queue", self.services.registry.context.copy())
            self.receipts.accepted[message_id] = accepted
            return accepted.pending
        told = self.receipts.outcome_of(message_id)
        if told is None or isinstance(told, Interrupted):  # a turn that waited may have continued since
            told = outcome_of_message(state, message_id)
        return PendingOutcome(told)
