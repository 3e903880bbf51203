"""What presences say to each other: written and read back the same, and nothing else is read."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.broadcast._presence_wire import (
    MAX_NAME,
    MAX_NUMBER,
    MAX_PAYLOAD,
    Ask,
    Beat,
    Bye,
    Diff,
    Entry,
    Malformed,
    StatePart,
    ask,
    beat,
    bye,
    diff,
    entry_text,
    parts,
    read,
    room,
    state,
)

ME, YOU, THIRD = "0" * 16, "1" * 16, "2" * 16
TEXT = entry_text(7, "conversation:é", "alice", {"n": 1})
ENTRY = Entry(7, "conversation:é", "alice", {"n": 1})


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        (beat(YOU, 3, 5.0), Beat(YOU, 3, 5.0)),
        (diff(YOU, 3, 5.0, [TEXT, TEXT], [1, 2]), Diff(YOU, 3, 5.0, [ENTRY, ENTRY], [1, 2])),
        (diff(YOU, 3, 5.0, [], []), Diff(YOU, 3, 5.0, [], [])),
        (state(ME, YOU, 3, 5.0, [TEXT], 2, is_last=True), StatePart(YOU, 3, 5.0, [ENTRY], 2, True)),
        (ask(YOU, ME), Ask(YOU)),
        (bye(YOU), Bye(YOU)),
    ],
    ids=["beat", "diff", "empty diff", "state", "ask", "bye"],
)
def test_read_when_it_is_ours(payload: bytes, word: Any) -> None:
    """Each message is read as it was written."""
    assert word == read(payload, ME)


@pytest.mark.parametrize(
    "payload", [ask(YOU, THIRD), state(THIRD, YOU, 1, 5.0, [], 0, is_last=True), beat(ME, 1, 5.0), f"{THIRD} x".encode()]
)
def test_read_when_it_is_not_for_the_reader(payload: bytes) -> None:
    """What is addressed to somebody else, or was said by the reader itself, is nothing; what is not addressed is not looked into."""
    assert read(payload, ME) is None


def said(**fields: Any) -> bytes:
    """Return a payload for everybody, of these fields and a sender."""
    return b"*" * 16 + b" " + json.dumps({"from": YOU, **fields}).encode()


HEAD: dict[str, Any] = {"kind": "diff", "seq": 1, "every": 5.0, "gone": []}
DEEP: Any = {}
for _ in range(100):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    "payload",
    [
        "text",
        b"",
        b"*" * 16,
        b"x" * 40,
        b"*" * 16 + b" {",
        b"*" * 16 + b" [1]",
        b"*" * 16 + b' {"from": "' + YOU.encode() + b'", "from": "x"}',
        b"*" * 16 + b" " + b"[" * 30_000,
        b"*" * 16 + b" \xff\xfe",
        b"*" * 16 + b" " + b" " * MAX_PAYLOAD,
        said(),
        said(kind="bye", **{"from": "alice"}),
        said(kind="bye", **{"from": 5}),
        said(kind="shout"),
        said(kind=["bye"]),
        said(kind="bye", more=1),
        said(kind="beat", seq=-1, every=5.0),
        said(kind="beat", seq=True, every=5.0),
        said(kind="beat", seq=1.5, every=5.0),
        said(kind="beat", seq=MAX_NUMBER, every=5.0),
        said(kind="beat", seq=1, every=0),
        said(kind="beat", seq=1, every=61),
        said(kind="beat", seq=1, every=True),
        said(kind="beat", seq=1, every="5"),
        said(kind="state", seq=1, every=5, set=[], part=0, last=1),
        said(**HEAD, set={}),
        said(**{**HEAD, "gone": 5}, set=[]),
        said(**{**HEAD, "gone": ["x"]}, set=[]),
        said(**HEAD, set=[[1, "t", "k"]]),
        said(**HEAD, set=[[1, "t", "k", []]]),
        said(**HEAD, set=[[True, "t", "k", {}]]),
        said(**HEAD, set=[[1, "", "k", {}]]),
        said(**HEAD, set=[[1, "t", "k" * (MAX_NAME + 1), {}]]),
        said(**HEAD, set=[[1, "t", "\ud800", {}]]),
        said(**HEAD, set=[[1, "\ud800", "k", {}]]),
        said(**HEAD, set=[[1, "t", "k", {"a": "\ud800"}]]),
        said(**HEAD, set=[[1, "t", "k", DEEP]]),
        said(**HEAD, set=[[1, "t", "k", {"a": 10**400}]]),
    ],
    ids=range(38),
)
def test_read_when_it_is_not_a_message(payload: Any) -> None:
    """Anything else is refused, and the reason is said."""
    with pytest.raises(Malformed) as caught:
        read(payload, ME)

    assert str(caught.value)


@given(st.binary(max_size=300).map(lambda noise: b"*" * 16 + b" " + noise) | st.binary(max_size=50))
def test_read_when_it_is_noise(payload: bytes) -> None:
    """Whatever comes, it is a message, nothing, or refused."""
    with contextlib.suppress(Malformed):
        read(payload, ME)


JSONS: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "seq", "every", "set", "x"]), inner, max_size=4),
    max_leaves=20,
)


@given(
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["beat", "diff", "state", "ask", "bye"])},
        optional=dict.fromkeys(["seq", "every", "set", "gone", "part", "last"], JSONS),
    )
)
def test_read_when_the_fields_are_noise(fields: Any) -> None:
    """Fields of any shape are read strictly."""
    with contextlib.suppress(Malformed):
        read(said(**fields), ME)


def test_parts_when_there_are_many() -> None:
    """Texts are grouped so that a group is never too large, in order; none at all is one empty group."""
    texts = ["x" * 10] * 10
    groups = list(parts(texts, 35))

    assert texts == [text for group in groups for text in group]
    assert [3, 3, 3, 1] == [len(group) for group in groups]
    assert [[]] == list(parts([], 35))
    assert [["é" * 5], ["é" * 5]] == list(parts(["é" * 5] * 2, 20))


def test_room_when_a_group_is_sent() -> None:
    """A group that fills the room fits into a payload, whatever stands around it."""
    for most in (1024, MAX_PAYLOAD, 10**9):
        text = entry_text(1, "t", "k", {"x": "y" * (room(most) - 40)})
        payload = state(ME, YOU, MAX_NUMBER - 1, 1 / 3, [text], MAX_NUMBER - 1, is_last=False)

        assert len(text) < room(most)
        assert len(payload) <= min(most, MAX_PAYLOAD)
        assert read(payload, ME) is not None
    assert 0 == room(100)
