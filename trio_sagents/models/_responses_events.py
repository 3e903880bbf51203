"""The events of OpenAI's Responses API as chunks.

An answer is a list of items: messages, reasoning, calls, and what the provider's own tools did. Text, summaries of reasoning and
arguments are handed on while they arrive. When an item is done the provider sends it whole, and so it is compared with its pieces: an
answer that lacks a piece, or has one twice, does not pass for a whole one. Any item that is not a message or a call goes back as it came.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import attrs

from trio_sagents.data.json import JSON, plain_json
from trio_sagents.data.messages import OpaquePart, TextKind
from trio_sagents.data.requests import FinishChunk, ModelChunk, OpaqueChunk, TextChunk, ThinkingChunk, ToolCallChunk, UsageChunk
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
    text_at,
)
from trio_sagents.models._responses_request import COMMENTARY, PHASE
from trio_sagents.models._sse import ServerSentEvent

_CUTS: Final[Mapping[str, str]] = {"max_output_tokens": "length", "max_tokens": "length", "content_filter": "content_filtered"}
"""Why a response may be incomplete. A reason that is not here is an error."""
_SUMMARY: Final = "summary"


@attrs.define(eq=False)
class _Item:
    """An item while its pieces arrive."""

    kind: str
    call: int = 0
    """The number of the call, if the item is a call."""
    text: list[str] = attrs.field(factory=list)
    """The pieces of its text, of its refusal, or of its arguments."""
    thoughts: list[str] = attrs.field(factory=list)
    text_kind: TextKind | None = None
    is_done: bool = False


class ResponsesEvents:
    """Translates the events of one answer."""

    def __init__(self, provider: str = "openai") -> None:
        self._provider = provider
        self._items: dict[int, _Item] = {}
        self._meter = UsageMeter()
        self._calls = 0
        self._pieces = 0
        self._reason: str | None = None
        self._is_end: bool | None = None
        self._is_refused = False

    @property
    def is_complete(self) -> bool:
        """Whether the provider said how the response ended."""
        return self._reason is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes: the event that says how the response ended is the last one."""
        return self._reason is not None

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
        if event.data.strip() == "[DONE]":
            return ()
        data = parse_object(event.data)
        kind = text_at(data, "type") or event.name
        match kind:
            case "response.output_item.added":
                return self._begin(self._index(data), _object(data, "item"))
            case "response.output_item.done":
                return list(self._end(self._index(data), _object(data, "item")))
            case "response.output_text.delta" | "response.refusal.delta":
                self._is_refused = self._is_refused or kind == "response.refusal.delta"
                return self._grow(data, "message")
            case "response.function_call_arguments.delta":
                return self._grow(data, "function_call")
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return self._think(data)
            case "response.completed" | "response.incomplete":
                return list(self._finished(_object(data, "response")))
            case "response.failed":
                raise ErrorEvent({"error": object_at(_object(data, "response"), "error") or {"message": "the response failed"}})
            case "response.cancelled":
                raise BadFinish("the provider broke off its answer (cancelled)", "network")
            case "error":
                raise ErrorEvent((data.get("error") and data) or {"error": {key: data.get(key) for key in ("code", "message", "param")}})
            case _ if event.name == "error" or data.get("error"):
                raise ErrorEvent(data)
            case _:
                return self._other(kind, data)

    def translate_document(self, document: JSON) -> Iterable[ModelChunk]:
        """Return the chunks of a response that came whole; nothing if the document is not a response."""
        if document.get("object") != "response" or not isinstance(document.get("output"), list):
            return ()
        if text_at(document, "status") == "failed" or document.get("error"):
            raise ErrorEvent({"error": document.get("error") or {"message": "the response failed"}})
        return list(self._finished(document))

    def finish(self) -> Iterable[ModelChunk]:
        """Return the reason why the model stopped."""
        reason = self._reason or "stop"
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        elif reason == "stop" and self._is_refused:
            reason = "content_filtered"
        return [FinishChunk(reason, self._is_end)]

    # ── items

    def _index(self, data: JSON) -> int:
        index = number_at(data, "output_index")
        if index is None:
            raise UnexpectedContent("an event that does not say which item it is about")
        return index

    def _begin(self, index: int, item: JSON) -> list[ModelChunk]:
        self._pieces += 1
        kind = text_at(item, "type")
        known = self._items.get(index)
        if known is not None:
            if known.kind == kind and not known.is_done:
                return []  # the beginning came twice
            raise UnexpectedContent("two items with the same output_index")
        if any(not earlier.is_done and earlier.kind == "message" for earlier in self._items.values()):
            raise UnexpectedContent("an item that begins in the middle of a message")
        made = self._items[index] = _Item(kind)
        if kind == "function_call":
            made.call, self._calls = self._calls, self._calls + 1
            call_id, name = text_at(item, "call_id"), text_at(item, "name")
            opaque = OpaquePart(self._provider, {"id": text_at(item, "id")}) if text_at(item, "id") else None
            return [ToolCallChunk(made.call, call_id, name, opaque=opaque)]
        if kind == "message":
            phase = item.get("phase")
            made.text_kind = "narration" if phase == COMMENTARY else None
            return [OpaqueChunk(OpaquePart(self._provider, {"type": PHASE, "phase": phase}))] if isinstance(phase, str) else []
        return []

    def _grow(self, data: JSON, kind: str) -> list[ModelChunk]:
        item, piece = self._open(data, kind), content_at(data, "delta")
        self._pieces += 1
        item.text.append(piece)
        if not piece:
            return []
        return [TextChunk(piece, item.text_kind) if kind == "message" else ToolCallChunk(item.call, arguments_json=piece)]

    def _think(self, data: JSON) -> list[ModelChunk]:
        item, piece = self._open(data, "reasoning"), content_at(data, "delta")
        self._pieces += 1
        item.thoughts.append(piece)
        return [ThinkingChunk(piece, provider=self._provider, field=_SUMMARY)] if piece else []

    def _open(self, data: JSON, kind: str) -> _Item:
        item = self._items.get(self._index(data))
        if item is None or item.kind != kind or item.is_done:
            raise UnexpectedContent(f"a piece of an item ({kind}) that is not open")
        return item

    def _end(self, index: int, item: JSON) -> Iterator[ModelChunk]:
        """Take the whole item: what its pieces lacked is handed on, what they had otherwise is an error."""
        self._pieces += 1
        kind = text_at(item, "type")
        if index not in self._items:
            yield from self._begin(index, item)
        known = self._items[index]
        if known.is_done or known.kind != kind:
            raise UnexpectedContent("the end of an item that is not open")
        known.is_done = True
        match kind:
            case "message":
                yield from self._end_message(known, item)
            case "function_call":
                arguments = item.get("arguments")
                whole = arguments if isinstance(arguments, str) else json.dumps(arguments)
                yield from (ToolCallChunk(known.call, arguments_json=piece) for piece in _rest(known, whole, "the arguments of a call"))
            case "reasoning":
                thoughts = "".join(text_at(part, "text") for name in ("summary", "content") for part in objects_at(item, name))
                if not known.thoughts and thoughts:
                    yield ThinkingChunk(thoughts, provider=self._provider, field=_SUMMARY)
                yield OpaqueChunk(OpaquePart(self._provider, _returned(item)))
            case "":
                raise UnexpectedContent("an item without a type")
            case _:
                yield OpaqueChunk(OpaquePart(self._provider, _returned(item)))

    def _end_message(self, known: _Item, item: JSON) -> Iterator[ModelChunk]:
        content = item.get("content")
        if not isinstance(content, list):
            raise UnexpectedContent("a message without content")
        texts: list[str] = []
        for part in content:
            match text_at(part, "type") if isinstance(part, Mapping) else "":
                case "output_text":
                    texts.append(content_at(part, "text"))
                case "refusal":
                    self._is_refused = True
                    texts.append(content_at(part, "refusal"))
                case other:
                    raise UnexpectedContent(f"a part of the type {shortened(other)!r}")
        yield from (TextChunk(piece, known.text_kind) for piece in _rest(known, "".join(texts), "the text of a message"))

    # ── the end

    def _finished(self, response: JSON) -> Iterator[ModelChunk]:
        """Take the whole response. Its output is compared with the items that came, unless the provider leaves it out."""
        status = text_at(response, "status")
        reason = text_at(object_at(response, "incomplete_details"), "reason")
        if status == "incomplete":
            if reason not in _CUTS:
                raise BadFinish(f"the answer ended for a reason that is not known: {shortened(reason or status)!r}")
            self._reason = _CUTS[reason]
        elif status == "completed":
            self._reason = "stop"
        elif status in {"cancelled", "canceled"}:
            raise BadFinish("the provider broke off its answer (cancelled)", "network")
        else:
            raise BadFinish(f"the response ended with the status {shortened(status)!r}")
        ends = response.get("end_turn")
        self._is_end = ends if isinstance(ends, bool) else None
        output = response.get("output")
        if isinstance(output, list):
            for index, item in enumerate(output):
                if not isinstance(item, Mapping):
                    raise UnexpectedContent(f"an item is {type(item).__name__}, not an object")
                if index not in self._items or not self._items[index].is_done:
                    yield from self._end(index, item)
            if output and len(output) != len(self._items) and status == "completed":
                raise UnexpectedContent(f"{len(self._items)} items came of a response with {len(output)}")
        if status == "completed" and not all(item.is_done for item in self._items.values()):
            raise BadFinish("the response ended before all of its items")
        usage = object_at(response, "usage")
        yield from self._usage(usage)

    def _usage(self, usage: JSON) -> list[UsageChunk]:
        details = object_at(usage, "input_tokens_details")
        return self._meter.advance(
            input_tokens=number_at(usage, "input_tokens"),
            output_tokens=number_at(usage, "output_tokens"),
            cache_read_tokens=number_at(details, "cached_tokens"),
            cache_write_tokens=number_at(details, "cache_write_tokens"),
        )

    def _other(self, kind: str, data: JSON) -> Iterable[ModelChunk]:
        """Pass over an event that tells of what is told again: beginnings, ends, and the work of the provider's own tools."""
        if kind.startswith(("response.audio", "response.output_audio")):
            raise UnexpectedContent(f"an event of the type {shortened(kind)!r}")
        is_known = kind.startswith("response.") and not (kind.endswith(".delta") and "_call" not in kind)
        if not is_known and any(data.get(name) or isinstance(data.get(name), Mapping) for name in ("delta", "item")):
            raise UnexpectedContent(f"an event of the type {shortened(kind)!r}")
        return ()


def _object(data: JSON, name: str) -> JSON:
    value = data.get(name)
    if not isinstance(value, Mapping):
        raise UnexpectedContent(f"{name!r} is {type(value).__name__}, not an object")
    return value


def _rest(item: _Item, whole: str, what: str) -> list[str]:
    """Return the text of an item that did not come in pieces; `UnexpectedContent` if the pieces say something else."""
    said = "".join(item.text)
    if said == whole:
        return []
    if said:
        raise UnexpectedContent(f"{what} came in pieces that do not make the whole")
    return [whole]


def _returned(item: JSON) -> JSON:
    """Return an item as it goes back: without what only describes how it came."""
    plain: JSON = plain_json({name: value for name, value in item.items() if name != "status" and value is not None})
    return plain
