"""A server over streamable HTTP, in a process of its own: it listens on the descriptor that it is given.

`--legacy` speaks the protocol with sessions only.
"""

import sys

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("web")
cancelled: list[str] = []


@server.tool()
async def echo(text: str) -> str:
    return text


@server.tool()
async def header(name: str, context: Context) -> str:
    request = context.request_context.request
    return "" if request is None else request.headers.get(name, "")


@server.tool()
async def slow() -> str:
    try:
        await anyio.sleep(600)
    except BaseException:
        cancelled.append("slow")
        raise
    return "slept"


@server.tool()
async def was_cancelled() -> str:
    return " ".join(cancelled)


@server.tool()
async def big() -> str:
    return "x" * (17 * 1024 * 1024)


if __name__ == "__main__":
    app = server.streamable_http_app(json_response="--json" in sys.argv)
    uvicorn.Server(uvicorn.Config(app, fd=int(sys.argv[1]), log_level="error", lifespan="on")).run()
