"""Shapes: what a value may be, said twice, to the model as a JSON schema and to us as a reader.

Both come out of the same step, so they cannot disagree. Reading is strict: nothing is coerced, nothing unknown is ignored, and
what does not fit is said in words that a model can act on, by the path of each wrong place. The one leniency: an integer
is accepted where a float is due, if the float is exactly that number. `_schema` makes shapes from type hints.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Final, TypeAlias

import attrs

from trio_sagents.data.json import JSON, JSONValue, plain_json

Problem: TypeAlias = tuple[str, str]
"""The path of a wrong place, such as ".days[0]", and what is wrong there."""

Build: TypeAlias = Callable[..., object]  # type: ignore[explicit-any]  # takes any names

MAX_PROBLEMS: Final = 8
"""How many wrong places one refusal names."""
MAX_NAMED: Final = 24
"""How many of the possible values or keys it names."""
SHOWN: Final = 40
"""How many characters of a wrong value or key it shows."""
_KINDS: Final = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


class Misfit(Exception):  # not an error of the program: a value that does not fit
    """A value does not fit a shape."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems: Final = problems
        """At least one, in the order of the value."""


@attrs.frozen(eq=False)
class Shape:
    """What one annotation accepts."""

    schema: JSON
    read: Callable[[JSONValue], object]
    """The value that the annotation asks for, from plain JSON; `Misfit` if it does not fit. Shares nothing mutable with it."""
    kinds: frozenset[str]
    """The kinds of JSON value that can fit, as in JSON schema, but "integer" and "number" exclude each other."""
    words: str
    """How it is called in refusals: "a string"."""
    is_hashable: bool = True
    """Whether what it reads can stand in a set."""


@attrs.frozen(eq=False)
class Field:
    """One named value of an object: a parameter, or a field of a class."""

    name: str
    shape: Shape
    required: bool


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


def _wrong(words: str, value: JSONValue) -> Misfit:
    return Misfit([("", f"must be {words}, not {show(value)}")])


def _step(key: object) -> str:
    return f".{key}" if isinstance(key, str) and key.isidentifier() and len(key) <= SHOWN else f"[{cut(key)}]"


def _read_each(items: Iterable[tuple[str, Shape, JSONValue]], problems: list[Problem]) -> list[object]:
    """Read all, each with the step that leads to it; `Misfit` with `problems` and what was found wrong."""
    values: list[object] = []
    for step, shape, item in items:
        try:
            values.append(shape.read(item))
        except Misfit as exc:
            problems.extend((f"{step}{path}", what) for path, what in exc.problems)
            if len(problems) >= MAX_PROBLEMS:
                break
    if problems:
        raise Misfit(problems[:MAX_PROBLEMS])
    return values


# ── single values ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _scalar(kind: type, words: str) -> Shape:
    def read(value: JSONValue) -> object:
        if type(value) is not kind:
            raise _wrong(words, value)
        return value

    name = _KINDS[kind]
    return Shape({"type": name}, read, frozenset({name}), words)


def _read_number(value: JSONValue) -> float:
    if type(value) is int:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if number != value:
            raise Misfit([("", f"is too large: {cut(value)} has no exact floating-point value")])
        return number
    if type(value) is not float or not math.isfinite(value):
        raise _wrong("a number", value)
    return value


def _read_anything(value: JSONValue) -> JSONValue:
    try:
        return plain_json(value, "the value")  # a copy: what the function does to it must not reach the history
    except (TypeError, ValueError) as exc:
        raise Misfit([("", str(exc))]) from exc


SCALARS: Final = {
    str: _scalar(str, "a string"),
    int: _scalar(int, "an integer"),
    bool: _scalar(bool, "a boolean"),
    type(None): _scalar(type(None), "null"),
    float: Shape({"type": "number"}, _read_number, frozenset({"integer", "number"}), "a number"),
}
ANYTHING: Final = Shape({}, _read_anything, frozenset(_KINDS.values()), "any value", is_hashable=False)


def _same(value: JSONValue, option: JSONValue) -> bool:
    if type(value) is int and type(option) is float:
        return value == option
    return type(value) is type(option) and value == option


def choice_of(options: Sequence[tuple[JSONValue, object]], where: str) -> Shape:
    """Return the shape of some JSON values; each stands for the object beside it."""
    for option, _ in options:
        if type(option) not in SCALARS or (type(option) is float and not math.isfinite(option)):
            raise TypeError(f"{where}: {option!r} cannot be a choice; use str, int, float, bool or None")
    values = [option for option, _ in options]
    words = "one of " + ", ".join(cut(option) for option in values[:MAX_NAMED]) + (", …" if len(values) > MAX_NAMED else "")

    def read(value: JSONValue) -> object:
        for option, result in options:
            if _same(value, option):
                return result
        raise _wrong(words, value)

    kinds = frozenset(kind_of(option) for option in values)
    named = {"type": next(iter(kinds))} if len(kinds) == 1 else {}
    accepted = kinds | {"integer"} if "number" in kinds else kinds
    return Shape({**named, "enum": values}, read, accepted, words, is_hashable=all(_has_hash(result) for _, result in options))


def _has_hash(value: object) -> bool:
    return type(value).__hash__ is not None


def union_of(members: Sequence[Shape]) -> Shape:
    """Return the shape of any of some: the first that fits, a number last, so that an integer stays one where that is allowed."""
    ordered = sorted(members, key=lambda shape: "number" in shape.kinds)
    words = " or ".join(shape.words for shape in members)

    def read(value: JSONValue) -> object:
        kind = kind_of(value)
        candidates = [shape for shape in ordered if kind in shape.kinds]
        if not candidates:
            raise _wrong(words, value)
        reasons: list[str] = []
        for shape in candidates:
            try:
                return shape.read(value)
            except Misfit as exc:
                if len(candidates) == 1:
                    raise
                path, what = exc.problems[0]
                reasons.append(f"{shape.words}: {path} {what}" if path else f"{shape.words}: {what}")
        raise Misfit([("", f"fits none of its forms ({'; '.join(reasons)})")])

    kinds = frozenset[str]().union(*(shape.kinds for shape in members))
    return Shape({"anyOf": [shape.schema for shape in members]}, read, kinds, words, all(shape.is_hashable for shape in members))


# ── collections ───────────────────────────────────────────────────────────────────────────────────────────────────────


def array_of(item: Shape, build: Callable[[list[object]], object], *, is_hashable: bool = False) -> Shape:
    """Return the shape of an array of any length, read by `build`: `list` or `tuple`."""

    def read(value: JSONValue) -> object:
        if type(value) is not list:
            raise _wrong("an array", value)
        return build(_read_each(((f"[{index}]", item, one) for index, one in enumerate(value)), []))

    return Shape({"type": "array", "items": item.schema}, read, frozenset({"array"}), "an array", is_hashable)


def set_of(item: Shape, build: Callable[[list[object]], Sized], where: str) -> Shape:
    """Return the shape of an array without repetitions, read by `build`: `set` or `frozenset`."""
    if not item.is_hashable:
        raise TypeError(f"{where}: the items of a set must be hashable")

    def unique(values: list[object]) -> object:
        found = build(values)
        if len(found) != len(values):
            raise Misfit([("", "must not have the same item twice")])
        return found

    shape = array_of(item, unique, is_hashable=build is frozenset)
    return attrs.evolve(shape, schema={**shape.schema, "uniqueItems": True})


def tuple_of(items: Sequence[Shape]) -> Shape:
    """Return the shape of an array of a fixed length, one shape for each place."""
    count = len(items)

    def read(value: JSONValue) -> object:
        if type(value) is not list or len(value) != count:
            found = f"one of {len(value)}" if type(value) is list else show(value)
            raise Misfit([("", f"must be an array of {count}, not {found}")])
        return tuple(_read_each(((f"[{index}]", *pair) for index, pair in enumerate(zip(items, value, strict=True))), []))

    schema: dict[str, JSONValue] = {"type": "array", "minItems": count, "maxItems": count}
    if items:
        schema["prefixItems"] = [shape.schema for shape in items]
    return Shape(schema, read, frozenset({"array"}), f"an array of {count}", all(shape.is_hashable for shape in items))


def mapping_of(item: Shape) -> Shape:
    """Return the shape of an object with any keys."""

    def read(value: JSONValue) -> object:
        if type(value) is not dict:
            raise _wrong("an object", value)
        return dict(zip(value, _read_each(((_step(key), item, one) for key, one in value.items()), []), strict=True))

    schema = {"type": "object", **({"additionalProperties": item.schema} if item.schema else {})}
    return Shape(schema, read, frozenset({"object"}), "an object", is_hashable=False)


def object_shape(
    fields: Sequence[Field], build: Build, *, words: str = "an object", is_hashable: bool = False, description: str = ""
) -> Shape:
    """Return the shape of an object with just these keys.

    Args:
        fields: in the order of the schema; may be empty.
        build: called with the values by keyword; a ValueError or TypeError of it is a `Misfit`.
        words: how it is called in refusals.
        is_hashable: whether what `build` returns is.
        description: for the schema; "" for none.
    """
    by_name = {field.name: field for field in fields}
    known = ", ".join(list(by_name)[:MAX_NAMED]) + (", …" if len(by_name) > MAX_NAMED else "") or "none"

    def read(value: JSONValue) -> object:
        if type(value) is not dict:
            raise _wrong(words, value)
        problems = [(_step(key), f"is not known; known are: {known}") for key in value if key not in by_name]
        problems += [(_step(name), "is missing") for name, field in by_name.items() if field.required and name not in value]
        present = [name for name in by_name if name in value]
        values = _read_each(((_step(name), by_name[name].shape, value[name]) for name in present), problems)
        try:
            return build(**dict(zip(present, values, strict=True)))
        except Exception as exc:  # part of the tool boundary: the class is the host's, and this error the model's
            raise Misfit([("", str(exc.args[0]) if exc.args else type(exc).__name__)]) from exc

    schema: dict[str, JSONValue] = {
        "type": "object",
        **({"description": description} if description else {}),
        "properties": {name: field.shape.schema for name, field in by_name.items()},
        "required": [name for name, field in by_name.items() if field.required],
        "additionalProperties": False,
    }
    return Shape(schema, read, frozenset({"object"}), words, is_hashable)
