"""Server-sent events are read the same, wherever their bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.models._sse import ServerSentEvent, SSEDecoder

_STREAM = (
    "\ufeffdata: one\n\n: comment\r\nevent: named\r\ndata: two\r\ndata:\u2028 three\r\n\r\nid: 7\rdata\rdata:  four\r\rretry: 1\n\ndata: 🌍"
).encode()
_EVENTS = [
    ServerSentEvent("", "one"),
    ServerSentEvent("named", "two\n\u2028 three"),
    ServerSentEvent("", "\n four"),
    ServerSentEvent("", "🌍"),
]


@given(st.lists(st.integers(0, len(_STREAM))))
def test_events_do_not_depend_on_the_cuts(cuts: list[int]) -> None:
    """Every line end, split line, comment and byte order mark is understood with the bytes cut anywhere."""
    marks = sorted({0, *cuts, len(_STREAM)})
    decoder = SSEDecoder()
    found = [event for start, end in pairwise(marks) for event in decoder.feed(_STREAM[start:end])]
    found += decoder.end()

    assert found == _EVENTS


def test_empty_stream_has_no_events() -> None:
    """Nothing, and blank lines, hold no events."""
    decoder = SSEDecoder()

    assert [*decoder.feed(b"\n\n\r\n"), *decoder.end()] == []


def test_line_that_is_not_utf8_is_an_error() -> None:
    """Bytes that are not UTF-8 are an error; they are not replaced in silence."""
    with pytest.raises(ValueError, match="utf-8"):
        list(SSEDecoder().feed(b"data: \xff\n"))
