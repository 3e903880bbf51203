"""A scripted HTTP server on 127.0.0.1. It speaks raw HTTP/1.1, so that a test decides about every byte and every break."""

import json
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import TypeAlias

import attrs
import trio

from trio_sagents.data.json import JSONValue


class Break(Enum):
    """What a server may do instead of sending the rest."""

    HANG = "say nothing more, until the client leaves"
    CLOSE = "close the connection in order, in the middle"
    RESET = "reset the connection"


HANG, CLOSE, RESET = Break.HANG, Break.CLOSE, Break.RESET


@attrs.define(eq=False)
class Gate:
    """A point in a reply where the server says that it is there, and waits."""

    reached: trio.Event = attrs.field(factory=trio.Event)
    go_on: trio.Event = attrs.field(factory=trio.Event)


Step: TypeAlias = bytes | Break | Gate


@attrs.frozen
class Reply:
    """One answer of the server."""

    steps: Sequence[Step] = ()
    """The body: each `bytes` is a chunk of the body; a break or a gate may be anywhere."""
    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=lambda: {"content-type": "text/event-stream; charset=utf-8"})
    before_headers: Sequence[Step] = ()
    """What happens before the status line; bytes are sent as they are."""
    is_chunked: bool = True
    """False: the length of the body is not given, and the body ends when the connection ends."""

    def split(self, size: int) -> "Reply":
        """Return the reply with its whole body cut into chunks of `size` bytes, even in the middle of a character."""
        body = b"".join(step for step in self.steps if isinstance(step, bytes))
        rest = [step for step in self.steps if not isinstance(step, bytes)]
        return attrs.evolve(self, steps=[*(body[at : at + size] for at in range(0, len(body), size)), *rest])

    def until(self, count: int, *steps: Step) -> "Reply":
        """Return the reply with its first `count` steps, and then these."""
        return attrs.evolve(self, steps=[*self.steps[:count], *steps])


@attrs.define(eq=False)
class Exchange:
    """A request as it came, and what happened to its answer."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: JSONValue
    """The parsed JSON."""
    connection: int
    """The connection that the request came on, counted from 0."""
    finished: trio.Event = attrs.field(factory=trio.Event)
    """Whether the answer was sent to its end."""
    disconnected: trio.Event = attrs.field(factory=trio.Event)
    """Whether the client left before the end of the answer."""


@attrs.define(eq=False)
class Provider:
    """The server, as a test sees it."""

    url: str
    replies: deque[Reply] = attrs.field(factory=deque)
    respond: Callable[[Exchange], Reply] | None = None
    exchanges: list[Exchange] = attrs.field(factory=list)
    """Every request, oldest first."""
    open_connections: int = 0
    connection_count: int = 0
    _arrival: trio.Event = attrs.field(factory=trio.Event)
    _departure: trio.Event = attrs.field(factory=trio.Event)

    @property
    def bodies(self) -> list[JSONValue]:
        """The bodies of all requests, oldest first."""
        return [exchange.body for exchange in self.exchanges]

    async def exchange(self, index: int = 0) -> Exchange:
        """Wait for a request, and return it.

        Cancellation: either the request is returned, or nothing was done.
        """
        while len(self.exchanges) <= index:
            await self._arrival.wait()
        return self.exchanges[index]

    async def wait_no_connections(self) -> None:
        """Wait until no client is connected.

        Cancellation: nothing was done.
        """
        while self.open_connections:
            await self._departure.wait()

    def _reply_to(self, exchange: Exchange) -> Reply:
        self.exchanges.append(exchange)
        self._arrival.set()
        self._arrival = trio.Event()
        if self.respond is not None:
            return self.respond(exchange)
        if self.replies:
            return self.replies.popleft()
        return error_reply(400, {"error": {"type": "invalid_request_error", "message": "the test has scripted no reply for this request"}})

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the requests of one connection, until the client leaves or a reply ends the connection.

        Cancellation: the connection is closed.
        """
        number, self.connection_count = self.connection_count, self.connection_count + 1
        self.open_connections += 1
        try:
            async with trio.open_nursery() as nursery:
                send, receive = trio.open_memory_channel[bytes](1000)
                current: list[Exchange] = []
                nursery.start_soon(_read_until_gone, stream, send, current, nursery.cancel_scope)
                await self._answer_requests(stream, receive, current, number)
                nursery.cancel_scope.cancel()
        finally:
            self.open_connections -= 1
            self._departure.set()
            self._departure = trio.Event()
            with trio.move_on_after(1, shield=True):
                await stream.aclose()

    async def _answer_requests(
        self,
        stream: trio.SocketStream,
        received: trio.MemoryReceiveChannel[bytes],
        current: list[Exchange],
        number: int,
    ) -> None:
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                pending += await received.receive()
            head, _, pending = pending.partition(b"\r\n\r\n")
            start, *lines = head.decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            while len(pending) < int(headers.get("content-length", 0)):
                pending += await received.receive()
            length = int(headers.get("content-length", 0))
            body, pending = pending[:length], pending[length:]
            method, path, _ = start.split(" ")
            exchange = Exchange(method, path, headers, json.loads(body) if body else None, number)
            current[:] = [exchange]
            is_alive = await _send_reply(stream, self._reply_to(exchange))
            current.clear()
            exchange.finished.set()
            if not is_alive:
                return


async def _read_until_gone(
    stream: trio.SocketStream,
    send: trio.MemorySendChannel[bytes],
    current: list[Exchange],
    scope: trio.CancelScope,
) -> None:
    try:
        while data := await stream.receive_some(65536):
            await send.send(data)
    except trio.BrokenResourceError:
        pass
    for exchange in current:
        exchange.disconnected.set()
    scope.cancel()


async def _send_reply(stream: trio.SocketStream, reply: Reply) -> bool:
    """Send the whole reply; return whether the connection can be used again."""
    try:
        for step in reply.before_headers:
            if not await _do_step(stream, step, is_chunked=False):
                return False
        fields = {**reply.headers, "transfer-encoding": "chunked"} if reply.is_chunked else {**reply.headers, "connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        await stream.send_all(f"HTTP/1.1 {reply.status} Scripted\r\n{head}\r\n".encode())
        for step in reply.steps:
            if not await _do_step(stream, step, is_chunked=reply.is_chunked):
                return False
        if reply.is_chunked:
            await stream.send_all(b"0\r\n\r\n")
    except trio.BrokenResourceError:
        await trio.sleep_forever()  # the reader sees the break, too, and ends the connection
    return reply.is_chunked


async def _do_step(stream: trio.SocketStream, step: Step, *, is_chunked: bool) -> bool:
    match step:
        case bytes():
            if step:
                await stream.send_all(b"%x\r\n%b\r\n" % (len(step), step) if is_chunked else step)
        case Gate():
            step.reached.set()
            await step.go_on.wait()
        case Break.HANG:
            await trio.sleep_forever()
        case Break.CLOSE:
            return False
        case Break.RESET:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
    return True


@asynccontextmanager
async def open_provider(*replies: Reply) -> AsyncIterator[Provider]:
    """Serve on a free port of 127.0.0.1; leaving ends every connection.

    Args:
        replies: the first ones, in the order of the requests; more can be added to `Provider.replies`.

    Cancellation: every connection is closed.
    """
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = listeners[0].socket.getsockname()
    provider = Provider(f"http://127.0.0.1:{address[1]}", deque(replies))
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, provider.serve, listeners)
        try:
            yield provider
        finally:
            nursery.cancel_scope.cancel()


def error_reply(status: int, body: JSONValue, **headers: str) -> Reply:
    """Return an error with a JSON body; underscores in the names of headers become hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply([json.dumps(body).encode()], status, {"content-type": "application/json", **named})
