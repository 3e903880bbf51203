"""An ASGI application that is code of Trio, in a server that runs on asyncio.

Each call of the application is a task of the guest run. What it receives and sends crosses over to the server's loop, one message at a
time, so the server's back pressure reaches the application, and the other way round.

When the streams end, an application that waits for its client sees the client leave. It ends as it does for any client that has left,
and then the response is finished, or the socket is closed, in its place.
"""

import contextvars
import functools
import logging
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Final, Protocol, TypeAlias, runtime_checkable

import attrs
import trio

from trio_sagents.asyncio._crossing import Crossing
from trio_sagents.asyncio._guest import Guest
from trio_sagents.asyncio._job import Job
from trio_sagents.asyncio._signals import SHUTDOWN_SIGNALS
from trio_sagents.data.json import Opaque

Message: TypeAlias = MutableMapping[str, Opaque]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[MutableMapping[str, Opaque], Receive, Send], Awaitable[None]]
RESTART: Final = 1012
"""The close code of a WebSocket whose server restarts: the client should come back."""
log: Final = logging.getLogger("trio_sagents")


@runtime_checkable
class Closing(Protocol):
    """An application that can end its streams itself, as a `Bridge` does, with a last word to its clients."""

    async def aclose(self) -> None:
        """End all streams; called in Trio."""
        ...


def asyncio_app(app: Application, *, end_streams_on: Collection[int] = SHUTDOWN_SIGNALS) -> Application:
    """Return an ASGI application for asyncio servers that runs an ASGI application of Trio.

    For example, in the lifespan of a FastAPI application, `app.mount("/chat", asyncio_app(bridge))`. Any application of Trio will do, with
    all kinds of scopes. If it has a lifespan, Trio runs for as long as that; otherwise it runs while a block of `open_sessions` is open.

    When the server is told to shut down, or when `Sessions.end_streams` is called, the streams end: an application that has a method
    `aclose` is asked to end its own. Then each application that still waits for its client sees the client leave.

    Args:
        app: an ASGI 3 application whose code awaits only what is of Trio.
        end_streams_on: the signals that shut the server down, as for `Sessions.end_streams_on`; the first request chains them. Empty: none.

    Cancellation: a call that the server cancels is cancelled in Trio, and has ended.
    """
    return _App(app, tuple(end_streams_on))


@attrs.define(eq=False)
class _App:
    app: Application
    signals: Collection[int]
    calls: "dict[_Call, None]" = attrs.field(factory=dict)
    """The calls that have not returned."""
    _farewells: set[Job[None]] = attrs.field(factory=set)
    """Calls of `aclose` that have not returned; one for each loop at most."""

    async def __call__(self, scope: MutableMapping[str, Opaque], receive: Receive, send: Send) -> None:
        guest = await Guest.join("asyncio_app")
        if scope["type"] != "lifespan":  # by the first request, the server has installed its handlers
            guest.end_streams_on(self.signals)
        call = _Call(self, guest, scope["type"], receive, send, must_leave=guest.have_streams_ended)
        self.calls[call] = guest.streams[call] = None
        try:
            await Job(guest, lambda: self.app(scope, call.receive, call.send)).result()
            await call.finish()
        except BaseException as exc:
            await guest.leave_after(exc)  # noqa: ASYNC102  # in asyncio, this waits through cancellations
            raise
        finally:
            del self.calls[call], guest.streams[call]
        await guest.leave()
        await call.say_last()

    def end_streams(self, guest: Guest) -> None:
        """Have the calls of one loop end."""
        if not isinstance(self.app, Closing):
            self._disconnect(guest)
        elif not any(farewell.guest is guest for farewell in self._farewells):
            farewell = Job(guest, self.app.aclose)
            self._farewells.add(farewell)
            farewell.on_end.append(functools.partial(self._closed, farewell))

    def _closed(self, farewell: Job[None]) -> None:
        self._farewells.discard(farewell)
        if farewell.error is not None:
            log.error("an application could not end its streams; its clients are disconnected", exc_info=farewell.error)
        self._disconnect(farewell.guest)

    def _disconnect(self, guest: Guest) -> None:
        for call in tuple(self.calls):
            if call.guest is guest:
                call.disconnect()


@attrs.define(eq=False)
class _Call:
    """One call of the application."""

    app: _App
    guest: Guest
    _kind: str
    """The type of the scope."""
    _receive: Receive
    _send: Send
    must_leave: bool = attrs.field(kw_only=True)
    """Whether the application must see its client leave."""
    _waiting: set[Crossing[Message]] = attrs.field(factory=set)
    """Calls of the server's `receive` that have not returned."""
    _is_asked: bool = False
    """Whether everything that the client asks was received."""
    _has_begun: bool = False
    """Whether the response was begun."""
    _last: Message | None = None
    """The end of the lifespan, which is sent when the call has ended."""
    _is_over: bool = False
    """Whether the response is complete, the socket is closed, or the client has left."""

    @property
    def _ends(self) -> bool:
        """Whether the application sees its client leave when it receives: a request that is being read is read to its end."""
        return self.must_leave and (self._kind == "websocket" or (self._kind == "http" and self._is_asked))

    def wake(self) -> None:
        """The streams have ended: have the application end its own."""
        self.app.end_streams(self.guest)

    def disconnect(self) -> None:
        """Have an application that waits for its client see that the client has left."""
        self.must_leave = True
        if self._ends:
            for crossing in self._waiting:
                crossing.cancel_task()

    async def receive(self) -> Message:
        """Receive a message, in Trio.

        Cancellation: either a message is returned, or nothing was received.
        """
        if self._ends:
            await trio.lowlevel.checkpoint()
            return self._leave()
        crossing = Crossing(self.guest, self._receive)
        self._waiting.add(crossing)
        try:
            await crossing.wait(contextvars.copy_context())
        finally:
            self._waiting.discard(crossing)
        if self._ends and crossing.was_cancelled:
            await trio.lowlevel.checkpoint_if_cancelled()
            return self._leave()
        message = await crossing.value()
        match message["type"]:
            case "http.request":
                self._is_asked = not message.get("more_body", False)
            case "http.disconnect" | "websocket.disconnect":
                self._is_over = True
        return message

    def _leave(self) -> Message:
        if self._kind == "websocket":
            return {"type": "websocket.disconnect", "code": RESTART, "reason": "the server shuts down"}
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a message, in Trio.

        Cancellation: either the message was sent, or the response is cut.
        """
        if message["type"] in {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
            await trio.lowlevel.checkpoint()
            self._last = message
            return
        crossing = Crossing(self.guest, lambda: self._send(message))
        await crossing.wait(contextvars.copy_context())
        await crossing.value()
        self._has_begun = True
        match message["type"]:
            case "http.response.body" | "websocket.http.response.body":
                self._is_over = self._is_over or not message.get("more_body", False)
            case "websocket.close":
                self._is_over = True

    async def say_last(self) -> None:
        """Tell the server that the shutdown is complete, when Trio has ended: the server may close its loop then. In asyncio."""
        if self._last is not None:
            await self._send(self._last)

    async def finish(self) -> None:
        """Finish the response of an application that has returned because the streams have ended, in asyncio."""
        if self._is_over or not self._ends:
            return
        if self._kind == "websocket":
            await self._send({"type": "websocket.close", "code": RESTART, "reason": "the server shuts down"})
            return
        if not self._has_begun:
            await self._send({"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"1")]})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
