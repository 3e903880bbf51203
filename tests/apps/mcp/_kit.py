"""Servers, and ways to see what is left of them."""

import gc
import math
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import trio
from mcp.client._memory import InMemoryTransport
from mcp.server.mcpserver import MCPServer
from mcp.shared.message import SessionMessage

from trio_sagents.mcp import McpConnection, StdioServer
from trio_sagents.mcp._wire import read_messages
from trio_sagents.testing.mcp_server import Ended, QuirkyServer

RUDE = Path(__file__).with_name("rude_server.py")


def rude(*flags: str, **settings: Any) -> StdioServer:
    """Return the server that misbehaves."""
    return StdioServer(sys.executable, ["-I", str(RUDE), *flags], **settings)


def time_server() -> StdioServer:
    """Return a real one, from PyPI."""
    return StdioServer(sys.executable, ["-m", "mcp_server_time", "--local-timezone", "UTC"])


def descriptors() -> int:
    """Return how many files this process has open, without those that only garbage still holds."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def children() -> set[int]:
    """Return the ids of this process's children, zombies included."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                found.add(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that is dead and not reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


async def appears(path: Path) -> None:
    """Wait until a server has made a file."""
    while not path.exists():  # noqa: ASYNC110  # another process makes it
        await trio.sleep(0.001)


async def read_request(stream: trio.SocketStream) -> tuple[str, dict[str, str], bytes]:
    """Return the method, the headers and the body of an HTTP request."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some()
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += await stream.receive_some()
    return first.split()[0], headers, body


Mutate = Callable[[str], Iterable[str]]
"""What becomes of a line that a server writes."""


@asynccontextmanager
async def quirky_streams(server: QuirkyServer, mutate: Mutate, on_lost: Callable[[], None]) -> AsyncIterator[Any]:
    to_session, heard = anyio.create_memory_object_stream[Any](math.inf)
    said, from_session = anyio.create_memory_object_stream[SessionMessage](0)

    async def serve() -> None:
        with to_session, from_session:
            async for message in from_session:
                line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                try:
                    for text in server.answer(line):
                        for data in mutate(text):
                            for parsed in read_messages(data.encode(errors="surrogatepass")):
                                await to_session.send(SessionMessage(parsed))
                except Ended:
                    on_lost()
                    return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield heard, said
        nursery.cancel_scope.cancel()
    heard.close()
    said.close()


@asynccontextmanager
async def quirky(
    server: QuirkyServer, monkeypatch: Any, *, mutate: Mutate = lambda line: [line], required: bool = True, **settings: Any
) -> AsyncIterator[McpConnection]:
    """Open a connection to a quirky server in this process, in virtual time; its lines are read as those of a child process."""
    monkeypatch.setattr("trio_sagents.mcp._opening.transport_to", lambda _server, _name, on_lost: quirky_streams(server, mutate, on_lost))
    async with _owned(required=required, **settings) as connection:
        yield connection


@asynccontextmanager
async def in_memory(server: MCPServer, monkeypatch: Any, **settings: Any) -> AsyncIterator[McpConnection]:
    """Open a connection to a server in this process, in virtual time. The transport is the SDK's own."""
    monkeypatch.setattr("trio_sagents.mcp._opening.transport_to", lambda *_: InMemoryTransport(server))
    async with _owned(**settings) as connection:
        yield connection


@asynccontextmanager
async def _owned(*, required: bool = True, **settings: Any) -> AsyncIterator[McpConnection]:
    connection = McpConnection(StdioServer("in-memory"), "memory", **settings)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.own)
        if required:
            await connection.ready()
        yield connection
        nursery.cancel_scope.cancel()
