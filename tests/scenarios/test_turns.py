"""A turn: model, parallel tools, model; its limits, its cuts, and its failures."""

import contextvars
import datetime
import decimal
import math
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, NoReturn

import pytest
import trio
import trio.testing

from tests.support.scenarios import (
    FaultyStore,
    answer_to,
    ask,
    make_agent,
    of_kind,
    opened,
    read_until,
    state_of,
    text_in,
    transcript,
)
from trio_sagents import (
    Agent,
    CancelCause,
    Cancelled,
    ChainError,
    Completed,
    Edit,
    Failed,
    FilePart,
    FinishChunk,
    ImagePart,
    Interrupted,
    LimitExceeded,
    Middleware,
    ModelFailed,
    RetryPolicy,
    Status,
    StatusChanged,
    TextChunk,
    ThinkingChunk,
    ThinkingDelta,
    ThinkingPart,
    TokenUsage,
    ToolCallChunk,
    ToolContext,
    ToolExecutionUpdated,
    ToolIgnoresCancellation,
    ToolResult,
    TurnEnded,
    TurnLimits,
    TurnStarted,
    Usage,
    UsageChunk,
)
from trio_sagents.data.interrupts import pending
from trio_sagents.testing import Call, Hang, ScriptedModel


async def results_of(sessions: Any) -> dict[str, tuple[str, str]]:
    """Return (status, content) of each tool result, by call id or name."""
    state = await state_of(sessions)
    return {result.name: (result.status, result.content) for message in state.messages for result in message.results}


def check_valid(messages: Any) -> None:
    """Check that a provider would accept this history: each call is answered exactly once, right after its message."""
    open_calls: set[str] = set()
    for message in messages:
        if message.role == "tool":
            for result in message.results:
                assert result.call_id in open_calls
                open_calls.remove(result.call_id)
        else:
            assert not open_calls, f"{open_calls} not answered before {message}"
            open_calls = {call.call_id for call in message.calls}
    assert not open_calls


async def test_tools_of_one_answer_run_in_parallel(autojump_clock: Any) -> None:
    """The tools of one answer run in parallel. Each call is answered exactly once, and the model reads all results."""

    async def work(seconds: float) -> str:
        """Work."""
        await trio.sleep(seconds)
        return f"{seconds} done"

    agent = make_agent(
        ["let me see", Call("work", seconds=3.0), Call("work", seconds=1.0), Call("work", seconds=2.0)], "all done", tools=[work]
    )
    async with opened(agent) as sessions:
        assert "all done" == await answer_to(sessions)
        assert 3 <= trio.current_time() <= 3.5
        state = await state_of(sessions)
        check_valid(state.messages)

        assert {"3.0 done", "1.0 done", "2.0 done"} == {result.content for message in state.messages for result in message.results}
        assert ["user", "assistant", "tool", "tool", "tool", "assistant"] == [message.role for message in state.messages]
        check_valid(agent.model.requests[-1].messages)
        assert 2 == len(agent.model.requests)


async def test_max_parallel(autojump_clock: Any) -> None:
    """limits.max_parallel bounds how many tools run at once."""
    running, most = 0, 0

    async def work() -> str:
        """Work."""
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        return "ok"

    agent = make_agent([Call("work")] * 10, "done", tools=[work], limits=TurnLimits(max_parallel=3))
    async with opened(agent) as sessions:
        await answer_to(sessions)

    assert 3 == most


async def test_sync_tools_run_in_threads() -> None:
    """A plain function runs in a thread, with the context variables of the posting call."""
    seen: list[Any] = []

    def look() -> str:
        """Look."""
        seen.append((threading.current_thread() is threading.main_thread(), WHO.get()))
        return "seen"

    WHO.set("poster")
    async with opened(make_agent(Call("look"), "done", tools=[look])) as sessions:
        assert "done" == await answer_to(sessions)

    assert [(False, "poster")] == seen


WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")


async def test_context_of_the_posting_call_reaches_tools(autojump_clock: Any) -> None:
    """A turn runs in a copy of the context of the call that brought its first message; nothing leaks back, or to the next turn."""
    seen: list[str] = []

    async def look() -> str:
        """Look, and change."""
        seen.append(WHO.get())
        await trio.sleep(0.1)
        seen.append(WHO.get())
        WHO.set("tool")
        return "ok"

    WHO.set("host")
    async with opened(make_agent(Call("look"), "1", Call("look"), "2", tools=[look])) as sessions:
        WHO.set("alice")
        await answer_to(sessions)
        assert "alice" == WHO.get()
        WHO.set("bob")
        await answer_to(sessions)

    assert ["alice", "alice", "bob", "bob"] == seen


async def test_tool_that_does_not_exist(autojump_clock: Any) -> None:
    """A call of an unknown tool gets a result that names the known tools, and the turn continues."""

    async def real() -> str:
        """Be real."""
        return "ok"

    async with opened(make_agent(Call("unreal"), "sorry", tools=[real])) as sessions:
        assert "sorry" == await answer_to(sessions)
        status, content = (await results_of(sessions))["unreal"]

        assert "failed" == status
        assert "unreal" in content
        assert "real" in content


@pytest.mark.parametrize("arguments", [{"a": "one", "b": 2}, {"a": 1}, {"a": 1, "b": 2, "c": 3}, {}], ids=str)
async def test_tool_with_arguments_that_do_not_fit(autojump_clock: Any, arguments: Any) -> None:
    """Invalid arguments are a result that the model can read; the tool is not run."""

    async def add(a: int, b: int) -> int:
        """Add."""
        raise AssertionError("it ran")

    async with opened(make_agent(Call("add", **arguments), "sorry", tools=[add])) as sessions:
        assert "sorry" == await answer_to(sessions)
        status, content = (await results_of(sessions))["add"]

        assert "failed" == status
        assert "cannot be used" in content


async def test_tool_that_raises(autojump_clock: Any) -> None:
    """An error of a tool becomes an error result that the model can read. The other tools and the turn continue."""

    async def bad() -> str:
        """Fail."""
        raise ValueError("no such city")

    async def good() -> str:
        """Work."""
        await trio.sleep(1)
        return "fine"

    async with opened(make_agent([Call("bad"), Call("good")], "done", tools=[bad, good])) as sessions:
        assert "done" == await answer_to(sessions)
        results = await results_of(sessions)

        assert ("completed", "fine") == results["good"]
        assert "failed" == results["bad"][0]
        assert "no such city" in results["bad"][1]


async def test_tool_that_raises_a_group(autojump_clock: Any) -> None:
    """A group of a tool's own nursery is contained like any exception."""

    async def bad() -> str:
        """Fail twice."""

        async def fail() -> None:
            raise ValueError("inner")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(fail)
        return ""

    async with opened(make_agent(Call("bad"), "done", tools=[bad])) as sessions:
        assert "done" == await answer_to(sessions)

        assert "failed" == (await results_of(sessions))["bad"][0]


async def test_tool_results_of_all_kinds(autojump_clock: Any) -> None:
    """A tool returns str, JSON-able values, or ToolResult."""

    async def text() -> str:
        """Text."""
        return "plain"

    async def value() -> dict[str, int]:
        """Value."""
        return {"n": 1}

    async def result() -> ToolResult:
        """Result."""
        return ToolResult("it failed", is_error=True)

    async def odd() -> object:
        """Something that has no JSON."""
        return object()

    agent = make_agent([Call("text"), Call("value"), Call("result"), Call("odd")], "done", tools=[text, value, result, odd])
    async with opened(agent) as sessions:
        assert "done" == await answer_to(sessions)
        results = await results_of(sessions)

        assert [("completed", "plain"), ("failed", "it failed")] == [results["text"], results["result"]]
        assert ("completed", {"n": 1}) == (results["value"][0], __import__("json").loads(results["value"][1]))
        assert results["odd"][1]


class AboveThousand(Middleware):
    """Has people decide about amounts above 1000, and looks at the arguments as they are."""

    async def claim(self, context: Any, call: Any, tool: Any) -> Any:
        amount = call.arguments.get("amount", 0)
        assert isinstance(amount, int)
        return pending(call, allowed=("approve", "edit", "reject")) if amount > 1000 else None


async def test_gate_when_a_model_writes_loosely(autojump_clock: Any) -> None:
    """A gate sees the arguments as the function gets them, whatever form the model wrote them in; so do people, and so does an edit."""
    paid: list[int] = []

    async def pay(amount: int, note: str = "") -> str:
        """Pay."""
        paid.append(amount)
        return "paid"

    loose = [Call("pay", amount="5000", note=None), Call("pay", amount=7.0)]
    async with opened(make_agent(loose, "done", tools=[pay], middleware=[AboveThousand()])) as sessions:
        outcome = await ask(sessions)
        assert isinstance(outcome, Interrupted)
        (call,) = outcome.interrupt.calls

        assert ({"amount": 5000}, [7]) == (call.arguments, paid)
        outcome = await (await sessions.resume("c", [Edit(call, {"amount": "6000"})])).wait()
        assert isinstance(outcome, Completed)
    assert [7, 6000] == paid


class Proxy:
    """A proxy of an object that is gone: asking for its class raises an error."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise ReferenceError(name)


def holder() -> object:
    """Return a value that holds itself."""
    value: list[object] = []
    value.append(value)
    return value


async def hours() -> AsyncIterator[int]:
    """Count."""
    yield 1


RETURNED: Final[Mapping[str, Callable[[], object]]] = {
    "decimal": lambda: decimal.Decimal("20.00"),
    "datetime": lambda: datetime.datetime(2026, 1, 1, 12),
    "set": lambda: {"a", "b"},
    "inside": lambda: {1: {2: object()}},
    "nan": lambda: math.nan,
    "bytes": lambda: b"\xff",
    "range": lambda: range(10**9),
    "long": lambda: "x" * 10**6,
    "surrogate": lambda: "\ud800",
    "generator": hours,
    "iterator": lambda: iter([1]),
    "class": lambda: object,
    "circle": holder,
    "proxy": Proxy,
    "proxy inside": lambda: {"receipt": Proxy()},
    "bad content": lambda: ToolResult(5, value=Proxy()),
    "bad media": lambda: ToolResult("paid", is_error=None, media=[Proxy(), 5]),  # type: ignore[arg-type, list-item]  # wrong on purpose
}


@pytest.mark.parametrize("kind", RETURNED)
async def test_tool_that_returns_anything_after_its_effect(autojump_clock: Any, kind: str) -> None:
    """Whatever a tool returns, its effect has happened: the model reads that the call worked, and does not try again."""
    paid: list[int] = []

    async def pay() -> object:
        """Pay."""
        paid.append(1)
        return RETURNED[kind]()

    async with opened(make_agent(Call("pay"), "done", tools=[pay])) as sessions:
        assert "done" == await answer_to(sessions)
        status, content = (await results_of(sessions))["pay"]

        assert ("completed", [1]) == (status, paid)
        assert content


async def test_tool_in_a_thread_that_returns_anything_after_its_effect() -> None:
    """The same for tools that are plain functions."""
    paid: list[str] = []

    def pay(kind: str) -> object:
        """Pay."""
        paid.append(kind)
        return RETURNED[kind]()

    agent = make_agent([Call("pay", kind=kind) for kind in RETURNED], "done", tools=[pay])
    async with opened(agent) as sessions:
        assert "done" == await answer_to(sessions)
        results = [result for message in (await state_of(sessions)).messages for result in message.results]

        assert sorted(RETURNED) == sorted(paid)
        assert {"completed"} == {result.status for result in results}


async def test_tool_that_returns_a_coroutine() -> None:
    """A plain function that returns a coroutine, as some decorators do, is awaited, and an error in it is an error result."""
    paid: list[int] = []

    async def pay(amount: int) -> str:
        await trio.lowlevel.checkpoint()
        if amount > 5:
            raise ValueError("too much")
        paid.append(amount)
        return f"paid {amount}"

    def wrapped(amount: int) -> Any:
        """Pay."""
        return pay(amount)

    agent = make_agent([Call("wrapped", amount=5), Call("wrapped", amount=6)], "done", tools=[wrapped])
    async with opened(agent) as sessions:
        assert "done" == await answer_to(sessions)
        results = [result for message in (await state_of(sessions)).messages for result in message.results]

        assert [("completed", "paid 5"), ("failed", "ValueError: too much")] == sorted((one.status, one.content) for one in results)
        assert [5] == paid


async def test_tool_that_returns_images_and_files(autojump_clock: Any) -> None:
    """Images and files are in the history that the model gets, and in rows of their own; after a restart, too."""
    picture, sheet = ImagePart("image/png", data="QUJD"), FilePart("a.pdf", "application/pdf", "QUJD")

    async def look() -> ToolResult:
        """Look."""
        return ToolResult("seen", media=[picture, sheet])

    async def shoot() -> dict[str, object]:
        """Take a picture."""
        return {"size": 3, "shot": picture}

    agent = make_agent([Call("look"), Call("shoot")], "done", "again", tools=[look, shoot])
    async with opened(agent) as sessions:
        await answer_to(sessions)
        await sessions.stop("c")
        await answer_to(sessions)
        (model,) = [agent.model]
        assert isinstance(model, ScriptedModel)
        for request in model.requests[1:]:
            results = {result.name: result for message in request.messages for result in message.results}
            assert [(picture, sheet), (picture,)] == [results["look"].media, results["shoot"].media]
            assert '{"size": 3, "shot": "[image: image/png, 3 bytes]"}' == results["shoot"].content
        rows = (await sessions.history("c")).rows
        ids = {row.content["tool_call_id"] for row in rows if row.content_type == "tool_result"}

        assert ["file_reference", "image", "image"] == sorted(row.content_type for row in rows if "mime_type" in row.content)
        assert ids == {row.content["tool_call_id"] for row in rows if row.content_type == "image"}


async def test_tool_timeout(autojump_clock: Any) -> None:
    """A call over tool_timeout is answered with an error that the model reads; the others are not harmed."""

    async def slow() -> str:
        """Take long."""
        await trio.sleep(1000)
        return "never"

    async def quick() -> str:
        """Take a little."""
        await trio.sleep(4)
        return "quick"

    agent = make_agent([Call("slow"), Call("quick")], "done", tools=[slow, quick], limits=TurnLimits(tool_timeout=5.0))
    async with opened(agent) as sessions:
        assert "done" == await answer_to(sessions)
        results = await results_of(sessions)

        assert 5 <= trio.current_time() <= 6
        assert ("failed", ("completed", "quick")) == (results["slow"][0], results["quick"])


async def test_tool_context(autojump_clock: Any) -> None:
    """A parameter annotated ToolContext receives conversation id, call id, idempotency key and the committed state."""
    seen: list[ToolContext] = []

    async def look(context: ToolContext) -> str:
        """Look."""
        seen.append(context)
        return "ok"

    agent = make_agent([Call("look"), Call("look")], "done", tools=[look])
    async with opened(agent) as sessions:
        await answer_to(sessions, "hello")

        assert 2 == len({context.call_id for context in seen}) == len({context.idempotency_key for context in seen})
        assert {"c"} == {context.conversation_id for context in seen}
        assert "hello" == seen[0].state.messages[0].text
        assert {call.call_id for call in (await state_of(sessions)).messages[1].calls} == {context.call_id for context in seen}


async def test_output_that_is_too_long(autojump_clock: Any) -> None:
    """The output of one call is cut to max_tool_output_bytes, with a mark, and the turn continues."""

    async def flood() -> str:
        """Say much."""
        return "é" * 100_000

    async with opened(make_agent(Call("flood"), "done", tools=[flood]), policy={"max_tool_output_bytes": 1000}) as sessions:
        assert "done" == await answer_to(sessions)

        content = (await results_of(sessions))["flood"][1]
        assert 900 <= len(content.encode()) <= 1100
        assert "cut" in content


@pytest.mark.parametrize(
    ("limits", "limit"),
    [({"max_rounds": 3}, "max_rounds"), ({"max_calls": 3}, "max_calls"), ({"turn_timeout": 10.0}, "turn_timeout")],
    ids=str,
)
async def test_limits_of_a_turn(autojump_clock: Any, limits: Any, limit: str) -> None:
    """A turn that hits a limit ends as Failed(LimitExceeded), status error; the conversation is usable."""

    async def again() -> str:
        """Continue."""
        await trio.sleep(3)
        return "ok"

    said = "x"
    model = ScriptedModel(lambda request: Call("again") if said == "x" else "fine")
    async with opened(Agent(model=model, tools=[again], limits=TurnLimits(**limits))) as sessions:
        outcome = await ask(sessions)
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, LimitExceeded)
        assert limit == outcome.error.limit
        assert Status.ERROR is (await sessions.agent_info("c")).status
        check_valid((await state_of(sessions)).messages)
        said = "y"

        assert "fine" == await answer_to(sessions, "and now?")


async def test_limits_count_exactly(autojump_clock: Any) -> None:
    """max_rounds=3 allows exactly three model calls, and max_calls=2 exactly two tool calls."""
    agent = make_agent(Call("x"), Call("x"), "done", limits=TurnLimits(max_rounds=3, max_calls=2))
    async with opened(agent) as sessions:
        assert "done" == await answer_to(sessions)
    agent = make_agent(Call("x"), Call("x"), "done", limits=TurnLimits(max_rounds=2))
    async with opened(agent) as sessions:
        assert isinstance(await ask(sessions), Failed)

    assert 2 == len(agent.model.requests)


async def test_cancel_turn_keeps_the_partial_text(autojump_clock: Any) -> None:
    """cancel_turn returns the settled outcome. The text so far is kept and marked, and the agent continues."""
    async with opened(make_agent(["abc", Hang()], "next")) as sessions, sessions.watch("c") as watch:
        receipt = await sessions.post("c", "hi")
        await trio.sleep(1)
        outcome = await sessions.cancel_turn("c")
        seen = await read_until(watch, TurnEnded)
        *_, last = (await state_of(sessions)).messages

        assert Cancelled(CancelCause.USER) == outcome == await receipt.wait()
        assert ("abc", "cancelled") == (last.text, last.stop_reason)
        assert "abc" == text_in(seen)
        assert Status.CANCELLED is (await sessions.agent_info("c")).status
        assert "next" == await answer_to(sessions, "go on")


async def test_cancel_turn_when_nothing_runs(autojump_clock: Any) -> None:
    """cancel_turn gives None if no turn runs, or if another turn runs."""
    async with opened(make_agent(Hang())) as sessions, sessions.watch("c") as watch:
        assert await sessions.cancel_turn("c") is None
        await sessions.post("c", "hi")
        (started,) = of_kind(await read_until(watch, TurnStarted), TurnStarted)
        await trio.sleep(1)
        assert await sessions.cancel_turn("c", turn_id="another") is None
        info = await sessions.agent_info("c")
        assert (Status.RUNNING, started.turn_id) == (info.status, info.turn_id)

        assert Cancelled(CancelCause.USER) == await sessions.cancel_turn("c", turn_id=started.turn_id)
        assert (await sessions.agent_info("c")).turn_id is None


async def test_cancel_turn_of_a_sleeping_agent(autojump_clock: Any) -> None:
    """cancel_turn wakes nobody: None for a stored conversation."""
    async with opened() as sessions:
        await answer_to(sessions)
        await sessions.stop("c")

        assert await sessions.cancel_turn("c") is None
        assert not await sessions.running("c")


async def test_cancel_turn_cuts_tools_and_closes_their_calls(autojump_clock: Any) -> None:
    """Every open tool call is closed with an explicit outcome, what had returned is kept, in a valid history."""

    async def slow() -> str:
        """Take long."""
        await trio.sleep_forever()
        return ""

    async def quick() -> str:
        """Be quick."""
        return "fact"

    async with opened(make_agent(["text", Call("slow"), Call("quick")], "next", tools=[slow, quick])) as sessions:
        await sessions.post("c", "hi")
        await trio.sleep(1)
        await sessions.cancel_turn("c")
        results = await results_of(sessions)

        assert (("completed", "fact"), "cancelled") == (results["quick"], results["slow"][0])
        check_valid((await state_of(sessions)).messages)
        assert "next" == await answer_to(sessions, "go on")


async def test_cancel_turn_during_its_last_commit(autojump_clock: Any) -> None:
    """A turn whose model and tools had finished is Completed even if a cancel came during its commit."""
    store = FaultyStore()
    async with opened(make_agent("answer", chunk_interval=1.0), store=store) as sessions:
        receipt = await sessions.post("c", "hi")
        await trio.sleep(0.5)
        store.faults.latency["commit"] = 2.0
        await trio.sleep(4)
        outcome = await sessions.cancel_turn("c")

        assert isinstance(outcome, Completed)
        assert outcome == await receipt.wait()
        assert ("assistant", "answer", "stop") == (await transcript(sessions))[-1]


async def test_cancel_turn_from_its_own_tool(autojump_clock: Any) -> None:
    """A tool may cancel its own turn: no deadlock; the agent survives."""

    async def give_up() -> str:
        """Give up."""
        await sessions.cancel_turn("c")
        await trio.sleep(100)
        return "never"

    async with opened(make_agent(Call("give_up"), "next", tools=[give_up])) as sessions:
        assert Cancelled(CancelCause.USER) == await ask(sessions)
        assert "next" == await answer_to(sessions)
        assert trio.current_time() < 10


async def test_first_cause_wins(autojump_clock: Any) -> None:
    """Every cancellation carries its typed cause, and the first cause wins."""
    store = FaultyStore()
    async with opened(make_agent(Hang()), store=store) as sessions:
        receipt = await sessions.post("c", "hi")
        await trio.sleep(1)
        store.faults.latency["commit"] = 1.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sessions.cancel_turn, "c")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(sessions.stop, "c")

        assert Cancelled(CancelCause.USER) == await receipt.wait()


async def test_model_that_fails(autojump_clock: Any) -> None:
    """ModelFailed is visible, not fatal: ChainError, status error with a text, partial text kept; the conversation is usable."""
    error = ModelFailed("overloaded", retryable=True)
    agent = make_agent(["some", error], "fine", retry=RetryPolicy(attempts=1))
    async with opened(agent) as sessions, sessions.watch("c") as watch:
        outcome = await ask(sessions)
        seen = await read_until(watch, TurnEnded)
        await trio.sleep(0)
        assert Failed(error) == outcome
        assert [error] == [event.error for event in of_kind(seen, ChainError)]
        assert ("assistant", "some", "stream_error") == (await transcript(sessions))[-1]
        assert "fine" == await answer_to(sessions, "again")


async def test_model_failure_in_the_status(autojump_clock: Any) -> None:
    """StatusChanged(error) carries what went wrong as text."""
    async with opened(make_agent(ModelFailed("overloaded"))) as sessions, sessions.watch("c") as watch:
        await sessions.post("c", "hi")
        while True:
            event = (await watch.__anext__()).event
            if isinstance(event, StatusChanged) and event.status is Status.ERROR:
                break

        assert "overloaded" in event.data


@pytest.mark.parametrize(
    "error",
    [ValueError("nonsense"), KeyError("choices"), RuntimeError("pipe"), OSError("reset"), ExceptionGroup("g", [OSError("x")])],
    ids=repr,
)
async def test_model_that_raises_anything(autojump_clock: Any, error: Exception) -> None:
    """Whatever a provider's adapter raises is ModelFailed, from that error; the turn is settled, the agent lives."""
    async with opened(make_agent(["some", error], "fine")) as sessions:
        outcome = await ask(sessions)

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ModelFailed)
        assert error is outcome.error.__cause__
        assert "fine" == await answer_to(sessions, "again")


class RawModel:
    """A model that sends any chunks."""

    name = "raw"

    def __init__(self, *scripts: Any) -> None:
        self.scripts = list(scripts)
        self.open = 0

    def stream(self, request: Any) -> Any:
        chunks = self.scripts.pop(0)
        model = self

        class Stream:
            async def __aenter__(self) -> Any:
                model.open += 1
                return self.run()

            async def __aexit__(self, *_: object) -> None:
                model.open -= 1
                await self.iterator.aclose()

            def run(self) -> Any:
                self.iterator = self.generate()
                return self.iterator

            async def generate(self) -> Any:
                for chunk in chunks:
                    await trio.lowlevel.checkpoint()
                    yield chunk

        return Stream()


GOOD = [TextChunk("fine"), FinishChunk("stop")]


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [TextChunk("no end")],
        [FinishChunk("bananas")],
        [TextChunk("a"), FinishChunk("stop"), TextChunk("b"), FinishChunk("stop")],
        ["not a chunk"],
        [None],
        [TextChunk(42)],
        [TextChunk("\ud800"), FinishChunk("stop")],
        [ToolCallChunk(0, "id", ""), FinishChunk("tool_calls")],
        [ToolCallChunk(0, "id", 42), FinishChunk("tool_calls")],
        [ToolCallChunk(0, None, None, "{}"), FinishChunk("tool_calls")],
    ],
    ids=repr,
)
async def test_model_that_answers_nonsense(autojump_clock: Any, chunks: Any) -> None:
    """A provider that answers nonsense: ModelFailed, the turn settled, the conversation usable, the stream closed."""
    model = RawModel(chunks, GOOD)
    async with opened(Agent(model=model, retry=RetryPolicy(attempts=1))) as sessions:
        outcome = await ask(sessions)

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ModelFailed)
        assert 0 == model.open
        check_valid((await state_of(sessions)).messages)
        assert "fine" == await answer_to(sessions, "again")


@pytest.mark.parametrize(
    "arguments", ["{", "[1]", "null", "{'a': 1}", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 5000], ids=lambda text: text[:12]
)
async def test_model_that_sends_broken_arguments(autojump_clock: Any, arguments: str) -> None:
    """Arguments that are not a JSON object are answered in words that the model can act on, and the tool does not run."""

    async def tool(a: int) -> str:
        """Do."""
        raise AssertionError("it ran")

    model = RawModel([ToolCallChunk(0, "id", "tool", arguments), FinishChunk("tool_calls")], GOOD)
    async with opened(Agent(model=model, tools=[tool])) as sessions:
        assert "fine" == await answer_to(sessions)
        assert "failed" == (await results_of(sessions))["tool"][0]


async def test_model_that_repeats_call_ids(autojump_clock: Any) -> None:
    """A provider that repeats call ids, in one answer or over turns, cannot break the history."""

    async def tool() -> str:
        """Do."""
        return "ok"

    twice = [ToolCallChunk(0, "same", "tool"), ToolCallChunk(1, "same", "tool"), FinishChunk("tool_calls")]
    async with opened(Agent(model=RawModel(twice, GOOD, twice, GOOD), tools=[tool])) as sessions:
        await answer_to(sessions)
        await answer_to(sessions)
        state = await state_of(sessions)

        check_valid(state.messages)
        assert 4 == len({call.call_id for message in state.messages for call in message.calls})


async def test_model_that_runs_on(autojump_clock: Any) -> None:
    """An answer over max_message_bytes is a named limit error, and its text is kept within the limit."""
    model = RawModel([TextChunk("x" * 60), TextChunk("y" * 60), FinishChunk("stop")], GOOD)
    async with opened(Agent(model=model), policy={"max_message_bytes": 100}) as sessions:
        outcome = await ask(sessions)

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, LimitExceeded)
        assert "max_message_bytes" == outcome.error.limit
        assert "fine" == await answer_to(sessions, "again")


@pytest.mark.parametrize("reason", ["length", "content_filtered"])
async def test_model_that_was_cut_by_its_provider(autojump_clock: Any, reason: str) -> None:
    """length and content_filtered complete the turn, with that stop reason; tool calls of a cut answer are not run."""

    async def tool() -> str:
        """Do."""
        raise AssertionError("it ran")

    model = RawModel([TextChunk("some"), ToolCallChunk(0, "id", "tool", "{"), FinishChunk(reason)], GOOD)
    async with opened(Agent(model=model, tools=[tool])) as sessions:
        outcome = await ask(sessions)

        assert isinstance(outcome, Completed)
        assert ("some", reason) == (outcome.message.text, outcome.message.stop_reason)
        check_valid((await state_of(sessions)).messages)


async def test_thinking_and_usage(autojump_clock: Any) -> None:
    """Thinking is streamed and kept with its seal; usage is told, and summed over the turn."""
    first = [
        ThinkingChunk("hm"),
        ThinkingChunk("m", "seal"),
        TextChunk("a"),
        ToolCallChunk(0, "1", "no"),
        UsageChunk(Usage(10, 1)),
        FinishChunk("tool_calls"),
    ]
    second = [TextChunk("b"), UsageChunk(Usage(20, 2)), UsageChunk(Usage(0, 3)), FinishChunk("stop")]
    async with opened(Agent(model=RawModel(first, second))) as sessions, sessions.watch("c") as watch:
        outcome = await ask(sessions)
        seen = await read_until(watch, TurnEnded)

        assert isinstance(outcome, Completed)
        assert Usage(30, 6) == outcome.usage
        assert [Usage(10, 1), Usage(20, 5)] == [event.usage for event in of_kind(seen, TokenUsage)]
        assert "hmm" == "".join(event.text for event in of_kind(seen, ThinkingDelta))
        assert ThinkingPart("hmm", "seal") == (await state_of(sessions)).messages[1].parts[0]


async def test_model_sees_prompt_history_and_tools(autojump_clock: Any) -> None:
    """A request has the system prompt, the history oldest first, and the tools with their schemas."""

    async def add(a: int, b: int = 2) -> int:
        """Add two numbers.

        Args:
            a: the first.
            b: the second.
        """
        return a + b

    agent = make_agent("one", "two", tools=[add], system_prompt="Be brief.")
    async with opened(agent) as sessions:
        await answer_to(sessions, "q1")
        await answer_to(sessions, "q2")
    request = agent.model.requests[-1]

    assert "Be brief." == request.system
    assert ["q1", "one", "q2"] == [message.text for message in request.messages]
    (spec,) = request.tools
    assert ("add", "Add two numbers.") == (spec.name, spec.description)
    assert {"a", "b"} == set(spec.parameters["properties"])
    assert ["a"] == spec.parameters["required"]


async def test_tool_that_ignores_cancellation(autojump_clock: Any) -> None:
    """An async tool that shields itself is named by ToolIgnoresCancellation after cancel_grace; the turn ends when it does."""

    async def stubborn() -> str:
        """Shield."""
        with trio.CancelScope(shield=True):
            await trio.sleep(50)
        return "done all the same"

    async with (
        opened(make_agent(Call("stubborn"), "next", tools=[stubborn]), policy={"cancel_grace": 5.0}) as sessions,
        sessions.watch("c") as watch,
    ):
        receipt = await sessions.post("c", "hi")
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sessions.cancel_turn, "c")
            (event,) = of_kind(await read_until(watch, ToolIgnoresCancellation), ToolIgnoresCancellation)
            assert 6 <= trio.current_time() <= 7
        assert "stubborn" == event.call.name
        assert Cancelled(CancelCause.USER) == await receipt.wait()

        assert 50 <= trio.current_time() <= 52
        assert ("completed", "done all the same") == (await results_of(sessions))["stubborn"]


@pytest.mark.parametrize("how", ["stop", "leave", "interrupt", "drain"])
async def test_tool_that_ignores_any_cancellation_is_named(autojump_clock: Any, how: str) -> None:
    """The tool is named whatever cut the turn: a stop, leaving, an interrupting post, a drain."""

    async def stubborn() -> str:
        """Shield."""
        with trio.CancelScope(shield=True):
            await trio.sleep(60)
        return "done"

    named: list[float] = []

    async def listen() -> None:
        async with sessions.open_subscriber() as subscriber:
            await subscriber.subscribe("c")
            await read_until(subscriber, ToolIgnoresCancellation)
            named.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        async with opened_with_grace(make_agent(Call("stubborn"), "next", tools=[stubborn])) as sessions:
            nursery.start_soon(listen)
            await trio.sleep(1)
            await sessions.post("c", "hi")
            await trio.sleep(1)
            match how:
                case "stop":
                    await sessions.stop("c")
                case "interrupt":
                    await sessions.post("c", "now", overlap="interrupt")
                    await trio.sleep(100)
                case "drain":
                    await sessions.drain()
        nursery.cancel_scope.cancel()

    assert 1 == len(named)
    assert 6 <= named[0] <= 40


def opened_with_grace(agent: Any) -> Any:
    from tests.support.scenarios import make_config
    from trio_sagents import open_sessions

    return open_sessions(make_config(agent, policy={"cancel_grace": 5.0, "grace_period": 10.0}))


async def test_sync_tool_that_goes_on_is_unknown() -> None:
    """A cut sync tool's thread may finish on its own: its result is discarded and the call marked unknown; the stop does not wait."""
    release, began, ended = threading.Event(), trio.Event(), threading.Event()

    def block() -> str:
        """Block."""
        trio.from_thread.run_sync(began.set)
        release.wait(10)
        ended.set()
        return "too late"

    async with opened(make_agent(Call("block"), "next", tools=[block])) as sessions:
        await sessions.post("c", "hi")
        await began.wait()
        outcome = await sessions.cancel_turn("c")
        release.set()
        await trio.to_thread.run_sync(ended.wait)

        assert Cancelled(CancelCause.USER) == outcome
        status, content = (await results_of(sessions))["block"]
        assert "unknown" == status
        assert "unknown" in content.lower()
        assert "next" == await answer_to(sessions, "go on")


async def test_tool_execution_events_of_a_cut_turn(autojump_clock: Any) -> None:
    """Each call that was cut is told as such, before the turn's end."""

    async def slow() -> str:
        """Take long."""
        await trio.sleep_forever()
        return ""

    async with opened(make_agent(Call("slow"), tools=[slow])) as sessions, sessions.watch("c") as watch:
        await sessions.post("c", "hi")
        await trio.sleep(1)
        await sessions.cancel_turn("c")
        seen = await read_until(watch, TurnEnded)

        assert ["executing", "cancelled"] == [event.status for event in of_kind(seen, ToolExecutionUpdated)]


async def test_wait_idle(autojump_clock: Any) -> None:
    """wait_idle: nothing runs, nothing runnable is queued, nothing is being accepted."""
    store = FaultyStore()
    store.faults.latency["commit"] = 1.0
    async with opened(make_agent(chunk_interval=1.0), store=store) as sessions:
        agent = (await sessions.start("c")).agent
        await agent.wait_idle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.post, "one")
            await trio.sleep(0.5)
            await agent.wait_idle()

            assert ["one", "re: one"] == [message.text for message in (await agent.state()).messages]
            assert Status.IDLE is (await agent.info()).status


async def test_last_text(autojump_clock: Any) -> None:
    """State.last_text is the last thing the agent said."""
    async with opened() as sessions:
        await answer_to(sessions, "one")

        assert "re: one" == (await state_of(sessions)).last_text


def test_agent_that_cannot_be() -> None:
    """An agent is checked when it is built."""

    async def same() -> str:
        """Do."""
        return ""

    def unannotated(a):  # type: ignore[no-untyped-def]  # that is the mistake
        """Do."""

    with pytest.raises(TypeError, match="model"):
        Agent(model="gpt")
    with pytest.raises(TypeError, match="unannotated"):
        make_agent(tools=[unannotated])
    with pytest.raises(ValueError, match="same"):
        make_agent(tools=[same, same])
    with pytest.raises(TypeError, match="tools"):
        make_agent(tools="tool")
    with pytest.raises((TypeError, ValueError), match="max_rounds"):
        TurnLimits(max_rounds=0)
    with pytest.raises((TypeError, ValueError), match="turn_timeout"):
        TurnLimits(turn_timeout=0)
