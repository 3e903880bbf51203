"""What holds when the tools of an MCP server meet another feature, for the pairs that no other test is about."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
from mcp.server.mcpserver import MCPServer

from tests.apps.mcp._kit import in_memory, quirky
from tests.support.people import Meanwhile, World, call_of, scripted, text_of
from trio_sagents import Agent, Answer, Approve, AskUser, Budget, Failed, Halt, LimitExceeded, SubAgents, Task
from trio_sagents.mcp import Mcp, is_mcp_tool
from trio_sagents.middleware import Approvals, Summarization
from trio_sagents.testing import Call, ScriptedModel
from trio_sagents.testing.mcp_server import QuirkyServer


def slow_server(log: list[str]) -> MCPServer:
    """Return a server with a slow tool; `log` tells what became of its calls."""
    server = MCPServer("memory")

    @server.tool()
    async def slow(seconds: float) -> str:
        log.append("began")
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            log.append("cancelled")
            raise
        log.append("ended")
        return "slept"

    return server


def asking(mcp: Mcp, *replies: Any, more: Any = (), tools: Any = ()) -> Callable[[], Agent]:
    """Return agents whose calls of the server's tools need an approval; the replies go on from one agent to the next."""
    model = ScriptedModel(list(replies))
    return lambda: Agent(model=model, tools=tools, middleware=[mcp, Approvals({}, when=is_mcp_tool), AskUser(), *more])


@pytest.mark.parametrize("how", ["awake", "restarted"])
async def test_question_beside_a_call_of_a_server(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, how: Meanwhile) -> None:
    """One interrupt holds both, and an answer of a person never reaches the server: only the approved call does."""
    server = QuirkyServer()
    async with quirky(server, monkeypatch) as connection:
        calls = [Call("ask_user", question="Which?"), Call("echo", text="hello")]
        async with World(asking(Mcp(connection), calls, "done")) as world:
            interrupt = await world.ask()
            await world.decide(Answer(call_of(interrupt, "ask_user"), value="this"))
            await world.pass_time(how)
            assert [] == server.calls
            assert "done" == text_of(await world.decide(Approve(call_of(interrupt, "echo"))))
            results = await world.results()

    assert [("echo", {"text": "hello"})] == server.calls
    assert ("completed", "this") == results["ask_user"]


@pytest.mark.parametrize("begun", [False, True], ids=["before the call begins", "while the call runs"])
async def test_halt_beside_a_call_of_a_server(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    """A call that has not begun never reaches the server; a call that runs is cancelled there, and the connection continues."""
    log: list[str] = []

    async def stop() -> Halt:
        """Stop."""
        await trio.sleep(1 if begun else 0)
        return Halt("no further")

    async with in_memory(slow_server(log), monkeypatch) as connection:
        gates = [] if begun else [Approvals({}, when=is_mcp_tool)]
        agent = scripted(
            [Call("slow", seconds=100), Call("stop")], [Call("slow", seconds=2)], "end", tools=[stop], middleware=[Mcp(connection), *gates]
        )
        async with World(agent) as world:
            interrupt = await world.ask()
            assert "halt" == interrupt.kind
            assert trio.current_time() < 50
            assert (["began", "cancelled"] if begun else []) == log
            await world.dismiss()
            outcome = await world.post("again")
            if not begun:
                outcome = await world.decide(*[Approve(call) for call in outcome.interrupt.calls])  # type: ignore[union-attr]  # it asks again
            assert "end" == text_of(outcome)
    assert ["began", "ended"] == log[-2:]


@pytest.mark.parametrize("how", ["awake", "asleep", "restarted"])
async def test_sub_agent_with_a_server_of_its_own(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, how: Meanwhile) -> None:
    """People are asked about its calls by the gate of the parent, and told where the tool comes from; the call runs when it is approved."""
    server = QuirkyServer()
    async with quirky(server, monkeypatch) as connection:
        inner = ScriptedModel(lambda request: "did it" if request.messages[-1].role == "tool" else Call("echo", text="inside"))
        task = Task(name="t", description="d", model=inner, middleware=[Mcp(connection)])
        model = ScriptedModel([Call("task", name="t", instructions="Go."), "done"])
        middleware = [Approvals({}, when=is_mcp_tool), SubAgents([task], general_purpose=False)]
        async with World(lambda: Agent(model=model, middleware=middleware)) as world:
            (call,) = (await world.ask()).calls
            assert (("t",), "echo", "mcp:memory") == (call.path, call.name, call.origin)
            await world.pass_time(how)
            assert [] == server.calls
            assert "done" == text_of(await world.decide(Approve(call)))

    assert [("echo", {"text": "inside"})] == server.calls


async def test_budget_when_calls_go_to_a_server(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of a server's tools count as any others: the call over the limit never reaches the server, and its sibling there ends."""
    server = QuirkyServer()
    async with quirky(server, monkeypatch) as connection:
        calls = [Call("echo", text=str(number)) for number in range(3)]
        async with World(scripted(calls, "never", middleware=[Budget(max_tool_calls=2), Mcp(connection)])) as world:
            outcome = await world.post()

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, LimitExceeded)
    assert "budget_tool_calls" == outcome.error.limit
    assert 2 == len(server.calls)


async def test_summary_when_a_server_gave_the_results(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server returned is summed up as any other result; the calls are not made again, and the history is whole."""
    server = QuirkyServer()
    summarizer = ScriptedModel([f"S{number}" for number in range(1, 9)])
    short = Summarization(trigger_tokens=60, keep_messages=2, estimate=lambda request: 10 * len(request.messages), model=summarizer)
    async with quirky(server, monkeypatch) as connection:
        agent = scripted(Call("echo", text="a"), "one", Call("echo", text="b"), "two", "three", middleware=[Mcp(connection), short])
        async with World(agent) as world:
            for text in ("first", "second", "third"):
                await world.post(text)
            messages = await world.messages()
    (request, *_) = summarizer.requests

    assert "echo" in request.messages[-1].text
    assert [("echo", {"text": "a"}), ("echo", {"text": "b"})] == server.calls
    assert 2 == len([result for message in messages for result in message.results])
    assert "first" == messages[0].text


async def test_message_instead_of_an_approval_of_a_server_call(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waited is closed on record and never reaches the server; a message that interrupts a running call cancels it there."""
    log: list[str] = []
    async with in_memory(slow_server(log), monkeypatch) as connection:
        make = asking(Mcp(connection), Call("slow", seconds=1), "never mind", Call("slow", seconds=100), "stopped")
        async with World(make) as world:
            await world.ask()
            assert "never mind" == text_of(await world.post("stop"))
            assert ["superseded"] == [record.kind for record in await world.records()]
            assert [] == log
            (call,) = (await world.ask()).calls
            await world.resume(Approve(call))
            await trio.sleep(5)
            assert "stopped" == text_of(await world.post("stop at once", overlap="interrupt"))

    assert ["began", "cancelled"] == log
