"""What the screen shows of events: sub-agents, todos, voided answers, and lines that are drawn again."""

import contextlib
import fcntl
import io
import os
import pty
import struct
import termios
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from trio_sagents import (
    CancelCause,
    Cancelled,
    ModelFailed,
    ModelFallback,
    ModelRetrying,
    SubAgentEvent,
    TextDelta,
    Todo,
    TodosUpdated,
    ToolCall,
    ToolExecutionUpdated,
    TurnEnded,
    Usage,
)
from trio_sagents.cli._progress import Progress
from trio_sagents.cli._render import TurnView
from trio_sagents.cli._screen import Screen, plain_paint
from trio_sagents.cli._words import Piece
from trio_sagents.files import FileChangesLost, FileDeleted, FileMoved, FileSaved, FileSaveFailed, FileUpdated
from trio_sagents.middleware import SummaryFailed, TitleGenerated
from trio_sagents.middleware.files import FilesChanged

TASK = ToolCall("k", "task", {"instructions": "count to three", "name": "helper"})


def text_of(pieces: Iterable[Piece]) -> str:
    """Return the text on the screen."""
    return "".join(piece.text for piece in pieces)


def shown(view: TurnView, *events: Any) -> str:
    """Return what a view prints for some events."""
    return "".join(text_of(view.show_debug(event) if isinstance(event, SubAgentEvent) else view.show(event)) for event in events)


def did(**data: Any) -> SubAgentEvent:
    """Return what a sub-agent told."""
    return SubAgentEvent("k", "helper", data)


def says(text: str, message_id: str = "m", offset: int = 0) -> TextDelta:
    """Return a piece of an answer."""
    return TextDelta(text, message_id, 0, offset, "t")


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (ModelRetrying(ModelFailed("overloaded"), "large", 2, 2.0, "m", "t"), "[large failed: overloaded; retrying in 2 s]"),
        (ModelFallback(ModelFailed("gone"), "large", "small", "m", "t"), "[large failed: gone; small is asked]"),
    ],
)
def test_a_voided_answer_is_told_from_the_one_that_counts(event: Any, line: str) -> None:
    """The line ends, the failure is told, and the new answer is shown from its first character."""
    view = TurnView()

    assert f"Hel\n{line}\nHello" == shown(view, says("Hel"), event, says("Hello", "m2"))
    assert shown(TurnView(), says("Hel"), event, says("Hello")) == f"Hel\n{line}\nHello"


def test_a_line_that_comes_in_the_middle_of_an_answer_waits_for_its_end() -> None:
    """A title is not put between two words."""
    view = TurnView()

    assert shown(view, says("Hel"), TitleGenerated("T"), says("lo", offset=3)) == "Hello"
    assert shown(view, TurnEnded("t", Cancelled(CancelCause.USER))) == "\n[title: T]\n[cancelled]\n"
    assert view.title == "T"


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (FilesChanged(FileUpdated("/a")), "  · /a changed\n"),
        (FilesChanged(FileDeleted("/a")), "  · /a is gone\n"),
        (FilesChanged(FileMoved("/a", "/b")), "  · /a is now /b\n"),
        (FilesChanged(FileSaveFailed("/a", 1, 2.0)), "  · /a could not be saved; retrying in 2 s\n"),
        (FilesChanged(FileChangesLost(3)), "  · 3 more changes of files\n"),
        (FilesChanged(FileSaved("/a")), ""),
    ],
)
def test_news_of_the_middleware_are_lines(event: Any, text: str) -> None:
    """What needs no word has none."""
    assert text == shown(TurnView(), event)


def test_a_summary_that_failed_is_told() -> None:
    """With its reason, and what that means."""
    text = shown(TurnView(), SummaryFailed("t", ModelFailed("too busy"), Usage()))

    assert text == "[no summary: too busy; the model reads the whole conversation]\n"


def test_a_sub_agent_is_lines_where_nothing_can_be_drawn_again() -> None:
    """There is a line for its begin, each step and its end. Its text is shown only as the result."""
    text = shown(
        TurnView(),
        ToolExecutionUpdated(TASK, "executing", "t"),
        did(type="SubAgentStarted", prompt="count to three"),
        did(type="ToolExecutionUpdated", status="executing", call={"name": "calculate", "arguments": {"expression": "1+1"}}),
        did(type="ToolExecutionUpdated", status="completed", call={"name": "calculate", "arguments": {}}),
        did(type="TextDelta", text="one "),
        did(type="SubAgentCompleted", text="one two three"),
        ToolExecutionUpdated(TASK, "completed", "t", "one two three"),
        did(type="ToolExecutionUpdated", status="executing", call={"name": "late", "arguments": {}}),
    )

    assert text == (
        "  · sub-agent helper begins: count to three\n"
        '  » helper (count to three): calculate(expression="1+1")\n'
        "  · sub-agent helper completed: one two three\n"
    )


def test_sub_agents_are_one_line_each_where_it_can_be_drawn_again() -> None:
    """The line says what each does now, and is gone when it has ended, also where its last events come late."""
    view = TurnView(progress=Progress(is_live=True))
    seen = []
    for event in (
        ToolExecutionUpdated(TASK, "executing", "t"),
        did(type="ToolExecutionUpdated", status="executing", call={"name": "calculate", "arguments": {}}),
        did(type="TextDelta", text="one\n"),
        did(type="TextDelta", text="two"),
        did(type="SubAgentInterrupted"),
        did(type="SubAgentResumed"),
        ToolExecutionUpdated(TASK, "failed", "t", None, "no"),
        did(type="TextDelta", text="late"),
    ):
        shown(view, event)
        seen.append([piece.text.partition(": ")[2] for piece in view.live])

    assert [["begins"], ["calculate()"], ["“one”"], ["“one two”"], ["waits for you"], ["continues"], [], []] == seen


def test_todos_are_drawn_again_and_stay_when_the_answer_begins() -> None:
    """Several changes leave one list, and a turn without a change leaves none."""
    view = TurnView(progress=Progress(is_live=True))
    first = shown(view, TodosUpdated([Todo(1, "milk")]), TodosUpdated([Todo(1, "milk", "in_progress")]))
    live = text_of(view.live)
    then = shown(view, says("Hello"))

    assert (first, live, then) == ("", "  [~] 1. milk", "  [~] 1. milk\nHello")
    assert list(view.live) == []
    assert shown(view, TurnEnded("t", Cancelled(CancelCause.USER))) == "\n[cancelled]\n"
    assert shown(view, TodosUpdated([]), TurnEnded("t2", Cancelled(CancelCause.USER))) == "[cancelled]\n  [todos: nothing is left to do]\n"


def test_calls_whose_effect_is_shown_have_no_line() -> None:
    """The list of todos says what `write_todos` did; that it failed is said."""
    call = ToolCall("w", "write_todos", {})

    assert shown(TurnView(), ToolExecutionUpdated(call, "executing", "t"), ToolExecutionUpdated(call, "completed", "t", "ok")) == ""
    assert shown(TurnView(), ToolExecutionUpdated(call, "failed", "t", None, "no")) == "  · write_todos failed: no\n"


@contextlib.contextmanager
def terminal() -> Iterator[Screen]:
    """A screen on a terminal, 20 columns wide."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    try:
        with io.TextIOWrapper(io.FileIO(writer, "w"), write_through=True) as stream:
            yield Screen(stream, plain_paint)
    finally:
        os.close(reader)


def test_lines_below_the_text_are_taken_away_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows as were drawn, each no wider than the screen; the same lines are not drawn twice."""
    monkeypatch.setenv("TERM", "xterm")
    live = [Piece("  one", "tool"), Piece("x" * 30 + "\n", "tool")]

    with terminal() as screen:
        assert screen.encoded([Piece("hi\n", "note")], live[:1]) == b"hi\n  one\n"
        assert screen.encoded([], live[:1]) == b""
        assert screen.encoded([], live).decode() == f"\x1b[1A\x1b[J  one\n{'x' * 18}…\n"
        assert screen.encoded([Piece("bye\n", "note")]).decode() == "\x1b[2A\x1b[Jbye\n"
        assert screen.encoded([Piece("x\n", "note")], [Piece("日本語" * 5, "tool")]).decode() == "x\n日本語日本語日本…\n"


def test_nothing_is_drawn_again_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dumb terminal cannot remove a line."""
    monkeypatch.setenv("TERM", "dumb")

    with terminal() as screen:
        assert not screen.can_redraw
        assert screen.encoded([Piece("hi\n", "note")], [Piece("one", "tool")]) == b"hi\n"
