"""The cluster in PostgreSQL, on a real server: the kit, notifications, a listener that is cut, and renewals against takeovers."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
import trio

from tests.support.postgres import needs_postgres
from trio_sagents.cluster import postgres as module
from trio_sagents.cluster.postgres import PostgresCluster
from trio_sagents.exceptions import PersistenceError, RegistryUnavailable
from trio_sagents.nodes import Cluster, Mail, Node
from trio_sagents.testing.conformance_cluster import ClusterConformance

pytestmark = [pytest.mark.slow, needs_postgres]


@asynccontextmanager
async def two_clusters(conninfo: str) -> AsyncIterator[tuple[PostgresCluster, PostgresCluster]]:
    first, second = PostgresCluster(conninfo, connections=2), PostgresCluster(conninfo, connections=2)
    async with first.open(), second.open():
        yield first, second


class TestPostgres(ClusterConformance):
    ttl = 0.4

    @pytest.fixture(autouse=True)
    def _conninfo(self, conninfo: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.conninfo = conninfo
        monkeypatch.setattr(module, "LONGEST_WAIT", 0.5)

    @asynccontextmanager
    async def open_clusters(self) -> AsyncIterator[tuple[Cluster, Cluster]]:
        async with two_clusters(self.conninfo) as clusters:
            yield clusters


async def arrive(cluster: PostgresCluster, node_id: str, count: int = 1) -> None:
    """Wait until mails have arrived, and remove them."""
    with trio.fail_after(10):
        while len(found := await cluster.receive(node_id, (), 100)) < count:
            await cluster.wait(node_id)
    await cluster.receive(node_id, [one.number for one in found], 100)


async def test_notifications_arrive(conninfo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mail is told of at once, by a notification, though nobody polls for long; a session that is cut is made again."""
    monkeypatch.setattr(module, "LONGEST_WAIT", 600.0)
    async with two_clusters(conninfo) as (here, there):
        await here.join(Node("a", "a", "1", 1), 60.0)
        await there.wait("a")  # listens from now on
        for cut in (False, True):
            if cut:
                with psycopg.connect(conninfo, autocommit=True) as connection:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'trio_sagents cluster'"
                    )
                await here.send([Mail("a", "b", "0")])
                await arrive(there, "a")
                await there.wait("a")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(arrive, there, "a")
                await trio.sleep(0.2)
                await here.send([Mail("a", "b", "1")])


async def test_notifications_that_do_not_arrive(conninfo: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Behind a pooler that breaks sessions the cluster warns, and polls."""

    async def never(session: Any) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(module, "_notified", never)
    monkeypatch.setattr(module, "PROBE_TIMEOUT", 0.05)
    with caplog.at_level(logging.WARNING):
        async with two_clusters(conninfo) as (here, there):
            await here.join(Node("a", "a", "1", 1), 60.0)
            await here.send([Mail("a", "b", "1")])
            await arrive(there, "a")
    assert "session pooling" in caplog.text
    caplog.clear()


async def test_mail_whose_number_is_lower_than_what_was_read(conninfo: str) -> None:
    """A mail that was committed late, with a number that was drawn early, is received."""
    async with two_clusters(conninfo) as (here, there):
        await here.join(Node("a", "a", "1", 1), 60.0)
        with psycopg.connect(conninfo) as slow:
            slow.execute("INSERT INTO trio_sagents_mail (recipient, sender, body) VALUES ('a', 'slow', '1')")
            await here.send([Mail("a", "quick", "2")])
            (found,) = await there.receive("a", (), 10)
            assert "quick" == found.sender
            slow.commit()
        (late,) = await there.receive("a", [found.number], 10)
        assert "slow" == late.sender
        assert late.number < found.number


async def contend(here: PostgresCluster, there: PostgresCluster, node_id: str, conversation_id: str) -> None:
    """Let a node renew its lease late, while another node takes its conversation; check that both know the same."""
    kept: list[str] = []
    got: list[str] = []

    async def renew() -> None:
        assert await here.renew(node_id, 60.0)
        found = await here.holders([conversation_id])
        kept.extend(claim.node_id for claim in found.values())

    async def take() -> None:
        if await there.claim(conversation_id, "b") is None:
            got.append("b")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(renew)
        nursery.start_soon(take)
    assert kept == (got or [node_id])


async def test_takeover_while_a_late_renewal_is_under_way(conninfo: str) -> None:
    """Either the late renewal comes first, and the other node is refused; or the other node does, and the renewed node sees it."""
    async with two_clusters(conninfo) as (here, there):
        await there.join(Node("b", "b", "1", 1), 60.0)
        for number in range(10):
            await here.join(Node(f"a{number}", "a", "1", 1), 0.05)
            await here.claim(f"c{number}", f"a{number}")
            await trio.sleep(0.06)
            await contend(here, there, f"a{number}", f"c{number}")


async def test_server_that_cannot_be_reached() -> None:
    """It is an error that names no password: of `open` before anything, and "nobody knows" later."""
    cluster = PostgresCluster("postgresql://user:secret@127.0.0.1:1/none", connect_timeout=0.5)
    with pytest.raises(PersistenceError) as caught:
        async with cluster.open():
            pass  # pragma: no cover  # it raises before
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(cluster)
    with pytest.raises(RegistryUnavailable, match="is not open"):
        await cluster.nodes()
