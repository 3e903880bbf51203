"""A bridge behind a real server, and a page with a real socket."""

import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import attrs
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, RejectConnection, Request, TextMessage


@asynccontextmanager
async def served(app: Any, stop: Any = None, **settings: Any) -> AsyncIterator[str]:
    """Serve an application with hypercorn on a free port, and yield its address. `stop` is called before the server stops."""
    config = Config.from_mapping({"bind": "127.0.0.1:0", "loglevel": "ERROR", "graceful_timeout": 1.0, **settings})
    stopping, over = trio.Event(), trio.Event()

    async def wait_stop() -> None:
        await stopping.wait()
        if stop is not None:
            await stop()

    async def run(task_status: Any) -> None:
        await serve(app, config, shutdown_trigger=wait_stop, task_status=task_status)
        over.set()

    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(run)
        try:
            yield address
        finally:
            stopping.set()
            with trio.move_on_after(30, shield=True):
                await over.wait()
            nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class RealSocket:
    """A WebSocket of a page, over TCP."""

    stream: trio.SocketStream
    protocol: WSConnection
    code: int | None = None
    status: int = 101
    _frames: list[Any] = attrs.field(factory=list)
    _text: str = ""

    @classmethod
    async def open(cls, address: str, path: str, headers: dict[str, str]) -> "RealSocket":
        url = urlsplit(address)
        stream = await trio.open_tcp_stream(url.hostname, url.port)
        protocol = WSConnection(ConnectionType.CLIENT)
        pairs = [(name.encode(), value.encode()) for name, value in {"origin": address, **headers}.items()]
        await stream.send_all(protocol.send(Request(host=url.netloc, target=path, extra_headers=pairs)))
        opened = cls(stream, protocol)
        while opened.status == 101 and not await opened._receive():
            pass
        return opened

    async def _receive(self) -> bool:
        """Read once; return whether the handshake or a frame has come."""
        data = await self.stream.receive_some(65536)
        self.protocol.receive_data(data or None)
        is_news = not data
        for event in self.protocol.events():
            is_news = True
            match event:
                case AcceptConnection():
                    pass
                case RejectConnection(status_code=status):
                    self.status = status
                case TextMessage(data=text, message_finished=is_whole):
                    self._text += text
                    if is_whole:
                        self._frames.append(json.loads(self._text))
                        self._text = ""
                case CloseConnection(code=code):
                    self.code = code
        return is_news

    async def send(self, **frame: Any) -> None:
        await self.stream.send_all(self.protocol.send(TextMessage(json.dumps(frame))))

    async def next(self) -> Any:
        """Return the next frame; None at the end."""
        while not self._frames:
            if self.code is not None:
                return None
            await self._receive()
        return self._frames.pop(0)

    async def until(self, op: str, **members: Any) -> Any:
        while True:
            frame = await self.next()
            assert frame is not None, self.code
            if frame["op"] == op and all(frame.get(name) == value for name, value in members.items()):
                return frame

    def reset(self) -> None:
        """End the connection with a RST: the server gets no word of it."""
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()
