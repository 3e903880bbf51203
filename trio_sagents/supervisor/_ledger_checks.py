"""What the books know of sizes, and of histories that cannot be ours."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from trio_sagents.data.ids import MAX_ID_BYTES
from trio_sagents.data.json import JSON, JSONValue, digest_of
from trio_sagents.data.messages import Message, Part, TextPart, ThinkingPart, ToolResult
from trio_sagents.data.wire import dumps, encode_message
from trio_sagents.data.records import DisplayMessage
from trio_sagents.exceptions import StateError

log: Final = logging.getLogger("trio_sagents")
RowTransform = Callable[[DisplayMessage], DisplayMessage | None]


def content_digest(parts: JSONValue, metadata: JSON) -> str:
    """Return the digest that tells whether two posts with one message id are the same."""
    return digest_of([parts, metadata])


def cut_to(message: Message, most: int) -> Message:
    """Return the message with its texts halved until it has at most `most` bytes, as stored, or none to cut."""
    while size_of(encode_message(message)) > most and any(_text_of(part) for part in message.parts):
        message = attrs.evolve(message, parts=tuple(_halved(part) for part in message.parts))
    return message


def _text_of(part: Part) -> str:
    match part:
        case TextPart(text=text) | ThinkingPart(text=text):
            return text
        case ToolResult(content=content):
            return content
        case _:
            return ""


def _halved(part: Part) -> Part:
    text = _text_of(part)
    if not text:
        return part
    half = text[: len(text) // 2]
    match part:
        case ToolResult():
            return attrs.evolve(part, content=half)
        case TextPart() | ThinkingPart():
            return attrs.evolve(part, text=half)
        case _:
            return part


def size_of(record: JSONValue) -> int:
    return len(dumps(record).encode())


def check_history(conversation_id: str, messages: Sequence[Message]) -> Sequence[str]:
    """Refuse a history in which an id stands twice, or a result answers no call: it cannot be ours. Return the open calls' ids."""
    ids: set[str] = set()
    calls: dict[str, bool] = {}
    for message in messages:
        if message.message_id in ids:
            raise StateError(conversation_id, f"the message id {message.message_id!r} stands twice")
        ids.add(message.message_id)
        if not 0 < len(message.message_id.encode()) <= MAX_ID_BYTES:
            raise StateError(conversation_id, f"a message id has {len(message.message_id.encode())} bytes")
        if message.role != "assistant" and message.calls:
            raise StateError(conversation_id, f"the {message.role} message {message.message_id!r} asks for a tool")
        for call in message.calls:
            if call.call_id in calls:
                raise StateError(conversation_id, f"the call id {call.call_id!r} stands twice")
            calls[call.call_id] = False
        for result in message.results:
            if calls.get(result.call_id) is not False:
                raise StateError(conversation_id, f"a result answers the call {result.call_id!r}, which is not open")
            calls[result.call_id] = True
    return tuple(call_id for call_id, is_answered in calls.items() if not is_answered)


def transformed(rows: Sequence[DisplayMessage], transforms: Sequence[tuple[str, RowTransform]]) -> Sequence[DisplayMessage]:
    """Return the rows as the middleware wants them shown. One that fails hides the row: what it was to hide is not shown."""
    kept: list[DisplayMessage] = []
    for row in rows:
        shown: DisplayMessage | None = row
        for middleware_id, transform in transforms:
            if shown is None:
                break
            try:
                shown = transform(shown)
                if shown is not None and (not isinstance(shown, DisplayMessage) or shown.row_id != row.row_id):
                    raise TypeError("transform_row returns the row, a changed copy with its id, or None")
            except Exception:  # a row is made in the middle of a commit, which it must not undo
                log.exception("the middleware %r failed in transform_row; a row of the transcript is hidden", middleware_id)
                shown = attrs.evolve(row, content_type="notification", content={"text": "(this cannot be shown)"})
        if shown is not None:
            kept.append(shown)
    return kept
