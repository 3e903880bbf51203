"""How a turn ended, as far as its history tells."""

from typing import Any

import attrs
import pytest

from tests.unit.conversation.making import answering, asking, call, last_answer, record_of, said, state_of, waiting_for, waits
from trio_sagents.conversation.failures import encode_error
from trio_sagents.conversation.outcomes import (
    Totals,
    outcome_of_message,
    outcome_of_turn,
    takes_part,
    totals_of,
    turn_of_decision,
    turn_record,
    usage_of,
    with_record,
    with_usage,
    without_record,
)
from trio_sagents.data.interrupt_wire import DECISIONS, encode_record
from trio_sagents.data.messages import Message, TextPart
from trio_sagents.data.outcomes import Cancelled, Completed, Failed, Interrupted, Unanswered, Usage
from trio_sagents.data.status import CancelCause
from trio_sagents.exceptions import LimitExceeded

PAY = call("c1", "pay")


def ended(stop_reason: Any, **metadata: Any) -> Message:
    """Return an answer that ended a turn in this way."""
    return Message("a2", "assistant", (TextPart("so"),), stop_reason, "t", metadata)


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (ended("stop"), Completed(ended("stop"))),
        (ended("length"), Completed(ended("length"))),
        (ended("cancelled", cause="user"), Cancelled(CancelCause.USER)),
        (ended("cancelled", cause="superseded"), Cancelled(CancelCause.SUPERSEDED)),
        (ended("cancelled", cause="whim"), Cancelled(CancelCause.HOST_CANCELLED)),
        (ended("cancelled"), Cancelled(CancelCause.HOST_CANCELLED)),
        (ended("crashed"), Unanswered("crashed")),
        (asking(PAY), Unanswered("crashed")),
        (None, Unanswered("cut")),
    ],
)
def test_outcome_when_a_turn_has_ended(last: Message | None, outcome: Any) -> None:
    """The mark of the last answer says how the turn ended; without an answer the turn was cut."""
    history = [said(), *([] if last is None else [last])]

    assert outcome == outcome_of_turn(history, "t") == outcome_of_message(state_of(*history), "u1")


def test_outcome_when_a_turn_has_failed() -> None:
    """A failure is a failure after a restart, too; what failed is not known any more."""
    outcome = outcome_of_turn([said(), ended("stream_error")], "t")

    assert isinstance(outcome, Failed)
    assert "in an earlier life of the agent" in str(outcome.error)


def test_outcome_when_the_record_of_the_turn_says_why() -> None:
    """What is on record of a turn says why it failed, with an error of the same kind; and what the whole turn has cost."""
    error = LimitExceeded("max_rounds", 50)
    failed = with_record(ended("stream_error"), turn_record("failed", Totals(50), encode_error(error)))
    outcome = outcome_of_turn([said(), failed], "t")
    whole = with_record(with_usage(last_answer(), Usage(1, 1)), turn_record("completed", Totals(2, 1, Usage(10, 2))))

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, LimitExceeded)
    assert ("max_rounds", 50) == (outcome.error.limit, outcome.error.value)
    assert Completed(whole, Usage(10, 2)) == outcome_of_turn([said(), whole], "t")
    assert last_answer() == without_record(with_record(last_answer(), turn_record("completed", Totals())))


def test_totals_when_a_turn_is_counted() -> None:
    """The rounds, the calls and the cost of the last turn are counted, and not those of the turns before it."""
    history = [
        said("u0", turn_id="t0"),
        asking(PAY, message_id="a0", turn_id="t0"),
        said(),
        with_usage(asking(PAY, call("c2")), Usage(3, 1)),
    ]
    history += [answering("c1"), answering("c2", message_id="r2"), with_usage(last_answer(), Usage(4, 1))]

    assert Totals(2, 2, Usage(7, 2)) == totals_of(history, "t")
    assert Totals(2, 2, Usage(90, 9)) == totals_of(history, "t", Usage(90, 9))
    assert Totals() == totals_of(history, "t0")


def test_outcome_when_other_turns_followed() -> None:
    """The outcome is that of the turn which took the message, whatever came later; an unknown message has no answer."""
    history = [said("u1"), last_answer(), said("u2", turn_id="t2"), attrs.evolve(ended("cancelled", cause="user"), turn_id="t2")]
    state = state_of(*history, queue=[said("u3", turn_id=None)])

    assert [Completed(last_answer()), Cancelled(CancelCause.USER)] == [outcome_of_message(state, name) for name in ("u1", "u2")]
    assert [Unanswered("cut")] * 2 == [outcome_of_message(state, name) for name in ("u3", "u9")]
    assert Unanswered("cut") == outcome_of_turn(history, None)


def test_outcome_when_the_turn_waits() -> None:
    """A message whose turn waits for people is told the interrupt; messages of other turns are not."""
    waiting = waiting_for(waits(PAY))
    state = state_of(said("u0", turn_id="t0"), last_answer(turn_id="t0"), said(), asking(PAY), waiting=waiting)

    assert Interrupted(waiting.interrupt) == outcome_of_message(state, "u1")
    assert isinstance(outcome_of_message(state, "u0"), Completed)


def test_outcome_when_the_answer_says_what_it_cost() -> None:
    """The cost of a stored answer comes back with its outcome; what cannot be read as a cost is none."""
    free = last_answer()
    kept = with_usage(free, Usage(10, 2))

    assert Completed(kept, Usage(10, 2)) == outcome_of_turn([said(), kept], "t")
    assert free is with_usage(free, Usage())
    assert [Usage()] * 3 == [usage_of(attrs.evolve(kept, metadata={"usage": damaged})) for damaged in (None, {"input_tokens": -1}, "x")]


def test_turn_of_decision_when_it_is_on_record() -> None:
    """The turn is found by an open decision, by the decision beside a result, and by a decision inside a sub-agent."""
    kept = attrs.evolve(answering("c1"), metadata={DECISIONS: [encode_record(record_of(PAY))]})
    closed = state_of(said(), asking(PAY), kept, last_answer(), said("u2", turn_id="t2"))
    still_open = state_of(said(), asking(PAY))
    still_open.open_decisions = {"c1": [record_of(PAY)]}
    nested = state_of(said(), asking(PAY))
    nested.open_decisions = {"c1": [record_of(call("n1"))]}

    assert ["t", "t", "t"] == [turn_of_decision(closed, "c1"), turn_of_decision(still_open, "c1"), turn_of_decision(nested, "n1")]
    assert [None, None] == [turn_of_decision(closed, "c9"), turn_of_decision(state_of(), "c1")]


def test_takes_part_when_a_turn_took_the_message() -> None:
    """A turn takes part in the answer of the messages that it took, and of no others."""
    state = state_of(said(), last_answer())

    assert [True, False, False] == [takes_part(state, *pair) for pair in (("t", "u1"), ("t2", "u1"), ("t", "u2"))]
