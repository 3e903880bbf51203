"""A history as a text, for the model that sums it up."""

import json
from collections.abc import Sequence
from typing import Final

from trio_sagents.data.estimates import estimate_tokens
from trio_sagents.data.messages import FilePart, ImagePart, Message, OpaquePart, Part, TextPart, ThinkingPart, ToolCall, ToolResult
from trio_sagents.data.reading import cut_places

__all__ = ("MAX_PART", "as_text", "cut_places", "estimate_tokens")

MAX_PART: Final = 20_000
"""How many characters of one part are told; of a longer part, the beginning and the end."""


def as_text(messages: Sequence[Message], *, max_part: int = MAX_PART) -> str:
    """Return the messages as a transcript; thinking is left out, and long parts lose their middle."""
    lines: list[str] = []
    for message in messages:
        said = "\n".join(text for part in message.parts if (text := _part_text(part, max_part)))
        if said:
            who = {"user": "Person", "assistant": "Assistant", "tool": "Tool", "system": "Instructions"}[message.role]
            lines.append(f"{who}: {said}")
    return "\n\n".join(lines)


def _part_text(part: Part, most: int) -> str:
    match part:
        case TextPart(text=text):
            return _shortened(text, most)
        case ThinkingPart() | OpaquePart():
            return ""
        case ImagePart(media_type=media_type):
            return f"[an image, {media_type}]"
        case FilePart(name=name):
            return f"[the file {name!r}]"
        case ToolCall():
            return f"[calls {part.name} with {_shortened(json.dumps(part.arguments, ensure_ascii=False, default=dict), most)}]"
        case ToolResult():
            media = [_part_text(item, most) for item in part.media]
            return " ".join([f"[{part.name}, {part.status}] {_shortened(part.content, most)}", *media])


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
