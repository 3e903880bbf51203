"""Shapes: what is read, what is refused and in which words, and that the schema says the same."""

import dataclasses
import enum
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict, Union

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.agent._schema import shape_of
from trio_sagents.agent._shapes import MAX_PROBLEMS, Misfit

WHERE: Final = "tool 'f': parameter 'x'"
Annotation = Any


class Color(enum.Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """A level; two of its values look like booleans."""

    LOW = 0
    HIGH = 1


class Mood(enum.StrEnum):
    """A mood."""

    GOOD = "good"


@attrs.frozen
class Point:
    """Where it is.

    Attributes:
        x: metres to the east
    """

    x: int
    y: float = 0.0


@attrs.frozen
class Checked:
    """Refuses negative numbers by itself."""

    n: int = attrs.field(validator=attrs.validators.ge(0))


@attrs.define
class Tagged:
    """Has a default that JSON cannot show, and a private field."""

    _labels: list[str] = attrs.field(factory=list)
    made_at: object = attrs.field(default=None, init=False)


@dataclasses.dataclass
class Trip:
    start: Point
    stops: list[Point] = dataclasses.field(default_factory=list)
    name: str | None = None
    length: float = dataclasses.field(default=0.0, init=False)


class Options(TypedDict, total=False):
    """What may be set."""

    verbose: bool
    depth: "NotRequired[int]"
    name: typing.Required[str]


class Late(TypedDict):
    """Its optional key is written as a string."""

    a: int
    b: "NotRequired[Annotated[str, 'the b']]"


def read(annotation: Annotation, value: object) -> object:
    """Return what the shape of `annotation` reads."""
    return shape_of(annotation, WHERE).read(value)


def problems(annotation: Annotation, value: object) -> Sequence[tuple[str, str]]:
    """Return what is wrong with a value."""
    with pytest.raises(Misfit) as caught:
        read(annotation, value)
    return caught.value.problems


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (float, 5, 5.0),
        (float | int, 5, 5),
        (int | float, 5, 5),
        (float | int, 5.5, 5.5),
        (list[int], [1, 2], [1, 2]),
        (Sequence[int], [1, 2], [1, 2]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 2], {1, 2}),
        (frozenset[str], ["a"], frozenset({"a"})),
        (set[Point], [{"x": 1}], {Point(1)}),
        (set[tuple[int, ...]], [[1], [1, 2]], {(1,), (1, 2)}),
        (Color, "red", Color.RED),
        (Level, 1, Level.HIGH),
        (Mood, "good", Mood.GOOD),
        (Literal[1.5, "a"], 1.5, 1.5),
        (Literal[2.0], 2, 2.0),
        (Point, {"x": 1, "y": 2}, Point(1, 2.0)),
        (Point | None, None, None),
        (Tagged, {"labels": ["a"]}, Tagged(["a"])),
        (Trip, {"start": {"x": 1}}, Trip(Point(1))),
        (Late, {"a": 1}, {"a": 1}),
        (Checked | Point, {"x": 1}, Point(1)),
    ],
)
def test_read_when_the_value_fits(annotation: Annotation, value: object, expected: object) -> None:
    """A value that fits becomes what the annotation says, and of that very type."""
    actual = read(annotation, value)

    assert expected == actual
    assert type(expected) is type(actual)


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, "5", 'must be an integer, not the string "5"'),
        (int, True, "must be an integer, not the boolean true"),
        (int, 5.0, "must be an integer, not the number 5.0"),
        (float, True, "must be a number, not the boolean true"),
        (float, "1.5", 'must be a number, not the string "1.5"'),
        (float, math.nan, "must be a number, not the number nan"),
        (float, 2**53 + 1, "is too large: 9007199254740993 has no exact floating-point value"),
        (bool, 1, "must be a boolean, not the integer 1"),
        (bool, "yes", 'must be a boolean, not the string "yes"'),
        (str, 5, "must be a string, not the integer 5"),
        (str, None, "must be a string, not null"),
        (None, 0, "must be null, not the integer 0"),
        (list[str], "abc", 'must be an array, not the string "abc"'),
        (dict[str, int], [], "must be an object, not the array []"),
        (tuple[int, int], [1], "must be an array of 2, not one of 1"),
        (tuple[int, int], {}, "must be an array of 2, not the object {}"),
        (set[int], [1, 1], "must not have the same item twice"),
        (Literal["a", "b"], "c", 'must be one of "a", "b", not the string "c"'),
        (Literal[1], True, "must be one of 1, not the boolean true"),
        (Literal[1], 1.0, "must be one of 1, not the number 1.0"),
        (Level, True, "must be one of 0, 1, not the boolean true"),
        (int | None, "5", 'must be an integer or null, not the string "5"'),
        (Point | None, [], "must be an object (Point) or null, not the array []"),
        (Checked, {"n": -1}, "'n' must be >= 0: -1"),
        (Any, {1, 2}, "the value: set has no JSON form"),
        (str, "x" * 100, None),
    ],
)
def test_read_when_the_value_is_near(annotation: Annotation, value: object, expected: str | None) -> None:
    """Nothing is coerced: what is nearly right is refused, in words."""
    if expected is None:
        assert value == read(annotation, value)
    else:
        assert [("", expected)] == problems(annotation, value)


def test_read_when_an_integer_is_beyond_floats() -> None:
    """An integer that no float can hold is refused, not an OverflowError."""
    ((path, what),) = problems(float, 10**400)

    assert "" == path
    assert what.startswith("is too large: 1000")


def test_read_when_many_places_are_wrong() -> None:
    """Every wrong place is named by its path, up to a limit."""
    value = {"start": {"y": "far", "z": 1}, "stops": [{"x": 1}, {"x": None}], "odd key": 1}
    expected = [
        ('["odd key"]', "is not known; known are: start, stops, name"),
        (".start.z", "is not known; known are: x, y"),
        (".start.x", "is missing"),
        (".start.y", 'must be a number, not the string "far"'),
        (".stops[1].x", "must be an integer, not null"),
    ]

    assert expected == problems(Trip, value)
    assert MAX_PROBLEMS == len(problems(list[int], ["x"] * 100))


def test_read_when_a_mapping_has_wrong_values() -> None:
    """The key of a wrong value is in its path."""
    assert [(".b", "must be an integer, not null")] == problems(dict[str, int], {"a": 1, "b": None})


def test_read_when_several_forms_could_be_meant() -> None:
    """Where several members of a union are objects, each says why it does not fit."""
    expected = (
        "fits none of its forms (an object (Point): .n is not known; known are: x, y; an object (Checked): .n must be an integer, not null)"
    )

    assert [("", expected)] == problems(Point | Checked, {"n": None})


def test_read_when_a_class_raises_anything() -> None:
    """What the host's own class raises is said to the model; it does not break the agent."""

    @attrs.frozen
    class Rude:
        a: int

        def __attrs_post_init__(self) -> None:
            raise LookupError

    assert [("", "LookupError")] == problems(Rude, {"a": 1})


def test_read_when_anything_is_allowed() -> None:
    """What goes to an `Any` is a copy: changing it does not change the history."""
    value: dict[str, Any] = {"a": [1]}
    actual = read(Any, value)
    assert isinstance(actual, dict)
    actual["a"].append(2)

    assert {"a": [1]} == value


# ── the schema and the reader agree ───────────────────────────────────────────────────────────────────────────────────

KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def same(one: object, other: object) -> bool:
    """Return whether two JSON values are one; a boolean is no number."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def fits(schema: Mapping[str, Any], value: Any) -> bool:
    """Return what a strict JSON schema validator says: the model beside the reader."""
    checks: list[bool] = []
    if "type" in schema:
        checks.append(type(value) in KINDS[schema["type"]])
    if "enum" in schema:
        checks.append(any(same(value, option) and (type(value) is type(option) or type(option) is float) for option in schema["enum"]))
    if "anyOf" in schema:
        checks.append(any(fits(member, value) for member in schema["anyOf"]))
    if isinstance(value, list):
        checks.append(schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)))
        checks.extend(fits(schema.get("items", {}), item) for item in value)
        checks.extend(fits(item, one) for item, one in zip(schema.get("prefixItems", ()), value, strict=False))
        if schema.get("uniqueItems"):
            checks.append(not any(value[i] == value[j] for i in range(len(value)) for j in range(i)))
    if isinstance(value, dict):
        known = schema.get("properties", {})
        checks.extend(key in value for key in schema.get("required", ()))
        for key, item in value.items():
            rest = schema.get("additionalProperties", {})
            checks.append(fits(known[key], item) if key in known else rest is not False and fits(rest, item))
    return all(checks)


CLASSES: Final = st.sampled_from([Point, Trip, Options, Late])
FLAT: Final = st.sampled_from([str, int, float, bool, None, Color, Level, Mood, Literal["a", 1, True], Literal[0.5], Annotated[int, "n"]])
TEXTS: Final = st.text(st.characters(codec="utf-8"), max_size=4)
JSONS: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | TEXTS | st.sampled_from(["red", "a", "good", 2**53 - 1]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.sampled_from(["x", "y", "a", "start", "name"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def _wider(inner: st.SearchStrategy[Annotation]) -> st.SearchStrategy[Annotation]:
    def put_in(outer: Annotation, some: st.SearchStrategy[Annotation]) -> st.SearchStrategy[Annotation]:
        return some.map(lambda args: outer[args])

    return st.one_of(
        put_in(list, inner),
        put_in(tuple, inner.map(lambda one: (one, ...))),
        put_in(tuple, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        put_in(dict, inner.map(lambda one: (str, one))),
        put_in(Union, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        put_in(set, FLAT),
    )


ANNOTATIONS: Final = st.recursive(FLAT | CLASSES | st.just(Any), _wider, max_leaves=5)


@st.composite
def valid_values(draw: st.DrawFn, schema: Mapping[str, Any]) -> Any:  # a table, by kind
    """Draw a value that the schema allows."""
    if "anyOf" in schema:
        return draw(valid_values(draw(st.sampled_from(schema["anyOf"]))))
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    match schema.get("type"):
        case "array" if "prefixItems" in schema or "maxItems" in schema:
            return [draw(valid_values(item)) for item in schema.get("prefixItems", ())]
        case "array":
            items = draw(st.lists(valid_values(schema["items"]), max_size=3))
            return [one for index, one in enumerate(items) if one not in items[:index]] if "uniqueItems" in schema else items
        case "object" if "properties" in schema:
            keys = [key for key in schema["properties"] if key in schema["required"] or draw(st.booleans())]
            return {key: draw(valid_values(schema["properties"][key])) for key in keys}
        case "object":
            return draw(st.dictionaries(TEXTS, valid_values(schema.get("additionalProperties", {})), max_size=3))
        case "string":
            return draw(TEXTS)
        case "integer":
            return draw(st.integers())
        case "number":
            return draw(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
        case "boolean":
            return draw(st.booleans())
        case "null":
            return None
        case _:
            return draw(JSONS)


@st.composite
def bent_values(draw: st.DrawFn, value: Any) -> Any:
    """Draw a value like the given one, with one place changed."""
    if isinstance(value, list) and value and draw(st.booleans()):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], draw(bent_values(value[index])), *value[index + 1 :]]
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        changed = {**value, key: draw(bent_values(value[key]))}
        return {name: item for name, item in changed.items() if name != key} if draw(st.booleans()) else changed
    if isinstance(value, dict):
        return {**value, draw(TEXTS): draw(JSONS)}
    if isinstance(value, list):
        return [*value, *draw(st.lists(JSONS, min_size=1, max_size=1))]
    return draw(st.sampled_from([None, str(value), [value], not value, 0, 1, 1.0, "", {}, True]) | JSONS)


@given(st.data(), ANNOTATIONS)
def test_read_when_the_schema_allows_the_value(data: st.DataObject, annotation: Annotation) -> None:
    """Every value that the schema allows is read."""
    shape = shape_of(annotation, WHERE)
    value = data.draw(valid_values(shape.schema))
    assert fits(shape.schema, value)

    shape.read(value)


@given(st.data(), ANNOTATIONS)
def test_read_when_the_value_is_bent(data: st.DataObject, annotation: Annotation) -> None:
    """A value that was changed in one place is read or refused just as the schema says."""
    shape = shape_of(annotation, WHERE)
    value = data.draw(bent_values(data.draw(valid_values(shape.schema))))
    expected = fits(shape.schema, value)
    found: Sequence[tuple[str, str]] = ()
    try:
        shape.read(value)
    except Misfit as exc:
        found = exc.problems

    assert expected == (not found)
    assert len(found) <= MAX_PROBLEMS
