"""JSON in and out of the wire, strictly."""

import json
import math
from typing import Final, NoReturn

from trio_sagents import JSON, Scope

_encode: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_encode_ascii: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


def dumps(value: JSON) -> str:
    """Return the text of a JSON object. It can be encoded as UTF-8, and a browser can parse it.

    Events of a host's own may hold what JSON has not: a number that is not finite becomes null, and a lone surrogate an escape.
    """
    try:
        text = _encode(value)
    except ValueError:
        text = _encode(_finite(value))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return _encode_ascii(json.loads(text))
    return text


def _finite(value: Scope) -> Scope:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value


def loads(text: str | bytes) -> dict[str, Scope]:
    """Return the JSON object of a text that a client has sent.

    Raises:
        ValueError: it is not one; or it has a duplicate key, a number that is not finite, or nests too deep.
    """
    try:
        value: object = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_number)
    except RecursionError:
        raise ValueError("it nests too deep") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004  # to the caller all of this is one kind of damage
    return value


def _no_duplicates(pairs: list[tuple[str, Scope]]) -> dict[str, Scope]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has a duplicate key")
    return fields


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number
