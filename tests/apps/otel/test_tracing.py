"""Spans of sessions, turns, model calls and tool calls: each below the right parent, each with its end."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from opentelemetry import trace

from tests.apps.otel._kit import Spans, status, told
from trio_sagents import (
    Agent,
    Approve,
    Completed,
    Failed,
    Interrupted,
    MemoryStore,
    ModelFailed,
    SessionConfig,
    Sessions,
    SingleFactoryRouter,
    ToolContext,
    TurnOutcome,
    Usage,
    UsageChunk,
    open_sessions,
)
from trio_sagents.middleware import Approvals
from trio_sagents.otel import Tracing
from trio_sagents.testing import Call, Hang, ScriptedModel


def setup(
    spans: Spans, *replies: Any, tools: Sequence[Any] = (), name: str | None = "helper", middleware: Sequence[Any] = (), **settings: Any
):
    """Return the config of sessions whose agent is traced; all conversations share the script."""
    tracing = Tracing(spans.provider, **settings)
    agent = Agent(model=ScriptedModel(list(replies)), tools=tools, name=name, middleware=[tracing, *middleware])
    return SessionConfig(factory_router=SingleFactoryRouter(agent), store=MemoryStore())


async def turn(sessions: Sessions, conversation_id: str = "1", text: str = "go") -> TurnOutcome:
    """Post, and wait for the end of the turn."""
    return await (await sessions.post(conversation_id, text)).wait()


async def add(a: int, b: int) -> int:
    await trio.sleep(a)
    return a + b


async def hang() -> None:
    await trio.sleep_forever()


async def fail() -> None:
    raise ValueError("the password is hunter22")


async def test_turn_when_tools_run_side_by_side(autojump_clock: Any, spans: Spans) -> None:
    """Each call is below its turn, whatever runs beside it; the spans have the names and attributes of the conventions."""
    async with open_sessions(setup(spans, [Call("add", a=2, b=1), Call("add", a=1, b=2)], "done", tools=[add])) as sessions:
        assert isinstance(await turn(sessions), Completed)

    assert [
        "session",
        "session > invoke_agent helper",
        "session > invoke_agent helper > chat scripted",
        "session > invoke_agent helper > chat scripted",
        "session > invoke_agent helper > execute_tool add",
        "session > invoke_agent helper > execute_tool add",
    ] == spans.tree()
    tools = spans.named("execute_tool add")
    assert ["call-2", "call-1"] == [told(span)["gen_ai.tool.call.id"] for span in tools]
    assert {("UNSET", None)} == {status(span) for span in spans.ended}
    assert ["CLIENT", "CLIENT"] == [span.kind.name for span in spans.named("chat scripted")]
    assert {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.provider.name": "ScriptedModel",
        "gen_ai.conversation.id": "1",
        "gen_ai.agent.id": "conversation-1",
        "gen_ai.agent.name": "helper",
        "gen_ai.tool.name": "add",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "call-1",
        "trio_sagents.tool.status": "completed",
        "trio_sagents.turn.id": told(spans.one("invoke_agent helper"))["trio_sagents.turn.id"],
    } == told(tools[1])
    assert ["tool_calls", "stop"] == [told(span)["gen_ai.response.finish_reasons"][0] for span in spans.named("chat scripted")]
    assert "completed" == told(spans.one("invoke_agent helper"))["trio_sagents.turn.outcome"]


class Counting:
    """A model that counts tokens."""

    name = "counting"

    def __init__(self) -> None:
        self._inner = ScriptedModel(["hi"])

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[Any]:
        async with self._inner.stream(request) as chunks:
            yield self._chunks(chunks)

    async def _chunks(self, chunks: Any) -> AsyncIterator[Any]:
        yield UsageChunk(Usage(10, 5, 3, 2))
        async for chunk in chunks:
            yield chunk


async def test_usage_when_counted(autojump_clock: Any, spans: Spans) -> None:
    """Tokens are on the call and on the turn; the provider may be named."""
    agent = Agent(model=Counting(), middleware=[Tracing(spans.provider, provider_name="acme")])
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent), store=MemoryStore())) as sessions:
        await turn(sessions)

    for span in (spans.one("chat counting"), spans.one("invoke_agent")):
        found = {name: value for name, value in told(span).items() if ".usage." in name}
        assert {
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 5,
            "gen_ai.usage.cache_read.input_tokens": 3,
            "gen_ai.usage.cache_creation.input_tokens": 2,
        } == found
        assert ("counting", "acme") == (told(span)["gen_ai.request.model"], told(span)["gen_ai.provider.name"])


async def test_tool_when_cancelled(autojump_clock: Any, spans: Spans) -> None:
    """If a turn is cut during a tool, the spans of the tool and of the turn say so, and the next turn is not below them."""
    config = setup(spans, [Call("hang"), Call("add", a=1, b=1)], "done", tools=[hang, add])
    async with open_sessions(config) as sessions:
        receipt = await sessions.post("1", "go")
        await trio.sleep(10)
        await sessions.cancel_turn("1")
        await receipt.wait()
        await turn(sessions)

    first, second = spans.named("invoke_agent helper")
    assert ("ERROR", "cancelled") == status(spans.one("execute_tool hang"))
    assert told(spans.one("execute_tool hang"))["trio_sagents.cancelled"]
    assert "user" == told(first)["trio_sagents.cancel.cause"]
    assert ("UNSET", None) == status(spans.one("execute_tool add"))
    assert [("ERROR", "cancelled"), ("UNSET", None)] == [status(first), status(second)]
    assert ["cancelled", "completed"] == [told(span)["trio_sagents.turn.outcome"] for span in (first, second)]
    assert ["session", "invoke_agent helper", "chat scripted"] == spans.way(spans.named("chat scripted")[1])
    assert second.context.span_id == spans.parent(spans.named("chat scripted")[1]).context.span_id
    assert first.end_time <= second.start_time


async def test_agent_when_stopped_in_mid_tool(autojump_clock: Any, spans: Spans) -> None:
    """Stopping the agent ends every span, from the inside out."""
    async with open_sessions(setup(spans, [Call("hang")], tools=[hang])) as sessions:
        await sessions.post("1", "go")
        await trio.sleep(10)
        await sessions.stop("1")

        assert ["chat scripted", "execute_tool hang", "invoke_agent helper", "session"] == [span.name for span in spans.ended]
    assert [("UNSET", None), ("ERROR", "cancelled"), ("ERROR", "cancelled"), ("UNSET", None)] == [status(span) for span in spans.ended]


async def test_model_when_cancelled(autojump_clock: Any, spans: Spans) -> None:
    """A model call that is cut is recorded as that."""
    async with open_sessions(setup(spans, ["partial", Hang()])) as sessions:
        await sessions.post("1", "go")
        await trio.sleep(10)
        await sessions.stop("1")

    assert ("ERROR", "cancelled") == status(spans.one("chat scripted"))
    assert "session" == spans.ended[-1].name


async def test_model_when_failing(autojump_clock: Any, spans: Spans) -> None:
    """A failed model call has the kind of its error, on the call and on the turn, and not the error's text."""
    async with open_sessions(setup(spans, ModelFailed("the key hunter22 is wrong"))) as sessions:
        assert isinstance(await turn(sessions), Failed)

    assert ("ERROR", "ModelFailed") == status(spans.one("chat scripted"))
    assert ("ERROR", "ModelFailed") == status(spans.one("invoke_agent helper"))
    assert "failed" == told(spans.one("invoke_agent helper"))["trio_sagents.turn.outcome"]
    assert "hunter22" not in "".join(span.to_json() for span in spans.ended)


async def test_model_when_a_fallback_answers(autojump_clock: Any, spans: Spans) -> None:
    """The span says who was asked, and who answered."""
    first, second = ScriptedModel([ModelFailed("down")]), ScriptedModel(["done"])
    first.name, second.name = "first", "second"
    agent = Agent(model=first, fallbacks=[second], middleware=[Tracing(spans.provider)])
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        await turn(sessions)

    (span,) = spans.named("chat first")
    assert ("first", "second") == (told(span)["gen_ai.request.model"], told(span)["gen_ai.response.model"])


async def test_model_when_it_has_no_name(autojump_clock: Any, spans: Spans) -> None:
    """The name of the model's class is used instead, and no turn fails."""

    class Nameless:
        stream = ScriptedModel(["done"]).stream

    agent = Agent(model=Nameless(), middleware=[Tracing(spans.provider)])  # type: ignore[arg-type]  # a model has a name, by contract
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        assert isinstance(await turn(sessions), Completed)

    assert "Nameless" == told(spans.one("chat Nameless"))["gen_ai.request.model"]


async def test_tool_when_failing(autojump_clock: Any, spans: Spans) -> None:
    """A failed tool call is an error of the call, not of the turn."""
    async with open_sessions(setup(spans, [Call("fail")], "done", tools=[fail])) as sessions:
        await turn(sessions)

    assert ("ERROR", "tool_failed") == status(spans.one("execute_tool fail"))
    assert ("UNSET", None) == status(spans.one("invoke_agent helper"))
    assert "hunter22" not in "".join(span.to_json() for span in spans.ended)


async def test_sessions_when_interleaved(autojump_clock: Any, spans: Spans) -> None:
    """Two sessions at once are two traces, and no span is in the other's."""
    agent = Agent(
        model=ScriptedModel(lambda request: "done" if request.messages[-1].results else [Call("add", a=3, b=4)], chunk_interval=1),
        tools=[add],
        middleware=[Tracing(spans.provider)],
    )
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent), store=MemoryStore())) as sessions:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turn, sessions, "1")
            nursery.start_soon(turn, sessions, "2")

    traces: dict[str, set[int]] = {}
    for span in spans.ended:
        traces.setdefault(told(span)["gen_ai.conversation.id"], set()).add(span.context.trace_id)
    assert [1, 1] == [len(ids) for ids in traces.values()]
    assert traces["1"] != traces["2"]
    assert 2 * 5 == len(spans.ended)
    for span in spans.ended:
        assert told(span)["gen_ai.conversation.id"] == told(spans.parent(span) or span)["gen_ai.conversation.id"]


async def test_sub_agent_when_traced(autojump_clock: Any, spans: Spans) -> None:
    """A sub-agent's turn is below the tool call that it runs in."""
    inner = Agent(model=ScriptedModel([[Call("add", a=1, b=1)], "inner"]), tools=[add], middleware=[Tracing(spans.provider)])

    async def delegate(context: ToolContext) -> str:
        return (await context.run_agent(inner, "do it", name="worker")).message.text

    async with open_sessions(setup(spans, [Call("delegate"), Call("add", a=5, b=1)], "done", tools=[delegate, add])) as sessions:
        assert isinstance(await turn(sessions), Completed)

    below = "session > invoke_agent helper > execute_tool delegate > invoke_agent worker"
    assert [below, f"{below} > chat scripted", f"{below} > chat scripted", f"{below} > execute_tool add"] == [
        way for way in spans.tree() if way.startswith(below)
    ]
    assert ("worker",) == told(spans.one("invoke_agent worker"))["trio_sagents.sub_agent.path"]
    assert "completed" == told(spans.one("invoke_agent worker"))["trio_sagents.turn.outcome"]


async def test_sub_agent_when_cancelled(autojump_clock: Any, spans: Spans) -> None:
    """A sub-agent that is cut with its call leaves no open span."""
    inner = Agent(model=ScriptedModel([[Call("hang")]]), tools=[hang], middleware=[Tracing(spans.provider)])

    async def delegate(context: ToolContext) -> str:
        return (await context.run_agent(inner, "do it", name="worker")).message.text

    async with open_sessions(setup(spans, [Call("delegate")], tools=[delegate])) as sessions:
        await sessions.post("1", "go")
        await trio.sleep(10)
        await sessions.stop("1")

    below = "session > invoke_agent helper > execute_tool delegate > invoke_agent worker"
    assert f"{below} > execute_tool hang" in spans.tree()
    assert ("ERROR", "cancelled") == status(spans.one("invoke_agent worker"))


async def test_sub_agent_when_it_waits_for_a_person(autojump_clock: Any, spans: Spans) -> None:
    """A call whose sub-agent waits is interrupted, which is not an error. When it continues, it is below the call's new span."""
    tracing = Tracing(spans.provider)
    inner = Agent(model=ScriptedModel([[Call("add", a=1, b=1)], "inner"]), tools=[add], middleware=[tracing, Approvals({"add": True})])

    async def delegate(context: ToolContext) -> str:
        return (await context.run_agent(inner, "do it", name="worker")).message.text

    async with open_sessions(setup(spans, [Call("delegate")], "done", tools=[delegate])) as sessions:
        outcome = await turn(sessions)
        assert isinstance(outcome, Interrupted)
        receipt = await sessions.resume("1", [Approve(call) for call in outcome.interrupt.calls])
        assert isinstance(await receipt.wait(), Completed)

    assert {("UNSET", None)} == {status(span) for span in spans.ended}
    for name in ("invoke_agent helper", "invoke_agent worker"):
        assert ["interrupted", "completed"] == [told(span)["trio_sagents.turn.outcome"] for span in spans.named(name)]
    calls = spans.named("execute_tool delegate")
    assert [span.context.span_id for span in calls] == [spans.parent(span).context.span_id for span in spans.named("invoke_agent worker")]
    assert "session > invoke_agent helper > execute_tool delegate > invoke_agent worker > execute_tool add" in spans.tree()


async def test_turn_when_it_goes_on_after_an_interrupt(autojump_clock: Any, spans: Spans) -> None:
    """The part before the decision is interrupted, which is not an error. The part after the decision has its own span."""
    config = setup(spans, [Call("add", a=1, b=1)], "done", tools=[add], middleware=[Approvals({"add": True})])
    async with open_sessions(config) as sessions:
        outcome = await turn(sessions)
        assert isinstance(outcome, Interrupted)
        receipt = await sessions.resume("1", [Approve(call) for call in outcome.interrupt.calls])
        assert isinstance(await receipt.wait(), Completed)

    first, second = spans.named("invoke_agent helper")
    assert ["interrupted", "completed"] == [told(span)["trio_sagents.turn.outcome"] for span in (first, second)]
    assert [None, True] == [told(span).get("trio_sagents.turn.resumed") for span in (first, second)]
    assert told(first)["trio_sagents.turn.id"] == told(second)["trio_sagents.turn.id"]
    assert second.context.span_id == spans.parent(spans.one("execute_tool add")).context.span_id
    assert {("UNSET", None)} == {status(span) for span in spans.ended}


async def test_parent_when_the_poster_is_traced(autojump_clock: Any, spans: Spans) -> None:
    """A turn is never below the span of the poster, which may end earlier. The turn has a link to it."""
    tracer = spans.provider.get_tracer("host")
    async with open_sessions(setup(spans, "done", "done")) as sessions:
        with tracer.start_as_current_span("request"):
            await turn(sessions)
        await turn(sessions)

    first, second = spans.named("invoke_agent helper")
    assert ["session", "session"] == [spans.way(span)[0] for span in (first, second)]
    assert [spans.one("request").context.span_id] == [link.context.span_id for link in first.links]
    assert spans.parent(spans.one("request")) is None


@pytest.mark.parametrize("is_sync", [False, True])
async def test_host_spans_when_made_in_a_tool(autojump_clock: Any, spans: Spans, is_sync: bool) -> None:
    """A host's span in a tool is below the tool's call, also in a thread. No span stays active afterwards."""
    tracer = spans.provider.get_tracer("host")

    async def work(which: int) -> str:
        await trio.sleep(which)
        with tracer.start_as_current_span(f"query {which}"):
            await trio.sleep(3)
        return "worked"

    def work_in_thread(which: int) -> str:
        with tracer.start_as_current_span(f"query {which}"):
            return "worked"

    tool: Callable[..., Any] = work_in_thread if is_sync else work
    async with open_sessions(setup(spans, [Call(tool.__name__, which=1), Call(tool.__name__, which=2)], "done", tools=[tool])) as sessions:
        await turn(sessions)

    for which in (1, 2):
        parent = spans.parent(spans.one(f"query {which}"))
        assert f"call-{which}" == told(parent)["gen_ai.tool.call.id"]
    assert not trace.get_current_span().get_span_context().is_valid


async def test_contents_when_opted_in(autojump_clock: Any, spans: Spans) -> None:
    """With `contents=True`, spans hold the messages in the form of the conventions."""
    agent = Agent(
        model=ScriptedModel([[Call("add", a=1, b=2)], "done"]),
        system_prompt="Be brief.",
        tools=[add],
        middleware=[Tracing(spans.provider, contents=True)],
    )
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent), store=MemoryStore())) as sessions:
        await turn(sessions, text="add them")
    call, answer = spans.named("chat scripted")

    assert [{"type": "text", "content": "Be brief."}] == json.loads(told(call)["gen_ai.system_instructions"])
    assert [{"role": "user", "parts": [{"type": "text", "content": "add them"}]}] == json.loads(told(call)["gen_ai.input.messages"])
    assert [{"type": "tool_call", "id": "call-1", "name": "add", "arguments": {"a": 1, "b": 2}}] == json.loads(
        told(call)["gen_ai.output.messages"]
    )[0]["parts"]
    assert {"type": "tool_call_response", "id": "call-1", "response": "3"} in json.loads(told(answer)["gen_ai.input.messages"])[2]["parts"]
    tool = told(spans.one("execute_tool add"))
    assert ({"a": 1, "b": 2}, "3") == (json.loads(tool["gen_ai.tool.call.arguments"]), json.loads(tool["gen_ai.tool.call.result"]))


async def test_contents_when_not_opted_in(autojump_clock: Any, spans: Spans) -> None:
    """By default no span holds a word of a message."""

    async def look_up(name: str) -> str:
        return f"result-secret of {name}"

    config = setup(spans, [Call("look_up", name="argument-secret")], "answer-secret", tools=[look_up])
    async with open_sessions(config) as sessions:
        await turn(sessions, text="question-secret")

    assert "secret" not in "".join(span.to_json() for span in spans.ended)


async def test_agent_when_started_again(autojump_clock: Any, spans: Spans) -> None:
    """Each life of an agent is a session of its own."""
    async with open_sessions(setup(spans, "one", "two")) as sessions:
        await turn(sessions)
        await sessions.stop("1")
        await turn(sessions)

    assert 2 == len(spans.named("session"))
    assert 2 == len({span.context.trace_id for span in spans.ended})


async def test_tracing_when_nothing_is_configured(autojump_clock: Any) -> None:
    """Without a provider there are neither spans nor errors."""
    agent = Agent(model=ScriptedModel(["done"]), middleware=[Tracing()])
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent), store=MemoryStore())) as sessions:
        assert isinstance(await turn(sessions), Completed)
