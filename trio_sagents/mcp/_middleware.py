"""An MCP server as middleware: its tools for an agent, and its connection for as long as the agent lives."""

import logging
import math
from collections.abc import Sequence
from typing import Final

import trio

from trio_sagents.agent import Middleware, MiddlewareContext
from trio_sagents.data.ids import check_id
from trio_sagents.data.json import JSON
from trio_sagents.mcp._connection import CALL_TIMEOUT, START_TIMEOUT, McpConnection
from trio_sagents.mcp._errors import McpDisconnected
from trio_sagents.mcp._memory import Memory
from trio_sagents.mcp._servers import Server, check_server
from trio_sagents.mcp._tools import McpTool

_KEY: Final = "connection"
_GIVEN: Final = "given"
"""The tools that the agent was given last."""
log: Final = logging.getLogger("trio_sagents.mcp")


class Mcp(Middleware):
    """Gives an agent the tools of an MCP server.

    With a server, each agent has its own connection, in its own nursery: the connection is opened when the agent starts, and a child
    process is gone when the agent has ended. With a connection (`open_mcp`), the agents share it; it must be open for longer than they
    live. Tools that the server changes are there at the next turn.

    A server that cannot be connected to, or is not ready within ten seconds, costs the agent only the tools of this server: the agent
    starts, a warning is logged, and each turn tries again. `required=True` makes the start fail.

    `Approvals({}, when=is_mcp_tool)` beside it has people decide about each call of these tools, in sub-agents, too.
    """

    def __init__(  # noqa: PLR0913  # each is a setting of its own, and most hosts give one or two
        self,
        server: Server | McpConnection,
        *,
        name: str | None = None,
        prefix: str = "",
        start_timeout: float = START_TIMEOUT,
        call_timeout: float = CALL_TIMEOUT,
        reconnects: float = math.inf,
        required: bool = False,
        id: str | None = None,  # noqa: A002  # as of all middleware of the library
    ) -> None:
        """Describe the connection; nothing is opened.

        Args:
            server: the server, or an open connection, which has its own name, prefix and limits.
            name: as for `open_mcp`, and so are the next four.
            prefix: what the name of each tool begins with.
            start_timeout: seconds until the server is ready; the agent's own `start_timeout` runs meanwhile.
            call_timeout: seconds for the answer to a call.
            reconnects: how often in a row a lost connection is opened again.
            required: whether an agent that cannot be connected to the server does not start.
            id: the id of the middleware; None is the name of the class, and the name of the connection.

        Raises:
            TypeError: `server` is neither a server nor a connection.
            ValueError: an argument is out of range, or is given beside a connection.
        """
        limits = (prefix, start_timeout, call_timeout, reconnects)
        self._limits = limits
        self._required = required
        self._id = None if id is None else check_id("id", id)
        self._memory = Memory()
        self._shared: McpConnection | None = None
        if not isinstance(server, McpConnection):
            check_server(server)
            self._server, self._name = server, server.name if name is None else name
            self._new_connection()  # so that a wrong argument is refused here
        elif name is None and limits == ("", START_TIMEOUT, CALL_TIMEOUT, math.inf):
            self._server, self._name, self._shared = server.server, server.name, server
        else:
            raise ValueError("an open McpConnection has its own name, prefix and limits: give them to open_mcp")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._server!r}, name={self._name!r})"

    @property
    def middleware_id(self) -> str:
        """The id that was given; else its class, and the name of the connection."""
        return f"{type(self).__name__}:{self._name}" if self._id is None else self._id

    async def on_start(self, context: MiddlewareContext) -> None:
        """Open the agent's connection.

        Cancellation: the connection is closed with the agent's nursery.
        """
        connection = self._shared
        if connection is None:
            connection = self._new_connection()
            context.start_soon(connection.own)
        context.memory[_KEY] = connection
        if self._required:
            await connection.ready()
        else:
            await self._try(connection)
        context.start_soon(_follow, connection, context)

    async def before_turn(self, context: MiddlewareContext) -> None:
        """Have a connection that is not open opened again; the turn does not wait for it.

        Cancellation: nothing was done, or the owner of the connection continues.
        """
        connection: McpConnection = context.memory[_KEY]
        connection.wake()
        await trio.lowlevel.checkpoint()

    async def tools(self, context: MiddlewareContext) -> Sequence[McpTool]:
        """Return the server's tools, as last listed; none before the first listing."""
        connection: McpConnection = context.memory[_KEY]
        context.memory[_GIVEN] = connection.tools()
        return connection.tools()

    def debug_summary(self) -> JSON:
        """Return which server it is."""
        return {"server": repr(self._server), "name": self._name, "shared": self._shared is not None, "required": self._required}

    def _new_connection(self) -> McpConnection:
        return McpConnection(self._server, self._name, *self._limits, memory=self._memory)

    async def _try(self, connection: McpConnection) -> None:
        """Wait a while for the connection to open, and start without it otherwise."""
        why = f"it was not ready within {self._memory.patience:g} seconds"
        with trio.move_on_after(self._memory.patience) as patience:
            try:
                await connection.ready()
            except McpDisconnected as exc:
                why = exc.why
            else:
                self._memory.is_slow = False
                return
        self._memory.is_slow = patience.cancelled_caught
        log.warning("an agent starts without the tools of the MCP server %r: %s", self._name, why)


async def _follow(connection: McpConnection, context: MiddlewareContext) -> None:
    """Have the agent ask for the tools again whenever they are others than it was given; ends with the agent."""
    while True:
        if context.memory.get(_GIVEN, connection.tools()) is not connection.tools():
            context.refresh_tools()
        await connection.wait_changed()
