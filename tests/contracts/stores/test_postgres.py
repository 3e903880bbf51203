"""The store in PostgreSQL, on a real server: the conformance kit, fencing between two stores, cancellation, and a server that goes away."""

import faulthandler
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
import trio

from tests.support.postgres import find_server, needs_postgres, running_server
from tests.support.scenarios import answer_to, ask, opened
from trio_sagents.abc import ConversationStore
from trio_sagents.data.records import Checkpoint
from trio_sagents.exceptions import Conflict, PersistenceError
from trio_sagents.persistence import _postgres_windows
from trio_sagents.persistence._windows import Beginning
from trio_sagents.persistence.postgres import PostgresStore
from trio_sagents.testing._store_values import change, loaded, message
from trio_sagents.testing._store_windows import messages_of
from trio_sagents.testing.conformance_store import StoreConformance

pytestmark = [pytest.mark.slow, needs_postgres]


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
    found = find_server()
    assert found is not None
    with running_server(found) as own:
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


async def test_conversation_when_it_outgrows_its_window(conninfo: str) -> None:
    """An agent loads its window alone; older messages are in the history, and an old message that is posted again is a duplicate."""
    store = PostgresStore(conninfo, connections=3)
    async with opened(store=store, policy={"window": 6}) as sessions:
        for number in range(8):
            await ask(sessions, f"m {number}", message_id=f"m{number}")
        await sessions.stop("c")
        state = await (await sessions.start("c")).agent.state()

        assert 0 < len(state.messages) <= 8
        assert 16 == state.older + len(state.messages)
        assert 16 == len((await sessions.history("c")).rows)
        receipt = await sessions.post("c", "m 0", message_id="m0")
        assert receipt.duplicate
        assert "re: m 0" == (await receipt.wait()).message.text  # type: ignore[union-attr]  # it was completed


async def test_window_when_an_earlier_program_writes(conninfo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that knows of no windows loads the whole history, and what it appends is in the window of the next one."""
    async with two_stores(conninfo) as (new, old):
        await new.commit(None, change(messages=messages_of(0, 1, 2, 3)))
        await new.commit(None, change(revision=2, messages=messages_of(4), checkpoint=Checkpoint(1, 2)))
        with monkeypatch.context() as earlier:
            earlier.setattr(_postgres_windows, "find_beginning", lambda *_: Beginning())
            whole = await loaded(old)
            assert (0, messages_of(0, 1, 2, 3, 4)) == (whole.older, whole.messages)
            await old.commit(None, change(revision=3, epoch=whole.epoch, messages=messages_of(5)))
        got = await loaded(new)

        assert (2, messages_of(0, 3, 4, 5)) == (got.older, got.messages)
        await new.commit(None, change(revision=4, epoch=got.epoch, messages=messages_of(6), checkpoint=Checkpoint(1, 5)))
        got = await loaded(new)
        assert (5, messages_of(0, 6)) == (got.older, got.messages)
