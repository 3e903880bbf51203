"""The library's own engines of a cluster, through the kit that hosts use for theirs, and what is special about each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_sagents import PersistenceError, RegistryUnavailable, SqliteStore
from trio_sagents.cluster import MemoryCluster, SqliteCluster, memory, sqlite_nodes
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


class TestSqlite(ClusterConformance):
    """By a clock of the test's own: what waits for a thread must not wait for a virtual clock."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = tmp_path / "nodes.db"
        self.now = 1e9
        monkeypatch.setattr(sqlite_nodes, "LONGEST_WAIT", 0.2)

    @asynccontextmanager
    async def open_clusters(self) -> AsyncIterator[tuple[Cluster, Cluster]]:
        here, there = (SqliteCluster(self.path, clock=lambda: self.now, poll_interval=0.01) for _ in range(2))
        async with here.open(), there.open():
            yield here, there

    async def pass_time(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        self.now += seconds

    async def test_clock_that_is_set_back(self) -> None:
        """A lease lasts no longer than it was given for, though the clock was set back by an hour."""
        async with self.open_clusters() as (here, there):
            await here.join(Node("a", "a", "1", 1), 5)
            await there.join(Node("b", "b", "1", 1), 50)
            await here.claim("c", "a")
            self.now -= 3600
            claim = await there.claim("c", "b")
            assert claim is not None
            assert 5 == claim.expires_in
            self.now += 5
            assert await there.claim("c", "b") is None

    async def test_box_that_is_full(self) -> None:
        """A node whose box has no place for all that one `send` brings gets nothing of it."""
        small = SqliteCluster(self.path, clock=lambda: self.now, max_box=3)
        async with small.open():
            await small.join(Node("a", "a", "1", 1), 5)
            two = [Mail("a", "b", "1"), Mail("a", "b", "2")]
            assert [] == list(await small.send(two))
            assert ["a"] == list(await small.send(two))
            assert [] == list(await small.send(two[:1]))
            assert 3 == len(await small.receive("a", (), 10))

    async def test_file_that_is_deleted(self) -> None:
        """In another file nothing is given while leases of the old file may last; then the node is one that the cluster has forgotten."""
        async with self.open_clusters() as (here, there):
            await here.join(Node("a", "a", "1", 1), 30.0)
            await here.claim("c", "a")
            await there.nodes()
            self.path.unlink()
            with pytest.raises(RegistryUnavailable, match=r"was deleted or replaced .* no lease is given for 30\.0 s"):
                await here.renew("a", 30.0)
            self.now += 30
            assert await here.renew("a", 30.0) is False
            await here.join(Node("a2", "a", "1", 1), 30.0)
            assert [] == list(await there.send([Mail("a2", "b", "1")]))
            with trio.fail_after(5):
                while not await here.receive("a2", (), 10):
                    await here.wait("a2")

    async def test_open_when_it_is_open(self) -> None:
        """One block at a time uses an object; another object on the same file is right for a second block."""
        cluster = SqliteCluster(self.path)
        async with cluster.open():
            with pytest.raises(PersistenceError, match="make one for each open_sessions"):
                async with cluster.open():
                    pass  # pragma: no cover  # it raises before
        async with cluster.open():
            assert [] == list(await cluster.nodes())

    async def test_open_when_the_file_is_another_programs(self) -> None:
        """The file of a store, or of no database, is refused by `open`, and is left as it is."""
        async with SqliteStore(self.path).open():
            pass
        before = self.path.read_bytes()
        with pytest.raises(PersistenceError, match="is the file of another program or class"):
            async with SqliteCluster(self.path).open():
                pass  # pragma: no cover  # it raises before
        with pytest.raises(PersistenceError, match=r"the cluster file .*no/folder"):
            async with SqliteCluster(self.path.parent / "no" / "folder").open():
                pass  # pragma: no cover  # it raises before

        assert before == self.path.read_bytes()


@pytest.mark.parametrize("interval", [0.0, 1000.0, float("nan")])
def test_sqlite_poll_interval(interval: float) -> None:
    """An interval that is none is refused."""
    with pytest.raises(ValueError, match="poll_interval"):
        SqliteCluster("nodes.db", poll_interval=interval)


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
