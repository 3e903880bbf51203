"""The library's own engines of a cluster, through the kit that hosts use for theirs, and what is special about each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trio_sagents.cluster import MemoryCluster, memory
from trio_sagents.nodes import Cluster, Mail, Node
from trio_sagents.testing.conformance_cluster import ClusterConformance


class TestMemory(ClusterConformance):
    @pytest.fixture(autouse=True)
    def _virtual_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the clock of Trio, as the engine reads it, be ahead by the time that passed. The tests of the kit ask for no clock."""
        self.passed = 0.0
        plain = trio.current_time
        monkeypatch.setattr(trio, "current_time", lambda: plain() + self.passed)
        monkeypatch.setattr(memory, "LONGEST_WAIT", 0.05)

    async def pass_time(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        self.passed += seconds

    @asynccontextmanager
    async def open_clusters(self) -> AsyncIterator[tuple[Cluster, Cluster]]:
        cluster = MemoryCluster()
        async with cluster.open(), cluster.open():
            yield cluster, cluster


async def test_memory_box_that_is_full() -> None:
    """A node whose box has no place for all that one `send` brings gets nothing of it; others do, and what is done makes place."""
    cluster = MemoryCluster(max_box=3)
    for name in ("a", "b"):
        await cluster.join(Node(name, name, "1", 1), 30.0)
    two = [Mail("a", "b", "1"), Mail("a", "b", "2")]

    assert [] == list(await cluster.send(two))
    assert ["a"] == list(await cluster.send([*two, Mail("b", "a", "3")]))
    found = await cluster.receive("a", (), 10)
    assert ["1", "2"] == [one.body for one in found]
    assert ["3"] == [one.body for one in await cluster.receive("b", (), 10)]
    await cluster.receive("a", [found[0].number], 10)
    assert [] == list(await cluster.send(two))


@pytest.mark.parametrize(
    ("bounds", "error"), [({"max_mail": 1000}, ValueError), ({"max_box": 0}, ValueError), ({"max_box": 1.5}, TypeError)]
)
def test_memory_bounds(bounds: dict[str, int], error: type[Exception]) -> None:
    """A bound that no engine can have is refused, and named."""
    with pytest.raises(error, match=next(iter(bounds))):
        MemoryCluster(**bounds)


async def test_memory_arguments() -> None:
    """A duration that is not one, or a limit of nothing, is refused before anything is changed."""
    cluster = MemoryCluster()
    for ttl in (0.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="ttl"):
            await cluster.join(Node("a", "a", "1", 1), ttl)
    with pytest.raises(ValueError, match="limit"):
        await cluster.receive("a", (), 0)
    with pytest.raises(ValueError, match=r"U\+0000"):
        await cluster.send([Mail("a", "b", "\0")])

    assert [] == list(await cluster.nodes())


async def test_memory_wait_ends_when_its_node_leaves(autojump_clock: trio.testing.MockClock) -> None:
    """A node that leaves does not wait any longer."""
    cluster = MemoryCluster()
    await cluster.join(Node("a", "a", "1", 1), 30.0)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.wait, "a")
        await trio.testing.wait_all_tasks_blocked()
        await cluster.leave("a")

    assert began == trio.current_time()
