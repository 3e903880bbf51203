"""Presence: agents on AGENTS_TOPIC with their status, viewers on their conversation's topic."""

import datetime
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.scenarios import answer_to, make_agent, make_config, opened, slow_agent
from trio_sagents import AGENTS_TOPIC, LocalPubSub, Presence, PresenceDiff, PubSub, Sessions, Status, conversation_topic, open_sessions
from trio_sagents.testing import Hang


def test_names() -> None:
    """The topics are named as the contract says."""
    assert "agent_server:presence" == AGENTS_TOPIC
    assert "conversation:42" == conversation_topic("42")


async def test_agents_are_on_the_agents_topic(autojump_clock: Any) -> None:
    """An agent that is up is on AGENTS_TOPIC under its id, with status, conversation id and last activity; no more when it ended."""
    async with opened() as sessions:
        await sessions.start("c")
        listed = await sessions.presence.list(AGENTS_TOPIC)
        assert ["conversation-c"] == list(listed)
        ((meta,),) = listed.values()
        assert {"status", "conversation_id", "last_activity_at"} == set(meta)
        assert ("idle", "c") == (meta["status"], meta["conversation_id"])
        assert datetime.datetime.fromisoformat(meta["last_activity_at"]).tzinfo is not None
        await sessions.stop("c")

        assert {} == await sessions.presence.list(AGENTS_TOPIC)


async def test_status_in_the_meta(autojump_clock: Any) -> None:
    """The meta follows the status."""
    async with opened(make_agent(Hang())) as sessions:
        await sessions.post("c", "hi")
        await trio.sleep(1)
        assert "running" == (await sessions.presence.list(AGENTS_TOPIC))["conversation-c"][0]["status"]
        await sessions.cancel_turn("c")

        assert "cancelled" == (await sessions.presence.list(AGENTS_TOPIC))["conversation-c"][0]["status"]


async def test_changes_of_agents(autojump_clock: Any) -> None:
    """changes() gives joins and leaves: of the start, of each status, and of the end."""
    statuses: list[tuple[str, str]] = []
    async with (
        opened(slow_agent(seconds=10)) as sessions,
        sessions.presence.changes(AGENTS_TOPIC) as changes,
        trio.open_nursery() as nursery,
    ):

        async def listen() -> None:
            async for diff in changes:
                assert isinstance(diff, PresenceDiff)
                statuses.extend(("leave", meta["status"]) for meta in diff.leaves.get("conversation-c", ()))
                statuses.extend(("join", meta["status"]) for meta in diff.joins.get("conversation-c", ()))

        nursery.start_soon(listen)
        await sessions.start("c")
        await trio.sleep(1)
        await answer_to(sessions)
        await trio.sleep(1)
        await sessions.stop("c")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert [("join", "idle"), ("leave", "idle"), ("join", "running"), ("leave", "running"), ("join", "idle"), ("leave", "idle")] == statuses


async def test_watch_makes_a_viewer_while_it_is_open(autojump_clock: Any) -> None:
    """watch(viewer=...) tracks on the conversation's topic exactly while it is open, and agent_info counts it."""
    async with opened(policy={"viewer_grace": 100.0}) as sessions:
        async with sessions.watch("c", viewer="alice"):
            assert ["alice"] == list(await sessions.presence.list(conversation_topic("c")))
            assert 1 == (await sessions.agent_info("c")).viewers
        assert {} == await sessions.presence.list(conversation_topic("c"))
        assert 0 == (await sessions.agent_info("c")).viewers


async def test_watch_that_fails_leaves_no_viewer(autojump_clock: Any) -> None:
    """Neither a body that raises nor a cancelled one leaves a viewer."""
    async with opened(policy={"viewer_grace": 100.0}) as sessions:
        with pytest.raises(KeyError):
            async with sessions.watch("c", viewer="alice"):
                raise KeyError("mine")
        with trio.move_on_after(1):
            async with sessions.watch("c", viewer="alice"):
                await trio.sleep_forever()

        assert {} == await sessions.presence.list(conversation_topic("c"))
        assert 0 == sessions.statistics().subscriptions


async def test_track_twice(autojump_clock: Any) -> None:
    """One viewer in two tabs is one key with two metas, and each tab leaves alone."""
    async with opened() as sessions:
        topic = conversation_topic("c")
        async with sessions.presence.track(topic, "alice", {"tab": 1}):
            async with sessions.presence.track(topic, "alice", {"tab": 2}):
                assert {"alice": [{"tab": 1}, {"tab": 2}]} == {k: list(v) for k, v in (await sessions.presence.list(topic)).items()}
            assert {"alice": [{"tab": 1}]} == {k: list(v) for k, v in (await sessions.presence.list(topic)).items()}


async def test_changes_start_now(autojump_clock: Any) -> None:
    """A listener hears only what happens after it began to listen."""
    presence = Presence()
    async with presence.track("t", "old"), presence.changes("t") as changes:
        async with presence.track("t", "brief"):
            pass
        async with presence.track("t", "new", {"n": 1}):
            diff = await changes.__anext__()

            assert {"new": [{"n": 1}]} == {k: list(v) for k, v in diff.joins.items()}
            assert {} == dict(diff.leaves)


async def test_presence_shared_by_two_hosts(autojump_clock: Any) -> None:
    """One Presence may serve two blocks: the agents of both are on the topic."""
    presence = Presence()
    config = make_config(presence=presence)
    async with open_sessions(config) as one, open_sessions(config) as two:
        await one.start("a")
        await two.start("b")

        assert one.presence is presence
        assert {"conversation-a", "conversation-b"} == set(await presence.list(AGENTS_TOPIC))
    assert {} == await presence.list(AGENTS_TOPIC)


async def test_agent_that_boots_is_not_there_yet(autojump_clock: Any) -> None:
    """An agent is present from its first to its last moment up, not during its boot."""
    from tests.support.scenarios import Router

    async with opened(Router(build_delay=5)) as sessions, trio.open_nursery() as nursery:
        nursery.start_soon(sessions.start, "c")
        await trio.sleep(1)
        assert {} == await sessions.presence.list(AGENTS_TOPIC)
        assert not await sessions.running("c")
        assert 0 == await sessions.agent_count()
        await trio.sleep(10)
        assert ["conversation-c"] == list(await sessions.presence.list(AGENTS_TOPIC))


async def test_info_of_an_agent(autojump_clock: Any) -> None:
    """agent_info, the handle's info and list_running agree."""
    async with opened() as sessions:
        await answer_to(sessions)
        info = await sessions.agent_info("c")

        assert ("conversation-c", "c", Status.IDLE, 2, 0, 0, None) == (
            info.agent_id,
            info.conversation_id,
            info.status,
            info.message_count,
            info.queued,
            info.viewers,
            info.interrupt,
        )
        assert info.started_at <= info.last_activity_at
        assert info.started_at.tzinfo is not None
        (listed,) = await sessions.list_running()
        assert (info.agent_id, info.started_at) == (listed.agent_id, listed.started_at)


@asynccontextmanager
async def sharing(bus: PubSub, router: Any = None, **settings: Any) -> AsyncIterator[Sessions]:
    """Open sessions on a bus, and close them when everybody has heard of that."""
    async with open_sessions(make_config(router, pubsub=bus, **settings)) as sessions:
        await trio.testing.wait_all_tasks_blocked()
        yield sessions
    await trio.testing.wait_all_tasks_blocked()


async def test_two_blocks_that_share_a_bus(autojump_clock: Any) -> None:
    """Each sees the other's agents, with their status, and its viewers; when a block ends, its entries are gone."""
    bus = LocalPubSub()
    async with sharing(bus) as here:
        async with sharing(bus, slow_agent(seconds=10)) as there, here.presence.changes(AGENTS_TOPIC) as changes:
            await here.start("a")
            await there.start("b")
            await trio.testing.wait_all_tasks_blocked()
            assert {"conversation-a", "conversation-b"} == set(await here.presence.list(AGENTS_TOPIC))
            assert {"conversation-a", "conversation-b"} == set(await there.presence.list(AGENTS_TOPIC))
            diff = await anext(changes)
            assert {"conversation-a", "conversation-b"} == set(diff.joins)
            await there.post("b", "hi")
            await trio.testing.wait_all_tasks_blocked()
            assert "running" == (await here.presence.list(AGENTS_TOPIC))["conversation-b"][0]["status"]
            async with there.watch("b", viewer="bob"):
                await trio.testing.wait_all_tasks_blocked()
                assert ["bob"] == list(await here.presence.list(conversation_topic("b")))
        await trio.testing.wait_all_tasks_blocked()

        assert ["conversation-a"] == list(await here.presence.list(AGENTS_TOPIC))
        assert {} == await here.presence.list(conversation_topic("b"))


async def test_viewer_in_another_block(autojump_clock: Any) -> None:
    """Who watches from another block is a viewer of the agent: it stays while that viewer is there, and leaves behind them."""
    bus = LocalPubSub()
    topic = conversation_topic("c")
    async with sharing(bus, policy={"viewer_grace": 2.0}) as here, sharing(bus) as there:
        await here.start("c")
        async with there.presence.track(topic, "bob"):
            await trio.sleep(1)
            assert 1 == (await here.agent_info("c")).viewers
            await trio.sleep(1000)
            assert await here.running("c")
        await trio.sleep(1.5)
        assert await here.running("c")
        await trio.sleep(1)

        assert not await here.running("c")


async def test_viewer_in_another_block_when_the_agent_starts(autojump_clock: Any) -> None:
    """An agent that comes up knows the viewers that are in other blocks already."""
    bus = LocalPubSub()
    async with sharing(bus) as here, sharing(bus) as there, there.presence.track(conversation_topic("c"), "bob"):
        await trio.testing.wait_all_tasks_blocked()
        await here.start("c")

        assert 1 == (await here.agent_info("c")).viewers


class Cable:
    """A bus that can be cut."""

    def __init__(self) -> None:
        self.inner = LocalPubSub()
        self.max_payload = self.inner.max_payload
        self.is_cut = False

    def publish(self, topic: str, payload: bytes) -> None:
        if not self.is_cut:
            self.inner.publish(topic, payload)

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self.inner.subscribe(topic)


async def test_viewer_in_a_block_that_vanished(autojump_clock: Any) -> None:
    """A block that is not heard any more has no viewers: its entries expire, and the agent leaves as if they had left."""
    bus = Cable()
    async with sharing(bus, policy={"viewer_grace": 2.0}) as here, sharing(bus) as there:
        await here.start("c")
        async with there.presence.track(conversation_topic("c"), "bob"):
            await trio.sleep(1)
            bus.is_cut = True
            await trio.sleep(9)
            assert await here.running("c")
            await trio.sleep(10)
            assert not await here.running("c")


async def test_bus_of_a_block_alone(autojump_clock: Any) -> None:
    """A block with a bus of its own waits for no time because of presence, and neither does one that is alone on a shared bus."""
    for settings in ({}, {"pubsub": LocalPubSub()}):
        async with opened(**settings) as sessions, sessions.watch("c", viewer="alice"):
            await trio.sleep(1000)
            await trio.testing.wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().seconds_to_next_deadline > 100_000  # the limit of the test itself


async def test_bus_that_does_not_work(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A bus that raises harms neither agents nor viewers of its own process; the log says so."""

    class Dead(Cable):
        def publish(self, topic: str, payload: bytes) -> None:
            raise OSError("the network is down")

        def subscribe(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
            raise OSError("the network is down")

    async with opened(pubsub=Dead()) as sessions, sessions.watch("c", viewer="alice") as watch:
        await trio.sleep(20)
        assert "re: hi" == await answer_to(sessions)
        assert 1 == (await watch.info.agent.info()).viewers

    assert {"the bus of presence failed; trying it again in 5 s"} == set(caplog.messages)
