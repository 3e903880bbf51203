"""Keeping a history valid: every tool call answered exactly once, every turn ended by an assistant message.

A history is cut when its process died, when a write failed, or when a turn was cancelled. What closes it is computed here,
the same way for all three, and only ever appended.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from trio_sagents.data.messages import FINISH_REASONS, Message, StopReason, TextPart, ThinkingPart, ToolCall, ToolResult, ToolStatus

CLOSING_TEXT: Mapping[ToolStatus, str] = {
    "pending": "This call was not run: the turn was cut before it began.",
    "cancelled": "This call was cancelled while it ran; it may have had some effect.",
    "interrupted": "This call was not run: nobody decided on it.",
    "unknown": "The outcome of this call is unknown: it had begun, and may have had its effect. Do not assume either.",
}


GATED: Final = "gated"
"""In the metadata of a stored answer: the ids of its calls that wait for a person, and had not begun when it was stored."""


def with_gated(message: Message, waiting: Iterable[str]) -> Message:
    """Return an answer that says which of its calls wait for a person; what it said of that itself is dropped."""
    gated = list(waiting)
    if not gated and GATED not in message.metadata:
        return message
    others = {key: value for key, value in message.metadata.items() if key != GATED}
    return attrs.evolve(message, metadata={**others, GATED: gated} if gated else others)


def is_gated(message: Message, call_id: str) -> bool:
    """Return whether a stored answer says that this call had not begun."""
    gated = message.metadata.get(GATED)
    return isinstance(gated, list | tuple) and call_id in gated


def is_cut(messages: Sequence[Message]) -> bool:
    """Return whether the history ends inside a turn: with a user message, a tool result or an open tool call."""
    if not messages:
        return False
    last = messages[-1]
    return last.role in {"user", "tool"} or bool(last.calls)


def open_calls(messages: Sequence[Message]) -> Sequence[ToolCall]:
    """Return the tool calls of the last turn that have no result yet, in the order the model asked for them."""
    answered: set[str] = set()
    for message in reversed(messages):
        if message.role == "tool":
            answered.update(result.call_id for result in message.results)
            continue
        if message.role == "assistant":
            return tuple(call for call in message.calls if call.call_id not in answered)
        break
    return ()


def closing_messages(
    calls: Iterable[tuple[ToolCall, ToolStatus]],
    partial: Message | None,
    *,
    turn_id: str | None,
    stop_reason: StopReason,
    cause: str | None = None,
    message_ids: Iterator[str],
) -> Sequence[Message]:
    """Return the messages that close a cut turn, in order: a result for each open call, then the marked answer.

    Args:
        calls: the open calls, each with what is known of it: "pending" (not begun), "cancelled" or "unknown".
        partial: the answer so far, or None; its text and thinking are kept, its tool calls dropped, for they never began.
        turn_id: of the turn that is closed.
        stop_reason: the mark: "cancelled", "stream_error" or "crashed".
        cause: kept in the metadata of the answer.
        message_ids: where new ids come from.
    """
    closing: list[Message] = []
    for call, known in calls:
        status: ToolStatus = "unknown" if known == "unknown" else "cancelled"
        text = CLOSING_TEXT.get(known, CLOSING_TEXT["unknown"])
        closing.append(Message(next(message_ids), "tool", (ToolResult(call.call_id, call.name, text, status),), turn_id=turn_id))
    parts = () if partial is None else tuple(part for part in partial.parts if isinstance(part, TextPart | ThinkingPart) and part.text)
    message_id = next(message_ids) if partial is None else partial.message_id
    metadata = {} if cause is None else {"cause": cause}
    closing.append(Message(message_id, "assistant", parts, stop_reason, turn_id, metadata))
    return closing


def close_after_crash(
    messages: Sequence[Message], draft: Message | None, message_ids: Iterator[str], decided: Collection[str] = ()
) -> Sequence[Message]:
    """Return what closes a history that a crash or a failed write cut; empty where it is whole.

    A call that is open had been stored before it began, so it may have run: its outcome is "unknown", and nobody runs it again.
    One that was stored as waiting for a person, and that nobody decided on, has not begun.

    Args:
        messages: the stored history, oldest first.
        draft: the answer as last drafted, or None.
        message_ids: where new ids come from.
        decided: the ids of open calls that people decided on, themselves or what was asked inside of them.
    """
    if not is_cut(messages):
        return ()
    turn_id = messages[-1].turn_id
    partial = draft if draft is not None and draft.turn_id == turn_id else None
    asking = next((one for one in reversed(messages) if one.role == "assistant"), None)
    calls: list[tuple[ToolCall, ToolStatus]] = []
    for call in open_calls(messages):
        has_begun = asking is None or call.call_id in decided or not is_gated(asking, call.call_id)
        calls.append((call, "unknown" if has_begun else "interrupted"))
    return closing_messages(calls, partial, turn_id=turn_id, stop_reason="crashed", message_ids=message_ids)


def finishes_turn(message: Message) -> bool:
    """Return whether this answer ends its turn: the provider finished it, and it asks for no tool."""
    return message.stop_reason in FINISH_REASONS and not message.calls
