"""Reads one streamed answer, and leaves the answer at any moment without a trace.

The SDKs are used up to the response: addresses, authentication and error classes are theirs. The body is read here, for four reasons.
The stream objects of the SDKs leave nested async generators suspended at the end (OpenAI) or at an early stop (both), which Trio
reports as leaks; they disagree about errors in the middle of a stream; they take a body that just ends for a finished answer; and
a server that sends comments for ever keeps them waiting for ever.

A suspended generator ends cleanly only if somebody reads on: to its end, or to a read that is cancelled. So leaving an answer means
reading on inside a scope that is already cancelled: every generator below unwinds, and closes the connection.
"""

import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import Final, Generic, NoReturn, Protocol, Self, TypeVar

import attrs
import httpx2
import trio

from trio_sagents.data.json import JSON
from trio_sagents.data.requests import ModelChunk
from trio_sagents.exceptions import ModelFailed, ModelFailureKind
from trio_sagents.models._errors import (
    answer_failure,
    connection_failure,
    event_failure,
    public_cause,
    redacted,
    shortened,
    silence_failure,
    told_failure,
)
from trio_sagents.models._fields import UnexpectedContent
from trio_sagents.models._sse import ServerSentEvent, SSEDecoder

DRAIN_TIMEOUT: Final = 0.1
"""How long a finished answer may take to end its body, so that its connection can be used again; in seconds."""
TAIL_TIMEOUT: Final = 10.0
"""How long the usage and the closing mark may take after the provider said why it stopped; in seconds."""
CLOSE_TIMEOUT: Final = 2.0
"""How long closing a client may take, in seconds; its sockets are gone then, even if the peer does not answer."""
MAX_DOCUMENT_BYTES: Final = 16 * 1024 * 1024
"""The longest answer that comes as one document instead of as a stream."""
WAITED: Final = 0.0005
"""A read that takes longer than this had to wait for the network, in seconds. Others only take what was read before."""
_HEAD_BYTES: Final = 4096
"""How much of a body that is neither is kept, to quote it."""

_BROKEN: Final = (httpx2.HTTPError, ssl.SSLError, OSError)


class ErrorEvent(Exception):  # named by what the provider calls it
    """The provider sent an error inside the stream."""

    def __init__(self, body: object) -> None:
        super().__init__()
        self.body: Final = body


class BadFinish(Exception):  # named by what it is
    """The provider ended its answer in a way that is no end of an answer."""

    def __init__(self, why: str, kind: ModelFailureKind = "protocol", *, retryable: bool | None = None) -> None:
        super().__init__(why)
        self.why: Final = why
        self.kind: Final = kind
        self.retryable: Final = retryable


class Translator(Protocol):
    """Turns a provider's events into chunks. Plain data; never waits."""

    @property
    def is_complete(self) -> bool:
        """Whether the provider has said why it stopped: nothing of the answer itself is missing any more."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the provider has said that nothing more comes."""
        ...

    @property
    def pieces(self) -> int:
        """How many pieces of content have come so far. Pings and empty events are none."""
        ...

    def translate(self, event: ServerSentEvent) -> Iterable[ModelChunk]:
        """Return the chunks of one event, in order.

        Raises:
            ErrorEvent: the event is an error.
            BadFinish: the answer ended in a way that is no end of an answer.
            UnexpectedContent: the event has content of an unexpected type.
            ValueError: the event is not valid JSON.
        """
        ...

    def translate_document(self, document: JSON) -> Iterable[ModelChunk]:
        """Return the chunks of an answer that came whole, as one JSON object. Raises as `translate`."""
        ...

    def finish(self) -> Iterable[ModelChunk]:
        """Return the last chunks; called once, after the last event, if `is_complete`. Raises BadFinish."""
        ...


@attrs.frozen
class Patience:
    """How long to wait for content, in seconds; `math.inf` is for ever. What is not content does not count."""

    first: float
    """For the first piece of content, from the moment when the request is sent."""
    following: float
    """For each further piece."""
    interval: float = 0.0
    """How long to leave what comes in the buffer of the connection, after a read that had to wait, in seconds."""


class Answer:
    """The chunks of one answer; a context that closes its connection."""

    def __init__(self, who: str, response: httpx2.Response, translator: Translator, patience: Patience, waited: float = 0.0) -> None:
        self._who = who
        self._response = response
        self._translator = translator
        self._patience = patience
        self._left = max(0.0, patience.first - waited)
        self._body = response.aiter_bytes()
        self._reader: _Reader = _Unread()
        self._ready: deque[ModelChunk] = deque()
        self._is_ended = False
        self._failure: ModelFailed | None = None
        self._pause_from: float | None = None
        """When the last read ended, if that read had to wait, and no pause has followed it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._is_ended, self._failure = True, None
        self._ready.clear()
        # Cancellation: nobody waits for the rest of an unfinished answer: its scope is cancelled already, so the first read ends it.
        # The shield makes that scope the one that catches, so that leaving never replaces the exception that passes through.
        with trio.move_on_after(DRAIN_TIMEOUT, shield=True) as scope:
            if exc_type is not None or not self._translator.is_complete:
                scope.cancel()
            await self._read_on()

    async def _read_on(self) -> None:
        with suppress(*_BROKEN):
            async for _ in self._body:
                pass

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ModelChunk:
        """Return the next chunk.

        Raises:
            ModelFailed: the provider reported an error, was cut off, stayed silent, or ended without saying why it stopped.

        Cancellation: either a chunk is returned, or none was taken. It is a checkpoint if it has to read from the network: chunks that
        came in the same bytes are given without one.
        """
        while not self._ready:
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
            if self._is_ended:
                raise StopAsyncIteration
            try:
                await self._pull()
            except ModelFailed as exc:
                # The chunks that came in the same bytes before the error are given out before the error.
                self._is_ended, self._failure = True, exc
        return self._ready.popleft()

    async def _pull(self) -> None:
        """Read the next bytes of the body into chunks; there may be no chunk in them."""
        request = self._response.request
        before, was_complete = self._translator.pieces, self._translator.is_complete
        data = await self._next_bytes()
        try:
            for event in self._events(data):
                self._ready.extend(event)
                if self._translator.is_over:
                    break
            if data is None or self._translator.is_over:
                self._finish()
        except ErrorEvent as exc:
            raise event_failure(self._who, exc.body, request) from None
        except BadFinish as exc:
            raise answer_failure(self._who, redacted(exc.why, request), exc.kind, retryable=exc.retryable) from None
        except UnexpectedContent as exc:
            raise answer_failure(self._who, f"the provider sent content of an unexpected type: {exc}") from None
        except (ValueError, TypeError, RecursionError) as exc:
            failure = answer_failure(self._who, f"the provider sent an event that cannot be read ({type(exc).__name__})")
            raise failure from public_cause(exc, request)
        if self._translator.pieces != before:
            self._left = self._patience.following
        if self._translator.is_complete and not was_complete:
            self._left = min(self._left, TAIL_TIMEOUT)

    async def _next_bytes(self) -> bytes | None:
        """Return the next bytes of the body; None at its end, or if all that matters has come."""
        if self._pause_from is not None:
            await self._pause(self._pause_from)
        began = trio.current_time()
        data: bytes | None = None
        # Cancellation: a read that is given up ends the generators below, and closes the connection.
        with trio.move_on_after(self._left) as scope:
            try:
                data = await anext(self._body, None)
            except _BROKEN as exc:
                if not self._translator.is_complete:
                    request = self._response.request
                    raise connection_failure(self._who, exc, request, "the answer was cut off") from public_cause(exc, request)
        if scope.cancelled_caught and not self._translator.is_complete:
            raise silence_failure(self._who, self._silence())
        ended = trio.current_time()
        self._left = max(0.0, self._left - (ended - began))
        if self._patience.interval and ended - began > WAITED:
            self._pause_from = ended
        return data

    async def _pause(self, since: float) -> None:
        """Let what comes wait in the kernel's buffer, so that one read takes many pieces. The first piece, and the tail, are read at once.

        Cancellation: nothing was read.
        """
        self._pause_from = None
        if self._translator.pieces and not self._translator.is_complete:
            await trio.sleep_until(since + self._patience.interval)

    def _silence(self) -> str:
        if self._translator.pieces:
            return f"no further content came within {self._patience.following:g} seconds"
        return f"no content came within {self._patience.first:g} seconds"

    def _events(self, data: bytes | None) -> Iterable[Iterable[ModelChunk]]:
        """Yield the chunks of each event that the data completes."""
        if isinstance(self._reader, _Unread) and data is not None:
            self._reader = self._reader.choose(data)
            if isinstance(self._reader, _Unread):
                return
            data = self._reader.taken + data if isinstance(self._reader, _Stream) else data
        match self._reader:
            case _Stream(decoder=decoder):
                for event in decoder.end() if data is None else decoder.feed(data):
                    yield self._translator.translate(event)
            case _Document() as document:
                document.add(data or b"")
                if data is None:
                    yield self._translated_document(document)
            case _Page() as page:
                page.add(data or b"")
            case _:
                pass

    def _translated_document(self, document: "_Document") -> Iterable[ModelChunk]:
        """Return the chunks of a body that is JSON and no stream: a whole answer, or an error."""
        value = json.loads(document.text())
        if isinstance(value, Mapping):
            chunks = self._translator.translate_document(value)
            if self._translator.is_complete:
                return chunks
        raise told_failure(f"{self._who}: the provider answered {self._response.status_code} with an error", value, self._response.request)

    def _finish(self) -> None:
        if not self._translator.is_complete:
            raise answer_failure(self._who, f"the answer ended before the provider said why it stopped{self._hint()}")
        self._ready.extend(self._translator.finish())
        self._is_ended = True

    def _hint(self) -> str:
        """Return what the body was, if it was no stream of events."""
        kind = self._response.headers.get("content-type", "none")
        hint = "" if "event-stream" in kind else f" (its content type was {shortened(kind)!r}, not an event stream)"
        words = redacted(self._reader.words(), self._response.request) if isinstance(self._reader, _Page) else ""
        return f"{hint}: {shortened(words)}" if words else hint


@attrs.define(eq=False)
class _Unread:
    """A body of which nothing was read that tells what it is."""

    taken: bytes = b""

    def choose(self, data: bytes) -> "_Reader":
        """Return how to read a body that begins with what was taken and this data, for any content type."""
        begins = (self.taken + data).removeprefix(b"\xef\xbb\xbf").lstrip()
        if not begins or b"\xef\xbb\xbf".startswith(begins):
            return _Unread(self.taken + data)
        if begins[:1] in {b"{", b"["}:
            return _Document()
        is_stream = any(begins.startswith(field) or field.startswith(begins) for field in _STREAM_FIELDS)
        return _Stream(self.taken) if is_stream else _Page()


_STREAM_FIELDS: Final = (b":", b"data", b"event", b"id", b"retry", b"error")


@attrs.define(eq=False)
class _Stream:
    """A body of server-sent events."""

    taken: bytes
    """What was read of the body before it was known to be a stream: blank."""
    decoder: SSEDecoder = attrs.field(factory=SSEDecoder)


@attrs.define(eq=False)
class _Document:
    """A body that is one JSON document."""

    pieces: list[bytes] = attrs.field(factory=list)
    size: int = 0

    def add(self, data: bytes) -> None:
        """Take the next bytes. ValueError if there are too many."""
        self.size += len(data)
        if self.size > MAX_DOCUMENT_BYTES:
            raise ValueError(f"the document is longer than {MAX_DOCUMENT_BYTES} bytes")
        self.pieces.append(data)

    def text(self) -> str:
        """Return the document."""
        return b"".join(self.pieces).decode("utf-8-sig")


@attrs.define(eq=False)
class _Page:
    """A body that is something else, such as a page of a proxy."""

    head: bytes = b""

    def add(self, data: bytes) -> None:
        """Take the next bytes; only the first are kept."""
        self.head += data[: max(0, _HEAD_BYTES - len(self.head))]

    def words(self) -> str:
        """Return how the body begins; nothing if it is markup."""
        text = self.head.decode(errors="replace").strip()
        return "" if text.startswith("<") else text


_Reader = _Unread | _Stream | _Document | _Page


class RawResponse(Protocol):
    """What both SDKs give for a response whose body was not read yet."""

    @property
    def http_response(self) -> httpx2.Response:
        """The response of the HTTP client."""
        ...


@asynccontextmanager
async def open_answer(
    who: str,
    opening: AbstractAsyncContextManager[RawResponse],
    translator: Translator,
    patience: Patience,
    errors: tuple[type[Exception], ...],
    explain: Callable[[str, Exception], NoReturn],
) -> AsyncIterator[Answer]:
    """Send a request, and give its answer.

    Args:
        who: names the model in errors.
        opening: the SDK's call; sends the request when entered.
        translator: used for this answer alone.
        patience: how long to wait for content.
        errors: what the SDK may raise.
        explain: raises the `ModelFailed` for such an error of the named model.

    Cancellation: the request may have been sent, and the provider may have begun; the connection is closed.
    """
    async with AsyncExitStack() as stack:
        began = trio.current_time()
        # Cancellation: a request that is given up here has no response yet; the SDK closes the connection.
        with trio.move_on_after(patience.first) as scope:
            try:
                response = await stack.enter_async_context(opening)
            except errors as exc:
                explain(who, exc)
        if scope.cancelled_caught:
            raise silence_failure(who, f"the provider did not begin to answer within {patience.first:g} seconds")
        answer = Answer(who, response.http_response, translator, patience, trio.current_time() - began)  # pyright: ignore[reportPossiblyUnboundVariable]
        yield await stack.enter_async_context(answer)


class Closable(Protocol):
    """A client of an SDK."""

    async def close(self) -> None:
        """Close its connections."""
        ...


ClientT = TypeVar("ClientT", bound=Closable)


class SharedClient(Generic[ClientT]):
    """A client that exists while it is used, by a bounded number of answers at a time.

    The client is made for the first of any number of answers at a time, and closed after the last: parallel answers share connections,
    and an idle model holds no socket that somebody would have to remember to close, in whichever run of Trio the model was used.
    """

    def __init__(self, make: Callable[[], ClientT], most: int) -> None:
        self._make = make
        self._client: ClientT | None = None
        self._users = 0
        self._places = trio.Semaphore(most)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[ClientT]:
        """Give the client, for the length of the context.

        Cancellation: either the client was given, or nothing was done.
        """
        # The place is waited for here and not in the client's pool: there, the wait would count as the provider's silence.
        async with self._places:
            if self._client is None:
                self._client = self._make()
            client = self._client
            self._users += 1
            try:
                yield client
            finally:
                # No checkpoint until the client is forgotten: the next answer makes its own instead of taking a closing one.
                self._users -= 1
                if not self._users:
                    self._client = None
                    with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                        await client.close()
