"""MCP servers as sources of tools: `Agent(..., middleware=[Mcp(StdioServer("uvx", ["mcp-server-time"]))])`.

Each connection is owned by one task, and a server's child process is gone when that task has ended. What a server says of its tools and
in its results is untrusted: it is bounded, and its annotations decide nothing. What a server says wrongly costs the part that is wrong:
one tool, one answer, or the tools of this server.

The modules, lowest first. Each module imports only modules that come before it in this list:

    _servers       where a server is, and how it is reached; what is secret about it
    _errors        a connection that is not there, and why
    _wire          one line of a server, read as JSON-RPC
    _answers       the answers of a server, in a form that the SDK takes
    _results       the answer to a call, as text, images and files
    _schemas       the schema of a tool, in a form that providers take
    _tools         the tools of a server as tools of an agent
    _streams       the types of what passes between a transport and the SDK
    _stdio         a server as a child process
    _http          a server over streamable HTTP
    _listening     what goes out is noted, and what comes in is repaired
    _memory        what is remembered of a server from one connection to the next
    _opening       one opening of a connection, from the first word to the loss
    _connection    a connection for any number of tasks
    _middleware    the middleware of an agent
"""

try:
    import mcp as _sdk
except ImportError as _exc:
    if _exc.name != "mcp":
        raise
    raise ImportError('trio_sagents.mcp needs the SDK "mcp": pip install "trio-sagents[mcp]"', name="mcp") from _exc

from trio_sagents.mcp._connection import McpConnection, open_mcp
from trio_sagents.mcp._errors import McpDisconnected
from trio_sagents.mcp._middleware import Mcp
from trio_sagents.mcp._servers import HttpServer, StdioServer
from trio_sagents.mcp._tools import McpHints, McpTool, is_mcp_tool

del _sdk

__all__ = ("HttpServer", "Mcp", "McpConnection", "McpDisconnected", "McpHints", "McpTool", "StdioServer", "is_mcp_tool", "open_mcp")
