"""About how many tokens a text, a message or a request has: for limits, and if a provider does not report its counts."""

import json
from collections.abc import Sequence
from typing import Final

from trio_sagents.data.messages import FilePart, ImagePart, Message, OpaquePart, Part, TextPart, ThinkingPart, ToolCall, ToolResult
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.requests import ModelRequest

IMAGE_TOKENS: Final = 1600
BYTES_PER_TOKEN: Final = 4
SHORT: Final = 256
"""An answer with fewer bytes may have been reported as zero tokens by a provider that reports its counts; a longer one may not."""
MESSAGE_TOKENS: Final = 4
"""How many tokens each message has beside its parts."""


def estimate_tokens(request: ModelRequest) -> int:
    """Return about how many tokens a request has: a quarter of its characters, and more if they are not ASCII."""
    size = text_tokens(request.system)
    for tool in request.tools:
        size += text_tokens(tool.name) + text_tokens(tool.description) + text_tokens(_json(tool.parameters))
    return size + messages_tokens(request.messages)


def messages_tokens(messages: Sequence[Message]) -> int:
    """Return about how many tokens these messages have."""
    return sum(MESSAGE_TOKENS + sum(map(part_tokens, message.parts)) for message in messages)


def text_tokens(text: str) -> int:
    """Return about how many tokens a text has."""
    return len(text) // 4 if text.isascii() else len(text.encode(errors="replace")) // 3


def part_tokens(part: Part) -> int:
    """Return about how many tokens a part of a message has."""
    match part:
        case TextPart(text=text) | ThinkingPart(text=text):
            return text_tokens(text)
        case OpaquePart(data=data):
            return text_tokens(_json(data))
        case ToolCall():
            return text_tokens(part.name) + text_tokens(_json(part.arguments))
        case ToolResult(content=content):
            return text_tokens(content) + sum(part_tokens(item) for item in part.media)
        case ImagePart():
            return IMAGE_TOKENS
        case FilePart(data=data):
            return len(data) // 8


def unreported_usage(usage: Usage, request: ModelRequest, answer_bytes: int, *, is_whole: bool) -> Usage:
    """Return an estimate of the tokens of one model call that its provider did not report, marked as one; zero if it reported all.

    Args:
        usage: the counts that the provider reported. No model reads or writes nothing, so zero means that the count is missing.
        request: the request.
        answer_bytes: how many bytes of UTF-8 the answer has so far.
        is_whole: whether the answer came to its end. The counts of an answer that was cut off may be those of its beginning.
    """
    read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    written = answer_bytes // BYTES_PER_TOKEN
    is_written_known = usage.output_tokens >= written or (is_whole and usage.output_tokens > 0) or (read > 0 and answer_bytes < SHORT)
    if read and is_written_known:
        return Usage()
    return Usage(
        0 if read else max(1, estimate_tokens(request)), 0 if is_written_known else written - usage.output_tokens, is_estimated=True
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=dict)
