"""Images and files in a tool result: as values, and as stored records."""

from typing import Any

import pytest

from trio_sagents import FilePart, ImagePart, Message, StateError, TextPart, ToolResultPart
from trio_sagents.data.json import plain_json
from trio_sagents.data.wire import decode_message, encode_message

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
