"""Returned values as JSON: each value that has a JSON form, and a short text in the place of each that has none.

Nothing here raises: what a tool returned is shown after the tool has had its effect, so a value that cannot be shown must not
look like a call that failed.
"""

import collections
import collections.abc
import dataclasses
import enum
import inspect
import json
import math
import numbers
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Final, TypeGuard

import attrs

from trio_sagents.agent._pydantic import is_model, model_form
from trio_sagents.agent._shapes import enum_form
from trio_sagents.agent._text_types import written
from trio_sagents.data.json import MAX_DEPTH, MAX_INT, JSONValue, Opaque, canonical
from trio_sagents.data.messages import FilePart, ImagePart, MediaPart

MAX_TEXT: Final = 2000
"""Characters that are shown of a value without a JSON form."""
MAX_EXACT: Final = 1024 * 1024
"""Characters that a value may have of which all is wanted."""
MAX_NOTES: Final = 8
"""How many of the values without a JSON form are named."""
MAX_BYTES: Final = 1024
"""Bytes that are shown as base64; of more than that, only the number is shown."""


def storable(text: str) -> str:
    """Return `text` with its lone surrogates replaced: they have no UTF-8."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def json_form(value: object) -> JSONValue:
    """Return the JSON form of a value.

    Raises:
        TypeError: the value, or one inside it, has no JSON form, or the value is too large.
    """
    writer = Writer(MAX_EXACT, is_exact=True)
    form = writer.form(value)
    if writer.notes or writer.media or writer.is_cut:
        raise TypeError(f"no JSON form, or too large: {', '.join(writer.notes) or named(value)}")
    return form


def is_unfinished(value: object) -> bool:
    """Return whether a value is not a result, but something that would still have to run: a coroutine, or a generator."""
    return is_awaitable(value) or inspect.isgenerator(value) or inspect.isasyncgen(value)


def is_awaitable(value: object) -> TypeGuard[Awaitable[object]]:
    """Return whether a value can be awaited. Nothing is raised, as it is by `isinstance` for a proxy of an object that is gone."""
    try:
        return inspect.isawaitable(value)
    except Exception:  # noqa: BLE001  # part of the tool boundary: the value is the host's
        return False


def named(value: object) -> str:
    """Return the name of a value's type with its article."""
    name = type(value).__name__
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"


@attrs.define(eq=False)
class Writer:
    """Writes one value as JSON."""

    left: float
    """Characters that may still be written; at 0 the rest is left out. A value may be without end, such as a lazy sequence."""
    is_exact: bool = False
    """Whether all bytes are written, however many they are."""
    notes: list[str] = attrs.field(factory=list)
    """The places and types of the values that are shown as text, for they have no JSON form."""
    media: list[MediaPart] = attrs.field(factory=list)
    """The images and files in the value, in order."""
    is_cut: bool = False
    _around: set[int] = attrs.field(factory=set)
    """The ids of the values that are being written: a value that contains itself is found by its id."""

    def form(self, value: object, place: str = "", depth: int = 0) -> JSONValue:
        """Return the JSON form of a value, or a text in its place.

        Args:
            value: anything.
            place: its path, such as ".days[0]".
            depth: how many values are around it.
        """
        self.left -= 1
        if self.left < 0:
            self.is_cut = True
            return None
        if id(value) in self._around:
            return self._without_form(value, place, "(the value contains itself)")
        if depth > MAX_DEPTH:
            return self._without_form(value, place, f"(not shown: more than {MAX_DEPTH} levels)")
        self._around.add(id(value))
        try:
            return self._form(value, place, depth)
        except Exception as exc:  # noqa: BLE001  # part of the tool boundary: the host's own value may raise anything when it is read
            return self._without_form(value, place, f"(could not be read: {type(exc).__name__})")
        finally:
            self._around.discard(id(value))

    def _form(self, value: Opaque, place: str, depth: int) -> JSONValue:  # a table, by type
        match value:
            case enum.Enum():
                return enum_form(value)
            case None | bool():
                return value
            case str():
                return self._text(str.__str__(value))
            case ImagePart() | FilePart():
                self.media.append(value)
                return f"[{label_of(value)}]"
            case bytes() | bytearray() | memoryview() if len(value) > MAX_BYTES and not self.is_exact:
                return f"[{len(value)} bytes]"
            case type():
                return self._without_form(value, place, f"<class {value.__name__}>")
        if (text := written(value)) is not None:
            return self._text(text)
        if isinstance(value, numbers.Real):
            return self._number(value, place)
        if (found := self._container(value, place, depth)) is not None:
            return found
        return self._without_form(value, place, _text_of(value))

    def _number(self, value: Opaque, place: str) -> JSONValue:
        if isinstance(value, numbers.Integral):
            number = int(value)
            if -MAX_INT < number < MAX_INT:
                return number
            return self._without_form(value, place, f"(an integer of {number.bit_length()} bits)")
        if isinstance(value, numbers.Rational):
            return str(value)
        real = float(value)
        return real if math.isfinite(real) else self._without_form(value, place, str(real))

    def _container(self, value: Opaque, place: str, depth: int) -> JSONValue:
        """Return the form of a value that has others in it; None for any other."""
        if is_model(type(value)):
            return self.form(model_form(value), place, depth + 1)
        if (fields := _fields_of(value)) is not None:
            return {key: self.form(getattr(value, name), f"{place}.{key}", depth + 1) for key, name in fields}
        match value:
            case Mapping():
                return self._object(value, place, depth)
            case collections.abc.Set():
                forms = [self.form(item, f"{place}[]", depth + 1) for item in self._some(value)]
                return sorted(forms, key=canonical)
            case Sequence() | collections.abc.ValuesView() | collections.deque():
                return [self.form(item, f"{place}[{index}]", depth + 1) for index, item in enumerate(self._some(value))]
            case _:
                return None

    def _object(self, value: Mapping[Opaque, Opaque], place: str, depth: int) -> JSONValue:
        found: dict[str, JSONValue] = {}
        for key in self._some(value):
            form = self.form(key, f"{place} (a key)".lstrip(), depth + 1)
            name = form if isinstance(form, str) else json.dumps(form, ensure_ascii=False)
            while name in found:  # such as 1 and "1"
                name = f"{name} ({type(key).__name__})"
            found[name] = self.form(value[key], f"{place}.{name[:40]}", depth + 1)
        return found

    def _some(self, items: Iterable[Opaque]) -> Iterable[Opaque]:
        """Return the items, at most as many as there is room for."""
        for item in items:
            if self.left <= 0:
                self.is_cut = True
                return
            yield item

    def _text(self, text: str) -> str:
        if len(text) > self.left:
            self.is_cut = True
            text = text[: max(0, int(self.left))]
        self.left -= len(text)
        return storable(text)

    def _without_form(self, value: object, place: str, text: str) -> str:
        if len(self.notes) < MAX_NOTES:
            self.notes.append(f"{place.removeprefix('.') or 'the value'} ({type(value).__name__})")
        return self._text(text)


def label_of(part: MediaPart) -> str:
    """Return what stands for an image or a file in a text."""
    if isinstance(part, FilePart):
        return f"file {part.name[:100]!r}: {part.media_type[:100]}, {size_of(part.data)} bytes"
    size = part.url[:MAX_TEXT] if part.url is not None else f"{size_of(part.data or '')} bytes"
    return f"image: {part.media_type[:100]}, {size}"


def size_of(data: str) -> int:
    """Return how many bytes a base64 text stands for."""
    return len(data) * 3 // 4 - data[-2:].count("=")


def _text_of(value: Opaque) -> str:
    """Return a short text for a value without a JSON form."""
    if is_unfinished(value):
        return f"<{type(value).__name__}>"
    text = str(value)
    if f"{id(value):x}" in text.lower():
        return f"<{type(value).__name__}>"  # the default text of objects tells nothing but an address in memory
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def _fields_of(value: Opaque) -> Sequence[tuple[str, str]] | None:
    """Return the fields of an instance, each by its name in JSON and its name in Python; None if the class has no fields."""
    cls: Opaque = type(value)
    if attrs.has(cls):
        return [((field.alias if field.init else None) or field.name, field.name) for field in attrs.fields(cls)]
    if dataclasses.is_dataclass(value):
        return [(field.name, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, tuple) and "_fields" in vars(cls):
        return [(name, name) for name in cls._fields]
    return None
