"""A history as text, and the places where it may be cut."""

import json
from collections.abc import Sequence
from typing import Final

from trio_sagents.data.messages import FilePart, ImagePart, Message, OpaquePart, Part, TextPart, ThinkingPart, ToolCall, ToolResult

MAX_PART: Final = 20_000
"""Characters of one part that are told; of a longer one the beginning and the end."""


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=dict)


def cut_places(messages: Sequence[Message], start: int, end: int) -> Sequence[int]:
    """Return where the history may be cut: places behind `start`, up to `end`, none of them between a call and its results.

    Args:
        messages: oldest first.
        start: the place of the first message that is cut off.
        end: the last place that is wanted.
    """
    places: list[int] = []
    opened: set[str] = set()
    for place in range(start, min(end, len(messages) - 1) + 1):
        if place > start and not opened and messages[place].role != "tool":
            places.append(place)
        opened.update(call.call_id for call in messages[place].calls)
        opened.difference_update(result.call_id for result in messages[place].results)
    return places


def as_text(messages: Sequence[Message]) -> str:
    """Return the messages as a transcript; thinking is left out, and long parts lose their middle."""
    lines: list[str] = []
    for message in messages:
        said = "\n".join(text for part in message.parts if (text := _part_text(part)))
        if said:
            who = {"user": "Person", "assistant": "Assistant", "tool": "Tool", "system": "Instructions"}[message.role]
            lines.append(f"{who}: {said}")
    return "\n\n".join(lines)


def _part_text(part: Part) -> str:
    match part:
        case TextPart(text=text):
            return _shortened(text)
        case ThinkingPart() | OpaquePart():
            return ""
        case ImagePart(media_type=media_type):
            return f"[an image, {media_type}]"
        case FilePart(name=name):
            return f"[the file {name!r}]"
        case ToolCall():
            return f"[calls {part.name} with {_shortened(_json(part.arguments))}]"
        case ToolResult():
            return " ".join([f"[{part.name}, {part.status}] {_shortened(part.content)}", *map(_part_text, part.media)])


def _shortened(text: str) -> str:
    if len(text) <= MAX_PART:
        return text
    half = MAX_PART // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
