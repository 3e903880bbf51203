"""Shapes: what a value may be, said twice: to the model as a JSON schema, and to us as a reader.

Both are made in the same step, so they agree: a value is read if, and only if, the schema allows it. Everything else is refused, in
words that a model can act on, with the path of each wrong place.

Models write some values in another form than the schema asks for. If only one meaning is possible, `tidy` puts the value into the
form of the schema before it is read:

* a number or a boolean that is written as JSON text (`"5"`, `"true"`), if a text is not allowed in that place;
* `5.0` for an integer;
* `null` for what may be left out, if null is not allowed in that place.

Here are the single values and the unions of shapes; `_compounds` has arrays and objects, and `_schema` makes shapes from type
hints.
"""

import contextlib
import enum
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import attrs

from trio_sagents.agent._text_types import TextForm
from trio_sagents.data.json import JSON, JSONValue, plain_json

Problem: TypeAlias = tuple[str, str]
"""The path of a wrong place, such as ".days[0]", and what is wrong there."""

MAX_PROBLEMS: Final = 8
"""How many wrong places one refusal names."""
MAX_NAMED: Final = 24
"""How many of the possible values or keys one refusal names."""
SHOWN: Final = 40
"""How many characters of a wrong value or key a refusal shows."""
_SCALAR_TEXT: Final = re.compile(r"true|false|-?(0|[1-9][0-9]{0,399})(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?")
"""The JSON text of a boolean or a number."""
_KINDS: Final = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


class Misfit(Exception):  # not an error of the program: a value that does not fit
    """A value does not fit a shape."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems: Final = problems
        """At least one, in the order of the value."""


@attrs.frozen(eq=False)
class Shape:
    """The values that one annotation accepts."""

    schema: JSON
    read: Callable[[JSONValue], object]
    """Return the value that the annotation asks for; `Misfit` if the schema does not allow the JSON. The two share nothing mutable."""
    kinds: frozenset[str]
    """The kinds of JSON value that can fit, as in JSON schema, but "integer" and "number" exclude each other."""
    words: str
    """What refusals call the shape: "a string"."""
    is_hashable: bool = True
    """Whether a set can hold the values."""
    tidy: Callable[[JSONValue], JSONValue] = lambda value: value
    """Return the value in the form of the schema if only one meaning is possible; any other value unchanged."""


def kind_of(value: JSONValue) -> str:
    """Return the kind of a JSON value as JSON schema calls it; for anything else the name of its type."""
    return _KINDS.get(type(value), type(value).__name__)


def show(value: JSONValue) -> str:
    """Return the kind of a value and the beginning of its text."""
    kind = kind_of(value)
    if value is None or kind not in _KINDS.values():
        return kind
    return f"the {kind} {cut(value)}"


def cut(value: JSONValue) -> str:
    """Return the beginning of the JSON text of a value."""
    text = repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _unquoted(value: JSONValue) -> JSONValue:
    """Return the number or boolean whose JSON text `value` is, or `value` itself."""
    if isinstance(value, str) and _SCALAR_TEXT.fullmatch(value):
        with contextlib.suppress(ValueError):  # an integer of too many digits
            number = json.loads(value)
            return value if number in {math.inf, -math.inf} else number
    return value


def whole(value: JSONValue) -> JSONValue:
    """Return the integer that a float is, or `value` itself."""
    return int(value) if type(value) is float and value.is_integer() else value


def wrong(words: str, value: JSONValue) -> Misfit:
    """Return the refusal of a value of the wrong kind."""
    return Misfit([("", f"must be {words}, not {show(value)}")])


def _scalar(kind: type) -> Callable[[JSONValue], object]:
    def read(value: JSONValue) -> object:
        if type(value) is not kind:
            raise wrong(_WORDS[kind], value)
        return value

    return read


def _read_integer(value: JSONValue) -> object:
    number = whole(value)  # JSON has one kind of number, so the schema allows 5.0
    if type(number) is not int:
        raise wrong("an integer", value)
    return number


def _read_number(value: JSONValue) -> object:
    if type(value) not in {int, float} or (type(value) is float and math.isnan(value)):
        raise wrong("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Misfit([("", f"is too large: {cut(value)}")])
    return number


def _read_anything(value: JSONValue) -> JSONValue:
    try:
        return plain_json(value, "the value")  # a copy: what the function does to it must not reach the history
    except (TypeError, ValueError) as exc:
        raise Misfit([("", str(exc))]) from exc


def _tidy_integer(value: JSONValue) -> JSONValue:
    number = whole(_unquoted(value))
    return number if type(number) is int else value


def _tidy_number(value: JSONValue) -> JSONValue:
    number = _unquoted(value)
    return value if type(number) is bool else number


def _tidy_boolean(value: JSONValue) -> JSONValue:
    given = _unquoted(value)
    return given if type(given) is bool else value


_WORDS: Final = {str: "a string", bool: "a boolean", type(None): "null"}
NUMBER: Final = Shape({"type": "number"}, _read_number, frozenset({"integer", "number"}), "a number", tidy=_tidy_number)
SCALARS: Final = {
    str: Shape({"type": "string"}, _scalar(str), frozenset({"string"}), "a string"),
    int: Shape({"type": "integer"}, _read_integer, frozenset({"integer"}), "an integer", tidy=_tidy_integer),
    bool: Shape({"type": "boolean"}, _scalar(bool), frozenset({"boolean"}), "a boolean", tidy=_tidy_boolean),
    type(None): Shape({"type": "null"}, _scalar(type(None)), frozenset({"null"}), "null"),
    float: NUMBER,
}
ANYTHING: Final = Shape({}, _read_anything, frozenset(_KINDS.values()), "any value", is_hashable=False)


def text_shape(form: TextForm) -> Shape:
    """Return the shape of a text that stands for a value of another class; a JSON number stands for its text, if the form takes it."""

    def read(value: JSONValue) -> object:
        if kind_of(value) not in form.kinds:
            raise wrong(form.words, value)
        try:
            return form.read(str(value))
        except (ValueError, ArithmeticError) as exc:
            raise wrong(form.words, value) from exc

    return Shape(form.schema, read, form.kinds, form.words)


def enum_form(member: enum.Enum) -> JSONValue:
    """Return the JSON value that stands for a member of an enum: its value, or its name if a member has a value that is not JSON."""
    return _plain_scalar(member.value) if all(_is_choice(each.value) for each in type(member)) else member.name


def _plain_scalar(value: JSONValue) -> JSONValue:
    return str.__str__(value) if isinstance(value, str) else int(value) if type(value) not in SCALARS and isinstance(value, int) else value


def _is_choice(value: JSONValue) -> bool:
    plain = _plain_scalar(value)
    return type(plain) in SCALARS and (type(plain) is not float or math.isfinite(plain))


def _same(value: JSONValue, option: JSONValue) -> bool:
    """Return whether two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    return (type(value) is bool) == (type(option) is bool) and value == option


def choice_of(options: Sequence[tuple[JSONValue, object]], where: str) -> Shape:
    """Return the shape of some JSON values; each stands for the object beside it.

    Raises:
        TypeError: an option is not null, a boolean, a finite number or a text.
    """
    for option, _ in options:
        if not _is_choice(option):
            raise TypeError(f"{where}: {option!r} cannot be a choice; use str, int, float, bool or None")
    values = [_plain_scalar(option) for option, _ in options]
    words = "one of " + ", ".join(cut(option) for option in values[:MAX_NAMED]) + (", …" if len(values) > MAX_NAMED else "")
    kinds = frozenset(kind_of(option) for option in values)

    def read(value: JSONValue) -> object:
        for option, (_, result) in zip(values, options, strict=True):
            if _same(value, option):
                return result
        raise wrong(words, value)

    def tidy(value: JSONValue) -> JSONValue:
        given = value if "string" in kinds else _unquoted(value)
        return next((option for option in values if _same(given, option)), value)

    named = {"type": next(iter(kinds))} if len(kinds) == 1 else {}
    accepted = kinds | {"integer"} if "number" in kinds else kinds
    is_hashable = all(_has_hash(result) for _, result in options)
    return Shape({**named, "enum": values}, read, accepted, words, is_hashable, tidy)


def _has_hash(value: object) -> bool:
    return type(value).__hash__ is not None


def union_of(members: Sequence[Shape]) -> Shape:
    """Return the shape of a union: a value is read by the first member that fits.

    A float comes last, so that an integer stays an integer if it may be one.
    """
    ordered = sorted(members, key=lambda shape: shape is NUMBER)
    words = " or ".join(shape.words for shape in members)
    kinds = frozenset[str]().union(*(shape.kinds for shape in members))

    def candidates(value: JSONValue) -> Sequence[Shape]:
        found = [shape for shape in ordered if kind_of(value) in shape.kinds]
        if whole(value) is not value:  # 5.0 is an integer, too
            found += [shape for shape in ordered if "integer" in shape.kinds and shape not in found]
        return found

    def read(value: JSONValue) -> object:
        if not (found := candidates(value)):
            raise wrong(words, value)
        return _read_first(found, value)

    def tidy(value: JSONValue) -> JSONValue:
        for given in (value, _unquoted(value)):
            if found := candidates(given):
                return next((tidied for shape in found if _fits(shape, tidied := shape.tidy(given))), given)
        return value

    is_hashable = all(shape.is_hashable for shape in members)
    return Shape({"anyOf": [shape.schema for shape in members]}, read, kinds, words, is_hashable, tidy)


def _fits(shape: Shape, value: JSONValue) -> bool:
    try:
        shape.read(value)
    except Misfit:
        return False
    return True


def _read_first(candidates: Sequence[Shape], value: JSONValue) -> object:
    reasons: list[str] = []
    for shape in candidates:
        try:
            return shape.read(value)
        except Misfit as exc:
            if len(candidates) == 1:
                raise
            path, what = exc.problems[0]
            reasons.append(f"{shape.words}: {path} {what}" if path else f"{shape.words}: {what}")
    raise Misfit([("", f"matches none of the allowed forms ({'; '.join(reasons)})")])
