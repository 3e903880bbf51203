"""What the terminal shows: each character once, each tool call with its end, each cut with its mark."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents import (
    AgentShutdown,
    Cancelled,
    ChainError,
    Completed,
    Cursor,
    DisplayMessage,
    Event,
    Failed,
    Gap,
    Interrupted,
    Message,
    MessageCompleted,
    MessageQueued,
    ModelFailed,
    ShutdownReason,
    Snapshot,
    StartFailed,
    Status,
    StatusChanged,
    StreamingMessage,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    TodosUpdated,
    ToolCall,
    ToolExecutionUpdated,
    ToolIgnoresCancellation,
    TurnEnded,
    TurnOutcome,
    TurnStarted,
    Unanswered,
)
from trio_sagents.cli._render import TurnView, call_text, error_text, one_line, outcome_text
from trio_sagents.cli._screen import harmless
from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.status import CancelCause

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
CALL = ToolCall("c1", "calculate", {"expression": "6*7"})
ANSWER = "The answer is 42."


def shown(view: TurnView, *events: Event) -> str:
    """Return the text that the events put on the screen."""
    return "".join(piece.text for event in events for piece in view.show(event))


def delta(text: str, offset: int = 0, part: int = 0, message_id: str = "a1") -> TextDelta:
    """Return a piece of an answer."""
    return TextDelta(text, message_id, part, offset, "t1")


def completed(text: str = ANSWER, stop_reason: str = "stop", message_id: str = "a1") -> MessageCompleted:
    """Return the end of an answer."""
    return MessageCompleted(Message(message_id, "assistant", (TextPart(text),), stop_reason, "t1"), "t1")  # type: ignore[arg-type]  # a str here


def snapshot(*texts: str, status: Status = Status.RUNNING, queued: int = 0, message_id: str = "a1") -> Snapshot:
    """Return a snapshot, in the middle of an answer if there are texts."""
    streaming = StreamingMessage(message_id, tuple(TextPart(text) for text in texts)) if texts else None
    return Snapshot(status, None, (), streaming, (), queued, Cursor("i", "main", 1))


def row(
    content_type: str, content: dict[str, object], *, role: str = "assistant", row_id: str = "a1:0", status: str = "completed"
) -> DisplayMessage:
    """Return a row of the history."""
    return DisplayMessage(row_id, row_id.partition(":")[0], role, content_type, content, status, NOW)  # type: ignore[arg-type]  # strs here


def rows_shown(view: TurnView, *rows: DisplayMessage) -> str:
    """Return the text that the rows put on the screen."""
    return "".join(piece.text for piece in view.show_rows(rows))


def ended(outcome: TurnOutcome) -> TurnEnded:
    """Return the end of the turn."""
    return TurnEnded("t1", outcome)


def test_row_of_a_refused_message_says_so() -> None:
    """The row of a turn whose content was refused says that the model does not read the message any more."""
    said = rows_shown(TurnView(), row("error", {"text": "it was refused", "unsent": ["m"]}))

    assert said == "error: it was refused\n[the model does not read that message any more]\n"


def test_deltas_stream_as_they_are() -> None:
    """Text goes out piece by piece, the line is ended once."""
    view = TurnView()

    assert shown(view, delta("The "), delta("answer", 4)) == "The answer"
    assert shown(view, completed("The answer is"), ended(Completed(Message("a1", "assistant")))) == " is\n"


def test_a_tool_call_is_shown_as_it_runs() -> None:
    """The name, arguments, status and result of a call are on the screen."""
    view = TurnView()
    text = shown(view, ToolExecutionUpdated(CALL, "executing", "t1"), ToolExecutionUpdated(CALL, "completed", "t1", output="42"))

    assert text == '  · calculate(expression="6*7") runs\n  · calculate completed: 42\n'


def test_a_failed_tool_call_is_shown_with_its_error() -> None:
    """The person sees what the model reads."""
    assert shown(TurnView(), ToolExecutionUpdated(CALL, "failed", "t1", error="no\nway")) == "  · calculate failed: no way\n"


def test_a_tool_line_does_not_break_into_the_text() -> None:
    """An unfinished line is ended before a line of another kind."""
    view = TurnView()

    assert shown(view, delta("Let me see"), ToolExecutionUpdated(CALL, "completed", "t1")) == "Let me see\n  · calculate completed\n"


def test_thinking_and_answer_stand_on_lines_of_their_own() -> None:
    """Thinking and answer do not run into each other."""
    view = TurnView()
    message = Message("a1", "assistant", (ThinkingPart("hm"), TextPart("Yes")), "stop", "t1")

    assert shown(view, ThinkingDelta("hm", "a1", 0, 0, "t1"), delta("Y", 0, 1), MessageCompleted(message, "t1")) == "hm\nYes\n"


def test_a_snapshot_shows_only_what_is_new() -> None:
    """Text that was streamed before a gap is not repeated."""
    view = TurnView()

    assert shown(view, delta("The ans"), Gap(3, 9), snapshot("The answer is")) == "The answer is"
    assert view.has_gap
    assert shown(view, delta(" is 42.", 10), completed()) == " 42.\n"


def test_a_completed_message_is_not_spoken_again() -> None:
    """Late deltas and snapshots of a whole message are ignored."""
    view = TurnView()
    shown(view, completed())

    assert shown(view, delta("The"), snapshot("The"), completed()) == ""


@pytest.mark.parametrize(
    ("stop_reason", "mark"),
    [
        ("crashed", "[cut by a crash]"),
        ("cancelled", "[cancelled]"),
        ("stream_error", "was broken off]"),
        ("length", "length limit]"),
        ("content_filtered", "filter]"),
    ],
)
def test_a_cut_answer_is_marked(stop_reason: str, mark: str) -> None:
    """A cut is visible live and in the history, in the same words."""
    live = shown(TurnView(), completed("The ans", stop_reason))
    later = rows_shown(TurnView(), row("text", {"text": "The ans", "stop_reason": stop_reason}))

    assert live == later
    assert live.startswith("The ans\n[")
    assert live.endswith(mark + "\n")


def test_a_cancelled_turn_is_told_once() -> None:
    """The mark on the answer and the end of the turn say the same, so one line is enough."""
    view = TurnView()

    assert shown(view, delta("The"), completed("The", "cancelled"), ended(Cancelled(CancelCause.USER))) == "The\n[cancelled]\n"
    assert shown(TurnView(), ended(Cancelled(CancelCause.USER))) == "[cancelled]\n"


def test_a_failed_turn_is_told_once() -> None:
    """The error event and the end of the turn carry the same error."""
    view = TurnView()
    error = ModelFailed("no such model")

    assert shown(view, ChainError(error, turn_id="t1"), ended(Failed(error))) == "error: no such model\n"
    assert shown(view, ended(Failed(error))) == "error: no such model\n"


def test_lost_text_is_told() -> None:
    """After a failed write, the person is told that the text on the screen is not saved."""
    assert "is lost" in shown(TurnView(), ChainError(ModelFailed("disk full"), unsaved=True))


def test_busy_means_running_or_about_to() -> None:
    """An accepted message that waits makes the view busy, unless the queue is held."""
    view = TurnView()
    shown(view, snapshot(status=Status.IDLE, queued=1))
    assert view.is_busy
    shown(view, TurnStarted("t1"), MessageCompleted(Message("u1", "user", (TextPart("hi"),)), "t1"))
    assert view.is_busy
    assert view.has_taken("u1")
    shown(view, StatusChanged(Status.IDLE))
    assert not view.is_busy
    shown(view, MessageQueued(Message("u2", "user")), StatusChanged(Status.ERROR, "it failed"))
    assert not view.is_busy


@pytest.mark.parametrize(("reason", "words"), [(ShutdownReason.CRASHED, "crashed"), (ShutdownReason.FENCED, "another program")])
def test_an_unexpected_end_of_the_agent_is_told(reason: ShutdownReason, words: str) -> None:
    """The person learns what happened, and what to do."""
    view = TurnView(status=Status.RUNNING)

    assert words in shown(view, AgentShutdown(reason, Status.RUNNING, 0, True, NOW, NOW))
    assert not view.is_busy


def test_an_idle_agent_leaves_quietly() -> None:
    """An agent that leaves because of inactivity is not announced."""
    assert shown(TurnView(), AgentShutdown(ShutdownReason.INACTIVITY, Status.IDLE, 0, True, NOW, NOW), TodosUpdated(())) == ""


def test_a_tool_that_does_not_stop_is_named() -> None:
    """The person is told which tool the chat waits for."""
    assert "calculate does not stop" in shown(TurnView(), ToolIgnoresCancellation(CALL, "t1"))


def test_the_tail_of_a_history_reads_like_the_conversation() -> None:
    """Questions, calls, results and answers, in order."""
    text = rows_shown(
        TurnView(),
        row("text", {"text": "what is 6*7?"}, role="user", row_id="u1:0"),
        row("tool_call", {"call_id": "c1", "name": "calculate", "arguments": {"expression": "6*7"}}, row_id="a0:call"),
        row("tool_result", {"tool_call_id": "c1", "name": "calculate", "content": "42", "is_error": False}, role="tool", row_id="t1:0"),
        row("text", {"text": "42"}),
    )

    assert text == '> what is 6*7?\n  · calculate(expression="6*7") completed\n  · calculate completed: 42\n42\n'


def test_an_answer_cut_before_its_first_word_is_marked() -> None:
    """Even if no text was saved, the person sees that there is no answer."""
    notice = row("notification", {"text": "no answer: crashed", "stop_reason": "crashed"}, role="system")

    assert rows_shown(TurnView(), notice) == "[no answer] [cut by a crash]\n"


def test_other_rows_are_named() -> None:
    """What this screen cannot show leaves a trace; why a turn failed is shown as when it happened."""
    assert rows_shown(TurnView(), row("image", {"url": "x"}), row("error", {"text": "oh"}, row_id="b:0")) == "[image]\nerror: oh\n"


def test_rows_after_a_gap_show_only_what_was_missed() -> None:
    """Text that was typed here, streamed, or shown as a call ran, is not repeated."""
    view = TurnView()
    view.note_typed("u1")
    shown(view, TurnStarted("t1"), ToolExecutionUpdated(CALL, "completed", "t1", output="42"), delta("The ans"), Gap(5, 9))
    text = rows_shown(
        view,
        row("text", {"text": "what is 6*7?"}, role="user", row_id="u1:0"),
        row("tool_call", {"call_id": "c1", "name": "calculate", "arguments": {}}, row_id="a0:call"),
        row("tool_result", {"tool_call_id": "c1", "name": "calculate", "content": "42", "is_error": False}, role="tool", row_id="t1:0"),
        row("text", {"text": ANSWER}),
    )

    assert text == "wer is 42.\n"
    assert shown(view, snapshot(status=Status.IDLE), completed()) == ""


def test_a_message_of_several_rows_is_shown_whole() -> None:
    """Rows of one message do not hide each other."""
    text = rows_shown(TurnView(), row("thinking", {"text": "hm"}), row("text", {"text": "Yes"}, row_id="a1:1"))

    assert text == "hm\nYes\n"


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Completed(Message("a", "assistant")), ""),
        (Cancelled(CancelCause.USER), "[cancelled]"),
        (Cancelled(CancelCause.STOPPED), "[cancelled: stopped]"),
        (Failed(ModelFailed("boom")), "error: boom"),
        (
            Interrupted(Interrupt("i", "t", (CALL,))),
            '[waits for a person\'s decision: calculate(expression="6*7"); a new message continues without it]',
        ),
        (Unanswered(ShutdownReason.STOPPED), "[not answered yet: stopped; the message is saved]"),
    ],
)
def test_each_outcome_has_its_words(outcome: TurnOutcome, words: str) -> None:
    """Nothing ends without a word, except what went well."""
    assert words == outcome_text(outcome)


def test_a_failed_start_is_told_by_its_cause() -> None:
    """The person reads what the store said, and of which conversation."""
    error = StartFailed("42", "load")
    error.__cause__ = ModelFailed("it is damaged")

    assert error_text(error) == "it is damaged (while opening conversation '42')"
    assert error_text(KeyError()) == "KeyError"


def test_long_arguments_are_cut() -> None:
    """A call stays on its line."""
    assert len(call_text("f", {"x": "y" * 1_000})) < 250
    assert one_line("a\n  b") == "a b"


def test_text_cannot_steer_the_terminal() -> None:
    """Escape sequences of a model or a file become visible characters."""
    assert harmless("a\x1b[2Jb\x9bc\x07\r\n\té") == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c\N{REPLACEMENT CHARACTER}\n\té"


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8), st.data())
def test_any_mixture_of_deltas_and_snapshots_shows_the_text_once(texts: list[str], data: st.DataObject) -> None:
    """Whatever is repeated or missed, the screen ends with the whole answer."""
    whole = "".join(texts)
    view = TurnView()
    out = ""
    offset = 0
    for text in texts:
        match data.draw(st.sampled_from(["delta", "lost", "twice", "snapshot"])):
            case "delta":
                out += shown(
                    view, delta(whole[: offset + len(text)]) if data.draw(st.booleans()) else snapshot(whole[: offset + len(text)])
                )
            case "twice":
                out += shown(view, snapshot(whole[:offset]) if offset else snapshot(), delta(text, offset), delta(text, offset))
            case "snapshot":
                out += shown(view, snapshot(whole[: offset + len(text)]))
            case _:
                pass
        offset += len(text)
    out += shown(view, completed(whole))

    assert out in {whole, whole + "\n"}
