"""A server over streamable HTTP: the SDK's transport, with a client of ours, whose answers are bounded."""

import functools
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs
import httpx2
import trio
from mcp.client.streamable_http import streamable_http_client

from trio_sagents.mcp._servers import HttpServer

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams  # the SDK has no public name for it

MAX_BODY: Final = 16 * 1024 * 1024
"""Bytes that an answer may have which is no stream of events."""
MAX_EVENT: Final = 16 * 1024 * 1024
"""Bytes that one event of a stream may have."""
CONNECT_TIMEOUT: Final = 30.0
"""Seconds for a connection, and for a request to be sent."""
READ_TIMEOUT: Final = 300.0
"""Seconds of silence in an answer."""


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Return the process's TLS context, made at the first call: reading the certificates takes some 30 ms each time."""
    return httpx2.create_ssl_context()


@attrs.define(eq=False)
class _BoundedStream(httpx2.AsyncByteStream):
    """A body that ends in an error where it is too long."""

    _body: httpx2.AsyncByteStream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for data in self._body:
            size += len(data)
            if size > MAX_BODY:
                raise httpx2.StreamError(f"the body has more than {MAX_BODY} bytes")
            yield data

    async def aclose(self) -> None:
        await self._body.aclose()


def _bound(response: httpx2.Response) -> None:
    """Bound the body of an answer, but for a stream of events, which has a bound for each event."""
    if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _BoundedStream(response.stream)


@asynccontextmanager
async def http_streams(server: HttpServer, on_lost: Callable[[], None]) -> "AsyncIterator[TransportStreams]":
    """Open the transport to a server; leaving the context closes its sockets.

    Args:
        server: where it is.
        on_lost: called when the server does not know our session any more: it must be opened anew.

    Cancellation: the sockets are closed.
    """

    async def look(response: httpx2.Response) -> None:
        _bound(response)
        if response.status_code == httpx2.codes.NOT_FOUND and "mcp-session-id" in response.request.headers:
            on_lost()
        await trio.lowlevel.checkpoint()

    timeout = httpx2.Timeout(CONNECT_TIMEOUT, read=READ_TIMEOUT)
    headers, hooks = dict(server.headers), {"response": [look]}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout, verify=_tls_context(), event_hooks=hooks) as client,
        streamable_http_client(server.url, http_client=client, max_sse_event_size=MAX_EVENT) as streams,
    ):
        yield streams
