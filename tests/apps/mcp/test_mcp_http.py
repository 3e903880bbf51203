"""A server over streamable HTTP: the SDK's own server in a process on this machine, and an old server of ours that misbehaves on demand."""

import contextlib
import faulthandler
import functools
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.apps.mcp._kit import descriptors, read_request
from trio_sagents import Agent, Completed, ImagePart, SessionConfig, SingleFactoryRouter, open_sessions
from trio_sagents.mcp import HttpServer, Mcp, McpDisconnected, open_mcp
from trio_sagents.mcp._http import MAX_BODY
from trio_sagents.testing import Call, ScriptedModel

SERVER = Path(__file__).with_name("http_server.py")


@pytest.fixture(scope="module")
def modern() -> Iterator[str]:
    """Run the SDK's server, for all tests here: it takes seconds to start. Who connects early waits in its backlog."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        command = [sys.executable, str(SERVER), str(fd)]
        with subprocess.Popen(command, pass_fds=[fd], stderr=subprocess.DEVNULL) as process:
            faulthandler.dump_traceback_later(90, exit=True)  # starting an interpreter on a busy machine is not a hang
            with contextlib.suppress(urllib.error.HTTPError):  # any answer means that it is there
                urllib.request.urlopen(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=60)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
            process.kill()


@attrs.define
class OldServer:
    """A server with sessions, as the protocol was before."""

    port: int = 0
    sessions: list[str] = attrs.field(factory=list)
    known: str = ""
    """The session that it knows."""
    hanging: trio.Event = attrs.field(factory=trio.Event)
    """Set when a call has come that gets no answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Listen, at the same port as before."""
        async with trio.open_nursery() as nursery:
            serve = functools.partial(trio.serve_tcp, self.serve, self.port, host="127.0.0.1")
            (listener,) = await nursery.start(serve)
            self.port = listener.socket.getsockname()[1]
            yield
            nursery.cancel_scope.cancel()

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            method, headers, body = await read_request(stream)
            status, more, answer = await self.answer(method, headers, json.loads(body or b"{}"))
            text = json.dumps(answer) if answer else ""
            kind = f"content-type: application/json\r\ncontent-length: {len(text)}\r\nconnection: close\r\n{more}"
            try:
                await stream.send_all(f"HTTP/1.1 {status} x\r\n{kind}\r\n{text}".encode())
            except trio.BrokenResourceError:
                return  # the client has read enough

    async def answer(self, method: str, headers: dict[str, str], message: Any) -> tuple[int, str, Any]:
        if method != "POST":
            return 405, "", None
        if message["method"] == "initialize":
            self.known = f"session-{len(self.sessions)}"
            self.sessions.append(self.known)
            info = {"name": "old", "version": "1"}
            result: Any = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
            return 200, f"mcp-session-id: {self.known}\r\n", {"jsonrpc": "2.0", "id": message["id"], "result": result}
        if headers.get("mcp-session-id") != self.known or not self.known:
            return (404 if "mcp-session-id" in headers else 400), "", None
        if "id" not in message:
            return 202, "", None
        if message["method"] == "tools/list":
            result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("session", "header", "hang", "big")]}
        else:
            result = {"content": [{"type": "text", "text": await self.call(message["params"]["name"], headers)}]}
        return 200, "", {"jsonrpc": "2.0", "id": message["id"], "result": result}

    async def call(self, name: str, headers: dict[str, str]) -> str:
        match name:
            case "session":
                return self.known
            case "header":
                return headers["authorization"]
            case "big":
                return "x" * (MAX_BODY + 1)
            case _:
                self.hanging.set()
                return await trio.sleep_forever()


async def test_call_when_server_is_modern(modern: str) -> None:
    """The server's answer is the result, headers are sent, and no socket is left."""
    before = descriptors()
    async with open_mcp(HttpServer(modern, {"Authorization": "Bearer hunter22"}), name="web") as connection:
        answer = await connection.call("header", {"name": "authorization"})

        assert "Bearer hunter22" == answer.content
        assert ["header", "slow", "picture", "is_slow", "was_cancelled"] == [tool.name for tool in connection.tools()]

    assert before == descriptors()


async def test_call_when_cancelled(modern: str) -> None:
    """A cancelled call is cancelled at the server."""
    async with open_mcp(HttpServer(modern)) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.call, "slow", {})
            while not (await connection.call("is_slow", {})).content:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

        assert nursery.cancel_scope.cancelled_caught
        while not (await connection.call("was_cancelled", {})).content:
            await trio.lowlevel.checkpoint()


async def test_call_when_server_is_old() -> None:
    """A server that knows only the older protocol is spoken with in that; no socket is left."""
    server = OldServer()
    async with server.run():
        before = descriptors()
        async with open_mcp(HttpServer(server.url, {"Authorization": "Bearer hunter22"})) as connection:
            answers = [await connection.call("session", {}), await connection.call("header", {})]

            assert ["session-0", "Bearer hunter22"] == [answer.content for answer in answers]
        while before != descriptors():  # noqa: ASYNC110  # the server closes its ends, too, when it sees that the client has left
            await trio.sleep(0.001)


async def test_call_when_server_goes_and_comes_back() -> None:
    """A call that the server did not live to answer says so; when it is back the next call goes through."""
    server = OldServer()
    errors: list[McpDisconnected] = []
    async with trio.open_nursery() as nursery:
        async with server.run():
            connection = await nursery.start(_hold, server)

            async def ask() -> None:
                try:
                    await connection.call("hang", {})
                except McpDisconnected as exc:
                    errors.append(exc)

            nursery.start_soon(ask)
            await server.hanging.wait()
        while not errors:  # noqa: ASYNC110  # nothing tells us sooner
            await trio.sleep(0.001)
        with pytest.raises(McpDisconnected, match=r"it cannot be reached \(ConnectError\)"):
            await connection.call("session", {})
        async with server.run():
            answer = await connection.call("session", {})
        nursery.cancel_scope.cancel()

    assert "session-1" == answer.content
    assert "lost during the call" in errors[0].why


async def _hold(server: OldServer, *, task_status: trio.TaskStatus[Any]) -> None:
    async with open_mcp(HttpServer(server.url)) as connection:
        task_status.started(connection)
        await trio.sleep_forever()


async def test_start_when_nobody_listens() -> None:
    """An address without a server is an error that contains no secrets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(McpDisconnected) as caught:
        async with open_mcp(HttpServer(f"http://127.0.0.1:{port}/mcp?key=hunter22")):
            raise AssertionError("unreachable")

    assert "no connection to the MCP server '127.0.0.1': it cannot be reached (ConnectError)" == str(caught.value)
    assert caught.value.__cause__ is None


async def test_call_when_answer_is_endless() -> None:
    """An answer over the limit is an error of the call, and no more of it is read. The connection continues."""
    server = OldServer()
    async with server.run(), open_mcp(HttpServer(server.url)) as connection:
        answer = await connection.call("big", {})

        assert answer.is_error
        assert len(answer.content) < 1000
        assert "session-0" == (await connection.call("session", {})).content


async def test_session_when_the_server_forgets_it() -> None:
    """If the server no longer knows the session, the call is lost, and the next call has a new session."""
    server = OldServer()
    async with server.run(), open_mcp(HttpServer(server.url)) as connection:
        first = await connection.call("session", {})
        server.known = "none"
        with pytest.raises(McpDisconnected, match="lost during the call"):
            await connection.call("session", {})
        second = await connection.call("session", {})

    assert ["session-0", "session-1"] == [first.content, second.content]


async def test_large_image(modern: str) -> None:
    """An image that has more bytes than the text of a result may have arrives whole: as an image, for the model, and in the history."""
    size = 600_000
    agent = Agent(model=ScriptedModel([Call("picture", size=size), "seen"]), middleware=[Mcp(HttpServer(modern), name="web")])
    with trio.fail_after(60):
        async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
            assert isinstance(await (await sessions.post("c", "Show it.")).wait(), Completed)
            page = await sessions.history("c")
    assert isinstance(agent.model, ScriptedModel)
    (result,) = agent.model.requests[1].messages[-1].results
    (image,) = result.media

    assert isinstance(image, ImagePart)
    assert 4 * -(-(size + 8) // 3) == len(image.data or "")
    assert "AAAA" not in result.content
    assert ["image"] == [row.content_type for row in page.rows if row.content_type == "image"]
