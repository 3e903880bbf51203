"""The stored form of parts: strict, and old messages load as they did."""

from typing import Any

import pytest

from trio_sagents.data.messages import Message, OpaquePart, TextPart, ThinkingPart, ToolCall
from trio_sagents.data.wire import decode_message, dumps, encode_message, loads
from trio_sagents.exceptions import StateError

SEAL = OpaquePart("p", {"b": [1, 2.5, None, {"ä": "\u2028"}], "a": True})
PARTS = (
    ThinkingPart("Hm", "sig", "p", "reasoning_content"),
    SEAL,
    TextPart("I look."),
    ToolCall("c", "f", {"x": 1}, opaque=SEAL),
)


def stored(*parts: Any) -> dict[str, Any]:
    """Return the record of an answer with these parts."""
    return {"v": 1, "message_id": "m", "role": "assistant", "parts": list(parts), "stop_reason": "stop"}


def test_parts_when_stored_and_loaded() -> None:
    """An answer comes back as it was, with all that only its provider can read, byte for byte."""
    message = Message("m", "assistant", PARTS, "tool_calls", "t")
    text = dumps(encode_message(message))
    found = decode_message("c", loads("c", text))

    assert message == found
    assert SEAL.data == found.parts[1].data  # type: ignore[union-attr]  # it is the seal
    assert dumps(encode_message(found)) == text


def test_parts_when_an_earlier_release_stored_them() -> None:
    """What was stored before parts had providers loads, and is stored as it was."""
    old = stored(
        {"type": "thinking", "text": "Hm", "signature": "sig"},
        {"type": "thinking", "text": "", "signature": "redacted_thinking:AAAA"},
        {"type": "tool_call", "call_id": "a", "name": "f", "arguments": {}, "status": "pending"},
    )
    found = decode_message("c", old)

    assert (ThinkingPart("Hm", "sig"), ThinkingPart("", "redacted_thinking:AAAA"), ToolCall("a", "f")) == found.parts
    assert old == encode_message(found)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "opaque", "provider": "p"},
        {"type": "opaque", "data": {}},
        {"type": "opaque", "provider": 1, "data": {}},
        {"type": "opaque", "provider": "p", "data": []},
        {"type": "opaque", "provider": "p", "data": {}, "more": 1},
        {"type": "thinking", "text": "x", "provider": 1},
        {"type": "tool_call", "call_id": "a", "name": "f", "arguments": {}, "status": "pending", "opaque": {"provider": "p"}},
        {"type": "tool_call", "call_id": "a", "name": "f", "arguments": {}, "status": "pending", "opaque": "seal"},
    ],
)
def test_parts_when_the_record_is_damaged(part: dict[str, Any]) -> None:
    """A record that is not one of ours is refused."""
    with pytest.raises(StateError):
        decode_message("c", stored(part))


def test_opaque_part_when_its_data_are_no_object() -> None:
    """An adapter that hands out something else is told at once; what it keeps is copied."""
    with pytest.raises(TypeError, match="opaque part"):
        OpaquePart("p", ["x"])  # type: ignore[arg-type]  # what an adapter may do
    data: dict[str, Any] = {"x": [1]}
    part = OpaquePart("p", data)
    data["x"].append(2)

    assert {"x": [1]} == part.data
