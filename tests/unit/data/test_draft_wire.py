"""A draft that is stored in pieces is loaded as it would be if it had been stored whole."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.agent._progress import Draft
from trio_sagents.data.draft_wire import encode_piece, growth, join_pieces, piece_key, piece_number
from trio_sagents.data.messages import Message, OpaquePart, TextPart, ThinkingPart, ToolCall
from trio_sagents.data.wire import decode_message, encode_message
from trio_sagents.exceptions import StateError

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.sampled_from(["a", "bc", "dé ", ""]), st.none()),
        st.tuples(st.just("thinking"), st.sampled_from(["x", "", "yz"]), st.sampled_from([None, None, "sealed"])),
        st.tuples(st.sampled_from(["opaque", "call", "keep"]), st.none(), st.none()),
    ),
    max_size=40,
)


@given(steps=_STEPS)
def test_draft_when_it_is_stored_in_pieces(steps: Any) -> None:
    """Whatever a model says, and whenever it is stored, the beginning and the pieces give the draft as it was last stored."""
    draft = Draft("m", "t")
    stored: Message | None = None
    record: Any = None
    pieces: dict[int, Any] = {}
    size = -1
    for kind, text, signature in steps:
        match kind:
            case "text" | "thinking":
                draft.say(kind, text, signature, "p" if kind == "thinking" else None)
            case "opaque":
                draft.add(OpaquePart("p", {"a": 1}))
            case "call":
                draft.add(ToolCall(f"c{len(draft.parts())}", "look"))
            case "keep" if draft.size > size:
                size, message = draft.size, draft.message("crashed")
                if stored is None:
                    record = encode_message(message)
                else:
                    pieces[len(pieces) + 1] = encode_piece(growth(stored, message))
                stored = message
    if stored is not None:
        assert stored == decode_message("c", join_pieces("c", record, pieces))


def grown() -> tuple[Any, Any]:
    """Return the record of a draft, and of a piece of it."""
    before = Message("m", "assistant", [ThinkingPart("t"), TextPart("ab")], "crashed", "t")
    after = Message("m", "assistant", [ThinkingPart("t"), TextPart("abcd"), TextPart("e")], "crashed", "t")
    return encode_message(before), encode_piece(growth(before, after))


def test_piece_when_it_is_encoded() -> None:
    """A piece has only what is new."""
    _, piece = grown()

    assert {"message_id": "m", "part": 1, "parts": [{"type": "text", "text": "cd"}, {"type": "text", "text": "e"}]} == piece


@pytest.mark.parametrize(
    "changes",
    [
        {"message_id": "other"},
        {"part": 0},
        {"part": 3},
        {"part": -1},
        {"part": True},
        {"part": "1"},
        {"parts": []},
        {"parts": "cd"},
        {"parts": ["cd"]},
        {"parts": [{"type": "thinking", "text": "cd"}]},
        {"parts": [{"type": "text", "text": 5}]},
        {"parts": [{"type": "opaque", "provider": "p", "data": {}}]},
    ],
)
def test_join_when_a_piece_is_damaged(changes: dict[str, Any]) -> None:
    """A piece that is not what follows the draft makes the conversation fail to load: half an answer would pass for a whole one."""
    record, piece = grown()
    with pytest.raises(StateError, match="piece 1 of the draft"):
        join_pieces("c", record, {1: {**piece, **changes}})


@pytest.mark.parametrize("pieces", [{2: {}}, {1: None}, {1: []}, {0: {}}])
def test_join_when_a_piece_is_missing(pieces: Any) -> None:
    """A piece that is missing is an error, too."""
    record, _ = grown()
    with pytest.raises(StateError, match="piece 1 of the draft is missing"):
        join_pieces("c", record, pieces)


def test_join_when_the_draft_is_damaged() -> None:
    """The draft itself is looked at, too."""
    with pytest.raises(StateError, match="parts of the draft"):
        join_pieces("c", {"parts": 5}, {})


@pytest.mark.parametrize("key", ["draft", "draft.", "draft.0", "draft.01", "draft.x", "drafts.1", "draft.1.1", 7, "draft.1\n"])
def test_key_when_it_is_of_no_piece(key: Any) -> None:
    """Only keys that this module makes are those of pieces."""
    assert piece_number(key) is None
    assert 12 == piece_number(piece_key(12))
