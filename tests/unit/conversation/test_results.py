"""The results of calls: messages, rows, updates and events agree."""

import pytest

from tests.unit.conversation.making import NOW, asking, call, last_answer, said, shown, told
from trio_sagents.conversation.results import Answered, asking_in, result_message, results_step, with_message
from trio_sagents.data.events import MessageCompleted, ToolExecutionUpdated
from trio_sagents.data.messages import FilePart, ToolResult, ToolStatus

PAY, LOOK = call("c1", "pay", amount=1), call("c2", "look")
ASKING = asking(PAY, LOOK)
FINAL: list[ToolStatus] = ["completed", "failed", "cancelled", "unknown"]


def answered(status: ToolStatus = "completed", text: str = "ok") -> Answered:
    """Return a call with its result."""
    return Answered(PAY, result_message(ToolResult("c1", "pay", text, status), "t", iter(["r1"])))


@pytest.mark.parametrize("status", FINAL)
def test_results_step_when_a_call_ends(status: ToolStatus) -> None:
    """However a call ended: its row changes, the row of its result is new, and the update and the event say the same status."""
    step = results_step([answered(status, "so")], ASKING, "on_step", NOW)

    assert [("c:t:c1", "tool_call", status), ("m:r1:0", "tool_result", "completed")] == shown(step.rows)
    assert ["a1", "r1"] == [row.message_id for row in step.rows]
    assert [{"call_id": "c1", "name": "pay", "arguments": {"amount": 1}}] == [step.rows[0].content]
    said = "result" if status == "completed" else "error"
    assert [(status, {"call_id": "c1", "name": "pay", said: "so"})] == [(update.status, update.tool_info) for update in step.tool_updates]
    ended, completed = step.events
    assert isinstance(ended, ToolExecutionUpdated)
    assert (status, status, "t") == (ended.status, ended.call.status, ended.turn_id)
    assert (("so", None) if status == "completed" else (None, "so")) == (ended.output, ended.error)
    assert MessageCompleted(step.messages[0], "t") == completed
    assert step.messages == step.shown
    assert ("on_step", ["r1"]) == (step.lifecycle, [message.message_id for message in step.messages])


def test_results_step_when_several_calls_end() -> None:
    """All calls are told of, in the order of the history: first how the call ended, then its message."""
    picture = FilePart("a.pdf", "application/pdf", "QUJD")
    second = Answered(LOOK, result_message(ToolResult("c2", "look", "seen", media=(picture,)), "t", iter(["r2"])))
    step = results_step([answered(), second], ASKING, "on_step", NOW)

    assert ["c:t:c1", "m:r1:0", "c:t:c2", "m:r2:0", "m:r2:1"] == [row.row_id for row in step.rows]
    assert ["ToolExecutionUpdated", "MessageCompleted"] * 2 == told(step)
    assert ["c1", "c2"] == [update.tool_info["call_id"] for update in step.tool_updates]


def test_results_step_when_a_call_was_edited() -> None:
    """People see the call as it ran."""
    edited = Answered(call("c1", "pay", amount=5), answered().message)
    step = results_step([edited], ASKING, "on_step", NOW)

    assert {"amount": 5} == step.rows[0].content["arguments"]
    assert isinstance(step.events[0], ToolExecutionUpdated)
    assert {"amount": 5} == step.events[0].call.arguments


def test_results_step_when_no_call_ends() -> None:
    """Without calls the step tells of nothing and needs no answer that asked for them."""
    step = results_step([], None, "on_cancel", NOW)

    assert ([], [], [], []) == (list(step.messages), list(step.rows), list(step.tool_updates), list(step.events))


def test_with_message_when_an_answer_follows() -> None:
    """A message that is put behind the results is stored, shown, has its rows and is told of like them, after them."""
    step = with_message(results_step([answered()], ASKING, "on_step", NOW), last_answer(), NOW)

    assert ["r1", "a2"] == [message.message_id for message in step.messages] == [message.message_id for message in step.shown]
    assert "m:a2:0" == step.rows[-1].row_id
    assert MessageCompleted(last_answer(), "t") == step.events[-1]


def test_asking_in_when_an_answer_follows_results() -> None:
    """The last answer of the history is the one whose calls may be open."""
    assert ASKING is asking_in([said(), last_answer("x", "a0"), ASKING, answered().message])
    assert asking_in([said()]) is None
