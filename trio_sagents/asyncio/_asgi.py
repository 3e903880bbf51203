"""An ASGI application that is code of Trio, in a server that runs on asyncio.

Each call of the application is a task of the guest run. What it receives and sends crosses over to the server's loop, one message at a
time, so the server's back pressure reaches the application, and the other way round.

When the streams end, an application that waits for its client sees the client leave. It ends as it does for any client that has left,
and then the response is finished, or the socket is closed, in its place.
"""

import contextvars
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Final, TypeAlias

import attrs
import trio

from trio_sagents.asyncio._crossing import Crossing
from trio_sagents.asyncio._guest import Guest
from trio_sagents.asyncio._job import Job
from trio_sagents.data.json import Opaque

Message: TypeAlias = MutableMapping[str, Opaque]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[MutableMapping[str, Opaque], Receive, Send], Awaitable[None]]
RESTART: Final = 1012
"""The close code of a WebSocket whose server restarts: the client should come back."""


def asyncio_app(app: Application) -> Application:
    """Return an ASGI application for asyncio servers that runs an ASGI application of Trio.

    For example, in the lifespan of a FastAPI application, `app.mount("/chat", asyncio_app(bridge))`. Any application of Trio will do, with
    all kinds of scopes. If it has a lifespan, Trio runs for as long as that; otherwise it runs while a block of `open_sessions` is open.

    Args:
        app: an ASGI 3 application whose code awaits only what is of Trio.

    Cancellation: a call that the server cancels is cancelled in Trio, and has ended.
    """
    return _App(app)


@attrs.frozen(eq=False)
class _App:
    _app: Application

    async def __call__(self, scope: MutableMapping[str, Opaque], receive: Receive, send: Send) -> None:
        guest = await Guest.join("asyncio_app")
        call = _Call(guest, scope["type"], receive, send)
        guest.streams[call] = None
        try:
            await Job(guest, lambda: self._app(scope, call.receive, call.send)).result()
            await call.finish()
        except BaseException as exc:
            await guest.leave_after(exc)
            raise
        finally:
            del guest.streams[call]
        await guest.leave()


@attrs.define(eq=False)
class _Call:
    """One call of the application."""

    _guest: Guest
    _kind: str
    """The type of the scope."""
    _receive: Receive
    _send: Send
    _waiting: set[Crossing[Message]] = attrs.field(factory=set)
    """Calls of the server's `receive` that have not returned."""
    _is_asked: bool = False
    """Whether everything that the client asks was received."""
    _has_begun: bool = False
    """Whether the response was begun."""
    _is_over: bool = False
    """Whether the response is complete, the socket is closed, or the client has left."""

    @property
    def _ends(self) -> bool:
        """Whether the application must see its client leave now."""
        return self._guest.have_streams_ended and (self._kind == "websocket" or (self._kind == "http" and self._is_asked))

    def wake(self) -> None:
        """Have an application that waits for its client look again, because the streams have ended."""
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
        crossing = Crossing(self._guest, self._receive)
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
        crossing = Crossing(self._guest, lambda: self._send(message))
        await crossing.wait(contextvars.copy_context())
        await crossing.value()
        self._has_begun = True
        match message["type"]:
            case "http.response.body" | "websocket.http.response.body":
                self._is_over = self._is_over or not message.get("more_body", False)
            case "websocket.close":
                self._is_over = True

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
