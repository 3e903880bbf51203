"""One WebSocket: events out, commands in, replies out.

    run
    ├── frames       receives; notices that the page has gone, or has sent nothing for too long
    ├── events       everything that there is at each wake-up, as one frame
    ├── pings        and who is present
    ├── viewers      of each conversation that is watched, if they change
    └── commands     in a nursery of their own: what was received may end when the page has gone

Whoever ends the socket says so to its connection (`Connection.end`); that cancels all of this, and then the last frame is sent.
"""

import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import attrs
import trio

from trio_sagents import (
    AGENTS_TOPIC,
    JSON,
    Channel,
    ConversationNotFound,
    Scope,
    SessionsClosed,
    Subscriber,
    conversation_topic,
)
from trio_sagents.web._asgi import Message, Receive, Send
from trio_sagents.web._commands import Done, attempt, carry_out
from trio_sagents.web._connections import Connection
from trio_sagents.web._http import END_TIMEOUT
from trio_sagents.web._json import dumps, loads
from trio_sagents.web._lanes import Lanes
from trio_sagents.web._rate import Rate
from trio_sagents.web._shared import Shared
from trio_sagents.web._wire import (
    DEFECT,
    IDLE,
    RATE,
    SLOW,
    CancelTurn,
    Command,
    Ending,
    ErrorInfo,
    Invalid,
    ListAgents,
    Ping,
    Pong,
    ReadHistory,
    SetVisible,
    Subscribe,
    TooMany,
    Unsubscribe,
    command_id,
    command_of,
    invalid,
    too_many,
)

log: Final = logging.getLogger("trio_sagents.web")
PROTOCOL: Final = 1
COUNTED_AS_ONE: Final = 64 * 1024
"""A frame that is longer counts as several: what a page makes the bridge read is bounded, too."""
TELL_INTERVAL: Final = 1.0
"""The time between two frames about who watches, or which agents are running, at least."""


def malformed(message: str) -> Ending:
    """Return the end of a socket whose page does not speak the protocol."""
    return Ending("invalid", 1008, None, message)


def too_long(limit: int) -> Ending:
    """Return the end of a socket whose page has sent a frame that is too long."""
    return Ending("invalid", 1009, None, f"the frame is longer than {limit} bytes")


@attrs.define(eq=False)
class Socket:
    """One WebSocket that was accepted."""

    shared: Shared
    connection: Connection
    subscriber: Subscriber
    _receive: Receive = attrs.field(repr=False)
    _send_message: Send = attrs.field(repr=False)
    _sending: trio.Lock = attrs.field(factory=trio.Lock)
    _rate: Rate = attrs.field(
        default=attrs.Factory(lambda self: Rate(self.shared.policy.frames_per_second, self.shared.policy.frame_burst), takes_self=True)
    )
    _reading: trio.Lock = attrs.field(factory=trio.Lock)
    """Held from reading a history to the end of sending it: a socket has one long reply at a time in memory."""
    is_gone: bool = False
    """Whether the page has disconnected."""
    is_visible: bool = True
    present: set[str] = attrs.field(factory=set)
    """The conversations that the page keeps its viewer present in."""
    _tellers: dict[str, trio.CancelScope] = attrs.field(factory=dict)
    """By presence topic: the task that tells of its changes."""

    async def run(self) -> None:
        """Serve the page until it has gone, or the connection is ended.

        Cancellation: the commands that were received are cancelled.
        """
        try:
            with self.connection.scope:
                await self._run()
        except Exception:
            # The boundary of a socket: a defect, in an event of the host's own say, ends this socket, and its page is told so.
            log.exception("a socket of the web bridge failed")
            self.connection.end(DEFECT)

    async def _run(self) -> None:
        async with trio.open_nursery() as commands, trio.open_nursery() as nursery:
            lanes = Lanes(commands)
            nursery.start_soon(self._tell_events)
            nursery.start_soon(self._ping)
            await self.send({"op": "welcome", "protocol": PROTOCOL, **self._welcome()})
            await self._read_frames(nursery, lanes)
            self.is_gone = True
            nursery.cancel_scope.cancel()
            commands.cancel_scope.deadline = trio.current_time() + self.shared.policy.command_grace

    def _welcome(self) -> JSON:
        visitor = self.connection.visitor
        currency = self.shared.texts.prices.shown
        known = {} if currency is None else {"currency": currency}
        return {"viewer": visitor.viewer, "may_debug": visitor.may_debug, **self.shared.policy.shown(), **known}

    async def finish(self) -> None:
        """Say why the connection was ended, and close it. Does nothing if the page has gone.

        Cancellation: nothing may have been said.
        """
        ending = self.connection.ending
        if self.is_gone or ending is None:
            return
        with trio.move_on_after(END_TIMEOUT), contextlib.suppress(OSError):
            if ending is not SLOW:
                await self._send_text(dumps({"op": "bye", **ending.to_dict()}))
            await self._send_message({"type": "websocket.close", "code": ending.code, "reason": ending.reason})

    # ── out

    async def send(self, frame: JSON) -> None:
        """Send a frame. Ends the connection if the page does not read, or has gone.

        Cancellation: the frame may have been sent.
        """
        await self._send_in_time(dumps(frame))

    async def _send_in_time(self, text: str) -> None:
        if self.is_gone:
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(self.shared.policy.send_timeout) as scope:
            await self._send_text(text)
        if scope.cancelled_caught:
            self.connection.end(SLOW)
            await trio.lowlevel.checkpoint()

    async def _send_text(self, text: str) -> None:
        async with self._sending:
            try:
                await self._send_message({"type": "websocket.send", "text": text})
            except OSError:  # what a server raises that says that the page has gone
                self.is_gone = True

    async def _tell_events(self) -> None:
        try:
            async for batch in self.subscriber.batches():
                self.show_presence()
                events = ",".join(map(self.shared.texts.text, batch))
                await self._send_in_time(f'{{"op":"events","events":[{events}]}}')
                await self.shared.connections.pause()
        except SessionsClosed:
            self.connection.end(Ending("shutdown", 1012, self.shared.policy.retry_after))

    async def _ping(self) -> None:
        while True:
            await trio.sleep(self.shared.policy.ping_interval)
            self.show_presence()
            await self.send({"op": "ping"})

    # ── in

    async def _read_frames(self, nursery: trio.Nursery, lanes: Lanes) -> None:
        """Carry out what the page sends, until it has gone."""
        policy = self.shared.policy
        while True:
            message: Message | None = None
            with trio.move_on_after(policy.idle_timeout):
                message = await self._receive()
            if message is None:
                self.connection.end(IDLE)
                await trio.lowlevel.checkpoint()
                continue
            if message["type"] == "websocket.disconnect":
                return
            cost = 1 + len(message.get("text") or message.get("bytes") or "") // COUNTED_AS_ONE
            ending = self._take(message, nursery, lanes) if self._rate.allows(trio.current_time(), cost) else RATE
            if ending is not None:
                self.connection.end(ending)
            # A page that always has a frame ready must not keep the others waiting. And nothing is carried out of a connection that
            # was ended: what was revoked is revoked.
            await trio.lowlevel.checkpoint()

    def _take(self, message: Message, nursery: trio.Nursery, lanes: Lanes) -> Ending | None:
        """Have one frame carried out; return why the socket has to end, if it has to."""
        text, limit = message.get("text"), self.shared.policy.max_frame_bytes
        if not isinstance(text, str):
            return malformed("the frame is not a text")
        if len(text) > limit or (not text.isascii() and len(text.encode("utf-8", "surrogatepass")) > limit):
            return too_long(limit)
        try:
            frame = loads(text)
        except ValueError as exc:
            return malformed(f"the frame is not a JSON object: {exc}"[:200])
        if frame.get("op") == "pong":
            return None
        reply_id = command_id(frame)
        if reply_id is None:
            return malformed("the frame has no id of 1 to 64 printable ASCII characters")
        try:
            command: Command | ErrorInfo = command_of(frame)
        except Invalid as exc:
            command = invalid(str(exc))
        if len(lanes) >= self.shared.policy.commands_per_socket:
            # Said in the place of the command, so that what is waiting stays bounded.
            command = too_many("too many commands are waiting for their replies")
            if len(lanes) >= 2 * self.shared.policy.commands_per_socket:
                return RATE
        named = frame.get("conversation_id")
        lane = None if isinstance(command, CancelTurn | ErrorInfo) else named if isinstance(named, str) else ""
        lanes.submit(lane, functools.partial(self._reply, reply_id, command, nursery))
        return None

    async def _reply(self, reply_id: str, command: Command | ErrorInfo, nursery: trio.Nursery) -> None:
        async with self._reading if isinstance(command, ReadHistory) else contextlib.nullcontext():
            await self._send_reply(reply_id, command, nursery)

    async def _send_reply(self, reply_id: str, command: Command | ErrorInfo, nursery: trio.Nursery) -> None:
        if isinstance(command, ErrorInfo):
            outcome: Done | ErrorInfo = command
        else:
            outcome = await attempt(functools.partial(self._carry_out, command, nursery), type(command).__name__)
        if isinstance(outcome, Done):
            await self.send({"op": "reply", "id": reply_id, "ok": True, "result": outcome.result})
        else:
            await self.send({"op": "reply", "id": reply_id, "ok": False, "error": outcome.to_dict()})

    async def _carry_out(self, command: Command, nursery: trio.Nursery) -> JSON:
        match command:
            case Subscribe():
                return await self._subscribe(command, nursery)
            case Unsubscribe(conversation_id, channel):
                await self.subscriber.unsubscribe(conversation_id, channel=channel)
                if channel == "main" and (teller := self._tellers.pop(conversation_topic(conversation_id), None)) is not None:
                    teller.cancel()
                self.show_presence()
                return {}
            case SetVisible(visible):
                self.is_visible = visible
                self.show_presence()
                await trio.lowlevel.checkpoint()
                return {}
            case Ping() | Pong():
                await trio.lowlevel.checkpoint()
                return {}
            case ListAgents(watch=True):
                self._start_telling(AGENTS_TOPIC, nursery, self._agents_frame)
                return await carry_out(self.shared.sessions, self.connection.visitor, command)
            case _:
                return await carry_out(self.shared.sessions, self.connection.visitor, command)

    async def _subscribe(self, command: Subscribe, nursery: trio.Nursery) -> JSON:
        conversation_id, channel = command.conversation_id, command.channel
        key: tuple[str, Channel] = (conversation_id, channel)
        if channel == "debug" and not self.connection.visitor.may_debug:
            raise ConversationNotFound(conversation_id)
        known = self.subscriber.subscriptions
        if key not in known and len(known) >= self.shared.policy.subscriptions_per_socket:
            raise TooMany("the socket has too many subscriptions; unsubscribe from some, or open another socket")
        if command.start:
            await self.shared.sessions.ensure_running(conversation_id, self.subscriber, after=command.after)
        else:
            await self.subscriber.subscribe(conversation_id, channel=channel, after=command.after)
        self.show_presence()
        if channel == "main":
            frame = functools.partial(self._viewers_frame, conversation_id)
            self._start_telling(conversation_topic(conversation_id), nursery, frame)
        return {"state": self.subscriber.subscriptions.get(key, "pending")}

    # ── presence

    def show_presence(self) -> None:
        """Have the viewer present where the page shows a conversation that it may see, and nowhere else."""
        viewer, viewers = self.connection.visitor.viewer, self.shared.viewers
        watched = {
            conversation_id
            for (conversation_id, channel), state in self.subscriber.subscriptions.items()
            if channel == "main" and state == "subscribed" and self.is_visible
        }
        for conversation_id in watched - self.present:
            viewers.enter(viewer, conversation_id)
        for conversation_id in self.present - watched:
            viewers.leave(viewer, conversation_id)
        self.present.clear()
        self.present.update(watched)

    def _start_telling(self, topic: str, nursery: trio.Nursery, frame: Callable[[], Awaitable[JSON | None]]) -> None:
        if topic not in self._tellers:
            scope = self._tellers[topic] = trio.CancelScope()
            nursery.start_soon(self._tell_changes, topic, scope, frame)

    async def _tell_changes(self, topic: str, scope: trio.CancelScope, frame: Callable[[], Awaitable[JSON | None]]) -> None:
        """Send a frame whenever a presence topic has changed, and when it is new."""
        told: JSON | None = None
        with scope:
            async with self.shared.sessions.presence.changes(topic) as changes:
                while True:
                    present = await frame()
                    if present is not None and present != told:
                        told = present
                        await self.send(present)
                    await trio.sleep(TELL_INTERVAL)
                    await anext(changes)

    async def _viewers_frame(self, conversation_id: str) -> Mapping[str, Scope] | None:
        state = self.subscriber.subscriptions.get((conversation_id, "main"))
        viewers = await self.shared.sessions.presence.list(conversation_topic(conversation_id))
        if state != "subscribed":  # the scope may not see it, or no agent is up
            return None
        return {"op": "viewers", "conversation_id": conversation_id, "viewers": sorted(viewers)}

    async def _agents_frame(self) -> Mapping[str, Scope] | None:
        command = ListAgents(watch=True)
        found = await attempt(functools.partial(carry_out, self.shared.sessions, self.connection.visitor, command), "agents")
        return {"op": "agents", **found.result} if isinstance(found, Done) else None
