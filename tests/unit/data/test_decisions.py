"""Decisions, interrupts and their questions, as plain data."""

import math
from typing import Any

import attrs
import pytest

from trio_sagents.data.decisions import MAX_REASON, Answer, Approve, Decision, Edit, Reject, answer_text
from trio_sagents.data.interrupts import DecisionRecord, Interrupt, Option, PendingCall, Question, pending
from trio_sagents.data.json import canonical
from trio_sagents.data.messages import ToolCall


def call_of(question: Question | None = None, call_id: str = "c1") -> PendingCall:
    made = pending(ToolCall(call_id, "pay", {"amount": 1}), kind="question" if question else "approval", question=question)
    return attrs.evolve(made, interrupt_id="i1")


COLOURS = (Option("red", "Rouge"), Option("blue"), Option("Rouge"))


@pytest.mark.parametrize(
    ("question", "answer", "text"),
    [
        (Question("q"), {"value": "so"}, "so"),
        (Question("q"), {"other": "so"}, "so"),
        (Question("q", "single", COLOURS), {"value": "blue"}, "blue"),
        (Question("q", "single", COLOURS[:2]), {"value": "Rouge"}, "red"),
        (Question("q", "single", COLOURS), {"value": "Rouge"}, "Rouge"),
        (Question("q", "single", COLOURS, allow_other=True), {"other": "teal"}, "other: teal"),
        (Question("q", "single", COLOURS, allow_other=True), {"value": "teal"}, "other: teal"),
        (Question("q", "multi", COLOURS), {"value": ["blue", "red"]}, "blue, red"),
        (Question("q", "multi", COLOURS, allow_other=True), {"value": ["blue", "x"], "other": "y"}, "blue, other: y, other: x"),
        (Question("q", "multi", COLOURS), {"cancel": True}, "The person declined to answer."),
    ],
)
def test_answer_text_when_it_answers(question: Question, answer: Any, text: str) -> None:
    """The model reads values, never labels; a value wins over the label of another option; what is no option is marked."""
    call = call_of(question)

    assert text == answer_text(call, Answer(call, **answer) if "value" not in answer else Answer("i1", "c1", call.digest, **answer))


@pytest.mark.parametrize(
    ("question", "answer", "why"),
    [
        (None, {"value": "x"}, "is not a question"),
        (Question("q", allow_cancel=False), {"cancel": True}, "must be answered"),
        (Question("q"), {"value": " "}, "one text that is not empty"),
        (Question("q"), {"value": ["a", "b"]}, "one text that is not empty"),
        (Question("q"), {"value": "a", "other": "b"}, "one text that is not empty"),
        (Question("q", "single", COLOURS), {"value": "teal"}, "'teal' is not one of the options"),
        (Question("q", "single", COLOURS), {"other": "teal"}, "'teal' is not one of the options"),
        (Question("q", "single", COLOURS), {"value": ["red", "blue"]}, "takes one answer"),
        (Question("q", "single", COLOURS, allow_other=True), {"value": "red", "other": "x"}, "takes one answer"),
        (Question("q", "multi", COLOURS), {"value": ["red", "red"]}, "chosen twice"),
        (Question("q", "multi", COLOURS[:2]), {"value": ["red", "Rouge"]}, "chosen twice"),
        (Question("q", "multi", COLOURS), {"value": []}, "nothing was chosen"),
    ],
)
def test_answer_text_when_it_answers_nothing(question: Question | None, answer: Any, why: str) -> None:
    """What does not answer the question is refused, and the words say why."""
    call = call_of(question)
    with pytest.raises(ValueError, match=why):
        answer_text(call, Answer("i1", "c1", call.digest, **answer))


@pytest.mark.parametrize(
    "decision",
    [
        Approve(call_of()),
        Edit(call_of(), {"amount": 2}),
        Reject(call_of()),
        Reject(call_of(), "x" * MAX_REASON),
        Answer(call_of(), "a"),
        Answer(call_of(), ["a", "b"]),
        Answer(call_of(), "a", other="b"),
        Answer(call_of(), cancel=True),
    ],
)
def test_decision_when_it_goes_through_json(decision: Decision) -> None:
    """What a browser sends back is the decision; both forms of making it are one."""
    data = decision.to_dict()

    assert decision == Decision.from_dict(data)
    assert {"type": decision.kind, "interrupt_id": "i1", "call_id": "c1", "digest": call_of().digest, **decision.content} == data


def test_decision_when_it_is_made_of_names() -> None:
    """The long form, of names alone, is the short one, of a call."""
    call = call_of()
    names = ("i1", "c1", call.digest)

    assert Approve(call) == Approve(*names)
    assert Edit(call, {"amount": 2}) == Edit(*names, {"amount": 2})
    assert Reject(call, "no") == Reject(*names, "no")
    assert Answer(call, "a", other="b") == Answer(*names, "a", other="b")
    assert names == (Approve(call).interrupt_id, Approve(call).call_id, Approve(call).digest)


@pytest.mark.parametrize("changes", [{"interrupt_id": "x"}, {"call_id": "x"}, {"digest": "x"}, {"kind": "approve"}, {"content": "{}"}])
def test_same_as_when_one_thing_differs(changes: Any) -> None:
    """A decision is the recorded one if all of its fields are equal."""
    decision = Reject(call_of(), "no")
    record = DecisionRecord("i1", "c1", "reject", call_of().digest, canonical({"reason": "no"}), "", "alice", "2024-01-01T00:00:00+00:00")

    assert decision.same_as(record)
    assert not decision.same_as(attrs.evolve(record, **changes))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Approve("i", "c"), TypeError),
        (lambda: Approve("i", "c", "d\ud800"), ValueError),
        (lambda: Edit(call_of()), TypeError),
        (lambda: Edit("i", "c", "d", [1]), TypeError),  # type: ignore[arg-type]  # refused
        (lambda: Reject("i", "c", "d", 5), TypeError),  # type: ignore[arg-type]  # refused
        (lambda: Reject(call_of(), "x" * (MAX_REASON + 1)), ValueError),
        (lambda: Answer(call_of()), ValueError),
        (lambda: Answer(call_of(), [1]), TypeError),  # type: ignore[list-item]  # refused
        (lambda: Answer(call_of(), {"a"}), TypeError),  # type: ignore[arg-type]  # refused
        (lambda: Answer(call_of(), other=1), TypeError),  # type: ignore[arg-type]  # refused
        (lambda: Answer(call_of(), cancel=1), TypeError),  # type: ignore[arg-type]  # refused
        (lambda: Answer(call_of(), other="\ud800"), ValueError),
        (lambda: Answer(call_of(), ["\ud800"]), ValueError),
        (lambda: Decision.from_dict([]), TypeError),  # type: ignore[arg-type]  # refused
        (lambda: Decision.from_dict({"type": "approve"}), ValueError),
        (lambda: Decision.from_dict({"type": ["approve"]}), ValueError),
        (lambda: Decision.from_dict({**Approve(call_of()).to_dict(), "reason": "x"}), ValueError),
        (lambda: Decision.from_dict({"type": "approve", "interrupt_id": "i", "call_id": "c"}), ValueError),
    ],
)
def test_decision_when_it_is_none(make: Any, error: type[Exception]) -> None:
    """What is no decision is refused where it is made."""
    with pytest.raises(error):
        make()


@pytest.mark.parametrize("name", ["interrupt_id", "call_id", "digest"])
def test_decision_when_one_name_is_none(name: str) -> None:
    """The error says which of the names is no text, or cannot be stored."""
    names: dict[str, Any] = {"interrupt_id": "i", "call_id": "c", "digest": "d"}
    with pytest.raises(TypeError, match=f"^{name} must be a str"):
        Approve(**{**names, name: 5})
    with pytest.raises(ValueError, match=f"^{name}:"):
        Approve(**{**names, name: "\ud800"})


def test_decision_when_it_says_nothing_of_its_own() -> None:
    """A decision of no kind has no content."""
    assert {} == Decision("i", "c", "d").content == Approve("i", "c", "d").content


@pytest.mark.parametrize(("given", "kept"), [(None, None), (math.inf, None), (5, 5.0)])
def test_pending_when_it_has_a_timeout(given: Any, kept: Any) -> None:
    """Seconds are a float; for ever is None, which is stored."""
    call = pending(ToolCall("c1", "pay", {}), timeout=given)

    assert kept == call.timeout
    assert type(kept) is type(call.timeout)


def test_interrupt_when_its_calls_are_named() -> None:
    """The calls of an interrupt name it."""
    interrupt = Interrupt("i1", "t", [call_of(), call_of(call_id="c2")])

    assert [("i1", "c1"), ("i1", "c2")] == [(call.interrupt_id, call.call_id) for call in interrupt.calls]
