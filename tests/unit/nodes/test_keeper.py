"""The keeper of a node's lease: what is claimed, until when it is trusted, and what happens when the engine fails."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.clusters import TTL, FaultyCluster
from trio_sagents import RegistryUnavailable, RunsElsewhere, ShutdownReason
from trio_sagents.cluster import MemoryCluster
from trio_sagents.nodes import Node, NodeKeeper, _releases, new_node_id
from trio_sagents.nodes import _keeper as module
from trio_sagents.supervisor import Entry, Phase

SETTLE = 1.0


def entry_of(conversation_id: str = "c") -> Entry:
    """Return the entry of an agent that boots."""
    return Entry(conversation_id, conversation_id, None, None, {})


def is_fenced(entry: Entry) -> bool:
    """Return whether an agent was told to end because its right is lost."""
    return entry.reason is ShutdownReason.FENCED


@asynccontextmanager
async def opened(cluster: Any, name: str = "here") -> AsyncIterator[NodeKeeper]:
    """Open a keeper as `open_sessions` does."""
    keeper = NodeKeeper(cluster, Node(new_node_id(), name, "1", 1), TTL, SETTLE)
    async with keeper.joined(), trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await trio.testing.wait_all_tasks_blocked()
        yield keeper
        nursery.cancel_scope.cancel()


async def holder(cluster: Any, conversation_id: str = "c") -> str | None:
    """Return which node has a conversation, by the engine."""
    found = await getattr(cluster, "inner", cluster).holders([conversation_id])
    return found[conversation_id].node_id if conversation_id in found else None


# ── joining and leaving


async def test_joined_is_a_node_until_the_end(autojump_clock: Any) -> None:
    """The node is there while the block is open; its lease is renewed for as long as that takes, by one call each third of its duration."""
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        (info,) = await cluster.nodes()
        assert ("here", keeper.node_id) == (info.node.name, info.node.node_id)
        for number in range(500):
            await keeper.acquire(entry_of(f"c{number}"))
        await trio.sleep(TTL / 10)
        before = len(cluster.named("renew"))
        await trio.sleep(10 * TTL)
        assert 30 == len(cluster.named("renew")) - before
        assert keeper.is_trusted

    assert [] == list(await cluster.nodes())


@pytest.mark.parametrize("how", ["before", "after", "hang"])
async def test_joined_when_the_engine_fails(autojump_clock: Any, how: str) -> None:
    """A node that cannot join says so in time, and leaves nothing that can be taken back."""
    cluster = FaultyCluster()
    if how == "hang":
        cluster.faults.hang("join")
    else:
        cluster.faults.fail("join", after=how == "after")
    began = trio.current_time()
    with pytest.raises(RegistryUnavailable, match="could not join"):
        async with opened(cluster):
            pass  # pragma: no cover  # it raises before

    assert trio.current_time() - began <= TTL / 3
    assert [] == list(await cluster.nodes())


async def test_leave_when_the_engine_hangs(autojump_clock: Any) -> None:
    """A node that cannot leave ends in bounded time; its lease ends by itself."""
    cluster = FaultyCluster()
    async with opened(cluster):
        cluster.faults.hang("leave")
        began = trio.current_time()

    assert trio.current_time() - began <= SETTLE
    (info,) = await cluster.nodes()
    assert 0 < info.expires_in <= TTL


# ── claims


async def test_acquire_when_another_node_has_it(autojump_clock: Any) -> None:
    """One node has it, the other is told for how long at most; once it is released, the other gets it."""
    cluster = MemoryCluster()
    async with opened(cluster) as here, opened(cluster, "there") as there:
        entry = entry_of()
        await here.acquire(entry)
        assert here.may_act(entry)
        with pytest.raises(RunsElsewhere) as caught:
            await there.acquire(entry_of())
        assert 0 < caught.value.retry_after <= TTL
        await here.release(entry)
        assert not here.may_act(entry)
        assert await holder(cluster) is None
        await there.acquire(entry_of())
        assert there.node_id == await holder(cluster)


@pytest.mark.parametrize("how", ["before", "after", "hang", "nonsense"])
async def test_acquire_when_nobody_can_say(autojump_clock: Any, how: str) -> None:
    """An engine that does not answer is an error, not "it is free"; what may have been claimed is released, and the next start works."""
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        if how == "hang":
            cluster.faults.hang("claim")
        elif how == "nonsense":
            cluster.answers["claim"] = "yes"
        else:
            cluster.faults.fail("claim", after=how == "after")
        began = trio.current_time()
        entry = entry_of()
        with pytest.raises(RegistryUnavailable, match="nobody could say") as caught:
            await keeper.acquire(entry)
        assert caught.value.__cause__ is not None
        assert trio.current_time() - began <= TTL / 3 + SETTLE
        assert await holder(cluster) is None
        assert not keeper.may_act(entry)
        cluster.answers.clear()
        await keeper.acquire(entry)
        assert keeper.may_act(entry)


async def test_acquire_when_cancelled(autojump_clock: Any) -> None:
    """A start that is cancelled while it asks leaves no claim."""
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        cluster.faults.fail("claim", after=True, error=None)
        cluster.faults.latency["claim"] = 2.0
        with trio.move_on_after(1) as scope:
            await keeper.acquire(entry_of())
        assert scope.cancelled_caught
        assert [["c"]] == [list(ids) for ids in cluster.named("release")]
        assert await holder(cluster) is None


async def test_acquire_when_draining(autojump_clock: Any) -> None:
    """A node that drains takes nothing, and the engine knows it at once; what it has, it keeps."""
    cluster = MemoryCluster()
    async with opened(cluster) as keeper:
        entry = entry_of()
        await keeper.acquire(entry)
        keeper.drain()
        await trio.testing.wait_all_tasks_blocked()
        (info,) = await cluster.nodes()
        assert info.is_draining
        with pytest.raises(RegistryUnavailable, match="draining"):
            await keeper.acquire(entry_of("d"))
        await trio.sleep(2 * TTL)
        assert keeper.may_act(entry)


# ── renewals that fail


async def test_renewals_that_fail_now_and_then(autojump_clock: Any) -> None:
    """A lease outlives renewals that fail, hang, are slow, or answer nonsense, one at a time."""
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        entry = entry_of()
        await keeper.acquire(entry)
        cluster.faults.fail("renew", 2)
        cluster.faults.fail("renew", 4, after=True)
        cluster.faults.hang("renew", 7)
        cluster.faults.slow("renew", TTL / 4, 10)
        for _ in range(60):
            await trio.sleep(TTL / 10)
            assert keeper.may_act(entry)
        cluster.answers["renew"] = None
        await trio.sleep(TTL / 2)
        cluster.answers.clear()
        await trio.sleep(TTL)
        assert keeper.may_act(entry)
        assert not is_fenced(entry)


@pytest.mark.parametrize("how", ["raises", "hangs", "nonsense"])
async def test_renewals_that_fail_for_good(autojump_clock: Any, how: str) -> None:
    """From 0.9 of the lease on nothing begins; before the whole of it is over the agents are fenced; then nothing can start."""
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        entry = entry_of()
        await keeper.acquire(entry)
        await trio.sleep(1.1 * TTL)
        (info,) = await cluster.nodes()
        ends_at = trio.current_time() + info.expires_in
        if how == "raises":
            cluster.faults.every["renew"] = OSError("the engine is away")
        elif how == "hangs":
            cluster.faults.latency["renew"] = math.inf
        else:
            cluster.answers["renew"] = "yes"
        while keeper.may_act(entry):
            await trio.sleep(0.01 * TTL)
        assert not is_fenced(entry)
        assert trio.current_time() <= ends_at - 0.08 * TTL
        await trio.sleep(0.09 * TTL)
        while not is_fenced(entry):
            await trio.sleep(0.005 * TTL)
        assert trio.current_time() <= ends_at + 0.01 * TTL
        assert Phase.STOPPING is entry.phase
        with pytest.raises(RegistryUnavailable, match="could not renew its lease"):
            await keeper.acquire(entry_of("d"))
        assert 1 == keeper.counts.fenced


async def test_late_renewal_keeps_what_nobody_took(autojump_clock: trio.testing.MockClock) -> None:
    """A node that was paused keeps the agents of the conversations that nobody took, and fences the others."""
    cluster = MemoryCluster()
    await cluster.join(Node("other", "other", "1", 1), 1000.0)
    async with opened(cluster) as keeper:
        kept, taken, gone = entry_of("kept"), entry_of("taken"), entry_of("gone")
        for entry in (kept, taken, gone):
            await keeper.acquire(entry)
        await trio.testing.wait_all_tasks_blocked()
        autojump_clock.autojump_threshold = math.inf
        autojump_clock.jump(2 * TTL)  # nothing of this process runs meanwhile; another process does
        assert not keeper.may_act(kept)
        cluster._members["other"].until += 1000
        for conversation_id in ("taken", "gone"):
            cluster._members[keeper.node_id].conversations.remove(conversation_id)
            cluster._claims.pop(conversation_id)
        cluster._claims["taken"] = cluster._members["other"]
        cluster._members["other"].conversations.add("taken")
        autojump_clock.autojump_threshold = 0
        await keeper.wait_known(kept)
        assert keeper.may_act(kept)
        assert [False, True, True] == [is_fenced(entry) for entry in (kept, taken, gone)]
        assert not keeper.may_act(taken)
        await keeper.release(taken)
        assert "other" == await holder(cluster, "taken")
        await trio.sleep(3 * TTL)
        assert keeper.may_act(kept)
        assert 1 == keeper.counts.late_renewals


@pytest.mark.parametrize("slow", ["renew", "holders"])
async def test_agents_are_held_for_a_bounded_time(slow: str, autojump_clock: trio.testing.MockClock) -> None:
    """While a late renewal is under way the agents are held still, for at most a tenth of the lease; then they are fenced."""
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        entry = entry_of()
        await keeper.acquire(entry)
        cluster.faults.latency[slow] = TTL / 5
        began = trio.current_time()
        autojump_clock.jump(2 * TTL)
        await keeper.wait_known(entry)
        assert is_fenced(entry)
        assert trio.current_time() - began - 2 * TTL <= 0.1 * TTL + 1e-6
        cluster.faults.latency.clear()
        await trio.sleep(TTL)
        assert keeper.is_trusted
        await keeper.release(entry)
        await keeper.acquire(entry_of())


async def test_late_renewal_that_comes_in_time(autojump_clock: trio.testing.MockClock) -> None:
    """A late renewal that answers while the agents are held lets them go on."""
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        entry = entry_of()
        await keeper.acquire(entry)
        cluster.faults.latency["renew"] = TTL / 20
        autojump_clock.jump(2 * TTL)
        assert not keeper.may_act(entry)
        began = trio.current_time()
        await keeper.wait_known(entry)
        assert trio.current_time() - began == pytest.approx(TTL / 20)
        assert keeper.may_act(entry)


async def test_wait_known_when_it_is_known(autojump_clock: Any) -> None:
    """Nobody waits for what is known."""
    async with opened(MemoryCluster()) as keeper:
        entry = entry_of()
        await keeper.acquire(entry)
        await keeper.wait_known(entry)
        await keeper.wait_known(entry_of("never"))
        assert not keeper.may_act(entry_of())


async def test_acquire_during_a_lapse(autojump_clock: trio.testing.MockClock) -> None:
    """A claim whose answer is older than a lapse of the lease is not believed: it is made again."""
    cluster = FaultyCluster()
    await cluster.inner.join(Node("other", "other", "1", 1), 1000.0)
    async with opened(cluster) as keeper:
        claimed = trio.Event()
        plain = cluster.inner.claim

        async def claim(conversation_id: str, node_id: str) -> Any:
            answer = await plain(conversation_id, node_id)
            if not claimed.is_set():
                claimed.set()
                await trio.sleep(0.05 * TTL)  # the answer takes some time
            return answer

        cluster.inner.claim = claim  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:

            async def start() -> None:
                with pytest.raises(RunsElsewhere):
                    await keeper.acquire(entry_of())

            nursery.start_soon(start)
            await claimed.wait()
            keeper._until = trio.current_time()
            cluster.inner._members[keeper.node_id].until = -math.inf  # the lease has ended at the engine, too
            assert await plain("c", "other") is None
            keeper._due.set()


# ── a node that the engine has forgotten


async def test_forgotten_node_joins_again(autojump_clock: Any) -> None:
    """A renewal that answers False fences all agents at once; the node is another one then, and can claim again."""
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        entries = [entry_of("c"), entry_of("d")]
        for entry in entries:
            await keeper.acquire(entry)
        before = keeper.node_id
        await cluster.inner.leave(before)
        await trio.sleep(TTL / 3 + 0.001)
        assert all(map(is_fenced, entries))
        assert keeper.is_trusted
        assert before != keeper.node_id
        assert [keeper.node_id] == [info.node.node_id for info in await cluster.nodes()]
        for entry in entries:
            await keeper.release(entry)
        assert [] == cluster.named("release")  # by the old id there is nothing to release
        await keeper.acquire(entry_of("c"))
        assert keeper.node_id == await holder(cluster, "c")
        assert 2 == keeper.counts.joins

    assert [] == list(await cluster.nodes())


async def test_forgotten_node_that_cannot_join(autojump_clock: Any) -> None:
    """A node that cannot join again tries on, without haste, and takes nothing meanwhile."""
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        await cluster.inner.leave(keeper.node_id)
        cluster.faults.every["join"] = OSError("the engine is away")
        await trio.sleep(2 * TTL)
        assert not keeper.is_trusted
        assert 10 < len(cluster.named("join")) < 25
        with pytest.raises(RegistryUnavailable):
            await keeper.acquire(entry_of())
        keeper.drain()
        cluster.faults.every.clear()
        await trio.sleep(TTL)
        (info,) = await cluster.nodes()
        assert info.is_draining


async def test_claims_that_the_engine_has_lost(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another node has by the engine, though no lease ended here, is found within a minute, by one question."""
    monkeypatch.setattr(module, "RECONCILE", 4 * TTL)
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        entry, kept = entry_of(), entry_of("kept")
        await keeper.acquire(entry)
        await keeper.acquire(kept)
        await cluster.inner.release(["c"], keeper.node_id)  # as if the clock of the engine had jumped, and others had come and gone
        await trio.sleep(5 * TTL)
        assert [True, False] == [is_fenced(entry), is_fenced(kept)]
        await trio.sleep(40 * TTL)
        assert 9 <= len(cluster.named("holders")) <= 12
        assert keeper.may_act(kept)


# ── releases


async def test_release_of_many_is_one_call(autojump_clock: Any) -> None:
    """Agents that end together are released by one call."""
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        entries = [entry_of(f"c{number}") for number in range(200)]
        for entry in entries:
            await keeper.acquire(entry)
        async with trio.open_nursery() as nursery:
            for entry in entries:
                nursery.start_soon(keeper.release, entry)
        assert 1 == len(cluster.named("release"))
        assert [0] == [info.conversations for info in await cluster.nodes()]


async def test_release_of_more_than_a_batch(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are released, each call has a bound."""
    monkeypatch.setattr(_releases, "BATCH", 7)
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        entries = [entry_of(f"c{number}") for number in range(20)]
        for entry in entries:
            await keeper.acquire(entry)
        async with trio.open_nursery() as nursery:
            for entry in entries:
                nursery.start_soon(keeper.release, entry)
        assert [7, 7, 6] == [len(ids) for ids in cluster.named("release")]
        assert [0] == [info.conversations for info in await cluster.nodes()]


@pytest.mark.parametrize("how", ["before", "after", "hang"])
async def test_release_that_fails(autojump_clock: Any, how: str) -> None:
    """An agent that cannot be released ends in bounded time, and is released later: its claim would last as long as its node."""
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        entry = entry_of()
        await keeper.acquire(entry)
        if how == "hang":
            cluster.faults.hang("release")
        else:
            cluster.faults.fail("release", after=how == "after")
        began = trio.current_time()
        await keeper.release(entry)
        assert trio.current_time() - began <= SETTLE
        await trio.sleep(TTL)
        assert await holder(cluster) is None
        await keeper.release(entry)
        assert 2 == len(cluster.named("release"))


async def test_release_that_is_late_does_not_undo_the_next_claim(autojump_clock: Any) -> None:
    """A conversation that was claimed again is not released by what is left over of the agent before."""
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        first, second = entry_of(), entry_of()
        await keeper.acquire(first)
        cluster.faults.slow("release", 1.5 * SETTLE)
        await keeper.release(first)  # its call is under way still
        await keeper.acquire(second)
        await trio.sleep(TTL)
        assert keeper.node_id == await holder(cluster)
        await keeper.release(second)

        third, fourth = entry_of(), entry_of()
        await keeper.acquire(third)
        cluster.faults.fail("release")
        await keeper.release(third)  # it failed, and is tried again later
        await keeper.acquire(fourth)
        await trio.sleep(TTL)
        assert keeper.node_id == await holder(cluster)
        assert keeper.may_act(fourth)


async def test_release_of_a_fenced_agent(autojump_clock: Any) -> None:
    """A conversation whose agent was fenced is released, unless another node has it."""
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        entry = entry_of()
        await keeper.acquire(entry)
        cluster.faults.every["renew"] = OSError("away")
        await trio.sleep(1.5 * TTL)
        assert is_fenced(entry)
        await keeper.release(entry)
        cluster.faults.every.clear()
        await trio.sleep(TTL)
        assert keeper.is_trusted
        assert await holder(cluster) is None


async def test_statistics_of_the_keeper(autojump_clock: Any) -> None:
    """What an operator can look at."""
    cluster = FaultyCluster()
    async with opened(cluster) as keeper:
        await keeper.acquire(entry_of())
        cluster.faults.slow("renew", 0.5)
        await trio.sleep(TTL / 3 + 1)
        assert 1 == keeper.claims
        assert keeper.counts.latency == pytest.approx(0.5)
        assert 1 == keeper.counts.renewals
        assert keeper.age == pytest.approx(1.0, abs=0.01)
        assert 0 == keeper.calls.failed
