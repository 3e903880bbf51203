"""Messages and values, as the JSON texts of the GenAI conventions. For hosts that have opted in."""

import json
from collections.abc import Sequence
from typing import Final

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import FilePart, ImagePart, Message, OpaquePart, Part, TextPart, ThinkingPart, ToolCall, ToolResult

MAX_CONTENT: Final = 64 * 1024
"""How many characters an attribute may have; a longer text is cut, and is not JSON any more."""


def messages_json(messages: Sequence[Message]) -> str:
    """Return messages in the form of the conventions: {"role", "parts"}. The data of images and files are left out."""
    return _text([_message(message) for message in messages])


def system_json(system: str) -> str:
    """Return a system prompt in the form of the conventions."""
    return _text([{"type": "text", "content": system}])


def value_json(value: JSONValue) -> str:
    """Return a JSON value as its text."""
    return _text(value)


def _text(value: JSONValue) -> str:
    return json.dumps(value, ensure_ascii=False)[:MAX_CONTENT]


def _message(message: Message) -> JSON:
    found: dict[str, JSONValue] = {"role": message.role, "parts": [_part(part) for part in message.parts]}
    if message.stop_reason is not None:
        found["finish_reason"] = message.stop_reason
    return found


def _part(part: Part) -> JSON:
    match part:
        case TextPart(text=text):
            return {"type": "text", "content": text}
        case ThinkingPart(text=text):
            return {"type": "reasoning", "content": text}
        case OpaquePart(provider=provider):
            return {"type": "opaque", "provider": provider}
        case ToolCall():
            return {"type": "tool_call", "id": part.call_id, "name": part.name, "arguments": part.arguments}
        case ToolResult():
            return {"type": "tool_call_response", "id": part.call_id, "response": part.content}
        case ImagePart():
            return {"type": "image", "media_type": part.media_type}
        case FilePart():
            return {"type": "file", "media_type": part.media_type, "name": part.name}
