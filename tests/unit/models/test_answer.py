"""One streamed answer, in virtual time: what keeps it alive, and what its body may be instead of a stream."""

import json
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import trio
import trio.testing

from trio_sagents.data.requests import FinishChunk, ModelChunk, TextChunk
from trio_sagents.exceptions import ModelFailed
from trio_sagents.models._answer import TAIL_TIMEOUT, Answer, Patience, SharedClient
from trio_sagents.models._anthropic_events import AnthropicEvents
from trio_sagents.models._openai_events import OpenAIEvents
from trio_sagents.models.anthropic import AnthropicModel
from trio_sagents.models.openai import OpenAIModel
from trio_sagents.testing import Simulation, sweep_cancels
from trio_sagents.testing.providers import anthropic_events, openai_chunk, openai_events, sse, text

PATIENCE = Patience(first=60, following=10)
COMMENT = b": PROCESSING\n\n"
EMPTY = openai_chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
PING = sse({"type": "ping"}, "ping")
SAID = openai_chunk([{"index": 0, "delta": {"content": "Hi"}}])
ENDED = openai_chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])


async def steps(*script: Any) -> AsyncIterator[bytes]:
    """Yield the bytes of a script; a number is a wait in seconds, and a list is repeated for ever."""
    for step in script:
        if isinstance(step, list):
            while True:
                for each in step:
                    async for data in steps(each):
                        yield data
        elif isinstance(step, bytes):
            await trio.lowlevel.checkpoint()
            yield step
        else:
            await trio.sleep(step)


def answer_of(*script: Any, events: Any = None, kind: str = "text/event-stream", patience: Patience = PATIENCE) -> Answer:
    """Return the answer with this body."""
    request = httpx2.Request("POST", "http://127.0.0.1:9/", headers={"authorization": "Bearer swordfish"})
    response = httpx2.Response(200, headers={"content-type": kind}, content=steps(*script), request=request)
    return Answer("model 'm'", response, events or OpenAIEvents(), patience)


async def read(answer: Answer) -> list[ModelChunk]:
    """Return the chunks of an answer."""
    async with answer:
        return [chunk async for chunk in answer]


async def failure_of(answer: Answer) -> ModelFailed:
    """Return the failure that an answer ends with."""
    with pytest.raises(ModelFailed) as caught:
        await read(answer)
    return caught.value


@pytest.mark.parametrize(
    ("script", "events", "seconds"),
    [
        ([[COMMENT, 1]], OpenAIEvents(), 60),
        ([[EMPTY, 1]], OpenAIEvents(), 60),
        ([[sse({"choices": []}), 1]], OpenAIEvents(), 60),
        ([[b"\n", 1]], OpenAIEvents(), 60),
        ([SAID, [COMMENT, 1]], OpenAIEvents(), 10),
        ([9, SAID, 9, SAID, [COMMENT, EMPTY, 1]], OpenAIEvents(), 28),
        ([[PING, 1]], AnthropicEvents(), 60),
        ([anthropic_events(text("Hi"))[0], [PING, 1]], AnthropicEvents(), 60),
        ([*anthropic_events(text("Hi"))[:4], [PING, 1]], AnthropicEvents(), 10),
        ([b"{", [b" ", 1]], OpenAIEvents(), 60),
        ([b"<html>", [b"wait", 1]], OpenAIEvents(), 60),
    ],
)
async def test_connection_when_it_only_keeps_itself_alive(script: list[Any], events: Any, seconds: float, autojump_clock: Any) -> None:
    """Comments, pings, empty events and bytes that say nothing do not keep an answer alive, before its first piece and after it."""
    began = trio.current_time()

    failure = await failure_of(answer_of(*script, events=events))

    assert ("timeout", True) == (failure.kind, failure.retryable)
    assert seconds == pytest.approx(trio.current_time() - began, abs=1.1)


@pytest.mark.parametrize("patience", [Patience(float("inf"), float("inf")), Patience(1001, 1001)])
async def test_connection_when_patience_is_long(patience: Patience, autojump_clock: Any) -> None:
    """Content that comes slowly is an answer, as long as each piece comes in time."""
    chunks = await read(answer_of(1000, SAID, 1000, SAID, 1000, ENDED, sse("[DONE]"), patience=patience))

    assert [TextChunk("Hi"), TextChunk("Hi"), FinishChunk("stop")] == chunks


async def test_reader_when_it_takes_its_time(autojump_clock: Any) -> None:
    """What the reader does between two pieces is not the provider's silence."""
    said: list[ModelChunk] = []
    async with answer_of(SAID, 9, SAID, 9, ENDED, sse("[DONE]")) as answer:
        async for chunk in answer:
            said.append(chunk)  # with a long wait after each
            await trio.sleep(1000)

    assert [TextChunk("Hi"), TextChunk("Hi"), FinishChunk("stop")] == said


@pytest.mark.parametrize("tail", [[1000], [[COMMENT, 1]]])
async def test_answer_when_only_its_closing_mark_is_missing(tail: list[Any], autojump_clock: Any) -> None:
    """An answer that is whole ends, whatever its connection does."""
    began = trio.current_time()

    chunks = await read(answer_of(SAID, ENDED, *tail, patience=Patience(1000, 1000)))

    assert [TextChunk("Hi"), FinishChunk("stop")] == chunks
    assert trio.current_time() - began <= TAIL_TIMEOUT + 2


WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}
MESSAGE = {"type": "message", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "usage": {}}


@pytest.mark.parametrize("size", [1, 3, 10_000])
@pytest.mark.parametrize(
    ("document", "events", "kind"),
    [
        (WHOLE, OpenAIEvents, "application/json"),
        (WHOLE, OpenAIEvents, "text/event-stream"),
        (MESSAGE, AnthropicEvents, "application/json"),
    ],
)
async def test_answer_when_it_comes_whole(document: Any, events: Any, kind: str, size: int) -> None:
    """A server that cannot stream gives its answer as one document."""
    body = b"\n\xef\xbb\xbf"[:1] + json.dumps(document).encode()
    pieces = [body[at : at + size] for at in range(0, len(body), size)]

    assert [TextChunk("Hi"), FinishChunk("stop")] == await read(answer_of(*pieces, events=events(), kind=kind))


@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize("events", [OpenAIEvents, AnthropicEvents])
@pytest.mark.parametrize(
    ("body", "kind", "words", "failed"),
    [
        (
            json.dumps({"error": {"message": "the prompt exceeds the context"}}),
            "application/json",
            "exceeds",
            "context_overflow",
        ),
        (json.dumps([{"error": {"message": "No key", "status": "UNAUTHENTICATED"}}]), "application/json", "No key", "auth"),
        (f"error: {json.dumps({'error': {'message': 'busy', 'code': 503}})}\n\n", "text/event-stream", "busy", "overloaded"),
        (f"{json.dumps({'error': {'message': 'busy', 'code': 503}})}\n\n", "text/event-stream", "busy", "overloaded"),
        (f": hm\n\n{json.dumps({'error': {'message': 'busy', 'code': 503}})}\n\n", "text/event-stream", "busy", "overloaded"),
        (f"event: error\ndata: {json.dumps({'error': {'message': 'busy', 'code': 503}})}\n\n", "text/event-stream", "busy", "overloaded"),
        ('{"half": ', "application/json", "cannot be read", "protocol"),
        ("upstream connect error", "text/plain", "upstream connect error", "protocol"),
        ("<html>Please log in</html>", "text/html", "text/html", "protocol"),
        ("", "text/event-stream", "ended before", "protocol"),
        ("the key is swordfish", "text/plain", "[redacted]", "protocol"),
    ],
)
async def test_body_when_it_is_no_answer(body: str, kind: str, words: str, failed: str, events: Any, size: int) -> None:
    """An error with a status of 200 keeps its words, in whatever form it comes."""
    data = body.encode()
    failure = await failure_of(answer_of(*[data[at : at + size] for at in range(0, len(data), size)], events=events(), kind=kind))

    assert failed == failure.kind
    assert words in str(failure)
    assert "swordfish" not in str(failure)


async def test_stream_when_its_type_is_wrong() -> None:
    """A stream of events is one, whatever the server calls it."""
    chunks = await read(answer_of(b"\n", *openai_events({"content": "Hi"}), kind="application/json"))

    assert TextChunk("Hi") in chunks


class _Client:
    closed = 0

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        _Client.closed += 1


async def test_places_when_all_are_taken(autojump_clock: Any) -> None:
    """No more answers than there are places are read at a time; the others wait, and each comes to its turn."""
    shared, made, most, present = SharedClient(_Client, 10), [], [0], [0]

    async def use(number: int) -> None:
        async with shared.use() as client:
            present[0] += 1
            most[0] = max(most[0], present[0])
            made.append(client)
            await trio.sleep(1)
            present[0] -= 1

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(2000):
            nursery.start_soon(use, number)

    assert (10, 2000, 200) == (most[0], len(made), trio.current_time() - began)


async def test_places_when_the_waiting_are_cancelled(autojump_clock: Any) -> None:
    """One who is cancelled while it waits takes no place; the client is closed after the last."""
    shared = SharedClient(_Client, 1)
    closed = _Client.closed
    async with shared.use():
        with trio.move_on_after(5):
            async with shared.use():
                pass
    async with shared.use():
        pass

    assert 2 == _Client.closed - closed


PACED = Patience(first=60, following=10, interval=1.0)


async def timed(answer: Answer) -> list[tuple[float, ModelChunk]]:
    """Return the chunks of an answer with the seconds at which each came."""
    began = trio.current_time()
    async with answer:
        return [(round(trio.current_time() - began, 2), chunk) async for chunk in answer]


class Wire:
    """A connection: pieces come at their times, and wait in a buffer until they are read, as bytes do in the kernel."""

    def __init__(self, *script: Any) -> None:
        self._script, self._began, self.is_closed = script, trio.current_time(), False

    async def body(self) -> AsyncIterator[bytes]:
        due = self._began
        try:
            for step in self._script:
                if isinstance(step, bytes):
                    await trio.sleep_until(due)
                    yield step
                else:
                    due += step
        finally:
            self.is_closed = True

    def answer(self, patience: Patience = PACED) -> Answer:
        request = httpx2.Request("POST", "http://127.0.0.1:9/")
        response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=self.body(), request=request)
        return Answer("model 'm'", response, OpenAIEvents(), patience)


async def test_answer_when_reads_are_paced(autojump_clock: Any) -> None:
    """The first piece comes at once. After each read that had to wait, what comes is left in the buffer for the interval."""
    pieces = [each for number in range(12) for each in (0.3, openai_chunk([{"index": 0, "delta": {"content": str(number)}}]))]
    chunks = await timed(Wire(0.1, COMMENT, *pieces, ENDED, sse("[DONE]")).answer())

    texts = [(at, chunk.text) for at, chunk in chunks if isinstance(chunk, TextChunk)]
    assert [(0.4, "0"), (1.4, "1"), (1.4, "2"), (1.4, "3"), (1.6, "4"), (2.6, "5"), (2.6, "6"), (2.6, "7"), (2.8, "8")] == texts[:9]
    assert [str(number) for number in range(12)] == [text for _, text in texts]
    assert (3.8, FinishChunk("stop")) == chunks[-1]


async def test_answer_when_it_is_whole_and_reads_are_paced(autojump_clock: Any) -> None:
    """Once the provider has said why it stopped, nothing is left to wait for: the tail is read at once."""
    chunks = await timed(Wire(0.3, SAID, 1.2, ENDED, 0.1, COMMENT, 0.1, sse("[DONE]")).answer())

    assert [(0.3, TextChunk("Hi")), (1.7, FinishChunk("stop"))] == chunks


async def test_silence_when_reads_are_paced(autojump_clock: Any) -> None:
    """A pause between reads is not the provider's silence, and silence is still noticed in time."""
    slow = Patience(first=5, following=2, interval=30.0)
    chunks = await timed(Wire(0.5, SAID, 0.5, SAID, 0.5, SAID, ENDED, sse("[DONE]")).answer(slow))
    assert [(0.5, TextChunk("Hi")), (30.5, TextChunk("Hi")), (30.5, TextChunk("Hi")), (30.5, FinishChunk("stop"))] == chunks

    began = trio.current_time()
    with pytest.raises(ModelFailed, match="no further content came within 2 seconds"):
        await timed(Wire(0.5, SAID, 1000, SAID).answer(Patience(5, 2, 1.0)))
    assert 3.5 == pytest.approx(trio.current_time() - began)


@pytest.mark.parametrize("after", [0.1, 0.5, 0.9, 1.2])
async def test_answer_when_cancelled_between_paced_reads(after: float, autojump_clock: Any) -> None:
    """An answer that is cancelled in a pause has given everything that it read, ends at once, and closes its connection."""
    wire = Wire(*[each for _ in range(100) for each in (0.3, SAID)])
    got: list[ModelChunk] = []
    with trio.move_on_after(0.3 + after) as scope:
        async with wire.answer() as answer:
            async for chunk in answer:
                got.append(chunk)

    assert scope.cancelled_caught
    assert 0.3 + after == pytest.approx(trio.current_time() - wire._began)
    assert [TextChunk("Hi")] * (4 if after == 1.2 else 1) == got
    assert wire.is_closed


async def paced_reader(simulation: Simulation) -> None:
    """A reader of a paced answer that may be cancelled anywhere: it has an unbroken beginning of the answer."""
    letters = "abcdefgh"
    pieces = [each for letter in letters for each in (0.3, openai_chunk([{"index": 0, "delta": {"content": letter}}]))]
    wire = Wire(*pieces, ENDED, sse("[DONE]"))
    got: list[ModelChunk] = []

    async def reader() -> None:
        async with wire.answer() as answer:
            async for chunk in answer:
                got.append(chunk)

    await simulation.named("reader", reader)

    said = "".join(chunk.text for chunk in got if isinstance(chunk, TextChunk))
    assert letters.startswith(said)
    assert (said == letters) or not any(isinstance(chunk, FinishChunk) for chunk in got)
    assert wire.is_closed or not got


def test_paced_answer_when_cancelled_at_each_yield() -> None:
    """Wherever a paced answer is cancelled, no piece is lost from the middle and the connection is closed."""
    sweep_cancels(paced_reader, seeds=range(2))


async def test_chunks_that_come_in_one_read(autojump_clock: Any) -> None:
    """A read of the network gives all its pieces without further checkpoints, and the read itself is one."""
    async with answer_of(SAID * 3 + ENDED + sse("[DONE]")) as answer:
        with trio.testing.assert_checkpoints():
            await anext(answer)
        with trio.testing.assert_no_checkpoints():
            rest = [await anext(answer) for _ in range(3)]

    assert [TextChunk("Hi"), TextChunk("Hi"), FinishChunk("stop")] == rest


@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_read_interval_when_it_is_no_interval(value: float) -> None:
    """No answer is held back for ever."""
    for model in (OpenAIModel, AnthropicModel):
        with pytest.raises(ValueError, match="read_interval"):
            model("m", api_key="k", read_interval=value)
