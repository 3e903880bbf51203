"""A server over streamable HTTP, in a process of its own on this machine."""

import functools
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.mcp._kit import descriptors
from trio_sagents.mcp import HttpServer, McpDisconnected, open_mcp

SERVER = Path(__file__).with_name("http_server.py")


@attrs.define
class Web:
    """A server that can be ended and started again at the same address."""

    listener: socket.socket
    flags: tuple[str, ...]
    process: trio.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/mcp"

    async def start(self) -> None:
        fd = self.listener.fileno()
        self.process = await trio.lowlevel.open_process(
            [sys.executable, str(SERVER), str(fd), *self.flags], pass_fds=[fd], stderr=subprocess.DEVNULL
        )

    async def end(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def web(*flags: str) -> AsyncIterator[Web]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Web(listener, flags)
        await server.start()
        try:
            yield server
        finally:
            with trio.move_on_after(5, shield=True):
                await server.end()


@pytest.mark.parametrize("flags", [(), ("--json",)])
async def test_call_when_server_is_well(flags: tuple[str, ...]) -> None:
    """The server's answer is the result, headers are sent, and no socket is left."""
    async with web(*flags) as server:
        before = descriptors()
        async with open_mcp(HttpServer(server.url, {"Authorization": "Bearer hunter22"}), name="web") as connection:
            answers = [await connection.call("echo", {"text": "hello"}), await connection.call("header", {"name": "authorization"})]

            assert ["hello", "Bearer hunter22"] == [answer.content for answer in answers]
            assert "echo" in [tool.name for tool in connection.tools()]

        assert before == descriptors()


async def test_call_when_cancelled() -> None:
    """A cancelled call is cancelled at the server."""
    async with web() as server, open_mcp(HttpServer(server.url)) as connection:
        with trio.move_on_after(0.3) as patience:
            await connection.call("slow", {})

        assert patience.cancelled_caught
        while not (await connection.call("was_cancelled", {})).content:
            await trio.lowlevel.checkpoint()


async def test_call_when_server_goes_and_comes_back() -> None:
    """A call that the server did not live to answer says so; when it is back the next call goes through."""
    async with web() as server, open_mcp(HttpServer(server.url), reconnects=100) as connection, trio.open_nursery() as nursery:
        errors: list[McpDisconnected] = []

        async def ask() -> None:
            try:
                await connection.call("slow", {})
            except McpDisconnected as exc:
                errors.append(exc)

        nursery.start_soon(ask)
        await connection.call("echo", {"text": "the other call has been sent"})
        await server.end()
        while not errors:  # noqa: ASYNC110  # nothing tells us sooner
            await trio.sleep(0.001)
        await server.start()

        assert "again" == (await connection.call("echo", {"text": "again"})).content
        assert "lost during the call" in errors[0].why


async def test_start_when_nobody_listens() -> None:
    """An address where nobody listens is an error without the secrets in it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(McpDisconnected) as caught:
        async with open_mcp(HttpServer(f"http://127.0.0.1:{port}/mcp?key=hunter22")):
            raise AssertionError("unreachable")

    assert "no connection to the MCP server '127.0.0.1': it cannot be reached (ConnectError)" == str(caught.value)
    assert caught.value.__cause__ is None


async def test_call_when_answer_is_endless() -> None:
    """An answer over the limit is an error, and no more of it is read."""
    async with web("--json") as server, open_mcp(HttpServer(server.url)) as connection:
        answer = await connection.call("big", {})

        assert answer.is_error
        assert len(answer.content) < 1000
        assert "fine" == (await connection.call("echo", {"text": "fine"})).content


@attrs.define
class OldServer:
    """A server with sessions, as the protocol was before; it can forget them."""

    sessions: list[str] = attrs.field(factory=list)
    known: str = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some()
            head, _, body = data.partition(b"\r\n\r\n")
            first, *lines = head.decode().lower().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            while len(body) < int(headers.get("content-length", 0)):
                body += await stream.receive_some()
            status, more, answer = self.answer(first.split()[0], headers, json.loads(body or b"{}"))
            text = json.dumps(answer) if answer else ""
            kind = f"content-type: application/json\r\ncontent-length: {len(text)}\r\nconnection: close\r\n{more}"
            await stream.send_all(f"HTTP/1.1 {status} x\r\n{kind}\r\n{text}".encode())

    def answer(self, method: str, headers: dict[str, str], message: Any) -> tuple[int, str, Any]:
        if method != "post":
            return 405, "", None
        if message["method"] == "initialize":
            self.known = f"session-{len(self.sessions)}"
            self.sessions.append(self.known)
            info = {"name": "old", "version": "1"}
            result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
            return 200, f"mcp-session-id: {self.known}\r\n", {"jsonrpc": "2.0", "id": message["id"], "result": result}
        if headers.get("mcp-session-id") != self.known or not self.known:
            return (404 if "mcp-session-id" in headers else 400), "", None
        if "id" not in message:
            return 202, "", None
        tools = [{"name": "ask", "inputSchema": {"type": "object"}}]
        results = {"tools/list": {"tools": tools}, "tools/call": {"content": [{"type": "text", "text": self.known}]}}
        return 200, "", {"jsonrpc": "2.0", "id": message["id"], "result": results[message["method"]]}


async def test_session_when_the_server_forgets_it() -> None:
    """A server that does not know our session any more loses the call; the next one has a new session."""
    server = OldServer()
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(functools.partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
        async with open_mcp(HttpServer(f"http://127.0.0.1:{listener.socket.getsockname()[1]}/")) as connection:
            first = await connection.call("ask", {})
            server.known = "none"
            with pytest.raises(McpDisconnected, match="lost during the call"):
                await connection.call("ask", {})
            second = await connection.call("ask", {})
        nursery.cancel_scope.cancel()

    assert ["session-0", "session-1"] == [first.content, second.content]
