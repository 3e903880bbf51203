"""Shapes of arrays and objects. They are made of the shapes of what is inside."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import attrs

from trio_sagents.agent._shapes import MAX_NAMED, MAX_PROBLEMS, SHOWN, Misfit, Problem, Shape, cut, show, whole, wrong
from trio_sagents.data.json import JSONValue, canonical

Build: TypeAlias = Callable[..., object]  # type: ignore[explicit-any]  # takes any names


@attrs.frozen(eq=False)
class Field:
    """One named value of an object: a parameter, or a field of a class."""

    name: str
    shape: Shape
    required: bool


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


def array_of(item: Shape, build: Callable[[list[object]], object], *, is_hashable: bool = False) -> Shape:
    """Return the shape of an array of any length, read by `build`: `list` or `tuple`."""

    def read(value: JSONValue) -> object:
        if type(value) is not list:
            raise wrong("an array", value)
        return build(_read_each(((f"[{index}]", item, each) for index, each in enumerate(value)), []))

    def tidy(value: JSONValue) -> JSONValue:
        return [item.tidy(each) for each in value] if type(value) is list else value

    return Shape({"type": "array", "items": item.schema}, read, frozenset({"array"}), "an array", is_hashable, tidy)


def set_of(item: Shape, build: Callable[[list[object]], object], where: str) -> Shape:
    """Return the shape of an array without duplicates, read by `build`: `set` or `frozenset`.

    Raises:
        TypeError: the items cannot be members of a set.
    """
    if not item.is_hashable:
        raise TypeError(f"{where}: the items of a set must be hashable")
    shape = array_of(item, build, is_hashable=build is frozenset)

    def read(value: JSONValue) -> object:
        found = shape.read(value)
        if len({canonical(_canonical_numbers(each)) for each in value}) != len(value):
            raise Misfit([("", "must not have the same item twice")])
        return found

    return attrs.evolve(shape, schema={**shape.schema, "uniqueItems": True}, read=read)


def _canonical_numbers(value: JSONValue) -> JSONValue:
    """Return a JSON value in which equal numbers are written alike: 1.0 as 1."""
    if isinstance(value, list):
        return [_canonical_numbers(item) for item in value]
    return {key: _canonical_numbers(item) for key, item in value.items()} if isinstance(value, dict) else whole(value)


def tuple_of(items: Sequence[Shape]) -> Shape:
    """Return the shape of an array of a fixed length, one shape for each place."""
    count = len(items)

    def read(value: JSONValue) -> object:
        if type(value) is not list or len(value) != count:
            found = f"one of {len(value)}" if type(value) is list else show(value)
            raise Misfit([("", f"must be an array of {count}, not {found}")])
        return tuple(_read_each(((f"[{index}]", *pair) for index, pair in enumerate(zip(items, value, strict=True))), []))

    def tidy(value: JSONValue) -> JSONValue:
        if type(value) is not list or len(value) != count:
            return value
        return [item.tidy(each) for item, each in zip(items, value, strict=True)]

    schema: dict[str, JSONValue] = {"type": "array", "minItems": count, "maxItems": count}
    if items:
        schema["prefixItems"] = [shape.schema for shape in items]
    return Shape(schema, read, frozenset({"array"}), f"an array of {count}", all(shape.is_hashable for shape in items), tidy)


def mapping_of(item: Shape, key: Shape | None = None) -> Shape:
    """Return the shape of an object with any keys.

    Args:
        item: of each value.
        key: of each key, if it is not just a text.
    """

    def read(value: JSONValue) -> object:
        if type(value) is not dict:
            raise wrong("an object", value)
        values = _read_each(((_step(name), item, each) for name, each in value.items()), [])
        names = value if key is None else _read_each(((_step(name), key, name) for name in value), [])
        return dict(zip(names, values, strict=True))

    def tidy(value: JSONValue) -> JSONValue:
        return {name: item.tidy(each) for name, each in value.items()} if type(value) is dict else value

    schema: dict[str, JSONValue] = {"type": "object"}
    if key is not None:
        schema["propertyNames"] = key.schema
    if item.schema:
        schema["additionalProperties"] = item.schema
    return Shape(schema, read, frozenset({"object"}), "an object", is_hashable=False, tidy=tidy)


def object_shape(
    fields: Sequence[Field], build: Build, *, words: str = "an object", is_hashable: bool = False, description: str = ""
) -> Shape:
    """Return the shape of an object with just these keys.

    Args:
        fields: in the order of the schema; may be empty.
        build: called with the values by keyword; a ValueError or TypeError of it is a `Misfit`.
        words: what refusals call the object.
        is_hashable: whether what `build` returns is.
        description: for the schema; "" for none.
    """
    by_name = {field.name: field for field in fields}
    known = ", ".join(list(by_name)[:MAX_NAMED]) + (", …" if len(by_name) > MAX_NAMED else "") or "none"

    def read(value: JSONValue) -> object:
        if type(value) is not dict:
            raise wrong(words, value)
        problems = [(_step(key), f"is not known; known are: {known}") for key in value if key not in by_name]
        problems += [(_step(name), "is missing") for name, field in by_name.items() if field.required and name not in value]
        present = [name for name in by_name if name in value]
        values = _read_each(((_step(name), by_name[name].shape, value[name]) for name in present), problems)
        try:
            return build(**dict(zip(present, values, strict=True)))
        except Exception as exc:  # part of the tool boundary: the class is the host's, and this error the model's
            raise Misfit([("", str(exc.args[0]) if exc.args else type(exc).__name__)]) from exc

    def tidy(value: JSONValue) -> JSONValue:
        if type(value) is not dict:
            return value
        given = {name: each for name, each in value.items() if name not in by_name or not _is_left_out(by_name[name], each)}
        return {name: by_name[name].shape.tidy(each) if name in by_name else each for name, each in given.items()}

    schema: dict[str, JSONValue] = {
        "type": "object",
        **({"description": description} if description else {}),
        "properties": {name: field.shape.schema for name, field in by_name.items()},
        "required": [name for name, field in by_name.items() if field.required],
        "additionalProperties": False,
    }
    return Shape(schema, read, frozenset({"object"}), words, is_hashable, tidy)


def _is_left_out(field: Field, value: JSONValue) -> bool:
    """Return whether null stands for a field that may be left out."""
    return value is None and not field.required and "null" not in field.shape.kinds
