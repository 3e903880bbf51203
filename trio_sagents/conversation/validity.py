"""Checks of a history: every id is unique, parts fit the roles of their messages, and each call is answered in its place."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from trio_sagents.data.ids import MAX_ID_BYTES
from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.messages import (
    FINISH_REASONS,
    FilePart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)
from trio_sagents.exceptions import StateError

PARTS: Final[Mapping[Role, tuple[type[Part], ...]]] = {
    "user": (TextPart, ImagePart, FilePart),
    "assistant": (TextPart, ThinkingPart, OpaquePart, ToolCall),
    "tool": (ToolResult,),
    "system": (TextPart,),
}
"""By role: what its messages are made of."""
FINAL: Final = frozenset({"completed", "failed", "cancelled", "unknown"})
"""Which results a call may have at this point."""


def check_history(conversation_id: str, messages: Sequence[Message], queue: Sequence[Message] = ()) -> Sequence[str]:
    """Return the ids of the calls that the last answer left open.

    Raises:
        StateError: no commit of this library can have written this: a duplicate id, a part in the wrong role, or a call that is not
            answered in its place.
    """
    ids: set[str] = set()
    calls: set[str] = set()
    unanswered: dict[str, None] = {}
    for message in messages:
        _check_message(conversation_id, message, ids)
        if unanswered and message.role != "tool":
            raise StateError(conversation_id, f"the call {next(iter(unanswered))!r} is not answered before the next message")
        for call in message.calls:
            _check_size(conversation_id, "call", call.call_id)
            if call.call_id in calls:
                raise StateError(conversation_id, f"duplicate call id {call.call_id!r}")
            if not call.name:
                raise StateError(conversation_id, f"the call {call.call_id!r} names no tool")
            calls.add(call.call_id)
            unanswered[call.call_id] = None
        for result in message.results:
            if result.call_id not in unanswered or result.status not in FINAL:
                raise StateError(conversation_id, f"a result answers the call {result.call_id!r}, which is not open")
            del unanswered[result.call_id]
    for message in queue:
        _check_message(conversation_id, message, ids)
        if message.role != "user":
            raise StateError(conversation_id, f"{message.message_id!r} cannot wait in the queue")
    return tuple(unanswered)


def check_answer(message: Message) -> None:
    """Raise ValueError if a message cannot be the answer of a model."""
    if message.role != "assistant" or not all(isinstance(part, PARTS["assistant"]) for part in message.parts):
        raise ValueError("an answer is an assistant message of text, thinking and calls")
    if message.stop_reason not in FINISH_REASONS or (message.stop_reason == "tool_calls") != bool(message.calls):
        raise ValueError(f"an answer with {len(message.calls)} calls cannot have the stop reason {message.stop_reason!r}")


def check_draft(conversation_id: str, draft: Message | None, ids: Iterable[str]) -> None:
    """Raise StateError if a draft cannot become the end of its turn."""
    if draft is not None:
        if draft.role != "assistant":
            raise StateError(conversation_id, f"the draft is of the role {draft.role!r}")
        _check_message(conversation_id, draft, set(ids))


def check_interrupt(
    conversation_id: str, interrupt: Interrupt | None, messages: Sequence[Message], open_ids: Sequence[str], nested: Iterable[str]
) -> None:
    """Raise StateError where an interrupt asks about calls that the last answer did not make.

    Args:
        conversation_id: for the error.
        interrupt: what is stored; None is fine.
        messages: the history.
        open_ids: of the calls that it leaves open.
        nested: the ids of the calls that wait in sub-agents.
    """
    if interrupt is None:
        return
    if not interrupt.calls:
        raise StateError(conversation_id, "the interrupt asks about no call")
    answer = next((message for message in reversed(messages) if message.role == "assistant"), None)
    digests = {} if answer is None else {call.call_id: call.digest for call in answer.calls if call.call_id in open_ids}
    inside = set(nested)
    for record in interrupt.decided:
        is_open = digests.get(record.call_id) == record.digest or (record.asked_before > 0 and record.call_id in digests)
        if record.call_id not in inside and not is_open:
            raise StateError(conversation_id, f"the interrupt has a decision about the call {record.call_id!r}, which is not open")
    for call in interrupt.calls:
        # A halt is only dismissed; it may come from a call that ran with edited arguments.
        # A call that people are asked about again may have been edited.
        is_known = (call.kind == "halt" or call.asked_before > 0) and call.call_id in digests
        fits = call.call_id in inside if call.path else is_known or digests.get(call.call_id) == call.digest
        if not fits or answer is None or answer.turn_id != interrupt.turn_id:
            raise StateError(conversation_id, f"the interrupt asks about the call {call.call_id!r}, which the last answer did not make")


def _check_message(conversation_id: str, message: Message, ids: set[str]) -> None:
    _check_size(conversation_id, "message", message.message_id)
    if message.message_id in ids:
        raise StateError(conversation_id, f"duplicate message id {message.message_id!r}")
    ids.add(message.message_id)
    if not all(isinstance(part, PARTS[message.role]) for part in message.parts):
        raise StateError(conversation_id, f"the {message.role} message {message.message_id!r} has a part that it cannot have")
    if not message.parts and message.role != "assistant":
        raise StateError(conversation_id, f"the {message.role} message {message.message_id!r} is empty")
    if message.stop_reason is not None and message.role != "assistant":
        raise StateError(conversation_id, f"the {message.role} message {message.message_id!r} has a stop reason")


def _check_size(conversation_id: str, what: str, value: str) -> None:
    if not 0 < len(value.encode()) <= MAX_ID_BYTES:
        raise StateError(conversation_id, f"a {what} id has {len(value.encode())} bytes")
