"""The embedded model: fixed rules, no network, and real work through tools.

It behaves like a provider: tool calls arrive in fragments, several at once if they do not touch the same thing, and text is
streamed. Everything that the model says follows from the request alone, so the same conversation gives the same answers.
"""

import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Final

import attrs
import trio

from trio_sagents.data.messages import Message, ToolCall, ToolResult
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.requests import FinishChunk, ModelChunk, ModelRequest, TextChunk, ToolCallChunk, UsageChunk
from trio_sagents.models._offline_asks import Ask, read_asks
from trio_sagents.models._offline_duties import duty_text, last_request
from trio_sagents.models._offline_jobs import Job, Resources, jobs_of, next_batch
from trio_sagents.models._offline_words import answer_words

_FRAGMENT: Final = 7
"""Characters per fragment of a call's arguments."""
_SLOW_WORDS: Final = 400
"""Answers of more words are spoken word by word; shorter ones in at most `_CHUNKS` chunks."""
_CHUNKS: Final = 60


def _interval(instance: object, attribute: "attrs.Attribute[float]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{type(instance).__name__}.{attribute.name} must be seconds as a number, not {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{type(instance).__name__}.{attribute.name} must be finite and >= 0 seconds, not {value!r}")


@attrs.define(eq=False, kw_only=True)
class OfflineModel:
    """A `Model` that understands a few sentences and calls the tools that they need.

    The model uses the tools of the built-in middleware (`TodoList`, `Files`, `AskUser`, `SubAgents`), functions called `calculate`,
    `remember`, `recall`, `send_money` and `halt`, and any other tool that a message names: `use NAME with key=value`. It also
    writes titles and summaries. When asked for "help", it says what it can do with the tools that it was given.
    """

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
    duty = duty_text(request)
    if duty is not None:
        yield from _spoken(request, duty)
        return
    asks, calls = _turn_so_far(request.messages)
    resources = Resources.of(request)
    jobs = jobs_of(asks, calls, resources)
    batch = next_batch(jobs)
    if batch:
        yield from _call_chunks(batch, f"offline-{len(request.messages)}")
        yield UsageChunk(Usage(input_tokens=_input_words(request), output_tokens=len(batch)))
        yield FinishChunk("tool_calls")
        return
    yield from _spoken(request, answer_words(jobs, resources))


def _spoken(request: ModelRequest, words: str) -> Iterator[ModelChunk]:
    count = 0
    for piece in _pieces(words):
        count += 1
        yield TextChunk(piece)
    yield UsageChunk(Usage(input_tokens=_input_words(request), output_tokens=count))
    yield FinishChunk("stop")


def _input_words(request: ModelRequest) -> int:
    return sum(len(message.text.split()) for message in request.messages[-1:])


def _turn_so_far(messages: Sequence[Message]) -> tuple[Sequence[Ask], Sequence[tuple[ToolCall, ToolResult]]]:
    """Return what the user messages of the running turn ask for, and the calls made in it with their results."""
    turn = _turn_of(messages)
    texts = [last_request(message.text) or message.text for message in turn if message.role == "user"]
    asks = tuple(ask for text in texts for ask in read_asks(text))
    results = {result.call_id: result for message in turn for result in message.results}
    calls = [call for message in turn for call in message.calls]
    return asks, tuple((call, results[call.call_id]) for call in calls if call.call_id in results)


def _turn_of(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the messages of the running turn; before them a summary, if the summary has the beginning of the turn."""
    first = len(messages)
    while first > 0:
        message = messages[first - 1]
        has_begun = any(message.role == "user" for message in messages[first:])
        if (message.role == "assistant" and not message.calls) or (has_begun and message.turn_id != messages[-1].turn_id):
            break
        first -= 1
    return messages[first:]


def _call_chunks(batch: Sequence[Job], prefix: str) -> Iterator[ModelChunk]:
    for index, job in enumerate(batch):
        yield ToolCallChunk(index, id=f"{prefix}-{index}", name=job.tool)
        text = json.dumps(dict(job.arguments), ensure_ascii=False)
        for start in range(0, len(text), _FRAGMENT):
            yield ToolCallChunk(index, arguments_json=text[start : start + _FRAGMENT])


def _pieces(text: str) -> Iterator[str]:
    """Yield `text` in pieces of whole words; the pieces, joined, are `text`."""
    words = re.findall(r"\S+\s*|\s+", text)
    group = 1 if len(words) > _SLOW_WORDS else max(1, -(-len(words) // _CHUNKS))
    for start in range(0, len(words), group):
        yield "".join(words[start : start + group])
