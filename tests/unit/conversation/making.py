"""Values that the tests of the rules begin with."""

import datetime
from collections.abc import Iterable, Sequence
from typing import Any, Final

from trio_sagents.conversation.codec import encode_step
from trio_sagents.conversation.ids import Ids
from trio_sagents.conversation.limits import Limits, message_bytes
from trio_sagents.conversation.state import ConversationState, Moment, Step, Waiting
from trio_sagents.conversation.turn_steps import TurnRecord
from trio_sagents.data.interrupts import DecisionRecord, Interrupt, PendingCall, interrupt_kind, pending
from trio_sagents.data.messages import Message, TextPart, ToolCall, ToolResult
from trio_sagents.data.records import DisplayMessage

NOW: Final = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
TURN: Final = TurnRecord("t", "actor")
ROOM: Final = 100_000


def said(message_id: str = "u1", text: str = "hi", turn_id: str | None = "t") -> Message:
    """Return a message of a person."""
    return Message(message_id, "user", (TextPart(text),), None, turn_id)


def call(call_id: str = "c1", name: str = "pay", **arguments: Any) -> ToolCall:
    """Return a call of a tool."""
    return ToolCall(call_id, name, arguments)


def asking(*calls: ToolCall, message_id: str = "a1", turn_id: str = "t") -> Message:
    """Return an answer that asks for tools."""
    return Message(message_id, "assistant", calls, "tool_calls", turn_id)


def answering(*call_ids: str, message_id: str = "r1", turn_id: str = "t") -> Message:
    """Return a tool message that answers calls."""
    return Message(message_id, "tool", [ToolResult(call_id, "pay", "ok") for call_id in call_ids], None, turn_id)


def last_answer(text: str = "done", message_id: str = "a2", turn_id: str = "t") -> Message:
    """Return an answer that ends a turn."""
    return Message(message_id, "assistant", (TextPart(text),), "stop", turn_id)


def draft_of(text: str = "so f", message_id: str = "d1", turn_id: str = "t") -> Message:
    """Return a stored draft."""
    return Message(message_id, "assistant", (TextPart(text),), "crashed", turn_id)


def waits(made: ToolCall, interrupt_id: str = "i1", **claim: Any) -> PendingCall:
    """Return the call as one that waits for people."""
    return pending(made, interrupt_id=interrupt_id, **claim)


def waiting_for(*calls: PendingCall, interrupt_id: str = "i1", turn_id: str = "t", **more: Any) -> Waiting:
    """Return a turn that waits for people to decide calls."""
    return Waiting(Interrupt(interrupt_id, turn_id, calls, interrupt_kind(calls)), **more)


def record_of(made: ToolCall, kind: str = "approve", content: str = "{}", interrupt_id: str = "i1") -> DecisionRecord:
    """Return a decision about a call, as it is kept."""
    return DecisionRecord(interrupt_id, made.call_id, kind, made.digest, content, "", "alice", NOW.isoformat())


def state_of(*messages: Message, queue: Sequence[Message] = (), **more: Any) -> ConversationState:
    """Return the state of a conversation with this history."""
    state = ConversationState(list(messages), {message.message_id: message for message in queue}, is_restored=True, **more)
    state.size = message_bytes((*messages, *queue))
    state.message_ids = {message.message_id: message.digest or "" for message in queue}
    return state


def moment_of(state: ConversationState, *, max_bytes: int = ROOM, slack: int = 1_000) -> Moment:
    """Return the conversation at the moment `NOW`, with the ids of its messages in use."""
    ids = Ids("new")
    ids.claim((*state.messages, *state.queue.values()))
    return Moment(state, ids, Limits(max_bytes, slack), NOW)


def shown(rows: Iterable[DisplayMessage]) -> list[tuple[str, str, str]]:
    """Return the id, the type and the status of each row."""
    return [(row.row_id, row.content_type, row.status) for row in rows]


def told(step: Step) -> list[str]:
    """Return the names of a step's events, in order."""
    return [type(event).__name__ for event in step.events]


def results(step: Step) -> dict[str, ToolResult]:
    """Return the results that a step keeps, by call id."""
    return {result.call_id: result for message in step.messages for result in message.results}


def applied(state: ConversationState, step: Step) -> ConversationState:
    """Apply a step that changes no metadata, as the journal does once the step is durable, and return the same state."""
    encode_step(step, None)
    state.apply(step, None, message_bytes((*step.messages, *step.queued)))
    return state
