"""The events of Anthropic's Messages API as chunks.

An answer is a list of blocks, and a block is what its beginning and its deltas say together. Text, thinking and calls are handed on while
they arrive. A block of any other type, such as encrypted thinking or a search that the provider made itself, is kept whole, as an opaque
part, because it has to go back as it came.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import attrs

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import OpaquePart
from trio_sagents.data.requests import FinishChunk, ModelChunk, OpaqueChunk, TextChunk, ThinkingChunk, ToolCallChunk, UsageChunk
from trio_sagents.models._answer import BadFinish, ErrorEvent
from trio_sagents.models._anthropic_request import CITATIONS, PROVIDER
from trio_sagents.models._errors import shortened
from trio_sagents.models._fields import (
    UnexpectedContent,
    UsageMeter,
    content_at,
    number_at,
    object_at,
    objects_at,
    parse_object,
    text_at,
)
from trio_sagents.models._sse import ServerSentEvent

_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filtered",
    "pause_turn": "continued",
}
_CONTENT: Final = ("delta", "content_block")
"""An event with one of these has content, even if its type is unknown."""
_TEXT_DELTAS: Final = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "tool_use", "signature_delta": "thinking"}
"""The deltas that are handed on, and the type of block that each belongs to."""


@attrs.define(eq=False)
class _Block:
    """A block of content while its deltas arrive."""

    kind: str
    call: int = 0
    """The number of the call, if the block is a call."""
    call_id: str = ""
    name: str = ""
    """The tool, if the block has one."""
    given: JSONValue = attrs.field(factory=dict)
    """The arguments that came with the beginning of a call."""
    has_arguments: bool = False
    signature: str = ""
    citations: list[JSONValue] = attrs.field(factory=list)
    fields: dict[str, JSONValue] = attrs.field(factory=dict)
    """The whole block, if it is kept as an opaque part."""
    input_json: str = ""
    """Of such a block: the pieces of its "input"."""

    def is_begun_by(self, content: JSON) -> bool:
        """Return whether `content` is the beginning of this block once more, and not of another block in its place."""
        if self.kind != text_at(content, "type") or self.call_id != text_at(content, "id"):
            return False
        if self.kind != "tool_use" or self.call_id:
            return self.name == text_at(content, "name")
        # Without an id, only a beginning that says the same, before any arguments, is not of another call.
        said = (text_at(content, "name"), content.get("input", {}))
        return said == (self.name, self.given) and not self.has_arguments


class AnthropicEvents:
    """Translates the events of one answer."""

    def __init__(self, provider: str = PROVIDER) -> None:
        self._provider = provider
        self._open: dict[int, _Block] = {}
        self._last: _Block | None = None
        """The block that began last; text and thinking belong to no other."""
        self._closed: set[int] = set()
        self._meter = UsageMeter()
        self._call_count = 0
        self._pieces = 0
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

    @property
    def pieces(self) -> int:
        """How many pieces of content came."""
        return self._pieces

    @property
    def has_usage(self) -> bool:
        """Whether the provider said what the answer cost."""
        return self._meter.is_known

    def translate(self, event: ServerSentEvent) -> Iterable[ModelChunk]:
        """Return the chunks of one event."""
        data = parse_object(event.data)
        kind = text_at(data, "type") or event.name
        match kind:
            case "message_start":
                return self._usage(object_at(object_at(data, "message"), "usage"))
            case "content_block_start":
                return self._begin_block(self._index(data), _object(data, "content_block"))
            case "content_block_delta":
                return self._continue_block(self._index(data), _object(data, "delta"))
            case "content_block_stop":
                return self._end_block(self._index(data))
            case "message_delta":
                self._note_reason(text_at(object_at(data, "delta"), "stop_reason"))
                return self._usage(object_at(data, "usage"))
            case "message_stop":
                self._is_over = True
                return ()
            case "error":
                raise ErrorEvent(data)
            case _ if event.name == "error" or data.get("error") or data.get("object") == "error":
                raise ErrorEvent(data)
            case _ if any(data.get(name) or isinstance(data.get(name), Mapping) for name in _CONTENT):
                raise UnexpectedContent(f"an event of the type {shortened(kind)!r}")
            case _:
                # Pings, and events that later versions of the API add: clients are to ignore those that they do not know.
                return ()

    def translate_document(self, document: JSON) -> Iterable[ModelChunk]:
        """Return the chunks of a message that came whole; nothing if the document is not a message."""
        if document.get("type") != "message" or not isinstance(document.get("content"), list):
            return ()
        chunks: list[ModelChunk] = list(self._usage(object_at(document, "usage")))
        for index, block in enumerate(document["content"]):
            if not isinstance(block, Mapping):
                raise UnexpectedContent(f"a block is {type(block).__name__}, not an object")
            chunks += [*self._begin_block(index, block), *self._end_block(index)]
        self._note_reason(text_at(document, "stop_reason"))
        return chunks

    def finish(self) -> Iterable[ModelChunk]:
        """Return the rest of blocks that nobody closed, then the reason why the model stopped."""
        rest = [chunk for index in tuple(self._open) for chunk in self._end_block(index)]
        reason = self._reason or "stop"
        if reason == "tool_calls" and not self._call_count:
            raise BadFinish("the provider said that the model calls a tool, but sent no call")
        if reason in {"stop", "continued"} and self._call_count:
            reason = "tool_calls"
        return [*rest, FinishChunk(reason)]

    def _index(self, data: JSON) -> int:
        index = number_at(data, "index")
        if index is None and "index" in data:
            raise UnexpectedContent(f"the index of a block is {type(data['index']).__name__}, not a number")
        return index or 0

    def _note_reason(self, reason: str) -> None:
        if not reason:
            return
        known = _REASONS.get(reason)
        if known is None:
            raise BadFinish(f"the answer ended for a reason that is not known: {shortened(reason)!r}")
        # A cut stays a cut, even if another stop reason follows.
        self._reason = self._reason if self._reason in {"length", "content_filtered"} else known

    def _begin_block(self, index: int, content: JSON) -> Iterable[ModelChunk]:
        self._pieces += 1
        kind = text_at(content, "type")
        known = self._open.get(index)
        if known is not None and known.is_begun_by(content):
            # The beginning came twice, or late: its text is handed on, and the block continues.
            return self._said_at_beginning(known, content)
        chunks: list[ModelChunk] = [] if known is None else list(self._end_block(index))
        self._closed.discard(index)
        block = self._last = self._open[index] = _Block(kind, call_id=text_at(content, "id"), name=text_at(content, "name"))
        match kind:
            case "text" | "thinking":
                chunks += self._said_at_beginning(block, content)
            case "tool_use":
                block.call, block.given = self._call_count, content.get("input", {})
                self._call_count += 1
                chunks.append(ToolCallChunk(block.call, block.call_id, block.name))
            case "":
                raise UnexpectedContent("a block without a type")
            case _:
                block.fields = dict(content)
        return chunks

    def _said_at_beginning(self, block: _Block, content: JSON) -> list[ModelChunk]:
        """Return the text or the thinking that a block begins with."""
        if block.kind == "thinking":
            block.signature = text_at(content, "signature") or block.signature
            return self._thought(content_at(content, "thinking"))
        block.citations.extend(objects_at(content, "citations"))
        return _said(content_at(content, "text")) if block.kind == "text" else []

    def _continue_block(self, index: int, delta: JSON) -> Iterable[ModelChunk]:
        self._pieces += 1
        kind = text_at(delta, "type")
        block = self._open.get(index)
        if block is None:
            if kind not in {"text_delta", "thinking_delta"} or index in self._closed:
                raise UnexpectedContent(f"a piece ({shortened(kind)}) of a block that never began")
            # Some gateways leave out the beginnings of blocks of text.
            block = self._last = self._open[index] = _Block(_TEXT_DELTAS[kind])
        if block.fields:
            _grow(block, delta)
            return ()
        if kind == "citations_delta" and block.kind == "text":
            block.citations.append(delta.get("citation"))
            return ()
        if _TEXT_DELTAS.get(kind) != block.kind:
            raise UnexpectedContent(f"a piece of the type {shortened(kind)!r} in a block of the type {shortened(block.kind)!r}")
        if kind != "input_json_delta" and block is not self._last:
            raise UnexpectedContent("a piece of a block that another block has followed")
        match kind:
            case "text_delta":
                return _said(content_at(delta, "text"))
            case "thinking_delta":
                return self._thought(content_at(delta, "thinking"))
            case "signature_delta":
                block.signature = content_at(delta, "signature")
                return ()
            case _:
                piece = content_at(delta, "partial_json")
                block.has_arguments = block.has_arguments or bool(piece)
                return [ToolCallChunk(block.call, arguments_json=piece)] if piece else ()

    def _end_block(self, index: int) -> Iterator[ModelChunk]:
        block = self._open.pop(index, None)
        if block is None:
            if index not in self._closed:
                raise UnexpectedContent("the end of a block that never began")
            return
        self._closed.add(index)
        if block.fields:
            yield OpaqueChunk(OpaquePart(self._provider, _whole(block)))
        elif block.kind == "thinking" and block.signature:
            yield ThinkingChunk("", block.signature, self._provider)
        elif block.kind == "tool_use" and not block.has_arguments:
            yield ToolCallChunk(block.call, arguments_json=_arguments_text(block.given))
        elif block.citations:
            yield OpaqueChunk(OpaquePart(self._provider, {"type": CITATIONS, "citations": block.citations}))

    def _thought(self, text: str) -> list[ModelChunk]:
        return [ThinkingChunk(text, provider=self._provider)] if text else []

    def _usage(self, usage: JSON) -> list[UsageChunk]:
        return self._meter.advance(
            input_tokens=number_at(usage, "input_tokens"),
            output_tokens=number_at(usage, "output_tokens"),
            cache_read_tokens=number_at(usage, "cache_read_input_tokens"),
            cache_write_tokens=number_at(usage, "cache_creation_input_tokens"),
        )


def _said(text: str) -> list[ModelChunk]:
    return [TextChunk(text)] if text else []


def _object(data: JSON, name: str) -> JSON:
    value = data.get(name)
    if not isinstance(value, Mapping):
        raise UnexpectedContent(f"{name!r} is {type(value).__name__}, not an object")
    return value


def _grow(block: _Block, delta: JSON) -> None:
    """Add a delta to a block that is kept whole: text is appended, lists are extended, anything else is replaced."""
    kind = text_at(delta, "type")
    if kind == "input_json_delta" and block.kind.endswith("tool_use"):
        block.input_json += content_at(delta, "partial_json")
        return
    if not kind or kind in _TEXT_DELTAS:
        raise UnexpectedContent(f"a piece of the type {shortened(kind)!r} in a block of the type {shortened(block.kind)!r}")
    fields = block.fields
    for name, value in delta.items():
        present = fields.get(name)
        if name == "type":
            continue
        if isinstance(value, str) and isinstance(present, str):
            fields[name] = present + value
        elif isinstance(value, list) and isinstance(present, list):
            fields[name] = [*present, *value]
        else:
            fields[name] = value


def _whole(block: _Block) -> JSON:
    if not block.input_json:
        return block.fields
    return {**block.fields, "input": parse_object(block.input_json)}


def _arguments_text(given: JSONValue) -> str:
    """Return the arguments that came with the beginning of a call, as the JSON text that they are."""
    if given is None or given == "":
        return "{}"
    return given if isinstance(given, str) else json.dumps(given)
