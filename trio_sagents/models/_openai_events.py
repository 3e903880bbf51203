"""The events of a chat completions stream as chunks, with the dialects of OpenAI-compatible servers."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from uuid import uuid4

import attrs

from trio_sagents.data.json import JSON
from trio_sagents.data.requests import FinishChunk, ModelChunk, TextChunk, ThinkingChunk, ToolCallChunk, UsageChunk
from trio_sagents.models._answer import ErrorEvent
from trio_sagents.models._fields import UsageMeter, number_at, object_at, objects_at, parse_object, text_at
from trio_sagents.models._sse import ServerSentEvent

_REASONS: Final = {
    "stop": "stop",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "length": "length",
    "content_filter": "content_filtered",
}


@attrs.define
class _Call:
    index: int
    id: str
    name: str
    has_arguments: bool = False


class OpenAIEvents:
    """Translates the events of one answer."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._current: dict[int | None, _Call] = {}
        self._meter = UsageMeter()
        self._reason: str | None = None
        self._is_refused = False
        self._is_over = False

    @property
    def is_complete(self) -> bool:
        """Whether a finish reason came."""
        return self._reason is not None

    @property
    def is_over(self) -> bool:
        """Whether the closing mark came."""
        return self._is_over

    def translate(self, event: ServerSentEvent) -> Iterable[ModelChunk]:
        """Return the chunks of one event."""
        if event.data.strip() == "[DONE]":
            self._is_over = True
            return ()
        data = parse_object(event.data)
        if data.get("error") or event.name == "error":
            raise ErrorEvent(data)
        chunks: list[ModelChunk] = []
        for choice in objects_at(data, "choices"):
            if (number_at(choice, "index") or 0) == 0:
                chunks.extend(self._choice(choice))
        chunks.extend(self._usage(object_at(data, "usage")))
        return chunks

    def finish(self) -> Iterable[ModelChunk]:
        """Return what completes calls without arguments, then the reason why the model stopped."""
        chunks: list[ModelChunk] = [ToolCallChunk(call.index, arguments_json="{}") for call in self._calls if not call.has_arguments]
        reason = self._reason or "stop"
        if reason in {"stop", "tool_calls"}:
            # Some servers say "stop" where they mean calls, and some the other way round.
            reason = "tool_calls" if self._calls else "content_filtered" if self._is_refused else "stop"
        return [*chunks, FinishChunk(reason)]

    def _choice(self, choice: JSON) -> Iterator[ModelChunk]:
        delta = object_at(choice, "delta")
        thinking = text_at(delta, "reasoning_content") or text_at(delta, "reasoning")
        if thinking:
            yield ThinkingChunk(thinking)
        text = text_at(delta, "content")
        if text:
            yield TextChunk(text)
        refusal = text_at(delta, "refusal")
        if refusal:
            self._is_refused = True
            yield TextChunk(refusal)
        for piece in objects_at(delta, "tool_calls"):
            yield from self._piece(piece)
        reason = text_at(choice, "finish_reason")
        if reason:
            self._reason = _REASONS.get(reason, "stop")

    def _piece(self, piece: JSON) -> Iterator[ModelChunk]:
        function = object_at(piece, "function")
        index, call_id, name = number_at(piece, "index"), text_at(piece, "id"), text_at(function, "name")
        arguments = _arguments_text(function)
        call = self._call_of(index, call_id, name)
        if call is None:
            # Some servers leave out ids; every call needs one.
            call = _Call(len(self._calls), call_id or f"call_{uuid4().hex[:24]}", name)
            self._calls.append(call)
            self._current[index] = call
            yield ToolCallChunk(call.index, call.id, call.name or None, arguments)
        elif name and not call.name:
            call.name = name
            yield ToolCallChunk(call.index, name=name, arguments_json=arguments)
        elif arguments:
            yield ToolCallChunk(call.index, arguments_json=arguments)
        call.has_arguments = call.has_arguments or bool(arguments)

    def _call_of(self, index: int | None, call_id: str, name: str) -> _Call | None:
        """Return the call that a piece goes on with; None where it begins one.

        The index says it, except with servers that give every call the same index, or none: there a new id begins a call.
        """
        call = self._current.get(index)
        if call is None:
            return None
        return None if call_id and name and call_id != call.id else call

    def _usage(self, usage: JSON) -> list[UsageChunk]:
        cached = number_at(object_at(usage, "prompt_tokens_details"), "cached_tokens")
        return self._meter.advance(
            input_tokens=number_at(usage, "prompt_tokens"),
            output_tokens=number_at(usage, "completion_tokens"),
            cache_read_tokens=cached if cached is not None else number_at(usage, "prompt_cache_hit_tokens"),
        )


def _arguments_text(function: JSON) -> str:
    arguments = function.get("arguments")
    return json.dumps(arguments) if isinstance(arguments, Mapping) else text_at(function, "arguments")
