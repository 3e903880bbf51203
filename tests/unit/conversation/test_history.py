"""What a history tells: which calls are open, whether a turn was cut, which calls had not begun, who finished."""

from collections.abc import Sequence

import attrs
import pytest

from tests.unit.conversation.making import answering, asking, call, last_answer, said
from trio_sagents.conversation.history import GATED, finishes_turn, is_cut, is_gated, open_calls, with_gated
from trio_sagents.data.messages import Message, TextPart


def test_open_calls_when_there_are_none() -> None:
    """A call is open if an answer asked for it and no result came; nothing is open behind a message, and nothing in no history."""
    first, second = call("c1"), call("c2")

    assert () == open_calls([])
    assert () == open_calls([answering("c1")])
    assert () == open_calls([asking(first), said()])
    assert (second,) == open_calls([asking(first, second), answering("c1")])
    assert (first, second) == open_calls([said(), asking(first, second)])


@pytest.mark.parametrize(
    ("history", "cut"),
    [
        ([], False),
        ([said()], True),
        ([said(), last_answer()], False),
        ([said(), asking(call())], True),
        ([said(), asking(call()), answering("c1")], True),
        ([Message("s", "system", (TextPart("x"),))], False),
        ([said(), Message("a", "assistant", (), "cancelled", "t")], False),
    ],
)
def test_is_cut_when_a_history_ends(history: Sequence[Message], *, cut: bool) -> None:
    """A history is cut if it ends with a message of a person, with a result, or with an open call."""
    assert cut is is_cut(history)


def test_gated_when_an_answer_is_stored() -> None:
    """A stored answer says which of its calls wait for a person; what the model's answer said about that itself is dropped."""
    answer = asking(call("c1"), call("c2"))
    forged = attrs.evolve(answer, metadata={GATED: ["c1"], "note": 1})
    kept = with_gated(forged, ["c2"])

    assert (False, True) == (is_gated(kept, "c1"), is_gated(kept, "c2"))
    assert {"note": 1, GATED: ["c2"]} == kept.metadata
    assert {"note": 1} == with_gated(forged, []).metadata
    assert answer is with_gated(answer, [])
    assert not is_gated(attrs.evolve(answer, metadata={GATED: "c1"}), "c1")


@pytest.mark.parametrize(
    ("message", "finishes"),
    [
        (last_answer(), True),
        (Message("a", "assistant", (), "length"), True),
        (asking(call()), False),
        (Message("a", "assistant", (TextPart("x"),), "cancelled"), False),
        (Message("a", "assistant", (TextPart("x"),), "crashed"), False),
    ],
)
def test_finishes_turn_when_an_answer_ends(message: Message, *, finishes: bool) -> None:
    """An answer finishes its turn if the provider ended it and it asks for no tool."""
    assert finishes is finishes_turn(message)
