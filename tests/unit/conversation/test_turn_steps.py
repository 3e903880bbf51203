"""What a turn commits."""

import attrs

from tests.unit.conversation.making import (
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
from trio_sagents.conversation.history import GATED
from trio_sagents.conversation.outcomes import Totals, turn_record, usage_of, with_record
from trio_sagents.conversation.state import Step, Unchanged
from trio_sagents.conversation.turn_steps import CutTurn, answer, complete, cut, result, take, usage_events, wait
from trio_sagents.conversation.turn_steps import last_answer as kept_answer
from trio_sagents.data.events import MessageCompleted, TokenUsage, ToolExecutionUpdated
from trio_sagents.data.interrupt_wire import DECISIONS
from trio_sagents.data.messages import Message, TextPart, ToolResult
from trio_sagents.data.outcomes import Cancelled, Usage
from trio_sagents.data.status import CancelCause

PAY, LOOK = call("c1", "pay", amount=1), call("c2", "look")
OPEN = asking(PAY, LOOK)
USED = Usage(10, 2)
TOTALS = Totals(2, 5, Usage(30, 4))


# ── take


def test_take_when_messages_are_queued() -> None:
    """The messages move from the queue into the history, as messages of this turn, and are told as completed, in order."""
    queue = [said(f"u{number}", turn_id=None) for number in (1, 2, 3)]
    state = state_of(queue=queue)
    step = take(moment_of(state), queue[:2], TURN, is_first=True)
    applied(state, step)

    taken = [attrs.evolve(message, turn_id="t") for message in queue[:2]]
    assert (taken, [queue[2]]) == (state.messages, list(state.queue.values()))
    assert [MessageCompleted(message, "t") for message in taken] == list(step.events)
    assert ("on_step", "actor", []) == (step.lifecycle, step.actor, list(step.rows))


def test_take_when_a_failed_write_had_cut_the_history() -> None:
    """The first step of a turn closes what the turn before it left open, in the same commit and before its own messages."""
    queued = said("u2", turn_id=None)
    state = state_of(said("u1", turn_id="before"), asking(PAY, turn_id="before"), queue=[queued], draft=draft_of(turn_id="before"))
    first = take(moment_of(state), [queued], TURN, is_first=True)
    later = take(moment_of(state), [queued], TURN, is_first=False)

    assert {"c1": "unknown"} == {call_id: kept.status for call_id, kept in results(first).items()}
    assert ["tool", "assistant", "user"] == [message.role for message in first.messages]
    assert ("crashed", "so f") == (first.messages[1].stop_reason, first.messages[1].text)
    assert (["u2"], "on_step", None) == (list(first.taken), first.lifecycle, first.draft)
    assert ["ToolExecutionUpdated", "MessageCompleted", "MessageCompleted", "MessageCompleted"] == told(first)
    assert ["user"] == [message.role for message in later.messages]


# ── answer, result


def test_answer_when_it_asks_for_tools() -> None:
    """The answer is stored before a tool begins: calls that run are executing, calls that wait are pending and on record as not begun."""
    moment = moment_of(state_of(said(), draft=draft_of()))
    step = answer(moment, OPEN, USED, {"c1": waits(PAY)}, TURN)
    (message,) = step.messages

    assert [("c:t:c1", "tool_call", "pending"), ("c:t:c2", "tool_call", "executing")] == shown(step.rows)
    assert [("executing", {"call_id": "c2", "name": "look", "arguments": {}})] == [
        (update.status, update.tool_info) for update in step.tool_updates
    ]
    assert (["c1"], USED) == (message.metadata[GATED], usage_of(message))
    assert [MessageCompleted(message, "t"), TokenUsage(USED, "a1", "t")] == list(step.events)
    assert (None, [message], "on_step", "actor") == (step.draft, list(step.shown), step.lifecycle, step.actor)
    assert isinstance(step.waiting, Unchanged)


def test_answer_when_nothing_waits_and_nothing_was_used() -> None:
    """Without calls that wait and without a report of usage, the stored answer is the answer itself."""
    step = answer(moment_of(state_of(said())), OPEN, Usage(), {}, TURN)

    assert [OPEN] == list(step.messages)
    assert [MessageCompleted(OPEN, "t")] == list(step.events)


def test_answer_when_it_has_the_record_of_a_turn() -> None:
    """An answer that does not end its turn has no record of a turn: what a model's adapter copied is dropped."""
    copied = with_record(OPEN, turn_record("completed", TOTALS))
    step = answer(moment_of(state_of(said())), copied, Usage(), {}, TURN)

    assert [OPEN] == list(step.messages)


def test_result_when_a_call_returned() -> None:
    """The result of one call is kept with what was decided about the call, and the row shows the arguments that it ran with."""
    state = state_of(said(), OPEN)
    edit = record_of(PAY, "edit", '{"arguments":{"amount":5}}')
    applied(state, Step(lifecycle="on_step", decided=[edit], open_decisions={"c1": [edit]}))
    step = result(moment_of(state), PAY, ToolResult("c1", "pay", "paid"), OPEN, TURN)

    assert {"c1": "paid"} == {call_id: kept.content for call_id, kept in results(step).items()}
    assert ["edit"] == [record["kind"] for record in step.messages[0].metadata[DECISIONS]]
    assert [("c:t:c1", "tool_call", "completed"), ("m:new-1:0", "tool_result", "completed")] == shown(step.rows)
    assert {"amount": 5} == step.rows[0].content["arguments"]
    assert isinstance(step.events[0], ToolExecutionUpdated)
    assert {"amount": 5} == step.events[0].call.arguments
    assert ("on_step", "actor", None) == (step.lifecycle, step.actor, step.open_decisions)


# ── wait


def test_wait_when_calls_wait_for_people() -> None:
    """What waits is kept, each open call of it shows that it waits, and the decisions about other calls are dropped with them."""
    state = state_of(said(), OPEN, answering("c2"))
    state.open_decisions = {"c1": [record_of(PAY)], "c2": [record_of(LOOK)]}
    waiting = waiting_for(waits(PAY), used=USED)
    step = wait(moment_of(state), waiting, [PAY], OPEN, TURN)

    assert [("c:t:c1", "tool_call", "interrupted")] == shown(step.rows)
    assert [("interrupted", {"call_id": "c1", "name": "pay"})] == [(update.status, update.tool_info) for update in step.tool_updates]
    assert [ToolExecutionUpdated(attrs.evolve(PAY, status="interrupted"), "interrupted", "t")] == list(step.events)
    assert (waiting, None, "on_interrupt", "actor") == (step.waiting, step.draft, step.lifecycle, step.actor)
    assert {"c1": [record_of(PAY)]} == step.open_decisions
    assert [] == list(step.messages)


def test_wait_when_nothing_was_decided() -> None:
    """A first interrupt leaves the decisions alone."""
    step = wait(moment_of(state_of(said(), OPEN)), waiting_for(waits(PAY)), [PAY], OPEN, TURN)

    assert step.open_decisions is None


# ── complete, cut


def test_complete_when_a_turn_ends() -> None:
    """The last answer is kept with its cost, the draft is removed, and no call is open any more."""
    state = state_of(said(), asking(PAY), answering("c1"), draft=draft_of())
    state.open_decisions = {"c1": [record_of(PAY)]}
    step = complete(moment_of(state), last_answer(), USED, TOTALS, TURN)
    (message,) = step.messages

    assert (USED, None, {}) == (usage_of(message), step.draft, step.open_decisions)
    assert turn_record("completed", TOTALS) == message.metadata["turn"]
    assert kept_answer(last_answer(), USED, TOTALS) == message
    assert [MessageCompleted(message, "t"), TokenUsage(USED, "a2", "t")] == list(step.events)
    assert [("m:a2:0", "text", "completed")] == shown(step.rows)
    assert ("on_completion", "actor", [message]) == (step.lifecycle, step.actor, list(step.shown))


def test_complete_when_nothing_was_decided() -> None:
    """A turn without decisions does not write any."""
    step = complete(moment_of(state_of(said())), last_answer(), Usage(), Totals(1), TURN)

    assert (None, {"turn"}) == (step.open_decisions, set(step.messages[0].metadata))


def test_cut_when_calls_of_every_kind_are_open() -> None:
    """Each call is closed with what is known of it, those that had returned first; the usage of the whole turn is kept."""
    calls = [call(f"c{number}") for number in range(1, 6)]
    state = state_of(said(), asking(*calls))
    partial = Message("a2", "assistant", (TextPart("so f"),), None, "t")
    open_calls = list(zip(calls[1:], ("pending", "interrupted", "cancelled", "unknown"), strict=True))
    turn = CutTurn([(calls[0], ToolResult("c1", "pay", "paid"))], open_calls, state.messages[-1], partial, TOTALS)  # type: ignore[arg-type]  # statuses
    step = cut(moment_of(state), Cancelled(CancelCause.USER), turn, TURN)

    assert ["completed", "cancelled", "cancelled", "cancelled", "unknown"] == [kept.status for kept in results(step).values()]
    assert ["c1", "c2", "c3", "c4", "c5"] == list(results(step))
    assert ("user", TOTALS.usage) == (step.messages[-1].metadata["cause"], usage_of(step.messages[-1]))
    assert turn_record("cancelled", TOTALS) == step.messages[-1].metadata["turn"]


def test_usage_events_when_nothing_was_used() -> None:
    """A cost of nothing is not told."""
    assert () == usage_events(last_answer(), Usage(), "t")
    assert (TokenUsage(USED, "a2", "t"),) == usage_events(last_answer(), USED, "t")
