"""The transcript: how a message looks to people."""

from typing import Any

import pytest

from tests.unit.conversation.making import NOW, asking, call, shown
from trio_sagents.conversation.rows import TURN, call_row, call_row_id, rows_of
from trio_sagents.data.messages import FilePart, ImagePart, Message, OpaquePart, TextPart, ThinkingPart, ToolResult
from trio_sagents.data.reading import UNSENT

PICTURE = ImagePart("image/png", data="QUJD")
LINK = ImagePart("image/png", url="https://example.org/a.png")
SHEET = FilePart("a.pdf", "application/pdf", "QUJD")


def test_rows_when_a_part_is_empty() -> None:
    """A text or a thought without letters has no row, and neither has a part that only the provider can read."""
    empty = Message("a1", "assistant", (TextPart(""), ThinkingPart(""), OpaquePart("p", {}), TextPart("x")), "stop", "t")

    assert ["text"] == [row.content_type for row in rows_of(empty, NOW)]


def test_rows_when_a_message_has_every_kind_of_part() -> None:
    """Each visible part has one row, in order, with an id that the message and the place make; a call's id is of its turn."""
    answer = Message("a1", "assistant", (ThinkingPart("hm"), TextPart("so"), call("c1", amount=1)), "tool_calls", "t")
    question = Message("u1", "user", (TextPart("look"), PICTURE, LINK, SHEET))

    assert [
        ("m:a1:0", "assistant", "thinking", {"text": "hm"}, "completed"),
        ("m:a1:1", "assistant", "text", {"text": "so"}, "completed"),
        ("c:t:c1", "assistant", "tool_call", {"call_id": "c1", "name": "pay", "arguments": {"amount": 1}}, "executing"),
    ] == [(row.row_id, row.role, row.content_type, row.content, row.status) for row in rows_of(answer, NOW, "executing")]
    assert [
        ("m:u1:0", "text", {"text": "look"}),
        ("m:u1:1", "image", {"data": "QUJD", "mime_type": "image/png"}),
        ("m:u1:2", "image", {"url": "https://example.org/a.png"}),
        ("m:u1:3", "file_reference", {"name": "a.pdf", "mime_type": "application/pdf"}),
    ] == [(row.row_id, row.content_type, row.content) for row in rows_of(question, NOW)]
    assert {NOW} == {row.created_at for row in (*rows_of(answer, NOW), *rows_of(question, NOW))}


def test_rows_when_a_result_has_media() -> None:
    """People see a row for each image and file, after the row of the result, which it names."""
    message = Message("m", "tool", (ToolResult("1", "look", "seen", media=(PICTURE, LINK, SHEET)),), turn_id="t")

    assert [
        ("m:m:0", "tool_result", {"tool_call_id": "1", "name": "look", "content": "seen", "is_error": False}),
        ("m:m:1", "image", {"data": "QUJD", "mime_type": "image/png", "tool_call_id": "1"}),
        ("m:m:2", "image", {"url": "https://example.org/a.png", "tool_call_id": "1"}),
        ("m:m:3", "file_reference", {"name": "a.pdf", "mime_type": "application/pdf", "tool_call_id": "1"}),
    ] == [(row.row_id, row.content_type, row.content) for row in rows_of(message, NOW)]


@pytest.mark.parametrize("reason", ["length", "content_filtered", "cancelled", "stream_error", "crashed"])
def test_rows_when_an_answer_was_cut(reason: Any) -> None:
    """The last row of an answer that was cut says why; an answer without any visible part has one notification that says it."""
    said, silent = Message("a1", "assistant", (ThinkingPart("hm"), TextPart("so")), reason), Message("a2", "assistant", (), reason)

    assert [{"text": "hm"}, {"text": "so", "stop_reason": reason}] == [row.content for row in rows_of(said, NOW)]
    assert [("m:a2:0", "notification", "completed")] == shown(rows_of(silent, NOW))
    assert [("system", {"text": f"no answer: {reason}", "stop_reason": reason})] == [
        (row.role, row.content) for row in rows_of(silent, NOW)
    ]


def test_rows_when_nothing_was_cut_and_nothing_is_visible() -> None:
    """An empty answer that is not marked, and an empty one that the provider ended, have no rows."""
    assert [] == rows_of(Message("a", "assistant", ()), NOW) == rows_of(Message("a", "assistant", (), "stop"), NOW)


def test_call_row_when_the_call_changes() -> None:
    """The row of a call keeps its id while the call changes, and providers that repeat a call id in another turn get another row."""
    made = call("c1", amount=1)
    (first,) = rows_of(asking(made), NOW, "executing")
    later = call_row(made, asking(made), "completed", NOW)

    assert (first.row_id, first.message_id, first.content) == (later.row_id, later.message_id, later.content)
    assert ("executing", "completed") == (first.status, later.status)
    assert call_row_id("c1", "t") != call_row_id("c1", "t2")


@pytest.mark.parametrize(("status", "is_final"), [("pending", False), ("executing", False), ("interrupted", False), ("unknown", True)])
def test_rows_when_a_call_may_change(status: Any, *, is_final: bool) -> None:
    """The row of a call says whether it may still change; every other row is final. Each row names its turn."""
    made = call("c1")
    rows = [call_row(made, asking(made), status, NOW), *rows_of(asking(made), NOW, status)]

    assert [("t", is_final)] * 2 == [(row.turn_id, row.is_final) for row in rows]
    assert [True] == [row.is_final for row in rows_of(Message("u1", "user", (TextPart("x"),), None, "t"), NOW)]


def test_rows_when_a_turn_has_failed() -> None:
    """The last answer of a turn that failed has a row, after its other rows, that says why in words for people."""
    record = {"status": "failed", "error": {"kind": "limit", "text": "max_rounds is 5"}}
    said = Message("a1", "assistant", (TextPart("so"),), "stream_error", "t", {TURN: record})
    rows = rows_of(said, NOW)

    assert [("m:a1:0", "text", "completed"), ("m:a1:error", "error", "failed")] == shown(rows)
    assert {"kind": "limit", "text": "This turn reached a limit: max_rounds is 5"} == rows[1].content
    assert [("m:a1:error", "error", "failed")] == shown(rows_of(Message("a1", "assistant", (), "stream_error", "t", {TURN: record}), NOW))


def test_rows_when_the_provider_refused_a_message() -> None:
    """The row of an answer that marks refused messages says that they are not sent any more, and which they are."""
    silent = Message("a1", "assistant", (), "stream_error", "t", {UNSENT: ["u1"]})
    (row,) = rows_of(silent, NOW)

    assert ["u1"] == row.content[UNSENT]
    assert "not sent to the model any more" in row.content["text"]
