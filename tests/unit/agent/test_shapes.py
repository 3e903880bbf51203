"""Shapes: what is read, what is refused and in which words, and that the schema agrees."""

import base64
import dataclasses
import datetime as dt
import decimal
import enum
import math
import pathlib
import re
import typing
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, NotRequired, TypedDict, Union

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.agent._json_forms import json_form
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
    """Where something is.

    Attributes:
        x: metres to the east
    """

    x: int
    y: float = 0.0


@attrs.frozen
class Checked:
    """Refuses negative numbers in its own constructor."""

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


class Size(NamedTuple):
    """How large it is."""

    width: int
    height: int = 1


class Shade(enum.Enum):
    """A shade, whose values are not JSON."""

    DARK = (0, 0, 0)
    LIGHT = (9, 9, 9)


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
        (Literal[1], 1.0, 1),
        (int, 5.0, 5),
        (float, 2**53 + 1, float(2**53)),
        (int | str, 5.0, 5),
        (int | float, 5.0, 5.0),
        (dict[Color, int], {"red": 1}, {Color.RED: 1}),
        (dict[dt.date, int], {"2026-01-31": 1}, {dt.date(2026, 1, 31): 1}),
        (Shade, "DARK", Shade.DARK),
        (Literal[Color.RED], "red", Color.RED),
        (Size, {"width": 2}, Size(2)),
        (dt.datetime, "2026-01-31T09:30:00Z", dt.datetime(2026, 1, 31, 9, 30, tzinfo=dt.UTC)),
        (dt.datetime, "2026-01-31T09:30:00.5+02:00", dt.datetime(2026, 1, 31, 9, 30, 0, 500_000, dt.timezone(dt.timedelta(hours=2)))),
        (dt.datetime, "2026-01-31t09:30:00z", dt.datetime(2026, 1, 31, 9, 30, tzinfo=dt.UTC)),
        (dt.datetime, "2026-01-31 09:30", dt.datetime(2026, 1, 31, 9, 30)),
        (dt.date, "2026-01-31", dt.date(2026, 1, 31)),
        (dt.date | None, "2026-01-31", dt.date(2026, 1, 31)),
        (dt.time, "09:30:00Z", dt.time(9, 30, tzinfo=dt.UTC)),
        (dt.timedelta, "P1DT2H30M", dt.timedelta(days=1, hours=2, minutes=30)),
        (dt.timedelta, "-PT1.5S", dt.timedelta(seconds=-1.5)),
        (dt.timedelta, "P1Y1M1W", dt.timedelta(days=365 + 30 + 7)),
        (uuid.UUID, str(uuid.UUID(int=1)), uuid.UUID(int=1)),
        (decimal.Decimal, "20.00", decimal.Decimal("20.00")),
        (decimal.Decimal, 20.1, decimal.Decimal("20.1")),
        (decimal.Decimal | None, 20, decimal.Decimal(20)),
        (bytes, "aGk=", b"hi"),
        (pathlib.PurePosixPath, "/a/b", pathlib.PurePosixPath("/a/b")),
        (set[uuid.UUID], [str(uuid.UUID(int=1))], {uuid.UUID(int=1)}),
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
        (int, 5.5, "must be an integer, not the number 5.5"),
        (int | str, 5.5, "must be an integer or a string, not the number 5.5"),
        (set[int], [1, 1.0], "must not have the same item twice"),
        (dt.datetime, "noon", 'must be a date and time such as "2026-01-31T09:30:00Z", not the string "noon"'),
        (dt.date, "2026-02-30", 'must be a date such as "2026-01-31", not the string "2026-02-30"'),
        (dt.date, 5, 'must be a date such as "2026-01-31", not the integer 5'),
        (dt.timedelta, "PT", 'must be a duration such as "P1DT2H30M" or "PT90S", not the string "PT"'),
        (dt.timedelta, "P99999999W9D", 'must be a duration such as "P1DT2H30M" or "PT90S", not the string "P99999999W9D"'),
        (dt.timedelta, "P999999999DT24H", 'must be a duration such as "P1DT2H30M" or "PT90S", not the string "P999999999DT24H"'),
        (uuid.UUID, "1", 'must be a UUID such as "12345678-1234-5678-1234-567812345678", not the string "1"'),
        (decimal.Decimal, "NaN", 'must be a decimal number such as "20.00", not the string "NaN"'),
        (decimal.Decimal, True, 'must be a decimal number such as "20.00", not the boolean true'),
        (decimal.Decimal, math.inf, 'must be a decimal number such as "20.00", not the number inf'),
        (bytes, "a", 'must be bytes in base64, not the string "a"'),
        (bytes, "ä", 'must be bytes in base64, not the string "ä"'),
        (float, True, "must be a number, not the boolean true"),
        (float, "1.5", 'must be a number, not the string "1.5"'),
        (float, math.nan, "must be a number, not the number nan"),
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


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, "5", 5),
        (int, "5.0", 5),
        (int, "-5", -5),
        (int, 5.0, 5),
        (int, "1e2", 100),
        (int, "5.5", "5.5"),
        (int, "05", "05"),
        (int, " 5", " 5"),
        (int, "true", "true"),
        (int, "9" * 5000, "9" * 5000),
        (float, "0.5", 0.5),
        (float, "5", 5),
        (float, "true", "true"),
        (float, "1e999", "1e999"),
        (float, "NaN", "NaN"),
        (bool, "true", True),
        (bool, "false", False),
        (bool, "True", "True"),
        (bool, "1", "1"),
        (bool, 1, 1),
        (str, "5", "5"),
        (str, 5, 5),
        (None, "null", "null"),
        (int | None, "5", 5),
        (int | None, "5.0", 5),
        (int | bool, "true", True),
        (int | str, "5", "5"),
        (int | str, 5.0, 5),
        (float | int, "5", 5),
        (Point | int, "5", 5),
        (Point | int, {"x": "5"}, {"x": 5}),
        (Point | Late, {"a": "5"}, {"a": 5}),
        (Point | Late, {"c": "5"}, {"c": "5"}),
        (dt.date | int, "5", "5"),
        (Literal[1, 2], "2", 2),
        (Literal[1, 2], 2.0, 2),
        (Literal["1", 2], "2", "2"),
        (list[int], ["5", 6.0, "x"], [5, 6, "x"]),
        (list[int], "[5]", "[5]"),
        (set[int], ["5"], [5]),
        (tuple[int, bool], ["5", "true"], [5, True]),
        (tuple[int, bool], ["5"], ["5"]),
        (dict[str, int], {"a": "5"}, {"a": 5}),
        (dict[str, int], "{}", "{}"),
        (Point, {"x": "5", "y": None, "z": None}, {"x": 5, "z": None}),
        (Point, {"x": None}, {"x": None}),
        (Trip, {"start": {"x": 1, "y": None}, "stops": None, "name": None}, {"start": {"x": 1}, "name": None}),
        (Late, {"a": 1, "b": None}, {"a": 1}),
        (Point, [], []),
        (Any, "5", "5"),
        (decimal.Decimal, "5", "5"),
    ],
)
def test_tidy_when_only_one_meaning_is_possible(annotation: Annotation, value: Any, expected: Any) -> None:
    """A value in another form, with only one possible meaning, is put into the form of the schema. Any other value stays unchanged."""
    actual = shape_of(annotation, WHERE).tidy(value)

    assert expected == actual
    assert type(expected) is type(actual)


def test_tidy_when_the_value_is_kept_by_somebody_else() -> None:
    """The value that was given is not changed."""
    value = {"start": {"x": "1", "y": None}}
    shape_of(Trip, WHERE).tidy(value)

    assert {"start": {"x": "1", "y": None}} == value


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
        "matches none of the allowed forms "
        "(an object (Point): .n is not known; known are: x, y; an object (Checked): .n must be an integer, not null)"
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
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}
FORMATS: Final[Mapping[str, str]] = {
    "date-time": r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d(:\d\d(\.\d+)?)?)?)?",
    "date": r"\d{4}-\d\d-\d\d",
    "time": r"\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d(:\d\d(\.\d+)?)?)?",
    "duration": r"-?P(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?(?<![PT])",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "decimal": r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?",
    "path": r"(?s:.*)",
}


def has_type(name: str, value: Any) -> bool:
    """Return whether a JSON value has a type of JSON schema: 5.0 is an integer."""
    if name == "integer":
        return type(value) is int or (type(value) is float and value.is_integer())
    return type(value) in KINDS[name]


def same(one: object, other: object) -> bool:
    """Return whether two JSON values are the same. A boolean is not a number."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def fits(schema: Mapping[str, Any], value: Any) -> bool:
    """Return what a strict JSON schema validator says: the model beside the reader."""
    checks: list[bool] = []
    if "type" in schema:
        checks.append(has_type(schema["type"], value))
    if "format" in schema and isinstance(value, str):
        checks.append(re.fullmatch(FORMATS[schema["format"]], value) is not None)
    if "contentEncoding" in schema and isinstance(value, str):
        checks.append(re.fullmatch(r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", value) is not None)
    if "enum" in schema:
        checks.append(any(same(value, option) for option in schema["enum"]))
    if "anyOf" in schema:
        checks.append(any(fits(member, value) for member in schema["anyOf"]))
    if isinstance(value, list):
        checks.append(schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)))
        checks.extend(fits(schema.get("items", {}), item) for item in value)
        checks.extend(fits(item, inner) for item, inner in zip(schema.get("prefixItems", ()), value, strict=False))
        if schema.get("uniqueItems"):
            checks.append(not any(same(value[i], value[j]) for i in range(len(value)) for j in range(i)))
    if isinstance(value, dict):
        known = schema.get("properties", {})
        checks.extend(fits(schema.get("propertyNames", {}), key) for key in value)
        checks.extend(key in value for key in schema.get("required", ()))
        for key, item in value.items():
            rest = schema.get("additionalProperties", {})
            checks.append(fits(known[key], item) if key in known else rest is not False and fits(rest, item))
    return all(checks)


def tidied(schema: Mapping[str, Any], value: Any) -> Any:
    """Return what the documented leniency makes of a value: the model beside `Shape.tidy`."""
    if "anyOf" in schema:
        for given in (value, unquoted(value)):
            wanted = [member for member in schema["anyOf"] if may_be(member, given)]
            if wanted:
                return next((tidied(member, given) for member in wanted if fits(member, tidied(member, given))), given)
        return value
    types = (
        {schema["type"]} if "type" in schema else {kind for kind in KINDS if any(has_type(kind, inner) for inner in schema.get("enum", ()))}
    )
    if isinstance(value, str) and types and "string" not in types and fits(schema, unquoted(value)):
        return unquoted(value)
    if isinstance(value, list) and "items" in schema:
        return [tidied(schema["items"], inner) for inner in value]
    if isinstance(value, list) and "prefixItems" in schema and len(value) == len(schema["prefixItems"]):
        return [tidied(item, inner) for item, inner in zip(schema["prefixItems"], value, strict=True)]
    if isinstance(value, dict) and schema.get("type") == "object":
        known = schema.get("properties", {})
        kept = {
            key: inner
            for key, inner in value.items()
            if inner is not None or key not in known or key in schema["required"] or may_be(known[key], None)
        }
        return {key: tidied(known.get(key, schema.get("additionalProperties") or {}), inner) for key, inner in kept.items()}
    return value


def unquoted(value: Any) -> Any:
    """Return the number or boolean that a text is, in the way of JSON."""
    if isinstance(value, str) and re.fullmatch(r"true|false|-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", value):
        return (
            {"true": True, "false": False}.get(value)
            if value in {"true", "false"}
            else float(value)
            if set(value) & set(".eE")
            else int(value)
        )
    return value


def may_be(schema: Mapping[str, Any], value: Any) -> bool:
    """Return whether a value is of a type that a schema allows."""
    if "anyOf" in schema:
        return any(may_be(member, value) for member in schema["anyOf"])
    if "enum" in schema:
        return any(type(inner) is type(value) or (has_type("number", inner) and has_type("number", value)) for inner in schema["enum"])
    return "type" not in schema or has_type(schema["type"], value)


CLASSES: Final = st.sampled_from([Point, Trip, Options, Late, Size])
TEXT_TYPES: Final = st.sampled_from([dt.datetime, dt.date, dt.time, dt.timedelta, uuid.UUID, decimal.Decimal, bytes, pathlib.PurePosixPath])
FLAT: Final = TEXT_TYPES | st.sampled_from(
    [str, int, float, bool, None, Color, Level, Mood, Shade, Literal["a", 1, True], Literal[0.5], Literal[2], Annotated[int, "n"]]
)
TEXTS: Final = st.text(st.characters(codec="utf-8"), max_size=4)
JSONS: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | TEXTS | st.sampled_from(["red", "a", "good", 2**53 - 1]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.sampled_from(["x", "y", "a", "start", "name"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def made_class(kinds: tuple[Annotation, Annotation]) -> type:
    """Return a class of two fields. One of them may be left out."""
    first, second = (type(None) if kind is None else kind for kind in kinds)
    fields = {"a": attrs.field(type=first), "b": attrs.field(type=list[second], factory=list, eq=False)}
    return attrs.make_class("Made", fields, frozen=True)


def _wider(inner: st.SearchStrategy[Annotation]) -> st.SearchStrategy[Annotation]:
    def put_in(outer: Annotation, some: st.SearchStrategy[Annotation]) -> st.SearchStrategy[Annotation]:
        return some.map(lambda args: outer[args])

    return st.one_of(
        put_in(list, inner),
        put_in(tuple, inner.map(lambda kind: (kind, ...))),
        put_in(tuple, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        put_in(dict, inner.map(lambda kind: (str, kind))),
        put_in(dict, inner.map(lambda kind: (Color, kind))),
        st.tuples(inner, inner).map(made_class),
        put_in(Union, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        put_in(set, FLAT),
    )


ANNOTATIONS: Final = st.recursive(FLAT | CLASSES | st.just(Any), _wider, max_leaves=5)
SHOWN: Final = st.recursive(FLAT | CLASSES.filter(lambda kind: kind is not Trip), _wider, max_leaves=5)
"""Annotations of values that are made of what can be given, and of nothing else."""


ZONES: Final = st.none() | st.just(dt.UTC) | st.integers(-720, 720).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
FORMATTED: Final[Mapping[str, st.SearchStrategy[str]]] = {
    "date-time": st.datetimes(timezones=ZONES).map(dt.datetime.isoformat) | st.just("2026-01-31T09:30:00Z"),
    "date": st.dates().map(dt.date.isoformat),
    "time": st.times(timezones=ZONES).map(dt.time.isoformat) | st.just("09:30:00Z"),
    "duration": st.sampled_from(["P1Y2M3W4DT5H6M7.5S", "PT0S", "-P1D", "PT36H", "P1W"]) | st.integers(0, 10**8).map("PT{}S".format),
    "uuid": st.uuids().map(str),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=3).map(str)
    | st.just(".5e-3"),
    "path": TEXTS,
}


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
            return [item for index, item in enumerate(items) if item not in items[:index]] if "uniqueItems" in schema else items
        case "object" if "properties" in schema:
            keys = [key for key in schema["properties"] if key in schema["required"] or draw(st.booleans())]
            return {key: draw(valid_values(schema["properties"][key])) for key in keys}
        case "object" if "propertyNames" in schema:
            return draw(
                st.dictionaries(valid_values(schema["propertyNames"]), valid_values(schema.get("additionalProperties", {})), max_size=2)
            )
        case "object":
            return draw(st.dictionaries(TEXTS, valid_values(schema.get("additionalProperties", {})), max_size=3))
        case "string" if "contentEncoding" in schema:
            return base64.b64encode(draw(st.binary(max_size=5))).decode()
        case "string" if "format" in schema:
            return draw(FORMATTED[schema["format"]])
        case "string":
            return draw(TEXTS)
        case "integer":
            return draw(st.integers() | st.integers(-(2**60), 2**60).map(float))
        case "number":
            return draw(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
        case "boolean":
            return draw(st.booleans())
        case "null":
            return None
        case _:
            return draw(JSONS)


@st.composite
def bent_values(draw: st.DrawFn, value: Any) -> Any:
    """Draw a value like the given value, changed in one place."""
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
    """Every value that the schema allows is read, and is in the form of the schema already."""
    shape = shape_of(annotation, WHERE)
    value = data.draw(valid_values(shape.schema))
    assert fits(shape.schema, value)

    shape.read(value)
    shape.read(shape.tidy(value))


@given(st.data(), ANNOTATIONS)
def test_read_when_the_value_is_bent(data: st.DataObject, annotation: Annotation) -> None:
    """A value that was changed in one place is read if the schema allows it, after the documented leniency."""
    shape = shape_of(annotation, WHERE)
    value = data.draw(bent_values(data.draw(valid_values(shape.schema))))
    expected = fits(shape.schema, tidied(shape.schema, value))
    found: Sequence[tuple[str, str]] = ()
    try:
        shape.read(shape.tidy(value))
    except Misfit as exc:
        found = exc.problems

    assert expected == (not found)
    assert len(found) <= MAX_PROBLEMS


@given(st.data(), SHOWN)
def test_json_form_when_a_value_was_read(data: st.DataObject, annotation: Annotation) -> None:
    """What a parameter reads, a result can show: the JSON form of the value fits the schema, and is read as the same value."""
    shape = shape_of(annotation, WHERE)
    value = shape.read(data.draw(valid_values(shape.schema)))
    form = json_form(value)

    assert fits(shape.schema, form)
    assert form == json_form(shape.read(form))
