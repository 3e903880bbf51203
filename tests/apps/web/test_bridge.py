"""What a page says to the bridge, and what it is told: each frame of the protocol once."""

import contextlib
import datetime
import json
from typing import Any

import attrs
import pytest
import trio

from tests.apps.web._client import ORIGIN, Ended
from tests.apps.web._kit import Page, as_user, debugging, open_world
from tests.support.middleware import StrictModel
from tests.support.people import Effects, gated, scripted
from tests.support.scenarios import make_agent, slow_agent
from trio_sagents import Agent, AskUser, Halt, Middleware, MiddlewareEvent, SubAgents, Task, TodoList, Usage
from trio_sagents.testing import Call
from trio_sagents.web import WebPolicy

ALICE = as_user("alice")


async def stop(amount: int) -> Halt:
    """Stop all."""
    return Halt(f"reactor {amount} is hot")


async def test_socket_when_a_message_is_posted(autojump_clock: Any) -> None:
    """A page subscribes, posts, and sees the answer: the text of its deltas is that of the rows, and of the store."""
    async with open_world() as world, world.client.socket(headers=ALICE) as socket:
        assert {"op": "welcome", "protocol": 1, "viewer": "alice", "may_debug": False} == {
            name: value for name, value in (await socket.next()).items() if name not in {"ping_interval", "max_frame_bytes"}
        }
        assert {"state": "subscribed"} == await socket.result(op="subscribe", conversation_id="42")
        assert {"message_id": "m-1", "duplicate": False} == await socket.result(
            op="post", conversation_id="42", message_id="m-1", text="Hello"
        )
        await trio.sleep(1)
        page = Page()
        for envelope in socket.envelopes:
            page.take(envelope)

        assert ["Hello", "re: Hello"] == page.texts == await world.texts()
        assert {"message_id": "m-1", "duplicate": True} == await socket.result(
            op="post", conversation_id="42", message_id="m-1", text="Hello"
        )
        assert "MessageConflict" == await socket.error(op="post", conversation_id="42", message_id="m-1", text="Bye")
        assert ["Hello", "re: Hello"] == await world.texts()


async def test_events_when_many_happen_at_once(autojump_clock: Any) -> None:
    """What happens between two frames is in one frame: as many frames as wake-ups, and not as tokens."""
    counts = []
    for interval in (0.0, 0.1):
        agent, policy = slow_agent("x" * 1000, seconds=1.0), WebPolicy(event_interval=interval)
        async with open_world(agent, policy=policy) as world, world.client.socket(headers=ALICE) as socket:
            await socket.result(op="subscribe", conversation_id="42")
            await socket.result(op="post", conversation_id="42", message_id="m-1", text="Hello")
            await trio.sleep(3)
            counts.append(sum(frame["op"] == "events" for frame in socket.frames))

    assert counts[0] > 500
    assert counts[1] < 20


async def test_many_conversations_on_one_socket(autojump_clock: Any) -> None:
    """One socket carries any number of conversations, and each event says whose it is."""
    names = [f"c{number}" for number in range(20)]
    async with open_world() as world, world.client.socket(headers=ALICE) as socket:
        for name in names:
            await socket.result(op="subscribe", conversation_id=name)
            socket.send(op="post", conversation_id=name, message_id="m", text=name)
        await trio.sleep(1)
        pages = {name: Page(name) for name in names}
        for envelope in socket.envelopes:
            pages[envelope["conversation_id"]].take(envelope)

        assert {name: [name, f"re: {name}"] for name in names} == {name: page.texts for name, page in pages.items()}
        await socket.result(op="unsubscribe", conversation_id="c0")
        seen = len(socket.frames)
        await socket.result(op="post", conversation_id="c0", message_id="n", text="more")
        await trio.sleep(1)
        assert [] == [frame for frame in socket.frames[seen:] if frame["op"] == "events"]


async def test_commands_when_sent_at_once(autojump_clock: Any) -> None:
    """Commands for one conversation are carried out in the order of their frames."""
    async with open_world() as world, world.client.socket(headers=ALICE) as socket:
        for number in range(20):
            socket.send(op="post", conversation_id="42", message_id=f"m-{number}", text=str(number))
        await trio.sleep(10)

        said = [text for text in await world.texts() if not text.startswith("re:")]
        assert [str(number) for number in range(20)] == said


async def test_cancel_when_the_turn_is_named(autojump_clock: Any) -> None:
    """Stop cuts the turn that it names. A late Stop cannot hit the next turn."""
    async with open_world(slow_agent()) as world, world.client.socket(headers=ALICE) as socket:
        await socket.result(op="subscribe", conversation_id="42")
        for number in (1, 2):
            await socket.result(op="post", conversation_id="42", message_id=f"m-{number}", text="Hello")
            await trio.sleep(5)
            turns = [event["turn_id"] for event in socket.events if event["type"] == "TurnStarted"]
            cut = await socket.result(op="cancel", conversation_id="42", turn_id=turns[0])
            assert number == len(turns)
            assert {"outcome": {"type": "Cancelled", "cause": "user"} if number == 1 else None} == cut
        assert 1 == world.sessions.statistics().running


async def test_cancel_when_another_command_waits(autojump_clock: Any) -> None:
    """`cancel` does not wait for the commands before it, which may take long."""

    class Slow:
        async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
            await trio.sleep(20 if action == "post" else 0)
            return True

    async with open_world(authorizer=Slow()) as world, world.client.socket(headers=ALICE) as socket:
        await socket.result(op="subscribe", conversation_id="42")
        socket.send(op="post", conversation_id="42", message_id="m-1", text="Hello")
        with trio.fail_after(5):
            assert {"outcome": None} == await socket.result(op="cancel", conversation_id="42", turn_id="t-1")


async def test_resume_when_it_is_retried(autojump_clock: Any) -> None:
    """A decision that is sent twice is recorded once, and the call runs once; another decision is refused."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with open_world(agent) as world, world.client.socket(headers=ALICE) as socket:
        page = Page()
        await socket.result(op="subscribe", conversation_id="42")
        await socket.result(op="post", conversation_id="42", message_id="m-1", text="Pay")
        await trio.sleep(1)
        waiting = (await socket.result(op="waiting"))["items"]
        for envelope in socket.envelopes:
            page.take(envelope)
        (call,) = page.interrupt["calls"]
        assert [page.interrupt] == [item["interrupt"] for item in waiting]
        decision = {"type": "approve", **{name: call[name] for name in ("interrupt_id", "call_id", "digest")}}
        first = await socket.result(op="resume", conversation_id="42", decisions=[decision])
        again = await socket.result(op="resume", conversation_id="42", decisions=[decision])
        await trio.sleep(1)

        assert [False, True] == [first["duplicate"], again["duplicate"]]
        assert [1] == effects.of("pay")
        assert "AlreadyDecided" == await socket.error(
            op="resume", conversation_id="42", decisions=[{**decision, "type": "reject", "reason": "no"}]
        )
        assert "InvalidDecision" == await socket.error(op="resume", conversation_id="42", decisions=[{**decision, "digest": "0" * 64}])


async def test_dismiss_when_it_is_retried(autojump_clock: Any) -> None:
    """A halt that is acknowledged twice is acknowledged once, and the next halt waits for its own."""
    agent = scripted(Call("stop", amount=1), Call("stop", amount=2), "done", tools=[stop])
    async with open_world(agent) as world, world.client.socket(headers=ALICE) as socket:
        ids = []
        for message_id in ("m-1", "m-2"):
            await socket.result(op="post", conversation_id="42", message_id=message_id, text="Go")
            await trio.sleep(1)
            (item,) = (await socket.result(op="waiting"))["items"]
            ids.append(item["interrupt"]["interrupt_id"])
            assert {} == await socket.result(op="dismiss", conversation_id="42", interrupt_id=ids[0])

        assert 2 == len(set(ids))
        assert [ids[1]] == [item["interrupt"]["interrupt_id"] for item in (await socket.result(op="waiting"))["items"]]
        assert "NotInterrupted" == await socket.error(op="dismiss", conversation_id="42", interrupt_id="another")


async def test_lists_when_they_have_pages(autojump_clock: Any) -> None:
    """History, conversations, agents: paged, of this scope alone, the same by a socket and by GET."""
    async with open_world() as world, world.client.socket(headers=ALICE) as socket:
        for number in range(3):
            await (await world.sessions.post("42", str(number), scope="alice")).wait()
        await (await world.sessions.post("43", "x", scope="alice")).wait()
        await (await world.sessions.post("99", "secret", scope="bob")).wait()
        newest = await socket.result(op="history", conversation_id="42", limit=4)
        older = await socket.result(op="history", conversation_id="42", limit=4, before=newest["before"])

        assert ["0", "re: 0", "1", "re: 1", "2", "re: 2"] == [row["content"]["text"] for row in older["rows"] + newest["rows"]]
        assert older["before"] is None
        assert newest == (await world.client.get("/conversations/42/history?limit=4", ALICE)).json
        assert older == (await world.client.get(f"/conversations/42/history?limit=4&before={newest['before']}", ALICE)).json
        first = await socket.result(op="conversations", limit=1)
        second = await socket.result(op="conversations", limit=1, after=first["after"])
        assert ["43", "42"] == [item["conversation_id"] for item in first["items"] + second["items"]]
        assert first == (await world.client.get("/conversations?limit=1", ALICE)).json
        agents = await socket.result(op="agents")
        assert {"42", "43"} == {agent["conversation_id"] for agent in agents["agents"]}
        assert [set(agent) for agent in agents["agents"]] == [
            set(agent) for agent in (await world.client.get("/agents", ALICE)).json["agents"]
        ]
        assert {"items": [], "after": None} == (await world.client.get("/waiting", ALICE)).json == await socket.result(op="waiting")
        for wrong in ("before=nonsense", "limit=0", "limit=1001", "limit=x"):
            assert 400 == (await world.client.get(f"/conversations/42/history?{wrong}", ALICE)).status
        datetime.datetime.fromisoformat(first["items"][0]["updated_at"])


async def test_post_by_http(autojump_clock: Any) -> None:
    """The commands by POST: a retry does nothing twice, and errors have their status."""
    async with open_world() as world:
        for duplicate in (False, True):
            answer = await world.post("/conversations/42/messages", {"message_id": "m-1", "text": "Hello"})
            assert (200, {"message_id": "m-1", "duplicate": duplicate}) == (answer.status, answer.json)
        assert "application/json" == answer.headers["content-type"]
        conflict = await world.post("/conversations/42/messages", {"message_id": "m-1", "text": "Bye"})
        assert (409, "MessageConflict") == (conflict.status, conflict.error)
        stopped = await world.post("/conversations/42/cancel", {"turn_id": "t-1"})
        assert (200, {"outcome": None}) == (stopped.status, stopped.json)
        dismissed = await world.post("/conversations/42/dismiss", {"interrupt_id": "i"})
        assert (409, "NotInterrupted") == (dismissed.status, dismissed.error)
        resumed = await world.post("/conversations/42/resume", {"decisions": []})
        assert (400, "Invalid") == (resumed.status, resumed.error)
        missing = await world.client.get("/conversations/none/history", ALICE)
        assert (404, "ConversationNotFound") == (missing.status, missing.error)
        strange = await world.post("/conversations/a%2Fb%20%C3%A4/messages", {"message_id": "m-1", "text": "Hello"})
        assert 200 == strange.status
        assert "a/b ä" in [item["conversation_id"] for item in (await world.client.get("/conversations", ALICE)).json["items"]]


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("messages", {"text": "x"}),
        ("messages", {"message_id": 7, "text": "x"}),
        ("messages", {"message_id": "m", "text": 7}),
        ("messages", {"message_id": "m", "text": ""}),
        ("messages", {"message_id": "m", "text": "x", "overlap": "maybe"}),
        ("messages", {"message_id": "m", "parts": [{"type": "tool_call"}]}),
        ("messages", {"message_id": "m", "parts": "x"}),
        ("messages", {"message_id": "\ud800", "text": "x"}),
        ("cancel", {}),
        ("dismiss", {}),
        ("resume", {"decisions": [{"type": "approve"}]}),
        ("resume", {"decisions": "all"}),
    ],
)
async def test_command_when_it_is_wrong(autojump_clock: Any, path: str, data: Any) -> None:
    """A member that is missing or wrong is a 400 that says which, and nothing is done."""
    async with open_world() as world:
        answer = await world.post(f"/conversations/42/{path}", data)

        assert (400, "Invalid") == (answer.status, answer.error)
        assert 0 == world.sessions.statistics().agents


async def test_parts_when_a_file_is_attached(autojump_clock: Any) -> None:
    """A message may have images and files."""
    parts = [
        {"type": "text", "text": "Look"},
        {"type": "image", "media_type": "image/png", "data": "aGk="},
        {"type": "file", "name": "a.txt", "media_type": "text/plain", "data": "aGk="},
    ]
    async with open_world() as world, world.client.socket(headers=ALICE) as socket:
        await socket.result(op="post", conversation_id="42", message_id="m-1", parts=parts)
        rows = (await socket.result(op="history", conversation_id="42"))["rows"]

        assert ["text", "image", "file_reference"] == [row["content_type"] for row in rows[:3]]


async def test_debug_channel(autojump_clock: Any) -> None:
    """The debug channel needs its own permission, and without it looks like a conversation that is missing."""
    async with open_world(make_agent(middleware=[TodoList()]), visitors={"alice": "alice", "root": debugging()}) as world:
        await (await world.sessions.post("42", "x", scope="alice")).wait()
        async with world.client.socket(headers=ALICE) as socket:
            refused = await socket.ask(op="subscribe", conversation_id="42", channel="debug")
            missing = await socket.ask(op="history", conversation_id="none")
            assert refused["error"]["type"] == missing["error"]["type"] == "ConversationNotFound"
            assert "ConversationNotFound" == await socket.error(op="agent", conversation_id="42")
        assert 404 == (await world.client.get("/conversations/42/events?channel=debug", {**ALICE, "origin": ORIGIN})).status
        async with world.client.socket(headers=as_user("root")) as socket:
            assert (await socket.until("welcome"))["may_debug"]
            assert {"state": "subscribed"} == await socket.result(op="subscribe", conversation_id="42", channel="debug")
            agent = (await socket.result(op="agent", conversation_id="42"))["agent"]
            assert ["TodoList"] == list(agent["middleware"])
            await socket.result(op="post", conversation_id="42", message_id="m", text="x")
            await trio.sleep(1)
            assert {"debug"} == {envelope["channel"] for envelope in socket.envelopes}
            assert "AgentStateUpdated" in {event["type"] for event in socket.events}


async def test_agents_when_they_are_watched(autojump_clock: Any) -> None:
    """The list of running agents is told again when it has changed, at most once a second, with agents of this scope alone."""
    async with open_world(inactivity_timeout=30) as world, world.client.socket(headers=ALICE) as socket:
        assert {"agents": []} == await socket.result(op="agents", watch=True)
        for number in range(10):
            await (await world.sessions.post(f"c{number}", "x", scope="alice")).wait()
            await (await world.sessions.post(f"d{number}", "x", scope="bob")).wait()
        await trio.sleep(5)
        told = [frame["agents"] for frame in socket.frames if frame["op"] == "agents"]

        assert [f"c{number}" for number in range(10)] == [agent["conversation_id"] for agent in told[-1]]
        assert len(told) < 6
        await trio.sleep(100)
        assert [] == [frame["agents"] for frame in socket.frames if frame["op"] == "agents"][-1]


async def test_pings(autojump_clock: Any) -> None:
    """The server pings, and answers pings; a page that says nothing is cut, one that answers is not."""
    async with open_world() as world:
        async with world.client.socket(headers=ALICE) as socket:
            assert {} == await socket.result(op="ping")
            await socket.until("ping")
            for _ in range(10):
                socket.send(op="pong")
                await socket.until("ping")
        async with world.client.socket(headers=ALICE) as socket:
            start = trio.current_time()
            assert {"op": "bye", "reason": "idle", "retry_after": 0.0} == await socket.until("bye")
            with pytest.raises(Ended):
                await socket.next()
            assert (4408, 60.0) == (socket.code, trio.current_time() - start)
        assert (0, 0, 0) == world.left


async def test_questions_when_answered(autojump_clock: Any) -> None:
    """A question of the agent is answered through the bridge."""
    ask = Call("ask_user", question="Which?", kind="single", options=[{"value": "a"}, {"value": "b"}])
    async with open_world(scripted(ask, "thanks", middleware=[AskUser()])) as world, world.client.socket(headers=ALICE) as socket:
        await socket.result(op="post", conversation_id="42", message_id="m-1", text="Go")
        await trio.sleep(1)
        (item,) = (await socket.result(op="waiting"))["items"]
        (call,) = item["interrupt"]["calls"]
        named = {name: call[name] for name in ("interrupt_id", "call_id", "digest")}
        await socket.result(op="resume", conversation_id="42", decisions=[{"type": "answer", **named, "value": "b"}])
        await trio.sleep(1)

        assert "thanks" == (await world.texts())[-1]


class Unspeakable:
    """A key of a mapping that cannot be told."""

    def __str__(self) -> str:
        raise RuntimeError("password=hunter2")


@attrs.frozen
class News(MiddlewareEvent):
    """An event of the host's own."""

    what: Any


class Publishes(Middleware):
    """Publishes what it is given, at the end of each turn."""

    def __init__(self, what: Any) -> None:
        self.what = what

    async def after_turn(self, context: Any, outcome: Any) -> None:
        context.publish(News(self.what))


async def test_event_when_it_is_not_json(autojump_clock: Any) -> None:
    """What JSON has not is null or an escape in an event of the host's own: a browser can read every frame."""
    strange = {"inf": float("inf"), "nan": [float("nan")], "half": "\ud800", "deep": {"a": (1, 2)}}
    async with open_world(make_agent(middleware=[Publishes(strange)])) as world, world.client.socket(headers=ALICE) as socket:
        await socket.result(op="subscribe", conversation_id="42")
        await socket.result(op="post", conversation_id="42", message_id="m", text="Hello")
        await trio.sleep(1)
        (news,) = [event for event in socket.events if event["type"] == "News"]

        assert {"inf": None, "nan": [None], "half": "\ud800", "deep": {"a": [1, 2]}} == news["what"]


async def test_event_when_it_cannot_be_told(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A defect in an event of the host's own ends this socket, which is told so, and no other; the log has it."""
    agent = make_agent(middleware=[Publishes({Unspeakable(): 1})])
    async with open_world(agent) as world, world.client.socket(headers=ALICE) as socket, world.client.socket(headers=ALICE) as other:
        await socket.result(op="subscribe", conversation_id="42")
        await socket.result(op="post", conversation_id="42", message_id="m", text="Hello")
        assert {"op": "bye", "reason": "error", "retry_after": 5.0} == await socket.until("bye")
        with pytest.raises(Ended):
            await socket.next()
        assert 1011 == socket.code
        assert {} == await other.result(op="ping")
        assert ["Hello", "re: Hello"] == await world.texts()
    assert "hunter2" in caplog.text
    caplog.clear()


async def test_pages_when_there_are_many(autojump_clock: Any) -> None:
    """Many pages of one answer get fewer frames each, and the whole text: what they cost is bounded."""
    policy = WebPolicy(event_interval=0, event_frames_per_second=100, connections_per_scope=100)
    async with open_world(slow_agent("x" * 1000, seconds=10.0), policy=policy) as world, contextlib.AsyncExitStack() as pages:
        sockets = [await pages.enter_async_context(world.client.socket(headers=ALICE)) for _ in range(50)]
        for socket in sockets:
            await socket.result(op="subscribe", conversation_id="42")
        await world.sessions.post("42", "Hello", scope="alice")
        await trio.sleep(15)
        frames = [sum(frame["op"] == "events" for frame in socket.frames) for socket in sockets]

        assert sum(frames) < 1500
        assert all("x" * 1000 == "".join(event["text"] for event in socket.events if event["type"] == "TextDelta") for socket in sockets)


async def test_page_when_it_is_fetched(autojump_clock: Any) -> None:
    """The page has its type and a policy without `unsafe-inline`; a file that is not there is not found."""
    async with open_world() as world:
        page = await world.client.get("/")
        policy = page.headers["content-security-policy"]

        assert (200, "text/html; charset=utf-8") == (page.status, page.headers["content-type"])
        assert b"<script>" not in page.body
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "ws://localhost:8000" in policy
        assert ("nosniff", "same-origin") == (page.headers["x-content-type-options"], page.headers["cross-origin-opener-policy"])
        again = await world.client.get("/", {"if-none-match": page.headers["etag"]})
        assert (304, b"") == (again.status, again.body)
        assert b"" == (await world.client.request("HEAD", "/")).body
        for path in ("/static/none.js", "/static/../index.html", "/static/%2e%2e/__init__.py", "/none", "/static/", "/index.html"):
            assert 404 == (await world.client.get(path, ALICE)).status, path
        assert 405 == (await world.post("/", {})).status
        mounted = await world.client.get("/chat", root_path="/chat")
        assert (308, "/chat/") == (mounted.status, mounted.headers["location"])
        assert 200 == (await world.client.get("/chat/", root_path="/chat")).status
        assert 200 == (await world.client.get("/chat/session", ALICE, root_path="/chat")).status


async def test_event_stream(autojump_clock: Any) -> None:
    """An event stream has cursors as ids; a comment comes when nothing happens."""
    async with open_world() as world, world.client.stream("/conversations/42/events", {**ALICE, "origin": ORIGIN}) as stream:
        assert (200, "text/event-stream; charset=utf-8") == (stream.status, stream.headers["content-type"])
        await world.sessions.post("42", "Hello", scope="alice")
        page = Page()
        while not (page.status == "idle" and len(page.rows) == 2):
            event = await stream.event()
            envelope = json.loads(event["data"])
            assert envelope["cursor"] == event["id"]
            page.take(envelope)
        assert b": ping\n\n" == await stream.chunk()
        assert {"alice": [{}]} == await world.present()
    assert (0, 0, 0) == world.left


PRICES = {"strict": (1.0, 10.0), "small": (0.5, 5.0)}


@pytest.mark.parametrize("prices", [PRICES, None])
async def test_costs(autojump_clock: Any, prices: Any) -> None:
    """With prices of the host a turn says what it has cost with its sub-agents, and each call to those who may debug."""
    task = Task(name="helper", description="helps", model=StrictModel(["helped"], Usage(2_000_000, 0), "small"))
    model = StrictModel([[Call("task", name="helper", instructions="help")], "ok"], Usage(1_000_000, 100_000), "strict")
    agent = Agent(model=model, middleware=[SubAgents((task,), general_purpose=False)])
    visitors = {"alice": debugging("alice")}
    async with open_world(agent, prices=prices, visitors=visitors) as world, world.client.socket(headers=as_user("alice")) as socket:
        welcome = await socket.next()
        await socket.result(op="subscribe", conversation_id="42")
        await socket.result(op="subscribe", conversation_id="42", channel="debug")
        await (await world.sessions.post("42", "Hi", scope="alice")).wait()
        await trio.sleep(5)
        costs = [(each["event"].get("data", each["event"])["type"], each["cost"]) for each in socket.envelopes if "cost" in each]

        if prices is None:
            assert ([], None) == (costs, welcome.get("currency"))
        else:
            assert "USD" == welcome["currency"]
            assert [("ModelAnswered", 1.0), ("ModelAnswered", 2.0), ("ModelAnswered", 2.0), ("TurnEnded", 5.0)] == sorted(costs)
