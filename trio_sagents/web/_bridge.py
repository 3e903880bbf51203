"""The bridge: an ASGI application that puts sessions on the web.

A request passes: the Host, the route, the Origin, the form of a command, who is there, the CSRF token, the limits of connections. Only then
its body is read, or its WebSocket accepted. What it asks for is then authorised by the sessions, like every other call of them.
"""

import logging
import secrets
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

import attrs
import trio

from trio_sagents import AGENTS_TOPIC, Sessions, SessionsClosed
from trio_sagents.web._asgi import Message, Receive, Send
from trio_sagents.web._connections import Connections
from trio_sagents.web._guards import check_host, check_origin
from trio_sagents.web._http import Answer, Call, ClientGone, read_body, refused_answer, run_handler, send_answer
from trio_sagents.web._policy import WebPolicy
from trio_sagents.web._prices import PriceList, Prices
from trio_sagents.web._request import Refused, WebRequest, not_found, read_request
from trio_sagents.web._routes import ROUTES, Route, find_route
from trio_sagents.web._shared import Shared
from trio_sagents.web._socket import Socket
from trio_sagents.web._static import INDEX, File, file_answer, read_files
from trio_sagents.web._texts import EnvelopeTexts
from trio_sagents.web._viewers import Viewers
from trio_sagents.web._visitor import Authenticate
from trio_sagents.web._wire import Ending

log: Final = logging.getLogger("trio_sagents.web")


class Bridge:
    """Conversations on the web: a plain ASGI application, for a server that runs Trio.

    Mount it under Starlette or FastAPI, give it to quart-trio as a `blueprint`, or serve it alone.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        authenticate: Authenticate,
        policy: WebPolicy | None = None,
        secret: bytes | None = None,
        prices: Prices | None = None,
        currency: str = "USD",
    ) -> None:
        """Make a bridge. It opens nothing; it may be called while the sessions are open.

        Args:
            sessions: from `open_sessions`.
            authenticate: says who a request comes from: a function, async or not, from a `WebRequest` to a `Visitor`, to a scope that
                is a str or an int, or to None, if nobody is logged in. It is asked before a WebSocket is accepted, and before a body
                is read.
            policy: the limits; None is `WebPolicy()`, which answers to names of this machine only.
            secret: makes the CSRF tokens, at least 16 bytes; give the same to all processes that serve the same pages. None: a new
                one, so that pages read their token again after a restart.
            prices: by the name of a model, (input, output) per million tokens; or a function from a model's name and a `Usage` to the
                cost, or to None if it does not know the model. It is called for each model call and must be quick. The pages show what
                calls, turns, sub-agents and the conversation have cost. None: they show tokens alone.
            currency: of the prices, as in ISO 4217.

        Raises:
            TypeError, ValueError: an argument has the wrong type or an invalid value.
        """
        if not isinstance(sessions, Sessions):
            raise TypeError(f"sessions must be Sessions, from open_sessions; not {type(sessions).__name__}")
        if not callable(authenticate):
            raise TypeError(f"authenticate must be a function, not {type(authenticate).__name__}")
        if policy is not None and not isinstance(policy, WebPolicy):
            raise TypeError(f"policy must be a WebPolicy, not {type(policy).__name__}")
        if secret is not None and (not isinstance(secret, bytes) or len(secret) < 16):
            raise ValueError("secret must be at least 16 bytes")
        policy = WebPolicy() if policy is None else policy
        self._shared = Shared(
            sessions,
            authenticate,
            policy,
            secrets.token_bytes(32) if secret is None else secret,
            Connections(policy),
            Viewers(sessions.presence, policy.presence_grace),
            EnvelopeTexts(prices=PriceList({} if prices is None else prices, currency)),
        )
        self._routes: Sequence[Route] = ROUTES
        self._files: Mapping[str, File] = read_files()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, serve a WebSocket, or take part in the lifespan of a server.

        Cancellation: the connection ends; a turn that it has started goes on.
        """
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)
            case "lifespan":
                await self._lifespan(receive, send)
            case kind:
                raise ValueError(f"a bridge cannot serve {kind!r}")

    def revoke(self, key: str) -> int:
        """End all streams of a visitor, and requests that are being answered. Nothing more of them is carried out.

        Call it when somebody has logged out, or has lost a right. `authenticate` must refuse the visitor by then: a page comes back.

        Args:
            key: as `Visitor.key`.

        Returns:
            How many connections there were.
        """
        return self._shared.connections.revoke(key)

    async def aclose(self) -> None:
        """End all streams, with a last frame that tells pages when to come back, and refuse new requests. A second call only waits.

        Call it before the server is told to stop, which waits for open streams otherwise. Turns go on: the `open_sessions` block ends
        them, when it is left. The log says which turns those are.

        Cancellation: the streams end all the same.
        """
        shared = self._shared
        if not shared.connections.is_closed:
            await self._log_running()
        shared.connections.close(Ending("shutdown", 1012, shared.policy.retry_after))
        shared.viewers.close()
        with trio.move_on_after(shared.policy.close_timeout) as scope:
            await shared.connections.wait_closed()
        if scope.cancelled_caught:
            log.warning("%d connections have not ended yet; their clients do not read, or a command takes long", len(shared.connections))

    async def wait_shutdown(self) -> None:
        """Wait for SIGTERM or SIGINT, and end all streams: the `shutdown_trigger` of hypercorn's `serve`.

        Cancellation: changes nothing.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                break
            await self.aclose()

    async def _log_running(self) -> None:
        """Say what a shutdown waits for."""
        if not self._shared.sessions.statistics().running:
            await trio.lowlevel.checkpoint()
            return
        agents = await self._shared.sessions.presence.list(AGENTS_TOPIC)
        running = sorted(str(meta["conversation_id"]) for metas in agents.values() for meta in metas if meta["status"] == "running")
        if running:
            shown = ", ".join(map(repr, running[:5])) + (", ..." if len(running) > 5 else "")
            log.info("shutting down; these conversations have running turns, which may finish within grace_period: %s", shown)

    # ── HTTP

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        policy = self._shared.policy
        is_head = scope["method"] == "HEAD"
        try:
            request = read_request(scope)
            check_host(request, policy)
            answer = self._page(attrs.evolve(request, method="GET") if is_head else request)
            if answer is None:
                await self._serve(request, receive, send)
                return
        except Refused as exc:
            answer = refused_answer(exc)
        except ClientGone:
            return
        await send_answer(send, answer, policy.send_timeout, is_head=is_head)

    def _page(self, request: WebRequest) -> Answer | None:
        """Return the answer to a request for a file of the page; None if it is for something else."""
        match request.segments:
            case ():  # the mount without a slash: relative addresses on the page would lead elsewhere
                return Answer(308, "text/plain", b"", (("location", f"{request.root}/"),))
            case ("",):
                name = INDEX
            case ("static", *segments):
                name = "/".join(segments)
            case (name,) if f"{name}.html" in self._files:
                name = f"{name}.html"
            case _:
                return None
        if request.method != "GET":
            raise Refused(405, "Invalid", "this route takes GET")
        check_origin(request, self._shared.policy, "page")
        return file_answer(request, self._files, name)

    async def _serve(self, request: WebRequest, receive: Receive, send: Send) -> None:
        route, parameters = find_route(request, self._routes)
        shared = self._shared
        visitor = await shared.let_in(request, route.kind)
        async with AsyncExitStack() as when_gone:
            with shared.connections.admit(visitor) as connection:
                is_command = route.kind == "write"
                body = await read_body(receive, request, shared.policy) if route.method == "POST" else b""
                call = Call(shared, request, visitor, parameters, connection, body, send)
                try:
                    await run_handler(call, route.handler, receive, send, is_command=is_command)
                finally:
                    for wait in call.when_gone:
                        when_gone.push_async_callback(wait)

    # ── WebSocket

    async def _websocket(self, scope: Message, receive: Receive, send: Send) -> None:
        shared = self._shared
        if (await receive())["type"] != "websocket.connect":
            return
        try:
            request = read_request(scope)
            check_host(request, shared.policy)
            if request.segments != ("ws",):
                raise not_found()
            visitor = await shared.let_in(request, "socket")
            async with AsyncExitStack() as when_gone:
                with shared.connections.admit(visitor) as connection:
                    shared.connections.become_stream(connection)
                    async with shared.sessions.open_subscriber(scope=visitor.scope) as subscriber:
                        socket = Socket(shared, connection, subscriber, receive, send)
                        when_gone.push_async_callback(shared.viewers.linger, visitor.viewer, socket.present)
                        await send({"type": "websocket.accept"})
                        await socket.run()
                        await socket.finish()
        except SessionsClosed:
            await self._refuse(scope, send, Refused(503, "SessionsClosed", "the sessions are closed"))
        except Refused as exc:
            await self._refuse(scope, send, exc)

    async def _refuse(self, scope: Message, send: Send, refused: Refused) -> None:
        """Refuse a WebSocket before it is accepted: with a status if the server can say one, else it says 403."""
        with trio.move_on_after(self._shared.policy.send_timeout):
            if "websocket.http.response" not in scope.get("extensions", {}):
                await send({"type": "websocket.close", "code": 1008})
                return
            answer = refused_answer(refused)
            headers = [(name.encode(), value.encode()) for name, value in (("content-type", answer.content_type), *answer.headers)]
            await send({"type": "websocket.http.response.start", "status": answer.status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": answer.body})

    # ── lifespan

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            match (await receive())["type"]:
                case "lifespan.startup":
                    await send({"type": "lifespan.startup.complete"})
                case "lifespan.shutdown":
                    await self.aclose()
                    await send({"type": "lifespan.shutdown.complete"})
                    return
                case _:
                    pass
