"""Constraints beside an annotation, as in `Annotated[int, Ge(1)]`: said to the model in the schema, and kept when a value is read.

The constraints are those of the package annotated-types, which Pydantic's `Field` and others write, too. None of these packages is
imported here: a constraint is known by its fields. What a schema cannot say, such as a predicate, is kept all the same.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, TypeAlias

import attrs

from trio_sagents.agent._shapes import Misfit, Shape, union_of
from trio_sagents.data.json import JSONValue, Opaque

Test: TypeAlias = Callable[[Opaque], bool]
_NUMBERS: Final = frozenset({"integer", "number"})
_BOUNDS: Final[Mapping[str, tuple[str, str, Callable[[Opaque, Opaque], bool]]]] = {
    "ge": ("minimum", "at least", lambda value, bound: value >= bound),
    "gt": ("exclusiveMinimum", "greater than", lambda value, bound: value > bound),
    "le": ("maximum", "at most", lambda value, bound: value <= bound),
    "lt": ("exclusiveMaximum", "less than", lambda value, bound: value < bound),
}
"""By the name of a field: its keyword of JSON schema, its words, and its meaning."""
_LENGTHS: Final[Mapping[str, tuple[Mapping[str, str], str, Callable[[int, int], bool]]]] = {
    "min_length": ({"string": "minLength", "array": "minItems", "object": "minProperties"}, "at least", lambda size, bound: size >= bound),
    "max_length": ({"string": "maxLength", "array": "maxItems", "object": "maxProperties"}, "at most", lambda size, bound: size <= bound),
}
_UNITS: Final = {"string": "characters", "array": "items", "object": "keys"}
_ONLY_PYTHON: Final = re.compile(r"\(\?[P#aiLmsux(>]|\\[AZN]|[*+?}]\+")
"""What a pattern may have that other readers of JSON schema do not know; such a pattern is kept, and not shown."""


@attrs.frozen
class Constraint:
    """One constraint, as it was written."""

    name: str
    """"ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern" or "predicate"."""
    bound: Opaque


def constraints_in(extras: Sequence[object]) -> Sequence[Constraint]:
    """Return the constraints in the metadata of an annotation. A text there describes the parameter, and is not a constraint."""
    return tuple(found for extra in extras for found in _constraints_of(extra))


def _constraints_of(extra: Opaque) -> Iterator[Constraint]:
    if isinstance(extra, str | type):
        return
    inner = getattr(extra, "metadata", None)
    for each in inner if isinstance(inner, list | tuple) else ():
        yield from _constraints_of(each)
    for name in (*_BOUNDS, "multiple_of"):
        bound = getattr(extra, name, None)
        if bound is not None and not callable(bound):
            yield Constraint(name, bound)
    for name in _LENGTHS:
        bound = getattr(extra, name, None)
        if type(bound) is int and (bound or name == "max_length"):
            yield Constraint(name, bound)
    pattern = getattr(extra, "pattern", None)
    if isinstance(pattern, re.Pattern):
        pattern = pattern.pattern
    if isinstance(pattern, str):
        yield Constraint("pattern", pattern)
    predicate = getattr(extra, "func", None)
    if type(extra).__name__ == "Predicate" and callable(predicate):
        yield Constraint("predicate", predicate)


def constrained(shape: Shape, constraints: Sequence[Constraint], where: str, members: Sequence[Shape] = ()) -> Shape:
    """Return a shape that keeps constraints.

    Args:
        shape: what the annotation accepts.
        constraints: from `constraints_in`.
        where: what errors begin with.
        members: the members, if the shape is that of a union: each keeps the constraints that are about its kind of value.

    Raises:
        TypeError: a constraint is not about this kind of value.
    """
    if not members:
        for constraint in constraints:
            kept = _kept(shape, constraint)
            if kept is None:
                raise TypeError(f"{where}: the constraint {constraint.name} is not about {shape.words}")
            shape = kept
        return shape
    each = list(members)
    for constraint in constraints:
        found = [_kept(member, constraint) for member in each]
        if not any(found):
            raise TypeError(f"{where}: the constraint {constraint.name} is not about {shape.words}")
        each = [member if kept is None else kept for member, kept in zip(each, found, strict=True)]
    return union_of(each)


def _kept(shape: Shape, constraint: Constraint) -> Shape | None:
    """Return a shape that keeps one constraint; None if the constraint is not about it."""
    name, bound = constraint.name, constraint.bound
    if name in _BOUNDS:
        keyword, words, holds = _BOUNDS[name]
        if not _is_comparable(shape, bound):
            return None
        schema = {keyword: _number(bound)} if shape.kinds <= _NUMBERS else {}
        return _checked(shape, schema, f"must be {words} {bound}", lambda value: bool(holds(value, bound)), name)
    if name == "multiple_of":
        if not shape.kinds & _NUMBERS:
            return None
        step = Decimal(str(bound))
        schema = {"multipleOf": _number(bound)} if shape.kinds <= _NUMBERS else {}
        return _checked(shape, schema, f"must be a multiple of {bound}", lambda value: not Decimal(str(value)) % step, name)
    if name in _LENGTHS:
        keywords, words, fits = _LENGTHS[name]
        kind = shape.schema.get("type")
        if not isinstance(kind, str) or kind not in keywords or "format" in shape.schema:
            return None
        what = f"must have {words} {bound} {_UNITS[kind]}"
        return _checked(shape, {keywords[kind]: bound}, what, lambda value: fits(len(value), bound), name)
    if shape.schema.get("type") != "string" and name == "pattern":
        return None
    if name == "pattern":
        found = re.compile(bound)
        schema = {} if _ONLY_PYTHON.search(bound) else {"pattern": bound}
        return _checked(shape, schema, f"must match {bound!r}", lambda value: found.search(str(value)) is not None, name)
    title = getattr(bound, "__name__", "")
    what = f"must pass {title}" if title.isidentifier() else "is not allowed"
    return _checked(shape, {}, what, lambda value: bool(bound(value)), name)


def _is_comparable(shape: Shape, bound: object) -> bool:
    """Return whether the values of a shape can be compared with a bound: numbers with numbers, dates with dates."""
    if isinstance(bound, int | float | Decimal) and not isinstance(bound, bool):
        return bool(shape.kinds & _NUMBERS)
    return "string" in shape.kinds and "enum" not in shape.schema and not isinstance(bound, str)


def _number(bound: Opaque) -> JSONValue:
    if isinstance(bound, Decimal):
        return int(bound) if bound == bound.to_integral_value() else float(bound)
    plain: JSONValue = bound
    return plain


def _checked(shape: Shape, schema: Mapping[str, JSONValue], what: str, test: Test, name: str) -> Shape:
    def read(value: JSONValue) -> object:
        found = shape.read(value)
        try:
            fits = test(found)
        except Exception as exc:  # part of the tool boundary: the bound and the predicate are the host's, and this error is for the model
            raise Misfit([("", f"cannot be compared ({name}): {type(exc).__name__}")]) from exc
        if not fits:
            raise Misfit([("", what)])
        return found

    described = dict(schema)
    if not schema:  # the schema cannot say it, so that the description does
        before = shape.schema.get("description")
        described["description"] = f"{before} ({what})" if isinstance(before, str) and before else what
    merged = {**shape.schema, **{key: _stricter(key, shape.schema.get(key), value) for key, value in described.items()}}
    return attrs.evolve(shape, schema=merged, read=read)


def _stricter(keyword: str, before: JSONValue, now: JSONValue) -> JSONValue:
    """Return the keyword for two constraints of one name: the stricter one."""
    if not isinstance(before, int | float) or not isinstance(now, int | float):
        return now
    if keyword in {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}:
        return max(before, now)
    return min(before, now) if keyword != "multipleOf" else now
