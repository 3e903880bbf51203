"""The events of a chat completions stream as chunks, with the dialects of OpenAI-compatible servers."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import OpaquePart
from trio_sagents.data.requests import FinishChunk, ModelChunk, OpaqueChunk, TextChunk, ThinkingChunk, ToolCallChunk, UsageChunk
from trio_sagents.exceptions import ModelFailureKind
from trio_sagents.models._answer import BadFinish, ErrorEvent
from trio_sagents.models._errors import shortened
from trio_sagents.models._fields import (
    UnexpectedContent,
    UsageMeter,
    content_at,
    number_at,
    object_at,
    objects_at,
    parse_object,
    whole_text,
)
from trio_sagents.models._openai_calls import CallAssembly
from trio_sagents.models._openai_extras import Extras
from trio_sagents.models._sse import ServerSentEvent

_REASONS: Final[Mapping[str, str]] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "complete": "stop",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "length": "length",
    "max_tokens": "length",
    "max_length": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "context_length_exceeded": "length",
    "content_filter": "content_filtered",
    "content_filtered": "content_filtered",
    "refusal": "content_filtered",
    "sensitive": "content_filtered",
    "guardrail_intervened": "content_filtered",
    "safety": "content_filtered",
    "image_safety": "content_filtered",
    "recitation": "content_filtered",
    "blocklist": "content_filtered",
    "prohibited_content": "content_filtered",
    "spii": "content_filtered",
}
"""What a finish reason means, in lower case. One that is in no table is an error: a word that nobody knows is no harmless word."""
_FAILURES: Final[Mapping[str, ModelFailureKind]] = {
    "insufficient_system_resource": "overloaded",
    "abort": "network",
    "aborted": "network",
    "cancelled": "network",
    "canceled": "network",
    "network_error": "network",
    "timeout": "timeout",
    "error": "server_error",
    "malformed_function_call": "protocol",
    "unexpected_tool_call": "protocol",
}
"""Finish reasons that say that the provider broke the answer off, in lower case."""
_THINKING_FIELDS: Final = ("reasoning_content", "reasoning", "reasoning_text")
_UNSUPPORTED: Final = ("images", "audio", "video")
"""Fields of content that has no place in an answer."""
_CUT: Final = frozenset({"length", "content_filtered"})
_ERROR_FIELDS: Final = ("message", "detail", "msg", "error_msg", "error_message")


class OpenAIEvents:
    """Translates the events of one answer."""

    def __init__(self, provider: str = "openai") -> None:
        self._provider = provider
        self._calls = CallAssembly()
        self._extras = Extras()
        self._meter = UsageMeter()
        self._pieces = 0
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

    @property
    def pieces(self) -> int:
        """How many pieces of content came."""
        return self._pieces

    @property
    def has_usage(self) -> bool:
        """Whether the server said what the answer cost."""
        return self._meter.is_known

    def translate(self, event: ServerSentEvent) -> Iterable[ModelChunk]:
        """Return the chunks of one event."""
        if event.data.strip() == "[DONE]":
            self._is_over = True
            return ()
        data = parse_object(event.data)
        if event.name == "error" or _is_error(data):
            raise ErrorEvent(data)
        return list(self._chunks(data, "delta"))

    def translate_document(self, document: JSON) -> Iterable[ModelChunk]:
        """Return the chunks of a completion that came whole; nothing if the document is not a completion."""
        if _is_error(document) or not objects_at(document, "choices"):
            return ()
        return list(self._chunks(document, "message"))

    def finish(self) -> Iterable[ModelChunk]:
        """Return what completes the calls, what goes back to the server, and the reason why the model stopped."""
        reason = self._reason or "stop"
        chunks: list[ModelChunk] = []
        if reason not in _CUT:  # the calls of a cut answer may be cut, too; nobody runs them
            chunks.extend(self._calls.finish())
            chunks.extend(
                ToolCallChunk(call.number, opaque=OpaquePart(self._provider, call.extras)) for call in self._calls.calls if call.extras
            )
            if reason == "tool_calls" and not self._calls.calls:
                raise BadFinish("the provider said that the model calls a tool, but sent no call")
            # Some servers say "stop" when they mean calls.
            reason = "tool_calls" if self._calls.calls else "content_filtered" if self._is_refused else reason
        if self._extras.fields:
            chunks.append(OpaqueChunk(OpaquePart(self._provider, self._extras.fields)))
        return [*chunks, FinishChunk(reason)]

    def _chunks(self, data: JSON, content: str) -> Iterator[ModelChunk]:
        for choice in objects_at(data, "choices"):
            if (number_at(choice, "index") or 0) == 0:
                yield from self._choice(choice, content)
                if "usage" in choice:
                    yield from self._usage(object_at(choice, "usage"))
        if usage := object_at(data, "usage") or object_at(object_at(data, "x_groq"), "usage"):
            yield from self._usage(usage)

    def _choice(self, choice: JSON, content: str) -> Iterator[ModelChunk]:
        if choice.get("error"):
            raise ErrorEvent({"error": choice["error"]})
        delta = choice.get(content)
        if delta is not None and not isinstance(delta, Mapping):
            raise UnexpectedContent(f"{content!r} is {type(delta).__name__}, not an object")
        for chunk in self._delta(delta or {}):
            self._pieces += 1
            yield chunk
        self._note_reason(choice.get("finish_reason"))

    def _delta(self, delta: JSON) -> Iterator[ModelChunk]:
        if len(delta) == 1 and isinstance(said := delta.get("content"), str):
            if said:  # almost every piece of an answer is this one
                yield TextChunk(whole_text(said))
            return
        for field in _THINKING_FIELDS:
            if thinking := content_at(delta, field):
                # Some servers send the same thinking in two fields.
                yield ThinkingChunk(thinking, provider=self._provider, field=field)
                break
        yield from self._content(delta)
        refusal = content_at(delta, "refusal")
        if refusal:
            self._is_refused = True
            yield TextChunk(refusal)
        for piece in _call_pieces(delta):
            self._pieces += 1  # a piece counts, too, if it is held until its name comes
            yield from self._calls.add(piece)
        for name in _UNSUPPORTED:
            if delta.get(name):
                raise UnexpectedContent(f"{name}, which have no place in an answer")
        self._pieces += self._extras.add(delta)

    def _content(self, delta: JSON) -> Iterator[ModelChunk]:
        content = delta.get("content")
        if isinstance(content, list):  # Mistral: thinking stands among the text
            for part in content:
                yield from self._content_part(part)
        elif text := content_at(delta, "content"):
            yield TextChunk(text)

    def _content_part(self, part: JSONValue) -> Iterator[ModelChunk]:
        if isinstance(part, str):
            part = {"type": "text", "text": part}
        if not isinstance(part, Mapping):
            raise UnexpectedContent(f"a part of the content is {type(part).__name__}, not an object")
        match part.get("type"):
            case "text" | "output_text":
                if text := content_at(part, "text"):
                    yield TextChunk(text)
            case "thinking":
                thinking = part.get("thinking")
                inner = thinking if isinstance(thinking, list) else [{"text": thinking}]
                text = "".join(content_at(item, "text") for item in inner if isinstance(item, Mapping))
                if text:
                    yield ThinkingChunk(text, provider=self._provider, field="content")
            case "refusal":
                self._is_refused = True
                yield TextChunk(content_at(part, "refusal"))
            case "reference":
                pass  # numbers of sources; the text that they stand in says what is said
            case kind:
                raise UnexpectedContent(f"a part of the type {shortened(str(kind))!r}")

    def _note_reason(self, given: JSONValue) -> None:
        if given is None or given == "":
            return
        if not isinstance(given, str):
            raise BadFinish(f"the reason why the answer ended is {type(given).__name__}, not text")
        word = given.lower()
        if word in _FAILURES:
            raise BadFinish(f"the provider broke off its answer ({shortened(given)})", _FAILURES[word])
        if word not in _REASONS:
            raise BadFinish(f"the answer ended for a reason that is not known: {shortened(given)!r}")
        # A cut stays a cut, even if another stop reason follows.
        self._reason = self._reason if self._reason in _CUT else _REASONS[word]

    def _usage(self, usage: JSON) -> list[UsageChunk]:
        details = object_at(usage, "prompt_tokens_details")
        cached = number_at(details, "cached_tokens")
        return self._meter.advance(
            input_tokens=number_at(usage, "prompt_tokens"),
            output_tokens=number_at(usage, "completion_tokens"),
            cache_read_tokens=cached if cached is not None else number_at(usage, "prompt_cache_hit_tokens"),
            cache_write_tokens=number_at(details, "cache_write_tokens"),
        )


def _is_error(data: JSON) -> bool:
    """Return whether an event is an error, in any of the forms that servers use."""
    if data.get("error") or data.get("errors") or data.get("object") == "error" or data.get("type") == "error":
        return True
    return "choices" not in data and any(data.get(name) for name in _ERROR_FIELDS)


def _call_pieces(delta: JSON) -> Iterator[JSON]:
    calls = delta.get("tool_calls")
    if calls is not None:
        pieces = [calls] if isinstance(calls, Mapping) else calls
        if not isinstance(pieces, list):
            raise UnexpectedContent(f"'tool_calls' is {type(pieces).__name__}, not a list")
        for piece in pieces:
            if piece is None:
                continue
            if not isinstance(piece, Mapping):
                raise UnexpectedContent(f"a piece of a call is {type(piece).__name__}, not an object")
            yield piece
    elif isinstance(call := delta.get("function_call"), Mapping):  # the field of before there were several calls
        yield {"index": 0, "function": call}
