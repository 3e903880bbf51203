"""The text between models and tools: arguments that have one reading, results that can be stored."""

import dataclasses
import enum
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.agent._tools import ArgumentsInvalid, ToolResult, parse_arguments, render_output
from trio_sagents.data.json import MAX_DEPTH


@attrs.frozen
class Place:
    """Where."""

    lat: float
    lon: float


class Color(enum.Enum):
    """A colour."""

    RED = "red"


def generator(text: str) -> Iterator[str]:
    yield text


async def async_generator(text: str) -> AsyncIterator[str]:
    yield text


@pytest.mark.parametrize(
    ("text", "expected"), [("", {}), (" \n", {}), ("{}", {}), ('{"a": [1, 2.5, null, "ü"]}', {"a": [1, 2.5, None, "ü"]})]
)
def test_parse_arguments_when_the_text_is_an_object(text: str, expected: object) -> None:
    """The text of an object is the object; no text is no arguments."""
    assert expected == parse_arguments(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "they are no valid JSON (Expecting property name"),
        ("{} {}", "they are no valid JSON (Extra data"),
        ("[]", "they must be a JSON object, not array"),
        ("null", "they must be a JSON object, not null"),
        ("5", "they must be a JSON object, not integer"),
        ('{"a": 1, "a": 2}', 'the key "a" stands twice in one object'),
        ('{"b": {"\\ud800": 1, "\\ud800": 1}}', 'the key "\ufffd" stands twice in one object'),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": -Infinity}', "-Infinity is no JSON number"),
        ('{"a": 1e999}', "the object.a: inf has no JSON form"),
        ('{"a": "\\ud800"}', "the object.a: the text has lone surrogates"),
        ('{"\ud800": 1}', "the object: the text has lone surrogates"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "the object.a.a"),
        ('{"a":' * 200_000, "they nest deeper than 64 levels"),
        ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
    ],
)
def test_parse_arguments_when_the_text_is_refused(text: str, words: str) -> None:
    """Text that is no object, or that could be read in two ways, is refused in words that can be stored."""
    with pytest.raises(ArgumentsInvalid) as caught:
        parse_arguments(text)
    actual = str(caught.value)

    assert actual.startswith(f"The arguments cannot be used: {words}")
    assert actual.encode()


PLAIN: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), PLAIN, max_size=4))
def test_parse_arguments_when_json_made_the_text(arguments: dict[str, Any]) -> None:
    """Every JSON object survives the way through its text."""
    assert arguments == parse_arguments(json.dumps(arguments))


@given(st.text() | st.text(alphabet='{}[]":,\\u0123456789eE+-.ntrflasNI '))
def test_parse_arguments_when_the_text_is_anything(text: str) -> None:
    """No text raises another error than the one that is for the model."""
    words = ""
    actual: object = {}
    try:
        actual = parse_arguments(text)
    except ArgumentsInvalid as exc:
        words = str(exc)

    assert isinstance(actual, dict)
    assert isinstance(words.encode(), bytes)


# ── results ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass
class Row:
    color: Color
    places: list[Place]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text as it is", "text as it is"),
        ("", ""),
        (None, ""),
        (5, "5"),
        (True, "true"),
        ([1, "ü", None], '[1, "ü", null]'),
        ((1, 2), "[1, 2]"),
        ({"a": (1.5,)}, '{"a": [1.5]}'),
        (Color.RED, '"red"'),
        (Place(1.0, 2.0), '{"lat": 1.0, "lon": 2.0}'),
        (Row(Color.RED, [Place(1.0, 2.0)]), '{"color": "red", "places": [{"lat": 1.0, "lon": 2.0}]}'),
        (ToolResult("no such file", is_error=True), "no such file"),
        ("a\ud800b", "a\ufffdb"),
        ("\ud83d\ude00", "😀"),
    ],
)
def test_render_output_when_it_has_a_form(value: object, expected: str) -> None:
    """A str is taken as it is, None is nothing, and what has a JSON form is that."""
    assert (expected, False) == render_output(value, 1000)


async def waiting() -> None:
    """Return nothing."""


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: {1}, TypeError, "the returned value: set has no JSON form"),
        (lambda: {"a": [b"x"]}, TypeError, r"the returned value.a\[0\]: bytes has no JSON form"),
        (object, TypeError, "object has no JSON form"),
        (lambda: Place, TypeError, "type has no JSON form"),
        (lambda: {1: 2}, TypeError, "the key 1 is not a str"),
        (lambda: float("nan"), ValueError, "nan has no JSON form"),
        (waiting, TypeError, "a tool returned a coroutine: declare it `async def`"),
        (lambda: generator("a"), TypeError, "a tool returned a generator: return the whole result"),
        (lambda: async_generator("a"), TypeError, "a tool returned an async_generator: return the whole result"),
        (lambda: iter([1]), TypeError, "list_iterator has no JSON form"),
        (lambda: json.loads("[" * 100 + "]" * 100), ValueError, "nests deeper than 64 levels"),
    ],
)
def test_render_output_when_it_has_no_form(make: Callable[[], object], error: type[Exception], words: str) -> None:
    """What has no JSON form is an error that names its type; a coroutine leaves no warning behind."""
    with pytest.raises(error, match=words):
        render_output(make(), 1000)


def test_render_output_when_it_holds_itself() -> None:
    """A value that contains itself is refused."""
    value: list[object] = []
    value.append(value)

    with pytest.raises(ValueError, match="nests deeper"):
        render_output(value, 1000)


def test_render_output_when_it_is_long() -> None:
    """What is over the limit is cut, and says how much is shown."""
    assert ("aaaa\n[cut: 4 of 10 bytes shown]", True) == render_output("a" * 10, 4)
    assert ("üü\n[cut: 4 of 10 bytes shown]", True) == render_output("ü" * 5, 5)
    assert ("ü" * 5, False) == render_output("ü" * 5, 10)
    assert ("\n[cut: 0 of 4 bytes shown]", True) == render_output("😀", 3)


@given(st.text(), st.integers(0, 40))
def test_render_output_when_it_is_any_text(text: str, limit: int) -> None:
    """The text that fits is whole; what is cut is a prefix that can be stored."""
    actual, was_cut = render_output(text, limit)
    whole = render_output(text, 10**6)[0]
    shown = actual.rpartition("\n[cut: ")[0] if was_cut else actual

    assert was_cut == (len(whole.encode()) > limit)
    assert whole.startswith(shown)
    assert len(shown.encode()) <= limit
    assert len(actual.encode()) <= max(limit, len(shown.encode()) + 64)


def test_tool_result_when_the_content_is_no_text() -> None:
    """The content is what the model reads: a str."""
    with pytest.raises(TypeError, match="ToolResult.content must be str, not int"):
        ToolResult(5)  # type: ignore[arg-type]  # wrong on purpose
