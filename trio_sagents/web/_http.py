"""One HTTP request, from its body to its answer, and what a handler gets of it.

A handler returns an `Answer`, or starts a stream with `Call.start` and writes to it. While it runs, another task receives: a handler that
only sends would not learn that the client has gone. Then a handler that reads is cancelled, and a command may take `command_grace` more.
"""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

import attrs
import trio

from trio_sagents import JSON, SagentsError
from trio_sagents.web._asgi import Message, Receive, Send
from trio_sagents.web._connections import Connection
from trio_sagents.web._json import dumps, loads
from trio_sagents.web._policy import WebPolicy
from trio_sagents.web._request import Refused, WebRequest
from trio_sagents.web._shared import Shared
from trio_sagents.web._visitor import Visitor
from trio_sagents.web._wire import INTERNAL, SLOW, Ending, ErrorInfo, Invalid, error_of, invalid

log: Final = logging.getLogger("trio_sagents.web")
Headers: TypeAlias = Sequence[tuple[str, str]]
JSON_TYPE: Final = "application/json"
SAFE_HEADERS: Final[Headers] = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
)
API_HEADERS: Final[Headers] = (
    *SAFE_HEADERS,
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
)
"""Of everything that is not a page or a file of a page: nothing in it may run, even if a browser takes it for a page."""
END_TIMEOUT: Final = 0.5
"""How long the last words to a client may take to be sent."""


class ClientGone(Exception):  # it is not an error
    """The client has disconnected before its request was there."""


@attrs.frozen
class Answer:
    """A whole response."""

    status: int
    content_type: str
    body: bytes = attrs.field(repr=False)
    headers: Headers = API_HEADERS


def json_answer(result: JSON, status: int = 200, headers: Headers = ()) -> Answer:
    """Return an answer that is a JSON object."""
    return Answer(status, JSON_TYPE, dumps(result).encode(), (*API_HEADERS, *headers))


def error_answer(error: ErrorInfo) -> Answer:
    """Return the answer to a request that was refused or failed."""
    later = () if error.retry_after is None else (("retry-after", str(max(1, round(error.retry_after)))),)
    return json_answer({"error": error.to_dict()}, error.status, later)


def refused_answer(refused: Refused) -> Answer:
    """Return the answer to a request that was refused by a guard."""
    return error_answer(ErrorInfo(refused.status, refused.kind, refused.message, refused.retry_after))


@attrs.define(eq=False)
class Call:
    """One request of a visitor, for a handler."""

    shared: Shared
    request: WebRequest
    visitor: Visitor
    parameters: Mapping[str, str]
    """The named segments of the path, such as "id"."""
    connection: Connection
    body: bytes = attrs.field(repr=False)
    _send: Send = attrs.field(repr=False)
    on_end: Callable[[Ending], bytes | None] = attrs.field(default=lambda _ending: None, repr=False)
    """Makes the last bytes of a stream that the bridge ends. None: the stream is cut, so that nobody takes it for a whole one."""
    is_started: bool = False
    is_gone: bool = False
    """Whether the client has disconnected."""
    when_gone: list[Callable[[], Awaitable[None]]] = attrs.field(factory=list)
    """What is to be waited for when the answer was sent, or the client has gone: the grace of a viewer."""

    def json(self) -> JSON:
        """Return the JSON object of the body.

        Raises:
            Invalid: it is not one.
        """
        try:
            return loads(self.body)
        except ValueError as exc:
            raise Invalid(f"the body is not a JSON object: {exc}"[:200]) from None

    async def start(self, content_type: str, headers: Headers = ()) -> None:
        """Begin a stream. Call it when nothing can be refused any more.

        Raises:
            Refused: the bridge is closed; nothing was sent.

        Cancellation: the stream may have begun.
        """
        self.shared.connections.become_stream(self.connection)
        self.is_started = True
        streaming = (("x-accel-buffering", "no"), ("cache-control", "no-store, no-transform"))
        kept = [header for header in API_HEADERS if header[0] != "cache-control"]
        await self._timed(_start(200, content_type, (*kept, *streaming, *headers), None))

    async def write(self, data: bytes) -> None:
        """Send the next piece of the stream. Ends the connection if the client does not read.

        Cancellation: the piece may have been sent.
        """
        await self._timed({"type": "http.response.body", "body": data, "more_body": True})

    async def _timed(self, message: Message) -> None:
        with trio.move_on_after(self.shared.policy.send_timeout) as scope:
            try:
                await self._send(message)
            except OSError:  # what a server raises that says that the client has gone
                self.is_gone = True
                self.connection.scope.cancel()
                await trio.lowlevel.checkpoint()
        if scope.cancelled_caught:
            self.connection.end(SLOW)
            await trio.lowlevel.checkpoint()


Handler: TypeAlias = Callable[[Call], Awaitable[Answer | None]]
"""Answers a request; None if it has streamed."""


def _start(status: int, content_type: str, headers: Headers, length: int | None) -> Message:
    named = [("content-type", content_type), *headers, *([] if length is None else [("content-length", str(length))])]
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named],
    }


async def send_answer(send: Send, answer: Answer, timeout: float, *, is_head: bool = False) -> None:  # noqa: ASYNC109  # of one step
    """Send a whole response; give up if the client does not read, or has gone.

    Cancellation: the response may have been sent, or a part of it.
    """
    with trio.move_on_after(timeout), contextlib.suppress(OSError):
        await send(_start(answer.status, answer.content_type, answer.headers, len(answer.body)))
        await send({"type": "http.response.body", "body": b"" if is_head else answer.body})


async def read_body(receive: Receive, request: WebRequest, policy: WebPolicy) -> bytes:
    """Return the body of a request.

    Raises:
        Refused: it is too long, or does not come in time.
        ClientGone: the client has disconnected.

    Cancellation: a part of the body was taken.
    """
    too_long = Refused(413, "Invalid", f"the body is longer than {policy.max_body_bytes} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > policy.max_body_bytes:
        raise too_long
    body = bytearray()
    with trio.move_on_after(policy.body_timeout):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            if len(body) > policy.max_body_bytes:
                raise too_long
            if not message.get("more_body", False):
                return bytes(body)
    raise Refused(408, "Invalid", "the body did not come in time")


async def run_handler(call: Call, handler: Handler, receive: Receive, send: Send, *, is_command: bool) -> None:
    """Have a request answered. A defect of the host is logged and answered, or cuts the stream.

    Cancellation: as the handler.
    """
    answer: Answer | None = None

    async def notice_disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        call.is_gone = True
        grace = call.shared.policy.command_grace if is_command else 0.0
        nursery.cancel_scope.deadline = trio.current_time() + grace

    with call.connection.scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notice_disconnect)
            answer = await _answer(call, handler)
            nursery.cancel_scope.cancel()
    if call.is_gone:
        return
    await _finish(call, answer, send)


async def _answer(call: Call, handler: Handler) -> Answer | None:
    try:
        return await handler(call)
    except Invalid as exc:
        error = invalid(str(exc))
    except Refused as exc:
        error = ErrorInfo(exc.status, exc.kind, exc.message, exc.retry_after)
    except SagentsError as exc:
        error = error_of(exc)
    except Exception:
        # The boundary of a request: an error of the host's own code, in its authorizer say, is answered and logged.
        log.exception("the request for %s failed", "/".join(call.request.segments))
        error = INTERNAL
    return error_answer(error)


async def _finish(call: Call, answer: Answer | None, send: Send) -> None:
    """Send what is left to be sent."""
    ending = call.connection.ending
    if not call.is_started:
        if answer is None:
            known = ending is not None and ending.reason in {"expired", "revoked"}
            status, kind = (401, "Unauthorized") if known else (503, "SessionsClosed")
            answer = error_answer(ErrorInfo(status, kind, "the request was ended", None if ending is None else ending.retry_after))
        await send_answer(send, answer, call.shared.policy.send_timeout)
        return
    last = call.on_end(ending) if ending is not None else b"" if answer is None else None
    if last is None:
        # A client takes a body that simply ends for a whole one, so the connection has to be cut.
        raise ConnectionError("the stream was ended before it was whole")
    with trio.move_on_after(END_TIMEOUT), contextlib.suppress(OSError):
        await send({"type": "http.response.body", "body": last, "more_body": False})
