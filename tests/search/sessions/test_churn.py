"""Ten thousand starts, stops and posts at once over 200 conversations: never two agents for one, and nothing is left afterwards."""

import faulthandler
import gc
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import trio_sagents
from trio_sagents import (
    Agent,
    AgentStopped,
    ConversationStore,
    MemoryStore,
    QueueFull,
    SessionConfig,
    SessionPolicy,
    Sessions,
    SessionsStatistics,
    SingleFactoryRouter,
    SqliteStore,
    StartFailed,
    open_sessions,
)
from trio_sagents.testing import ScriptedModel

pytestmark = pytest.mark.slow

WORKERS = 250


@attrs.define(eq=False)
class Watch:
    """Counts, by conversation, the agents that are alive, and the streams of their models."""

    store: Any
    alive: Counter[str] = attrs.field(factory=Counter)
    streams: Counter[str] = attrs.field(factory=Counter)
    most_alive: int = 0
    most_streams: int = 0
    boots: int = 0
    answers: int = 0

    def config(self) -> SessionConfig:
        """Return settings whose agents are counted."""
        return SessionConfig(factory_router=SingleFactoryRouter(self.create_agent), store=self.store, policy=SessionPolicy(queue_limit=16))

    async def create_agent(self, agent_id: str, config: Any) -> Agent:
        """Count a boot; the supervisor must not have a second task for the same agent."""
        conversation_id = config["conversation_id"]
        task = trio.lowlevel.current_task()
        assert task.parent_nursery is not None
        same = sum(other.name == task.name for other in task.parent_nursery.child_tasks)
        self.most_alive = max(self.most_alive, same)
        self.boots += 1
        await trio.lowlevel.checkpoint()
        return Agent(model=CountedModel(self, conversation_id))


@attrs.define(eq=False)
class CountedModel:
    """A model that counts its streams."""

    watch: Watch
    conversation_id: str
    name: str = "counted"

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[Any]:
        """Answer."""
        streams = self.watch.streams
        streams[self.conversation_id] += 1
        self.watch.most_streams = max(self.watch.most_streams, streams[self.conversation_id])
        try:
            async with ScriptedModel(["so be it"]).stream(request) as chunks:
                yield chunks
            self.watch.answers += 1
        finally:
            streams[self.conversation_id] -= 1


async def churn(watch: Watch, operations: int, conversations: int) -> SessionsStatistics:
    """Do this many operations from `WORKERS` callers at once; return the counts after all agents were stopped."""
    left = iter(range(operations))

    async def work(number: int, sessions: Sessions) -> None:
        drawn = random.Random(number)
        for _ in left:
            conversation_id = str(int(conversations * drawn.random() ** 2))  # some are hot
            try:
                match drawn.choice(["start", "start", "post", "stop", "stop", "cancelled"]):
                    case "start":
                        await sessions.start(conversation_id)
                    case "post":
                        await sessions.post(conversation_id, "hello")
                    case "stop":
                        await sessions.stop(conversation_id)
                    case _:
                        with trio.CancelScope() as scope:
                            scope.cancel()
                            await sessions.start(conversation_id)
            except (StartFailed, QueueFull) as exc:
                if isinstance(exc, StartFailed) and not isinstance(exc.__cause__, AgentStopped):
                    raise

    async with open_sessions(watch.config()) as sessions:
        async with trio.open_nursery() as nursery:
            for number in range(WORKERS):
                nursery.start_soon(work, number, sessions)
        async with trio.open_nursery() as nursery:
            for number in range(conversations):
                nursery.start_soon(sessions.stop, str(number))
        return sessions.statistics()


def open_files() -> int:
    """Return how many file descriptors this process has."""
    return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))


def check_nothing_left(statistics: SessionsStatistics) -> None:
    """Check that all counts are zero."""
    assert SessionsStatistics(0, 0, 0, 0, 0, 0, 0) == statistics


@pytest.mark.parametrize(("kind", "operations", "conversations"), [("memory", 10_000, 200), ("sqlite", 1_500, 60)])
async def test_churn(kind: str, operations: int, conversations: int, tmp_path: Path) -> None:
    """However many callers start, stop and post at once: one agent and one stream for each conversation, and all counts return to zero."""
    faulthandler.cancel_dump_traceback_later()  # five seconds of work; on a busy machine that may take long
    store: ConversationStore = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "chat.db", synchronous="NORMAL")
    watch = Watch(store)
    await trio.to_thread.run_sync(lambda: None)  # the thread of Trio's own cache, before anything is counted
    files, tasks = open_files(), trio.lowlevel.current_statistics().tasks_living
    statistics = await churn(watch, operations, conversations)

    assert 1 == watch.most_alive
    assert 1 == watch.most_streams
    assert watch.boots > conversations
    assert watch.answers > 0
    assert 0 == sum(watch.streams.values())
    check_nothing_left(statistics)
    assert tasks == trio.lowlevel.current_statistics().tasks_living
    assert files == open_files()


@contextmanager
def collector_off() -> Iterator[None]:
    """Have nothing collected but by us."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.collect()


def is_ours(value: object) -> bool:
    """Return whether an object is an instance of a class of the library, or a frame of its code."""
    return str(type(value).__module__).startswith("trio_sagents.")


async def cycle(sessions: Sessions, conversation_id: str) -> None:
    """Start, talk, watch, stop."""
    async with sessions.open_subscriber() as reader:
        await sessions.ensure_running(conversation_id, reader)
        receipt = await sessions.post(conversation_id, "hello")
        await receipt.wait()
        await reader.__anext__()
        await sessions.stop(conversation_id)


async def test_cycle_leaves_no_cyclic_garbage() -> None:
    """A start, a turn and a stop leave nothing to the cyclic collector: everything is gone with its last reference."""
    watch = Watch(MemoryStore())
    async with open_sessions(watch.config()) as sessions:
        await cycle(sessions, "warm")
        with collector_off():
            gc.set_debug(gc.DEBUG_SAVEALL)
            for number in range(20):
                await cycle(sessions, str(number))
            gc.collect()
            ours = Counter(type(item).__name__ for item in gc.garbage if is_ours(item))

    assert Counter() == ours


async def test_start_and_stop_leave_no_cyclic_garbage() -> None:
    """A start and a stop without a turn leave nothing at all to the cyclic collector, of anybody's."""
    watch = Watch(MemoryStore())
    async with open_sessions(watch.config()) as sessions:
        for _ in range(3):
            await sessions.start("warm")
            await sessions.stop("warm")
        with collector_off():
            gc.set_debug(gc.DEBUG_SAVEALL)
            for number in range(20):
                await sessions.start(str(number))
                await sessions.stop(str(number))
            gc.collect()
            found = Counter(type(item).__module__ + "." + type(item).__name__ for item in gc.garbage)

    assert Counter() == found


def living() -> Counter[str]:
    """Count the living objects of the runtime: sessions, agents, turns, subscriptions and what is between them."""
    kinds = ("trio_sagents.sessions.", "trio_sagents.supervisor.", "trio_sagents.broadcast.")
    return Counter(type(item).__name__ for item in gc.get_objects() if str(type(item).__module__).startswith(kinds))


def test_nothing_lives_after_the_block() -> None:
    """When the block was left, nothing of the runtime lives: not an agent, not a turn, not a subscription, not the sessions."""

    async def use() -> None:
        watch = Watch(MemoryStore())
        async with open_sessions(watch.config()) as sessions:
            for number in range(5):
                await cycle(sessions, str(number))
            await sessions.post("left", "hello")

    trio.run(use)  # what is made once for all is made now
    gc.collect()
    before = living()
    trio.run(use)
    gc.collect()

    assert Counter() == living() - before  # threads that earlier tests left do not count


def test_living_counts() -> None:
    """The count sees what lives: an oracle that always says zero would prove nothing."""

    async def use() -> Counter[str]:
        watch = Watch(MemoryStore())
        async with open_sessions(watch.config()) as sessions:
            await sessions.start("a")
            return living()

    before = living()
    counts = trio.run(use) - before

    assert 1 == counts["LiveAgent"]
    assert 1 == counts["Sessions"]
    assert trio_sagents.__name__ == "trio_sagents"
