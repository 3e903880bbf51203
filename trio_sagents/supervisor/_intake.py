"""How a message gets in: checked, its place reserved, and submitted, in that order; then it is accepted, whatever happens to the caller.

What follows the commit (memory, events, the agent's wake-up) runs in the writer's continuation. So a caller that is cancelled
leaves either nothing, or a message that will be answered.
"""

import contextvars
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from trio_sagents._trio.hosts import await_host
from trio_sagents.data.events import DisplayMessageSaved, Event, MessageQueued
from trio_sagents.conversation.history import finishes_turn
from trio_sagents.data.ids import check_id
from trio_sagents.data.json import canonical
from trio_sagents.data.messages import Message, UserMessage
from trio_sagents.data.outcomes import Cancelled, Completed, Failed, Interrupted, TurnOutcome, Unanswered, Usage
from trio_sagents.data.records import Saved
from trio_sagents.conversation.rows import rows_of
from trio_sagents.data.scopes import Overlap, Scope
from trio_sagents.data.status import CancelCause
from trio_sagents.data.wire import encode_part
from trio_sagents.exceptions import AgentBusy, LimitExceeded, MessageConflict, ModelFailed, PersistenceError, QueueFull
from trio_sagents.supervisor._change import Change
from trio_sagents.supervisor._decisions import closing_change
from trio_sagents.supervisor._ledger_checks import content_digest
from trio_sagents.supervisor._receipt import Answer, Receipt
from trio_sagents.supervisor._registry import Entry
from trio_sagents.supervisor._runtime import wall_clock

if TYPE_CHECKING:
    from trio_sagents.supervisor._live import LiveAgent


@attrs.frozen
class Posted:
    """One `post`, checked."""

    message: UserMessage
    message_id: str | None
    overlap: Overlap
    digest: str
    size: int

    @classmethod
    def of(cls, message: str | UserMessage, message_id: str | None, overlap: Overlap) -> "Posted":
        """Check what a caller hands in.

        Raises:
            TypeError, ValueError: it cannot be meant.
        """
        if not isinstance(message, UserMessage):
            if not isinstance(message, str):
                raise TypeError(f"message must be a str or a UserMessage, not {type(message).__name__}")
            message = UserMessage(message)
        if message_id is not None:
            check_id("message_id", message_id)
        if overlap not in {"queue", "steer", "interrupt", "reject"}:
            raise ValueError(f'overlap must be "queue", "steer", "interrupt" or "reject", not {overlap!r}')
        parts = [encode_part(part) for part in message.parts]
        return cls(message, message_id, overlap, content_digest(parts, message.metadata), message_size(message))


def message_size(message: UserMessage) -> int:
    """Return the bytes of what a message says, in UTF-8."""
    said = sum(len(value.encode()) for part in message.parts for value in attrs.astuple(part) if value is not None)
    return said + (len(canonical(message.metadata).encode()) if message.metadata else 0)


@attrs.define(eq=False)
class Accepted:
    """What is not stored of a message in the queue."""

    actor: Scope = attrs.field(repr=False)
    overlap: Overlap
    context: contextvars.Context
    """Of the call that posted it."""
    answer: Answer


@attrs.define(eq=False)
class Flight:
    """A message between the look at the queue and the end of its commit: its place is reserved."""

    digest: str
    landed: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class Intake:
    """The way into one agent's queue."""

    entry: Entry
    _live: "LiveAgent | None" = attrs.field(repr=False)
    """The agent; None once it has ended and nothing of it is on its way to the store."""
    accepted: dict[str, Accepted] = attrs.field(factory=dict)
    """By message id: what a turn has not taken to its end yet."""
    flights: dict[str, Flight] = attrs.field(factory=dict)
    """By message id: reservations; while there is one, the agent does not leave by itself."""
    is_superseding: bool = False
    """Whether a message on its way closes the open interrupt."""

    @property
    def live(self) -> "LiveAgent":
        """The agent, for what was claimed from it."""
        assert self._live is not None
        return self._live

    def close(self) -> None:
        """The agent has ended: let go of it, as soon as nothing of it is in flight."""
        if self.live.has_ended and not self.flights:
            self._live = None

    async def post(self, posted: Posted, actor: Scope) -> Receipt:
        """Accept a message.

        Raises:
            AgentNotRunning: the agent takes no more; nothing was done.
            AgentBusy, QueueFull, MessageConflict, LimitExceeded: as their names say; nothing was done.
            PersistenceError: it could not be stored; it is not acknowledged.

        Cancellation: either nothing was submitted, or the message is accepted and will be answered.
        """
        while True:
            # No checkpoint from the look to the reservation.
            claimed = self._claim(posted)
            if isinstance(claimed, Receipt):
                await trio.lowlevel.checkpoint()
                return claimed
            if isinstance(claimed, Flight):
                await claimed.landed.wait()
                continue
            break
        message_id = claimed
        flight = self.flights[message_id] = Flight(posted.digest)
        self.live.ledger.ids.add(message_id)
        try:
            seen, shown = await self._preprocess(posted, actor)
            while (landing := self._to_land(posted.overlap)) is not None:
                await landing.wait()
            if not self.live.is_accepting:
                raise self.live.entry.not_running()
            message = Message(message_id, "user", seen.parts, None, None, seen.metadata, posted.digest)
            self.live.ledger.check_room(message)
        except BaseException:
            self.live.ledger.ids.discard(message_id)
            self._land(message_id, flight)
            raise
        answer = Answer()
        accepted = Accepted(actor, posted.overlap, contextvars.copy_context(), answer)
        change, closes = self._change(message, Message(message_id, "user", shown.parts, None, None, shown.metadata), actor)
        write = self.live.ledger.submit(change, lambda saved, error: self._landed(message, accepted, flight, closes, saved, error))
        # Race: the agent may be stopped while this waits. Its id is released only after its last write has ended, so a message
        # that was submitted is on record before the next agent loads (test_post_is_answered_by_the_next_agent).
        await write.wait()
        return Receipt(message_id, duplicate=False, answer=answer)

    def _to_land(self, overlap: Overlap) -> trio.Event | None:
        """Return what has to be on record before it is known whether a message comes instead of an answer; None where that is known."""
        if self.live.landing is not None:
            return self.live.landing  # a decision is on its way
        turn = self.live.turn
        # An interrupt is on its way: too late to cut the turn, and this message is not to wait behind what it was to cut.
        return turn.ended if turn is not None and overlap == "interrupt" and isinstance(turn.outcome, Interrupted) else None

    def _claim(self, posted: Posted) -> "Receipt | Flight | str":
        """Return the receipt of the same message, the flight to wait for, or the id under which to accept it."""
        if self._live is None or not self._live.is_accepting:
            raise self.entry.not_running()
        live, ledger = self._live, self._live.ledger
        message_id = posted.message_id
        if message_id is not None:
            known = ledger.message_ids.get(message_id)
            flight = self.flights.get(message_id)
            digest = known if known is not None else flight.digest if flight is not None else posted.digest
            if digest != posted.digest:
                raise MessageConflict(ledger.conversation_id, message_id)
            if known is not None:
                return Receipt(message_id, duplicate=True, answer=self._answer_of(message_id))
            if flight is not None:
                return flight
            if message_id in ledger.ids:
                raise MessageConflict(ledger.conversation_id, message_id)  # it is the id of an answer
        if posted.overlap == "reject" and not live.is_at_rest:
            raise AgentBusy(ledger.conversation_id)
        supersedes = ledger.interrupt is not None and not self.is_superseding and not self.flights
        if len(ledger.queue) + len(self.flights) >= live.policy.queue_limit and not supersedes:  # what waits behind an interrupt is let go
            raise QueueFull(ledger.conversation_id, live.policy.queue_limit)
        if posted.size > live.policy.max_message_bytes:
            raise LimitExceeded("max_message_bytes", posted.size, most=live.policy.max_message_bytes)
        return message_id if message_id is not None else ledger.new_id()

    async def _preprocess(self, posted: Posted, actor: Scope) -> tuple[UserMessage, UserMessage]:
        preprocessor = self.live.blueprint.preprocessor
        if preprocessor is None:
            await trio.lowlevel.checkpoint_if_cancelled()
            return posted.message, posted.message
        result = await await_host(preprocessor, posted.message, actor)
        pair = result if isinstance(result, tuple) else (result, result)
        if len(pair) != 2 or not all(isinstance(one, UserMessage) for one in pair):
            raise TypeError(
                f"message_preprocessor must return a UserMessage, or (seen by the model, seen by people), not {type(result).__name__}"
            )
        for one in pair:
            if (size := message_size(one)) > self.live.policy.max_message_bytes:
                raise LimitExceeded("max_message_bytes", size, most=self.live.policy.max_message_bytes)
        return pair[0], pair[1]

    def _change(self, message: Message, shown: Message, actor: Scope) -> tuple[Change, Sequence[Event]]:
        live = self.live
        base = Change(lifecycle="on_message")
        closes: Sequence[Event] = ()
        if live.ledger.interrupt is not None and not self.is_superseding:
            # A message instead of an answer: the same commit that accepts it closes what waited for the answer.
            self.is_superseding = True
            by = live.runtime.access.actor_of(actor)
            base, closes = closing_change(live.ledger, "superseded", CancelCause.SUPERSEDED, by, {})
        now = wall_clock()
        change = attrs.evolve(
            base,
            actor=actor,
            queued=(message,),
            new_ids={message.message_id: message.digest or ""},
            shown=(*base.shown, shown),
            rows=(*base.rows, *rows_of(shown, now)),
        )
        return change, closes

    def _landed(
        self,
        message: Message,
        accepted: Accepted,
        flight: Flight,
        closes: Sequence[Event],
        saved: Saved | None,
        error: PersistenceError | None,
    ) -> None:
        """Runs in the writer: the message is durable, or it is not."""
        live = self.live
        if closes:
            self.is_superseding = False
        if saved is None:
            assert error is not None
            live.ledger.ids.discard(message.message_id)
            live.write_failed(error)
        elif live.has_ended:
            accepted.answer.settle(Unanswered(live.shutdown_reason))
        else:
            self.accepted[message.message_id] = accepted
            for row in saved.new:
                live.publish(DisplayMessageSaved(row))
            for event in closes:
                live.publish(event)
            live.publish(MessageQueued(message))
            live.message_came(interrupts=accepted.overlap == "interrupt")
        self._land(message.message_id, flight)

    def _land(self, message_id: str, flight: Flight) -> None:
        del self.flights[message_id]
        flight.landed.set()
        self.live.wake()
        self.close()

    def settle(self, message_ids: Sequence[str], outcome: TurnOutcome) -> None:
        """Tell whoever waits for the answers to these messages."""
        for message_id in message_ids:
            accepted = self.accepted.pop(message_id, None)
            if accepted is not None:
                accepted.answer.settle(outcome)

    def _answer_of(self, message_id: str) -> Answer:
        accepted = self.accepted.get(message_id)
        if accepted is not None:
            return accepted.answer
        turn = self.live.turn
        if turn is not None and turn.goes_on and self._took(turn.turn_id, message_id):
            return self.accepted[turn.message_ids[0]].answer
        if message_id in self.live.ledger.queue or (
            turn is not None and message_id in turn.message_ids
        ):  # left by an earlier agent: this one will answer it
            accepted = Accepted(self.live.blueprint.scope, "queue", self.live.runtime.registry.context.copy(), Answer())
            self.accepted[message_id] = accepted
            return accepted.answer
        return Answer(self._outcome_of(message_id))

    def _took(self, turn_id: str, message_id: str) -> bool:
        return any(message.message_id == message_id and message.turn_id == turn_id for message in self.live.ledger.messages)

    def _outcome_of(self, message_id: str) -> TurnOutcome:
        messages, interrupt = self.live.ledger.messages, self.live.ledger.interrupt
        turn_id = next((message.turn_id for message in reversed(messages) if message.message_id == message_id), None)
        if interrupt is not None and interrupt.turn_id == turn_id:
            return Interrupted(interrupt)
        return outcome_of_turn(messages, turn_id)


def outcome_of_turn(messages: Sequence[Message], turn_id: str | None) -> TurnOutcome:
    """Return how a turn ended, as far as the history tells."""
    last = next((one for one in reversed(messages) if one.role == "assistant" and one.turn_id == turn_id), None)
    if turn_id is None or last is None:
        return Unanswered("cut")
    if finishes_turn(last):
        return Completed(last, Usage())
    if last.stop_reason == "cancelled":
        cause = last.metadata.get("cause")
        return Cancelled(CancelCause(cause) if cause in set(CancelCause) else CancelCause.HOST_CANCELLED)
    if last.stop_reason == "stream_error":
        return Failed(ModelFailed("the turn failed, in an earlier life of the agent"))
    return Unanswered("crashed")
