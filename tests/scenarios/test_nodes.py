"""Nodes: a lease of the node that is lost ends its agents in time, a paused node keeps what nobody took, and a drain says so."""

import math
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.clusters import TTL, FaultyCluster, node
from tests.support.scenarios import answer_to, ask, make_agent, make_config, of_kind, read_all, transcript
from trio_sagents import (
    AgentShutdown,
    CancelCause,
    Cancelled,
    Completed,
    MemoryLeases,
    MemoryStore,
    Middleware,
    PersistenceError,
    RegistryUnavailable,
    SessionsClosed,
    ShutdownReason,
    StartFailed,
    open_sessions,
)
from trio_sagents.cluster import MemoryCluster
from trio_sagents.testing import Call, Hang


async def test_node_is_there_while_the_block_is_open(autojump_clock: Any) -> None:
    """A block is a node of its cluster until it is left, with its name; what it runs is counted; what ends is released."""
    cluster, store = MemoryCluster(), MemoryStore()
    async with node(cluster=cluster, store=store, node_name="web-1") as first, node(cluster=cluster, store=store) as second:
        assert "re: one" == await answer_to(first, "one")
        infos = await cluster.nodes()
        assert "web-1" == infos[0].node.name
        assert infos[1].node.name.rpartition(":")[2].isdigit()
        assert [1, 0] == [info.conversations for info in infos]
        await trio.sleep(10 * TTL)
        assert await first.stop("c")
        assert "re: two" == await answer_to(second, "two")
        assert ["one", "re: one", "two", "re: two"] == [text for _, text, _ in await transcript(second)]

    assert [] == list(await cluster.nodes())


async def test_lost_lease_ends_the_agents(autojump_clock: Any) -> None:
    """When renewals fail the agents end before the lease does, their turns cut as fenced; viewers and callers are told."""
    cluster = FaultyCluster()
    store = MemoryStore()
    agent = make_agent(["half", Hang()], "later")
    async with node(agent, cluster=cluster, store=store) as sessions, sessions.watch("c") as watch:
        receipt = await sessions.post("c", "go")
        await trio.sleep(2.5 * TTL)
        for method in ("renew", "release", "leave"):
            cluster.faults.every[method] = OSError("the engine is away")
        began = trio.current_time()
        assert Cancelled(CancelCause.FENCED) == await receipt.wait()
        assert trio.current_time() - began <= TTL + 1.0
        await watch.info.agent.wait_ended()
        shutdown = of_kind(await read_all(watch), AgentShutdown)
        assert [ShutdownReason.FENCED] == [event.reason for event in shutdown]
        assert not sessions.ready()
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")
        assert isinstance(caught.value.__cause__, RegistryUnavailable)

        async with node(make_agent("taken over"), cluster=cluster.inner, store=store) as other:
            await trio.sleep(TTL)
            assert "taken over" == await answer_to(other, "and now?")
            assert ("assistant", "half", "cancelled") in await transcript(other)


@pytest.mark.parametrize("shields", [False, True])
async def test_no_tool_begins_behind_the_end(autojump_clock: Any, shields: bool) -> None:
    """A program that blocked its event loop for longer than its lease begins nothing new before it has renewed the lease."""
    begun: list[float] = []
    cluster = FaultyCluster()

    async def pay() -> str:
        """Pay."""
        begun.append(trio.current_time())
        return "paid"

    class Blocks(Middleware):
        async def around_tool(self, context: Any, call: Any, call_next: Any) -> Any:
            autojump_clock.jump(2 * TTL)  # a task that slept meanwhile runs after this task
            cluster.faults.latency["renew"] = math.inf
            with trio.CancelScope(shield=shields):
                return await call_next(call)

    async with node(make_agent(Call("pay"), "well", tools=[pay], middleware=[Blocks()]), cluster=cluster) as sessions:
        outcome = await ask(sessions)

        assert [] == begun
        assert Cancelled(CancelCause.FENCED) == outcome


async def test_paused_node_goes_on_when_nobody_took_it(autojump_clock: Any) -> None:
    """A turn of a node that was paused goes on, once the lease is renewed: its tool begins then, and not before."""
    begun: list[float] = []
    cluster = FaultyCluster()

    async def pay() -> str:
        """Pay."""
        begun.append(trio.current_time())
        return "paid"

    class Blocks(Middleware):
        async def around_tool(self, context: Any, call: Any, call_next: Any) -> Any:
            autojump_clock.jump(2 * TTL)
            self.woke = trio.current_time()
            cluster.faults.latency["renew"] = 0.5
            return await call_next(call)

    blocks = Blocks()
    async with node(make_agent(Call("pay"), "well", tools=[pay], middleware=[blocks]), cluster=cluster) as sessions:
        assert "well" == await answer_to(sessions)

        assert [blocks.woke + 0.5] == begun


async def test_boot_whose_lease_is_lost(autojump_clock: Any) -> None:
    """A boot that takes longer than the lease of its node, which cannot be renewed, fails, and says why."""
    cluster = FaultyCluster()
    cluster.faults.every["renew"] = OSError("away")

    class SlowStore(MemoryStore):
        async def load(self, *args: Any, **kwargs: Any) -> Any:
            await trio.sleep(3 * TTL)
            return await super().load(*args, **kwargs)

    async with node(cluster=cluster, store=SlowStore(), policy={"start_timeout": 100.0}) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start("c")

        assert isinstance(caught.value.__cause__, RegistryUnavailable)
        assert "lost while its agent started" in str(caught.value.__cause__)


async def test_drain_tells_the_cluster(autojump_clock: Any) -> None:
    """A node that drains is not ready, takes nothing, frees its idle conversations at once, and lets running turns finish."""
    cluster, store = MemoryCluster(), MemoryStore()

    async def work() -> str:
        """Work."""
        await trio.sleep(3 * TTL)
        return "done"

    agent = make_agent(Call("work"), "well", tools=[work])
    policy = {"grace_period": 100.0}
    async with node(agent, cluster=cluster, store=store, policy=policy) as first, node(cluster=cluster, store=store) as second:
        assert first.ready()
        receipt = await first.post("busy", "go")
        await first.start("idle")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.drain)
            await trio.testing.wait_all_tasks_blocked()
            assert not first.ready()
            assert second.ready()
            infos = await cluster.nodes()
            assert [(True, 1), (False, 0)] == [(info.is_draining, info.conversations) for info in infos]
            assert "re: hi" == await answer_to(second, conversation_id="idle")
            with pytest.raises(SessionsClosed):
                await first.start("new")
        outcome = await receipt.wait()
        assert isinstance(outcome, Completed)
        assert "re: hi" == await answer_to(second, conversation_id="busy")

    assert not first.ready()


async def test_ready_without_a_cluster(autojump_clock: Any) -> None:
    """A block without a cluster is ready until it drains."""
    async with open_sessions(make_config(leases=MemoryLeases())) as sessions:
        assert sessions.ready()
        await sessions.drain()
        assert not sessions.ready()


async def test_end_of_a_node_when_the_engine_is_away(autojump_clock: Any) -> None:
    """A block can be left in bounded time though the engine is away."""
    cluster = FaultyCluster()
    async with node(cluster=cluster) as sessions:
        for number in range(50):
            await sessions.start(f"c{number}")
        for method in ("renew", "release", "leave"):
            cluster.faults.latency[method] = math.inf
        began = trio.current_time()

    assert trio.current_time() - began <= 2.1  # settle_timeout for the releases, all together, and for the node


def test_config_of_both() -> None:
    """A cluster and leases exclude each other; what is not an engine is named."""
    with pytest.raises(ValueError, match="either cluster or leases"):
        make_config(cluster=MemoryCluster(), leases=MemoryLeases())
    with pytest.raises(TypeError, match=r"did you mean MemoryCluster\(...\)"):
        make_config(cluster=MemoryCluster)
    with pytest.raises(TypeError, match=r"did you mean SqliteCluster\(path\)"):
        make_config(cluster="nodes.db")


async def test_cluster_that_cannot_be_opened(autojump_clock: Any) -> None:
    """An engine that cannot be used is an error of `open_sessions`, before the store is opened."""
    opened: list[str] = []

    class Broken(MemoryCluster):
        def open(self) -> Any:
            raise PersistenceError("no such engine")

    class Store(MemoryStore):
        def open(self) -> Any:
            opened.append("store")

    with pytest.raises(PersistenceError, match="no such engine"):
        async with node(cluster=Broken(), store=Store()):
            pass  # pragma: no cover  # it raises before

    assert [] == opened
