"""The transport of before 2025: answers come as events of one long response, and requests are posted to an address that it names."""

import functools
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from tests.apps.mcp._kit import read_request
from trio_sagents.mcp import HttpServer, McpDisconnected, open_mcp

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@attrs.define(eq=False)
class SseServer:
    """A server with one long response for each session."""

    port: int = 0
    headers: list[dict[str, str]] = attrs.field(factory=list)
    sessions: list[trio.MemorySendChannel[bytes]] = attrs.field(factory=list)
    calls: list[str] = attrs.field(factory=list)
    ends_at: str = ""
    """The name of the tool at which the long response ends."""

    @property
    def server(self) -> HttpServer:
        return HttpServer(f"http://127.0.0.1:{self.port}/sse", {"Authorization": "Bearer secret"}, transport="sse")

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            serve = functools.partial(trio.serve_tcp, self.serve, 0, host="127.0.0.1")
            (listener,) = await nursery.start(serve)
            self.port = listener.socket.getsockname()[1]
            yield
            nursery.cancel_scope.cancel()

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            method, headers, body = await read_request(stream)
            self.headers.append(headers)
            try:
                await (self._events(stream) if method == "GET" else self._post(stream, json.loads(body)))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def _events(self, stream: trio.SocketStream) -> None:
        send, receive = trio.open_memory_channel[bytes](math.inf)
        self.sessions.append(send)
        await stream.send_all(HEAD + b"event: endpoint\ndata: /messages?session_id=1\n\n: ping\n\n")
        async for event in receive:
            await stream.send_all(event)

    async def _post(self, stream: trio.SocketStream, message: Any) -> None:
        await stream.send_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        result = self._result(message)
        if result is not None:
            answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
            self.sessions[-1].send_nowait(f"event: message\ndata: {json.dumps(answer)}\n\n".encode())

    def _result(self, message: Any) -> Any:
        match message.get("method"):
            case "initialize":
                version = message["params"]["protocolVersion"]
                return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "old", "version": "1"}}
            case "tools/list":
                return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("count", "die")]}
            case "tools/call":
                name = message["params"]["name"]
                self.calls.append(name)
                if name == self.ends_at:
                    self.sessions[-1].close()
                    return None
                return {"content": [{"type": "text", "text": f"{name} done"}]}
            case _:
                return None


async def test_call_over_sse() -> None:
    """The tools are listed and called; every request has the headers."""
    old = SseServer()
    with trio.fail_after(30):
        async with old.run(), open_mcp(old.server, name="old") as connection:
            assert ["count", "die"] == [tool.name for tool in connection.tools()]
            assert "count done" == (await connection.call("count", {})).content
    assert {"Bearer secret"} == {headers.get("authorization") for headers in old.headers}


async def test_connection_over_sse_when_it_ends() -> None:
    """The call in progress is told that its outcome is unknown; the next one has a new connection. No call is made twice."""
    old = SseServer(ends_at="die")
    with trio.fail_after(30):
        async with old.run(), open_mcp(old.server, name="old") as connection:
            with pytest.raises(McpDisconnected, match="may have taken effect"):
                await connection.call("die", {})
            assert "count done" == (await connection.call("count", {})).content
    assert ["die", "count"] == old.calls


def test_transport_that_is_not_known() -> None:
    """A wrong word is refused when the server is described."""
    with pytest.raises(ValueError, match="transport"):
        HttpServer("http://127.0.0.1:1/", transport="websocket")  # type: ignore[arg-type]
