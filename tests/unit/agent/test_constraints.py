"""Constraints in `Annotated`: in the schema, and kept when a value is read; the two agree."""

import datetime
import re
from decimal import Decimal
from typing import Annotated, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents import Tool
from trio_sagents.agent import ArgumentsInvalid
from trio_sagents.agent._schema import shape_of
from trio_sagents.agent._shapes import Misfit

at = pytest.importorskip("annotated_types")
jsonschema = pytest.importorskip("jsonschema")


def reads(annotation: Any, value: Any) -> bool:
    """Return whether a value is read."""
    try:
        shape_of(annotation, "here").read(value)
    except Misfit:
        return False
    return True


@attrs.frozen
class Meta:
    """Constraints of another package, known by their fields."""

    ge: int | None = None
    max_length: int | None = None
    pattern: str | None = None


@pytest.mark.parametrize(
    ("annotation", "schema", "good", "bad"),
    [
        (Annotated[int, at.Ge(1)], {"type": "integer", "minimum": 1}, [1, 2], [0, -1]),
        (Annotated[int, at.Gt(1), at.Lt(5)], {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 5}, [2, 4], [1, 5]),
        (Annotated[float, at.Interval(ge=0, le=1)], {"type": "number", "minimum": 0, "maximum": 1}, [0, 0.5, 1], [-0.1, 1.1]),
        (Annotated[int, at.MultipleOf(5)], {"type": "integer", "multipleOf": 5}, [0, 10], [3]),
        (Annotated[float, at.MultipleOf(0.1)], {"type": "number", "multipleOf": 0.1}, [0.3, 1], [0.25]),
        (Annotated[str, at.MinLen(1)], {"type": "string", "minLength": 1}, ["a"], [""]),
        (Annotated[str, at.Len(2, 3)], {"type": "string", "minLength": 2, "maxLength": 3}, ["äö", "abc"], ["a", "abcd"]),
        (
            Annotated[list[int], at.Len(1, 2)],
            {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
            [[1]],
            [[], [1, 2, 3]],
        ),
        (list[Annotated[int, at.Ge(0)]], {"type": "array", "items": {"type": "integer", "minimum": 0}}, [[0]], [[-1]]),
        (Annotated[int | None, at.Ge(1)], {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, [1, None], [0]),
        (Annotated[str, at.MaxLen(1)] | None, {"anyOf": [{"type": "string", "maxLength": 1}, {"type": "null"}]}, ["a", None], ["ab"]),
        (Annotated[str, Meta(pattern="^[a-z]+$")], {"type": "string", "pattern": "^[a-z]+$"}, ["ab"], ["A", ""]),
        (Annotated[str, Meta(pattern="(?P<a>x)")], {"type": "string", "description": "must match '(?P<a>x)'"}, ["x"], ["y"]),
        (Annotated[int, Meta(ge=3)], {"type": "integer", "minimum": 3}, [3], [2]),
        (Annotated[Annotated[int, at.Ge(1)], at.Ge(3)], {"type": "integer", "minimum": 3}, [3], [2]),
        (Annotated[int, at.Ge(1), "how many"], {"type": "integer", "minimum": 1, "description": "how many"}, [1], [0]),
        (at.LowerCase[str], {"type": "string", "description": "must pass islower"}, ["a"], ["A"]),
        (Annotated[dict[str, int], at.MaxLen(1)], None, [{}, {"a": 1}], [{"a": 1, "b": 2}]),
        (Annotated[Decimal, at.Ge(0)], None, ["0", "1.5", 3], ["-1", -1]),
        (Annotated[datetime.date, at.Ge(datetime.date(2030, 1, 1))], None, ["2030-01-01"], ["2029-12-31"]),
    ],
)
def test_constraint_in_schema_and_reader(annotation: Any, schema: Any, good: list[Any], bad: list[Any]) -> None:
    """What the schema says is what is read."""
    shape = shape_of(annotation, "here")

    assert schema is None or schema == shape.schema
    assert ([True] * len(good), [False] * len(bad)) == (
        [reads(annotation, each) for each in good],
        [reads(annotation, each) for each in bad],
    )
    validator = jsonschema.Draft202012Validator(shape.schema)
    if schema is not None and "description" not in schema and "multipleOf" not in schema:
        assert ([True] * len(good), [False] * len(bad)) == (
            [validator.is_valid(each) for each in good],
            [validator.is_valid(each) for each in bad],
        )


def test_constraint_of_pydantic() -> None:
    """`Field(...)` in an `Annotated` says constraints and a description, outside of models, too."""
    pydantic = pytest.importorskip("pydantic")

    def find(
        count: Annotated[int, pydantic.Field(ge=1, le=9, description="how many")],
        word: Annotated[str, pydantic.Field(pattern="^a", max_length=3)],
    ) -> None:
        """Find."""

    tool = Tool.of(find)
    assert {"type": "integer", "minimum": 1, "maximum": 9, "description": "how many"} == tool.parameters["properties"]["count"]
    assert {"type": "string", "pattern": "^a", "maxLength": 3} == tool.parameters["properties"]["word"]
    tool.check_arguments({"count": "5", "word": "abc"})
    with pytest.raises(ArgumentsInvalid, match="count: must be at most 9; word: must have at most 3 characters"):
        tool.check_arguments({"count": 10, "word": "abcd"})


@pytest.mark.parametrize(
    "annotation", [Annotated[str, at.Ge(1)], Annotated[int, at.MinLen(1)], Annotated[bool, at.Gt(0)], Annotated[int, Meta(pattern="x")]]
)
def test_constraint_that_is_not_about_the_type(annotation: Any) -> None:
    """It is refused when the tool is made, with the names of the tool and the parameter."""

    def find(count: Any) -> None:
        """Find."""

    find.__annotations__["count"] = annotation
    with pytest.raises(TypeError, match="tool 'find': parameter 'count': the constraint"):
        Tool.of(find)


def test_predicate_that_raises() -> None:
    """The model is told; nothing escapes."""
    annotation = Annotated[int, at.Predicate(lambda value: 1 / 0)]

    with pytest.raises(Misfit, match="predicate"):
        shape_of(annotation, "here").read(1)


BOUNDS = st.integers(-5, 5)


@given(st.data())
def test_schema_and_reader_agree(data: st.DataObject) -> None:
    """For any bounds and any value, a validator of JSON schema says what the reader says."""
    names = data.draw(st.lists(st.sampled_from([at.Ge, at.Gt, at.Le, at.Lt, at.MultipleOf]), min_size=1, max_size=3, unique=True))
    extras = [name(abs(bound) + 1 if name is at.MultipleOf else bound) for name in names for bound in [data.draw(BOUNDS)]]
    inner = data.draw(st.sampled_from([int, float, int | None]))
    annotation: Any = (
        Annotated.__class_getitem__((inner, *extras)) if hasattr(Annotated, "__class_getitem__") else Annotated[(inner, *extras)]
    )
    value = data.draw(st.one_of(st.integers(-20, 20), st.none(), st.booleans(), st.text(max_size=2)))
    schema = shape_of(annotation, "here").schema

    assert jsonschema.Draft202012Validator(schema).is_valid(value) == reads(annotation, value)


def test_pattern_when_it_is_compiled() -> None:
    """A compiled pattern is a pattern."""
    assert reads(Annotated[str, Meta(pattern="^a")], "ab")

    @attrs.frozen
    class Compiled:
        pattern: Any = re.compile("^b")

    assert not reads(Annotated[str, Compiled()], "ab")
