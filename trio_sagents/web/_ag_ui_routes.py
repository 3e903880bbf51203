"""Routes for front ends that speak AG-UI.

| method and path below the mount | what it does |
|---|---|
| `POST` (the mount itself) | runs: posts the newest message, or records what `resume` answers; streams the turn |
| `POST connect` | joins: sends the messages and the state, and then the rest of the running turn; takes nothing from the request |
| `POST stop` | cancels the running turn of `{"threadId": ...}`, or the one that `turnId` names |
| `GET session` | the CSRF token, for clients that log in with cookies |
"""

from collections.abc import Collection

import attrs

from trio_sagents import JSON, AgentNotRunning, Completed, Interrupted, Message, Overlap, Page, Sessions, Usage
from trio_sagents.web._ag_ui import AG_UI_HEADERS, AgUiEncoder, RunRequest, messages_json, read_run_request
from trio_sagents.web._http import Answer, Call
from trio_sagents.web._moves import Ended
from trio_sagents.web._policy import WebPolicy
from trio_sagents.web._routes import Route
from trio_sagents.web._turn_routes import (
    TurnRoutes,
    continued,
    decide,
    is_known,
    make_shared,
    read_back,
    read_json,
    respond,
    running_in,
    show_session,
    stop_turn,
    stream_of,
    turn_named,
)
from trio_sagents.web._turn_stream import streaming_of
from trio_sagents.web._visitor import Authenticate


@attrs.frozen(eq=False, init=False)
class AgUiRoutes(TurnRoutes):
    """An ASGI application for front ends that speak AG-UI 1.0, such as `HttpAgent` of `@ag-ui/client`.

    One run is one turn, or the rest of a turn that waited for people. Only the newest message of a person and the entries of `resume` are
    taken from a request. Leaving is not stopping: Stop is a route.

    Run it under a Trio server, such as Hypercorn's Trio worker; mount it in Starlette or FastAPI, or serve it as it is.
    """

    _overlap: Overlap
    _state_keys: Collection[str]

    def __init__(
        self,
        sessions: Sessions,
        authenticate: Authenticate,
        *,
        policy: WebPolicy | None = None,
        overlap: Overlap = "queue",
        state_keys: Collection[str] = (),
        sub_agents: bool = False,
        secret: bytes | None = None,
    ) -> None:
        """Make the application.

        Args:
            sessions: from `open_sessions`; open for as long as the application serves.
            authenticate: a function, async or not, from a `WebRequest` to a `Visitor`, to a scope that is a str or an int, or to None:
                nobody is logged in.
            policy: the limits; `WebPolicy()` by default.
            overlap: what to do with a message while a turn runs, as in `Sessions.post`.
            secret: makes the CSRF tokens, at least 16 bytes; give the same to all processes that serve the same pages. None: a new one.
            state_keys: keys of the conversation's metadata that clients may see, in `STATE_SNAPSHOT`. Each value must be JSON.
            sub_agents: whether to tell of sub-agents. This listens to the debug channel, so it is only for visitors that may debug.

        Raises:
            TypeError, ValueError: an argument has the wrong type or an invalid value.
        """
        shared = make_shared(sessions, authenticate, policy, overlap, secret)
        routes = (
            Route("POST", "", "write", self._run),
            Route("POST", "connect", "write", self._connect),
            Route("POST", "stop", "write", self._stop),
            Route("GET", "session", "read", show_session),
        )
        if isinstance(state_keys, str):
            raise TypeError(f"state_keys must be a collection of texts, not the text {state_keys!r}")
        self.__attrs_init__(shared, routes, sub_agents, overlap, tuple(state_keys))  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it

    # ── routes

    async def _run(self, call: Call) -> Answer | None:
        request = read_json(call, read_run_request)
        if request.message is None and not await is_known(call, request.conversation_id):
            await _join_nothing(call, request)
            return None
        async with self._open_page(call, request.conversation_id) as page:
            await self._accept(call, page, request)
        return None

    async def _connect(self, call: Call) -> Answer | None:
        request = read_json(call, read_run_request)
        if not await is_known(call, request.conversation_id):
            await _join_nothing(call, request)
            return None
        async with self._open_page(call, request.conversation_id) as page:
            await self._join(call, page, request)
        return None

    async def _stop(self, call: Call) -> Answer:
        conversation_id, turn_id = read_json(call, _stop_named)
        return await stop_turn(call, conversation_id, turn_id)

    async def _accept(self, call: Call, page: Page, request: RunRequest) -> None:
        """Record the answers, post the message, and send the turn that continues, or that takes the message."""
        decided = await decide(call, page, request.conversation_id, request.answers)
        receipt = None
        if request.message is not None:
            receipt = await call.shared.sessions.post(
                request.conversation_id,
                request.message,
                scope=call.visitor.scope,
                message_id=request.message_id,
                # A message that comes together with answers belongs to the turn that continues.
                overlap=self._overlap if decided is None else "steer",
            )
        if decided is None and (receipt is None or receipt.duplicate):
            # Nothing is new. So the client wants to know how things are: it joins, or it tries again after a lost answer.
            await self._join(call, page, request)
            return
        encoder = await self._encoder(call, request)
        if decided is not None:
            stream = await continued(call, page, request.conversation_id, encoder, decided)
        else:
            assert receipt is not None
            running = await running_in(call, request.conversation_id)
            stream = stream_of(call, page, request.conversation_id, encoder, None, receipt=receipt, running=running)
            stream.relay.awaited = receipt.message_id
        stream.relay.known_messages = request.known_messages
        # With todos, the state is told when the turn begins.
        state = encoder.share(()) if encoder.shared and not page.todos else b""
        await respond(call, stream, AG_UI_HEADERS, encoder.greeting() + state)

    async def _join(self, call: Call, page: Page, request: RunRequest) -> None:
        """Send the past, and then the rest of the running turn."""
        await read_back(page, None)
        running = await running_in(call, request.conversation_id)
        encoder = await self._encoder(call, request)
        stream = stream_of(call, page, request.conversation_id, encoder, running, running=running)
        streaming = streaming_of(page, running, running)
        stream.relay.catch_up(page.rows, streaming, page.tool_calls)
        stream.relay.known_messages = frozenset(row.message_id for row in page.rows)
        stream.relay.todos = page.todos
        greeting = encoder.greeting() + encoder.snapshot(messages_json(page.rows, streaming)) + encoder.share(page.todos)
        if running is not None:
            greeting += encoder.start(running) + encoder.encode(stream.relay.resume_speaking())
        elif page.interrupt is not None:
            greeting += encoder.encode(stream.relay.end(Interrupted(page.interrupt)))
        else:
            greeting += encoder.encode(stream.relay.end(Completed(Message("", "assistant", (), "stop"))))
        await respond(call, stream, AG_UI_HEADERS, greeting)

    async def _encoder(self, call: Call, request: RunRequest) -> AgUiEncoder:
        shared: dict[str, object] = {}
        if self._state_keys:
            try:
                handle = await call.shared.sessions.get(request.conversation_id, scope=call.visitor.scope)
                metadata = (await handle.state()).metadata
                shared = {key: metadata[key] for key in self._state_keys if key in metadata}
            except AgentNotRunning:
                pass  # it has just left; the next run tells the state
        return AgUiEncoder(request.conversation_id, request.run_id, shared)


async def _join_nothing(call: Call, request: RunRequest) -> None:
    """Answer for a conversation that is not there, or that the visitor may not see: it looks empty, and no agent is started."""
    encoder = AgUiEncoder(request.conversation_id, request.run_id)
    ended = Ended(Completed(Message("", "assistant", (), "stop")), Usage())
    await call.start("text/event-stream")
    await call.write(encoder.greeting() + encoder.snapshot([]) + encoder.share(()) + encoder.encode([ended]))


def _stop_named(body: JSON) -> tuple[str, str | None]:
    conversation_id = body.get("threadId")
    if not isinstance(conversation_id, str):
        raise TypeError('the body must have the id of the thread, as a text, under "threadId"')
    return conversation_id, turn_named(body)
