"""The rules of a page, on plain values: what each event changes, how rows are merged, and when the history has to be read."""

import datetime
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents import PageView
from trio_sagents.data.cursors import Cursor
from trio_sagents.data.events import (
    AgentShutdown,
    ChainError,
    DisplayMessageSaved,
    DisplayMessageUpdated,
    Envelope,
    Event,
    Gap,
    MessageCompleted,
    MessageQueued,
    ModelFallback,
    ModelRetrying,
    Snapshot,
    StatusChanged,
    StreamingMessage,
    TextDelta,
    ThinkingDelta,
    TodosUpdated,
    ToolCallIdentified,
    ToolExecutionUpdated,
    TurnEnded,
    TurnStarted,
)
from trio_sagents.data.messages import ImagePart, Message, TextPart, ThinkingPart, ToolCall, ToolResult
from trio_sagents.data.outcomes import Failed
from trio_sagents.data.records import DisplayMessage, HistoryPage
from trio_sagents.data.status import ShutdownReason, Status
from trio_sagents.data.todos import Todo

NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
CALL = ToolCall("c1", "pay", {"amount": 1})
SPOKEN = StreamingMessage("m1", (TextPart("ab"),))


def envelope(event: Event, seq: int = 1, incarnation: str = "i", channel: Any = "main", first: int | None = None) -> Envelope:
    return Envelope("a", "c", channel, seq if first is None else first, seq, event, incarnation)


def snapshot(seq: int = 0, **fields: Any) -> Envelope:
    picture = Snapshot(Status.RUNNING, None, (), None, (), 0, Cursor("i", "main", seq), None)
    return envelope(attrs.evolve(picture, **fields), seq)


def row(row_id: str, text: str = "", status: Any = "completed", message_id: str = "m") -> DisplayMessage:
    return DisplayMessage(row_id, message_id, "assistant", "text", {"text": text}, status, NOW)


def view(*events: Event, **fields: Any) -> PageView:
    """Return a view that began with a snapshot of these fields, read an empty history, and applied some events."""
    made = PageView()
    made.begin(snapshot(**fields))
    made.read(HistoryPage(()))
    made.take_change()
    made.apply([envelope(event, seq) for seq, event in enumerate(events, 1)])
    return made


def delta(text: str, offset: int, message_id: str = "m1", part: int = 0) -> TextDelta:
    return TextDelta(text, message_id, part, offset, "t")


def spoken(made: PageView) -> list[str] | None:
    message = made.present.streaming
    return None if message is None else [part.text for part in message.parts]  # type: ignore[union-attr]  # texts


def test_streaming_when_pieces_come() -> None:
    """Text and thinking grow part by part; another message takes the place of the one before."""
    made = view(ThinkingDelta("hm", "m1", 0, 0, "t"), delta("a", 0, part=1), delta("b", 1, part=1))
    assert StreamingMessage("m1", (ThinkingPart("hm"), TextPart("ab"))) == made.present.streaming
    made.apply([envelope(delta("x", 0, "m2"), 4)])

    assert StreamingMessage("m2", (TextPart("x"),)) == made.present.streaming


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 10)), max_size=20))
def test_streaming_when_pieces_come_again(cuts: list[tuple[int, int]]) -> None:
    """A piece that overlaps what is there, or repeats it, changes nothing that is there; a piece behind a hole shows nothing."""
    whole = "abcdefghij" * 2
    made = view()
    size = 0
    for start, length in cuts:
        made.apply([envelope(delta(whole[start : start + length], start))])
        if start > size:
            assert spoken(made) is None
            return
        size = max(size, start + length)
        assert [whole[:size]] == spoken(made)


def test_streaming_when_a_snapshot_shows_it() -> None:
    """The text goes on where the snapshot has it, with parts that are not text in between."""
    made = view(delta("c", 2), streaming=SPOKEN)
    assert ["abc"] == spoken(made)
    picture = ImagePart("image/png", url="https://example.org/a.png")

    assert ["ab"] == spoken(view(streaming=StreamingMessage("m1", (picture, TextPart("ab")))))


@pytest.mark.parametrize(
    "event",
    [
        MessageCompleted(Message("m1", "assistant", (TextPart("ab"),), "stop", "t"), "t"),
        ModelRetrying(OSError(), "model", 2, 1.0, "m1", "t"),
        ModelFallback(OSError(), "model", "other", "m1", "t"),
        TurnStarted("t"),
        TurnEnded("t", Failed(OSError())),
        ChainError(OSError(), unsaved=True),
        Gap(1, 5),
        AgentShutdown(ShutdownReason.STOPPED, Status.IDLE, 0, False, NOW, NOW),
        Snapshot(Status.IDLE, None, (), None, (), 0, Cursor("i", "main", 1)),
    ],
    ids=lambda event: type(event).__name__,
)
def test_streaming_when_it_ends(event: Event) -> None:
    """What was streamed goes when it is complete, void or cut; the change says so once."""
    made = view(event, streaming=SPOKEN)
    change = made.take_change()
    assert change is not None

    assert made.present.streaming is None
    assert "streaming" in change.parts
    made.apply([envelope(TurnStarted("t2"), 2)])
    change = made.take_change()
    assert change is not None
    assert "streaming" not in change.parts


@pytest.mark.parametrize(
    "event",
    [
        MessageCompleted(Message("m9", "assistant", (TextPart("ab"),), "stop", "t"), "t"),
        ModelRetrying(OSError(), "model", 2, 1.0, "m9", "t"),
        ChainError(OSError()),
    ],
    ids=lambda event: type(event).__name__,
)
def test_streaming_when_something_else_ends(event: Event) -> None:
    """An event about another message leaves it."""
    assert ["ab"] == spoken(view(event, streaming=SPOKEN))


def calls(made: PageView) -> list[tuple[str, str, Any]]:
    return [(call.call_id, call.status, call.arguments) for call in made.present.tool_calls]


def test_tool_calls_in_their_life() -> None:
    """A call is shown when it is identified, with its arguments when they are there, with its status, and no more when it has ended."""
    made = view(ToolCallIdentified(attrs.evolve(CALL, arguments={}), "m1", "t"))
    assert [("c1", "pending", {})] == calls(made)
    made.apply([envelope(MessageCompleted(Message("m1", "assistant", (CALL,), "tool_calls", "t"), "t"), 2)])
    assert [("c1", "pending", {"amount": 1})] == calls(made)
    made.apply([envelope(ToolExecutionUpdated(CALL, "executing", "t"), 3)])
    assert [("c1", "executing", {"amount": 1})] == calls(made)
    made.apply([envelope(MessageCompleted(Message("m1", "assistant", (CALL,), "tool_calls", "t"), "t"), 4)])
    assert [("c1", "executing", {"amount": 1})] == calls(made)
    made.apply([envelope(ToolExecutionUpdated(CALL, "completed", "t", "paid"), 5)])

    assert [] == calls(made)


@pytest.mark.parametrize(
    "event",
    [
        MessageCompleted(Message("m2", "tool", (ToolResult("c1", "pay", "cut", "cancelled"),), None, "t"), "t"),
        TurnEnded("t", Failed(OSError())),
        AgentShutdown(ShutdownReason.STOPPED, Status.IDLE, 0, False, NOW, NOW),
    ],
    ids=lambda event: type(event).__name__,
)
def test_tool_calls_when_they_are_closed(event: Event) -> None:
    """A call goes with its result, with its turn, and with its agent."""
    assert [] == calls(view(event, tool_calls=(CALL,)))


def test_tool_calls_when_their_message_is_void() -> None:
    """The calls that a void message asked for are forgotten, those of the history are not."""
    other = ToolCall("c2", "pay", {})
    made = view(ToolCallIdentified(other, "m1", "t"), ModelRetrying(OSError(), "model", 2, 1.0, "m1", "t"), tool_calls=(CALL,))

    assert ["c1"] == [call.call_id for call in made.present.tool_calls]


def test_status_when_it_changes() -> None:
    """The status, its error, and whether the agent is up follow the events."""
    made = view(StatusChanged(Status.ERROR, "the model failed", "t"))
    assert (Status.ERROR, "the model failed", True) == (made.present.status, made.present.error, made.present.is_up)
    made.apply([envelope(AgentShutdown(ShutdownReason.STOPPED, Status.ERROR, 3, False, NOW, NOW), 2)])
    assert (Status.ERROR, "the model failed", False, 3) == (
        made.present.status,
        made.present.error,
        made.present.is_up,
        made.present.queued,
    )
    made.apply([attrs.evolve(snapshot(queued=3), incarnation="j")])

    assert (Status.RUNNING, None, True) == (made.present.status, made.present.error, made.present.is_up)


def test_queue_and_todos() -> None:
    """Messages count from when they are accepted until a turn takes them; the todos are those of the last event."""
    user = Message("u1", "user", (TextPart("hi"),))
    made = view(MessageQueued(user), TodosUpdated((Todo(1, "work"),)))
    assert (1, (Todo(1, "work"),)) == (made.present.queued, made.present.todos)
    made.apply([envelope(MessageCompleted(user, "t"), 3), envelope(MessageCompleted(user, "t"), 4)])

    assert 0 == made.present.queued


def test_rows_when_they_are_merged() -> None:
    """A new row comes at the end, a known one is replaced in its place; the change has both as they are now, in the order of the page."""
    made = view()
    made.read(HistoryPage((row("a"), row("b")), "older"))
    made.take_change()
    events = DisplayMessageSaved(row("c")), DisplayMessageUpdated(row("a", "new")), DisplayMessageUpdated(row("c", "x"))
    made.apply([envelope(event) for event in events])
    change = made.take_change()
    assert change is not None

    assert (row("a", "new"), row("b"), row("c", "x")) == made.rows
    assert ((row("a", "new"), row("c", "x")), False, frozenset({"rows"})) == (change.rows, change.replaces_rows, change.parts)
    assert made.take_change() is None


def test_rows_when_their_events_are_older_than_the_history() -> None:
    """The rows are in the order in which they were saved, also if only the last of them was read; what was read is as new as it was."""
    made = view()
    made.read(HistoryPage((row("b", "new"), row("c")), "older"))
    made.take_change()
    made.apply([envelope(DisplayMessageSaved(row(row_id))) for row_id in "ab"])
    assert [row("c"), row("a"), row("b", "new")] == list(made.rows)
    made.apply([envelope(DisplayMessageSaved(row(row_id))) for row_id in "cd"])
    change = made.take_change()
    assert change is not None

    assert (row("a"), row("b", "new"), row("c"), row("d")) == made.rows == change.rows
    assert change.replaces_rows
    assert ((row("z"),), "oldest") == (made.read_older(HistoryPage((row("z"), row("a")), "oldest")), made.before)
    made.apply([envelope(DisplayMessageSaved(row("e")))])
    change = made.take_change()
    assert change is not None

    assert ((row("e"),), False) == (change.rows, change.replaces_rows)
    assert ["z", "a", "b", "c", "d", "e"] == [shown.row_id for shown in made.rows]


def test_rows_when_the_history_has_all_that_their_events_tell() -> None:
    """Rows that were read and then told of are where they were: nobody has to draw all rows again."""
    made = view()
    made.read(HistoryPage((row("a"), row("b"), row("c")), "older"))
    made.take_change()
    made.apply([envelope(DisplayMessageSaved(row(row_id))) for row_id in "bc"])
    change = made.take_change()
    assert change is not None

    assert ((row("b"), row("c")), False) == (change.rows, change.replaces_rows)
    assert (row("a"), row("b"), row("c")) == made.rows


def test_rows_when_one_that_was_not_read_changes() -> None:
    """An older row that is not on the page is left to who reads it; where the page has all rows, it is a row of its own."""
    made = view(DisplayMessageUpdated(row("z")))
    assert (row("z"),) == made.rows
    made.read(HistoryPage((row("a"),), "older"))
    made.apply([envelope(DisplayMessageUpdated(row("y")))])

    assert (row("a"),) == made.rows


def test_rows_when_older_ones_are_read() -> None:
    """Older rows come before the others, each once; what is there is as new as it was."""
    made = view()
    made.read(HistoryPage((row("b", "new"),), "1"))
    generation = made.generation
    new = made.read_older(HistoryPage((row("a"), row("b", "old")), None))

    assert ((row("a"),), (row("a"), row("b", "new")), None) == (new, made.rows, made.before)
    assert generation != made.generation


@pytest.mark.parametrize(
    ("event", "is_needed"),
    [
        (Gap(1, 5), True),
        (Snapshot(Status.IDLE, None, (), None, (), 0, Cursor("i", "main", 1)), True),
        (MessageQueued(Message("u1", "user", (TextPart("hi"),))), True),
        (MessageCompleted(Message("m1", "assistant", (TextPart("hi"),), "stop", "t"), "t"), True),
        (MessageCompleted(Message("m1", "assistant", (), "stop", "t"), "t"), False),
        (StatusChanged(Status.IDLE), False),
        (DisplayMessageSaved(row("a")), False),
    ],
    ids=["gap", "snapshot", "queued without a row", "completed without a row", "completed, nothing to show", "status", "row"],
)
def test_history_when_it_is_needed(event: Event, is_needed: bool) -> None:
    """The history is needed where a row may be missing of which no event tells."""
    made = view(event)
    assert is_needed == made.needs_history
    made.read(HistoryPage(()))

    assert not made.needs_history


def test_history_when_the_rows_were_told() -> None:
    """A message whose row came with it, or before it, needs no history."""
    made = view(
        DisplayMessageSaved(row("m:m1:0", message_id="m1")), MessageCompleted(Message("m1", "assistant", (TextPart("x"),), "stop"), "t")
    )

    assert not made.needs_history


def test_history_at_the_beginning() -> None:
    """A new view needs the history, with and without a picture to begin with."""
    made = PageView()
    assert made.needs_history
    made.begin(snapshot())
    assert made.needs_history
    made.read(HistoryPage(()))

    assert not made.needs_history


def test_events_that_are_in_the_picture() -> None:
    """Events from before the picture change nothing here; the rows that they tell of are in the change, as the history has them."""
    made = PageView()
    made.begin(snapshot(5, streaming=SPOKEN))
    made.read(HistoryPage((row("a", "new"),)))
    made.take_change()
    earlier = [StatusChanged(Status.IDLE), DisplayMessageSaved(row("a", "old")), DisplayMessageUpdated(row("z")), delta("a", 0)]
    made.apply([envelope(event, seq) for seq, event in enumerate(earlier, 2)])
    change = made.take_change()
    assert change is not None

    assert ((row("a", "new"),), frozenset({"rows"}), 4) == (change.rows, change.parts, len(change.events))
    assert (Status.RUNNING, ["ab"]) == (made.present.status, spoken(made))
    assert not made.needs_history
    made.apply([envelope(delta("bc", 1), 7, first=5)])  # joined over the picture
    assert ["abc"] == spoken(made)


@pytest.mark.parametrize(
    ("event", "is_needed"),
    [
        (Gap(1, 5), True),
        (Snapshot(Status.IDLE, None, (), None, (), 0, Cursor("i", "main", 1), Cursor("h", "main", 9)), True),
        (Snapshot(Status.IDLE, None, (), None, (), 0, Cursor("i", "main", 1)), False),
    ],
    ids=["gap", "another agent", "first snapshot"],
)
def test_history_when_who_draws_has_missed_something(event: Event, is_needed: bool) -> None:
    """What is missing before the picture is missing for who draws, if they had seen something before."""
    made = PageView()
    made.begin(snapshot(5))
    made.read(HistoryPage(()))
    made.apply([envelope(event, 5)])

    assert is_needed == made.needs_history


def test_events_of_other_channels() -> None:
    """They are passed on, and change nothing."""
    made = view()
    made.apply([envelope(StatusChanged(Status.ERROR, "x"), channel="debug")])
    change = made.take_change()
    assert change is not None

    assert ((), frozenset(), 1) == (change.rows, change.parts, len(change.events))
    assert Status.RUNNING is made.present.status
    assert made.cursor is None
