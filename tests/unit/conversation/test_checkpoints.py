"""The window of a conversation: when a checkpoint is due, where it may come, and what remains."""

import math
from collections.abc import Sequence

import attrs
import pytest

from tests.unit.conversation.making import answering, asking, call, last_answer, record_of, said, state_of
from trio_sagents.conversation.checkpoints import Cut, Window, begins_turn, call_name, due, leading, message_name, recalled, turn_starts
from trio_sagents.conversation.limits import Limits, message_bytes
from trio_sagents.conversation.outcomes import Totals, outcome_of_past, turn_record, with_record
from trio_sagents.conversation.state import Step, with_decisions
from trio_sagents.data.messages import Message, TextPart
from trio_sagents.data.outcomes import Completed, Unanswered
from trio_sagents.data.records import Checkpoint, Recalled
from trio_sagents.data.wire import encode_message

ANY = 10**9


def turn(number: int, *, size: int = 10) -> list[Message]:
    """Return a whole turn of two messages."""
    answer = last_answer("x" * size, f"a{number}", f"t{number}")
    return [said(f"u{number}", "hi", f"t{number}"), with_record(answer, turn_record("completed", Totals()))]


def turns(count: int, *, size: int = 10) -> list[Message]:
    """Return turns 1, 2, and so on."""
    return [message for number in range(1, count + 1) for message in turn(number, size=size)]


def system(text: str = "Be kind.") -> Message:
    """Return an instruction."""
    return Message("s1", "system", (TextPart(text),), None, None)


def bounds(*, most: int = ANY, window: float = math.inf, window_bytes: float = math.inf) -> Limits:
    """Return limits of a store that keeps windows."""
    return Limits(most, 0, window, window_bytes, keeps_windows=True)


def cut_of(
    messages: Sequence[Message], limits: Limits, *, covers: str | None = None, more: int = 0, count: int = 0, begins: bool = True
) -> Cut | None:
    """Return what leaves a window that nothing is older than, with a step that brings `more` bytes and `count` messages."""
    return due(Window(messages, 0, len(messages) + count, message_bytes(messages) + more, begins), limits, covers)


def left_by(messages: Sequence[Message], cut: Cut | None) -> list[str]:
    """Return the ids of what stays."""
    assert cut is not None
    return [message.message_id for message in (*messages[: cut.first], *messages[cut.end :])]


def test_due_when_nothing_is_too_much() -> None:
    """Inside its bounds a window stays, up to the last message and the last byte."""
    messages = turns(3)
    size = message_bytes(messages)

    assert cut_of(messages, bounds(window=6, window_bytes=size, most=size)) is None
    assert cut_of(messages, bounds()) is None


def test_due_when_the_store_keeps_no_windows() -> None:
    """Nothing leaves, whatever the bounds say and whatever a summary covers."""
    limits = attrs.evolve(bounds(window=1), keeps_windows=False)

    assert cut_of(turns(3), limits, covers="a2") is None


def test_due_when_there_are_too_many_messages() -> None:
    """About half of the bound stays, and the rest begins with a turn."""
    messages = turns(5)

    assert ["u4", "a4", "u5", "a5"] == left_by(messages, cut_of(messages, bounds(window=9)))
    assert ["u5", "a5"] == left_by(messages, cut_of(messages, bounds(window=9), count=2))
    assert ["u5", "a5"] == left_by(messages, cut_of(messages, bounds(window=1)))


def test_due_when_there_are_too_many_bytes() -> None:
    """What a step brings counts; about half of the bound stays, the lower one of the two."""
    messages = turns(4, size=1000)
    size = message_bytes(messages)

    for limits in (
        bounds(window_bytes=size),
        bounds(most=size),
        bounds(window_bytes=size + 9, most=size),
        bounds(window_bytes=size, most=size + 9),
    ):
        assert cut_of(messages, limits) is None
        assert ["u4", "a4"] == left_by(messages, cut_of(messages, limits, more=1))
    short = [*messages[:6], *turn(4, size=1)]
    assert ["u3", "a3", "u4", "a4"] == left_by(short, cut_of(short, bounds(window_bytes=message_bytes(messages[:6]))))


def test_due_when_the_last_turn_is_large() -> None:
    """The last turn stays, unless there would be no room without its end: then everything that has ended leaves."""
    messages = [*turns(2), *turn(3, size=5000)]

    assert ["u3", "a3"] == left_by(messages, cut_of(messages, bounds(window_bytes=3000)))
    assert ["u3", "a3"] == left_by(messages, cut_of(messages, bounds(most=message_bytes(messages[4:]) + 10), more=10))
    assert [] == left_by(messages, cut_of(messages, bounds(most=message_bytes(messages[4:]) + 10), more=11))


def test_due_when_no_turn_begins() -> None:
    """Inside a turn only the size of the state counts: the model reads the same beginning in all requests of a turn."""
    messages = turns(4)

    assert cut_of(messages, bounds(window=1, window_bytes=1), begins=False) is None
    assert ["u4", "a4"] == left_by(messages, cut_of(messages, bounds(most=message_bytes(messages) - 1, window=1), begins=False))
    assert [False, True, False, False] == [
        begins_turn(before, after)
        for before, after in (
            (messages, []),
            (messages, [said("u9", turn_id="t9")]),
            ([], messages),
            (messages[:-1], [said("s", turn_id="t4")]),
        )
    ]


@pytest.mark.parametrize(
    "end",
    [
        pytest.param([said("u9", "x" * 5000, "t9")], id="taken"),
        pytest.param([said("u9", "x" * 5000, "t9"), asking(call(), turn_id="t9")], id="open-call"),
        pytest.param([said("u9", "x" * 5000, "t9"), asking(call(), turn_id="t9"), answering("c1", turn_id="t9")], id="answered-call"),
        pytest.param([said("u9", "x" * 5000, "t9"), last_answer("and", "a9", "t9")], id="answer-without-the-record-of-its-turn"),
    ],
)
def test_due_when_a_turn_is_open(end: list[Message]) -> None:
    """Nothing of an open turn leaves, however little room there is, and whatever a summary covers."""
    messages = [*turns(1), *end]

    cut = cut_of(messages, bounds(most=100), covers=end[-1].message_id, begins=False)
    assert [message.message_id for message in end] == left_by(messages, cut)
    assert cut_of(end, bounds(most=100), covers=end[-1].message_id, begins=False) is None


def test_due_when_a_message_steered_the_turn() -> None:
    """A turn begins with its first message, and not with one that steered it."""
    steered = [said("u1"), asking(call()), answering("c1"), said("u2"), last_answer()]

    said_twice = [said("u1"), last_answer("and", "a1"), said("u2"), last_answer()]

    assert [] == list(turn_starts(steered, 0))
    assert [] == list(turn_starts(said_twice, 0))
    assert [5] == list(turn_starts([*steered, *turn(2)], 0))


def test_due_when_there_are_instructions() -> None:
    """The instructions at the beginning stay; the store is told how many they are."""
    messages = [system(), *turns(3)]
    cut = cut_of(messages, bounds(window=4))

    assert ["s1", "u3", "a3"] == left_by(messages, cut)
    assert cut is not None
    assert (1, 4) == (cut.checkpoint.lead, cut.checkpoint.older)
    assert 1 == leading(messages)
    assert 1 == leading([system()])


def test_due_when_a_summary_covers_the_beginning() -> None:
    """What is covered leaves, as whole turns: the last one of them may be covered in part."""
    messages = turns(4)

    for covers, stays in (("u1", None), ("a1", "u2"), ("u2", "u2"), ("a3", "u4"), ("a4", "u4"), ("none", None)):
        cut = cut_of(messages, bounds(), covers=covers)
        assert stays == (None if cut is None else left_by(messages, cut)[0])


def test_due_when_a_summary_covers_less_than_must_leave() -> None:
    """The bounds hold whatever is covered, and what is covered leaves even if the bounds would let it stay."""
    messages = turns(6)

    assert ["u6", "a6"] == left_by(messages, cut_of(messages, bounds(window=5), covers="a1"))
    cut = cut_of(messages, bounds(window=11), covers="a5")
    assert ["u6", "a6"] == left_by(messages, cut)
    assert cut is not None
    assert message_bytes(messages[:10]) == cut.size


def test_due_when_there_are_older_messages() -> None:
    """The places that the store is told count over the whole history."""
    messages = turns(3)
    cut = due(Window(messages, 100, 7, 0, begins_turn=True), bounds(window=6))

    assert cut is not None
    assert (
        Checkpoint(
            0,
            104,
            {
                message_name("u1"): (100, 101),
                message_name("a1"): (101, 101),
                message_name("u2"): (102, 103),
                message_name("a2"): (103, 103),
            },
        )
        == cut.checkpoint
    )


def test_due_when_calls_leave() -> None:
    """A call is known where its result is, and so are the calls of its sub-agent that people decided about."""
    made = call()
    decided = {"c1": (record_of(made), record_of(call("nested")))}
    tool = with_decisions([answering("c1")], decided)
    messages = [said(), asking(made), *tool, last_answer(), *turn(2)]
    cut = cut_of(messages, bounds(window=4))

    assert cut is not None
    assert (2, 3) == cut.checkpoint.known[call_name("c1")] == cut.checkpoint.known[call_name("nested")]
    assert [True, True, False] == [cut.has_call(call_id) for call_id in ("c1", "nested", "c2")]


def test_due_when_seeds_have_no_turns() -> None:
    """Messages of a fresh conversation that belong to no turn leave as pairs, and each is its own end."""
    seeds = [said("u1", turn_id=None), attrs.evolve(last_answer(message_id="a1"), turn_id=None), said("u2", turn_id=None)]
    messages = [*seeds, attrs.evolve(last_answer(message_id="a2"), turn_id=None), *turn(3)]
    cut = cut_of(messages, bounds(window=5))

    assert ["u3", "a3"] == left_by(messages, cut)
    assert cut is not None
    assert (0, 0) == cut.checkpoint.known[message_name("u1")]


def test_recalled_when_a_turn_is_past() -> None:
    """What the store remembers tells the digest, the decisions, and how the turn ended."""
    made = call()
    (tool,) = with_decisions([answering("c1")], {"c1": (record_of(made),)})
    last = turn(1)[1]
    past = recalled("c", Recalled(encode_message(tool), encode_message(attrs.evolve(last, turn_id="t"))))

    assert [record_of(made)] == list(past.decisions)
    outcome = outcome_of_past(past)
    assert isinstance(outcome, Completed)
    assert "a1" == outcome.message.message_id
    assert Unanswered("cut") == outcome_of_past(attrs.evolve(past, message=attrs.evolve(tool, turn_id=None)))


def test_apply_when_messages_leave() -> None:
    """What left is gone from memory, with its bytes, its digests and its decisions; the rest stays."""
    made, kept = call(), call("c2")
    first = [attrs.evolve(said(), digest="d"), asking(made), *with_decisions([answering("c1")], {"c1": (record_of(made),)}), last_answer()]
    second = [said("u2", turn_id="t2"), asking(kept, message_id="b1", turn_id="t2"), answering("c2", message_id="r2", turn_id="t2")]
    state = state_of(*first, *second)
    state.message_ids = {"u1": "d", "u2": "e"}
    state.note_decisions([record_of(made), record_of(made, "reject", interrupt_id="i0"), record_of(kept)])
    cut = due(Window(state.messages, 0, 8, state.size, begins_turn=True), bounds(window=7))
    state.apply(Step(lifecycle="on_step", messages=[last_answer(message_id="a9", turn_id="t2")]), None, 11, cut)

    assert ["u2", "b1", "r2", "a9"] == [message.message_id for message in state.messages]
    assert (4, message_bytes(second) + 11) == (state.older, state.size)
    assert ({"u2": "e"}, ["c2"], {}) == (state.message_ids, list(state.decisions), state.former_decisions)
