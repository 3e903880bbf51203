"""What servers over HTTP really answer: bodies and events that are almost JSON-RPC, and answers that are none."""

import functools
import gzip
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from tests.apps.mcp._kit import read_request
from trio_sagents.mcp import HttpServer, McpConnection, McpDisconnected, open_mcp

Answer = Callable[[Any], tuple[str, bytes]]
"""From the id of a request: the header lines of the answer, and its body."""
JSON = "content-type: application/json\r\n"
EVENTS = "content-type: text/event-stream\r\n"
DONE = {"content": [{"type": "text", "text": "done"}]}


@attrs.define
class OddServer:
    """A server that answers calls in one odd way, and everything else as it should."""

    answer: Answer
    calls: int = 0

    @asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        """Listen; yield the address."""
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(functools.partial(trio.serve_tcp, self.serve, 0, host="127.0.0.1"))
            yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
            nursery.cancel_scope.cancel()

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            _, _, body = await read_request(stream)
            status, headers, text = self.reply(json.loads(body or b"{}"))
            connection = "connection: close\r\n"
            try:
                await self.send(stream, f"HTTP/1.1 {status} x\r\n{headers}{connection}\r\n".encode() + text)
            except trio.BrokenResourceError:
                return  # the client has read enough

    async def send(self, stream: trio.SocketStream, data: bytes) -> None:
        await stream.send_all(data)

    def reply(self, message: Any) -> tuple[int, str, bytes]:
        match message.get("method"):
            case "initialize":
                said = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "odd", "version": "1"}}
                return 200, JSON, text(id=message["id"], result=said)
            case "tools/list":
                return 200, JSON, text(id=message["id"], result={"tools": [{"name": "echo"}]})
            case "tools/call":
                self.calls += 1
                return 200, *self.answer(message["id"])
            case None:
                return 405, "", b""
            case _ if "id" in message:
                return 200, JSON, text(id=message["id"], error={"code": -32601, "message": "no such method"})
            case _:
                return 202, "", b""


def text(**fields: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **fields}).encode()


@asynccontextmanager
async def opened(answer: Answer, **settings: Any) -> AsyncIterator[tuple[McpConnection, OddServer]]:
    server = OddServer(answer)
    async with server.run() as url, open_mcp(HttpServer(url), name="odd", **settings) as connection:
        yield connection, server


@pytest.mark.parametrize(
    "body",
    [
        lambda number: text(id=number, result=DONE),
        lambda number: text(id=999, result=DONE),
        lambda _: text(result=DONE),
        lambda number: b"\xef\xbb\xbf" + text(id=number, result=DONE),
        lambda number: text(id=number, result=DONE, error=None),
        lambda number: text(id=str(number), result="done"),
        lambda number: b"[" + text(method="notifications/x") + b"," + text(id=number, result=DONE) + b"]",
    ],
)
@pytest.mark.parametrize("kind", ["body", "event", "compressed"])
async def test_call_when_the_answer_is_odd(body: Any, kind: str) -> None:
    """An answer with one meaning has that meaning, in a body and in an event; a body that is compressed is left as it is."""

    def answer(number: Any) -> tuple[str, bytes]:
        data: bytes = body(number)
        if kind == "event":
            return EVENTS, b": ping\r\n\r\nevent: message\r\ndata:" + data + b"\r\n\r\n"
        if kind == "compressed":
            return f"{JSON}content-encoding: gzip\r\n", gzip.compress(text(id=number, result=DONE))
        return JSON, data

    async with opened(answer) as (connection, server):
        result = await connection.call("echo", {})

        assert (["echo"], "done", False, 1) == ([tool.name for tool in connection.tools()], result.content, result.is_error, server.calls)


@pytest.mark.parametrize(
    ("headers", "body", "words"),
    [
        (JSON, b"<html>oops</html>", "sent an answer that cannot be read"),
        (JSON, b"", "sent an answer that cannot be read"),
        ("content-type: text/html\r\n", b"<html>oops</html>", "refused the call: Unexpected content type: text/html"),
        (EVENTS, b"event: message\ndata: oops\n\n", "sent an answer that cannot be read"),
    ],
)
async def test_call_when_the_answer_is_none(headers: str, body: bytes, words: str) -> None:
    """What is no answer ends the call at once, and the call is not made again; the connection goes on."""
    answers: Sequence[tuple[str, bytes]] = [(headers, body)]

    async with opened(lambda number: answers[0] if server.calls == 1 else (JSON, text(id=number, result=DONE))) as (connection, server):
        result = await connection.call("echo", {})

        assert (True, 1) == (result.is_error, server.calls)
        assert words in result.content
        assert "done" == (await connection.call("echo", {})).content


async def test_call_when_the_answer_is_half() -> None:
    """An answer that is cut is one that worked, if it is seen to be a result."""
    async with opened(lambda number: (JSON, text(id=number, result=DONE)[:-10])) as (connection, _):
        result = await connection.call("echo", {})

        assert not result.is_error
        assert result.content.startswith("[The call worked. The answer of the server cannot be read; it begins with:")


async def test_call_when_the_stream_ends_without_an_answer() -> None:
    """A stream that ends without an answer is a call that may have taken effect; nobody makes it again."""
    async with opened(lambda _: (EVENTS, b": ping\n\n")) as (connection, server):
        with pytest.raises(McpDisconnected, match="may have taken effect, or not"):
            await connection.call("echo", {})

        assert 1 == server.calls


async def test_call_when_the_server_only_keeps_the_connection_alive() -> None:
    """A server that sends signs of life, and no answer, does not keep a turn for ever."""

    class Pinging(OddServer):
        async def send(self, stream: trio.SocketStream, data: bytes) -> None:
            await stream.send_all(data)
            while self.calls:
                await stream.send_all(b": ping\n\n")
                await trio.sleep(0.01)

    server = Pinging(lambda _: (EVENTS, b""))
    async with server.run() as url, open_mcp(HttpServer(url), name="odd", call_timeout=0.2) as connection:
        result = await connection.call("echo", {})

        assert "The MCP server 'odd' did not answer within 0.2 seconds: the outcome is unknown." == result.content
