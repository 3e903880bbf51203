"""Sizes of stored records, and how a text is cut so that it fits."""

import math
from collections.abc import Sequence
from typing import Final

import attrs

from trio_sagents.data.json import JSON, JSONValue, digest_of
from trio_sagents.data.messages import Message, Part, TextPart, ThinkingPart, ToolResult
from trio_sagents.data.wire import dumps, encode_message
from trio_sagents.exceptions import LimitExceeded

NO_WINDOWS: Final = (
    "the store cannot leave older messages out of what is loaded, so the whole history counts: raise SessionPolicy.max_state_bytes, or "
    "use a store that is a WindowedStore, such as SqliteStore"
)


@attrs.frozen
class Limits:
    """How large a conversation may be, in bytes of stored JSON."""

    max_state_bytes: int
    slack_bytes: int = 0
    """By how much the closing of a turn may exceed `max_state_bytes`: what closes a turn at the limit is kept all the same."""
    window: float = math.inf
    """How many messages of the history the window may have."""
    window_bytes: float = math.inf
    """How many bytes the window may have."""
    keeps_windows: bool = False
    """Whether the store can be told where the window begins. If it cannot, the window is the whole history."""

    @property
    def most_bytes(self) -> float:
        """The bytes above which older messages leave the window."""
        return min(self.window_bytes, self.max_state_bytes)

    def check(self, size: int) -> None:
        """Raise LimitExceeded if a state of `size` bytes is too large."""
        if size > self.max_state_bytes:
            advice = "" if self.keeps_windows else NO_WINDOWS
            raise LimitExceeded("max_state_bytes", size, most=self.max_state_bytes, advice=advice)

    def can_load(self, size: int) -> bool:
        """Return whether a stored state of `size` bytes can be loaded."""
        return size <= self.max_state_bytes + self.slack_bytes


def size_of(record: JSONValue) -> int:
    """Return the bytes of a record, as stored."""
    return len(dumps(record).encode())


def message_bytes(messages: Sequence[Message]) -> int:
    """Return the bytes of messages, as stored."""
    return sum(size_of(encode_message(message)) for message in messages)


def content_digest(parts: JSONValue, metadata: JSON) -> str:
    """Return the digest that tells whether two posts with the same message id are the same message."""
    return digest_of([parts, metadata])


def cut_to(message: Message, most: int) -> Message:
    """Return the message without its media, and with its texts halved, until it has at most `most` stored bytes or no text is left."""
    if message_bytes((message,)) > most and any(result.media for result in message.results):
        message = attrs.evolve(message, parts=tuple(_without_media(part) for part in message.parts))
    while message_bytes((message,)) > most and any(_text_of(part) for part in message.parts):
        message = attrs.evolve(message, parts=tuple(_halved(part) for part in message.parts))
    return message


def fit(messages: Sequence[Message], room: int) -> Sequence[Message]:
    """Return the messages, each cut to its share of `room` bytes; a message that needs less leaves its rest to the later ones."""
    fitted: list[Message] = []
    for index, message in enumerate(messages):
        cut = cut_to(message, max(room // (len(messages) - index), 0))
        room -= message_bytes((cut,))
        fitted.append(cut)
    return fitted


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
