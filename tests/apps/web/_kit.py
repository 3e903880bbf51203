"""A bridge over sessions, and a page that follows the three rules of the protocol."""

import datetime
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from tests.apps.web._client import ORIGIN, Client, WebSocket
from tests.support.scenarios import make_agent
from trio_sagents import Agent, SessionConfig, SessionPolicy, Sessions, SingleFactoryRouter, conversation_topic, open_sessions
from trio_sagents.web import Bridge, Visitor, WebPolicy

_NUMBERS: Final = itertools.count(1)
USERS: Final = ("alice", "bob", "eve")


@attrs.define(eq=False)
class World:
    """Sessions, their bridge, and a client of it."""

    sessions: Sessions
    bridge: Bridge
    client: Client
    visitors: dict[str, Any]
    """What `authenticate` returns, by cookie or bearer token."""
    asked: list[Any] = attrs.field(factory=list)
    """The requests that `authenticate` was asked about."""

    async def csrf(self, user: str = "alice") -> str:
        return (await self.client.get("/session", as_user(user))).json["csrf"]

    async def post(self, path: str, data: Any, user: str = "alice", **headers: str) -> Any:
        """POST as a page does."""
        token = await self.csrf(user)
        return await self.client.post(path, data, {**as_user(user), "origin": ORIGIN, "x-csrf-token": token, **headers})

    async def texts(self, conversation_id: str = "42", scope: Any = "alice") -> list[str]:
        """Return the texts of the stored transcript."""
        history = await self.sessions.history(conversation_id, scope=scope, limit=1000)
        return [row.content["text"] for row in history.rows if "text" in row.content]

    async def present(self, conversation_id: str = "42") -> Mapping[str, Any]:
        return await self.sessions.presence.list(conversation_topic(conversation_id))

    @property
    def left(self) -> tuple[int, int, int]:
        """What connections have left behind: connections, presence entries, subscriptions."""
        shared = self.bridge._shared
        return len(shared.connections), len(shared.viewers), self.sessions.statistics().subscriptions


def as_user(user: str) -> dict[str, str]:
    return {"cookie": f"token={user}"}


@asynccontextmanager
async def open_world(
    agent: Agent | None = None,
    *,
    policy: WebPolicy | None = None,
    visitors: Mapping[str, Any] | None = None,
    policy_of_sessions: SessionPolicy | None = None,
    prices: Any = None,
    **settings: Any,
) -> AsyncIterator[World]:
    """Open sessions and a bridge. `policy` has the limits of the bridge; `settings` are those of the `SessionConfig`."""
    if policy_of_sessions is not None:
        settings["policy"] = policy_of_sessions
    config = SessionConfig(**{"factory_router": SingleFactoryRouter(make_agent() if agent is None else agent), **settings})
    known = dict.fromkeys(USERS) if visitors is None else dict(visitors)
    known = {user: user if visitor is None else visitor for user, visitor in known.items()}
    async with open_sessions(config) as sessions, trio.open_nursery() as nursery:
        asked: list[Any] = []

        async def authenticate(request: Any) -> Any:
            asked.append(request)
            await trio.lowlevel.checkpoint()
            return known.get(request.bearer or request.cookies.get("token", ""))

        bridge = Bridge(sessions, authenticate=authenticate, policy=policy or WebPolicy(event_interval=0), prices=prices)
        yield World(sessions, bridge, Client(bridge, nursery), known, asked)
        nursery.cancel_scope.cancel()


def debugging(name: str = "alice", **more: Any) -> Visitor:
    return Visitor(name, name, may_debug=True, **more)


def expiring(seconds: float, name: str = "alice") -> Visitor:
    return Visitor(name, name, expires_at=datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds))


async def _sent(socket: Any, **frame: Any) -> str:
    """Send a frame by a socket in memory or over TCP, and return its id."""
    frame = {"id": f"p{next(_NUMBERS)}", **frame}
    if isinstance(socket, WebSocket):
        return socket.send(**frame)
    await socket.send(**frame)
    return frame["id"]


@attrs.define(eq=False)
class Page:
    """What a page shows of one conversation. It knows the protocol and nothing of the library."""

    conversation_id: str = "42"
    rows: dict[str, Any] = attrs.field(factory=dict)
    streaming: dict[str, list[str]] = attrs.field(factory=dict)
    """By message id: the text of each part."""
    status: str = ""
    interrupt: Any = None
    cursor: str | None = None
    needs_history: bool = False
    snapshots: int = 0
    seen: list[tuple[str, str, int]] = attrs.field(factory=list)
    """(type, incarnation, number) of every event, to find what came twice."""

    def take(self, envelope: Any) -> None:
        """Take an event."""
        event = envelope["event"]
        _, incarnation, _, number = envelope["cursor"].split(".")
        self.cursor = envelope["cursor"]
        if event["type"] not in {"Snapshot", "Gap"}:
            self.seen.append((event["type"], incarnation, int(number)))
        match event["type"]:
            case "Snapshot":
                self.needs_history = True
                self.snapshots += 1
                self.streaming.clear()
                self.status, self.interrupt = event["status"], event["interrupt"]
                if event["streaming"] is not None:
                    self.streaming[event["streaming"]["message_id"]] = [part.get("text", "") for part in event["streaming"]["parts"]]
            case "Gap":
                self.needs_history = True
            case "TextDelta":
                parts = self.streaming.setdefault(event["message_id"], [])
                parts += [""] * (event["part"] + 1 - len(parts))
                assert len(parts[event["part"]]) == event["offset"], "a hole, or a piece that came twice"
                parts[event["part"]] += event["text"]
            case "ModelRetrying" | "ModelFallback":
                self.streaming.pop(event["message_id"], None)
            case "MessageCompleted":
                self.streaming.pop(event["message"]["message_id"], None)
            case "DisplayMessageSaved" | "DisplayMessageUpdated":
                self.put(event["row"])
            case "StatusChanged":
                self.status = event["status"]
                self.interrupt = event["data"] if event["status"] == "interrupted" else None

    def put(self, row: Any) -> None:
        plain = {name: value for name, value in row.items() if name != "type"}
        self.rows[row["row_id"]] = plain

    def read(self, history: Any) -> None:
        """Take the newest rows: they replace what is known, and have the order."""
        newer = {row["row_id"]: row for row in history["rows"]}
        self.rows = {**{row_id: row for row_id, row in self.rows.items() if row_id not in newer}, **newer}
        self.needs_history = False

    @property
    def texts(self) -> list[str]:
        return [row["content"]["text"] for row in self.rows.values() if "text" in row["content"]]

    async def follow(self, socket: Any, *, stop_after: int | None = None, until: str = "idle") -> int:
        """Subscribe on a new socket and take events until the status is `until`, or for so many events. Return how many came."""
        count = 0
        subscribe = await _sent(socket, op="subscribe", conversation_id=self.conversation_id, after=self.cursor)
        history = None
        is_subscribed = False
        while True:
            frame = await socket.next()
            if frame["op"] == "reply" and frame["id"] == subscribe:
                assert frame["ok"], frame
                is_subscribed = self.needs_history = True
            elif frame["op"] == "reply" and frame["id"] == history:
                history = None
                if frame["ok"]:
                    self.read(frame["result"])
                self.needs_history = False
            elif frame["op"] == "ping":
                await _sent(socket, op="pong")
            elif frame["op"] == "events":
                for envelope in frame["events"]:
                    self.take(envelope)
                    count += 1
                    if count == stop_after:
                        return count
            if is_subscribed and self.needs_history and history is None:
                history = await _sent(socket, op="history", conversation_id=self.conversation_id, limit=1000)
                self.needs_history = False
            if is_subscribed and history is None and not self.needs_history and self.status == until and not self.streaming:
                return count
