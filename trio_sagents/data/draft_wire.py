"""Drafts as stored: the draft of an answer, whole, and the pieces by which it has grown since then.

A draft is stored again and again while an answer streams. Stored whole each time, an answer of 32 KB writes 250 times its own size. So
what is stored is only what came since the last time, under a key of its own; the pieces are joined when the conversation is loaded.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import Message, Part, TextPart, ThinkingPart
from trio_sagents.data.wire import encode_message
from trio_sagents.exceptions import StateError

_PIECE_KEY: Final = re.compile(r"draft\.([1-9][0-9]{0,8})", re.ASCII)


@attrs.frozen
class DraftPiece:
    """What a draft has grown by since it was last stored."""

    message: Message
    """The whole draft, as it is now."""
    part: int
    """The index in the message of the first part in `parts`. If the stored draft has that part already, the texts of the two are joined."""
    parts: Sequence[Part]
    """The text by which the last stored part has grown, if it has grown, and then the parts that are new; not empty."""


def piece_key(number: int) -> str:
    """Return the key of the stored state that has a piece; pieces are numbered from 1."""
    return f"draft.{number}"


def piece_number(key: object) -> int | None:
    """Return which piece has this key, or None if it is not the key of a piece."""
    found = _PIECE_KEY.fullmatch(key) if isinstance(key, str) else None
    return None if found is None else int(found[1])


def growth(before: Message, after: Message) -> DraftPiece:
    """Return by what a draft has grown. Only the last part of a draft ever grows; new parts come behind it.

    Args:
        before: the draft as it was stored last.
        after: the same message later, with more text.
    """
    count = len(before.parts)
    if count:
        old, new = before.parts[-1], after.parts[count - 1]
        if isinstance(old, TextPart | ThinkingPart) and isinstance(new, TextPart | ThinkingPart) and old != new:
            return DraftPiece(after, count - 1, (attrs.evolve(new, text=new.text[len(old.text) :]), *after.parts[count:]))
    return DraftPiece(after, count, after.parts[count:])


def encode_piece(piece: DraftPiece) -> JSON:
    """Return a piece of a draft as a stored record."""
    return {
        "message_id": piece.message.message_id,
        "part": piece.part,
        "parts": encode_message(attrs.evolve(piece.message, parts=piece.parts))["parts"],
    }


def join_pieces(conversation_id: str, draft: JSON, pieces: Mapping[int, JSONValue]) -> JSON:
    """Return the record of a draft with its pieces joined to it.

    Args:
        conversation_id: for the error.
        draft: the record of the draft as it was last stored whole; not changed.
        pieces: by number, in any order.

    Raises:
        StateError: a piece is missing, belongs to another message, or does not follow what is before it.
    """
    parts = draft.get("parts")
    if not isinstance(parts, list):
        raise StateError(conversation_id, "the parts of the draft are not a list")
    joined, texts = list(parts), list[str]()  # the texts are those of the last part, joined once: a long answer has many pieces
    for number in range(1, len(pieces) + 1):
        piece = pieces.get(number)
        if not isinstance(piece, Mapping) or piece.get("message_id") != draft.get("message_id"):
            raise StateError(conversation_id, f"piece {number} of the draft is missing, or belongs to another message")
        place, more = piece.get("part"), piece.get("parts")
        if type(place) is not int or not isinstance(more, list) or not more or not 0 <= len(joined) - place <= 1:
            raise StateError(conversation_id, f"piece {number} of the draft does not follow what is before it")
        if place == len(joined):
            _set_text(joined, texts)
            joined.append(more[0])
            texts = []
        else:
            _check_continues(conversation_id, joined[-1], more[0], number)
            texts = texts or [joined[-1]["text"]]
            texts.append(more[0]["text"])
            joined[-1] = more[0]
        if len(more) > 1:
            _set_text(joined, texts)
            joined += more[1:]
            texts = []
    _set_text(joined, texts)
    return {**draft, "parts": joined}


def _set_text(parts: list[JSONValue], texts: Sequence[str]) -> None:
    """Give the last part its whole text, if it has come in several pieces."""
    if texts:
        parts[-1] = {**parts[-1], "text": "".join(texts)}


def _check_continues(conversation_id: str, part: JSONValue, more: JSONValue, number: int) -> None:
    """Raise StateError unless both are text of the same type."""
    is_same = isinstance(part, Mapping) and isinstance(more, Mapping) and part.get("type") == more.get("type")
    if not is_same or not all(isinstance(each.get("text"), str) for each in (part, more)):
        raise StateError(conversation_id, f"piece {number} of the draft does not continue the part before it")
