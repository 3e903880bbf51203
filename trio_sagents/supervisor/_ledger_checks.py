"""What the books know of sizes, and of histories that cannot be ours."""

import datetime
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, get_args

import attrs

from trio_sagents.data.json import JSON, JSONValue, check_text, digest_of, plain_json
from trio_sagents.data.messages import Message, Part, Role, TextPart, ThinkingPart, ToolResult, ToolStatus
from trio_sagents.data.records import DisplayMessage
from trio_sagents.data.wire import dumps, encode_message

log: Final = logging.getLogger("trio_sagents")
RowTransform = Callable[[DisplayMessage], DisplayMessage | None]
_ROLES: Final = frozenset(get_args(Role))
_STATUSES: Final = frozenset(get_args(ToolStatus))


def content_digest(parts: JSONValue, metadata: JSON) -> str:
    """Return the digest that tells whether two posts with one message id are the same."""
    return digest_of([parts, metadata])


def cut_to(message: Message, most: int) -> Message:
    """Return the message with its texts halved until it has at most `most` bytes, as stored, or none to cut."""
    if size_of(encode_message(message)) > most and any(result.media for result in message.results):
        message = attrs.evolve(message, parts=tuple(_without_media(part) for part in message.parts))
    while size_of(encode_message(message)) > most and any(_text_of(part) for part in message.parts):
        message = attrs.evolve(message, parts=tuple(_halved(part) for part in message.parts))
    return message


def _without_media(part: Part) -> Part:
    if not isinstance(part, ToolResult) or not part.media:
        return part
    note = f"[left out: {len(part.media)} images or files; the conversation has no room for them]"
    return attrs.evolve(part, content=f"{part.content}\n{note}".lstrip(), media=())


def _text_of(part: Part) -> str:
    match part:
        case TextPart(text=text) | ThinkingPart(text=text):
            return text
        case ToolResult(content=content):
            return content
        case _:
            return ""


def _halved(part: Part) -> Part:
    match part:
        case ToolResult(content=text):
            return attrs.evolve(part, content=text[: len(text) // 2])
        case TextPart(text=text) | ThinkingPart(text=text):
            return attrs.evolve(part, text=text[: len(text) // 2])
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
                if shown is not None:
                    _check_row(shown, row.row_id)
            except Exception:  # a row is made in the middle of a commit, which it must not undo
                log.exception("the middleware %r failed in transform_row; a row of the transcript is hidden", middleware_id)
                shown = attrs.evolve(row, content_type="notification", content={"text": "(this cannot be shown)"})
        if shown is not None:
            kept.append(shown)
    return kept


def _check_row(shown: object, row_id: str) -> None:
    """Raise TypeError or ValueError for what no store takes as a row: the commit that it stands in must not fail for it."""
    if not isinstance(shown, DisplayMessage) or shown.row_id != row_id:
        raise TypeError("transform_row returns the row, a changed copy with its id, or None")
    if shown.role not in _ROLES or shown.status not in _STATUSES:
        raise ValueError(f"a row has a role and a status of the known ones, not {shown.role!r} and {shown.status!r}")
    if not isinstance(shown.content, Mapping):
        raise TypeError(f"the content of a row is a JSON object, not {type(shown.content).__name__}")
    plain_json(shown.content, "content")
    for name, text in (("content_type", shown.content_type), ("message_id", shown.message_id)):
        if not isinstance(text, str) or not check_text(text, name):
            raise ValueError(f"the {name} of a row is a text that is not empty, not {text!r}")
    if not isinstance(shown.created_at, datetime.datetime) or shown.created_at.tzinfo is None:
        raise ValueError(f"created_at of a row has a time zone, not {shown.created_at!r}")
