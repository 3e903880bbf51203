"""JSON as values: what arguments, metadata and stored state may contain, and the canonical text of a value."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

JSONValue: TypeAlias = Any  # type: ignore[explicit-any]  # a recursive alias is beyond what cattrs resolves
"""None, bool, int, float (finite), str, a sequence of these, or a mapping from str to these."""
Opaque: TypeAlias = Any  # type: ignore[explicit-any]  # the one place: everywhere else it has this name
"""The host's own: handed through, never looked into."""
Options: TypeAlias = Mapping[str, Opaque]
"""The host's own, by name."""
JSON: TypeAlias = Mapping[str, JSONValue]
"""A JSON object."""

MAX_DEPTH: Final = 64
"""How deep lists and objects may nest in anything that is stored or sent."""
MAX_INT: Final = 2**1024
"""Integers are smaller: what any reader of JSON takes, if only as a float."""
_encode_sorted: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def plain_json(value: JSONValue, where: str = "$", depth: int = 0) -> JSONValue:
    """Return a copy of `value` made of plain dicts, lists and scalars alone.

    Args:
        value: anything; read, not kept.
        where: the path printed in errors.
        depth: how deep `value` is nested already.

    Raises:
        TypeError: something in it has no JSON form.
        ValueError: a number is not finite, a text has lone surrogates, or it nests deeper than `MAX_DEPTH`.
    """
    try:
        return _plain(value, depth)
    except (TypeError, ValueError):
        return _named(value, where, depth)  # raises, too, and says where


def _plain(value: JSONValue, depth: int) -> JSONValue:
    """Return a copy as `plain_json` does, without a path for errors: building the paths would take most of the time."""
    kind = type(value)
    if kind is str:
        if not value.isascii():
            value.encode()
        return value
    if kind is dict and depth < MAX_DEPTH:
        for key in value:
            if type(key) is not str or not key.isascii():
                break
        else:
            return {key: _plain(item, depth + 1) for key, item in value.items()}
    elif kind is list and depth < MAX_DEPTH:
        return [_plain(item, depth + 1) for item in value]
    elif value is None or kind is bool or (kind is int and -MAX_INT < value < MAX_INT):
        return value
    return _named(value, "$", depth)


def _named(value: JSONValue, where: str, depth: int) -> JSONValue:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        if not value.isascii():
            check_text(value, where)
        return str(value)
    if isinstance(value, int):
        if not -MAX_INT < value < MAX_INT:
            raise ValueError(f"{where}: an integer of {value.bit_length()} bits has no JSON form here")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: {value!r} has no JSON form")
        return float(value)
    if depth >= MAX_DEPTH:
        raise ValueError(f"{where}: nests deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {_key(key, where): _named(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_named(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise TypeError(f"{where}: {type(value).__name__} has no JSON form")


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{where}: the key {key!r} is not a str")
    return key if key.isascii() else check_text(key, where)


def check_text(text: str, where: str) -> str:
    """Return `text`, which can be encoded as UTF-8; ValueError if not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where}: the text has lone surrogates") from None
    return text


def canonical(value: JSONValue) -> str:
    """Return the one text of a JSON value: keys sorted, no spaces. `1`, `1.0` and `"1"` differ."""
    return _encode_sorted(value)


def digest_of(value: JSONValue) -> str:
    """Return the SHA-256, in hex, of the canonical text of a JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
