"""Schemas and readers: one walk over an annotation gives both, and they agree."""

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import math
import pathlib
import sys
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Generic, Literal, NewType, NotRequired, Optional, TypedDict, TypeVar, Union

import attrs
import pydantic
import pytest
import typing_extensions

from trio_sagents.agent._schema import shape_of
from trio_sagents.agent._shapes import Misfit

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


@attrs.frozen
class Point:
    """Where something is.

    Attributes:
        x: metres to the east
    """

    x: int
    y: float = 0.0


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


@attrs.frozen
class Tree:
    """Refers to itself."""

    children: "list[Tree]"


UserId = NewType("UserId", int)
T = TypeVar("T")


@attrs.frozen
class Box(Generic[T]):
    """Has a type parameter."""

    inner: T


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (Any, {}),
        (object, {}),
        (list, {"type": "array", "items": {}}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (tuple[int, str], {"type": "array", "minItems": 2, "maxItems": 2, "prefixItems": [{"type": "integer"}, {"type": "string"}]}),
        (tuple[()], {"type": "array", "minItems": 0, "maxItems": 0}),
        (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        (dict, {"type": "object"}),
        (Mapping[str, Any], {"type": "object"}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal["a", 1, None], {"enum": ["a", 1, None]}),
        (Color, {"type": "string", "enum": ["red", "blue"]}),
        (Level, {"type": "integer", "enum": [0, 1]}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # the old way of writing must work
        (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),  # likewise
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (enum.Enum("Odd", {"A": (1, 2), "B": 1}), {"type": "string", "enum": ["A", "B"]}),
        (enum.Enum("Far", {"A": math.inf}), {"type": "string", "enum": ["A"]}),
        (Literal[Color.RED, 1], {"enum": ["red", 1]}),
        (dt.datetime, {"type": "string", "format": "date-time"}),
        (dt.date, {"type": "string", "format": "date"}),
        (dt.time, {"type": "string", "format": "time"}),
        (dt.timedelta, {"type": "string", "format": "duration"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (decimal.Decimal, {"anyOf": [{"type": "string", "format": "decimal"}, {"type": "number"}]}),
        (bytes, {"type": "string", "contentEncoding": "base64"}),
        (pathlib.Path, {"type": "string", "format": "path"}),
        (
            dict[Color, int],
            {"type": "object", "propertyNames": {"type": "string", "enum": ["red", "blue"]}, "additionalProperties": {"type": "integer"}},
        ),
        (Annotated[int, pydantic.Field(description="how many")], {"type": "integer", "description": "how many"}),
        (Annotated[int, typing_extensions.Doc("how many")], {"type": "integer", "description": "how many"}),
        (Annotated[int, pydantic.Field()], {"type": "integer"}),
        (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
        (list[Annotated[int, 5, "each"]], {"type": "array", "items": {"type": "integer", "description": "each"}}),
        (Annotated[int, 5], {"type": "integer"}),
        (UserId, {"type": "integer"}),
    ],
)
def test_schema_when_the_annotation_is_supported(annotation: Annotation, expected: object) -> None:
    """Each supported annotation has the schema that the documentation of JSON schema gives it."""
    actual = shape_of(annotation, WHERE).schema

    assert expected == actual


def test_schema_when_a_class_is_inline() -> None:
    """An attrs class is described inline, with the descriptions of its docstring, and accepts no other keys."""
    expected = {
        "type": "object",
        "description": "Where something is.",
        "properties": {"x": {"type": "integer", "description": "metres to the east"}, "y": {"type": "number", "default": 0.0}},
        "required": ["x"],
        "additionalProperties": False,
    }
    actual = shape_of(Point, WHERE).schema

    assert expected == actual


def test_schema_when_a_dataclass_has_no_docstring() -> None:
    """The docstring that a dataclass makes up is not shown; fields that cannot be given are not, either."""
    schema = shape_of(Trip, WHERE).schema

    assert "description" not in schema
    assert ["start", "stops", "name"] == list(schema["properties"])
    assert ["start"] == schema["required"]
    assert None is schema["properties"]["name"]["default"]
    assert "default" not in schema["properties"]["stops"]


@pytest.mark.parametrize(("cls", "required"), [(Options, ["name"]), (Late, ["a"])])
def test_schema_when_a_typed_dict_marks_its_keys(cls: type, required: list[str]) -> None:
    """Required and NotRequired count, even if they are written as strings."""
    actual = shape_of(cls, WHERE).schema["required"]

    assert required == actual


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the `type` statement is of 3.12")
def test_schema_when_an_alias_is_a_statement() -> None:
    """A `type` alias means what it is defined as. An alias that refers to itself is refused."""
    names: dict[str, Any] = {}
    exec("type Ids = list[int]\ntype Nest = list[Nest]", names)  # no syntax of 3.11

    assert {"type": "array", "items": {"type": "integer"}} == shape_of(names["Ids"], WHERE).schema
    with pytest.raises(TypeError, match=r"tool 'f': parameter 'x', items: Nest refers to itself"):
        shape_of(names["Nest"], WHERE)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (complex, "unsupported parameter type complex"),
        (Callable[[], int], "unsupported parameter type"),
        (T, "unsupported parameter type ~T"),
        (Box[int], "unsupported parameter type"),
        (Box, "field 'inner': unsupported parameter type ~T"),
        (type[int], "unsupported parameter type"),
        ([int], "unsupported parameter type"),
        ({"a": int}, "unsupported parameter type"),
        (list[complex], ", items: unsupported parameter type complex"),
        (dict[str, complex], ", values: unsupported parameter type complex"),
        (dict[int, str], "the keys of dict must be str, or a type that is written as text; not <class 'int'>"),
        (dict[Level, str], "the keys of dict must be str, or a type that is written as text; not <enum 'Level'>"),
        (tuple[int, complex], ", item 1: unsupported parameter type complex"),
        (set[list[int]], "the items of a set must be hashable"),
        (set[dict[str, int]], "the items of a set must be hashable"),
        (set[Any], "the items of a set must be hashable"),
        (set[Tagged], "the items of a set must be hashable"),
        (Literal[b"a"], "b'a' cannot be a choice"),
        (Tree, r", field 'children', items: Tree refers to itself; a tool's parameters cannot be recursive"),
        (collections.abc.Iterator[int], "unsupported parameter type"),
    ],
)
def test_schema_when_the_annotation_is_refused(annotation: Annotation, words: str) -> None:
    """An annotation that a model cannot be asked for is a TypeError that says where the annotation is."""
    with pytest.raises(TypeError, match=rf"^tool 'f': parameter 'x'.*{words}"):
        shape_of(annotation, WHERE)


def test_schema_when_a_class_needs_more_than_its_fields() -> None:
    """A class that cannot be built from its fields is refused when the tool is made, not when it is called."""

    @dataclasses.dataclass
    class Odd:
        a: int
        b: dataclasses.InitVar[int]

    with pytest.raises(TypeError, match="Odd needs 'b', which is not a field of the class"):
        shape_of(Odd, WHERE)


def test_schema_when_a_field_has_no_annotation() -> None:
    """A field without a type is named."""
    cls = attrs.make_class("Loose", {"a": attrs.field()})

    with pytest.raises(TypeError, match="the field 'a' of Loose has no annotation"):
        shape_of(cls, WHERE)


def test_schema_when_a_name_is_unknown() -> None:
    """A string annotation that cannot be resolved is a TypeError that says what to do."""

    @attrs.frozen
    class Lost:
        a: "Nowhere"  # type: ignore[name-defined]  # the point of the test

    with pytest.raises(TypeError, match=r"parameter 'x': its annotations cannot be resolved: name 'Nowhere' is not defined; import"):
        shape_of(Lost, WHERE)


# ── defaults ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@attrs.frozen
class Defaults:
    """Has defaults of many kinds."""

    text: str = None  # type: ignore[assignment]  # as many people write it
    word: str | None = None
    color: Color = Color.RED
    day: dt.date = dt.date(2026, 1, 31)
    count: int = "ten"  # type: ignore[assignment]  # wrong on purpose
    point: Point = Point(1)
    tags: frozenset[str] = frozenset({"b", "a"})
    ratio: float = math.inf
    anything: Any = attrs.field(default=..., metadata={"": ""})


def test_schema_when_fields_have_defaults() -> None:
    """A default is shown if a model that gives it gives the default; any other is not."""
    fields = shape_of(Defaults, WHERE).schema["properties"]

    assert {
        "word": None,
        "color": "red",
        "day": "2026-01-31",
        "point": {"x": 1, "y": 0.0},
        "tags": ["a", "b"],
    } == {name: field["default"] for name, field in fields.items() if "default" in field}


# ── NamedTuple and Pydantic ───────────────────────────────────────────────────────────────────────────────────────────


class Size(typing.NamedTuple):
    """How large it is."""

    width: int
    height: int = 1


Loose = collections.namedtuple("Loose", ["a"])  # type: ignore[name-match]  # noqa: PYI024  # the old way must work, too


class Leg(pydantic.BaseModel):
    """A part of a journey."""

    to: str
    by: Color = Color.RED


class Journey(pydantic.BaseModel):
    """Where to go."""

    model_config = pydantic.ConfigDict(populate_by_name=True)

    legs: list[Leg] = pydantic.Field(description="in order", min_length=1)
    day: dt.date | None = None
    cost: decimal.Decimal = pydantic.Field(default=decimal.Decimal(0), alias="price", ge=0)


class Nest(pydantic.BaseModel):
    """Refers to itself."""

    inner: "list[Nest]"


class Ids(pydantic.RootModel[list[int]]):
    """Is not an object."""


class Strange(pydantic.BaseModel):
    """Has a field without a schema."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    thing: Box[int]


def test_schema_when_it_is_a_named_tuple() -> None:
    """A named tuple is an object; without annotations, of anything."""
    fields = {"width": {"type": "integer"}, "height": {"type": "integer", "default": 1}}

    assert {
        "type": "object",
        "description": "How large it is.",
        "properties": fields,
        "required": ["width"],
        "additionalProperties": False,
    } == shape_of(Size, WHERE).schema
    assert {"a": {}} == shape_of(Loose, WHERE).schema["properties"]


def test_schema_when_it_is_a_pydantic_model() -> None:
    """A Pydantic model has its own schema, with the models in it written out, for a nested reference would not be found."""
    schema = shape_of(list[Journey], WHERE).schema["items"]

    assert "$ref" not in repr(schema)
    assert "$defs" not in repr(schema)
    assert ["legs"] == schema["required"]
    assert ["legs", "day", "price"] == list(schema["properties"])
    assert {"type": "string"}.items() <= schema["properties"]["legs"]["items"]["properties"]["to"].items()
    assert ["red", "blue"] == schema["properties"]["legs"]["items"]["properties"]["by"]["enum"]
    assert ("in order", 1) == (schema["properties"]["legs"]["description"], schema["properties"]["legs"]["minItems"])


def test_read_when_it_is_a_pydantic_model() -> None:
    """A Pydantic model validates its own input, also inside another class and in a union. Its errors are reported with their path."""
    shape = shape_of(Journey | None, WHERE)
    value = {"legs": [{"to": "Rome", "by": "blue"}], "day": "2026-01-31", "price": "20.00"}
    journey = Journey(legs=[Leg(to="Rome", by=Color.BLUE)], day=dt.date(2026, 1, 31), cost=decimal.Decimal("20.00"))

    assert journey == shape.read(value)
    assert None is shape.read(None)
    assert [3] == shape_of(Ids, WHERE).read([3]).root  # type: ignore[attr-defined]  # of the model
    assert [3] == shape_of(Ids | None, WHERE).read([3]).root  # type: ignore[attr-defined]  # of the model
    with pytest.raises(Misfit) as caught:
        shape.read({"legs": [{"to": 5}], "price": -1})
    assert [
        (".legs[0].to", "Input should be a valid string"),
        (".price", "Input should be greater than or equal to 0"),
    ] == list(caught.value.problems)


@pytest.mark.parametrize(
    ("cls", "words"), [(Nest, "Nest refers to itself; a tool's parameters cannot be recursive"), (Strange, "Strange has no JSON schema: ")]
)
def test_schema_when_a_pydantic_model_is_refused(cls: type, words: str) -> None:
    """A model without a schema that can be written out is refused when the tool is made."""
    with pytest.raises(TypeError, match=f"^tool 'f': parameter 'x': {words}"):
        shape_of(cls, WHERE)


def test_schema_when_pydantic_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Pydantic is not imported, no class is taken for a model, and none is searched for."""
    for name in ("pydantic", "pydantic.fields", "typing_extensions"):
        monkeypatch.delitem(sys.modules, name)

    assert {"type": "integer"} == shape_of(Annotated[int, 5], WHERE).schema
    with pytest.raises(TypeError, match="unsupported parameter type Leg"):
        shape_of(Leg, WHERE)
