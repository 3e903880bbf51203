"""Fields of an assistant message that only the server understands: collected from the pieces, and written back.

Examples are the `reasoning_details` of OpenRouter, the `thinking_blocks` of LiteLLM and the `extra_content` of Gemini. They are not
listed by name: a field that is not known here may be the one without which the server refuses the next request.
"""

from collections.abc import Mapping
from typing import Final

from trio_sagents.data.json import JSON, JSONValue, plain_json

_NOT_KEPT: Final = frozenset(
    {
        "annotations",
        "audio",
        "channel",
        "citations",
        "content",
        "function_call",
        "images",
        "name",
        "obfuscation",
        "reasoning",
        "reasoning_content",
        "reasoning_text",
        "refusal",
        "role",
        "tool_call_id",
        "tool_calls",
        "video",
    }
)
"""Fields of a message that are known, or that no server takes back."""
KNOWN_EXTRAS: Final = frozenset({"reasoning_details", "thinking_blocks", "extra_content", "provider_specific_fields", "reasoning_opaque"})
"""Fields that go back to any server that sent them."""
_PIECES: Final = frozenset({"text", "summary", "data", "content", "thinking", "arguments"})
"""Names of texts that come in pieces; any other text that comes again is the same text again."""
_SEALS: Final = ("signature", "data")
"""An object that has one of these is whole."""
_PLACES: Final = ("index", "id", "type")


class Extras:
    """The fields of one message, collected while its pieces arrive."""

    def __init__(self) -> None:
        self.fields: Final[dict[str, JSONValue]] = {}

    def add(self, delta: JSON) -> int:
        """Take the fields of a piece that are not known by name; return how many there were."""
        count = 0
        for name, value in delta.items():
            if name not in _NOT_KEPT and value is not None and value not in ("", [], {}):
                self.fields[name] = _joined(name, self.fields.get(name), plain_json(value))
                count += 1
        return count


def _joined(name: str, present: JSONValue, piece: JSONValue) -> JSONValue:
    """Return what a field has come to with a further piece of it."""
    if present is None:
        return _with_joined_items(piece) if isinstance(piece, list) else piece
    if isinstance(present, str) and isinstance(piece, str):
        return present if name not in _PIECES and piece in {"", present} else present + piece
    if isinstance(present, list) and isinstance(piece, list):
        return _with_joined_items([*present, *piece])
    if isinstance(present, Mapping) and isinstance(piece, Mapping):
        joined = dict(present)
        for key, value in piece.items():
            if value is not None:
                joined[key] = _joined(key, joined.get(key), value)
        return joined
    return piece


def _with_joined_items(items: list[JSONValue]) -> list[JSONValue]:
    """Return a list in which neighbouring pieces of one object are that object."""
    joined: list[JSONValue] = []
    for item in items:
        if joined and isinstance(item, Mapping) and isinstance(joined[-1], Mapping) and _continues(joined[-1], item):
            joined[-1] = _joined("", joined[-1], item)
        else:
            joined.append(item)
    return joined


def _continues(present: JSON, piece: JSON) -> bool:
    """Return whether a piece continues the object before it: it says the same of its place, and that object is not whole."""
    for name in _PLACES:
        given = piece.get(name)
        if given is not None and given != present.get(name):
            return False
    return present.get("type") is not None and not any(present.get(name) for name in _SEALS)
