"""One opening of a connection: the transport and the SDK's session, from the first word to the loss.

All of it is entered and left in the one task that calls `Opening.run`.
"""

import importlib.metadata
import logging
import math
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import mcp_types
import trio
from mcp import Client, MCPError
from mcp.client import Transport
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost

from trio_sagents._trio.groups import split
from trio_sagents.mcp._answers import Answers
from trio_sagents.mcp._errors import explain, is_worth_another_way
from trio_sagents.mcp._http import http_streams, sse_streams
from trio_sagents.mcp._listening import repaired_streams
from trio_sagents.mcp._memory import Memory, Mode, other
from trio_sagents.mcp._servers import HttpServer, Server, StdioServer
from trio_sagents.mcp._stdio import stdio_streams
from trio_sagents.mcp._tools import MAX_TOOLS, Warn

MAX_PAGES: Final = 100
"""Pages that are read of a server's list of tools."""
RELIST_PATIENCE: Final = 0.5
"""Seconds that an answered call waits for the tools that it has changed to be listed."""
RELIST_INTERVAL: Final = 1.0
"""Seconds between two listings at least: some servers report a change each time their tools are listed."""
log: Final = logging.getLogger("trio_sagents.mcp")


@attrs.define(eq=False)
class Opening:
    """One opening of the connection, and what came of it."""

    server: Server
    name: str
    on_listed: Callable[[Sequence[mcp_types.Tool]], None] = attrs.field(repr=False)
    """Called with the tools when the connection opens, and when they have changed."""
    warn: Warn = attrs.field(repr=False)
    settled: trio.Event = attrs.field(factory=trio.Event, init=False)
    """The connection is open, or could not be opened."""
    lost: trio.Event = attrs.field(factory=trio.Event, init=False)
    """The connection could not be opened, or is lost."""
    client: Client | None = attrs.field(default=None, init=False)
    """While the connection is open."""
    answers: Answers = attrs.field(init=False, repr=False)
    why: str = attrs.field(default="", init=False)
    """Why the connection is not open."""
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    """The server reported that its tools have changed."""
    _listed: trio.Event = attrs.field(factory=trio.Event, init=False)
    """The tools were listed after the last reported change."""

    @answers.default  # pyright: ignore[reportAttributeAccessIssue]  # of the attrs field
    def _new_answers(self) -> Answers:
        return Answers(self.warn, self._note_change)

    def _note_change(self) -> None:
        self._changed.set()
        self._listed = trio.Event() if self._listed.is_set() else self._listed

    async def wait_listed(self) -> None:
        """Wait until the tools were listed after a change that the server reported, but not for long.

        Cancellation: nothing was done.
        """
        with trio.move_on_after(RELIST_PATIENCE):
            await self._listed.wait()

    def end(self, why: str) -> None:
        """Note that the connection is not open, for this reason unless there is another one."""
        self.client = None
        self.why = self.why or why
        self.lost.set()
        self.settled.set()

    async def run(self, memory: Memory, start_timeout: float) -> None:
        """Open the connection and stay until it is lost; what goes wrong is kept in `why`.

        Args:
            memory: says how the server is spoken to first, and learns what came of it.
            start_timeout: seconds until the tools are listed.

        Cancellation: the connection is closed; a child process has ended, and its pipes are closed.
        """
        deadline = trio.current_time() + start_timeout
        first = memory.mode
        try:
            for mode in (first, other(first)):
                error = await self._open(mode, memory, deadline)
                if self.settled.is_set() or error is None or not is_worth_another_way(error):
                    break
            if not self.settled.is_set():
                self.why = self.why or f"it was not ready within {start_timeout:g} seconds"
                memory.note_failure(self.why)
        finally:
            self.end("it was lost")

    async def _open(self, mode: Mode, memory: Memory, deadline: float) -> BaseException | None:
        """Open the connection in one way, and stay until it is lost; return what went wrong before it was open."""
        gone = trio.Event()
        has_spoken = False
        error: BaseException | None = None
        try:
            # One scope around all: those of the SDK are inside it. Its deadline is for the start.
            with trio.CancelScope(deadline=deadline) as start:
                async with self._session(mode, gone) as client:
                    has_spoken = True
                    self.on_listed(await self._list(client))
                    start.deadline = math.inf
                    memory.note_success("auto" if client.session.initialize_result is None else "legacy")
                    self.client, self.why = client, ""
                    self.settled.set()
                    await self._stay(client, gone)
            if start.cancelled_caught and not has_spoken:
                memory.mode = other(mode)  # the server may be waiting to be spoken to in the other way
        except BaseException as raised:  # noqa: ASYNC103, BLE001  # the boundary to the server: what is not contained is raised
            contained, onward = split(raised)
            if onward is not None:
                raise onward from None  # noqa: ASYNC104  # the Cancelled in it, without what came beside
            assert contained is not None
            self.why = self.why or explain(contained, self.server)
            log.debug("MCP server %r: %s", self.name, self.why)
            error = contained
        return error

    def _session(self, mode: Mode, gone: trio.Event) -> Client:
        """Return the SDK's client; entering it opens the transport and speaks to the server."""

        def lose() -> None:
            gone.set()
            if self.client is not None:
                self.lost.set()

        self.answers = self._new_answers()
        streams = repaired_streams(transport_to(self.server, self.name, lose), self.answers)  # pyright: ignore[reportArgumentType]
        return Client(streams, mode=mode, cache=None, client_info=_client_info())  # pyright: ignore[reportArgumentType]

    async def _list(self, client: Client) -> Sequence[mcp_types.Tool]:
        if client.server_capabilities.tools is None:
            return ()
        found: list[mcp_types.Tool] = []
        cursor: str | None = None
        cursors: set[str | None] = {cursor}
        for _ in range(MAX_PAGES):
            try:
                page = await client.list_tools(cursor=cursor)
            except MCPError as exc:
                if exc.code == mcp_types.METHOD_NOT_FOUND and not found:
                    return ()
                if exc.code == mcp_types.CONNECTION_CLOSED or not found:
                    raise
                self.warn(f"only a part of its tools could be listed: {explain(exc, self.server)}")
                break
            found += page.tools
            cursor = page.next_cursor
            if cursor in cursors or len(found) > MAX_TOOLS:
                break
            cursors.add(cursor)
        return found

    async def _stay(self, client: Client, gone: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, client)
            nursery.start_soon(self._listen, client)
            try:
                await gone.wait()
            finally:
                # Race: with the SDK's own tasks, which tell waiting callers of the end: who calls again must find it lost already
                # (test_call_when_server_goes_and_comes_back).
                self.lost.set()
            nursery.cancel_scope.cancel()

    async def _follow(self, client: Client) -> None:
        """List the tools again whenever the server reports that they have changed."""
        while True:
            self._listed.set()
            await self._changed.wait()
            self._changed = trio.Event()
            try:
                self.on_listed(await self._list(client))
            except (MCPError, RuntimeError, ValueError) as exc:
                log.debug("MCP server %r: its tools stay as they were: %s", self.name, explain(exc, self.server))
            self._listed.set()
            await trio.sleep(RELIST_INTERVAL)

    async def _listen(self, client: Client) -> None:
        """Subscribe to changes, if the protocol wants that; older servers report them without a subscription."""
        offered = client.server_capabilities.tools
        if offered is None or not offered.list_changed:
            return
        try:
            async with client.listen(tools_list_changed=True) as changes:
                self._note_change()  # the tools may have changed since they were listed
                async for _ in changes:
                    self._note_change()
        except (ListenNotSupportedError, SubscriptionLost, MCPError, TimeoutError) as exc:
            log.debug("MCP server %r: no subscription to changes of its tools (%s)", self.name, type(exc).__name__)


def transport_to(server: Server, name: str, on_lost: Callable[[], None]) -> Transport:
    """Return the transport to a server; nothing is opened yet."""
    match server:
        case StdioServer():
            return stdio_streams(server, name, on_lost)
        case HttpServer(transport="sse"):
            return sse_streams(server, on_lost)  # pyright: ignore[reportReturnType]
        case HttpServer():
            return http_streams(server, on_lost)  # pyright: ignore[reportReturnType]


def _client_info() -> mcp_types.Implementation:
    try:
        version = importlib.metadata.version("trio-sagents")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    return mcp_types.Implementation(name="trio-sagents", version=version)
