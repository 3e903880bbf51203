"""Presence, disconnects and shutdown: leaving is not stopping, and nothing is left behind."""

import contextlib
import faulthandler
import logging
import random
from typing import Any

import pytest
import trio

from tests.apps.web._client import ORIGIN, Ended
from tests.apps.web._kit import World, as_user, open_world
from tests.support.scenarios import make_agent, slow_agent
from trio_sagents import SessionPolicy
from trio_sagents.web import Visitor, WebPolicy

ALICE = as_user("alice")
STREAM = {**ALICE, "origin": ORIGIN}


def viewers_of(socket: Any) -> list[list[str]]:
    """Return what a page was told of who watches, in order."""
    return [frame["viewers"] for frame in socket.frames if frame["op"] == "viewers"]


async def test_presence_of_two_tabs(autojump_clock: Any) -> None:
    """Two tabs of one person are one viewer, until the last one has gone and the grace is over."""
    async with open_world(visitors={"alice": "alice", "friend": Visitor("alice", "friend")}) as world:
        async with world.client.socket(headers=as_user("friend")) as other:
            await other.result(op="subscribe", conversation_id="42")
            begun = trio.current_time()
            async with world.client.socket(headers=ALICE) as one:
                await one.result(op="subscribe", conversation_id="42")
                async with world.client.socket(headers=ALICE) as two:
                    await two.result(op="subscribe", conversation_id="42")
                    await trio.sleep(5)
                    assert {"friend": [{}], "alice": [{}]} == await world.present()
                    one.disconnect()
                    await trio.sleep(5)
                    assert {"friend": [{}], "alice": [{}]} == await world.present()
                    assert ["alice", "friend"] == viewers_of(other)[-1]
                    begun = trio.current_time()
            assert 3.0 == trio.current_time() - begun
            assert {"friend": [{}]} == await world.present()
            await trio.sleep(2)
            assert ["friend"] == viewers_of(other)[-1]
        assert {} == await world.present()
        assert (0, 0, 0) == world.left


async def test_presence_when_the_page_is_reloaded(autojump_clock: Any) -> None:
    """A page that comes back within the grace was never away: the others are told nothing, and the agent stays."""
    visitors = {"alice": "alice", "friend": Visitor("alice", "friend")}
    async with open_world(visitors=visitors, policy_of_sessions=SessionPolicy(viewer_grace=0)) as world:
        async with contextlib.AsyncExitStack() as pages:
            first = await pages.enter_async_context(world.client.socket(headers=as_user("friend")))
            await first.result(op="subscribe", conversation_id="42")
            begun = (await world.sessions.agent_info("42", scope="alice")).started_at
            for _ in range(5):
                page = await pages.enter_async_context(world.client.socket(headers=ALICE))
                await page.result(op="subscribe", conversation_id="42")
                await trio.sleep(2)
                page.disconnect()
                first.disconnect()
                await trio.sleep(2)
                assert ["alice"] == [name for name in await world.present() if name == "alice"]
            assert begun == (await world.sessions.agent_info("42", scope="alice")).started_at
        assert {} == await world.present()
        await trio.sleep(1)
        assert not await world.sessions.running("42", scope="alice")
        assert (0, 0, 0) == world.left


async def test_presence_of_a_hidden_tab(autojump_clock: Any) -> None:
    """A hidden tab gets the events, and does not keep the agent up; when it is looked at, it does."""
    async with open_world() as world, world.client.socket(headers=ALICE) as socket:
        await socket.result(op="subscribe", conversation_id="42")
        await socket.result(op="visible", visible=False)
        assert {} == await world.present()
        await socket.result(op="post", conversation_id="42", message_id="m-1", text="Hello")
        await trio.sleep(10)
        assert "re: Hello" in [event["row"]["content"]["text"] for event in socket.events if event["type"] == "DisplayMessageSaved"]
        assert not await world.sessions.running("42", scope="alice")
        await socket.result(op="visible", visible=True)
        assert {} == await world.present()  # there is no agent whose viewer the page could be
        await socket.result(op="post", conversation_id="42", message_id="m-2", text="Hello")
        await trio.sleep(30)
        assert {"alice": [{}]} == await world.present()
        assert await world.sessions.running("42", scope="alice")


async def test_presence_of_an_event_stream(autojump_clock: Any) -> None:
    """An event stream keeps its viewer present, unless it says that nobody looks."""
    async with open_world() as world:
        async with world.client.stream("/conversations/42/events?visible=0", STREAM):
            assert {} == await world.present()
        async with world.client.stream("/conversations/42/events", STREAM):
            assert {"alice": [{}]} == await world.present()
        assert {} == await world.present()
        for wrong in ("visible=maybe", "channel=none", "after=nonsense"):
            assert 400 == (await world.client.get(f"/conversations/42/events?{wrong}", STREAM)).status


@pytest.mark.parametrize("way", ["socket", "stream", "post"])
async def test_turn_when_the_page_goes(autojump_clock: Any, way: str) -> None:
    """A disconnect never cancels a turn."""
    async with open_world(slow_agent("x" * 100, seconds=60)) as world:
        if way == "socket":
            async with world.client.socket(headers=ALICE) as socket:
                await socket.result(op="subscribe", conversation_id="42")
                await socket.result(op="post", conversation_id="42", message_id="m-1", text="Hello")
                await trio.sleep(5)
        elif way == "stream":
            async with world.client.stream("/conversations/42/events", STREAM):
                await world.sessions.post("42", "Hello", scope="alice")
                await trio.sleep(5)
        else:
            await world.post("/conversations/42/messages", {"message_id": "m-1", "text": "Hello"})
        assert (0, 0, 0) == world.left
        await trio.sleep(100)

        assert ["Hello", "x" * 100] == await world.texts()


async def test_command_when_the_page_goes(autojump_clock: Any) -> None:
    """What a page has sent is carried out although it has gone at once, within the grace; and no longer."""

    class Slow:
        async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
            await trio.sleep({"soon": 3, "late": 30}.get(conversation_id, 0) if action == "post" else 0)
            return True

    async with open_world(authorizer=Slow()) as world:
        async with world.client.socket(headers=ALICE) as socket:
            for name in ("soon", "late"):
                socket.send(op="post", conversation_id=name, message_id="m-1", text="Hello")
            begun = trio.current_time()
            socket.disconnect()
        assert 5.0 == trio.current_time() - begun
        await trio.sleep(60)
        assert ["soon"] == [item.conversation_id for item in (await world.sessions.conversations(scope="alice")).items]


async def test_shutdown(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Streams end at once with "come back", requests that are being answered get their answer, new ones are refused, the turn goes on."""
    caplog.set_level(logging.INFO, "trio_sagents.web")
    async with open_world(slow_agent("x" * 100, seconds=20)) as world:
        async with (
            world.client.socket(headers=ALICE) as socket,
            world.client.stream("/conversations/42/events", STREAM) as stream,
        ):
            await socket.result(op="subscribe", conversation_id="42")
            await socket.result(op="post", conversation_id="42", message_id="m-1", text="Hello")
            await trio.sleep(1)
            begun = trio.current_time()
            await world.bridge.aclose()
            assert trio.current_time() - begun < 1
            assert {"op": "bye", "reason": "shutdown", "retry_after": 1.0} == await socket.until("bye")
            with pytest.raises(Ended):
                await socket.next()
            assert 1012 == socket.code
            last: Any = {}
            while (event := await stream.event()) is not None:
                last = event
            assert ("bye", "1000", '{"reason":"shutdown","retry_after":1.0}') == (last["event"], last["retry"], last["data"])
            assert stream.is_whole
        assert trio.current_time() - begun < 1  # there was no grace to wait for
        assert (0, 0, 0) == world.left
        refused = await world.client.get("/conversations/42/history", ALICE)
        assert (503, "SessionsClosed", "1") == (refused.status, refused.error, refused.headers["retry-after"])
        async with world.client.socket(headers=ALICE) as late:
            assert 503 == late.status
        await world.bridge.aclose()
        await trio.sleep(60)
        assert ["Hello", "x" * 100] == await world.texts()
    assert "'42'" in caplog.text


async def test_shutdown_when_a_request_is_being_answered(autojump_clock: Any) -> None:
    """A request that had come before the shutdown gets its answer."""

    class Slow:
        async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
            await trio.sleep(1)
            return True

    async with open_world(authorizer=Slow()) as world, trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await world.post("/conversations/42/messages", {"message_id": "m-1", "text": "Hello"}))

        nursery.start_soon(ask)
        await trio.sleep(0.5)
        await world.bridge.aclose()
        await trio.sleep(5)

        assert [200] == [answer.status for answer in answers]


async def test_shutdown_when_a_page_does_not_read(autojump_clock: Any) -> None:
    """A page that does not read delays a shutdown by no more than `close_timeout`."""
    async with open_world(policy=WebPolicy(send_timeout=1000)) as world, world.client.socket(headers=ALICE) as socket:
        await socket.result(op="subscribe", conversation_id="42")
        socket.reads = False
        await (await world.sessions.post("42", "Hello", scope="alice")).wait()
        begun = trio.current_time()
        await world.bridge.aclose()

        assert trio.current_time() - begun <= 2


async def test_sessions_when_they_close_first(autojump_clock: Any) -> None:
    """Pages whose sessions are closed are told to come back, too."""
    async with trio.open_nursery() as nursery:
        async with open_world() as world:
            client = world.client
            client.nursery = nursery
            opened = client.socket(headers=ALICE)
            socket = await opened.__aenter__()
            await socket.result(op="subscribe", conversation_id="42")
        assert "shutdown" == (await socket.until("bye"))["reason"]
        await opened.__aexit__(None, None, None)
        async with client.socket(headers=ALICE) as late:
            assert 503 == late.status


async def test_lifespan(autojump_clock: Any) -> None:
    """A server that asks is told when the bridge has started and stopped."""
    async with open_world() as world:
        sent: list[str] = []
        messages = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}]

        async def receive() -> Any:
            await trio.lowlevel.checkpoint()
            return messages.pop()

        async def send(message: Any) -> None:
            await trio.lowlevel.checkpoint()
            sent.append(message["type"])

        await world.bridge({"type": "lifespan"}, receive, send)
        assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == sent
        assert 503 == (await world.client.get("/session", ALICE)).status
        with pytest.raises(ValueError, match="cannot serve"):
            await world.bridge({"type": "telegram"}, receive, send)


async def _abort(world: World, moments: random.Random) -> None:
    """Connect, do something or nothing, and go."""
    if moments.random() < 0.3:
        async with world.client.stream(f"/conversations/c{moments.randrange(5)}/events", STREAM):
            await trio.sleep(moments.choice([0, 0, 0.1]))
        return
    async with world.client.socket(headers=ALICE) as socket:
        for _ in range(moments.randrange(4)):
            name = f"c{moments.randrange(5)}"
            socket.send(
                **moments.choice(
                    [
                        {"op": "subscribe", "conversation_id": name},
                        {"op": "unsubscribe", "conversation_id": name},
                        {"op": "post", "conversation_id": name, "message_id": f"m-{moments.random()}", "text": "x"},
                        {"op": "agents", "watch": True},
                        {"op": "visible", "visible": moments.random() < 0.5},
                    ]
                )
            )
            await trio.sleep(moments.choice([0, 0, 0.1]))


@pytest.mark.slow
async def test_connects_and_aborts(autojump_clock: Any) -> None:
    """After 1,000 connects and aborts, 50 at a time, no task, connection, subscription or presence entry is left."""
    faulthandler.dump_traceback_later(120, exit=True)
    moments = random.Random(7)
    async with open_world(make_agent(), policy=WebPolicy(event_interval=0, connections_per_scope=1000)) as world:
        tasks = trio.lowlevel.current_statistics().tasks_living
        limiter = trio.CapacityLimiter(50)

        async def visit() -> None:
            async with limiter:
                await _abort(world, moments)

        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(visit)
        assert (0, 0, 0) == world.left
        assert {} == {name: await world.present(name) for name in map("c{}".format, range(5)) if await world.present(name)}
        for info in await world.sessions.list_running(scope="alice"):
            await world.sessions.stop(info.conversation_id, scope="alice")
        assert tasks == trio.lowlevel.current_statistics().tasks_living
