"""Servers of asyncio inside of a test, on 127.0.0.1, and clients that talk to them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import uvicorn
import wsproto
import wsproto.events

from tests.apps.guest._kit import HANGS


@contextlib.asynccontextmanager
async def served(app: Any, **settings: Any) -> AsyncIterator[int]:
    """Serve an application with uvicorn while the block is open, and yield the port."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, ws="wsproto", timeout_graceful_shutdown=int(HANGS), **settings)
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server._serve())  # without its signal handlers
    while not server.started:
        assert not serving.done(), serving.exception()
        await asyncio.sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, HANGS)


def client(port: int) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=HANGS)


async def events(http: httpx2.AsyncClient, path: str, after: str | None = None) -> AsyncIterator[tuple[str, Any]]:
    """Yield (id, data) of each server-sent event of a response."""
    headers = {} if after is None else {"Last-Event-ID": after}
    async with http.stream("GET", path, headers=headers) as response:
        assert 200 == response.status_code
        name = ""
        async for line in response.aiter_lines():
            if line.startswith("id: "):
                name = line.removeprefix("id: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


class Socket:
    """A WebSocket of a client, as little as the tests need."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._wire = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)

    @classmethod
    async def open(cls, port: int, path: str) -> "Socket":
        socket = cls(*await asyncio.open_connection("127.0.0.1", port))
        origin = (b"origin", f"http://127.0.0.1:{port}".encode())
        socket._send(wsproto.events.Request(host=f"127.0.0.1:{port}", target=path, extra_headers=[origin]))
        assert isinstance(await socket._next(), wsproto.events.AcceptConnection)
        return socket

    def _send(self, event: Any) -> None:
        self._writer.write(self._wire.send(event))

    async def _next(self) -> Any:
        while True:
            for event in self._wire.events():
                return event
            data = await self._reader.read(65536)
            self._wire.receive_data(data or None)

    def send(self, text: str) -> None:
        self._send(wsproto.events.TextMessage(data=text))

    async def receive(self) -> str | int:
        """Return the next message, or the code with which the server has closed the socket."""
        text = ""
        while True:
            match await self._next():
                case wsproto.events.TextMessage(data=data, message_finished=is_finished):
                    text += data
                    if is_finished:
                        return text
                case wsproto.events.CloseConnection(code=code) as closing:
                    with contextlib.suppress(wsproto.utilities.LocalProtocolError):
                        self._send(closing.response())
                    return int(code)

    async def close(self) -> None:
        self._send(wsproto.events.CloseConnection(code=1000))
        await self.abort()

    async def abort(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
