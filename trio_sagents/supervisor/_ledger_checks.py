"""What the books know of sizes, and of histories that cannot be ours."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from trio_sagents.data.json import JSON, JSONValue, digest_of
from trio_sagents.data.messages import Message, Part, TextPart, ThinkingPart, ToolResult
from trio_sagents.data.records import DisplayMessage
from trio_sagents.data.wire import dumps, encode_message

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
