"""Plain JSON: what is taken, what is refused, and where an error says that it is."""

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sagents.data.json import MAX_DEPTH, MAX_INT, plain_json


class Text(str):
    """A text of a class of its own."""

    __slots__ = ()


class Number(int):
    """A number of a class of its own."""


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from([Text("x"), Number(5), b"x", object, 2**1030]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 2), inner, max_size=3)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(st.text(max_size=2), inner, max_size=2).map(MappingProxyType)
    ),
    max_leaves=8,
)


def plain(value: Any) -> bool:
    """Return whether a value is made of plain dicts, lists and scalars alone."""
    if isinstance(value, dict):
        return type(value) is dict and all(type(key) is str and plain(item) for key, item in value.items())
    if isinstance(value, list):
        return type(value) is list and all(plain(item) for item in value)
    return value is None or type(value) in {str, int, float, bool}


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_plain_json_when_it_takes_a_value(value: Any) -> None:
    """What is taken comes back as an equal copy of plain dicts, lists and scalars; what has no JSON form is refused."""
    try:
        copy = plain_json(value)
    except (TypeError, ValueError):
        return

    assert plain(copy)
    assert repr(copy) == repr(plain_json(copy))
    if isinstance(value, list | dict) and value:
        assert copy is not value


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        ({"a": [1, {"b": object()}]}, TypeError, r"\$\.a\[1\]\.b: type has no JSON form|\$\.a\[1\]\.b: object has no JSON form"),
        ({"a": [1, {"b": float("nan")}]}, ValueError, r"\$\.a\[1\]\.b: nan"),
        ({"a": {1: 2}}, TypeError, r"\$\.a: the key 1 is not a str"),
        ([MAX_INT], ValueError, r"\$\[0\]: an integer of 1025 bits"),
        ({"a": "\ud800"}, ValueError, r"\$\.a: the text has lone surrogates"),
        ({"\ud800": 1}, ValueError, r"\$: the text has lone surrogates"),
        (b"x", TypeError, r"\$: bytes has no JSON form"),
    ],
)
def test_plain_json_when_it_refuses_a_value(value: Any, error: type[Exception], says: str) -> None:
    """An error says where the value is."""
    with pytest.raises(error, match=says):
        plain_json(value)


@pytest.mark.parametrize("make", [list, tuple])
def test_plain_json_when_it_nests_deeply(make: Any) -> None:
    """`MAX_DEPTH` levels are taken, and no more."""

    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = make([value])
        return value

    plain_json(nested(MAX_DEPTH))
    with pytest.raises(ValueError, match=f"nests deeper than {MAX_DEPTH} levels"):
        plain_json(nested(MAX_DEPTH + 1))
