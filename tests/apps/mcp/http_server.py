"""A server over streamable HTTP, by the SDK, in a process of its own: it listens on the descriptor that it is given."""

import sys

import anyio
import uvicorn
from mcp.server.mcpserver import Context, Image, MCPServer

server = MCPServer("web")
begun: list[str] = []
cancelled: list[str] = []


@server.tool()
async def header(name: str, context: Context) -> str:
    request = context.request_context.request
    return "" if request is None else request.headers.get(name, "")


@server.tool()
async def slow() -> str:
    begun.append("slow")
    try:
        await anyio.sleep(600)
    except BaseException:
        cancelled.append("slow")
        raise
    return "slept"


@server.tool()
async def picture(size: int) -> Image:
    return Image(data=b"\x89PNG\r\n\x1a\n" + bytes(size), format="png")


@server.tool()
async def is_slow() -> str:
    return " ".join(begun)


@server.tool()
async def was_cancelled() -> str:
    return " ".join(cancelled)


if __name__ == "__main__":
    config = uvicorn.Config(server.streamable_http_app(), fd=int(sys.argv[1]), log_level="error", lifespan="on")
    uvicorn.Server(config).run()
