"""A connection to a server, owned by one task, and used by any number of others.

When the connection was lost, its owner waits until somebody wants it, and opens it again. Calls are made in the tasks of the callers,
so that a cancelled call is cancelled at the server.
"""

import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import attrs
import mcp_types
import trio
from mcp import Client, MCPError

from trio_sagents._trio.groups import must_exit
from trio_sagents._trio.opening import opening
from trio_sagents.agent import ToolResult
from trio_sagents.data.config import check_timeout
from trio_sagents.data.json import JSON
from trio_sagents.mcp._errors import McpDisconnected
from trio_sagents.mcp._memory import Memory
from trio_sagents.mcp._opening import Opening
from trio_sagents.mcp._results import read_result
from trio_sagents.mcp._servers import Server, check_server, redacted
from trio_sagents.mcp._tools import McpTool, make_tools
from trio_sagents.mcp._wire import PARSE_ERROR

MAX_INSTRUCTIONS: Final = 16 * 1024
"""Characters that are taken of a server's instructions."""
MAX_WARNINGS: Final = 1000
"""Warnings about one server that are logged, each of them once."""
SHORT_DELAY: Final = 2.0
"""Seconds that a caller waits until a server is tried again; if it takes longer, the call fails at once."""
START_TIMEOUT: Final = 30.0
CALL_TIMEOUT: Final = 600.0
log: Final = logging.getLogger("trio_sagents.mcp")


def _count(_connection: object, attribute: "attrs.Attribute[float]", value: object) -> None:
    if value != math.inf and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(f"{attribute.name} must be an int, or math.inf for no limit; not {value!r}")
    if value != math.inf and isinstance(value, int) and value < 0:
        raise ValueError(f"{attribute.name} must be at least 0, not {value!r}")


def _seconds(_connection: object, attribute: "attrs.Attribute[float]", value: object) -> None:
    check_timeout(attribute.name, value)


@attrs.define(eq=False)
class McpConnection:
    """A connection to an MCP server, for any number of tasks. `open_mcp` gives one; `Mcp` opens one for each agent.

    A connection that was lost, or could not be opened, is opened again when it is needed next: by a call, or an agent that starts or begins
    a turn. After a failure the server is left alone for a while: half a second, which doubles up to a minute.
    """

    server: Server
    name: str
    """What errors and tools call the server."""
    prefix: str = ""
    start_timeout: float = attrs.field(default=START_TIMEOUT, validator=_seconds)
    call_timeout: float = attrs.field(default=CALL_TIMEOUT, validator=_seconds)
    reconnects: float = attrs.field(default=math.inf, validator=_count)
    _memory: Memory = attrs.field(factory=Memory, repr=False, alias="memory")
    _opening: Opening = attrs.field(init=False, repr=False)
    _wanted: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)
    """There is a new opening for the owner to run."""
    _reopened: int = attrs.field(default=0, init=False, repr=False)
    """Openings since a call was last answered."""
    _is_closed: bool = attrs.field(default=False, init=False, repr=False)
    _tools: Sequence[McpTool] = attrs.field(default=(), init=False, repr=False)
    _renewed: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)
    _warned: set[str] = attrs.field(factory=set, init=False, repr=False)

    @_opening.default  # pyright: ignore[reportAttributeAccessIssue]  # of the attrs field
    def _new_opening(self) -> Opening:
        return Opening(self.server, self.name, self._renew, self._warn)

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open now. If it is not, the next call may open it again."""
        return self._opening.client is not None and not self._opening.lost.is_set()

    @property
    def instructions(self) -> str | None:
        """What the server says about its use, cut to a size; untrusted. None if it says nothing, or is not connected."""
        client = self._opening.client
        return None if client is None or client.instructions is None else client.instructions[:MAX_INSTRUCTIONS]

    def tools(self) -> Sequence[McpTool]:
        """Return the server's tools, in its order, as last listed: the same sequence until they change. Empty before the first listing."""
        return self._tools

    async def wait_changed(self) -> None:
        """Wait until the server has other tools than now.

        Cancellation: either they have changed, or nothing was done.
        """
        await self._renewed.wait()

    async def ready(self) -> None:
        """Wait until the connection is open. A lost one is opened again.

        Raises:
            McpDisconnected: it could not be opened, or it is not time yet to try again.

        Cancellation: nothing was done; the owner continues.
        """
        await self._connected()

    def wake(self) -> None:
        """Have a connection that is not open opened again, if it is time to try; returns at once."""
        if self._opening.lost.is_set() and not self._why_not_now():
            self._reopen()

    async def call(self, name: str, arguments: JSON) -> ToolResult:
        """Call a tool of the server. A lost connection is opened again first.

        Args:
            name: the server's own name for the tool.
            arguments: a JSON object; the server checks it.

        Returns:
            The answer, also if that is an error of the tool, or if the server refused the call or did not answer in time.

        Raises:
            McpDisconnected: there is no connection, or it was lost during the call, which may have taken effect then.

        Cancellation: either the server was not asked, or it was told that nobody waits for the answer any more.
        """
        opening, client = await self._connected()
        return await self._ask(opening, client, name, arguments)

    async def own(self) -> None:
        """Open the connection, and keep it until cancelled. To be run in exactly one task, which owns the connection.

        Cancellation: the connection is closed; a child process has ended, and its pipes are closed.
        """
        try:
            while True:
                if delay := self._memory.delay():
                    self._opening.end(f"{self._memory.why}; it is tried again in {delay:.1f} seconds")
                else:
                    await self._opening.run(self._memory, self.start_timeout)
                await self._wanted.wait()
                self._wanted = trio.Event()
        finally:
            self._is_closed = True
            self._opening.why = ""
            self._opening.end("its owner has ended")

    async def _connected(self) -> tuple[Opening, Client]:
        """Return the open connection; if it is lost, have the owner open it again."""
        while self._opening.lost.is_set():
            if not self._is_closed and 0 < (delay := self._memory.delay()) <= SHORT_DELAY:
                await trio.sleep(delay)  # and look again: somebody else may have opened it
                continue
            if why := self._why_not_now():
                raise McpDisconnected(self.name, why)
            self._reopen()
        opening = self._opening
        await opening.settled.wait()
        if opening.client is None:
            raise McpDisconnected(self.name, opening.why)
        return opening, opening.client

    def _why_not_now(self) -> str:
        """Return why a lost connection is not opened again now; "" if it may be."""
        if self._is_closed:
            return self._opening.why
        if self._reopened >= self.reconnects:
            return f"{self._opening.why}; it is not opened again after {self._reopened} times in a row"
        delay = self._memory.delay()
        return f"{self._memory.why}; it is tried again in {delay:.1f} seconds" if delay else ""

    def _reopen(self) -> None:
        # No checkpoint until `_wanted` is set: all callers that find the connection lost wait for the one opening.
        self._reopened += 1
        self._opening = self._new_opening()
        self._wanted.set()

    async def _call_tool(self, tool: McpTool, arguments: JSON) -> ToolResult:
        """Call a tool as an agent was offered it; a server that came back with another tool of the same name is not asked."""
        opening, client = await self._connected()
        offered = next((each for each in self._tools if each.remote_name == tool.remote_name), None)
        if offered is None or offered.fingerprint != tool.fingerprint:
            what = "does not offer the tool any more" if offered is None else "offers another tool of this name now"
            return ToolResult(f"Not run: the MCP server {self.name!r} {what}.", is_error=True)
        return await self._ask(opening, client, tool.remote_name, arguments)

    async def _ask(self, opening: Opening, client: Client, name: str, arguments: JSON) -> ToolResult:
        answer: mcp_types.CallToolResult | None = None
        try:
            with trio.move_on_after(self.call_timeout):
                answer = await client.call_tool(name, dict(arguments))
        except MCPError as exc:
            if exc.code == mcp_types.CONNECTION_CLOSED or opening.lost.is_set():
                raise McpDisconnected(self.name, "it was lost during the call, which may have taken effect, or not") from None
            words = redacted(exc.message, self.server)
            if exc.code == PARSE_ERROR:
                return self._unknown(f"sent an answer that cannot be read ({words[:200]})")
            return ToolResult(f"The MCP server {self.name!r} refused the call: {words}", is_error=True)
        except (RuntimeError, ValueError) as exc:  # of the SDK, about the form of an answer
            return self._unknown(f"asked for something that this client cannot give ({type(exc).__name__})")
        if answer is None:
            return self._unknown(f"did not answer within {self.call_timeout:g} seconds")
        self._reopened = 0
        await opening.wait_listed()  # so that what a call changes is there at the next turn
        return read_result(opening.answers.take(answer.meta))

    def _unknown(self, what: str) -> ToolResult:
        return ToolResult(f"The MCP server {self.name!r} {what}: the outcome is unknown.", is_error=True)

    def _renew(self, listed: Sequence[mcp_types.Tool]) -> None:
        known = {each.remote_name: each for each in self._tools}
        made = make_tools(listed, self.name, self.prefix, self._call_tool, self._warn)
        # A tool that is as it was stays the same object: approvals are bound to objects, and a changed tool is another one.
        tools = tuple(_same(known.get(each.remote_name), each) for each in made)
        if tools != self._tools:
            self._tools = tools
            self._renewed.set()
            self._renewed = trio.Event()

    def _warn(self, what: str) -> None:
        if what not in self._warned and len(self._warned) < MAX_WARNINGS:
            self._warned.add(what)
            log.warning("MCP server %r: %s", self.name, what)


def _same(known: McpTool | None, listed: McpTool) -> McpTool:
    """Return the tool that is known, if what a model and a person see of it is what is listed now."""
    return known if known is not None and (known.name, known.fingerprint) == (listed.name, listed.fingerprint) else listed


@opening
@asynccontextmanager
async def open_mcp(
    server: Server,
    *,
    name: str | None = None,
    prefix: str = "",
    start_timeout: float = START_TIMEOUT,
    call_timeout: float = CALL_TIMEOUT,
    reconnects: float = math.inf,
    required: bool = True,
) -> AsyncIterator[McpConnection]:
    """Open a connection to an MCP server; leaving the block closes the connection, and ends the child process.

    Args:
        server: where the server is.
        name: for errors and logs, and the `server` of the tools; None takes the command, or the host.
        prefix: what the name of each tool begins with, such as "time_".
        start_timeout: seconds until the server is ready and has listed its tools; > 0, math.inf never gives up.
        call_timeout: seconds for the answer to a call, beside `TurnLimits.tool_timeout`; > 0, math.inf waits for ever.
        reconnects: how often in a row, without an answered call in between, a lost connection is opened again; 0 is never, math.inf is
            for ever.
        required: whether the block is entered only with an open connection. If False, the block is entered at once; a server that is
            not there has no tools, and is tried again when it is needed next.

    Yields:
        The connection; open, if it is required.

    Raises:
        McpDisconnected: the connection is required and could not be opened; nothing is left behind. What the block raises leaves as it
            is.
        TypeError: `server` is not a server; nothing was opened.

    Cancellation: the connection is closed; a child process has ended, and its pipes are closed.
    """
    check_server(server)
    connection = McpConnection(server, server.name if name is None else name, prefix, start_timeout, call_timeout, reconnects)
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.own)
            try:
                if required:
                    await connection.ready()
                yield connection
            except BaseException as exc:  # noqa: ASYNC103, BLE001  # kept, and raised again below as it is
                raised = exc
            nursery.cancel_scope.cancel()
    except BaseException as exc:  # noqa: ASYNC103  # the owner contains all but this
        if raised is None or must_exit(exc):
            raise
    if raised is not None:
        raise raised
