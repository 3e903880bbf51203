"""The one converter: values to JSON and back, strictly.

Stored state is untrusted input. No value is coerced, no unknown key is ignored, and no class is looked up by a name in the data:
a wrong byte is a `StateError` that names the conversation. Every record carries the schema version that it was written with, and
`upgrade` brings a record to the present version, so old rows are never rewritten.
"""

import collections.abc
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NoReturn, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import BaseValidationError
from cattrs.gen import make_dict_structure_fn, override

from trio_sagents.data.json import JSON, MAX_DEPTH, MAX_INT, JSONValue, check_text, plain_json
from trio_sagents.data.messages import (
    PART_TAGS,
    MediaPart,
    Message,
    OpaquePart,
    Part,
    Poster,
    ToolCall,
)
from trio_sagents.data.todos import Todo
from trio_sagents.exceptions import StateError, StateFromFuture

SCHEMA_VERSION: Final = 1
"""The version that this library writes. Records of older versions are upgraded at load; records of newer versions are refused."""
Migration = Callable[[JSON], JSON]
MIGRATIONS: Final[Mapping[int, Migration]] = {}
"""For each older version, the step to the next version. A step changes one record: a message, or the rest of the state."""

RECORD_DEPTH: Final = 8
"""Levels of nesting that a record adds around a value, which may itself nest `MAX_DEPTH` deep."""

SLICE: Final = 64
"""How many records are read or decoded at a stretch, while other threads may wait."""

T = TypeVar("T")
_encode: Final = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False
).encode  # made once: `json.dumps` would make one for each call
_TAG_CLASSES: Final[Mapping[str, type[Part]]] = {tag: cls for cls, tag in PART_TAGS.items()}


def _strict(kind: type[T]) -> Callable[[object, type[T]], T]:
    def structure(value: object, _: type[T]) -> T:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
        text: object = value
        if isinstance(text, str) and not text.isascii():
            check_text(text, "text")
        return value

    return structure


def _structure_object(value: object, _: object) -> JSON:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return value  # plain already: the value came from the JSON decoder or from `plain_json`


def make_converter() -> cattrs.Converter:
    """Return a new converter for messages, todos and interrupts: strict, tagged, deterministic."""
    converter = cattrs.Converter(forbid_extra_keys=True, prefer_attrib_converters=False)
    for kind in (str, int, bool, float):
        converter.register_structure_hook(kind, _strict(kind))
    converter.register_structure_hook_func(lambda kind: kind == JSON, _structure_object)
    _register_parts(converter)
    converter.register_structure_hook(Poster, _structure_poster)
    omit_digest = override(omit=True)
    # Made now, and before what holds them: nothing is compiled while stored records are read.
    converter.register_structure_hook(OpaquePart, make_dict_structure_fn(OpaquePart, converter))
    converter.register_structure_hook(ToolCall, make_dict_structure_fn(ToolCall, converter, digest=omit_digest))
    return converter


def _structure_poster(value: object, _: object) -> Poster:
    if not isinstance(value, dict) or set(value) != {"key", "is_scope"}:
        raise TypeError('a poster must be an object with the keys "key" and "is_scope"')
    key, is_scope = value["key"], value["is_scope"]
    if not (key is None or type(key) in {str, int}) or type(is_scope) is not bool:
        raise TypeError("a poster must have a key that is a text, an integer or null")
    return Poster(key, is_scope)


def _register_parts(converter: cattrs.Converter) -> None:
    def structure_part(value: object, _: object) -> Part:
        if not isinstance(value, dict):
            raise TypeError(f"expected a message part, got {type(value).__name__}")
        fields = dict(value)
        tag = fields.pop("type", None)
        cls = _TAG_CLASSES.get(tag) if isinstance(tag, str) else None
        if cls is None:
            raise ValueError(f"no message part has the type {tag!r}")
        part: Part = converter.structure(fields, cls)
        return part

    def sequence_hook(kind: object) -> Callable[[object, object], tuple[object, ...]]:
        (item,) = get_args(kind)
        structure = structure_part if item is Part else functools.partial(_structured_by, converter, item)

        def structure_sequence(value: object, _: object) -> tuple[object, ...]:
            if not isinstance(value, list):
                raise TypeError(f"expected a list, got {type(value).__name__}")
            return tuple([structure(element, item) for element in value])

        return structure_sequence

    def structure_media(value: object, _: object) -> MediaPart:
        part = structure_part(value, Part)
        if not isinstance(part, MediaPart):
            raise TypeError(f"expected an image or a file, got a part of the type {PART_TAGS[type(part)]!r}")
        return part

    converter.register_structure_hook(Part, structure_part)
    converter.register_structure_hook(MediaPart, structure_media)
    converter.register_structure_hook_factory(_is_sequence, sequence_hook)


def _structured_by(converter: cattrs.Converter, item: type[T], element: object, _: object) -> T:
    return converter.structure(element, item)


def _is_sequence(kind: object) -> bool:
    origin: object = get_origin(kind)
    return origin is collections.abc.Sequence


def encode_part(part: Part) -> dict[str, JSONValue]:
    """Return one part as JSON, with its type."""
    fields: dict[str, JSONValue] = {"type": PART_TAGS[type(part)]}
    for name in attrs.fields(type(part)):
        if name.name != "digest":
            value = getattr(part, name.name)
            if name.name == "media":
                if value:  # omitted when empty: results without media are stored as they always were
                    fields["media"] = [encode_part(item) for item in value]
            elif isinstance(value, OpaquePart):
                fields[name.name] = {"provider": value.provider, "data": value.data}
            elif value is not None:
                fields[name.name] = value
    return fields


def _unstructure_message(message: Message) -> dict[str, JSONValue]:
    record: dict[str, JSONValue] = {
        "message_id": message.message_id,
        "role": message.role,
        "parts": [encode_part(part) for part in message.parts],
    }
    for name in ("stop_reason", "turn_id", "digest"):
        if (value := getattr(message, name)) is not None:
            record[name] = value
    if message.metadata:
        record["metadata"] = message.metadata
    if message.posted_by is not None:
        record["posted_by"] = attrs.asdict(message.posted_by)
    return record


CONVERTER: Final = make_converter()


def encode_message(message: Message) -> JSON:
    """Return a message as a stored record."""
    return {"v": SCHEMA_VERSION, **_unstructure_message(message)}


def encode_todo(todo: Todo) -> JSON:
    """Return a todo as a stored record."""
    return attrs.asdict(todo)


def upgrade(conversation_id: str, record: JSONValue, migrations: Mapping[int, Migration] | None = None) -> JSON:
    """Return a stored record at the present version, without its version.

    Args:
        conversation_id: for the error.
        record: what the store gave; untrusted.
        migrations: the steps; by default the library's own. The last step leads to one past the highest key, or to `SCHEMA_VERSION`.

    Raises:
        StateFromFuture: the record was written by a newer version.
        StateError: the value is not a record.
    """
    steps = MIGRATIONS if migrations is None else migrations
    newest = max((*steps, SCHEMA_VERSION - 1)) + 1
    if not isinstance(record, dict):
        raise StateError(conversation_id, f"a record is {type(record).__name__}, not an object")
    fields = dict(record)
    version = fields.pop("v", None)
    if type(version) is not int or version < 1:
        raise StateError(conversation_id, f"a record has the schema version {version!r}")
    if version > newest:
        raise StateFromFuture(conversation_id, version, newest)
    for step in range(version, newest):
        fields = dict(steps[step](fields))
    return fields


def decode_message(conversation_id: str, record: JSONValue) -> Message:
    """Return the message that a stored record stands for; StateError if the record is not a message."""
    return decode_value(conversation_id, upgrade(conversation_id, record), Message)


def decode_messages(conversation_id: str, records: Sequence[JSON]) -> list[Message]:
    """Return the messages that stored records stand for; StateError if a record is not a message.

    Args:
        conversation_id: for the error.
        records: `ReadRecords`, which are plain JSON; or others, which are looked at first.
    """
    decode = _structured if isinstance(records, ReadRecords) else decode_value
    return [decode(conversation_id, upgrade(conversation_id, record), Message) for record in records]


def decode_todos(conversation_id: str, value: JSONValue) -> Sequence[Todo]:
    """Return the todos that a stored list stands for; StateError if it is not a list of todos."""
    if not isinstance(value, list):
        raise StateError(conversation_id, f"the todos are {type(value).__name__}, not a list")
    return tuple(decode_value(conversation_id, item, Todo) for item in value)


def decode_metadata(conversation_id: str, value: JSONValue) -> JSON:
    """Return stored metadata as plain JSON; StateError if it is not a JSON object."""
    try:
        plain = plain_json(value)
    except (TypeError, ValueError, RecursionError) as exc:
        raise StateError(conversation_id, f"metadata: {exc}") from exc
    if not isinstance(plain, dict):
        raise StateError(conversation_id, f"metadata is {type(plain).__name__}, not an object")
    return plain


def decode_value(conversation_id: str, value: JSONValue, cls: type[T]) -> T:
    """Return the value of class `cls` that a stored record stands for; StateError if the record does not fit the class."""
    try:
        plain_json(value, depth=-RECORD_DEPTH)
    except (TypeError, ValueError, RecursionError) as exc:
        raise StateError(conversation_id, f"{cls.__name__}: {exc}"[:300]) from exc
    return _structured(conversation_id, value, cls)


def _structured(conversation_id: str, value: JSONValue, cls: type[T]) -> T:
    try:
        return CONVERTER.structure(value, cls)
    except BaseValidationError as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        raise StateError(conversation_id, f"{cls.__name__}: {leaf}"[:300]) from group
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as exc:
        raise StateError(conversation_id, f"{cls.__name__}: {exc}"[:300]) from exc


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large for JSON")
    return number


def _no_duplicates(pairs: list[tuple[str, JSONValue]]) -> dict[str, JSONValue]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has a duplicate key")
    return fields


def _bounded(text: str) -> int:
    number = int(text)
    if not -MAX_INT < number < MAX_INT:
        raise ValueError("an integer is too large for JSON")
    return number


_decode: Final = json.JSONDecoder(
    object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite, parse_int=_bounded
).decode  # made once, like `_encode`


def loads(conversation_id: str, text: str | bytes) -> JSONValue:
    """Return the JSON value of a stored text; StateError for damage, NaN, a duplicate key, a huge number, or nesting that is too deep."""
    try:
        return _decode(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError) as exc:
        raise StateError(conversation_id, f"not JSON: {exc}"[:300]) from exc


class ReadRecords(list[JSON]):
    """Records that a store has just read with `read_record`: plain JSON that nobody else holds, so it is not copied to be checked."""

    __slots__ = ("pause", "size")

    def __init__(self, pause: Callable[[], object] | None = None) -> None:
        super().__init__()
        self.size: int = 0
        """The bytes of their texts."""
        self.pause: Callable[[], object] | None = pause
        """Called after each `SLICE` records, when they are read and when they are iterated over; None if they were read in a task."""

    def read(self, conversation_id: str, text: str) -> JSONValue:
        """Read one more record, and return it; StateError if it is damaged."""
        try:
            size = len(text) if text.isascii() else len(text.encode())
        except UnicodeEncodeError as exc:
            raise StateError(conversation_id, "a record has lone surrogates") from exc
        record = read_record(conversation_id, text)
        self.append(record)
        self.size += size
        if self.pause is not None and not len(self) % SLICE:
            self.pause()
        return record

    def __iter__(self) -> Iterator[JSON]:
        """Iterate, with pauses: whoever decodes many records does not keep the other threads waiting."""
        for index, record in enumerate(super().__iter__()):
            if self.pause is not None and not index % SLICE:
                self.pause()
            yield record


def read_record(conversation_id: str, text: str) -> JSONValue:
    """Return the plain JSON of a stored text: as `plain_json` would have it, but not copied.

    Raises:
        StateError: as `loads`; or a text has lone surrogates, or it nests too deeply.
    """
    value = loads(conversation_id, text)
    # What `loads` takes and `plain_json` refuses is rare enough, and its signs in the text are: then it is looked at.
    if text.count("[") + text.count("{") > MAX_DEPTH or "\\u" in text:
        try:
            plain_json(value, depth=-RECORD_DEPTH)
        except (TypeError, ValueError, RecursionError) as exc:
            raise StateError(conversation_id, f"a record: {exc}"[:300]) from exc
    return value


def dumps(value: JSONValue) -> str:
    """Return the stored text of a JSON value."""
    return _encode(value)
