"""Schemas and the readers beside them: one walk over an annotation gives both, and they agree."""

import collections.abc
import dataclasses
import datetime as dt
import enum
import math
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Generic, Literal, NewType, NotRequired, Optional, TypedDict, TypeVar, Union

import attrs
import pytest

from trio_sagents.agent._schema import read_docstring, shape_of

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
    """Where it is.

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
    """An attrs class stands inline, with the descriptions of its docstring, and lets nothing else in."""
    expected = {
        "type": "object",
        "description": "Where it is.",
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
    """Required and NotRequired count, also where they are written as strings."""
    actual = shape_of(cls, WHERE).schema["required"]

    assert required == actual


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the `type` statement is of 3.12")
def test_schema_when_an_alias_is_a_statement() -> None:
    """A `type` alias is what it stands for; one that refers to itself is refused."""
    names: dict[str, Any] = {}
    exec("type Ids = list[int]\ntype Nest = list[Nest]", names)  # no syntax of 3.11

    assert {"type": "array", "items": {"type": "integer"}} == shape_of(names["Ids"], WHERE).schema
    with pytest.raises(TypeError, match=r"tool 'f': parameter 'x', items: Nest refers to itself"):
        shape_of(names["Nest"], WHERE)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bytes, "bytes is no type"),
        (dt.datetime, "datetime is no type"),
        (complex, "complex is no type"),
        (Callable[[], int], "is no type"),
        (T, "~T is no type"),
        (Box[int], "is no type"),
        (Box, "field 'inner': ~T is no type"),
        (type[int], "is no type"),
        ([int], "is no type"),
        ({"a": int}, "is no type"),
        (list[bytes], ", items: bytes is no type"),
        (dict[str, bytes], ", values: bytes is no type"),
        (dict[int, str], "the keys of dict must be str, not <class 'int'>"),
        (tuple[int, bytes], ", item 1: bytes is no type"),
        (set[list[int]], "the items of a set must be hashable"),
        (set[dict[str, int]], "the items of a set must be hashable"),
        (set[Any], "the items of a set must be hashable"),
        (set[Tagged], "the items of a set must be hashable"),
        (Literal[b"a"], "b'a' cannot be a choice"),
        (Literal[Color.RED], "cannot be a choice"),
        (enum.Enum("Odd", {"A": (1, 2)}), r"\(1, 2\) cannot be a choice"),
        (enum.Enum("Far", {"A": math.inf}), "inf cannot be a choice"),
        (Tree, r", field 'children', items: Tree refers to itself; a tool's parameters cannot be recursive"),
        (collections.abc.Iterator[int], "is no type"),
    ],
)
def test_schema_when_the_annotation_is_refused(annotation: Annotation, words: str) -> None:
    """What a model cannot be asked for is a TypeError that says where it stands."""
    with pytest.raises(TypeError, match=rf"^tool 'f': parameter 'x'.*{words}"):
        shape_of(annotation, WHERE)


def test_schema_when_a_class_needs_more_than_its_fields() -> None:
    """A class that cannot be built from its fields is refused when the tool is made, not when it is called."""

    @dataclasses.dataclass
    class Odd:
        a: int
        b: dataclasses.InitVar[int]

    with pytest.raises(TypeError, match="Odd needs 'b', which is no field of it"):
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


# ── docstrings ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_read_docstring_when_it_is_in_google_style() -> None:
    """The first paragraph is the summary; entries run over several lines and end with their section."""
    text = """Look things
        up.

        More of it, which the model does not need.

        Args:
            query: what to look for:
                a phrase
            limit (int, optional): how many
            *rest: more
            note:
                stands below

        Returns:
            found: the things
        """
    expected = (
        "Look things up.",
        {"query": "what to look for: a phrase", "limit": "how many", "rest": "more", "note": "stands below"},
    )

    assert expected == read_docstring(text)


@pytest.mark.parametrize("text", [None, "", "   \n  "])
def test_read_docstring_when_there_is_none(text: str | None) -> None:
    """No docstring says nothing."""
    assert ("", {}) == read_docstring(text)


def test_read_docstring_when_it_begins_with_a_section() -> None:
    """A section is no summary."""
    assert ("", {"a": "first"}) == read_docstring("Args:\n    (all optional)\n    a: first\nAnd a line outside.\n    b: not this")
