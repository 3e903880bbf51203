"""One connection to a server, owned by one task.

The task opens the transport and the SDK's session, waits until the connection is lost or not wanted any more, and closes them:
their scopes are entered and left in the one task, whoever calls. When a connection was lost the task waits, and opens another
one at the next call. Calls are made in the callers' own tasks, so that a cancelled call is cancelled at the server.
"""

import importlib.metadata
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import attrs
import mcp_types
import trio
from mcp import Client, MCPError
from mcp.client import IncomingMessage, Transport
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost

from trio_sagents._trio.groups import must_exit, split
from trio_sagents.agent import ToolResult
from trio_sagents.data.config import check_timeout
from trio_sagents.data.json import JSON
from trio_sagents.mcp._errors import McpDisconnected, explain
from trio_sagents.mcp._http import http_streams
from trio_sagents.mcp._results import read_result
from trio_sagents.mcp._servers import HttpServer, Server, StdioServer, check_server, redacted
from trio_sagents.mcp._stdio import stdio_streams
from trio_sagents.mcp._tools import MAX_TOOLS, McpTool, make_tools

MAX_PAGES: Final = 100
"""Pages that are read of a server's list of tools."""
MAX_INSTRUCTIONS: Final = 16 * 1024
"""Characters that are taken of a server's instructions."""
START_TIMEOUT: Final = 30.0
RECONNECTS: Final = 3
log: Final = logging.getLogger("trio_sagents.mcp")


@attrs.define(eq=False)
class _Attempt:
    """One opening of the connection, and what came of it."""

    settled: trio.Event = attrs.field(factory=trio.Event)
    """It is open, or has failed."""
    lost: trio.Event = attrs.field(factory=trio.Event)
    """It has failed, or is no more."""
    changed: trio.Event = attrs.field(factory=trio.Event)
    """The server has said that its tools are others now."""
    client: Client | None = None
    """While it is open."""
    why: str = ""
    """Why it is not."""


def _count(_connection: object, attribute: "attrs.Attribute[int]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{attribute.name} must be an int, not {value!r}")
    if value < 0:
        raise ValueError(f"{attribute.name} must be at least 0, not {value!r}")


def _seconds(_connection: object, attribute: "attrs.Attribute[float]", value: object) -> None:
    check_timeout(attribute.name, value)


@attrs.define(eq=False)
class McpConnection:
    """A connection to an MCP server, for any number of tasks. `open_mcp` gives one; `Mcp` opens one for each agent."""

    server: Server
    name: str
    """How errors and tools name it."""
    prefix: str = ""
    start_timeout: float = attrs.field(default=START_TIMEOUT, validator=_seconds)
    call_timeout: float = attrs.field(default=math.inf, validator=_seconds)
    reconnects: int = attrs.field(default=RECONNECTS, validator=_count)
    _attempt: _Attempt = attrs.field(factory=_Attempt, init=False, repr=False)
    _wanted: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)
    """There is a new attempt for the owner to make."""
    _reopened: int = attrs.field(default=0, init=False, repr=False)
    """Attempts since a call was last answered."""
    _is_closed: bool = attrs.field(default=False, init=False, repr=False)
    _tools: Sequence[McpTool] = attrs.field(default=(), init=False, repr=False)
    _renewed: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)

    @property
    def is_connected(self) -> bool:
        """Whether it is open now; where it is not, the next call may open it again."""
        return self._attempt.client is not None and not self._attempt.lost.is_set()

    @property
    def instructions(self) -> str | None:
        """What the server says about its use, cut to a size; untrusted. None where it says nothing, or is not connected."""
        client = self._attempt.client
        return None if client is None or client.instructions is None else client.instructions[:MAX_INSTRUCTIONS]

    def tools(self) -> Sequence[McpTool]:
        """Return the server's tools, in its order, as last listed: the same sequence until they change."""
        return self._tools

    async def wait_changed(self) -> None:
        """Wait until the server has other tools than now.

        Cancellation: either they have changed, or nothing was done.
        """
        await self._renewed.wait()

    async def call(self, name: str, arguments: JSON) -> ToolResult:
        """Call a tool of the server; a lost connection is opened again first, at most `reconnects` times in a row.

        Args:
            name: the server's own name for it.
            arguments: a JSON object; the server checks it.

        Returns:
            The answer, also where that is an error of the tool, or where the server refused or did not answer in time.

        Raises:
            McpDisconnected: there is no connection, or it was lost during the call, which may have taken effect then.

        Cancellation: either the server was not asked, or it was told that nobody waits for the answer any more.
        """
        attempt, client = await self._connected()
        try:
            with trio.move_on_after(self.call_timeout) as patience:
                answer = await client.call_tool(name, dict(arguments))
                self._reopened = 0
                return read_result(answer)
        except MCPError as exc:
            if exc.code == mcp_types.CONNECTION_CLOSED or attempt.lost.is_set():
                raise McpDisconnected(self.name, "it was lost during the call, which may have taken effect, or not") from None
            return ToolResult(f"The MCP server {self.name!r} refused the call: {redacted(exc.message, self.server)}", is_error=True)
        assert patience.cancelled_caught
        seconds = f"{self.call_timeout:g} seconds"
        return ToolResult(f"The MCP server {self.name!r} did not answer within {seconds}: the outcome is unknown.", is_error=True)

    async def ready(self) -> None:
        """Wait until it is open.

        Raises:
            McpDisconnected: it could not be opened, or is lost.

        Cancellation: nothing was done; the owner goes on.
        """
        await self._settled(self._attempt)

    async def own(self) -> None:
        """Open the connection, and keep it until cancelled. To be run in exactly one task, which owns it.

        Cancellation: the connection is closed; a child process has ended, and its pipes are closed.
        """
        try:
            while True:
                await self._serve(self._attempt)
                await self._wanted.wait()
                self._wanted = trio.Event()
        finally:
            self._is_closed = True
            self._attempt.why = "its owner has ended"
            self._attempt.lost.set()
            self._attempt.settled.set()

    async def _connected(self) -> tuple[_Attempt, Client]:
        """Return the open connection, or have the owner open one."""
        if self._attempt.lost.is_set() and not self._is_closed:
            if self._reopened >= self.reconnects:
                raise McpDisconnected(self.name, f"{self._attempt.why}; it is not opened again after {self._reopened} times in a row")
            # No checkpoint until `_wanted` is set: all callers that find it lost wait for the one attempt.
            self._reopened += 1
            self._attempt = _Attempt()
            self._wanted.set()
        attempt = self._attempt
        return attempt, await self._settled(attempt)

    async def _settled(self, attempt: _Attempt) -> Client:
        await attempt.settled.wait()
        if attempt.client is None:
            raise McpDisconnected(self.name, attempt.why)
        return attempt.client

    async def _serve(self, attempt: _Attempt) -> None:
        """Open the connection and stay until it is lost; whatever goes wrong is kept in the attempt."""
        try:
            # One scope around all: those of the SDK are inside it. Its deadline is for the start.
            with trio.move_on_after(self.start_timeout) as start:
                async with self._client(attempt) as client:
                    self._renew(await self._list(client))
                    start.deadline = math.inf
                    attempt.client = client
                    attempt.settled.set()
                    await self._stay(client, attempt)
            if start.cancelled_caught:
                attempt.why = f"it was not ready within {self.start_timeout:g} seconds"
        except BaseException as error:  # noqa: ASYNC103, BLE001  # the boundary to the server: what is not contained is raised
            contained, onward = split(error)
            if onward is not None:
                raise onward from None  # noqa: ASYNC104  # the Cancelled in it, without what came beside
            assert contained is not None
            attempt.why = explain(contained, self.server)
            log.debug("MCP server %r: %s", self.name, attempt.why)
        finally:
            attempt.client = None
            attempt.why = attempt.why or "it was lost"
            attempt.lost.set()
            attempt.settled.set()

    def _client(self, attempt: _Attempt) -> Client:
        async def hear(message: IncomingMessage) -> None:
            if isinstance(message, mcp_types.ToolListChangedNotification):
                attempt.changed.set()
            await trio.lowlevel.checkpoint()

        return Client(self._streams(attempt), cache=None, message_handler=hear, client_info=_client_info())

    def _streams(self, attempt: _Attempt) -> Transport:
        match self.server:
            case StdioServer():
                return stdio_streams(self.server, self.name, attempt.lost.set)
            case HttpServer():
                return http_streams(self.server, attempt.lost.set)

    async def _list(self, client: Client) -> Sequence[mcp_types.Tool]:
        if client.server_capabilities.tools is None:
            return ()
        found: list[mcp_types.Tool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            found += page.tools
            cursor = page.next_cursor
            if cursor is None or len(found) > MAX_TOOLS:
                break
        return found

    def _renew(self, listed: Sequence[mcp_types.Tool]) -> None:
        known = {one.name: one for one in self._tools}
        # A tool that is as it was stays the same object: approvals are bound to objects, and a changed one is another.
        tools = tuple(_same(known.get(one.name), one) for one in make_tools(listed, self.name, self.prefix, self.call))
        if tools != self._tools:
            self._tools = tools
            self._renewed.set()
            self._renewed = trio.Event()

    async def _stay(self, client: Client, attempt: _Attempt) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, client, attempt)
            nursery.start_soon(self._listen, client, attempt)
            try:
                await attempt.lost.wait()
            finally:
                # Race: with the SDK's own tasks, which tell waiting callers of the end: who calls again must find it lost already
                # (test_call_when_server_goes_and_comes_back).
                attempt.lost.set()
            nursery.cancel_scope.cancel()

    async def _follow(self, client: Client, attempt: _Attempt) -> None:
        """List the tools again whenever the server says that they have changed."""
        while True:
            await attempt.changed.wait()
            attempt.changed = trio.Event()
            try:
                with trio.move_on_after(self.start_timeout):
                    self._renew(await self._list(client))
            except MCPError as exc:
                log.debug("MCP server %r: its tools stay as they were: %s", self.name, explain(exc, self.server))

    async def _listen(self, client: Client, attempt: _Attempt) -> None:
        """Subscribe to changes, where the protocol wants that; older servers tell unasked."""
        offered = client.server_capabilities.tools
        if offered is None or not offered.list_changed:
            return
        try:
            async with client.listen(tools_list_changed=True) as changes:
                attempt.changed.set()  # they may have changed since they were listed
                async for _ in changes:
                    attempt.changed.set()
        except (ListenNotSupportedError, SubscriptionLost, MCPError, TimeoutError) as exc:
            log.debug("MCP server %r: no subscription to changes of its tools (%s)", self.name, type(exc).__name__)


def _same(known: McpTool | None, listed: McpTool) -> McpTool:
    """Return the tool that is known, if what a model and a person see of it is what is listed now."""
    return known if known is not None and attrs.evolve(listed, function=known.function) == known else listed


def _client_info() -> mcp_types.Implementation:
    try:
        version = importlib.metadata.version("trio-sagents")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    return mcp_types.Implementation(name="trio-sagents", version=version)


@asynccontextmanager
async def open_mcp(
    server: Server,
    *,
    name: str | None = None,
    prefix: str = "",
    start_timeout: float = START_TIMEOUT,
    call_timeout: float = math.inf,
    reconnects: int = RECONNECTS,
) -> AsyncIterator[McpConnection]:
    """Open a connection to an MCP server; leaving the block closes it, and ends the child process.

    Args:
        server: where it is.
        name: for errors and logs, and the tools' `server`; None takes the command, or the host.
        prefix: stands before the name of each tool, such as "time_": two servers may have tools of one name.
        start_timeout: seconds until it is ready and has listed its tools; > 0, math.inf never gives up.
        call_timeout: seconds for the answer to a call, beside `TurnLimits.tool_timeout`; > 0.
        reconnects: how often in a row, without an answered call in between, a lost connection is opened again; 0 is never.

    Yields:
        The open connection.

    Raises:
        McpDisconnected: it could not be opened; nothing is left. What the block raises leaves as it is.
        TypeError: `server` is no server; nothing was opened.

    Cancellation: the connection is closed; a child process has ended, and its pipes are closed.
    """
    check_server(server)
    connection = McpConnection(server, server.name if name is None else name, prefix, start_timeout, call_timeout, reconnects)
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.own)
            try:
                await connection.ready()
                yield connection
            except BaseException as exc:  # noqa: ASYNC103, BLE001  # kept, and raised again below, as it is
                raised = exc
            nursery.cancel_scope.cancel()
    except BaseException as exc:  # noqa: ASYNC103  # the owner contains all but this
        if raised is None or must_exit(exc):
            raise
    if raised is not None:
        raise raised
