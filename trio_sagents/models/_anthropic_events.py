"""The events of Anthropic's Messages API as chunks."""

import json
from collections.abc import Iterable
from typing import Final

import attrs

from trio_sagents.data.json import JSON
from trio_sagents.data.requests import FinishChunk, ModelChunk, TextChunk, ThinkingChunk, ToolCallChunk, UsageChunk
from trio_sagents.models._answer import ErrorEvent
from trio_sagents.models._anthropic_request import REDACTED_MARK
from trio_sagents.models._fields import UsageMeter, number_at, object_at, parse_object, text_at
from trio_sagents.models._sse import ServerSentEvent

_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filtered",
}


@attrs.define
class _Call:
    index: int
    given: JSON
    """Arguments that came with the call's beginning."""
    has_arguments: bool = False


class AnthropicEvents:
    """Translates the events of one answer."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}
        self._signatures: dict[int, str] = {}
        self._meter = UsageMeter()
        self._call_count = 0
        self._reason: str | None = None
        self._is_over = False

    @property
    def is_complete(self) -> bool:
        """Whether a stop reason came."""
        return self._reason is not None

    @property
    def is_over(self) -> bool:
        """Whether the message was stopped."""
        return self._is_over

    def translate(self, event: ServerSentEvent) -> Iterable[ModelChunk]:  # one for each kind of event
        """Return the chunks of one event."""
        data = parse_object(event.data)
        kind = text_at(data, "type") or event.name
        block = number_at(data, "index") or 0
        match kind:
            case "message_start":
                return self._usage(object_at(object_at(data, "message"), "usage"))
            case "content_block_start":
                return self._begin_block(block, object_at(data, "content_block"))
            case "content_block_delta":
                return self._continue_block(block, object_at(data, "delta"))
            case "content_block_stop":
                return self._end_block(block)
            case "message_delta":
                reason = text_at(object_at(data, "delta"), "stop_reason")
                if reason:
                    self._reason = _REASONS.get(reason, "stop")
                return self._usage(object_at(data, "usage"))
            case "message_stop":
                self._is_over = True
                return ()
            case "error":
                raise ErrorEvent(data)
            case _:
                # Pings, and whatever later versions of the API add: clients are to ignore what they do not know.
                return ()

    def finish(self) -> Iterable[ModelChunk]:
        """Return the reason why the model stopped."""
        reason = self._reason or "stop"
        if reason == "tool_calls" and not self._call_count:
            reason = "stop"
        return [FinishChunk(reason)]

    def _begin_block(self, block: int, content: JSON) -> Iterable[ModelChunk]:
        match text_at(content, "type"):
            case "text":
                text = text_at(content, "text")
                return [TextChunk(text)] if text else ()
            case "thinking":
                self._signatures[block] = text_at(content, "signature")
                text = text_at(content, "thinking")
                return [ThinkingChunk(text)] if text else ()
            case "redacted_thinking":
                return [ThinkingChunk("", REDACTED_MARK + text_at(content, "data"))]
            case "tool_use":
                call = self._calls[block] = _Call(self._call_count, object_at(content, "input"))
                self._call_count += 1
                return [ToolCallChunk(call.index, text_at(content, "id"), text_at(content, "name"))]
            case _:
                return ()

    def _continue_block(self, block: int, delta: JSON) -> Iterable[ModelChunk]:
        match text_at(delta, "type"):
            case "text_delta":
                text = text_at(delta, "text")
                return [TextChunk(text)] if text else ()
            case "thinking_delta":
                text = text_at(delta, "thinking")
                return [ThinkingChunk(text)] if text else ()
            case "signature_delta":
                self._signatures[block] = text_at(delta, "signature")
                return ()
            case "input_json_delta":
                piece, call = text_at(delta, "partial_json"), self._calls.get(block)
                if not piece or call is None:
                    return ()
                call.has_arguments = True
                return [ToolCallChunk(call.index, arguments_json=piece)]
            case _:
                return ()

    def _end_block(self, block: int) -> Iterable[ModelChunk]:
        signature = self._signatures.pop(block, "")
        if signature:
            return [ThinkingChunk("", signature)]
        call = self._calls.pop(block, None)
        if call is not None and not call.has_arguments:
            return [ToolCallChunk(call.index, arguments_json=json.dumps(call.given))]
        return ()

    def _usage(self, usage: JSON) -> list[UsageChunk]:
        return self._meter.advance(
            input_tokens=number_at(usage, "input_tokens"),
            output_tokens=number_at(usage, "output_tokens"),
            cache_read_tokens=number_at(usage, "cache_read_input_tokens"),
            cache_write_tokens=number_at(usage, "cache_creation_input_tokens"),
        )
