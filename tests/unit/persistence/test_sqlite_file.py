"""The open file of a store: what one query sees, whose threads it uses, and what its errors keep."""

import sqlite3
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_sagents.data.records import Commit
from trio_sagents.exceptions import PersistenceError
from trio_sagents.persistence import SqliteStore
from trio_sagents.persistence import _sqlite_tables as tables


def change(conversation_id: str = "c", revision: int = 1, **parts: Any) -> Commit:
    first = Commit(conversation_id=conversation_id, agent_id="a", owner=None, epoch=1, revision=revision, lifecycle="on_step")
    return attrs.evolve(first, **parts)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[SqliteStore, Any]]:
    """Open a store; yield it, and its file."""
    store = SqliteStore(folder / "chat.db")
    async with store.open():
        yield store, store._file


async def test_query_while_another_process_writes(tmp_path: Path) -> None:
    """A query that reads two tables sees one instant. A commit of another connection in between is visible to the next query."""

    def counts(connection: sqlite3.Connection, *, meanwhile: bool) -> list[int]:
        found = []
        for table in ("conversations", "messages"):
            found += connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # names of our own
            if meanwhile:
                with closing(sqlite3.connect(tmp_path / "chat.db", isolation_level=None, timeout=0)) as other:
                    other.execute("DELETE FROM messages")
        return found

    async with opened(tmp_path) as (store, file):
        await store.commit(None, change(messages=[{"v": 1, "message_id": "m1"}]))
        seen = [await file.read(lambda connection: counts(connection, meanwhile=True)) for _ in range(2)]

    assert [[1, 1], [1, 0]] == seen


async def test_store_while_all_threads_of_the_host_are_busy(tmp_path: Path) -> None:
    """A store has threads of its own: it writes and reads while what else the host runs in threads waits, perhaps for the store."""
    limiter = trio.to_thread.current_default_thread_limiter()
    busy = [object() for _ in range(int(limiter.total_tokens))]
    async with opened(tmp_path) as (store, _):
        for thread in busy:
            limiter.acquire_on_behalf_of_nowait(thread)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.commit, None, change())
            nursery.start_soon(lambda: store.conversations(None, after=None, limit=1))
            await wait_all_tasks_blocked()
            waiting = limiter.statistics().tasks_waiting
            for thread in busy:
                limiter.release_on_behalf_of(thread)

    assert 0 == waiting


class Large:
    """Stands for the result of an operation, which may be a long conversation."""


@attrs.define
class Remembering:
    """An operation that returns something large, and raises once it is called again."""

    made: "weakref.ref[Large] | None" = None

    def __call__(self, transaction: Any) -> Large:
        if self.made is not None:
            raise PersistenceError("not twice")
        large = Large()
        self.made = weakref.ref(large)
        return large


async def test_error_when_the_transaction_is_lost(tmp_path: Path) -> None:
    """An error that is kept does not keep what an operation had returned before the transaction was lost."""

    class Failing:
        in_transaction = False
        total_changes = 0

        def execute(self, statement: str) -> None:
            if statement == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")

    operation = Remembering()
    async with opened(tmp_path) as (_, file):
        file.group_commit._connection, connection = Failing(), file.group_commit._connection
        with pytest.raises(PersistenceError, match="disk I/O error") as caught:
            await file.group_commit.submit(operation)
        file.group_commit._connection = connection

    assert caught.value.__traceback__ is not None
    assert operation.made is not None
    assert operation.made() is None


async def test_error_when_an_operation_is_done_again(tmp_path: Path) -> None:
    """Where another one of the group is undone, an operation is done again, and nothing is left of what it returned at first."""

    def refused(transaction: Any) -> None:
        tables.delete(transaction.connection, "c", None)
        raise PersistenceError("refused")

    operation, errors = Remembering(), []

    async def submit(file: Any, one: Any) -> None:
        with pytest.raises(PersistenceError) as caught:
            await file.group_commit.submit(one)
        errors.append(caught.value)

    may_begin = threading.Event()
    async with opened(tmp_path) as (store, file), trio.open_nursery() as nursery:
        await store.commit(None, change())
        nursery.start_soon(file.group_commit.submit, lambda _: may_begin.wait(20))
        for write in (operation, refused):  # one group, in this order
            await wait_all_tasks_blocked()
            nursery.start_soon(submit, file, write)
        await wait_all_tasks_blocked()
        may_begin.set()

    assert {"not twice", "refused"} == set(map(str, errors))
    assert operation.made is not None
    assert operation.made() is None
