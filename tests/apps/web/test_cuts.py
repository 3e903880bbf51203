"""Connections that are cut: the text on the page is the stored text, nothing is lost and nothing comes twice."""

import json
import random
from typing import Any

import pytest
import trio

from tests.apps.web._client import ORIGIN
from tests.apps.web._kit import Page, World, as_user, open_world
from tests.support.people import Effects, gated, scripted
from tests.support.scenarios import slow_agent
from trio_sagents import MemoryStore, SessionPolicy
from trio_sagents.testing import Call
from trio_sagents.web import WebPolicy

ALICE = as_user("alice")
STREAM = {**ALICE, "origin": ORIGIN}
QUICK = WebPolicy(event_interval=0, presence_grace=0)
TEXT = "".join(f"{number} bottles of beer; " for number in range(40))


def no_event_twice(page: Page) -> None:
    """Assert that each event came once. A joined delta ends at a number, so numbers are compared."""
    assert len(page.seen) == len(set(page.seen))


async def follow_stream(world: World, page: Page, *, stop_after: int | None, header: bool) -> int:
    """Take events of an event stream, and read the history when the protocol says so."""
    count = 0
    headers = {**STREAM, "last-event-id": page.cursor} if header and page.cursor is not None else STREAM
    query = f"?after={page.cursor}" if not header and page.cursor is not None else ""
    async with world.client.stream(f"/conversations/42/events{query}", headers) as stream:
        page.needs_history = True
        while True:
            if page.needs_history:
                answer = await world.client.get("/conversations/42/history?limit=1000", ALICE)
                page.needs_history = False
                if answer.status == 200:
                    page.read(answer.json)
            elif page.status == "idle" and not page.streaming:
                return count
            else:
                event = await stream.event()
                assert event is not None
                page.take(json.loads(event["data"]))
                count += 1
                if count == stop_after:
                    return count


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("way", ["socket", "stream", "stream by query"])
async def test_cuts_in_one_answer(autojump_clock: Any, way: str, seed: int) -> None:
    """At least 20 cuts in one answer, each after a few events: the page has the stored text, and each event once."""
    moments = random.Random(seed)
    async with open_world(slow_agent(TEXT, seconds=60), policy=QUICK) as world:
        await world.sessions.post("42", "sing", scope="alice", message_id="m-1")
        page, cuts = Page(), 0
        while True:
            most = moments.randint(1, 12)
            if way == "socket":
                async with world.client.socket(headers=ALICE) as socket:
                    count = await page.follow(socket, stop_after=most)
            else:
                count = await follow_stream(world, page, stop_after=most, header=way == "stream")
            if count < most:
                break
            cuts += 1
            await trio.sleep(moments.choice([0, 0, 0.1, 0.5]))

        assert cuts >= 20
        assert 1 == page.snapshots  # every other connection went on behind the last event
        assert ["sing", TEXT] == page.texts == await world.texts()
        no_event_twice(page)


async def test_cut_when_the_page_was_away_for_too_long(autojump_clock: Any) -> None:
    """A page that was away for longer than the events are kept gets a Gap or a Snapshot, and has the stored text, too."""
    policy = SessionPolicy(replay_events=8, subscriber_events=8)
    async with open_world(slow_agent(TEXT, seconds=60), policy_of_sessions=policy) as world:
        await world.sessions.post("42", "sing", scope="alice", message_id="m-1")
        page, gaps = Page(), 0
        for _ in range(30):
            async with world.client.socket(headers=ALICE) as socket:
                await page.follow(socket, stop_after=3)
                gaps += sum(event["type"] in {"Gap", "Snapshot"} for event in socket.events)
            await trio.sleep(1.7)
        async with world.client.socket(headers=ALICE) as socket:
            await page.follow(socket)

        assert gaps > 10
        assert ["sing", TEXT] == page.texts == await world.texts()
        no_event_twice(page)


def paying(effects: Effects) -> Any:
    return scripted(Call("pay", amount=1), "All is paid now.", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])


async def _decide(world: World, page: Page) -> None:
    """Approve what the page shows, as it shows it."""
    (call,) = page.interrupt["calls"]
    decision = {"type": "approve", **{name: call[name] for name in ("interrupt_id", "call_id", "digest")}}
    async with world.client.socket(headers=ALICE) as socket:
        socket.send(op="resume", conversation_id="42", decisions=[decision])  # the answer is lost
    async with world.client.socket(headers=ALICE) as socket:
        await socket.result(op="resume", conversation_id="42", decisions=[decision])


async def test_cut_at_every_event(autojump_clock: Any) -> None:
    """A turn with a tool call and an approval is cut at each of its events, once: every page has the rows of the store."""
    number = 0
    while True:
        number += 1
        effects = Effects()
        async with open_world(paying(effects)) as world:
            page = Page()
            async with world.client.socket(headers=ALICE) as socket:
                socket.send(op="post", conversation_id="42", message_id="m-1", text="Pay")
                came = await page.follow(socket, stop_after=number, until="interrupted")
            is_cut = came == number
            async with world.client.socket(headers=ALICE) as socket:
                await socket.result(op="post", conversation_id="42", message_id="m-1", text="Pay")
                await page.follow(socket, until="interrupted")
            await _decide(world, page)
            async with world.client.socket(headers=ALICE) as socket:
                after = await page.follow(socket, stop_after=number)
            async with world.client.socket(headers=ALICE) as socket:
                await page.follow(socket)
            stored = (await world.client.get("/conversations/42/history?limit=1000", ALICE)).json["rows"]

            assert [1] == effects.of("pay")
            assert stored == [*page.rows.values()]
            assert "All is paid now." == page.texts[-1]
            no_event_twice(page)
        if not is_cut and after < number:
            break
    assert number > 10


@pytest.mark.parametrize("seconds", [5, 20, 50])
async def test_cut_when_the_server_is_restarted(autojump_clock: Any, seconds: float) -> None:
    """The server restarts in the middle of an answer: the page gets "come back", comes back with its cursor, and has the stored text."""
    page, store = Page(), MemoryStore()
    lives = 0
    while True:
        lives += 1
        policy = SessionPolicy(grace_period=0)
        async with open_world(slow_agent(TEXT, seconds=60), store=store, policy_of_sessions=policy) as world:
            async with world.client.socket(headers=ALICE) as socket:
                await socket.result(op="post", conversation_id="42", message_id=f"m-{lives}", text="sing")

                async def restart(world: World = world) -> None:
                    await trio.sleep(seconds)
                    await world.bridge.aclose()

                if lives < 3:
                    world.client.nursery.start_soon(restart)
                    bye = {}
                    socket.send(op="subscribe", conversation_id="42", after=page.cursor)
                    while bye.get("op") != "bye":
                        bye = await socket.next()
                        for envelope in bye.get("events", ()):
                            page.take(envelope)
                    assert {"op": "bye", "reason": "shutdown", "retry_after": 1.0} == bye
                else:
                    await page.follow(socket)
                    assert (await world.texts()) == page.texts
                    break
    said = [text for text in page.texts if text == "sing"]
    assert 3 == len(said)
    assert TEXT == page.texts[-1]
    assert all(TEXT.startswith(text) for text in page.texts if text != "sing")
    no_event_twice(page)


async def test_two_pages_of_one_conversation(autojump_clock: Any) -> None:
    """Two people who write at once see the same rows in the same order."""
    async with open_world(visitors={"alice": "alice", "friend": "alice"}) as world:
        async with world.client.socket(headers=ALICE) as one, world.client.socket(headers=as_user("friend")) as two:
            pages = Page(), Page()
            for socket in (one, two):
                await socket.result(op="subscribe", conversation_id="42")
            for number in range(10):
                one.send(op="post", conversation_id="42", message_id=f"one-{number}", text=f"one {number}")
                two.send(op="post", conversation_id="42", message_id=f"two-{number}", text=f"two {number}")
            await trio.sleep(10)
            for page, socket in zip(pages, (one, two), strict=True):
                for envelope in socket.envelopes:
                    page.take(envelope)

            assert pages[0].texts == pages[1].texts == await world.texts()
            assert 20 == sum(text.startswith(("one", "two")) for text in pages[0].texts)
