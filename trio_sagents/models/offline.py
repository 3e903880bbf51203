"""The embedded model: fixed rules, no network, and real work through tools.

It plays a provider's part faithfully: tool calls arrive in fragments, several at once where they do not touch the same thing,
and text is streamed. Everything it says follows from the request alone, so the same conversation gives the same answers.
"""

import contextlib
import itertools
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Final

import attrs
import trio

from trio_sagents.data.messages import Message, ToolCall, ToolResult
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.requests import FinishChunk, ModelChunk, ModelRequest, TextChunk, ToolCallChunk, UsageChunk
from trio_sagents.models._offline_asks import TOOL_KINDS, Ask, read_asks
from trio_sagents.models._offline_words import answer_words

_FRAGMENT: Final = 7
"""Characters per fragment of a call's arguments."""
_SLOW_WORDS: Final = 400
"""Answers of more words are spoken word by word; shorter ones in at most `_CHUNKS` chunks."""
_CHUNKS: Final = 60

_TOUCHES: Final = {
    "add_todos": "todos",
    "list_todos": "todos",
    "complete_todos": "todos",
    "remove_todos": "todos",
    "remember": "notes",
    "recall": "notes",
}
_READS: Final = frozenset({"list_todos", "recall", "calculate", "read_file", "list_files"})


def _interval(instance: object, attribute: "attrs.Attribute[float]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{type(instance).__name__}.{attribute.name} must be seconds as a number, not {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{type(instance).__name__}.{attribute.name} must be finite and >= 0 seconds, not {value!r}")


@attrs.define(eq=False, kw_only=True)
class OfflineModel:
    """A `Model` that understands a few sentences and calls the tools named in them."""

    chunk_interval: float = attrs.field(default=0.03, validator=_interval)
    """Seconds between two chunks; 0 streams as fast as it is read."""
    name: str = "offline"

    @contextlib.asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[ModelChunk]]:
        """Open one answer.

        Args:
            request: its last user messages are answered, with those of its tools that the rules know.

        Cancellation: between any two chunks; nothing is held.
        """
        chunks = self._paced(_chunks_of(request))
        async with contextlib.aclosing(chunks):
            yield chunks

    async def _paced(self, chunks: Iterator[ModelChunk]) -> AsyncGenerator[ModelChunk, None]:
        for chunk in chunks:
            await trio.sleep(self.chunk_interval if isinstance(chunk, TextChunk) else 0)
            yield chunk


def _chunks_of(request: ModelRequest) -> Iterator[ModelChunk]:
    asks, done = _turn_so_far(request.messages)
    known = {tool.name for tool in request.tools}
    wanted = [ask for ask in asks if ask.kind in TOOL_KINDS and ask.kind in known]
    missing = [ask.kind for ask in asks if ask.kind in TOOL_KINDS and ask.kind not in known]
    batch = _next_batch(wanted[len(done) :])
    input_words = sum(len(message.text.split()) for message in request.messages[-1:])
    if batch:
        yield from _call_chunks(batch, f"offline-{len(request.messages)}")
        yield UsageChunk(Usage(input_tokens=input_words, output_tokens=len(batch)))
        yield FinishChunk("tool_calls")
        return
    words = answer_words(asks, done, missing)
    count = 0
    for piece in _pieces(words):
        count += 1
        yield TextChunk(piece)
    yield UsageChunk(Usage(input_tokens=input_words, output_tokens=count))
    yield FinishChunk("stop")


def _turn_so_far(messages: Sequence[Message]) -> tuple[Sequence[Ask], Sequence[tuple[ToolCall, ToolResult]]]:
    """Return what the user messages of the running turn ask for, and the calls made in it with their results."""
    turn = list(itertools.takewhile(lambda message: message.role != "assistant" or message.calls, reversed(messages)))[::-1]
    asks = tuple(ask for message in turn if message.role == "user" for ask in read_asks(message.text))
    results = {result.call_id: result for message in turn for result in message.results}
    calls = [call for message in turn for call in message.calls]
    return asks, tuple((call, results[call.call_id]) for call in calls if call.call_id in results)


def _next_batch(asks: Sequence[Ask]) -> Sequence[Ask]:
    """Return the asks to run at once now: up to the first that touches what one before it changes, or changes what one reads."""
    batch: list[Ask] = []
    touched: set[str] = set()
    changed: set[str] = set()
    for ask in asks:
        thing = _TOUCHES.get(ask.kind)
        is_read = ask.kind in _READS
        if thing is not None and (thing in changed or (thing in touched and not is_read)):
            break
        if thing is not None:
            touched.add(thing)
            if not is_read:
                changed.add(thing)
        batch.append(ask)
    return batch


def _call_chunks(asks: Sequence[Ask], prefix: str) -> Iterator[ModelChunk]:
    for index, ask in enumerate(asks):
        yield ToolCallChunk(index, id=f"{prefix}-{index}", name=ask.kind)
        text = json.dumps(dict(ask.arguments), ensure_ascii=False)
        for start in range(0, len(text), _FRAGMENT):
            yield ToolCallChunk(index, arguments_json=text[start : start + _FRAGMENT])


def _pieces(text: str) -> Iterator[str]:
    """Yield `text` in pieces of whole words; joined they are `text` again."""
    words = re.findall(r"\S+\s*|\s+", text)
    group = 1 if len(words) > _SLOW_WORDS else max(1, -(-len(words) // _CHUNKS))
    for start in range(0, len(words), group):
        yield "".join(words[start : start + group])
