"""Images and files in a tool result: as values, on the wire, in rows, and where there is no room for them."""

import datetime
from typing import Any

import pytest

from trio_sagents import FilePart, ImagePart, Message, StateError, TextPart, ToolResultPart
from trio_sagents.data.json import plain_json
from trio_sagents.data.rows import rows_of
from trio_sagents.data.wire import decode_message, encode_message
from trio_sagents.supervisor._ledger_checks import cut_to

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
PICTURE = ImagePart("image/png", data="QUJD")
LINK = ImagePart("image/png", url="https://example.org/a.png")
SHEET = FilePart("a.pdf", "application/pdf", "QUJD")


def message(*media: Any, content: str = "seen") -> Message:
    """Return the message of one result with these media."""
    return Message("m", "tool", (ToolResultPart("1", "look", content, media=media),), turn_id="t")


def test_result_when_it_has_media() -> None:
    """What is stored comes back as it was, media in order."""
    kept = message(PICTURE, LINK, SHEET)

    assert kept == decode_message("c", plain_json(encode_message(kept)))
    assert (PICTURE, LINK, SHEET) == kept.results[0].media


def test_result_when_it_has_no_media() -> None:
    """A result without media is stored as it was before results could hold media, and such an old record loads."""
    part = {"type": "tool_result", "call_id": "1", "name": "look", "content": "seen", "status": "completed"}
    record = {"v": 1, "message_id": "m", "role": "tool", "parts": [part], "turn_id": "t"}

    assert record == encode_message(message())
    assert message() == decode_message("c", record)


@pytest.mark.parametrize(
    "media",
    [
        "QUJD",
        [{"type": "text", "text": "x"}],
        [{"type": "tool_result", "call_id": "1", "name": "look", "content": "seen"}],
        [{"type": "image", "media_type": "image/png"}],
        [{"type": "image", "media_type": "image/png", "data": 5}],
        [{"type": "file", "name": "a", "media_type": "b", "data": "c", "more": 1}],
        [None],
    ],
)
def test_result_when_stored_media_are_wrong(media: Any) -> None:
    """Stored media are read strictly: what is not an image or a file is a StateError."""
    record = plain_json(encode_message(message()))
    record["parts"][0]["media"] = media

    with pytest.raises(StateError):
        decode_message("c", record)


@pytest.mark.parametrize(
    ("media", "error"), [((TextPart("x"),), TypeError), (("QUJD",), TypeError), ((ImagePart("image/png"),), ValueError), (5, TypeError)]
)
def test_result_when_media_are_wrong(media: Any, error: type[Exception]) -> None:
    """What is not an image or a file is refused when the result is made."""
    with pytest.raises(error):
        ToolResultPart("1", "look", "seen", media=media)


def test_rows_when_a_result_has_media() -> None:
    """People see a row for each image and file, after the row of the result, which it names."""
    rows = rows_of(message(PICTURE, LINK, SHEET), NOON)

    assert [
        ("m:m:0", "tool_result", {"tool_call_id": "1", "name": "look", "content": "seen", "is_error": False}),
        ("m:m:1", "image", {"data": "QUJD", "mime_type": "image/png", "tool_call_id": "1"}),
        ("m:m:2", "image", {"url": "https://example.org/a.png", "tool_call_id": "1"}),
        ("m:m:3", "file_reference", {"name": "a.pdf", "mime_type": "application/pdf", "tool_call_id": "1"}),
    ] == [(row.row_id, row.content_type, row.content) for row in rows]


def test_media_when_there_is_no_room() -> None:
    """Where a conversation has no room for a result, its media go first, and the text says so."""
    cut = cut_to(message(ImagePart("image/png", data="A" * 5000)), 1000)

    assert message(content="seen\n[left out: 1 images or files; the conversation has no room for them]") == cut
