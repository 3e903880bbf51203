"""A hostile model: a named failure within the limits, and the conversation continues."""

import math
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import pytest
import trio

from tests.hostile.blobs import wrong_order
from tests.support.models import RawModel
from tests.support.scenarios import (
    FaultyStore,
    Router,
    answer_to,
    ask,
    make_agent,
    opened,
    state_of,
    transcript,
)
from trio_sagents import (
    Agent,
    Cancelled,
    Completed,
    Failed,
    FinishChunk,
    LimitExceeded,
    MemoryStore,
    ModelFailed,
    RetryPolicy,
    Sessions,
    TextChunk,
    ThinkingChunk,
    ToolCallChunk,
    TurnLimits,
    TurnOutcome,
    Usage,
    UsageChunk,
)
from trio_sagents.models import AnthropicModel, OpenAIModel
from trio_sagents.testing.providers import Reply, anthropic_events, call_deltas, open_provider, openai_events, sse, text, tool_use

Chunks = Iterable[Any]
GOOD: Final = (TextChunk("fine"), FinishChunk("stop"))
ONCE: Final = RetryPolicy(attempts=1)


@attrs.define(eq=False)
class Hostile:
    """A model that says what it likes, then behaves."""

    worst: Callable[[], Chunks]
    times: int = 1
    name: str = "hostile"
    given: int = 0
    """How many chunks were read."""

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[Any]:
        """Open an answer."""
        self.times -= 1
        yield self._say(self.worst() if self.times >= 0 else GOOD)

    async def _say(self, chunks: Chunks) -> AsyncIterator[Any]:
        for chunk in chunks:
            self.given += 1
            if self.given % 64 == 0:
                await trio.lowlevel.checkpoint()
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk


async def survive(model: Any, *, limits: TurnLimits | None = None, tools: Any = (), **policy: Any) -> TurnOutcome:
    """Have a turn with such a model; see that the history is valid, loads again, and the next message is answered."""
    store = FaultyStore()
    agent = Agent(model=model, tools=tools, limits=limits or TurnLimits(), retry=ONCE)
    router = Router(lambda agent_id: make_agent("well") if agent_id.endswith("other") else agent)
    async with opened(router, store=store, policy=policy) as sessions:
        outcome = await ask(sessions)
        await _check(sessions)
        await sessions.stop("c")
        assert isinstance(await ask(sessions, "again"), Completed)
        await _check(sessions)
        assert "well" == await answer_to(sessions, "and you?", "other")
    return outcome


async def _check(sessions: Sessions) -> None:
    assert wrong_order((await state_of(sessions)).messages, frozenset()) is None


def limit_of(outcome: TurnOutcome) -> str:
    """Return the limit by which a turn failed."""
    assert isinstance(outcome, Failed), outcome
    assert isinstance(outcome.error, LimitExceeded), outcome
    return outcome.error.limit


# ── without end ───────────────────────────────────────────────────────────────────────────────────────────────────────


def forever(make: Callable[[int], Any]) -> Callable[[], Chunks]:
    """Return chunks without end."""

    def chunks() -> Iterator[Any]:
        number = 0
        while True:
            yield make(number)
            number += 1

    return chunks


ENDLESS: Final[Mapping[str, tuple[Callable[[int], Any], str]]] = {
    "text": (lambda _: TextChunk("x" * 50), "max_message_bytes"),
    "thinking": (lambda _: ThinkingChunk("x" * 50), "max_message_bytes"),
    "seals": (lambda _: ThinkingChunk("", "x" * 50), "max_message_bytes"),
    "calls": (lambda number: ToolCallChunk(number, f"c{number}", "tool"), "max_calls"),
    "calls without ids": (lambda number: ToolCallChunk(number, None, "tool"), "max_calls"),
    "arguments": (lambda number: ToolCallChunk(0, "c", "tool", "x" * 50), "max_message_bytes"),
    "arguments of calls in turn": (lambda number: ToolCallChunk(number % 20, f"c{number % 20}", "tool", "1" * 50), "max_message_bytes"),
    "text and thinking in turn": (lambda number: TextChunk("x") if number % 2 else ThinkingChunk("y"), "max_message_bytes"),
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_stream_without_end(autojump_clock: Any, what: str) -> None:
    """A stream that never ends meets a limit with a name, and hardly more is read than the limit allows."""
    make, limit = ENDLESS[what]
    model = Hostile(forever(make))

    assert limit == limit_of(await survive(model, max_message_bytes=10_000))
    assert model.given < 11_000


@pytest.mark.parametrize(
    "chunk",
    [TextChunk(""), ThinkingChunk(""), UsageChunk(Usage()), ToolCallChunk(0, "c", "tool")],
    ids=["text", "thinking", "usage", "call"],
)
async def test_stream_of_nothing_without_end(autojump_clock: Any, chunk: Any) -> None:
    """Chunks that say nothing, without end: the turn's time is up, and before that it can be cut."""

    def slowly(_: int) -> Any:
        return chunk

    model = Dripping(forever(slowly))
    assert "turn_timeout" == limit_of(await survive(model, limits=TurnLimits(turn_timeout=50)))
    async with opened(Agent(model=Dripping(forever(slowly)))) as sessions:
        receipt = await sessions.post("c", "hi")
        await trio.sleep(1000)
        assert isinstance(await sessions.cancel_turn("c"), Cancelled)
        assert isinstance(await receipt.wait(), Cancelled)


class Dripping(Hostile):
    """Says something once a second."""

    async def _say(self, chunks: Chunks) -> AsyncIterator[Any]:
        for chunk in chunks:
            await trio.sleep(1)
            yield chunk


async def test_million_calls_in_one_answer(autojump_clock: Any) -> None:
    """A million calls at once: refused at the limit, in a moment, with little memory, and none of them is run."""
    ran: list[int] = []

    async def tool() -> str:
        """Do."""
        ran.append(1)
        return "ok"

    model = Hostile(lambda: (ToolCallChunk(number, f"c{number}", "tool") for number in range(1_000_000)))
    tracemalloc.start()
    began = time.process_time()
    outcome = await survive(model, tools=[tool])
    took = time.process_time() - began
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert "max_calls" == limit_of(outcome)
    assert [] == ran
    assert model.given < 300
    assert most < 20_000_000
    assert took < 10


@pytest.mark.slow
async def test_a_hundred_thousand_pieces(autojump_clock: Any) -> None:
    """An answer in pieces of one byte is one answer, and its bytes are limited like those of any other."""
    model = Hostile(lambda: (*(ToolCallChunk(0, "c", "tool", "1") for _ in range(100_000)), FinishChunk("tool_calls")))
    assert isinstance(await survive(model), Completed)

    model = Hostile(lambda: (*(TextChunk("1") for _ in range(100_001)), FinishChunk("stop")))
    assert "max_message_bytes" == limit_of(await survive(model, max_message_bytes=100_000))


async def test_million_tool_rounds(autojump_clock: Any) -> None:
    """A model that always asks for another tool gets a limited number of rounds, and the answer names the limit."""
    model = Hostile(lambda: (ToolCallChunk(0, "same", "tool"), FinishChunk("tool_calls")), times=1_000_000)
    async with opened(Agent(model=model)) as sessions:
        outcome = await ask(sessions)
        model.times = 0

        assert "max_rounds" == limit_of(outcome)
        assert model.given <= 2 * TurnLimits().max_rounds
        assert isinstance(await ask(sessions, "again"), Completed)
        await _check(sessions)


# ── nonsense ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Fake(str):
    """A text that lies about itself."""

    __slots__ = ()

    def __len__(self) -> int:
        return 0

    def encode(self, *args: Any, **kwargs: Any) -> bytes:
        """Lie."""
        return b""


def call(arguments: Any = "{}", call_id: Any = "c", name: Any = "tool", index: Any = 0) -> Chunks:
    """Return an answer of one call."""
    return ToolCallChunk(index, call_id, name, arguments), FinishChunk("tool_calls")


NONSENSE: Final[Mapping[str, Callable[[], Chunks]]] = {
    "nothing": lambda: (),
    "no finish": lambda: (TextChunk("x"),),
    "only a finish": lambda: (FinishChunk("stop"),),
    "a finish for calls without any": lambda: (FinishChunk("tool_calls"),),
    "two finishes": lambda: (TextChunk("x"), FinishChunk("stop"), FinishChunk("stop")),
    "on after the finish": lambda: (FinishChunk("stop"), TextChunk("x")),
    "an unknown reason": lambda: (TextChunk("x"), FinishChunk("whim")),
    "a reason that is none": lambda: (TextChunk("x"), FinishChunk(None)),  # type: ignore[arg-type]  # wrong on purpose
    "a reason that cannot be hashed": lambda: (TextChunk("x"), FinishChunk([])),  # type: ignore[arg-type]  # wrong on purpose
    "None": lambda: (None,),
    "a string": lambda: ("x",),
    "a dict": lambda: ({"text": "x"},),
    "bytes as text": lambda: (TextChunk(b"x"),),  # type: ignore[arg-type]  # wrong on purpose
    "None as text": lambda: (TextChunk(None),),  # type: ignore[arg-type]  # wrong on purpose
    "a lone surrogate": lambda: (TextChunk("\ud800"), FinishChunk("stop")),
    "a lone surrogate in a seal": lambda: (ThinkingChunk("x", "\udfff"), FinishChunk("stop")),
    "a lone surrogate in a name": lambda: call(name="\ud800"),
    "a lone surrogate in an id": lambda: call(call_id="\ud800"),
    "a lone surrogate in arguments": lambda: call('{"a": "\ud800"}'),
    "an escaped lone surrogate in arguments": lambda: call('{"a": "\\ud800"}'),
    "NUL": lambda: (TextChunk("\0"), FinishChunk("stop")),
    "NUL in ids and names": lambda: call("{}", "\0", "\0"),
    "control characters": lambda: (TextChunk("\x1b[2J\r\n\u202e"), FinishChunk("stop")),
    "no name": lambda: call(name=""),
    "a name that is none": lambda: call(name=7),
    "a name of a million letters": lambda: call(name="x" * 1_000_000),
    "an id of a million letters": lambda: call(call_id="x" * 1_000_000),
    "an id that is none": lambda: call(call_id=7),
    "an id that cannot be hashed": lambda: call(call_id=[]),
    "an index below zero": lambda: call(index=-1),
    "an index that is none": lambda: call(index=None),
    "an index that cannot be hashed": lambda: call(index=[]),
    "arguments that are none": lambda: call(7),
    "arguments that are a list": lambda: call("[1]"),
    "arguments that are a text": lambda: call('"x"'),
    "arguments that are cut": lambda: call('{"a": 1'),
    "arguments with a key twice": lambda: call('{"a": 1, "a": 2}'),
    "arguments with NaN": lambda: call('{"a": NaN}'),
    "arguments with 1e999": lambda: call('{"a": 1e999}'),
    "arguments with a number without end": lambda: call('{"a": ' + "9" * 100_000 + "}"),
    "arguments of great depth": lambda: call('{"a":' * 50_000 + "1" + "}" * 50_000),
    "arguments of a great depth of lists": lambda: call('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "arguments of 65 levels": lambda: call('{"a":' * 65 + "1" + "}" * 65),
    "prototype games": lambda: call('{"__class__": "x", "__proto__": {}, "self": 1}'),
    "an unknown tool": lambda: call(name="rm -rf /"),
    "the same id twice": lambda: (ToolCallChunk(0, "c", "tool"), ToolCallChunk(1, "c", "tool"), FinishChunk("tool_calls")),
    "the id of the question": lambda: call(call_id="m"),
    "usage below zero": lambda: (UsageChunk(Usage(-1, 0)), *GOOD),
    "usage that is none": lambda: (UsageChunk({"input": 1}), *GOOD),  # type: ignore[arg-type]  # wrong on purpose
    "usage that is not whole": lambda: (UsageChunk(Usage(math.nan, 0)), *GOOD),  # type: ignore[arg-type]  # wrong on purpose
    "usage beyond all measure": lambda: (UsageChunk(Usage(10**400, 0)), *GOOD),
    "usage of five thousand digits": lambda: (UsageChunk(Usage(10**5000, 0)), *GOOD),
    "a text that lies about its length": lambda: (TextChunk(Fake("x" * 100)), FinishChunk("stop")),
    "RecursionError": lambda: (RecursionError(),),
    "MemoryError": lambda: (MemoryError(),),
    "an error without words": lambda: (_Speechless(),),
    "an error group": lambda: (ExceptionGroup("g", [ValueError("x"), ExceptionGroup("h", [KeyError("y")])]),),
    "a limit of its own": lambda: (LimitExceeded("mine", math.inf),),
    "a failure of its own": lambda: (ModelFailed("\ud800" * 10),),
    "AssertionError": lambda: (AssertionError(),),
    "a timeout of Trio's": lambda: (trio.TooSlowError(),),
    "StopIteration": lambda: (_Stopping(),),
}


class _Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


class _Stopping(StopIteration):
    """In a generator this becomes RuntimeError."""


@pytest.mark.parametrize("what", NONSENSE)
async def test_nonsense(autojump_clock: Any, what: str) -> None:
    """Whatever it sends becomes a message that is valid, or a failed turn; never a crash, never a history that does not load."""

    async def tool() -> str:
        """Do."""
        return "ok"

    outcome = await survive(Hostile(NONSENSE[what]), tools=[tool], limits=TurnLimits(max_rounds=5))

    assert isinstance(outcome, Completed | Failed), outcome
    if isinstance(outcome, Failed):
        assert isinstance(outcome.error, ModelFailed | LimitExceeded), repr(outcome.error)


@pytest.mark.parametrize("how", ["no context", "no iterator", "None", "opening", "closing", "closing twice", "name"])
async def test_adapter_that_is_none(autojump_clock: Any, how: str) -> None:
    """An adapter that is broken in itself is a failed model."""

    class Broken:
        times = 1

        @property
        def name(self) -> str:
            if how == "name":
                raise ValueError("no name")
            return "broken"

        def stream(self, request: Any) -> Any:
            self.times -= 1
            if self.times >= 0 and how == "no context":
                return object()
            if self.times >= 0 and how == "None":
                return None
            return self._stream(is_broken=self.times >= 0)

        @asynccontextmanager
        async def _stream(self, *, is_broken: bool) -> AsyncIterator[Any]:
            if is_broken and how == "opening":
                raise OSError("refused")
            yield (
                object()
                if is_broken and how == "no iterator"
                else Hostile(lambda: GOOD)._say([ValueError()] if how == "name" and is_broken else GOOD)
            )
            if is_broken and how.startswith("closing"):
                raise ExceptionGroup("closing", [OSError("gone"), ValueError("bad")]) if how == "closing twice" else OSError("gone")

    outcome = await survive(Broken())

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, ModelFailed)


async def test_ids_repeated_over_turns(autojump_clock: Any) -> None:
    """A server that gives every call of every turn the same id: each call is its own, and is answered once."""
    ran: list[str] = []

    async def tool(what: str) -> str:
        """Do."""
        ran.append(what)
        return what

    def chunks() -> Chunks:
        number = len(ran)
        pieces = (ToolCallChunk(index, "same", "tool", f'{{"what": "{number + index}"}}') for index in range(3))
        return (*pieces, FinishChunk("tool_calls"))

    model = Hostile(chunks, times=0)
    async with opened(Agent(model=model, tools=[tool])) as sessions:
        for _ in range(4):
            model.times = 2
            assert isinstance(await ask(sessions), Completed)
        await sessions.stop("c")
        messages = (await state_of(sessions)).messages

        assert wrong_order(messages, frozenset()) is None
        assert 24 == len({asked.call_id for message in messages for asked in message.calls}) == len(set(ran))
        answers = {result.call_id: result.content for message in messages for result in message.results}
        assert all(asked.arguments["what"] == answers[asked.call_id] for message in messages for asked in message.calls)


# ── on the wire ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _damaged(events: list[bytes], how: str) -> Reply:
    body = b"".join(events)
    match how:
        case "invalid UTF-8 in a text":
            return Reply([body.replace(b"MARK", b"\xff\xfe\xc3(\xed\xa0\x80")])
        case "invalid UTF-8 everywhere":
            return Reply([b"\xff" * 1000 + body])
        case "a byte order mark":
            return Reply([b"\xef\xbb\xbf" + body])
        case "NUL":
            return Reply([body.replace(b"MARK", b"\0\0")])
        case "escaped lone surrogates":
            return Reply([body.replace(b"MARK", b"\\ud800\\udfff x \\udc00")])
        case "a line without end":
            return Reply([body[:200], b"data: " + b"x" * 5_000_000])
        case "events without end":
            return Reply([events[0], *[sse({"type": "ping"}, "ping")] * 1000])
        case "comments without end":
            return Reply([events[0], *[b": " + b"x" * 10_000 + b"\n\n"] * 500])
        case "JSON of great depth":
            return Reply([events[0], sse("[" * 100_000), *events[1:]])
        case "a number without end":
            return Reply([events[0], sse('{"type": "ping", "x": ' + "9" * 100_000 + "}"), *events[1:]])
        case "other types":
            return Reply(
                [events[0], *[sse(data) for data in ("null", "[]", "1", '"x"', "{}", '{"type": 7}', '{"choices": 7}')], *events[1:]]
            )
        case "a page of HTML":
            return Reply([b"<html>" * 100_000], headers={"content-type": "text/html"})
        case _:
            return Reply([], headers={"content-type": "text/event-stream", "x-long": "x" * 60_000})


ON_THE_WIRE: Final = (
    "invalid UTF-8 in a text", "invalid UTF-8 everywhere", "a byte order mark", "NUL", "escaped lone surrogates", "a line without end",
    "events without end", "comments without end", "JSON of great depth", "a number without end", "other types", "a page of HTML",
    "a long header",
)  # fmt: skip


@pytest.mark.parametrize("how", ON_THE_WIRE)
@pytest.mark.parametrize("kind", ["anthropic", "openai"])
async def test_damage_on_the_wire(kind: str, how: str) -> None:
    """Bytes that are not an answer, through the real SDKs: either the answer can be stored, or the model failed. The next turn works."""
    said = anthropic_events(text("MARK")) if kind == "anthropic" else openai_events({"content": "MARK"})
    fine = Reply(anthropic_events(text("fine")) if kind == "anthropic" else openai_events({"content": "fine"}))
    turns = {"times": 0}

    def respond(exchange: Any) -> Reply:
        last = str(exchange.body["messages"][-1])
        turns["times"] += "again" not in last and "and you" not in last
        return fine if "again" in last or "and you" in last else _damaged(said, how)

    async with open_provider() as provider:
        provider.respond = respond
        model: Any = (
            AnthropicModel("claude", api_key="k", base_url=provider.url)
            if kind == "anthropic"
            else OpenAIModel("gpt", provider.url + "/v1", api_key="k")
        )
        outcome = await survive(model)

    assert isinstance(outcome, Completed | Failed), outcome
    if isinstance(outcome, Failed):
        assert isinstance(outcome.error, ModelFailed | LimitExceeded), repr(outcome.error)
        assert len(str(outcome.error)) < 2000
    else:
        outcome.message.text.encode()
    assert turns["times"]


@pytest.mark.parametrize("kind", ["anthropic", "openai"])
async def test_hostile_calls_on_the_wire(kind: str) -> None:
    """Repeated ids, unknown tools and arguments that are not JSON, through the real SDKs: each call is answered once."""
    names = ("look", "no such tool", "look", "look")
    pieces = ('{"a": 1}', "{}", "{", '{"a": 1, "a": 2}')
    if kind == "anthropic":
        blocks = [tool_use("same", name, piece) for name, piece in zip(names, pieces, strict=True)]
        asked = Reply(anthropic_events(*blocks, stop_reason="tool_use"))
        fine = Reply(anthropic_events(text("fine")))
    else:
        deltas = [delta for index in range(4) for delta in call_deltas(index, "same", names[index], pieces[index])]
        asked = Reply(openai_events(*deltas, finish_reason="tool_calls"))
        fine = Reply(openai_events({"content": "fine"}))

    async def look(a: int) -> str:
        """Look."""
        return str(a)

    async with open_provider(asked, fine) as provider:
        model: Any = (
            AnthropicModel("claude", api_key="k", base_url=provider.url)
            if kind == "anthropic"
            else OpenAIModel("gpt", provider.url + "/v1", api_key="k")
        )
        async with opened(Agent(model=model, tools=[look])) as sessions:
            assert isinstance(await ask(sessions), Completed)
            messages = (await state_of(sessions)).messages

    assert wrong_order(messages, frozenset()) is None
    assert ["completed", "failed", "failed", "failed"] == sorted(result.status for message in messages for result in message.results)
    assert 2 == len(provider.exchanges)


@pytest.mark.parametrize(
    "chunk",
    [
        lambda: UsageChunk(Usage(input_tokens=math.nan)),  # type: ignore[arg-type]
        lambda: UsageChunk(Usage(input_tokens=1 + 2j)),  # type: ignore[arg-type]
        lambda: UsageChunk(Usage(output_tokens=-1)),
        lambda: ThinkingChunk("a", signature=b"x"),  # type: ignore[arg-type]
        lambda: ThinkingChunk("a", signature=5),  # type: ignore[arg-type]
        lambda: ThinkingChunk("a", signature="\ud800"),
        lambda: ThinkingChunk("a", signature="x" * 30_000_000),
    ],
    ids=["nan", "complex", "negative", "bytes", "int", "surrogate", "30 MB"],
)
async def test_usage_and_signature_that_are_nonsense(autojump_clock: Any, chunk: Callable[[], Any]) -> None:
    """R12: nonsense of a provider fails the turn, never the agent, and the conversation loads again."""
    store = MemoryStore()
    async with opened(Agent(model=RawModel([TextChunk("a"), chunk(), FinishChunk("stop")])), store=store) as sessions:
        outcome = await ask(sessions)

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ModelFailed | LimitExceeded)
        assert await sessions.running("c")
    async with opened(store=store) as sessions:
        assert ("user", "hi", None) == (await transcript(sessions))[0]
        assert "re: on" == await answer_to(sessions, "on")


class NurseryModel(RawModel):
    """A typical Trio adapter: a nursery around the stream, which raises its errors in a group."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__([TextChunk("x" * 1000)] * 100)
        self.error = error

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[AsyncIterator[Any]]:
        async def failing() -> AsyncIterator[Any]:
            async for chunk in chunks:
                yield chunk
                if self.error is not None:
                    raise self.error

        async with super().stream(request) as chunks, trio.open_nursery():
            generator = failing()
            try:
                yield generator
            finally:
                await generator.aclose()


@pytest.mark.parametrize("error", [ModelFailed("overloaded", retryable=True), None], ids=["model failed", "limit"])
async def test_model_with_a_nursery(autojump_clock: Any, error: ModelFailed | None) -> None:
    """R19: a nursery in an adapter hides neither a limit nor whether a failure may be tried again."""
    async with opened(Agent(model=NurseryModel(error)), policy={"max_message_bytes": 5000}) as sessions:
        outcome = await ask(sessions)

        assert isinstance(outcome, Failed)
        if error is None:
            assert isinstance(outcome.error, LimitExceeded)
        else:
            assert isinstance(outcome.error, ModelFailed)
            assert outcome.error.retryable
