"""The closing of open calls, for all five causes."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from tests.unit.conversation.making import (
    NOW,
    TURN,
    answering,
    applied,
    asking,
    call,
    draft_of,
    last_answer,
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
from trio_sagents.conversation.closing import CLOSING_TEXT, Closing, close_after_crash, close_turn, closed_result, marked_answer
from trio_sagents.conversation.decisions import EXPIRED, Verdict, close_waiting, decide
from trio_sagents.conversation.failures import encode_error
from trio_sagents.conversation.history import is_cut, open_calls, with_gated
from trio_sagents.conversation.limits import message_bytes
from trio_sagents.conversation.messages_in import queued_message, supersede
from trio_sagents.conversation.outcomes import Totals, turn_record
from trio_sagents.conversation.state import ConversationState, Moment, Step
from trio_sagents.conversation.turn_steps import CutTurn, cut
from trio_sagents.conversation.validity import check_history
from trio_sagents.data.events import DisplayMessageUpdated, MessageCompleted, ToolExecutionUpdated
from trio_sagents.data.interrupt_wire import DECISIONS
from trio_sagents.data.messages import Message, OpaquePart, TextPart, ThinkingPart, ToolResult, ToolStatus, UserMessage
from trio_sagents.data.outcomes import Cancelled, Failed, Usage, encode_usage
from trio_sagents.data.reading import UNSENT
from trio_sagents.data.status import CancelCause
from trio_sagents.exceptions import ModelFailed

PAY, LOOK = call("c1", "pay", amount=1), call("c2", "look")
OPEN = asking(PAY, LOOK)


def waiting_state() -> ConversationState:
    """Return a conversation that waits for people to decide `PAY`, while `LOOK` has its result."""
    history = [said(), with_gated(OPEN, ["c1"]), answering("c2")]
    return state_of(*history, waiting=waiting_for(waits(PAY)))


def cut_step(moment: Moment) -> Step:
    """Return the closing of a turn that was cancelled while `PAY` ran."""
    outcome = Cancelled(CancelCause.USER)
    return cut(moment, outcome, CutTurn([], [(PAY, "cancelled")], OPEN, None, Totals(1, 2)), TURN)


def crash_step(moment: Moment) -> Step:
    """Return the closing of a turn whose process died."""
    step = close_after_crash(moment)
    assert step is not None
    return step


def supersede_step(moment: Moment) -> Step:
    """Return the closing of a turn that waited, by a message."""
    return supersede(moment, queued_message("u2", UserMessage("hi"), "d"), UserMessage("hi"), "bob", "bob")


def dismiss_step(moment: Moment) -> Step:
    """Return the closing of a turn that waited, by a person who acknowledged it."""
    return close_waiting(moment, "dismissed", CancelCause.DISMISSED, "bob")


def expire_step(moment: Moment) -> Step:
    """Return the rejection of a call that nobody decided."""
    return decide(moment, [Verdict(waits(PAY), "expired", {}, EXPIRED).record(None, NOW)], "actor")


CAUSES: dict[str, tuple[Callable[[Moment], Step], bool, ToolStatus, str | None]] = {
    "cut": (cut_step, False, "cancelled", "cancelled"),
    "crashed": (crash_step, False, "unknown", "crashed"),
    "superseded": (supersede_step, True, "cancelled", "cancelled"),
    "dismissed": (dismiss_step, True, "cancelled", "cancelled"),
    "expired": (expire_step, True, "cancelled", None),
}
"""By cause: the step, whether the turn waited, how the call stands afterwards, and the mark of the turn's last answer."""


@pytest.mark.parametrize("cause", CAUSES)
def test_closing_when_a_call_is_open(cause: str) -> None:
    """Whatever closes an open call: it gets one result, its row changes, and its update and events tell the same."""
    close, waited, status, mark = CAUSES[cause]
    state = waiting_state() if waited else state_of(said(), OPEN, answering("c2"))
    step = close(moment_of(state))

    (result,) = [message for message in step.messages if message.results]
    assert {"c1": status} == {call_id: answer.status for call_id, answer in results(step).items()}
    assert ("c:t:c1", "tool_call", status) in shown(step.rows)
    assert (f"m:{result.message_id}:0", "tool_result", "completed") in shown(step.rows)
    assert [(status, "c1")] == [(update.status, update.tool_info["call_id"]) for update in step.tool_updates]
    (ended,) = [event for event in step.events if isinstance(event, ToolExecutionUpdated)]
    assert (status, "c1", None, result.results[0].content) == (ended.status, ended.call.call_id, ended.output, ended.error)
    completed = [event.message for event in step.events if isinstance(event, MessageCompleted)]
    assert list(step.messages) == completed
    assert list(step.messages) == [message for message in step.shown if message.role != "user"]
    assert [mark] == [message.stop_reason for message in step.messages if message.role == "assistant"] or mark is None
    assert {"t"} == {message.turn_id for message in step.messages}


@pytest.mark.parametrize("cause", CAUSES)
def test_closing_when_it_is_committed(cause: str) -> None:
    """Afterwards no call is open, a provider takes the history, nothing waits, and the call does not run again."""
    close, waited, _, mark = CAUSES[cause]
    state = waiting_state() if waited else state_of(said(), OPEN, answering("c2"))
    before = list(state.messages)
    applied(state, close(moment_of(state)))

    assert before == state.messages[: len(before)]
    assert () == open_calls(state.messages)
    assert () == check_history("c", state.messages, list(state.queue.values()))
    assert (mark is None) is is_cut(state.messages)
    assert (None, None, {}) == (state.waiting, state.draft, dict(state.open_decisions))


@pytest.mark.parametrize("cause", ["superseded", "dismissed", "expired"])
def test_closing_when_nobody_decided(cause: str) -> None:
    """What closed the call is on record beside its result, with who did it."""
    state = waiting_state()
    step = CAUSES[cause][0](moment_of(state))
    applied(state, step)

    by = None if cause == "expired" else "bob"
    assert [("c1", cause, by, NOW.isoformat())] == [(record.call_id, record.kind, record.by, record.at) for record in step.decided]
    (kept,) = [record for message in step.messages for record in message.metadata.get(DECISIONS, ())]
    assert (cause, by, PAY.digest) == (kept["kind"], kept["by"], kept["digest"])
    assert cause == state.decisions["c1"].kind


@pytest.mark.parametrize(
    ("known", "status", "text"),
    [
        ("pending", "cancelled", "was not run"),
        ("interrupted", "cancelled", "nobody decided"),
        ("cancelled", "cancelled", "may have had some effect"),
        ("unknown", "unknown", "is unknown"),
        ("executing", "cancelled", "is unknown"),
    ],
)
def test_closed_result_when_something_is_known(known: ToolStatus, status: ToolStatus, text: str) -> None:
    """The model reads what is known of a call, and never that a call did not run if it may have."""
    result = closed_result(PAY, known)

    assert ("c1", "pay", status) == (result.call_id, result.name, result.status)
    assert text in result.content
    assert "mine" == closed_result(PAY, known, "mine").content
    assert {"pending", "cancelled", "interrupted", "unknown"} == set(CLOSING_TEXT)


def test_marked_answer_when_something_was_said() -> None:
    """Text and thinking so far are kept under the id of the draft; calls and opaque parts never began, and empty texts are dropped."""
    closing = Closing("t", "cancelled", "on_cancel", "user")
    totals = Totals(1, 2, Usage(3, 4))
    record = turn_record("cancelled", totals)
    partial = Message("d1", "assistant", (ThinkingPart("hm"), TextPart(""), TextPart("so"), OpaquePart("p", {}), PAY), None, "t")

    kept = Message("d1", "assistant", (ThinkingPart("hm"), TextPart("so")), "cancelled", "t", {"cause": "user", "turn": record})
    assert kept == marked_answer(partial, closing, totals, iter(()))
    silent = marked_answer(None, Closing("t", "crashed", "on_error", unsent=["u1"]), totals, iter(["n1"]))
    assert Message("n1", "assistant", (), "crashed", "t", {UNSENT: ["u1"], "turn": record}) == silent


# ── close_turn


def test_close_turn_when_it_has_results_and_a_draft() -> None:
    """Results come first, in the order in which they are given, then the answer so far with its cost; the draft is removed."""
    state = state_of(said(), OPEN, draft=draft_of())
    calls = [(LOOK, ToolResult("c2", "look", "seen")), (PAY, closed_result(PAY, "cancelled"))]
    partial = Message("a2", "assistant", (TextPart("so f"),), None, "t")
    step = close_turn(moment_of(state), calls, partial, Closing("t", "cancelled", "on_cancel", "user"), usage=Usage(1, 2))

    assert ["c2", "c1", "a2"] == [message.results[0].call_id if message.results else message.message_id for message in step.messages]
    assert "so f" == step.messages[-1].text
    assert ("user", 1) == (step.messages[-1].metadata["cause"], step.messages[-1].metadata["usage"]["input_tokens"])
    assert (None, None) == (step.draft, step.open_decisions)
    assert ["ToolExecutionUpdated", "MessageCompleted"] * 2 + ["MessageCompleted"] == told(step)


def test_close_turn_when_nothing_is_open() -> None:
    """A turn that had nothing open is closed by its mark alone."""
    step = close_turn(moment_of(state_of(said())), [], None, Closing("t", "stream_error", "on_error"))

    assert [("assistant", "stream_error")] == [(message.role, message.stop_reason) for message in step.messages]
    assert [("notification", "completed")] == [(row.content_type, row.status) for row in step.rows]


def test_close_turn_when_the_commit_of_the_answer_is_on_its_way() -> None:
    """The rows name the answer that asked for the calls, even if the state does not have it yet."""
    step = close_turn(
        moment_of(state_of(said())), [(PAY, closed_result(PAY, "pending"))], None, Closing("t", "cancelled", "on_cancel"), asking=OPEN
    )

    assert "a1" == step.rows[0].message_id


def test_close_turn_when_calls_were_decided() -> None:
    """What was decided about open calls is kept with their results, and their rows show the arguments that they ran with."""
    state = state_of(said(), OPEN)
    edit = record_of(PAY, "edit", '{"arguments":{"amount":5}}')
    applied(state, Step(lifecycle="on_step", decided=[edit], open_decisions={"c1": [edit]}))
    calls = [(made, closed_result(made, "unknown")) for made in (PAY, LOOK)]
    step = close_turn(moment_of(state), calls, None, Closing("t", "crashed", "on_error"))

    assert [["edit"], []] == [[record["kind"] for record in message.metadata.get(DECISIONS, ())] for message in step.messages[:-1]]
    assert {"amount": 5} == step.rows[0].content["arguments"]
    assert {} == step.open_decisions


def test_close_turn_when_there_is_no_room() -> None:
    """What closes a turn is cut so that the state can be loaded again, even at the limit; every call still has its result."""
    state = state_of(said(), OPEN)
    moment = moment_of(state, max_bytes=state.size, slack=2_000)
    partial = Message("a2", "assistant", (TextPart("x" * 10_000),), None, "t")
    calls = [(PAY, ToolResult("c1", "pay", "y" * 10_000)), (LOOK, closed_result(LOOK, "cancelled"))]
    step = close_turn(moment, calls, partial, Closing("t", "cancelled", "on_cancel"))

    assert message_bytes(step.messages) <= 2_000
    assert {"c1", "c2"} == set(results(step))
    assert moment.limits.can_load(state.size + message_bytes(step.messages))


# ── after a crash


@pytest.mark.parametrize(
    "state",
    [
        state_of(),
        state_of(said(), last_answer()),
        state_of(said(), Message("a1", "assistant", (), "crashed", "t")),
        waiting_state(),
    ],
)
def test_close_after_crash_when_the_history_is_whole(state: ConversationState) -> None:
    """A history that is whole, or whose turn waits for people, is left as it is."""
    assert close_after_crash(moment_of(state)) is None


def test_close_after_crash_when_a_draft_was_stored() -> None:
    """The draft of the turn that was cut becomes its last answer; a draft of another turn does not."""
    kept = crash_step(moment_of(state_of(said(), draft=draft_of())))
    other = crash_step(moment_of(state_of(said(), draft=draft_of(turn_id="before"))))

    assert [("d1", "so f", "crashed")] == [(message.message_id, message.text, message.stop_reason) for message in kept.messages]
    assert [("new-1", "", "crashed")] == [(message.message_id, message.text, message.stop_reason) for message in other.messages]
    assert (None, None) == (kept.draft, other.draft)


@pytest.mark.parametrize(
    ("gated", "decided", "status"),
    [([], False, "unknown"), (["c1"], False, "cancelled"), (["c1"], True, "unknown"), (["c2"], False, "unknown")],
)
def test_close_after_crash_when_a_call_was_open(gated: list[str], decided: bool, status: ToolStatus) -> None:  # of a table
    """A call that was stored may have run; only a call that waited, and that nobody decided, has not begun."""
    state = state_of(said(), with_gated(asking(PAY), gated))
    state.open_decisions = {"c1": [record_of(PAY)]} if decided else {}

    assert {"c1": status} == {call_id: result.status for call_id, result in results(crash_step(moment_of(state))).items()}


def test_close_after_crash_when_a_closing_is_closed_again() -> None:
    """A history that was closed is whole: the next start closes nothing."""
    state = state_of(said(), OPEN)
    applied(state, crash_step(moment_of(state)))

    assert close_after_crash(moment_of(state)) is None


# ── a cut turn


@pytest.mark.parametrize(
    ("outcome", "stop_reason", "lifecycle", "metadata"),
    [
        (Cancelled(CancelCause.USER), "cancelled", "on_cancel", {"cause": "user"}),
        (Cancelled(CancelCause.STOPPED), "cancelled", "on_shutdown", {"cause": "stopped"}),
        (Failed(ModelFailed("x")), "stream_error", "on_error", {}),
    ],
)
def test_cut_when_a_turn_was_cancelled_or_failed(outcome: Any, stop_reason: str, lifecycle: str, metadata: Any) -> None:
    """What tools had returned is kept, what had not returned is closed, what was said is kept and marked with the cause."""
    returned = [(LOOK, ToolResult("c2", "look", "seen"))]
    partial = Message("a2", "assistant", (TextPart("so f"),), None, "t")
    state, totals = state_of(said(), OPEN), Totals(2, 2, Usage(3, 4))
    step = cut(moment_of(state), outcome, CutTurn(returned, [(PAY, "cancelled")], OPEN, partial, totals), TURN)

    assert {"c2": "completed", "c1": "cancelled"} == {call_id: result.status for call_id, result in results(step).items()}
    last = step.messages[-1]
    assert (stop_reason, "so f") == (last.stop_reason, last.text)
    error = encode_error(outcome.error) if isinstance(outcome, Failed) else None
    record = turn_record("cancelled" if error is None else "failed", totals, error)
    assert {**metadata, "turn": record, "usage": encode_usage(totals.usage)} == last.metadata
    assert (lifecycle, "actor") == (step.lifecycle, step.actor)
    assert () == check_history("c", applied(state, step).messages)


@pytest.mark.parametrize(("kind", "unsent"), [("refused_content", ["u1"]), ("invalid_request", ["u1"]), ("overloaded", None)])
def test_cut_when_the_provider_refused_the_message(kind: Any, unsent: list[str] | None) -> None:
    """A message that the provider refused is marked, so that it is not sent again; one whose turn failed otherwise is not."""
    turn = CutTurn([], [], None, None, Totals(1))
    step = cut(moment_of(state_of(said())), Failed(ModelFailed("no", kind=kind)), turn, TURN)

    assert unsent == step.messages[-1].metadata.get(UNSENT)
    assert (unsent is not None) is ("not sent to the model any more" in step.rows[-1].content["text"])


@pytest.mark.parametrize(("was_unsaved", "status", "kind"), [(False, "crashed", "crash"), (True, "failed", "storage")])
def test_close_after_crash_when_it_is_recorded(was_unsaved: bool, status: str, kind: str) -> None:  # of a table
    """The record of the turn says whether its process died or its write failed, and what the turn did as far as its history tells."""
    history = [said(), attrs.evolve(OPEN, metadata={"usage": encode_usage(Usage(3, 4))})]
    step = close_after_crash(moment_of(state_of(*history)), was_unsaved=was_unsaved)
    assert step is not None
    record = step.messages[-1].metadata["turn"]

    assert (status, 1, 2, encode_usage(Usage(3, 4))) == (record["status"], record["rounds"], record["calls"], record["usage"])
    assert kind == record["error"]["kind"]
    assert ("error", "failed") == (step.rows[-1].content_type, step.rows[-1].status)


def test_viewers_when_an_approval_is_superseded() -> None:
    """Nothing about a superseded call is stored without being told: the step has the row of the call for viewers, too."""
    step = supersede_step(moment_of(waiting_state()))
    events = [DisplayMessageUpdated(row) for row in step.rows if row.row_id == "c:t:c1"]

    assert ["cancelled"] == [event.row.status for event in events]
    assert attrs.evolve(PAY, status="cancelled") == next(event.call for event in step.events if isinstance(event, ToolExecutionUpdated))
