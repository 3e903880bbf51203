"""How a turn ended, reconstructed from its history: for callers that ask again after the turn, or after a restart."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import attrs

from trio_sagents.conversation.checkpoints import Past
from trio_sagents.conversation.failures import error_in
from trio_sagents.conversation.history import finishes_turn
from trio_sagents.conversation.rows import TURN
from trio_sagents.conversation.state import ConversationState
from trio_sagents.data.interrupt_wire import DECISIONS
from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import Message
from trio_sagents.data.outcomes import Cancelled, Completed, Failed, Interrupted, TurnOutcome, Unanswered, Usage, encode_usage, usage_in
from trio_sagents.data.status import CancelCause
from trio_sagents.exceptions import ModelFailed

TurnStatus: TypeAlias = Literal["completed", "cancelled", "failed", "crashed"]
"""How a turn ended, on record. A turn that waits for people has no record yet."""
LOST: Final = "the turn failed, in an earlier life of the agent"


def outcome_of_message(state: ConversationState, message_id: str) -> TurnOutcome:
    """Return how the turn ended that took a message."""
    turn_id = next((message.turn_id for message in reversed(state.messages) if message.message_id == message_id), None)
    if state.waiting is not None and state.waiting.interrupt.turn_id == turn_id and state.interrupt is not None:
        return Interrupted(state.interrupt)
    return outcome_of_turn(state.messages, turn_id)


def outcome_of_turn(messages: Sequence[Message], turn_id: str | None) -> TurnOutcome:
    """Return how a turn ended; `Unanswered` if its history does not tell."""
    last = next((message for message in reversed(messages) if message.role == "assistant" and message.turn_id == turn_id), None)
    if turn_id is None or last is None:
        return Unanswered("cut")
    record = _record_of(last)
    if record.get("status") == "failed":
        return Failed(error_in(record.get("error")) or ModelFailed(LOST))
    if finishes_turn(last):
        return Completed(last, usage_in(record.get("usage")) or usage_of(last))
    if last.stop_reason == "cancelled":
        cause = last.metadata.get("cause")
        return Cancelled(CancelCause(cause) if cause in set(CancelCause) else CancelCause.HOST_CANCELLED)
    if last.stop_reason == "stream_error":
        return Failed(ModelFailed(LOST))
    return Unanswered("crashed")


def outcome_of_past(past: Past) -> TurnOutcome:
    """Return how the turn ended of a message that has left the window."""
    return outcome_of_turn((past.last,), past.message.turn_id)


def turn_of_decision(state: ConversationState, call_id: str) -> str | None:
    """Return the id of the turn that a decision let continue; None if the decision is not on record."""
    decided = {root for root, records in state.open_decisions.items() if any(record.call_id == call_id for record in records)}
    for message in reversed(state.messages):
        on_record = {record["call_id"] for record in message.metadata.get(DECISIONS, ())} if message.role == "tool" else set()
        if call_id in on_record or decided & {call.call_id for call in message.calls}:
            return message.turn_id
    return None


def takes_part(state: ConversationState, turn_id: str, message_id: str) -> bool:
    """Return whether a turn took a message."""
    return any(message.message_id == message_id and message.turn_id == turn_id for message in state.messages)


@attrs.frozen
class Totals:
    """What a turn did, from its beginning: over interrupts, and with its sub-agents as far as the usage goes."""

    rounds: int = 0
    """Model calls of the agent itself that were begun."""
    calls: int = 0
    """Tool calls that the agent itself asked for."""
    usage: Usage = attrs.field(factory=Usage)
    """The usage of all model calls, with those of sub-agents and of middleware, such as summaries."""


def totals_of(messages: Sequence[Message], turn_id: str | None, used: Usage | None = None) -> Totals:
    """Return what a turn did, as far as its history tells.

    Args:
        messages: the history; the turn is its last one.
        turn_id: the turn.
        used: the usage, if it is known from elsewhere; None adds up what the answers cost.
    """
    totals = Totals()
    for message in reversed(messages):
        if message.turn_id != turn_id:
            break
        if message.role == "assistant":
            totals = Totals(totals.rounds + 1, totals.calls + len(message.calls), totals.usage + usage_of(message))
    return totals if used is None else attrs.evolve(totals, usage=used)


def turn_record(status: TurnStatus, totals: Totals, error: JSON | None = None) -> JSON:
    """Return the record of a turn, for the metadata of its last answer: {"status", "rounds", "calls", "usage"}, and "error"."""
    record: dict[str, JSONValue] = {
        "status": status,
        "rounds": totals.rounds,
        "calls": totals.calls,
        "usage": encode_usage(totals.usage),
    }
    return record if error is None else {**record, "error": error}


def with_record(message: Message, record: JSON) -> Message:
    """Return the last answer of a turn with the record of the turn."""
    return attrs.evolve(message, metadata={**message.metadata, TURN: record})


def without_record(message: Message) -> Message:
    """Return an answer that is not the last one of its turn: a record in it was copied from another turn."""
    if TURN not in message.metadata:
        return message
    return attrs.evolve(message, metadata={key: value for key, value in message.metadata.items() if key != TURN})


def _record_of(message: Message) -> JSON:
    record = message.metadata.get(TURN)
    return record if isinstance(record, Mapping) else {}


def with_usage(message: Message, usage: Usage) -> Message:
    """Return an answer with what it cost in its metadata."""
    if usage == Usage():
        return message
    return attrs.evolve(message, metadata={**message.metadata, "usage": encode_usage(usage)})


def usage_of(message: Message) -> Usage:
    """Return what a stored answer cost; nothing if it does not say, or says nothing that can be read."""
    return usage_in(message.metadata.get("usage")) or Usage()
