"""The text between models and tools: arguments that have one reading, and results that can be stored."""

import base64
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import json
import math
import pathlib
import types
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

import attrs
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents import FilePart, Halt, ImagePart
from trio_sagents.agent._tool_text import Returned, read_return
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
    ("text", "expected"),
    [
        ("", {}),
        (" \n", {}),
        ("null", {}),
        (' "" ', {}),
        ("{}", {}),
        ('"{\\"a\\": 1}"', {"a": 1}),
        ('{"a": [1, 2.5, null, "ü"]}', {"a": [1, 2.5, None, "ü"]}),
    ],
)
def test_parse_arguments_when_the_text_is_an_object(text: str, expected: object) -> None:
    """The text of an object is read as that object; an empty text means no arguments."""
    assert expected == parse_arguments(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "they are not valid JSON (Expecting property name"),
        ("{} {}", "they are not valid JSON (Extra data"),
        ("[]", "they must be a JSON object, not array"),
        ("[null]", "they must be a JSON object, not array"),
        ("5", "they must be a JSON object, not integer"),
        ('{"a": 1, "a": 2}', 'duplicate key "a" in one object'),
        ('{"b": {"\\ud800": 1, "\\ud800": 1}}', 'duplicate key "\ufffd" in one object'),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": -Infinity}', "-Infinity is not a JSON number"),
        ('{"a": 1e999}', "the object.a: inf has no JSON form"),
        ('{"a": "\\ud800"}', "the object.a: the text has lone surrogates"),
        ('{"\ud800": 1}', "the object: the text has lone surrogates"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "the object.a.a"),
        ('{"a":' * 200_000, "they nest deeper than 64 levels"),
        ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
    ],
)
def test_parse_arguments_when_the_text_is_refused(text: str, words: str) -> None:
    """A text that is not an object, or that has two readings, is refused in words that can be stored."""
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
    """No text raises an error other than the one that is written for the model."""
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


class Size(NamedTuple):
    """How large."""

    width: int
    height: int


class Leg(pydantic.BaseModel):
    """A part of a journey."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    to: str
    day: dt.date | None = None
    thing: Any = None


class Odd(enum.Enum):
    """An enum whose values are not JSON."""

    A = (1, 2)


class Plain:
    """An object without a text of its own."""


class Money:
    """An object with a text."""

    def __str__(self) -> str:
        return "20 euros"


class Broken:
    """An object that cannot be shown at all."""

    def __str__(self) -> str:
        raise RuntimeError("no")


class Lazy(Sequence[int]):
    """A sequence without an end."""

    def __len__(self) -> int:
        return 10**12

    def __getitem__(self, index: Any) -> Any:
        return index


class Locked(Mapping[str, int]):
    """A mapping that cannot be read."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __getitem__(self, key: str) -> NoReturn:
        raise LookupError(key)


@attrs.frozen
class Private:
    """Has a field with an alias, and a field that cannot be given."""

    _count: int
    made: int = attrs.field(default=1, init=False)


def unset() -> object:
    """Return an instance of which a field was never set."""

    @attrs.define
    class Half:
        a: int
        b: int = attrs.field(init=False)

    return Half(1)


NOON: Final = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NOON, '"2026-01-31T12:00:00+00:00"'),
        (NOON.date(), '"2026-01-31"'),
        (NOON.timetz(), '"12:00:00+00:00"'),
        (dt.timedelta(days=1, hours=2, minutes=30, seconds=1.5), '"P1DT2H30M1.5S"'),
        (dt.timedelta(days=-1), '"-P1D"'),
        (dt.timedelta(0), '"P0D"'),
        (decimal.Decimal("20.00"), '"20.00"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (pathlib.PurePosixPath("/a/b"), '"/a/b"'),
        ({"b", "a"}, '["a", "b"]'),
        (frozenset({2, 1}), "[1, 2]"),
        ({1: "a", None: "b", NOON.date(): "c", Color.RED: "d"}, '{"1": "a", "null": "b", "2026-01-31": "c", "red": "d"}'),
        ({1: "a", "1": "b"}, '{"1": "a", "1 (str)": "b"}'),
        (Size(1, 2), '{"width": 1, "height": 2}'),
        (Leg(to="Rome", day=NOON.date()), '{"to": "Rome", "day": "2026-01-31", "thing": null}'),
        (Private(1), '{"count": 1, "made": 1}'),
        (Odd.A, '"A"'),
        ({"hash": b"hi"}, '{"hash": "aGk="}'),
        ({"hash": bytearray(b"hi"), "view": memoryview(b"hi")}, '{"hash": "aGk=", "view": "aGk="}'),
        ({"all": bytes(2000)}, '{"all": "[2000 bytes]"}'),
        (b"text", "text"),
        (b"\xff", "[1 bytes that are not text]"),
        (fractions.Fraction(1, 3), '"1/3"'),
        (collections.deque([1]), "[1]"),
        ({"a": 1}.values(), "[1]"),
        ({"a": 1}.keys(), '["a"]'),
        (types.MappingProxyType({"a": 1}), '{"a": 1}'),
        (range(3), "[0, 1, 2]"),
        (["a\ud800b"], '["a\ufffdb"]'),
    ],
)
def test_read_return_when_the_value_has_a_form(value: object, expected: str) -> None:
    """The types that tools return have a JSON form."""
    assert Returned(expected) == read_return(value, 1000)


def circle() -> object:
    """Return a list that contains itself."""
    value: list[object] = [1]
    value.append(value)
    return value


def laughs() -> object:
    """Return a value that is small in memory, and has 2 ** 40 parts."""
    value: list[object] = []
    for _ in range(40):
        value = [value, value]
    return value


SHOWN: Final = "which is shown as text"
NO_FORM: Final = "The call worked. These values have no JSON form and are shown as text"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Money, f"The call worked. It returned a Money, {SHOWN}: 20 euros"),
        (Plain, f"The call worked. It returned a Plain, {SHOWN}: <Plain>"),
        (Broken, f"The call worked. It returned a Broken, {SHOWN}: (could not be read: RuntimeError)"),
        (lambda: Place, f"The call worked. It returned a type, {SHOWN}: <class Place>"),
        (lambda: math.nan, f"The call worked. It returned a float, {SHOWN}: nan"),
        (lambda: 2**1024, f"The call worked. It returned an int, {SHOWN}: (an integer of 1025 bits)"),
        (lambda: iter([1]), f"The call worked. It returned a list_iterator, {SHOWN}: <list_iterator>"),
        (lambda: {"amount": 20, "by": Money()}, f'{{"amount": 20, "by": "20 euros"}}\n[{NO_FORM}: by (Money)]'),
        (lambda: [Leg(to="Rome", thing=Money())], f'[{{"to": "Rome", "day": null, "thing": "20 euros"}}]\n[{NO_FORM}: [0].thing (Money)]'),
        (lambda: {Money(): 1}, f'{{"20 euros": 1}}\n[{NO_FORM}: (a key) (Money)]'),
        (lambda: {"a": generator("a")}, f'{{"a": "<generator>"}}\n[{NO_FORM}: a (generator)]'),
        (circle, f'[1, "(the value contains itself)"]\n[{NO_FORM}: [1] (list)]'),
        (Locked, f"The call worked. It returned a Locked, {SHOWN}: (could not be read: LookupError)"),
        (unset, f"The call worked. It returned a Half, {SHOWN}: (could not be read: AttributeError)"),
        (waiting, "The call worked, but it returned a coroutine, which cannot be shown."),
        (lambda: generator("a"), "The call worked, but it returned a generator, which cannot be shown."),
        (lambda: async_generator("a"), "The call worked, but it returned an async_generator, which cannot be shown."),
    ],
)
def test_read_return_when_the_value_has_no_form(make: Callable[[], object], expected: str) -> None:
    """A value without a JSON form never looks like a failure: the model reads that the call worked, and the developer reads why."""
    actual = read_return(make(), 1000)

    assert (expected, False) == (actual.text, actual.is_error)
    assert actual.problem


def test_read_return_when_many_values_have_no_form() -> None:
    """Only some of them are named."""
    text = read_return([Plain()] * 100, 10_000).text

    assert 8 == text.count("(Plain)")
    assert 100 == text.count("<Plain>")


@pytest.mark.parametrize("make", [Lazy, lambda: range(10**12), lambda: ["x" * 10**6], lambda: {"a": "ü" * 10**6}, laughs])
def test_read_return_when_the_value_is_huge(make: Callable[[], object]) -> None:
    """A value without an end, or with far too much in it, is cut, and the model is told."""
    actual = read_return(make(), 1000)

    assert not actual.is_error
    assert "[cut: " in actual.text
    assert len(actual.text.encode()) < 1200


def test_read_return_when_the_value_is_deep() -> None:
    """What nests too deep is not shown."""
    actual = read_return(json.loads("[" * 100 + "]" * 100), 1000)

    assert "(not shown: more than 64 levels)" in actual.text
    assert not actual.is_error


class Evil:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise RuntimeError(name)


def test_read_return_when_nothing_can_be_read() -> None:
    """Whatever happens, the call worked."""
    for value in (Evil(), {"a": Evil()}, ToolResult(Evil(), value=Evil())):
        actual = read_return(value, 1000)

        assert actual.text.startswith(("The call worked.", '{"a": "(could not be read: RuntimeError)"}'))
        assert not actual.is_error


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


# ── ToolResult ────────────────────────────────────────────────────────────────────────────────────────────────────────


def data_of(size: int) -> str:
    """Return base64 data of so many characters."""
    return base64.b64encode(bytes(size * 3 // 4)).decode()


PICTURE: Final = ImagePart("image/png", data=data_of(400))
LINK: Final = ImagePart("image/png", url="https://example.org/a.png")
SHEET: Final = FilePart("a.pdf", "application/pdf", data_of(400))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (5, "5"),
        ({"a": NOON.date()}, '{"a": "2026-01-31"}'),
        (None, ""),
        (Money(), f"The call worked. It returned a Money, {SHOWN}: 20 euros"),
        (ToolResult("inner"), "inner"),
    ],
)
def test_tool_result_when_the_content_is_not_text(content: Any, expected: str) -> None:
    """A tool makes its result after its effect, so any content is accepted: a content that is not text becomes text."""
    assert expected == ToolResult(content).content


@pytest.mark.parametrize(("flag", "expected"), [("yes", True), (0, False), (None, False), (Broken(), True)])
def test_tool_result_when_the_flag_is_not_a_bool(flag: Any, expected: bool) -> None:  # by name in the table
    """Anything is true or false; a flag that cannot say so is false."""

    class Undecided:
        def __bool__(self) -> bool:
            raise ValueError("ambiguous")

    assert expected is ToolResult("a", is_error=flag).is_error
    assert False is ToolResult("a", is_error=Undecided()).is_error  # type: ignore[arg-type]  # wrong on purpose


def test_halt_when_the_message_is_not_text() -> None:
    """A halt is made after the effect, too."""
    assert "5" == Halt(5).message  # type: ignore[arg-type]  # wrong on purpose


def test_read_return_when_it_has_media() -> None:
    """Images and files go beside the text, in order."""
    assert Returned("seen", (PICTURE, LINK, SHEET)) == read_return(ToolResult("seen", media=[PICTURE, LINK, SHEET]), 10_000)
    assert Returned("bad", (PICTURE,), is_error=True) == read_return(ToolResult("bad", is_error=True, media=PICTURE), 10_000)  # type: ignore[arg-type]  # one will do


def test_read_return_when_media_are_inside_a_value() -> None:
    """An image anywhere in a value is shown as an image, and never as base64 text."""
    label = "[image: image/png, 300 bytes]"

    assert Returned(label, [PICTURE]) == attrs.evolve(read_return(PICTURE, 10_000), media=[PICTURE])
    assert (f'{{"shot": "{label}", "n": 1}}', (PICTURE,)) == (
        read_return({"shot": PICTURE, "n": 1}, 10_000).text,
        read_return({"shot": PICTURE, "n": 1}, 10_000).media,
    )
    assert "[file 'a.pdf': application/pdf, 300 bytes]" == read_return(SHEET, 10_000).text
    assert "[image: image/png, https://example.org/a.png]" == read_return(LINK, 10_000).text


def test_read_return_when_there_is_no_room_for_media() -> None:
    """The text and the data share the limit. The text names what is left out, with its size."""
    other = attrs.evolve(PICTURE, media_type="image/gif")
    actual = read_return(ToolResult("x" * 100, media=[PICTURE, other, SHEET, LINK]), 600)

    assert (PICTURE, LINK) == actual.media
    assert [
        "x" * 100,
        "[left out: image: image/gif, 300 bytes; only 91 of 600 bytes are left for it]",
        "[left out: file 'a.pdf': application/pdf, 300 bytes; only 91 of 600 bytes are left for it]",
    ] == actual.text.split("\n")


@pytest.mark.parametrize(
    ("media", "words"),
    [
        (["text"], "[left out: a str; media are ImagePart and FilePart]"),
        (5, "[left out: an int; media are ImagePart and FilePart]"),
        ([ImagePart], "[left out: a type; media are ImagePart and FilePart]"),
        ([ImagePart("image/png")], "[left out: image: image/png, 0 bytes; it has neither data nor a url]"),
        ([ImagePart("image/png", data="not base64")], "[left out: image: image/png, 7 bytes; its data are not base64]"),
        ([FilePart("a\ud800", "b", "AAAA")], "[left out: file 'a\\ud800': b, 3 bytes; it has a text that is not UTF-8]"),
    ],
)
def test_read_return_when_media_cannot_be_sent(media: Any, words: str) -> None:
    """What a provider would refuse is left out and told, and the call has worked."""
    assert Returned(f"done\n{words}") == read_return(ToolResult("done", media=media), 1000)


def test_tool_result_when_its_media_fail_while_they_are_read() -> None:
    """Media that raise while they are read are left out."""

    def broken() -> Iterator[ImagePart]:
        yield PICTURE
        raise RuntimeError

    assert "done\n[left out: a generator; media are ImagePart and FilePart]" == read_return(ToolResult("done", media=broken()), 1000).text  # type: ignore[arg-type]  # wrong on purpose


VALUES: Final = st.recursive(
    PLAIN | st.dates() | st.decimals() | st.uuids() | st.binary(),
    lambda inner: st.lists(inner) | st.sets(st.dates()) | st.tuples(inner),
    max_leaves=8,
)


@given(VALUES, st.integers(0, 100))
def test_read_return_when_the_value_is_anything(value: object, limit: int) -> None:
    """Whatever a tool returns, and however small the limit is, the call has not failed, and the text can be stored."""
    actual = read_return(value, limit)

    assert not actual.is_error
    assert len(actual.text.encode()) <= limit + 300


def test_tool_result_when_its_content_has_media() -> None:
    """An image that is given as the content, or inside it, is one of the media, and not only a name."""
    assert ((PICTURE,), str) == (ToolResult(PICTURE).media, type(ToolResult(PICTURE).content))  # type: ignore[arg-type]  # it is taken all the same
    mixed = ToolResult({"shot": PICTURE, "n": 1}, media=[SHEET])  # type: ignore[arg-type]  # as above

    assert (PICTURE, SHEET) == mixed.media
    assert mixed.media == read_return(mixed, 10_000).media
    assert mixed.content == read_return({"shot": PICTURE, "n": 1}, 10_000).text
