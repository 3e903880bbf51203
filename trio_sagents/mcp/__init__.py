"""MCP servers as sources of tools: `Agent(..., middleware=[Mcp(StdioServer("uvx", ["mcp-server-time"]))])`.

Each connection is owned by one task, and a server's child process is gone when that task has ended. What a server says, of its
tools and in its results, is untrusted: it is bounded, and its annotations decide nothing here.
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
