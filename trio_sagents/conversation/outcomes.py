"""How a turn ended, as far as its history tells: for whoever asks again after the turn, or after a restart."""

from collections.abc import Sequence

import attrs

from trio_sagents.conversation.history import finishes_turn
from trio_sagents.conversation.state import ConversationState
from trio_sagents.data.interrupt_wire import DECISIONS
from trio_sagents.data.messages import Message
from trio_sagents.data.outcomes import Cancelled, Completed, Failed, Interrupted, TurnOutcome, Unanswered, Usage, encode_usage, usage_in
from trio_sagents.data.status import CancelCause
from trio_sagents.exceptions import ModelFailed


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
    if finishes_turn(last):
        return Completed(last, usage_of(last))
    if last.stop_reason == "cancelled":
        cause = last.metadata.get("cause")
        return Cancelled(CancelCause(cause) if cause in set(CancelCause) else CancelCause.HOST_CANCELLED)
    if last.stop_reason == "stream_error":
        return Failed(ModelFailed("the turn failed, in an earlier life of the agent"))
    return Unanswered("crashed")


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


def with_usage(message: Message, usage: Usage) -> Message:
    """Return an answer with what it cost in its metadata."""
    if usage == Usage():
        return message
    return attrs.evolve(message, metadata={**message.metadata, "usage": encode_usage(usage)})


def usage_of(message: Message) -> Usage:
    """Return what a stored answer cost; nothing if it does not say, or says nothing that can be read."""
    return usage_in(message.metadata.get("usage")) or Usage()
