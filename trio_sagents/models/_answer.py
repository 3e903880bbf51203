"""Reading one streamed answer, and leaving it at any moment without a trace.

The SDKs are used up to the response: addresses, authentication, timeouts and error classes are theirs. The body is read
here, for three reasons: their stream objects leave nested async generators suspended at the end (OpenAI) or at an early
stop (both), which Trio reports as leaks; they disagree about errors in mid-stream; and they take a body that just ends
for a finished answer.

A suspended generator ends cleanly only by being read on: to its end, or to a read that is cancelled. So leaving an answer
means reading on inside a scope that is already cancelled: every generator below unwinds, and closes the connection.
"""

import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import Final, Generic, NoReturn, Protocol, Self, TypeVar

import httpx2
import trio

from trio_sagents.data.requests import ModelChunk
from trio_sagents.exceptions import ModelFailed
from trio_sagents.models._errors import answer_failure, connection_failure, event_failure, public_cause
from trio_sagents.models._sse import ServerSentEvent, SSEDecoder

DRAIN_TIMEOUT: Final = 0.1
"""How long a finished answer may take to end its body, so that its connection can be used again; in seconds."""
CLOSE_TIMEOUT: Final = 2.0
"""How long closing a client may take, in seconds; its sockets are gone then, whatever the peer does."""

_BROKEN: Final = (httpx2.HTTPError, ssl.SSLError, OSError)


class ErrorEvent(Exception):  # it is what the provider calls an error event
    """The provider sent an error inside the stream."""

    def __init__(self, body: object) -> None:
        super().__init__()
        self.body: Final = body


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

    def translate(self, event: ServerSentEvent) -> Iterable[ModelChunk]:
        """Return the chunks of one event, in order.

        Raises:
            ErrorEvent: the event is an error.
            ValueError: the event is no valid JSON.
        """
        ...

    def finish(self) -> Iterable[ModelChunk]:
        """Return the last chunks; called once, after the last event, if `is_complete`."""
        ...


class Answer:
    """The chunks of one answer; a context that closes its connection."""

    def __init__(self, who: str, response: httpx2.Response, translator: Translator) -> None:
        self._who = who
        self._response = response
        self._translator = translator
        self._body = response.aiter_bytes()
        self._decoder = SSEDecoder()
        self._ready: deque[ModelChunk] = deque()
        self._is_ended = False
        self._failure: ModelFailed | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._is_ended, self._failure = True, None
        self._ready.clear()
        # Cancellation: what is left of an unfinished answer is not waited for: its scope is cancelled already, so the first
        # read ends it. The shield makes that scope the one that catches, so that leaving never replaces what passes through.
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
            ModelFailed: the provider reported an error, was cut off, or ended without saying why it stopped.

        Cancellation: either a chunk is returned, or none was taken.
        """
        await trio.lowlevel.checkpoint()
        while not self._ready:
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
            if self._is_ended:
                raise StopAsyncIteration
            try:
                await self._pull()
            except ModelFailed as exc:
                # What came in the same bytes before the error is given out before it.
                self._is_ended, self._failure = True, exc
        return self._ready.popleft()

    async def _pull(self) -> None:
        """Read the next bytes of the body into chunks; there may be none in them."""
        request = self._response.request
        data: bytes | None
        try:
            data = await anext(self._body, None)
        except _BROKEN as exc:
            if not self._translator.is_complete:
                failure = connection_failure(self._who, exc, request, "the answer was cut off")
                raise failure from public_cause(exc, request)
            data = None
        try:
            for event in self._decoder.end() if data is None else self._decoder.feed(data):
                self._ready.extend(self._translator.translate(event))
                if self._translator.is_over:
                    break
        except ErrorEvent as exc:
            raise event_failure(self._who, exc.body, request) from None
        except ValueError as exc:
            failure = answer_failure(self._who, f"the provider sent an event that cannot be read ({type(exc).__name__})")
            raise failure from public_cause(exc, request)
        if data is None or self._translator.is_over:
            self._finish()

    def _finish(self) -> None:
        if not self._translator.is_complete:
            kind = self._response.headers.get("content-type", "none")
            hint = "" if "event-stream" in kind else f" (its content type was {kind[:80]!r}, not an event stream)"
            raise answer_failure(self._who, f"the answer ended before the provider said why it stopped{hint}")
        self._ready.extend(self._translator.finish())
        self._is_ended = True


class RawResponse(Protocol):
    """What both SDKs give for a response whose body was not read yet."""

    @property
    def http_response(self) -> httpx2.Response:
        """The response below."""
        ...


@asynccontextmanager
async def open_answer(
    who: str,
    opening: AbstractAsyncContextManager[RawResponse],
    translator: Translator,
    errors: tuple[type[Exception], ...],
    explain: Callable[[str, Exception], NoReturn],
) -> AsyncIterator[Answer]:
    """Send a request, and give its answer.

    Args:
        who: names the model in errors.
        opening: the SDK's call; sends the request when entered.
        translator: used for this answer alone.
        errors: what the SDK may raise.
        explain: raises the `ModelFailed` for such an error of the named model.

    Cancellation: the request may have been sent, and the provider may have begun; the connection is closed.
    """
    async with AsyncExitStack() as stack:
        try:
            response = await stack.enter_async_context(opening)
        except errors as exc:
            explain(who, exc)
        yield await stack.enter_async_context(Answer(who, response.http_response, translator))


class Closable(Protocol):
    """A client of an SDK."""

    async def close(self) -> None:
        """Close its connections."""
        ...


ClientT = TypeVar("ClientT", bound=Closable)


class SharedClient(Generic[ClientT]):
    """A client that is there while it is used.

    Made for the first of any number of answers at a time, closed after the last: parallel answers share connections, and
    an idle model holds no socket that somebody would have to remember to close, in whichever run of Trio it was used.
    """

    def __init__(self, make: Callable[[], ClientT]) -> None:
        self._make = make
        self._client: ClientT | None = None
        self._users = 0

    @asynccontextmanager
    async def use(self) -> AsyncIterator[ClientT]:
        """Give the client, for the length of the context."""
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
