"""Routes for front ends that are made with the Vercel AI SDK.

| method and path below the mount | what it does |
|---|---|
| `POST` (the mount itself) | posts the newest message, or records approvals; streams the turn |
| `GET {id}/stream` | streams the running turn from its start; 204 if none runs; `?turn=<id>` streams this turn, also if it has ended |
| `POST {id}/resume` | records decisions, in our own JSON; streams the rest of the turn |
| `POST {id}/stop` | cancels the running turn, or the one that `{"turnId": ...}` names |
| `GET {id}/messages` | the transcript, as UI messages |
| `GET session` | the CSRF token, for clients that log in with cookies |
"""

from collections.abc import Sequence

import attrs

from trio_sagents import JSON, ConversationNotFound, Decision, Overlap, Page, Receipt, Sessions
from trio_sagents.web._http import Answer, Call, json_answer
from trio_sagents.web._policy import WebPolicy
from trio_sagents.web._request import Refused
from trio_sagents.web._routes import Route
from trio_sagents.web._turn_routes import (
    Decided,
    TurnRoutes,
    continued,
    decide,
    info_of,
    is_known,
    make_shared,
    read_back,
    read_json,
    respond,
    running_in,
    show_session,
    stop_turn,
    stored_rows,
    stream_of,
    turn_named,
)
from trio_sagents.web._turn_stream import TurnStream, rows_up_to_calls, turn_of_call, turn_of_message
from trio_sagents.web._ui_messages import ui_messages
from trio_sagents.web._vercel import VERCEL_HEADERS, ChatRequest, VercelEncoder, read_chat_request
from trio_sagents.web._visitor import Authenticate


@attrs.frozen(eq=False, init=False)
class VercelRoutes(TurnRoutes):
    """An ASGI application for front ends that are made with the Vercel AI SDK (`useChat`, and its `Chat` class).

    One response is one turn, which is one UI message whose id is the turn's. Only the newest message of a person and the answers about
    calls that wait are taken from a request. Leaving is not stopping: Stop is a route.

    Run it under a Trio server, such as Hypercorn's Trio worker; mount it in Starlette or FastAPI, or serve it as it is.
    """

    _overlap: Overlap

    def __init__(
        self,
        sessions: Sessions,
        authenticate: Authenticate,
        *,
        policy: WebPolicy | None = None,
        overlap: Overlap = "queue",
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
            sub_agents: whether to tell of sub-agents. This listens to the debug channel, so it is only for visitors that may debug.
            secret: makes the CSRF tokens, at least 16 bytes; give the same to all processes that serve the same pages. None: a new one.

        Raises:
            TypeError, ValueError: an argument has the wrong type or an invalid value.
        """
        shared = make_shared(sessions, authenticate, policy, overlap, secret)
        routes = (
            Route("POST", "", "write", self._chat),
            Route("GET", "session", "read", show_session),
            Route("GET", "{id}/stream", "stream", self._reconnect),
            Route("POST", "{id}/resume", "write", self._resume),
            Route("POST", "{id}/stop", "write", self._stop),
            Route("GET", "{id}/messages", "read", self._messages),
        )
        self.__attrs_init__(shared, routes, sub_agents, overlap)  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it

    # ── routes

    async def _chat(self, call: Call) -> Answer | None:
        request = read_json(call, read_chat_request)
        if request.message is None and not request.answers:
            raise Refused(400, "Invalid", "there is nothing new: the last message is not a person's, and no call is answered")
        if request.message is None:
            await _require(call, request.conversation_id)
        async with self._open_page(call, request.conversation_id) as page:
            await _respond(call, await self._accept(call, page, request))
        return None

    async def _accept(self, call: Call, page: Page, request: ChatRequest) -> TurnStream:
        """Record the answers, post the message, and return the stream of the turn that continues, or that takes the message."""
        decided = await decide(call, page, request.conversation_id, request.answers)
        if decided is None and request.message is None:
            return await _look_again(call, page, request)
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
        if decided is not None:
            stream = await continued(call, page, request.conversation_id, VercelEncoder(), decided)
            stream.relay.known_messages = request.known_messages
            return stream
        assert receipt is not None
        return await _answering(call, page, request, receipt)

    async def _reconnect(self, call: Call) -> Answer | None:
        conversation_id, asked = call.parameters["id"], call.request.query.get("turn")
        running = await running_in(call, conversation_id)
        turn_id = asked or running
        # Looking starts no agent: only a turn that runs, or that is stored, is worth one.
        if turn_id is None or (turn_id != running and not await _has_turn(call, conversation_id, turn_id)):
            return Answer(204, "text/plain", b"")
        async with self._open_page(call, conversation_id) as page:
            await read_back(page, turn_id)
            await _respond(call, stream_of(call, page, conversation_id, VercelEncoder(), turn_id, running=running))
        return None

    async def _resume(self, call: Call) -> Answer | None:
        conversation_id, decisions = call.parameters["id"], read_json(call, _decisions)
        await _require(call, conversation_id)
        async with self._open_page(call, conversation_id) as page:
            interrupt = page.interrupt
            receipt = await call.shared.sessions.resume(conversation_id, decisions, scope=call.visitor.scope)
            turn_id = turn_of_call(page.rows, decisions[0].call_id) if interrupt is None else interrupt.turn_id
            if turn_id is None:
                raise Refused(409, "NotInterrupted", "nothing waits for this answer any more")
            await _respond(call, await continued(call, page, conversation_id, VercelEncoder(), Decided(turn_id, receipt)))
        return None

    async def _stop(self, call: Call) -> Answer:
        return await stop_turn(call, call.parameters["id"], read_json(call, turn_named))

    async def _messages(self, call: Call) -> Answer:
        conversation_id = call.parameters["id"]
        rows = await stored_rows(call, conversation_id)
        info = await info_of(call, conversation_id)
        if info is not None:
            return json_answer({"messages": ui_messages(rows, info.interrupt, info.turn_id)})
        if not any(row.status == "interrupted" for row in rows):
            return json_answer({"messages": ui_messages(rows, None, None)})
        async with self._open_page(call, conversation_id) as page:  # the agent knows what it waits for
            return json_answer({"messages": ui_messages(rows, page.interrupt, None)})


async def _require(call: Call, conversation_id: str) -> None:
    """Refuse answers to a conversation that is not there as those to one of somebody else, and start no agent for them."""
    if not await is_known(call, conversation_id):
        raise ConversationNotFound(conversation_id)


async def _has_turn(call: Call, conversation_id: str, turn_id: str) -> bool:
    return any(row.turn_id == turn_id for row in await stored_rows(call, conversation_id))


async def _answering(call: Call, page: Page, request: ChatRequest, receipt: Receipt) -> TurnStream:
    """Return the stream of the turn that takes a message. If the message was posted before, its turn may have begun, or be over."""
    running = await running_in(call, request.conversation_id)
    turn_id = None
    if receipt.duplicate:
        sessions, scope = call.shared.sessions, call.visitor.scope
        turn_id = await turn_of_message(sessions, request.conversation_id, scope, receipt.message_id)
    if turn_id is not None:
        await read_back(page, turn_id)
    stream = stream_of(call, page, request.conversation_id, VercelEncoder(), turn_id, receipt=receipt, running=running)
    stream.relay.awaited = receipt.message_id
    stream.relay.known_messages = request.known_messages
    return stream


async def _look_again(call: Call, page: Page, request: ChatRequest) -> TurnStream:
    """Return the stream of a turn whose calls were answered before: by this client, or by somebody else."""
    turn_id = next((found for answer in request.answers if (found := turn_of_call(page.rows, answer.name.call_id))), None)
    if turn_id is None:
        raise Refused(409, "NotInterrupted", "nothing waits for this answer any more")
    await read_back(page, turn_id)
    running = await running_in(call, request.conversation_id)
    stream = stream_of(call, page, request.conversation_id, VercelEncoder(), turn_id, running=running)
    stream.relay.catch_up(rows_up_to_calls(page.rows, turn_id), None)
    return stream


async def _respond(call: Call, stream: TurnStream) -> None:
    await respond(call, stream, VERCEL_HEADERS, VercelEncoder().greeting())


def _decisions(body: JSON) -> Sequence[Decision]:
    decisions = body.get("decisions")
    if not isinstance(decisions, list) or not decisions:
        raise TypeError('the body must have a list of decisions that is not empty, under "decisions"')
    return [Decision.from_dict(decision) for decision in decisions]
