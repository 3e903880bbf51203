"""Binding: what a model sends becomes what a function asked for, or a refusal that it can act on."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.agent._tools import ArgumentsInvalid, Tool, ToolContext, parse_arguments
from trio_sagents.data.events import Event
from trio_sagents.data.state import State


def ignore(_event: Event) -> None:
    """Publish nothing."""


CONTEXT: Final = ToolContext("c-1", "alice", "call-1", "c-1/t-1/call-1", State(), ignore)


def weather(city: str, days: int = 3, *, unit: Annotated[Literal["C", "F"], "of temperature"] = "C", context: ToolContext) -> str:
    """Tell the weather.

    It is always good.

    Args:
        city: where
        days: how many
        unit: not this text
        context: not shown
    """
    return f"{city} {days} {unit} {context.call_id}"


async def search(query: str) -> list[str]:
    """Look something up."""
    return [query]


@attrs.frozen
class Place:
    """Where."""

    lat: float
    lon: float


def refusal(tool: Tool, arguments: object) -> str:
    """Return what the model is told about arguments."""
    with pytest.raises(ArgumentsInvalid) as caught:
        tool.bind(arguments, CONTEXT)  # type: ignore[arg-type]  # wrong on purpose

    return str(caught.value)


def test_bind_when_a_default_is_left_out() -> None:
    """An argument that is left out gets the function's own default."""
    tool = Tool.of(weather)

    assert "Rome 3 C call-1" == tool.function(**tool.bind({"city": "Rome"}, CONTEXT))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "city: is missing"),
        ({"city": 5}, "city: must be a string, not the integer 5"),
        ({"city": "R", "days": "five"}, 'days: must be an integer, not the string "five"'),
        ({"city": "R", "days": True}, "days: must be an integer, not the boolean true"),
        ({"city": "R", "days": 5.5}, "days: must be an integer, not the number 5.5"),
        ({"city": None}, "city: must be a string, not null"),
        ({"city": "R", "unit": "K"}, 'unit: must be one of "C", "F", not the string "K"'),
        ({"city": "R", "town": "R"}, "town: is not known; known are: city, days, unit"),
        ({"city": "R", "context": {}}, "context: is not known; known are: city, days, unit"),
        (
            {"days": [], "x y": 1},
            '["x y"]: is not known; known are: city, days, unit; city: is missing; days: must be an integer, not the array []',
        ),
        ([], "they must be an object, not the array []"),
    ],
)
def test_bind_when_arguments_do_not_fit(arguments: object, words: str) -> None:
    """A refusal names the tool, each parameter, and what was wrong with it."""
    assert f"The arguments of 'weather' cannot be used: {words}" == refusal(Tool.of(weather), arguments)


def test_bind_when_a_model_writes_loosely() -> None:
    """A value with only one possible meaning is accepted; the function gets what `tidied` returns, in the form of the schema."""
    tool = Tool.of(weather)
    arguments = {"city": "Rome", "days": "5.0", "unit": None}

    assert {"city": "Rome", "days": 5} == tool.tidied(arguments)
    assert {"city": "Rome", "days": 5, "context": CONTEXT} == tool.bind(arguments, CONTEXT)
    assert {"city": "Rome", "days": "5.0", "unit": None} == arguments
    assert arguments == Tool(name="raw", function=lambda **given: given).tidied(arguments)
    tool.check_arguments(arguments)


def test_bind_when_a_class_raises() -> None:
    """What a class of the host raises is a refusal, never another error."""

    @attrs.frozen
    class Even:
        n: int

        def __attrs_post_init__(self) -> None:
            if self.n % 2:
                raise RuntimeError("odd \ud800")

    def halve(number: Even) -> int:
        return number.n // 2

    halve.__annotations__["number"] = Even
    tool = Tool.of(halve)

    assert "The arguments of 'halve' cannot be used: number: odd \ufffd" == refusal(tool, {"number": {"n": 1}})
    assert {"number": Even(2)} == tool.bind({"number": {"n": 2}}, CONTEXT)


def test_refusal_when_it_would_be_long() -> None:
    """However much a model sends, a refusal is short."""
    many = {f"{index:04}" * 500: "x" * 10_000 for index in range(100)}

    assert len(refusal(Tool.of(weather), many)) <= 2000


def sample(  # one of each kind
    text: str,
    count: int,
    ratio: float,
    place: Place,
    tags: Sequence[str] = (),
    extra: Mapping[str, int] | None = None,
    *,
    loud: bool = False,
) -> None:
    """Take one of each kind."""


PLACES: Final = st.builds(Place, st.floats(-90, 90), st.floats(-180, 180))
SAMPLES: Final = st.fixed_dictionaries(
    {"text": st.text(st.characters(codec="utf-8")), "count": st.integers(), "ratio": st.floats(-1, 1), "place": PLACES},
    optional={
        "tags": st.lists(st.text("abc")),
        "extra": st.none() | st.dictionaries(st.text("abc"), st.integers()),
        "loud": st.booleans(),
    },
)


@given(SAMPLES)
def test_bind_when_the_values_made_the_text(values: dict[str, Any]) -> None:
    """Values that became JSON text become the same values again."""
    text = json.dumps({**values, "place": attrs.asdict(values["place"])})

    assert values == Tool.of(sample).bind(parse_arguments(text), CONTEXT)


NEAR: Final[Mapping[str, Sequence[object]]] = {
    "text": [None, 5, True, ["a"], {}],
    "count": ["5.5", 5.5, True, None, [5]],
    "ratio": ["half", True, None, [0.5], "NaN"],
    "place": [None, [1.0, 2.0], {"lat": 1.0}, {"lat": 1.0, "lon": "2°"}, {"lat": 1.0, "lon": 2.0, "alt": 3.0}, "1,2"],
    "tags": ["abc", [1], {"a": "b"}],
    "extra": [[], {"a": "1.5"}, {"a": 1.5}, {"a": True}],
    "loud": [0, 1, "yes"],
}


@given(SAMPLES, st.sampled_from([(name, value) for name, values in NEAR.items() for value in values]))
def test_bind_when_one_value_is_near(values: dict[str, Any], near: tuple[str, object]) -> None:
    """A value that is nearly right is refused, and its parameter is named."""
    name, value = near
    arguments = {**values, "place": attrs.asdict(values["place"]), name: value}

    assert f"cannot be used: {name}" in refusal(Tool.of(sample), arguments)
