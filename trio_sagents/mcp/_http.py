"""A server over HTTP: the SDK's transports, with a client of ours that bounds answers and reads them leniently."""

import functools
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import attrs
import httpx2
import trio
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCResponse, RequestId

from trio_sagents.data.json import JSONValue
from trio_sagents.mcp._servers import HttpServer
from trio_sagents.mcp._streams import Streams
from trio_sagents.mcp._wire import read_messages

MAX_BODY: Final = 16 * 1024 * 1024
"""Bytes that the body of an answer may have, if it is not a stream of events."""
MAX_EVENT: Final = 16 * 1024 * 1024
"""Bytes that one event of a stream may have."""
CONNECT_TIMEOUT: Final = 30.0
"""Seconds for a connection, and for a request to be sent."""
READ_TIMEOUT: Final = 300.0
"""Seconds without a byte in an answer."""
SILENCE: Final = 24 * 3600.0
"""Seconds without a byte in the long response of the old transport; a call that gets no answer ends by its own time limit."""


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Return the process's TLS context, made at the first call: to read the certificates takes some 30 ms each time."""
    return httpx2.create_ssl_context()


@attrs.define(eq=False)
class _Body(httpx2.AsyncByteStream):
    """The body of an answer: bounded, and with the messages in it as JSON-RPC."""

    _body: httpx2.AsyncByteStream
    _reply_to: RequestId | None
    """The id of the request that is answered."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        data = bytearray()
        async for piece in self._body:
            data += piece
            if len(data) > MAX_BODY:
                raise httpx2.StreamError(f"the body has more than {MAX_BODY} bytes")
        yield _as_one(read_messages(bytes(data), self._reply_to)) or bytes(data)

    async def aclose(self) -> None:
        await self._body.aclose()


@attrs.define(eq=False)
class _Events(httpx2.AsyncByteStream):
    """A stream of events: the message in each line of data as JSON-RPC."""

    _body: httpx2.AsyncByteStream
    _reply_to: RequestId | None
    """The id of the request that is answered; None for a stream that answers none."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        rest = b""
        async for piece in self._body:
            *lines, rest = (rest + piece).split(b"\n")
            yield b"".join(_line(line, self._reply_to) + b"\n" for line in lines)
            if len(rest) > MAX_EVENT:
                raise httpx2.StreamError(f"an event has more than {MAX_EVENT} bytes")
        yield _line(rest, self._reply_to)

    async def aclose(self) -> None:
        await self._body.aclose()


@attrs.define(eq=False)
class _Watched(httpx2.AsyncByteStream):
    """The one long response of the old transport: its end is the end of the connection."""

    _body: httpx2.AsyncByteStream
    _on_lost: Callable[[], None]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._body:
                yield piece
        finally:
            self._on_lost()

    async def aclose(self) -> None:
        await self._body.aclose()


def _line(line: bytes, reply_to: RequestId | None) -> bytes:
    if not line.startswith(b"data:"):
        return line
    messages = read_messages(line.removeprefix(b"data:"), reply_to)
    return b"data: " + _as_one(messages) if messages else line


def _as_one(messages: Sequence[JSONRPCMessage]) -> bytes:
    """Return the text of the answer among some messages, or of the first of them; the SDK reads one message of a body or an event."""
    chosen = next(
        (message for message in messages if isinstance(message, JSONRPCResponse | JSONRPCError)), messages[0] if messages else None
    )
    return b"" if chosen is None else chosen.model_dump_json(by_alias=True, exclude_unset=True).encode()


def _request_id(request: httpx2.Request) -> RequestId | None:
    """Return the id of the JSON-RPC request that an HTTP request carries; None if it carries none."""
    try:
        said: JSONValue = json.loads(request.content)
    except (ValueError, httpx2.RequestNotRead):
        return None
    number = said.get("id") if isinstance(said, dict) and "method" in said else None
    return number if isinstance(number, int | str) else None


def _look_into(response: httpx2.Response) -> None:
    """Bound the body of an answer, and have it read leniently, unless the body is compressed."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    is_stream = response.headers.get("content-type", "").lower().startswith("text/event-stream")
    is_plain = response.headers.get("content-encoding", "identity").lower() == "identity"
    request_id = _request_id(response.request)
    if is_stream and is_plain:
        response.stream = _Events(response.stream, request_id)
    elif not is_stream:
        response.stream = _Body(response.stream, request_id if is_plain else None)


@asynccontextmanager
async def http_streams(server: HttpServer, on_lost: Callable[[], None]) -> AsyncIterator[Streams]:
    """Open the transport to a server; leaving the context closes its sockets.

    Args:
        server: where the server is.
        on_lost: called when the server does not know the session any more, so that a new one has to be opened.

    Cancellation: the sockets are closed.
    """

    async def look(response: httpx2.Response) -> None:
        _look_into(response)
        if response.status_code == httpx2.codes.NOT_FOUND and "mcp-session-id" in response.request.headers:
            on_lost()
        await trio.lowlevel.checkpoint()

    timeout = httpx2.Timeout(CONNECT_TIMEOUT, read=READ_TIMEOUT)
    headers, hooks = dict(server.headers), {"response": [look]}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout, verify=_tls_context(), event_hooks=hooks) as client,
        streamable_http_client(server.url, http_client=client, max_sse_event_size=MAX_EVENT) as streams,
    ):
        yield streams  # pyright: ignore[reportReturnType]


@asynccontextmanager
async def sse_streams(server: HttpServer, on_lost: Callable[[], None]) -> AsyncIterator[Streams]:
    """Open the transport of before 2025 to a server; leaving the context closes its sockets.

    Args:
        server: where the server is.
        on_lost: called when the response in which answers come has ended.

    Cancellation: the sockets are closed.
    """

    async def look(response: httpx2.Response) -> None:
        is_stream = response.headers.get("content-type", "").lower().startswith("text/event-stream")
        _look_into(response)
        if is_stream and response.request.method == "GET":
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Watched(response.stream, on_lost)
        await trio.lowlevel.checkpoint()

    def make_client(
        headers: dict[str, str] | None = None, timeout: httpx2.Timeout | None = None, auth: httpx2.Auth | None = None
    ) -> httpx2.AsyncClient:
        hooks = {"response": [look]}
        return httpx2.AsyncClient(headers=headers, timeout=timeout, auth=auth, verify=_tls_context(), event_hooks=hooks)

    headers = dict(server.headers)
    async with sse_client(server.url, headers, CONNECT_TIMEOUT, SILENCE, httpx_client_factory=make_client) as streams:
        yield streams  # pyright: ignore[reportReturnType]
