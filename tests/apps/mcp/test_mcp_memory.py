"""A connection to a server in this process, in virtual time: limits, cancellation, and what else the server may answer."""

import math
from typing import Any

import mcp_types
import pytest
import trio
import trio.testing
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError

from tests.apps.mcp._kit import in_memory
from trio_sagents.mcp import McpDisconnected, StdioServer
from trio_sagents.mcp._opening import Opening


def make_server(log: list[str]) -> MCPServer:
    """Return a server with some tools; `log` tells what became of its slow calls."""
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

    @server.tool()
    async def refuse() -> str:
        raise MCPError(-32000 - 99, "the token hunter22 is not good")

    @server.tool()
    async def grow(context: Context) -> str:
        server.add_tool(slow, name="grown")
        await context.notify_tools_changed()
        return "grown"

    return server


async def test_call_when_slow(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls run side by side; the answer comes when it comes."""
    log: list[str] = []
    async with in_memory(make_server(log), monkeypatch, call_timeout=math.inf) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(connection.call, "slow", {"seconds": 1000})
        nursery.start_soon(connection.call, "slow", {"seconds": 1000})

    assert 1000 <= trio.current_time() < 1010
    assert ["began", "began", "ended", "ended"] == log


async def test_call_when_over_its_timeout(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call over the limit is an error that the model reads; the server is told to stop, and the connection goes on."""
    log: list[str] = []
    async with in_memory(make_server(log), monkeypatch, call_timeout=5) as connection:
        late = await connection.call("slow", {"seconds": 1000})
        fine = await connection.call("slow", {"seconds": 1})

    assert ("The MCP server 'memory' did not answer within 5 seconds: the outcome is unknown.", True) == (late.content, late.is_error)
    assert ("slept", False) == (fine.content, fine.is_error)
    assert ["began", "cancelled", "began", "ended"] == log


async def test_call_when_cancelled(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled call is cancelled in the server; another one beside it is not."""
    log: list[str] = []
    async with in_memory(make_server(log), monkeypatch) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(connection.call, "slow", {"seconds": 50})
        with trio.move_on_after(5):
            await connection.call("slow", {"seconds": 100})

    assert ["began", "began", "cancelled", "ended"] == log


async def test_call_when_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal of the server is an error that the model reads, without the server's secrets."""
    async with in_memory(make_server([]), monkeypatch) as connection:
        connection.server = StdioServer("x", env={"TOKEN": "hunter22"})
        refused = await connection.call("refuse", {})
        unknown = await connection.call("nothing", {})

    assert ("The MCP server 'memory' refused the call: the token *** is not good", True) == (refused.content, refused.is_error)
    assert unknown.is_error


async def test_tools_when_changed(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed list of tools is there before anybody asks for it."""
    async with in_memory(make_server([]), monkeypatch) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(connection.wait_changed)
        await trio.testing.wait_all_tasks_blocked()
        await connection.call("grow", {})

    assert ["slow", "refuse", "grow", "grown"] == [tool.name for tool in connection.tools()]


async def test_owner_when_cancelled_during_calls(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for an answer when the owner ends is told."""
    errors: list[McpDisconnected] = []
    async with trio.open_nursery() as callers:
        async with in_memory(make_server([]), monkeypatch) as connection:

            async def ask() -> None:
                try:
                    await connection.call("slow", {"seconds": 1000})
                except McpDisconnected as exc:
                    errors.append(exc)

            callers.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()

    assert ["it was lost during the call, which may have taken effect, or not"] == [error.why for error in errors]
    assert trio.current_time() < 100


async def test_list_when_pages_never_end(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of tools without end is read to a limit."""

    class Endless:
        class server_capabilities:  # noqa: N801
            tools = mcp_types.ToolsCapability()

        pages = 0

        async def list_tools(self, cursor: str | None) -> mcp_types.ListToolsResult:
            self.pages += 1
            await trio.lowlevel.checkpoint()
            return mcp_types.ListToolsResult(tools=[], next_cursor=f"page {self.pages}")

    client = Endless()
    opening = Opening(StdioServer("x"), "x", lambda _: None, lambda _: None)
    found = await opening._list(client)  # type: ignore[arg-type]  # a fake with the two members that are used

    assert ([], 100) == (list(found), client.pages)
