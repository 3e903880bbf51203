"""What goes wrong with a server. No text here ever has a value of `env` or `headers`, an argument, or a query in it."""

from typing import Final

import httpx2
import mcp_types
from mcp import MCPError

from trio_sagents._trio.groups import leaves
from trio_sagents.exceptions import SagentsError
from trio_sagents.mcp._servers import HttpServer, Server, StdioServer, redacted

MAX_WORDS: Final = 400
"""Characters of a server's own words that go into a message."""


class McpDisconnected(SagentsError):
    """There is no connection to an MCP server: it could not be opened, it was lost, or its owner has ended."""

    def __init__(self, server: str, why: str) -> None:
        super().__init__(server, why)
        self.server: Final = server
        """The name of the connection."""
        self.why: Final = why

    def __str__(self) -> str:
        return f"no connection to the MCP server {self.server!r}: {self.why}"


def explain(error: BaseException, server: Server) -> str:
    """Return why a connection failed, as half a sentence, without anything that may be a secret."""
    for leaf in leaves(error):
        match leaf:
            case httpx2.HTTPError():
                return f"it cannot be reached ({type(leaf).__name__})"
            case MCPError(code=mcp_types.CONNECTION_CLOSED) if isinstance(server, HttpServer):
                return "it ended the connection"
            case MCPError(code=mcp_types.CONNECTION_CLOSED):
                return "it ended the connection; the debug log of trio_sagents.mcp has what it wrote to its standard error"
            case MCPError():
                return f"it refused: {redacted(leaf.message, server)[:MAX_WORDS]}"
            case OSError() if isinstance(server, StdioServer):
                command = str(leaf.filename or server.command)
                hint = "; its arguments go into args" if " " in server.command and not server.args else ""
                return f"{command!r} cannot be started: {leaf.strerror or type(leaf).__name__}{hint}"
            case _:
                continue
    return f"it failed with {type(leaves(error)[0]).__name__}"


def is_worth_another_way(error: BaseException) -> bool:
    """Return whether a server that could not be connected to may take another first request: it was there, and it did not like ours."""
    return not any(isinstance(leaf, OSError | httpx2.TransportError) for leaf in leaves(error))
