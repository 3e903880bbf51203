"""What people decide about calls that wait."""

import datetime
from typing import Any

import attrs
import pytest

from tests.unit.conversation.making import (
    NOW,
    answering,
    applied,
    asking,
    call,
    moment_of,
    record_of,
    results,
    said,
    shown,
    state_of,
    told,
    waiting_for,
    waits,
)
from trio_sagents.conversation.codec import encode_waiting
from trio_sagents.conversation.decisions import (
    CUT_IN_THE_MIDDLE,
    EXPIRED,
    Verdict,
    acknowledged,
    check_decision_size,
    close_waiting,
    decide,
    roots_of,
    undecided,
    waiting_size,
)
from trio_sagents.conversation.limits import Limits, size_of
from trio_sagents.conversation.outcomes import Totals, turn_record
from trio_sagents.conversation.state import ConversationState, Step, Waiting
from trio_sagents.data.decisions import Answer, Approve, Decision, Edit, Reject
from trio_sagents.data.interrupt_wire import DECISIONS, encode_pending, encode_record
from trio_sagents.data.interrupts import Question
from trio_sagents.data.status import CancelCause
from trio_sagents.exceptions import AlreadyDecided, InvalidDecision, LimitExceeded, NotInterrupted

PAY, LOOK, ASK = call("c1", "pay", amount=1), call("c2", "look"), call("c3", "ask")
QUESTION = Question("Which colour?")
WAITING = waiting_for(waits(PAY), waits(LOOK), waits(ASK, kind="question", question=QUESTION, allowed=("answer",)))


def state_that_waits(waiting: Waiting = WAITING) -> ConversationState:
    """Return a conversation that waits for people to decide three calls."""
    return state_of(said(), asking(PAY, LOOK, ASK), waiting=waiting)


def fresh(state: ConversationState, *decisions: Decision) -> list[tuple[str, str]]:
    """Return the call and the kind of each decision that is not on record."""
    return [(waiting.call_id, decision.kind) for waiting, decision in undecided("c", state, decisions)]


# ── checking


def test_undecided_when_calls_wait() -> None:
    """Each decision is matched to its call by name, in whatever order the decisions come."""
    pay, look, ask = WAITING.interrupt.calls

    assert [("c3", "answer"), ("c1", "edit"), ("c2", "reject")] == fresh(
        state_that_waits(), Answer(ask, "blue"), Edit(pay, {"amount": 2}), Reject(look)
    )


def test_undecided_when_a_decision_is_on_record() -> None:
    """The same decision is a duplicate, another decision is too late, and those about other calls are still to be recorded."""
    pay, look, _ = WAITING.interrupt.calls
    state = state_that_waits(attrs.evolve(WAITING, interrupt=attrs.evolve(WAITING.interrupt, calls=WAITING.interrupt.calls[1:])))
    applied(state, Step(lifecycle="on_interrupt", decided=[Verdict(pay, "approve", {}).record("alice", NOW)]))

    assert [] == fresh(state, Approve(pay))
    assert [("c2", "approve")] == fresh(state, Approve(pay), Approve(look))
    with pytest.raises(AlreadyDecided) as caught:
        undecided("c", state, [Approve(look), Reject(pay)])
    assert ("c1", "approve") == (caught.value.call_id, caught.value.decided)
    with pytest.raises(AlreadyDecided):
        undecided("c", state, [Edit(pay, {"amount": 5})])


def test_undecided_when_nothing_waits_any_more() -> None:
    """A duplicate is recognised for ever, also when nothing waits; what was never decided cannot be decided then."""
    pay, look, _ = WAITING.interrupt.calls
    state = state_of(said(), asking(PAY, LOOK, ASK))
    applied(state, Step(lifecycle="on_step", decided=[Verdict(pay, "approve", {}).record("alice", NOW)]))

    assert [] == fresh(state, Approve(pay))
    with pytest.raises(NotInterrupted):
        undecided("c", state, [Approve(look)])
    with pytest.raises(InvalidDecision, match="was in another interrupt, or had other arguments"):
        undecided("c", state, [Approve("i2", "c1", PAY.digest)])
    with pytest.raises(InvalidDecision, match="was in another interrupt, or had other arguments"):
        undecided("c", state, [Approve("i1", "c1", LOOK.digest)])


@pytest.mark.parametrize(
    ("decision", "why"),
    [
        (Approve("i2", "c1", PAY.digest), "waits in the interrupt 'i1', not in 'i2'"),
        (Approve("i1", "c9", PAY.digest), "no call 'c9' waits"),
        (Approve("i1", "c1", LOOK.digest), "the digest is not that of the arguments of the call 'c1'"),
        (Answer("i1", "c1", PAY.digest, "yes"), "the call 'c1' takes approve, edit, reject, not answer"),
        (Approve("i1", "c3", ASK.digest), "the call 'c3' takes answer, not approve"),
    ],
)
def test_undecided_when_a_decision_fits_no_call(decision: Decision, why: str) -> None:
    """A decision that does not fit what waits is refused, with what is wrong."""
    with pytest.raises(InvalidDecision, match=why):
        undecided("c", state_that_waits(), [decision])


def test_undecided_when_two_decisions_are_about_one_call() -> None:
    """Two decisions for one call are refused, even if they are the same."""
    pay = WAITING.interrupt.calls[0]
    with pytest.raises(InvalidDecision, match="two decisions for the same call"):
        undecided("c", state_that_waits(), [Approve(pay), Approve(pay)])


def test_undecided_when_the_turn_was_halted() -> None:
    """A halt takes no decision, about none of its calls; the error says what to do instead."""
    waiting = waiting_for(waits(PAY), waits(LOOK, kind="halt", text="stop"))
    for waiting_call in waiting.interrupt.calls:
        with pytest.raises(InvalidDecision, match=r"the turn was halted; call `dismiss\(\)` instead"):
            undecided("c", state_that_waits(waiting), [Approve(waiting_call)])


def test_undecided_when_people_are_asked_again() -> None:
    """A decision of the earlier interrupt does not decide the call in the later one; it is still a duplicate of itself."""
    first, again = waits(PAY), waits(PAY, "i2", asked_before=1)
    state = state_that_waits(waiting_for(again, interrupt_id="i2"))
    applied(state, Step(lifecycle="on_step", decided=[Verdict(first, "approve", {}).record("alice", NOW)]))

    assert [("c1", "reject")] == fresh(state, Reject(again))
    assert [] == fresh(state, Approve(first))
    with pytest.raises(AlreadyDecided):
        undecided("c", state, [Reject(first)])


def test_verdict_when_it_is_recorded() -> None:
    """A record says what was decided about which arguments, by whom and when, and what the model reads."""
    record = Verdict(waits(PAY), "edit", {"arguments": {"b": 1, "a": 2}}, "text").record("alice", NOW)

    assert ("i1", "c1", "edit", PAY.digest) == (record.interrupt_id, record.call_id, record.kind, record.digest)
    assert ('{"arguments":{"a":2,"b":1}}', "text", "alice", NOW.isoformat()) == (record.content, record.text, record.by, record.at)


LAST: Any = datetime.datetime.max.replace(tzinfo=datetime.UTC)  # an instant as text is not longer than this one


def kept_bytes(*verdicts: Verdict) -> int:
    """Return the bytes of decisions, as they are kept, with room for the key of whoever decides."""
    return sum(size_of(encode_record(verdict.record("x" * 64, LAST))) for verdict in verdicts)


def plain(waiting_call: Any) -> Verdict:
    """Return a rejection that says nothing."""
    return Verdict(waiting_call, "reject", {"reason": ""}, "This call was not run: a person rejected it.")


def test_check_decision_size_when_it_is_just_enough() -> None:
    """Decisions are accepted up to the last byte of both limits; what waits counts, what was decided, and rejecting the rest."""
    pay, look = waits(PAY), waits(LOOK)
    waiting = waiting_for(pay, look, suspended={"c2": {"a": 1}})
    verdict = Verdict(pay, "edit", {"arguments": {"note": "x" * 200}})
    said_bytes = kept_bytes(verdict)
    earlier = Verdict(waits(call("c0")), "approve", {}).record("alice", NOW)
    state = ConversationState(waiting=waiting, size=100)
    state.open_decisions = {"c0": [earlier]}
    whole = 100 + size_of(encode_waiting(waiting)) + size_of(encode_record(earlier)) + 2 * (said_bytes + kept_bytes(plain(look)))
    check_decision_size(state, [verdict], said_bytes, Limits(whole))

    for most, max_bytes, limit, value in (
        (said_bytes - 1, whole, "max_message_bytes", said_bytes),
        (said_bytes, whole - 1, "max_state_bytes", whole),
    ):
        with pytest.raises(LimitExceeded) as caught:
            check_decision_size(state, [verdict], most, Limits(max_bytes))
        assert (limit, value) == (caught.value.limit, caught.value.value)


def test_check_decision_size_when_a_call_is_rejected() -> None:
    """A plain rejection is never refused: a conversation at its limit does not wait for ever."""
    state = ConversationState(waiting=waiting_for(waits(PAY)), size=100)
    check_decision_size(state, [plain(waits(PAY))], 1, Limits(1))
    check_decision_size(state, [Verdict(waits(PAY), "approve", {})], 1, Limits(1))

    with pytest.raises(LimitExceeded):
        check_decision_size(state, [Verdict(waits(PAY), "reject", {"reason": "x" * 20}, "x" * 100)], 10_000, Limits(1))


def test_waiting_size_when_an_interrupt_is_stored() -> None:
    """An interrupt is stored only if there is room to reject all of its calls."""
    pay, look = waits(PAY), waits(LOOK)
    waiting = waiting_for(pay, look)

    assert size_of(encode_waiting(waiting)) + 2 * kept_bytes(plain(pay), plain(look)) == waiting_size(ConversationState(), waiting)


# ── deciding


def records(*kinds: str) -> list[Any]:
    """Return decisions about the first calls of the interrupt."""
    contents: dict[str, Any] = {"edit": {"arguments": {"amount": 5}}, "answer": {"value": "blue"}}
    texts = {"reject": "no", "answer": "blue", "expired": EXPIRED}
    calls = WAITING.interrupt.calls
    return [
        Verdict(made, kind, contents.get(kind, {}), texts.get(kind, "")).record("alice", NOW)
        for made, kind in zip(calls, kinds, strict=False)
    ]


def test_decide_when_calls_still_wait() -> None:
    """Decisions about some calls are kept in the interrupt, no call has a result, and nothing is to run; the others still wait."""
    decided = records("approve", "reject")
    step = decide(moment_of(state_that_waits()), decided, "bob")

    assert isinstance(step.waiting, Waiting)
    interrupt = step.waiting.interrupt
    assert (["c3"], decided, "question") == ([made.call_id for made in interrupt.calls], list(interrupt.decided), interrupt.kind)
    assert ([], [], [], [], None) == (
        list(step.messages),
        list(step.rows),
        list(step.tool_updates),
        list(step.events),
        step.open_decisions,
    )
    assert (decided, "bob", "on_interrupt") == (step.decided, step.actor, step.lifecycle)
    assert attrs.evolve(WAITING, interrupt=interrupt) == step.waiting


def test_decide_when_the_call_that_was_due_first_is_decided() -> None:
    """The other calls keep the time that they had from the beginning."""
    calls = [waits(PAY, timeout=10.0), waits(LOOK, timeout=60.0)]
    waiting = waiting_for(*calls)
    due = NOW + datetime.timedelta(seconds=10)
    state = state_that_waits(attrs.evolve(waiting, interrupt=attrs.evolve(waiting.interrupt, expires_at=due)))
    step = decide(moment_of(state), [Verdict(calls[0], "approve", {}).record("alice", NOW)], None)

    assert isinstance(step.waiting, Waiting)
    assert NOW + datetime.timedelta(seconds=60) == step.waiting.interrupt.expires_at


@pytest.mark.parametrize(
    ("kinds", "status", "running"),
    [
        (("approve", "approve", "answer"), {"c3": ("completed", "blue")}, ["c1", "c2"]),
        (("edit", "reject", "answer"), {"c2": ("cancelled", "no"), "c3": ("completed", "blue")}, ["c1"]),
        (("expired", "expired", "expired"), dict.fromkeys(("c1", "c2", "c3"), ("cancelled", EXPIRED)), []),
    ],
)
def test_decide_when_the_last_call_is_decided(kinds: Any, status: Any, running: list[str]) -> None:
    """In one commit: the interrupt is closed, each call that does not run has its result, each call that runs is on record."""
    state = state_that_waits()
    step = decide(moment_of(state), records(*kinds), "bob")

    assert status == {call_id: (result.status, result.content) for call_id, result in results(step).items()}
    assert step.waiting is None
    assert step.open_decisions is not None
    assert running == list(step.open_decisions)
    assert [("executing", call_id) for call_id in running] == [
        (update.status, update.tool_info["call_id"]) for update in step.tool_updates if update.status == "executing"
    ]
    assert [(f"c:t:{call_id}", "tool_call", "executing") for call_id in running] == [row for row in shown(step.rows) if row[1] != "answer"][
        2 * len(status) :
    ]
    assert ["ToolExecutionUpdated", "MessageCompleted"] * len(status) == told(step)
    assert ("bob", "on_step") == (step.actor, step.lifecycle)
    assert [[kind] for kind in kinds if kind not in {"approve", "edit"}] == [
        [record["kind"] for record in message.metadata[DECISIONS]] for message in step.messages
    ]


def test_decide_when_a_call_was_edited() -> None:
    """The row and the update of a call that runs have the arguments of the person, and the history keeps those of the model."""
    step = decide(moment_of(state_that_waits()), records("edit", "approve", "answer"), None)
    (row,) = [row for row in step.rows if row.row_id == "c:t:c1"]
    (update,) = [update for update in step.tool_updates if update.tool_info["call_id"] == "c1"]

    assert {"amount": 5} == row.content["arguments"] == update.tool_info["arguments"]


def test_decide_when_decisions_came_one_after_the_other() -> None:
    """The last decision brings the earlier ones of the same interrupt with it."""
    state = state_that_waits()
    for decided in records("approve", "reject", "answer"):
        step = decide(moment_of(state), [decided], None)
        applied(state, step)

    assert {"c1": "approve", "c2": "reject", "c3": "answer"} == {call_id: record.kind for call_id, record in state.decisions.items()}
    assert {"c2", "c3"} == {result.call_id for message in state.messages for result in message.results}
    assert (None, ["c1"]) == (state.waiting, list(state.open_decisions))


def nested_waiting(*more: Any) -> Waiting:
    """Return a turn in which two calls of the sub-agent of `PAY` wait."""
    inner = [waits(call(f"n{number}", "send"), path=["worker"]) for number in (1, 2)]
    suspended = {"c1": {"waiting": {made.call_id: [encode_pending(made)] for made in inner}}}
    return waiting_for(*inner, *more, suspended=suspended)


def test_decide_when_a_call_is_in_a_sub_agent() -> None:
    """Decisions about the calls of a sub-agent are kept under the agent's own call, which is open; no result is made for them here."""
    waiting = nested_waiting()
    state = state_that_waits(waiting)
    first, second = waiting.interrupt.calls
    decided = [Verdict(first, "approve", {}).record(None, NOW), Verdict(second, "reject", {}, "no").record(None, NOW)]
    step = decide(moment_of(state), decided, None)

    assert {"n1": "c1", "n2": "c1"} == roots_of(waiting.suspended)
    assert step.open_decisions is not None
    assert {"c1": decided} == {call_id: list(some) for call_id, some in step.open_decisions.items()}
    assert ([], []) == (list(step.messages), list(step.rows))


# ── closing without a decision


@pytest.mark.parametrize(("kind", "cause"), [("superseded", CancelCause.SUPERSEDED), ("dismissed", CancelCause.DISMISSED)])
def test_close_waiting_when_several_calls_are_open(kind: str, cause: CancelCause) -> None:
    """Every open call is answered, those that waited and those that did not; the turn ends with its cause."""
    state = state_of(said(), asking(PAY, LOOK, ASK), answering("c2"), waiting=waiting_for(waits(PAY)))
    step = close_waiting(moment_of(state), kind, cause, "bob")

    assert {"c1", "c3"} == set(results(step))
    assert [(kind, "c1")] == [(record.kind, record.call_id) for record in step.decided]
    assert ("cancelled", cause) == (step.messages[-1].stop_reason, step.messages[-1].metadata["cause"])
    assert turn_record("cancelled", Totals(1, 3)) == step.messages[-1].metadata["turn"]
    assert (None, None, None) == (step.waiting, step.draft, step.open_decisions)


def test_close_waiting_when_some_calls_were_decided() -> None:
    """A call that was approved, and waited for the others, has not run; its approval is kept beside its result."""
    approved = record_of(PAY)
    interrupt = attrs.evolve(WAITING.interrupt, calls=[waits(LOOK)], decided=[approved])
    state = state_of(said(), asking(PAY, LOOK), waiting=Waiting(interrupt))
    step = close_waiting(moment_of(state), "superseded", CancelCause.SUPERSEDED, "bob")

    kept = {message.results[0].call_id: message.metadata[DECISIONS] for message in step.messages if message.results}
    assert {"c1": ["approve"], "c2": ["superseded"]} == {call_id: [record["kind"] for record in some] for call_id, some in kept.items()}
    assert all("was not run" in result.content for result in results(step).values())


def test_close_waiting_when_a_call_had_begun() -> None:
    """The model does not read of a call that had begun that it was not run: a halt has run, and a sub-agent may have done something."""
    waiting = nested_waiting(waits(LOOK, kind="halt", text="The money is gone."))
    state = state_that_waits(waiting)
    step = close_waiting(moment_of(state), "superseded", CancelCause.SUPERSEDED, None)

    said_of = {call_id: result.content for call_id, result in results(step).items()}
    assert said_of["c2"].startswith("The money is gone.\n(This call has run")
    assert CUT_IN_THE_MIDDLE == said_of["c1"]
    assert "nobody decided" in said_of["c3"]


def test_close_waiting_when_a_halt_is_acknowledged() -> None:
    """The model reads what the halted call said, and that a person has acknowledged it."""
    waiting = waiting_for(waits(PAY), waits(LOOK, kind="halt", text="The money is gone."))
    step = close_waiting(moment_of(state_that_waits(waiting)), "dismissed", CancelCause.DISMISSED, None, acknowledged(waiting))

    assert "The money is gone.\n(A person has acknowledged this.)" == results(step)["c2"].content
    assert "nobody decided" in results(step)["c1"].content


def test_close_waiting_when_a_halt_is_inside_a_sub_agent() -> None:
    """What a halt inside a sub-agent said is read at the agent's own call."""
    inner = waits(call("n1", "send"), kind="halt", text="Stop.", path=["worker"])
    waiting = waiting_for(inner, suspended={"c1": {"waiting": {"n1": [encode_pending(inner)]}}})
    step = close_waiting(moment_of(state_that_waits(waiting)), "superseded", CancelCause.SUPERSEDED, None)

    assert results(step)["c1"].content.startswith("Stop.\n")
