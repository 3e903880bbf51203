"""Reads fields of JSON that a provider sent.

The values are what `json.loads` gives, so an object is a `dict`. A field that describes an answer counts as absent if it has an
unexpected type. Content of an unexpected type is an error: an answer without it would pass for a whole answer.
"""

import json
from collections.abc import Sequence
from typing import Final

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.outcomes import COUNT_NAMES, Usage
from trio_sagents.data.requests import UsageChunk

_NOTHING: Final[JSON] = {}


class UnexpectedContent(Exception):  # named by what it is
    """The provider sent content in a form that is not known; the text says where, and holds nothing of the content."""


def parse_object(text: str) -> JSON:
    """Return a JSON object; ValueError if the text is not a JSON object."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("the JSON nests too deep") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")  # noqa: TRY004  # the value is wrong
    return value


def object_at(value: JSON, key: str) -> JSON:
    """Return the object at `key`, or an empty object."""
    item = value.get(key)
    return item if isinstance(item, dict) else _NOTHING


def objects_at(value: JSON, key: str) -> Sequence[JSON]:
    """Return the objects in the list at `key`, or an empty sequence."""
    items = value.get(key)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else ()


def content_at(value: JSON, key: str) -> str:
    """Return the text at `key`, or "" if there is nothing; `UnexpectedContent` for any other type. It can be encoded as UTF-8."""
    item = value.get(key)
    if item is not None and not isinstance(item, str):
        raise UnexpectedContent(f"{key!r} is {type(item).__name__}, not text")
    return whole_text(item)


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

    @property
    def is_known(self) -> bool:
        """Whether the provider has reported any tokens; zeros do not count as a report."""
        return self._total != Usage()

    def advance(self, **totals: int | None) -> list[UsageChunk]:
        """Return what the totals grew by, as a chunk, or nothing.

        Args:
            totals: fields of `Usage`, as counted so far; None for a field that the provider did not report.
        """
        if not any(totals.values()):
            return []
        growth = {name: max(0, (total or 0) - int(getattr(self._total, name))) for name, total in totals.items()}
        if not any(growth.values()):
            return []
        piece = Usage(*(growth.get(name, 0) for name in COUNT_NAMES))
        self._total += piece
        return [UsageChunk(piece)]
