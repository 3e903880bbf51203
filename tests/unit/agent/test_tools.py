"""Tools: what a function tells a model, and what a model may send to it."""

import enum
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import attrs
import pytest

from trio_sagents.agent import _tools
from trio_sagents.agent._tools import ArgumentsInvalid, Tool, ToolContext
from trio_sagents.data.events import Event
from trio_sagents.data.requests import ToolSpec
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


class Notes:
    """A callable object, and methods."""

    def __call__(self, text: str) -> str:
        """Write it down."""
        return text

    def add(self, text: str) -> str:
        """Add a note."""
        return text

    async def find(self, text: str) -> str:
        """Find a note."""
        return text

    @classmethod
    def make(cls, text: str) -> str:
        """Make a note."""
        return f"{cls.__name__} {text}"

    @staticmethod
    def count(text: str) -> int:
        """Count."""
        return len(text)


class AsyncNotes:
    """A callable whose call has no docstring, so this docstring counts."""

    async def __call__(self, text: str) -> str:
        return text


@attrs.frozen
class Place:
    """Where."""

    lat: float
    lon: float


class Color(enum.Enum):
    """A colour."""

    RED = "red"


def refusal(tool: Tool, arguments: object) -> str:
    """Return what the model is told about arguments."""
    with pytest.raises(ArgumentsInvalid) as caught:
        tool.bind(arguments, CONTEXT)  # type: ignore[arg-type]  # wrong on purpose

    return str(caught.value)


# ── from a function ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_when_given_a_function() -> None:
    """Name, description and schema come from the function; the context is not shown."""
    expected = ToolSpec(
        "weather",
        "Tell the weather.\n\nIt is always good.",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "where"},
                "days": {"type": "integer", "description": "how many", "default": 3},
                "unit": {"type": "string", "enum": ["C", "F"], "description": "of temperature", "default": "C"},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    )
    tool = Tool.of(weather)

    assert expected == tool.spec
    assert tool.function is weather
    assert f"{__name__}.weather" == tool.origin
    assert not tool.is_async


def test_of_when_given_a_tool() -> None:
    """A tool is taken as it is, or with another name."""
    tool = Tool.of(weather)
    other = Tool.of(tool, name="forecast")

    assert tool is Tool.of(tool)
    assert ("forecast", tool.description) == (other.name, other.description)
    assert ("weather", "Look.") == (Tool.of(tool, description="Look.").name, Tool.of(tool, description="Look.").description)
    assert {"city": "Rome", "context": CONTEXT} == other.bind({"city": "Rome"}, CONTEXT)


def test_of_when_given_twice() -> None:
    """Two tools of one function are equal, and can be in a set."""
    assert Tool.of(search) == Tool.of(search)
    assert 1 == len({Tool.of(search), Tool.of(search)})


@pytest.mark.parametrize(
    ("function", "name", "description", "is_async"),
    [
        (search, "search", "Look something up.", True),
        (Notes().add, "add", "Add a note.", False),
        (Notes().find, "find", "Find a note.", True),
        (Notes.make, "make", "Make a note.", False),
        (Notes.count, "count", "Count.", False),
        (functools.partial(search), "search", "Look something up.", True),
        (functools.partial(Notes().find), "find", "Find a note.", True),
    ],
)
def test_of_when_given_a_callable(function: Callable[..., Any], name: str, description: str, *, is_async: bool) -> None:
    """Async functions, methods and partials are tools."""
    tool = Tool.of(function)

    assert (name, description, is_async) == (tool.name, tool.description, tool.is_async)
    assert 1 == len(tool.parameters["properties"])


def test_of_when_given_a_callable_object() -> None:
    """A callable object is a tool if it is given a name."""
    tool = Tool.of(Notes(), name="note")
    other = Tool.of(AsyncNotes(), name="note")
    bound = Tool.of(functools.partial(AsyncNotes(), text="a"), name="note")

    assert ("Write it down.", False, {"text": "a"}) == (tool.description, tool.is_async, tool.bind({"text": "a"}, CONTEXT))
    assert ("A callable whose call has no docstring, so this docstring counts.", True) == (other.description, other.is_async)
    assert (True, {}) == (bound.is_async, bound.parameters["properties"])


def test_of_when_a_partial_binds() -> None:
    """What a partial binds is the host's: the model neither sees it nor can set it."""
    tool = Tool.of(functools.partial(functools.partial(weather, unit="F"), "Rome"))

    assert ["days"] == list(tool.parameters["properties"])
    assert "city: is not known" in refusal(tool, {"city": "Oslo"})
    assert "unit: is not known" in refusal(tool, {"unit": "C"})
    assert "Rome 1 F call-1" == tool.function(**tool.bind({"days": 1}, CONTEXT))


def test_of_when_wrapped() -> None:
    """A decorated function shows the parameters of what it wraps."""

    @functools.wraps(weather)
    def wrapped(*args: Any, **kwargs: Any) -> str:
        return weather(*args, **kwargs)

    assert Tool.of(weather).spec == Tool.of(wrapped).spec


def test_of_when_annotations_are_strings() -> None:
    """String annotations, as under `from __future__ import annotations`, are the same."""

    def find(place: "Place", color: "Color | None" = None, context: "ToolContext | None" = None) -> None: ...

    tool = Tool.of(find)
    arguments: Mapping[str, Any] = {"place": {"lat": 1, "lon": 2.5}, "color": "red"}

    assert ["place", "color"] == list(tool.parameters["properties"])
    assert {"place": Place(1.0, 2.5), "color": Color.RED, "context": CONTEXT} == tool.bind(arguments, CONTEXT)


def no_annotation(city) -> None: ...  # type: ignore[no-untyped-def]  # the point
def star(*cities: str) -> None: ...
def stars(**cities: str) -> None: ...
def positional(city: str, /) -> None: ...
def two_contexts(a: ToolContext, b: ToolContext) -> None: ...
def unsupported(raw: complex) -> None: ...
def in_context(raw: list[ToolContext]) -> None: ...
def unresolved(raw: "Nowhere") -> None: ...  # type: ignore[name-defined]  # the point
def broken(raw: "not valid!") -> None: ...  # type: ignore[valid-type]  # the point
def generator(text: str) -> Iterator[str]:
    yield text


async def async_generator(text: str) -> AsyncIterator[str]:
    yield text


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_annotation, r"^tool 'no_annotation': parameter 'city' has no annotation$"),
        (Notes.add, r"^tool 'add': parameter 'self' has no annotation; give a bound method$"),
        (star, r"^tool 'star': parameter 'cities' takes any number of values"),
        (stars, r"^tool 'stars': parameter 'cities' takes any number of values"),
        (positional, r"^tool 'positional': parameter 'city' is positional-only"),
        (two_contexts, r"^tool 'two_contexts': the parameters 'a', 'b' are all annotated ToolContext"),
        (unsupported, r"^tool 'unsupported': parameter 'raw': unsupported parameter type complex; use str, int"),
        (in_context, r"^tool 'in_context': parameter 'raw', items, field 'publish': unsupported parameter type"),
        (unresolved, r"^tool 'unresolved': its annotations cannot be resolved: name 'Nowhere'"),
        (broken, r"^tool 'broken': its annotations cannot be resolved"),
        (generator, r"^tool 'generator': a generator cannot be a tool"),
        (async_generator, r"^tool 'async_generator': a generator cannot be a tool"),
        (Notes, r"^a tool is a function or a Tool, not the class Notes$"),
        (Notes(), r"is a callable object, which has no name of its own: use Tool.of\(object, name=...\)$"),
        ("weather", r"^a tool is a function or a Tool, not 'weather'$"),
        (dict.fromkeys, r"^tool 'fromkeys': "),
    ],
)
def test_of_when_it_cannot_be_a_tool(function: Any, words: str) -> None:
    """What cannot be called by a model is a TypeError that names the tool and the parameter."""
    with pytest.raises(TypeError, match=words):
        Tool.of(function)


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, "a\n", "<lambda>"])
def test_of_when_the_name_is_invalid(name: str) -> None:
    """A name that a provider would refuse is refused here."""
    with pytest.raises(ValueError, match="a name has 1 to 64 of the characters"):
        Tool.of(weather, name=name)


def test_of_when_given_a_lambda() -> None:
    """A lambda has no name that can be used."""
    with pytest.raises(ValueError, match="tool '<lambda>': a name has"):
        Tool.of(lambda: "")


@pytest.mark.parametrize("given", [5, Notes])
def test_of_when_it_is_named_but_no_function(given: Any) -> None:
    """A name alone does not make an object a tool."""
    with pytest.raises(TypeError, match=r"^tool 'note': .* is not a function$"):
        Tool.of(given, name="note")


@pytest.mark.parametrize(
    ("function", "origin"),
    [
        (search, f"{__name__}.search"),
        (Notes().add, f"{__name__}.Notes.add"),
        (functools.partial(Notes().find), f"{__name__}.Notes.find"),
        (dict[str, int]().get, "dict.get"),
    ],
)
def test_origin_when_a_function_is_read(function: Any, origin: str) -> None:
    """A tool says where its function was written, for the people who are asked about it."""
    tool = Tool(name="t", function=function, origin=_tools.origin_of(function))

    assert origin == tool.origin


def test_origin_when_a_callable_object_is_read() -> None:
    """A callable object has the origin of its class."""
    assert f"{__name__}.Notes" == Tool.of(Notes(), name="note").origin


def test_of_when_there_is_no_docstring(caplog: pytest.LogCaptureFixture) -> None:
    """A tool without a docstring logs one warning that names the function. A tool with a description logs none."""

    def bare(text: str) -> str:
        return text

    def described(text: str) -> str:
        return text

    def only_parameters(text: str) -> str:
        """
        Args:
            text: what to say
        """
        return text

    for _ in range(2):
        Tool.of(bare)
        Tool.of(described, description="Says it.")
        Tool.of(only_parameters)

    name = f"{__name__}.test_of_when_there_is_no_docstring.<locals>"
    words = "is not described by a docstring: a model is told only its name and its parameters"
    assert [
        f"the tool 'bare' ({name}.bare) {words}",
        f"the tool 'only_parameters' ({name}.only_parameters) {words}",
    ] == [record.getMessage() for record in caplog.records]


# ── with a schema of its own ──────────────────────────────────────────────────────────────────────────────────────────


def anything(**arguments: Any) -> Any:
    """Return what came."""
    return arguments


def test_tool_when_given_a_schema() -> None:
    """A tool with its own schema gets its arguments as they are, in a copy."""
    schema = {"type": "object", "properties": {"odd-name": {"type": "array"}}}
    tool = Tool(name="remote", description="Far away.", parameters=schema, function=anything)
    arguments: Mapping[str, Any] = {"odd-name": [1]}
    bound = tool.bind(arguments, CONTEXT)
    tool.function(**bound)["odd-name"].append(2)

    assert ToolSpec("remote", "Far away.", schema) == tool.spec
    assert schema is not tool.parameters
    assert {"odd-name": [1]} == arguments


def test_tool_when_a_raw_function_wants_the_context() -> None:
    """The function gets the context, and a model cannot put anything in its place."""

    async def remote(context: ToolContext, **arguments: Any) -> Any:
        return context, arguments

    tool = Tool(name="remote", function=remote)

    assert tool.is_async
    assert {"a": 1, "context": CONTEXT} == tool.bind({"a": 1}, CONTEXT)
    assert "The arguments of 'remote' cannot be used: context: is not an argument that you can give" == refusal(tool, {"context": "mine"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "The arguments of 'remote' cannot be used: they must be an object, not array"),
        ({"a": {1}}, "The arguments of 'remote' cannot be used: the arguments.a: set has no JSON form"),
    ],
)
def test_tool_when_raw_arguments_are_no_object(arguments: object, words: str) -> None:
    """Raw arguments are a JSON object at least."""
    assert words == refusal(Tool(name="remote", function=anything), arguments)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"name": "a b"}, ValueError, "tool 'a b': a name has"),
        ({"name": 5}, TypeError, "the name of a tool must be a str, not 5"),
        ({"description": None}, TypeError, r"Tool\.description must be str, not NoneType"),
        ({"parameters": {"type": "array"}}, ValueError, "tool 't': parameters must be a JSON schema of type \"object\""),
        ({"parameters": []}, ValueError, "tool 't': parameters must be a JSON schema"),
        ({"parameters": {"type": "object", "x": {1}}}, TypeError, r"tool 't': parameters\.x: set has no JSON form"),
        ({"function": 5}, TypeError, "tool 't': 5 is not a function"),
        ({"function": generator}, TypeError, "tool 't': a generator cannot be a tool"),
        ({"function": two_contexts}, TypeError, "tool 't': the parameters 'a', 'b' are all annotated ToolContext"),
        ({"function": type}, TypeError, "is not a function"),
        ({"function": dict.fromkeys}, None, ""),
        ({"function": min}, TypeError, "has no signature that can be read"),
    ],
)
def test_tool_when_a_field_is_wrong(fields: dict[str, Any], error: type[Exception] | None, words: str) -> None:
    """A wrong field is refused when the tool is made."""
    whole: dict[str, Any] = {"name": "t", "function": anything, **fields}
    if error is None:
        Tool(**whole)
    else:
        with pytest.raises(error, match=words):
            Tool(**whole)


def test_tool_when_its_function_is_replaced() -> None:
    """A wrapper that replaces the function keeps the schema. Whether the function is async is determined again."""

    async def remote(**arguments: Any) -> str:
        return weather(**arguments)

    tool = attrs.evolve(Tool.of(weather), function=remote)

    assert tool.is_async
    assert {"city": "Rome", "context": CONTEXT} == tool.bind({"city": "Rome"}, CONTEXT)
