"""What the routes of both protocols share: the way from a request to its handler, and from a request to a turn."""

import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import attrs
import trio

from trio_sagents import (
    JSON,
    AgentInfo,
    AgentNotRunning,
    CancelCause,
    Cancelled,
    ConversationNotFound,
    DisplayMessage,
    Overlap,
    Page,
    Receipt,
    Sessions,
    check_id,
)
from trio_sagents.web._answers import CallAnswer, pending_call
from trio_sagents.web._asgi import Message, Receive, Send
from trio_sagents.web._connections import Connections
from trio_sagents.web._guards import check_host, csrf_token
from trio_sagents.web._http import (
    Answer,
    Call,
    ClientGone,
    json_answer,
    read_body,
    refused_answer,
    run_handler,
    send_answer,
)
from trio_sagents.web._policy import WebPolicy
from trio_sagents.web._relay import TurnRelay
from trio_sagents.web._request import Refused, not_found, read_request
from trio_sagents.web._routes import Route, find_route
from trio_sagents.web._shared import Shared
from trio_sagents.web._turn_stream import Encoder, TurnStream
from trio_sagents.web._viewers import Viewers
from trio_sagents.web._visitor import Authenticate
from trio_sagents.web._wire import Ending, Invalid

MOST_ROWS: Final = 10_000
"""How many rows of the transcript are read at most, to find the beginning of a turn or of a conversation."""
ROWS_AT_ONCE: Final = 500
SHUTDOWN: Final = Ending("shutdown", 1012)
_Read = TypeVar("_Read")


@attrs.frozen(eq=False)
class TurnRoutes:
    """A small ASGI application: guards, then a handler. The routes of each protocol inherit from it."""

    _shared: Shared
    _routes: Sequence[Route]
    _sub_agents: bool

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, or the life of the server.

        Cancellation: the response is cut; a turn continues.
        """
        match scope["type"]:
            case "lifespan":
                await self._live(receive, send)
            case "http":
                await self._serve_http(scope, receive, send)
            case _:
                await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _serve_http(self, scope: Message, receive: Receive, send: Send) -> None:
        policy = self._shared.policy
        try:
            request = read_request(scope)
            check_host(request, policy)
            # A mount may be asked for with a slash at its end, or without.
            segments = tuple(segment for segment in request.segments if segment) or ("",)
            route, parameters = find_route(attrs.evolve(request, segments=segments), self._routes)
            visitor = await self._shared.let_in(request, route.kind)
            with self._shared.connections.admit(visitor) as connection:
                body = await read_body(receive, request, policy) if route.method == "POST" else b""
                call = Call(self._shared, request, visitor, parameters, connection, body, send)
                await run_handler(call, route.handler, receive, send, is_command=route.kind == "write")
        except Refused as exc:
            await send_answer(send, refused_answer(exc), policy.send_timeout)
        except ClientGone:
            return

    async def aclose(self) -> None:
        """End the open streams, each with an error that asks the client to come back, and take no more requests. No turn is cut.

        Call it before the server stops: an open stream holds a server for its whole graceful timeout. A server that runs this application
        as it is, and not mounted in another one, does so by itself.

        Cancellation: the streams end all the same.
        """
        self._shared.connections.close(SHUTDOWN)
        with trio.move_on_after(self._shared.policy.close_timeout):
            await self._shared.connections.wait_closed()

    async def wait_shutdown(self) -> None:
        """Wait for SIGTERM or SIGINT, and end all streams: the `shutdown_trigger` of hypercorn's `serve`.

        Cancellation: changes nothing.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                break
            await self.aclose()

    @asynccontextmanager
    async def _open_page(self, call: Call, conversation_id: str) -> AsyncIterator[Page]:
        """Open a page of a conversation. Its agent is started."""
        try:
            opening = call.shared.sessions.page(conversation_id, scope=call.visitor.scope)
        except (TypeError, ValueError) as exc:
            raise Invalid(str(exc)) from None
        async with opening as page:
            if self._sub_agents and call.visitor.may_debug:
                # Before anything is posted, so that no sub-agent begins unseen.
                await page.watch.subscribe(conversation_id, channel="debug")
            yield page

    def revoke(self, key: str) -> int:
        """End all streams of the visitor with this key, and return how many there were."""
        return self._shared.connections.revoke(key)


async def show_session(call: Call) -> Answer:
    """Answer with the CSRF token of the visitor.

    Cancellation: nothing is changed.
    """
    await trio.lowlevel.checkpoint()
    return json_answer({"csrf": csrf_token(call.visitor.key, call.shared.secret)})


def read_json(call: Call, read: Callable[[JSON], _Read]) -> _Read:
    """Return what `read` finds in the body.

    Raises:
        Invalid: the body is not JSON, or `read` has raised TypeError or ValueError.
    """
    body = call.json()
    try:
        return read(body)
    except (TypeError, ValueError) as exc:
        raise Invalid(str(exc)) from None


# ── from a request to a turn


async def read_back(page: Page, turn_id: str | None) -> None:
    """Read older rows, until the beginning of a turn is among the rows; of the conversation, if no turn is named.

    Cancellation: the rows that were read are on the page.
    """
    while page.has_older and len(page.rows) < MOST_ROWS and (turn_id is None or page.rows[0].turn_id == turn_id):
        if not await page.older(ROWS_AT_ONCE):
            return


@attrs.frozen
class Decided:
    """What became of the answers of a request."""

    turn_id: str
    """The turn that waited for them."""
    receipt: Receipt | None
    """None for a halt: its turn is over."""


async def decide(call: Call, page: Page, conversation_id: str, answers: Sequence[CallAnswer]) -> Decided | None:
    """Record the answers that fit a call that waits; None if no answer does. Other answers are old, and are ignored.

    Raises:
        Invalid: an answer does not fit the kind of its call.
        SagentsError: as `Sessions.resume`; nothing was recorded.

    Cancellation: as `Sessions.resume`.
    """
    interrupt = page.interrupt
    fitting = [(answer, waiting) for answer in answers if (waiting := pending_call(interrupt, answer.name)) is not None]
    if interrupt is None or not fitting:
        return None
    sessions, scope = call.shared.sessions, call.visitor.scope
    if interrupt.kind == "halt":
        await sessions.dismiss(conversation_id, scope=scope, interrupt_id=interrupt.interrupt_id)
        return Decided(interrupt.turn_id, None)
    try:
        decisions = [answer.decision(waiting) for answer, waiting in fitting]
    except (TypeError, ValueError) as exc:
        raise Invalid(str(exc)) from None
    return Decided(interrupt.turn_id, await sessions.resume(conversation_id, decisions, scope=scope))


def stream_of(
    call: Call,
    page: Page,
    conversation_id: str,
    encoder: Encoder,
    turn_id: str | None,
    *,
    receipt: Receipt | None = None,
    running: str | None = None,
) -> TurnStream:
    """Return the stream of a turn. See `TurnStream` for the arguments."""
    policy = call.shared.policy
    return TurnStream(
        call.shared.sessions,
        call.visitor.scope,
        conversation_id,
        page,
        TurnRelay(turn_id),
        encoder,
        call.write,
        running,
        receipt,
        policy.ping_interval,
        policy.event_interval,
    )


async def continued(call: Call, page: Page, conversation_id: str, encoder: Encoder, decided: Decided) -> TurnStream:
    """Return the stream of a turn that waited for people, from where it waited.

    Cancellation: nothing is changed.
    """
    await read_back(page, decided.turn_id)
    stream = stream_of(call, page, conversation_id, encoder, decided.turn_id, receipt=decided.receipt, running=decided.turn_id)
    if decided.receipt is None:
        stream.outcome = Cancelled(CancelCause.DISMISSED)
    # The client has all of the turn up to now.
    stream.relay.catch_up(page.rows, None)
    if page.interrupt is not None and page.interrupt.turn_id == decided.turn_id:
        stream.relay.wait_for(page.interrupt)
    return stream


async def respond(call: Call, stream: TurnStream, headers: Mapping[str, str], greeting: bytes) -> None:
    """Send a stream, from its first byte to its last.

    Cancellation: the stream is cut; the turn continues.
    """
    kept = [(name, value) for name, value in headers.items() if name.startswith("x-vercel")]
    call.on_end = lambda ending: stream.last_words(f"the stream was ended ({ending.reason}); connect again")
    await call.start("text/event-stream", kept)
    await call.write(greeting)
    await stream.run()


async def running_in(call: Call, conversation_id: str) -> str | None:
    """Return the turn that runs in a conversation; None if none does, or if the visitor may not see it.

    Raises:
        Invalid: the id of the conversation is not valid.

    Cancellation: nothing is changed.
    """
    info = await info_of(call, conversation_id)
    return None if info is None else info.turn_id


async def info_of(call: Call, conversation_id: str) -> AgentInfo | None:
    """Return a picture of the running agent of a conversation; None if it is not running, or if the visitor may not see it.

    Raises:
        Invalid: the id of the conversation is not valid.

    Cancellation: nothing is changed.
    """
    try:
        return await call.shared.sessions.agent_info(conversation_id, scope=call.visitor.scope)
    except (AgentNotRunning, ConversationNotFound):
        return None
    except (TypeError, ValueError) as exc:
        raise Invalid(str(exc)) from None


async def is_known(call: Call, conversation_id: str) -> bool:
    """Return whether there is a conversation that the visitor may see. No agent is started.

    Raises:
        Invalid: the id of the conversation is not valid.

    Cancellation: nothing is changed.
    """
    if await info_of(call, conversation_id) is not None:
        return True
    try:
        await call.shared.sessions.history(conversation_id, scope=call.visitor.scope, limit=1)
    except ConversationNotFound:
        return False
    return True


async def stored_rows(call: Call, conversation_id: str) -> Sequence[DisplayMessage]:
    """Return the transcript, oldest row first, at most its newest `MOST_ROWS` rows. No agent is started.

    It is empty for a conversation that does not exist, or that the visitor may not see.

    Raises:
        Invalid: the id of the conversation is not valid.

    Cancellation: nothing is changed.
    """
    rows: list[DisplayMessage] = []
    before: str | None = None
    while len(rows) < MOST_ROWS:
        try:
            page = await call.shared.sessions.history(conversation_id, scope=call.visitor.scope, before=before, limit=ROWS_AT_ONCE)
        except ConversationNotFound:
            break
        except (TypeError, ValueError) as exc:
            raise Invalid(str(exc)) from None
        rows[:0] = page.rows
        before = page.before
        if before is None:
            break
    return rows


async def stop_turn(call: Call, conversation_id: str, turn_id: str | None) -> Answer:
    """Cancel the running turn, or only the named one, and answer with whether it was running.

    Raises:
        Invalid: the id of the conversation is not valid.
        Refused: there is no such conversation, or the visitor may not see it.

    Cancellation: the turn is cancelled all the same.
    """
    try:
        check_id("conversation_id", conversation_id)
    except ValueError as exc:
        raise Invalid(str(exc)) from None
    try:
        outcome = await call.shared.sessions.cancel_turn(conversation_id, scope=call.visitor.scope, turn_id=turn_id)
    except ConversationNotFound:
        raise not_found() from None
    return json_answer({"stopped": outcome is not None})


def turn_named(body: JSON) -> str | None:
    """Return the turn that a request to stop names; None if it names none.

    Raises:
        TypeError: the id is not a text.
    """
    turn_id = body.get("turnId")
    if turn_id is not None and not isinstance(turn_id, str):
        raise TypeError('what is under "turnId" must be the id of a turn, as a text')
    return turn_id


def make_shared(sessions: Sessions, authenticate: Authenticate, policy: WebPolicy | None, overlap: Overlap, secret: bytes | None) -> Shared:
    """Return what all requests of an application share.

    Raises:
        TypeError, ValueError: an argument of the application has the wrong type or an invalid value.
    """
    if not isinstance(sessions, Sessions):
        raise TypeError(f"sessions must be Sessions, from open_sessions; not {type(sessions).__name__}")
    if not callable(authenticate):
        raise TypeError(f"authenticate must be a function from a WebRequest to a Visitor, not {type(authenticate).__name__}")
    if overlap not in {"queue", "steer", "interrupt", "reject"}:
        raise ValueError(f'overlap must be "queue", "steer", "interrupt" or "reject", not {overlap!r}')
    if policy is not None and not isinstance(policy, WebPolicy):
        raise TypeError(f"policy must be a WebPolicy, not {type(policy).__name__}")
    if secret is not None and (not isinstance(secret, bytes) or len(secret) < 16):
        raise ValueError("secret must be at least 16 bytes")
    policy = WebPolicy() if policy is None else policy
    viewers = Viewers(sessions.presence, policy.presence_grace)
    return Shared(sessions, authenticate, policy, secrets.token_bytes(32) if secret is None else secret, Connections(policy), viewers)
