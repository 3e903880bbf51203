"""What a server answers to a call, as the text that a model reads."""

import json
from typing import Final, assert_never

import mcp_types

from trio_sagents.agent import ToolResult
from trio_sagents.data.json import plain_json

MAX_OUTPUT: Final = 1024 * 1024
"""Characters that are taken of one result; `SessionPolicy.max_tool_output_bytes` bounds what the model reads of them."""
MAX_LINK: Final = 2048
"""Characters that are taken of an address."""


def read_result(result: mcp_types.CallToolResult) -> ToolResult:
    """Return a server's answer: its texts, one below the other; or, without any, its structured content as JSON.

    Images and other data are named, with their size, and not shown. `value` is the structured content.
    """
    texts = [_text_of(block) for block in result.content]
    structured = _structured(result)
    if structured is not None and not any(isinstance(block, mcp_types.TextContent) for block in result.content):
        texts.append(json.dumps(structured, ensure_ascii=False))
    text = "\n".join(texts)
    if len(text) > MAX_OUTPUT:
        text = f"{text[:MAX_OUTPUT]}\n[cut: {MAX_OUTPUT} of {len(text)} characters shown]"
    return ToolResult(text, is_error=result.is_error, value=structured)


def _structured(result: mcp_types.CallToolResult) -> object:
    try:
        return plain_json(result.structured_content, "the structured content")
    except (TypeError, ValueError):
        return None


def _text_of(block: mcp_types.ContentBlock) -> str:
    match block:
        case mcp_types.TextContent(text=text):
            return text
        case mcp_types.ImageContent():
            return f"[image: {_kind(block.mime_type)}, {_size(block.data)} bytes; not shown]"
        case mcp_types.AudioContent():
            return f"[audio: {_kind(block.mime_type)}, {_size(block.data)} bytes; not shown]"
        case mcp_types.ResourceLink():
            return f"[resource: {block.name[:MAX_LINK]!r}, {_kind(block.mime_type)}, at {block.uri[:MAX_LINK]}]"
        case mcp_types.EmbeddedResource(resource=mcp_types.TextResourceContents(text=text)):
            return text
        case mcp_types.EmbeddedResource(resource=mcp_types.BlobResourceContents() as resource):
            return f"[resource: {_kind(resource.mime_type)}, {_size(resource.blob)} bytes, at {resource.uri[:MAX_LINK]}; not shown]"
        case mcp_types.EmbeddedResource():
            raise AssertionError("an embedded resource has text or data")  # pragma: no cover - the SDK's type has no third
        case _:
            assert_never(block)


def _kind(mime_type: str | None) -> str:
    return (mime_type or "of unknown type")[:100]


def _size(data: str) -> int:
    """Return how many bytes a base64 text stands for."""
    return len(data) * 3 // 4 - data[-2:].count("=")
