"""Messages in the form of the GenAI conventions."""

import json

from trio_sagents.data.messages import FilePart, ImagePart, Message, TextPart, ThinkingPart, ToolCall, ToolResult
from trio_sagents.otel._contents import MAX_CONTENT, messages_json, value_json


def test_messages_when_of_all_parts() -> None:
    """Each part has the type that the conventions give it; data of images and files is left out."""
    parts = (
        TextPart("a"),
        ThinkingPart("b", "seal"),
        ToolCall("c-1", "add", {"a": 1}),
        ToolResult("c-1", "add", "2"),
        ImagePart("image/png", data="AAAA"),
        FilePart("x.txt", "text/plain", "AAAA"),
    )
    (message,) = json.loads(messages_json([Message("m-1", "assistant", parts, "stop", "t-1")]))

    assert {
        "role": "assistant",
        "finish_reason": "stop",
        "parts": [
            {"type": "text", "content": "a"},
            {"type": "reasoning", "content": "b"},
            {"type": "tool_call", "id": "c-1", "name": "add", "arguments": {"a": 1}},
            {"type": "tool_call_response", "id": "c-1", "response": "2"},
            {"type": "image", "media_type": "image/png"},
            {"type": "file", "media_type": "text/plain", "name": "x.txt"},
        ],
    } == message


def test_value_when_long() -> None:
    """An attribute has a size."""
    assert MAX_CONTENT == len(value_json("x" * MAX_CONTENT))
