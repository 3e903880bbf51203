"""`Mcp` in an agent: a connection for each agent, or one for all, and nothing left of it when the agent has ended."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.apps.mcp._kit import appears, children, descriptors, is_alive, rude
from trio_sagents import Agent, Approve, Completed, Interrupted, MemoryStore, SessionConfig, Sessions, StartFailed, open_sessions
from trio_sagents.mcp import Mcp, McpDisconnected, StdioServer, is_mcp_tool, open_mcp
from trio_sagents.middleware import Approvals
from trio_sagents.testing import Call, ScriptedModel


def config(*replies: Any, mcp: Mcp, more: Sequence[Any] = ()) -> SessionConfig:
    """Return sessions whose agents have the server's tools, and answer with these replies, each."""
    return SessionConfig(factory_router=Scripted(replies, [mcp, *more]), store=MemoryStore())


class Scripted:
    """Makes each agent a model of its own."""

    def __init__(self, replies: Any, middleware: Sequence[Any]) -> None:
        self.replies, self.middleware = replies, middleware
        self.models: list[ScriptedModel] = []

    async def resolve(self, scope: Any, conversation_id: str, request_opts: Any) -> Any:
        return self, None

    async def create_agent(self, agent_id: str, config: Any) -> Agent:
        self.models.append(ScriptedModel(list(self.replies)))
        return Agent(model=self.models[-1], middleware=self.middleware)


async def told(sessions: Sessions, conversation_id: str, text: str = "go") -> str:
    """Post, and return what the agent answered."""
    outcome = await (await sessions.post(conversation_id, text)).wait()
    assert isinstance(outcome, Completed), outcome
    return outcome.message.text


def result_of(model: ScriptedModel) -> str:
    """Return the tool result that the model was last shown."""
    return model.requests[-1].messages[-1].results[0].content


async def test_turn_when_a_tool_is_called() -> None:
    """The model sees the server's tools, and reads what they return."""
    setup = config([Call("r_echo", text="hello")], "done", mcp=Mcp(rude(), name="rude", prefix="r_"))
    async with open_sessions(setup) as sessions:
        assert "done" == await told(sessions, "1")
    (model,) = setup.factory_router.models

    assert "hello" == result_of(model)
    assert "r_echo" in [spec.name for spec in model.requests[0].tools]


async def test_stop_when_the_agent_has_a_child() -> None:
    """When `stop` returns, the agent's child is gone, and its pipes are closed; another agent's child lives."""
    setup = config([Call("pid")], "done", mcp=Mcp(rude()))
    async with open_sessions(setup) as sessions:
        before = (children(), descriptors())
        await told(sessions, "1")
        after_one = (children(), descriptors())
        await told(sessions, "2")
        first, second = [int(result_of(model)) for model in setup.factory_router.models]

        assert first != second
        await sessions.stop("2")
        assert after_one == (children(), descriptors())
        assert [True, False] == [is_alive(first), is_alive(second)]
        await sessions.stop("1")
        assert before == (children(), descriptors())


async def test_stop_when_a_call_is_running(tmp_path: Path) -> None:
    """A call in flight does not keep the child."""
    setup = config([Call("hang", text=str(tmp_path / "hanging"))], "done", mcp=Mcp(rude()))
    async with open_sessions(setup) as sessions:
        before = (children(), descriptors())
        receipt = await sessions.post("1", "go")
        await appears(tmp_path / "hanging")
        await sessions.stop("1")

        assert before == (children(), descriptors())
        assert not isinstance(await receipt.wait(), Completed)


async def test_start_when_a_required_server_cannot_be_started() -> None:
    """The start fails and says why; nothing is left."""
    before = (children(), descriptors())
    async with open_sessions(config("never", mcp=Mcp(StdioServer("/no/such/command"), required=True))) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.post("1", "go")
        causes: list[BaseException | None] = [caught.value]
        while causes[-1] is not None:
            causes.append(causes[-1].__cause__)

        assert any(isinstance(cause, McpDisconnected) for cause in causes)
    assert before == (children(), descriptors())


async def test_turn_when_the_server_crashes() -> None:
    """The model reads that the connection was lost, by name; its next call finds a new server."""
    setup = config([Call("crash")], [Call("echo", text="back")], "done", mcp=Mcp(rude(), name="rude"))
    async with open_sessions(setup) as sessions:
        await told(sessions, "1")
    (model,) = setup.factory_router.models
    shown = [result.content for message in model.requests[-1].messages for result in message.results]

    assert [
        "McpDisconnected: no connection to the MCP server 'rude': it was lost during the call, which may have taken effect, or not",
        "back",
    ] == shown


async def test_turn_when_the_server_has_changed_its_tools() -> None:
    """New tools are there at the first turn after the server's notice has arrived."""
    setup = config([Call("change")], *["again"] * 1000, mcp=Mcp(rude()))
    async with open_sessions(setup) as sessions:
        await told(sessions, "1")
        model = setup.factory_router.models[0]
        # The notice comes beside the result of the call, and the new list with one more round trip: a turn may begin before that.
        while "new-0" not in [spec.name for spec in model.requests[-1].tools]:
            await told(sessions, "1")

    assert "new-0" not in [spec.name for spec in model.requests[0].tools]


async def test_connection_when_shared() -> None:
    """Agents that share a connection share the child; it outlives them, and ends with its owner."""
    before = children()
    async with open_mcp(rude(), name="rude", prefix="s_") as connection:
        setup = config([Call("s_pid")], "done", mcp=Mcp(connection))
        async with open_sessions(setup) as sessions:
            await told(sessions, "1")
            await told(sessions, "2")
        pids = {result_of(model) for model in setup.factory_router.models}

        assert 1 == len(pids)
        assert is_alive(int(pids.pop()))
    assert before == children()


async def test_shared_connection_when_one_agent_is_stopped(tmp_path: Path) -> None:
    """Stopping an agent in mid-call leaves the others' calls alone."""
    async with open_mcp(rude()) as connection:
        setup = config([Call("hang", text=str(tmp_path / "hanging"))], "done", mcp=Mcp(connection))
        async with open_sessions(setup) as sessions:
            await sessions.post("1", "go")
            await appears(tmp_path / "hanging")
            await sessions.stop("1")

        assert "1 cancelled" == (await connection.call("echo", {"text": "cancelled?"})).content


async def test_approval_when_every_tool_asks() -> None:
    """One line has people decide about every MCP tool, also about one that the server brings along later."""
    replies = ([Call("change")], [Call("echo", text="approved")], "one", [Call("new-0")], "two")
    setup = config(*replies, mcp=Mcp(rude(), name="rude"), more=[Approvals({}, when=is_mcp_tool)])
    asked: list[str] = []
    async with open_sessions(setup) as sessions:
        for _ in range(2):
            outcome = await (await sessions.post("1", "go")).wait()
            while isinstance(outcome, Interrupted):
                asked += [call.name for call in outcome.interrupt.calls]
                outcome = await (await sessions.resume("1", [Approve(call) for call in outcome.interrupt.calls])).wait()
        (model,) = setup.factory_router.models

    assert ["change", "echo", "new-0"] == asked
    assert ["changed", "approved", "new-0 is new"] == [
        result.content for message in model.requests[-1].messages for result in message.results
    ]


async def test_approval_when_one_server_asks() -> None:
    """The policy may be about the server, or about what is known of a tool."""
    approvals = Approvals({}, when=lambda tool: is_mcp_tool(tool, "rude") and tool.remote_name == "pid")
    setup = config([Call("echo", text="hello")], [Call("pid")], "done", mcp=Mcp(rude(), name="rude"), more=[approvals])
    async with open_sessions(setup) as sessions:
        outcome = await (await sessions.post("1", "go")).wait()

    assert isinstance(outcome, Interrupted), outcome
    assert ["pid"] == [call.name for call in outcome.interrupt.calls]


async def test_tools_when_only_some_have_changed() -> None:
    """A tool that is as it was is the same object, to which an approval may be bound; what has changed is another one."""
    async with open_mcp(rude(), name="rude") as connection:
        before = connection.tools()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.wait_changed)
            await trio.testing.wait_all_tasks_blocked()
            await connection.call("change", {})
        after = connection.tools()

        assert all(is_mcp_tool(tool, "rude") for tool in after)
        assert [True] * len(before) == [old is new for old, new in zip(before, after, strict=False)]
        assert len(before) + 1 == len(after)


@pytest.mark.parametrize("given", ["uvx mcp-server-time", None, StdioServer])
async def test_server_when_it_is_none(given: Any) -> None:
    """A command line, or a class, is no server; the error says what is."""
    with pytest.raises(TypeError, match=r"StdioServer\('uvx', \['mcp-server-time'\]\)"):
        Mcp(given)
    with pytest.raises(TypeError, match="an MCP server is a StdioServer or an HttpServer"):
        async with open_mcp(given):
            pass


async def test_start_when_the_command_is_a_whole_line() -> None:
    """It is one program; the error says where its arguments go."""
    with pytest.raises(McpDisconnected, match="its arguments go into args"):
        async with open_mcp(StdioServer("no-such-program --flag")):
            pass
