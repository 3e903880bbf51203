"""An MCP server as middleware: its tools for an agent, and its connection for as long as the agent lives."""

import math
from collections.abc import Sequence
from typing import Final

from trio_sagents.agent import Middleware, MiddlewareContext
from trio_sagents.data.json import JSON
from trio_sagents.mcp._connection import RECONNECTS, START_TIMEOUT, McpConnection
from trio_sagents.mcp._servers import Server, check_server
from trio_sagents.mcp._tools import McpTool

_KEY: Final = "connection"


class Mcp(Middleware):
    """Gives an agent the tools of an MCP server.

    With a server, each agent has a connection of its own, in its own nursery: it is opened when the agent starts, which fails
    where that fails, and a child process is gone when the agent has ended. With a connection (`open_mcp`), the agents share it,
    and it must be open for longer than they live. Tools that the server changes are there at the next turn.

    `Approvals({}, when=is_mcp_tool)` beside it has people decide about each call of these tools, in sub-agents, too.
    """

    def __init__(
        self,
        server: Server | McpConnection,
        *,
        name: str | None = None,
        prefix: str = "",
        start_timeout: float = START_TIMEOUT,
        call_timeout: float = math.inf,
        reconnects: int = RECONNECTS,
    ) -> None:
        """Describe it; nothing is opened.

        Args:
            server: the server, or an open connection, which has its own name, prefix and limits.
            name: as of `open_mcp`, and so are the others.
            prefix: stands before the name of each tool.
            start_timeout: seconds; the agent's `start_timeout` goes on meanwhile.
            call_timeout: seconds for the answer to a call.
            reconnects: how often in a row a lost connection is opened again.

        Raises:
            TypeError: `server` is neither a server nor a connection.
            ValueError: an argument is out of range, or given beside a connection.
        """
        limits = (prefix, start_timeout, call_timeout, reconnects)
        self._limits = limits
        self._shared: McpConnection | None = None
        if not isinstance(server, McpConnection):
            check_server(server)
            self._server, self._name = server, server.name if name is None else name
            self._connect()  # so that what is wrong with the arguments is said here
        elif name is None and limits == ("", START_TIMEOUT, math.inf, RECONNECTS):
            self._server, self._name, self._shared = server.server, server.name, server
        else:
            raise ValueError("an open McpConnection has its own name, prefix and limits: give them to open_mcp")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._server!r}, name={self._name!r})"

    @property
    def middleware_id(self) -> str:
        """Its class, and the name of the connection."""
        return f"{type(self).__name__}:{self._name}"

    async def on_start(self, context: MiddlewareContext) -> None:
        """Open the agent's connection.

        Cancellation: the connection is closed with the agent's nursery.
        """
        connection = self._shared
        if connection is None:
            connection = self._connect()
            context.start_soon(connection.own)
        context.memory[_KEY] = connection
        await connection.ready()
        context.start_soon(_follow, connection, context)

    async def tools(self, context: MiddlewareContext) -> Sequence[McpTool]:
        """Return the server's tools, as last listed."""
        connection: McpConnection = context.memory[_KEY]
        return connection.tools()

    def debug_summary(self) -> JSON:
        """Return which server it is."""
        return {"server": repr(self._server), "name": self._name, "shared": self._shared is not None}

    def _connect(self) -> McpConnection:
        return McpConnection(self._server, self._name, *self._limits)


async def _follow(connection: McpConnection, context: MiddlewareContext) -> None:
    """Have the agent ask for the tools again whenever they have changed; ends with the agent."""
    while True:
        await connection.wait_changed()
        context.refresh_tools()
