"""What a history, an answer, a draft and an interrupt must be."""

from typing import Any

import attrs
import pytest

from tests.unit.conversation.making import answering, asking, call, draft_of, last_answer, record_of, said, waiting_for, waits
from trio_sagents.conversation.validity import check_answer, check_draft, check_history, check_interrupt
from trio_sagents.data.messages import Message, OpaquePart, TextPart, ToolResult
from trio_sagents.exceptions import StateError


@pytest.mark.parametrize(
    ("history", "why"),
    [
        ([asking(call("c1"), call("c1"))], "duplicate"),
        ([asking(call("c1")), answering("c1"), asking(call("c1"), message_id="a2")], "duplicate"),
        ([asking(call("c1", ""))], "names no tool"),
        ([asking(call(""))], "a call id has 0 bytes"),
        ([asking(call("c1")), said()], "not answered before"),
        ([answering("c1")], "which is not open"),
        ([asking(call("c1")), answering("c1"), answering("c1", message_id="r2")], "which is not open"),
        ([asking(call("c1")), Message("r1", "tool", [ToolResult("c1", "pay", "", "pending")])], "which is not open"),
        ([said("u1"), said("u1")], "duplicate"),
        ([said("")], "a message id has 0 bytes"),
        ([Message("u1", "user", ())], "is empty"),
        ([Message("r1", "tool", ())], "is empty"),
        ([Message("u1", "user", (TextPart("x"),), "stop")], "has a stop reason"),
        ([Message("u1", "user", (OpaquePart("p", {}),))], "has a part that it cannot have"),
    ],
)
def test_history_when_no_provider_takes_it(history: Any, why: str) -> None:
    """A history that no provider would take is refused, with what is wrong in it."""
    with pytest.raises(StateError, match=why):
        check_history("c", history)


@pytest.mark.parametrize(("queue", "why"), [([last_answer()], "cannot wait in the queue"), ([said("u1")], "duplicate")])
def test_history_when_the_queue_is_wrong(queue: Any, why: str) -> None:
    """Only messages of people wait in the queue, and their ids are not those of the history."""
    with pytest.raises(StateError, match=why):
        check_history("c", [said("u1")], queue)


def test_history_when_calls_are_open() -> None:
    """The ids of the calls that the last answer leaves open are returned, in the order in which the model asked for them."""
    history = [said(), asking(call("c1"), call("c2"), call("c3")), answering("c2")]

    assert ("c1", "c3") == check_history("c", history, [said("u2", turn_id=None)])
    assert () == check_history("c", [])


def test_history_when_an_answer_is_empty() -> None:
    """An answer that was cut before its first word belongs to a history."""
    assert () == check_history("c", [said(), Message("a1", "assistant", (), "cancelled", "t")])


@pytest.mark.parametrize(
    "message",
    [
        Message("a", "assistant", (TextPart("x"),), stop_reason="tool_calls"),
        Message("a", "user", (TextPart("x"),), stop_reason="stop"),
        Message("a", "assistant", (call("c"),), stop_reason="stop"),
        Message("a", "assistant", (TextPart("x"),), stop_reason="crashed"),
        Message("a", "assistant", (TextPart("x"),)),
        Message("a", "assistant", (ToolResult("c", "pay", "x"),), stop_reason="stop"),
    ],
)
def test_answer_when_no_model_gives_it(message: Message) -> None:
    """A message that cannot be the answer of a model is refused."""
    with pytest.raises(ValueError, match="answer"):
        check_answer(message)


def test_answer_when_a_model_gives_it() -> None:
    """An answer with calls, without calls, and one that was cut by its length are answers."""
    for message in (asking(call()), last_answer(), Message("a", "assistant", (), "length")):
        check_answer(message)


@pytest.mark.parametrize(
    ("draft", "why"),
    [
        (attrs.evolve(draft_of(), role="user"), "of the role 'user'"),
        (draft_of(message_id="u1"), "duplicate"),
        (draft_of(message_id=""), "a message id has 0 bytes"),
    ],
)
def test_draft_when_it_cannot_end_its_turn(draft: Message, why: str) -> None:
    """A draft is an answer with an id of its own."""
    check_draft("c", None, {"u1"})
    check_draft("c", draft_of(), {"u1"})
    with pytest.raises(StateError, match=why):
        check_draft("c", draft, {"u1"})


CALL, OTHER = call("c1", amount=1), call("c2")
HISTORY = (said(), asking(CALL, OTHER))


@pytest.mark.parametrize(
    ("waiting", "why"),
    [
        (waiting_for(waits(call("c1", amount=2))), "the last answer did not make"),
        (waiting_for(waits(call("c3"))), "the last answer did not make"),
        (waiting_for(waits(CALL), turn_id="other"), "the last answer did not make"),
        (waiting_for(waits(CALL, path=["worker"])), "the last answer did not make"),
        (waiting_for(waits(CALL)), None),
        (waiting_for(waits(call("c9"), path=["worker"])), None),
        (waiting_for(waits(call("c1", amount=2), kind="halt")), None),
        (waiting_for(waits(call("c3"), kind="halt")), "the last answer did not make"),
    ],
)
def test_interrupt_when_it_asks_about_calls(waiting: Any, why: str | None) -> None:
    """An interrupt asks about open calls of the last answer, with its arguments; a halt may have run with others; or about nested ones."""

    def check() -> None:
        check_interrupt("c", waiting.interrupt, HISTORY, ["c1", "c2"], {"c9"})

    if why is None:
        check()
    else:
        with pytest.raises(StateError, match=why):
            check()


def test_interrupt_when_it_is_damaged() -> None:
    """An interrupt about no call, or with a decision about a call that is not open, is refused; no interrupt is fine."""
    interrupt = waiting_for(waits(CALL)).interrupt
    check_interrupt("c", None, [], [], ())
    check_interrupt("c", attrs.evolve(interrupt, decided=[record_of(OTHER)]), HISTORY, ["c1", "c2"], ())
    for damaged, why in (
        (attrs.evolve(interrupt, calls=[]), "asks about no call"),
        (attrs.evolve(interrupt, decided=[record_of(call("c2", amount=5))]), "a decision about the call 'c2'"),
        (attrs.evolve(interrupt, decided=[record_of(call("c5"))]), "a decision about the call 'c5'"),
    ):
        with pytest.raises(StateError, match=why):
            check_interrupt("c", damaged, HISTORY, ["c1", "c2"], ())
    with pytest.raises(StateError, match="did not make"):
        check_interrupt("c", interrupt, [], [], ())
