"""Reading fields of JSON that a provider sent: whatever has another type than expected counts as absent."""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.outcomes import COUNT_NAMES, Usage
from trio_sagents.data.requests import UsageChunk

_NOTHING: Final[JSON] = {}


def parse_object(text: str) -> JSON:
    """Return a JSON object; ValueError where the text is none."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("the JSON nests too deep") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object was expected, not {type(value).__name__}")  # noqa: TRY004  # it is the value that is wrong
    return value


def object_at(value: JSON, key: str) -> JSON:
    """Return the object at `key`, or an empty one."""
    item = value.get(key)
    return item if isinstance(item, Mapping) else _NOTHING


def objects_at(value: JSON, key: str) -> Sequence[JSON]:
    """Return the objects in the list at `key`, or an empty sequence."""
    items = value.get(key)
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else ()


def number_at(value: JSON, key: str) -> int | None:
    """Return the whole number at `key`, or None."""
    item = value.get(key)
    return item if isinstance(item, int) and not isinstance(item, bool) else None


def text_at(value: JSON, key: str) -> str:
    """Return the text at `key`, or ""; it can be encoded as UTF-8."""
    return whole_text(value.get(key))


def whole_text(value: JSONValue) -> str:
    """Return `value` if it is a str, with lone surrogates replaced; else ""."""
    if not isinstance(value, str):
        return ""
    if value.isascii():
        return value
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class UsageMeter:
    """Turns running totals into pieces that add up to the last total."""

    def __init__(self) -> None:
        self._total = Usage()

    def advance(self, **totals: int | None) -> list[UsageChunk]:
        """Return what the totals grew by, as one chunk or none.

        Args:
            totals: fields of `Usage`, as counted so far; None where the provider did not say.
        """
        growth = {name: max(0, (total or 0) - int(getattr(self._total, name))) for name, total in totals.items()}
        if not any(growth.values()):
            return []
        piece = Usage(*(growth.get(name, 0) for name in COUNT_NAMES))
        self._total += piece
        return [UsageChunk(piece)]
