"""A client for ASGI applications, in memory, under Trio: as a server calls them, without sockets."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import unquote

import attrs
import trio

HOST: Final = "localhost:8000"
ORIGIN: Final = f"http://{HOST}"
Headers = Mapping[str, str] | Iterable[tuple[str, str]]


@attrs.frozen
class Response:
    """A response that was received as a whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool = True
    """Whether the application had finished it; False if it was cut."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.json["error"]["type"]


def _pairs(headers: Headers) -> list[tuple[bytes, bytes]]:
    items = headers.items() if isinstance(headers, Mapping) else headers
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in items]


def _scope(kind: str, target: str, headers: Headers, **more: Any) -> dict[str, Any]:
    path, _, query = target.partition("?")
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws" if kind == "websocket" else "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": _pairs(headers),
        "client": ("127.0.0.1", 50000),
        "server": ("localhost", 8000),
        **more,
    }


@attrs.define(eq=False)
class Stream:
    """A response that is received piece by piece."""

    status: int
    headers: Mapping[str, str]
    _chunks: "trio.MemoryReceiveChannel[bytes]"
    is_whole: bool = False
    _buffer: bytes = b""

    async def chunk(self) -> bytes:
        """Return the next piece; b"" at the end."""
        try:
            return await self._chunks.receive()
        except trio.EndOfChannel:
            return b""

    async def event(self) -> dict[str, str] | None:
        """Return the fields of the next server-sent event; None at the end."""
        while True:
            while b"\n\n" not in self._buffer:
                piece = await self.chunk()
                if not piece:
                    return None
                self._buffer += piece
            event, _, self._buffer = self._buffer.partition(b"\n\n")
            fields = dict(line.split(": ", 1) for line in event.decode().split("\n") if not line.startswith(":"))
            if fields:
                return fields


@attrs.define(eq=False)
class Client:
    """Calls an application as a server does."""

    app: Any
    nursery: trio.Nursery
    headers: dict[str, str] = attrs.field(factory=lambda: {"host": HOST})
    """Sent with every request."""

    def _all(self, headers: Headers) -> list[tuple[str, str]]:
        own = dict(headers) if isinstance(headers, Mapping) else None
        if own is None:
            return list(headers)  # as they are, so that a header can be there twice
        return list({**self.headers, **own}.items())

    async def request(
        self,
        method: str,
        target: str,
        body: bytes | list[bytes] = b"",
        headers: Headers = {},  # noqa: B006
        *,
        stalls: bool = False,
        **more: Any,
    ) -> Response:
        """Send a request, and return the response. With `stalls` the body never ends."""
        pieces = [body] if isinstance(body, bytes) else list(body)
        sent: list[dict[str, Any]] = []
        gone = trio.Event()

        async def receive() -> dict[str, Any]:
            await trio.lowlevel.checkpoint()
            if pieces:
                piece = pieces.pop(0)
                return {"type": "http.request", "body": piece, "more_body": bool(pieces) or stalls}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            sent.append(dict(message))

        failed = False
        try:
            await self.app(_scope("http", target, self._all(headers), method=method, **more), receive, send)
        except* ConnectionError:
            failed = True
        start, *rest = sent
        found = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        whole = not failed and not rest[-1].get("more_body", False)
        return Response(start["status"], found, b"".join(part["body"] for part in rest), whole)

    async def get(self, target: str, headers: Headers = {}, **more: Any) -> Response:  # noqa: B006
        return await self.request("GET", target, b"", headers, **more)

    async def post(self, target: str, data: Any, headers: Headers = {}, **more: Any) -> Response:  # noqa: B006
        own = {"content-type": "application/json", **dict(headers)}
        return await self.request("POST", target, json.dumps(data).encode(), own, **more)

    @asynccontextmanager
    async def stream(self, target: str, headers: Headers = {}, **more: Any) -> AsyncIterator[Stream]:  # noqa: B006
        """Open a stream; leaving the block is a disconnect, and waits until the application has returned."""
        give, take = trio.open_memory_channel[bytes](1000)
        started, gone, over = trio.Event(), trio.Event(), trio.Event()
        stream = Stream(0, {}, take)
        is_asked = False

        async def receive() -> dict[str, Any]:
            nonlocal is_asked
            if not is_asked:
                is_asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                stream.status = message["status"]
                stream.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
                started.set()
                await trio.lowlevel.checkpoint()
                return
            try:
                if message["body"]:
                    await give.send(message["body"])
            except trio.BrokenResourceError:
                pass
            if not message.get("more_body", False):
                stream.is_whole = True
                give.close()
            await trio.lowlevel.checkpoint()

        async def run() -> None:
            try:
                await self.app(_scope("http", target, self._all(headers), method="GET", **more), receive, send)
            except* ConnectionError:
                pass
            finally:
                give.close()
                started.set()
                over.set()

        self.nursery.start_soon(run)
        await started.wait()
        try:
            yield stream
        finally:
            gone.set()
            take.close()
            with trio.CancelScope(shield=True):
                await over.wait()

    @asynccontextmanager
    async def socket(self, target: str = "/ws", headers: Headers = {}, **more: Any) -> AsyncIterator["WebSocket"]:  # noqa: B006
        """Open a WebSocket; leaving the block is a disconnect, and waits until the application has returned."""
        socket = WebSocket()
        given = {"origin": ORIGIN, **dict(headers)} if isinstance(headers, Mapping) else headers
        extensions = {"websocket.http.response": {}}
        scope = _scope("websocket", target, self._all(given), **{"subprotocols": [], "extensions": extensions, **more})
        over = trio.Event()

        async def run() -> None:
            try:
                await self.app(scope, socket.receive_message, socket.take_message)
            finally:
                socket.end()
                over.set()

        self.nursery.start_soon(run)
        await socket.started.wait()
        try:
            yield socket
        finally:
            socket.disconnect()
            with trio.CancelScope(shield=True):
                await over.wait()


class Ended(Exception):
    """The application has closed the socket."""


@attrs.define(eq=False)
class WebSocket:
    """One WebSocket of the application's, seen from the page."""

    started: trio.Event = attrs.field(factory=trio.Event)
    is_accepted: bool = False
    status: int | None = None
    """The status of the refusal, if the socket was refused with one."""
    code: int | None = None
    reads: bool = True
    """Whether the page takes frames; if not, the application's sends wait."""
    frames: list[Any] = attrs.field(factory=list)
    """All frames that came, in order."""
    _next: int = 0
    _to_app: Any = attrs.field(init=False)
    _for_app: Any = attrs.field(init=False)
    _woken: trio.Event = attrs.field(factory=trio.Event)
    _is_over: bool = False
    _number: int = 0

    def __attrs_post_init__(self) -> None:
        self._to_app, self._for_app = trio.open_memory_channel[dict[str, Any]](100_000)
        self._to_app.send_nowait({"type": "websocket.connect"})

    # ── for the application

    async def receive_message(self) -> dict[str, Any]:
        return await self._for_app.receive()

    async def take_message(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        match message["type"]:
            case "websocket.accept":
                self.is_accepted = True
                self.started.set()
            case "websocket.close":
                self.code = message["code"]
                self.end()
            case "websocket.http.response.start":
                self.status = message["status"]
            case "websocket.http.response.body":
                self.end()
            case "websocket.send":
                while not self.reads and not self._is_over:
                    await trio.sleep(0.01)
                if not self._is_over:
                    self.frames.append(json.loads(message["text"]))
                    self._wake()

    def end(self) -> None:
        self._is_over = True
        self.started.set()
        self._wake()

    def _wake(self) -> None:
        self._woken.set()
        self._woken = trio.Event()

    # ── for the page

    @property
    def envelopes(self) -> list[Any]:
        """All envelopes that came, in order."""
        return [envelope for frame in self.frames for envelope in frame.get("events", ())]

    @property
    def events(self) -> list[Any]:
        """All events that came, in order."""
        return [envelope["event"] for envelope in self.envelopes]

    def disconnect(self) -> None:
        self._is_over = True
        self._to_app.send_nowait({"type": "websocket.disconnect", "code": 1006})

    def send_text(self, text: str | bytes) -> None:
        kind = "text" if isinstance(text, str) else "bytes"
        self._to_app.send_nowait({"type": "websocket.receive", kind: text})

    def send(self, **frame: Any) -> str:
        """Send a frame, and return its id."""
        self._number += 1
        frame = {"id": f"c{self._number}", **frame}
        self.send_text(json.dumps(frame))
        return frame["id"]

    async def next(self) -> Any:
        """Return the next frame that was not taken."""
        while self._next == len(self.frames):
            if self._is_over:
                raise Ended(self.code)
            await self._woken.wait()
        self._next += 1
        return self.frames[self._next - 1]

    async def until(self, op: str, **members: Any) -> Any:
        """Return the next frame with this op and these members; skip the others."""
        while True:
            frame = await self.next()
            if frame["op"] == op and all(frame.get(name) == value for name, value in members.items()):
                return frame

    async def ask(self, **frame: Any) -> Any:
        """Send a frame, and return its reply. Frames that come in between stay in `frames`, and are skipped."""
        return await self.until("reply", id=self.send(**frame))

    async def result(self, **frame: Any) -> Any:
        """Send a command that has to succeed, and return its result."""
        reply = await self.ask(**frame)
        assert reply["ok"], reply
        return reply["result"]

    async def error(self, **frame: Any) -> str:
        """Send a command that has to fail, and return the type of its error."""
        reply = await self.ask(**frame)
        assert not reply["ok"], reply
        return reply["error"]["type"]
