"""The store in one SQLite file: the conformance kit, groups, cancellation, and what it says of files it cannot use."""

import contextlib
import datetime
import gc
import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import get_args

import attrs
import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from tests.support.scenarios import (
    answer_to,
    opened,
    transcript,
)
from tests.support.stores import make_first
from trio_sagents.abc import ConversationStore, OpenableStore, OwnedStore
from trio_sagents.data.records import ENDS, UNCHECKED, Commit, DisplayMessage, Lifecycle
from trio_sagents.exceptions import Conflict, PersistenceError, StateError, StateFromFuture
from trio_sagents.persistence import SqliteStore, _records, sqlite
from trio_sagents.persistence import _sqlite_tables as tables
from trio_sagents.persistence._sqlite_messages import HISTORY
from trio_sagents.persistence._sqlite_schema import STORE_FILE
from trio_sagents.persistence._windows import NO_END
from trio_sagents.testing.conformance_store import StoreConformance


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


def change(conversation_id: str = "c", revision: int = 1, **parts: object) -> Commit:
    first = Commit(conversation_id=conversation_id, agent_id="a", owner=None, epoch=1, revision=revision, lifecycle="on_step")
    return attrs.evolve(first, **parts)  # type: ignore[arg-type]  # the fields of a commit


def message(message_id: str = "m1", text: str = "Hello") -> dict[str, object]:
    return {"v": 1, "message_id": message_id, "text": text}


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file as another program does, without waiting for locks."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        yield connection


def writing(store: SqliteStore) -> sqlite3.Connection:
    assert store._file is not None
    return store._file._writing


def groups(store: SqliteStore) -> int:
    assert store._file is not None
    return store._file.group_commit.groups


class _Conformance(StoreConformance):
    synchronous: str

    @pytest.fixture(autouse=True)
    def _path(self, path: Path) -> None:
        self.path = path

    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[ConversationStore]:
        store = SqliteStore(self.path, synchronous=self.synchronous)  # type: ignore[arg-type]  # one of the two
        async with store.open():
            yield store


class TestFull(_Conformance):
    synchronous = "FULL"


class TestNormal(_Conformance):
    synchronous = "NORMAL"


class TestFirstVersion(_Conformance):
    """On files that a library of version 1 made."""

    synchronous = "NORMAL"

    @pytest.fixture(autouse=True)
    def _first(self, path: Path) -> None:
        make_first(path)


# --- built, opened, closed


@pytest.mark.parametrize(
    ("argument", "error", "says"),
    [
        (":memory:", ValueError, "MemoryStore"),
        ("file:x.db?mode=memory", ValueError, "MemoryStore"),
        ("", ValueError, "path"),
        ("a\0b", ValueError, "path"),
        (b"x.db", TypeError, "path"),
        (None, TypeError, "path"),
        (3, TypeError, "path"),
    ],
)
def test_path_that_is_none(argument: str, error: type[Exception], says: str) -> None:
    """What names no file is refused when the store is built."""
    with pytest.raises(error, match=says):
        SqliteStore(argument)


@pytest.mark.parametrize("synchronous", ["OFF", "full", None, 1])
def test_synchronous_that_is_none(synchronous: str) -> None:
    """Only FULL and NORMAL are offered."""
    with pytest.raises(ValueError, match="FULL"):
        SqliteStore("x.db", synchronous=synchronous)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("timeout", "error"), [(0, ValueError), (-1, ValueError), (float("inf"), ValueError), (True, TypeError), ("1", TypeError)]
)
def test_busy_timeout_that_is_none(timeout: float, error: type[Exception]) -> None:
    """A value that is not a time, or has no end, is refused."""
    with pytest.raises(error, match="busy_timeout"):
        SqliteStore("x.db", busy_timeout=timeout)


def test_building_opens_nothing(path: Path) -> None:
    """A store that is only built has made no file."""
    store = SqliteStore(path)

    assert (True, True, False) == (isinstance(store, OwnedStore), isinstance(store, OpenableStore), path.exists())
    assert f"SqliteStore({str(path)!r}, synchronous='FULL')" == repr(store)


async def test_file_is_private(path: Path) -> None:
    """The file, and what SQLite puts beside it, can be read by their owner alone; closing leaves the file only."""
    store = SqliteStore(path)
    async with store.open():
        await store.commit(None, change())
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert {"chat.db": 0o600, "chat.db-wal": 0o600, "chat.db-shm": 0o600} == modes

    assert ["chat.db"] == [file.name for file in path.parent.iterdir()]


async def test_use_while_closed(path: Path) -> None:
    """Before it is opened, and after it is closed, every method says so, and names the file."""
    store = SqliteStore(path)
    calls: list[Callable[[], object]] = [
        lambda: store.load(None, "c"),
        lambda: store.commit(None, change()),
        lambda: store.history(None, "c", before=None, limit=1),
        lambda: store.conversations(None, after=None, limit=1),
        lambda: store.delete(None, "c"),
    ]
    for _ in range(2):
        for call in calls:
            with pytest.raises(PersistenceError, match=r"chat\.db.*not open.*open_sessions"):
                await call()  # type: ignore[misc]
        async with store.open():
            pass


def test_reopened(path: Path) -> None:
    """Another object, in another event loop and with another mode, finds what was committed."""

    async def write(store: SqliteStore, revision: int) -> None:
        async with store.open():
            await store.commit(None, change(revision=revision, messages=[message(f"m{revision}")]))

    store = SqliteStore(path, synchronous="NORMAL")
    trio.run(write, store, 1)
    trio.run(write, store, 2)
    trio.run(write, SqliteStore(path), 3)

    async def read() -> None:
        async with store.open():
            conversation = await store.load(None, "c")
            assert conversation is not None
            assert [message("m1"), message("m2"), message("m3")] == conversation.messages

    trio.run(read)


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
async def test_modes(path: Path, synchronous: str) -> None:
    """The file is in write-ahead logging, flushed as was asked."""
    store = SqliteStore(path, synchronous=synchronous)  # type: ignore[arg-type]
    async with store.open():
        found = [writing(store).execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "trusted_schema")]

    assert ["wal", {"FULL": 2, "NORMAL": 1}[synchronous], 0] == found


async def test_open_twice(path: Path) -> None:
    """A file serves one store of this process at a time, by whatever name. The store that has the file is not harmed."""
    link, hard = path.with_name("link.db"), path.with_name("hard.db")
    store = SqliteStore(path)
    async with store.open():
        await store.commit(None, change())
        link.symlink_to(path)
        hard.hardlink_to(path)
        for other in (
            store,
            SqliteStore(path),
            SqliteStore(path.parent / ".." / path.parent.name / path.name),
            SqliteStore(link),
            SqliteStore(hard),
        ):
            with pytest.raises(PersistenceError, match="open"):
                async with other.open():
                    pass
        await store.commit(None, change(revision=2))
        with raw(path) as connection, pytest.raises(sqlite3.OperationalError, match="locked"):
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = DELETE")
    async with SqliteStore(link).open():
        pass


async def test_cancelled_opening(path: Path) -> None:
    """An opening that is cancelled leaves nothing open."""
    with trio.CancelScope() as scope:
        scope.cancel()
        async with SqliteStore(path).open():
            pass
    async with SqliteStore(path).open():
        pass


async def test_nothing_stays_open(path: Path) -> None:
    """Opening and closing, also in vain, leaves no file descriptor."""
    bad = path.with_name("bad.db")
    bad.write_bytes(b"x" * 5000)

    async def run() -> int:
        store = SqliteStore(path)
        async with store.open():
            await store.load(None, "c")
            await store.conversations(None, after=None, limit=1)
        with pytest.raises(PersistenceError):
            async with SqliteStore(bad).open():
                pass
        return len(list(Path("/proc/self/fd").iterdir()))  # not a disk

    first = await run()
    assert first == await run()


async def test_what_the_block_raises_leaves_as_it_is(path: Path) -> None:
    """An error of the block is not wrapped, and the file is closed."""
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with SqliteStore(path).open():
            raise error
    assert error is caught.value
    async with SqliteStore(path).open():
        pass


async def test_closing_while_commits_run(path: Path) -> None:
    """A commit that was submitted inside the block is done before the file is closed."""
    store = SqliteStore(path)
    done: list[int] = []

    async def run(n: int) -> None:
        done.append(await store.commit(None, change(f"c{n}")))

    async with trio.open_nursery() as nursery, store.open():
        for n in range(20):
            nursery.start_soon(run, n)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()  # the closing is shielded, the waiting commits are withdrawn
    async with store.open():
        page = await store.conversations(None, after=None, limit=100)

    assert len(done) == len(page.items)


async def test_reading_while_it_closes(path: Path) -> None:
    """A query that still waits for its turn when the file is closed is told that it is not open."""
    store = SqliteStore(path)
    opened, may_end = trio.Event(), trio.Event()

    async def read() -> None:
        with pytest.raises(PersistenceError, match="not open"):
            await store.conversations(None, after=None, limit=1)

    async def use() -> None:
        async with store.open():
            opened.set()
            await may_end.wait()

    async def hold_the_turn() -> None:
        assert store._file is not None
        async with store._file._reader:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            may_end.set()
            await wait_all_tasks_blocked(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use)
        await opened.wait()
        await hold_the_turn()


# --- files that cannot be used


def make_text(path: Path) -> None:
    path.write_text("these are my notes\n" * 300)


def make_short_text(path: Path) -> None:
    path.write_text("hello")


def make_foreign(path: Path) -> None:
    with raw(path) as connection:
        connection.execute("CREATE TABLE notes (text)")


def make_other_program(path: Path) -> None:
    with raw(path) as connection:
        connection.execute("PRAGMA application_id = 77")


async def _make_ours(path: Path) -> None:
    store = SqliteStore(path)
    async with store.open():
        await store.commit(None, change())


def make_newer(path: Path) -> None:
    trio.run(_make_ours, path)
    with raw(path) as connection:
        connection.execute("PRAGMA user_version = 3")


def make_other_tables(path: Path) -> None:
    trio.run(_make_ours, path)
    with raw(path) as connection:
        connection.execute("ALTER TABLE messages ADD COLUMN extra")


def make_trigger(path: Path) -> None:
    trio.run(_make_ours, path)
    with raw(path) as connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON messages BEGIN DELETE FROM messages; END")


def make_damaged(path: Path) -> None:
    trio.run(_make_ours, path)
    content = bytearray(path.read_bytes())
    content[100:200] = b"\xff" * 100
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (make_text, "not an SQLite database.*another path"),
        (make_short_text, "not an SQLite database.*another path"),
        (make_foreign, "another program.*another path"),
        (make_other_program, "another program.*another path"),
        (make_newer, "file version 3.*upgrade"),
        (make_other_tables, "tables.*backup"),
        (make_trigger, "tables.*backup"),
        (make_damaged, "backup|another path"),
    ],
)
def test_file_that_cannot_be_used(path: Path, make: Callable[[Path], None], says: str) -> None:
    """A file that is not ours, or cannot be used, is an error that names it and says what to do. Not one byte of the file changes."""
    make(path)
    content = path.read_bytes()

    async def use() -> None:
        async with SqliteStore(path).open():
            pass

    with pytest.raises(PersistenceError, match=rf"(?s)chat\.db.*{says}"):
        trio.run(use)
    assert content == path.read_bytes()


async def test_place_that_cannot_be_used(path: Path) -> None:
    """A folder, a pipe, a link to nothing, and a folder that is not there, are errors that name the path."""
    folder, pipe, link, missing = (path.parent / name for name in ("folder", "pipe", "link", "no/where.db"))
    folder.mkdir()
    os.mkfifo(pipe)
    link.symlink_to(path.with_name("nothing"))
    for place, says in (
        (folder, "folder"),
        (pipe, "not a regular file"),
        (link, "link"),
        (missing, "no folder .*make it"),
        (path.parent / ("x" * 300), "too long"),
    ):
        with pytest.raises(PersistenceError, match=f"{place.name}.*{says}"):
            async with SqliteStore(place).open():
                pass


async def test_file_that_is_read_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be written is an error that says so, when it is opened and later; nothing is acknowledged."""
    store = SqliteStore(path)
    async with store.open():
        writing(store).execute("PRAGMA query_only = ON")
        with pytest.raises(PersistenceError, match=r"chat\.db.*make the file and its folder writable"):
            await store.commit(None, change())
        writing(store).execute("PRAGMA query_only = OFF")
        assert await store.commit(None, change()) == 1

    def connect_read_only(path: str, **options: float) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)

    monkeypatch.setattr(sqlite, "connect", connect_read_only)
    with pytest.raises(PersistenceError, match=r"chat\.db.*make the file and its folder writable"):
        async with store.open():
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
async def test_folder_that_cannot_be_written(path: Path) -> None:
    """A folder without permission is an error that says so."""
    path.parent.chmod(0o500)
    with pytest.raises(PersistenceError, match="permissions"):
        async with SqliteStore(path).open():
            pass


# --- locked, full, failing


async def test_locked_when_opened(path: Path) -> None:
    """A file that another process holds is an error that says so; when that is over, it opens."""
    await _make_ours(path)
    store = SqliteStore(path, busy_timeout=0.01)
    with raw(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(PersistenceError, match=r"chat\.db.*another process"):
            async with store.open():
                pass
    async with store.open():
        await store.load(None, "c")


async def test_locked_when_written(path: Path) -> None:
    """While another process holds the file, nothing is acknowledged or stored, and reading continues."""
    store = SqliteStore(path, busy_timeout=0.01)
    async with store.open():
        await store.commit(None, change())
        with raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            for call in (lambda: store.commit(None, change(revision=2)), lambda: store.load(None, "c"), lambda: store.delete(None, "c")):
                with pytest.raises(PersistenceError, match=r"chat\.db.*another process"):
                    await call()
            assert len((await store.conversations(None, after=None, limit=1)).items) == 1
        assert await store.commit(None, change(revision=2)) == 2


async def test_full_disk(path: Path) -> None:
    """Without room, nothing is acknowledged that is not stored. With room again, the store continues."""
    store = SqliteStore(path)
    async with store.open():
        (pages,) = writing(store).execute("PRAGMA page_count").fetchone()
        writing(store).execute(f"PRAGMA max_page_count = {pages + 20}")
        refused: dict[str, str] = {}

        async def run(name: str, size: int) -> None:
            try:
                await store.commit(None, change(name, messages=[message(text="x" * size)]))
            except PersistenceError as exc:
                refused[name] = str(exc)

        async with trio.open_nursery() as nursery:
            for n in range(10):
                nursery.start_soon(run, f"big{n}", 30_000)
                nursery.start_soon(run, f"small{n}", 10)
        assert refused
        assert all("chat.db" in text and "room" in text for text in refused.values())
        listed = {item.conversation_id for item in (await store.conversations(None, after=None, limit=100)).items}
        assert {f"{size}{n}" for size in ("big", "small") for n in range(10)} - refused.keys() == listed
        writing(store).execute("PRAGMA max_page_count = 100000")
        for name in sorted(refused):
            await run(name, 30_000)
        assert len((await store.conversations(None, after=None, limit=100)).items) == 20


class _FailingCommit:
    """A connection whose COMMIT fails, as on a disk that breaks."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, *arguments: object) -> object:
        if statement == "COMMIT":
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(statement, *arguments)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


async def test_commit_of_the_group_fails(path: Path) -> None:
    """When the transaction cannot be committed every member fails, and nothing of any is stored."""
    store = SqliteStore(path)
    async with store.open():
        assert store._file is not None
        failed: list[PersistenceError] = []

        async def run(n: int) -> None:
            try:
                await store.commit(None, change(f"c{n}"))
            except PersistenceError as exc:
                failed.append(exc)

        store._file.group_commit._connection = _FailingCommit(writing(store))  # type: ignore[assignment]
        async with trio.open_nursery() as nursery:
            for n in range(10):
                nursery.start_soon(run, n)
        store._file.group_commit._connection = writing(store)
        assert len({id(exc) for exc in failed}) == 10
        assert all("chat.db" in str(exc) and isinstance(exc.__cause__, sqlite3.Error) for exc in failed)
        assert not (await store.conversations(None, after=None, limit=1)).items
        assert await store.commit(None, change("c1")) == 1


async def test_error_of_the_program(path: Path) -> None:
    """An unforeseen error reaches the task that leads the group. The other tasks get an error, and the next commit works."""
    store = SqliteStore(path)
    async with store.open():
        assert store._file is not None
        writer = store._file.group_commit
        caught: list[Exception] = []

        def broken(_transaction: object) -> None:
            raise ZeroDivisionError

        async def run(n: int) -> None:
            try:
                await (writer.submit(broken) if n == 0 else store.commit(None, change(f"c{n}")))
            except (ZeroDivisionError, PersistenceError) as exc:
                caught.append(exc)

        async with trio.open_nursery() as nursery:
            for n in range(5):
                nursery.start_soon(run, n)
        assert [1, 4] == [sum(isinstance(exc, kind) for exc in caught) for kind in (ZeroDivisionError, PersistenceError)]
        assert await store.commit(None, change("c1")) == 1


# --- groups and cancellation


async def test_commits_share_transactions(path: Path) -> None:
    """A thousand commits at once take a handful of transactions."""
    store = SqliteStore(path)
    async with store.open():
        async with trio.open_nursery() as nursery:
            for n in range(1000):
                nursery.start_soon(store.commit, None, change(f"c{n}", messages=[message()]))
        assert groups(store) <= 3
        assert len((await store.conversations(None, after=None, limit=1000)).items) == 1000


async def test_one_member_fails(path: Path) -> None:
    """Of a group, a member that fails after it had written takes nothing of the others with it, and leaves nothing of itself."""
    store = SqliteStore(path)
    async with store.open():
        await store.commit(None, change("bad", message_ids={"m": "d"}))
        before = groups(store)
        failed: list[str] = []

        async def run(name: str, commit: Commit) -> None:
            try:
                await store.commit(None, commit)
            except (PersistenceError, TypeError):
                failed.append(name)

        async with trio.open_nursery() as nursery:
            for n in range(10):
                nursery.start_soon(run, f"c{n}", change(f"c{n}", messages=[message()]))
            nursery.start_soon(run, "bad", change("bad", 2, messages=[message()], message_ids={"m": "d"}))
            nursery.start_soon(run, "stale", change("bad", 9))
            nursery.start_soon(run, "typed", change("typed", messages=[{"x": object()}]))
        assert (1, ["bad", "stale", "typed"]) == (groups(store) - before, sorted(failed))
        assert {"bad", *(f"c{n}" for n in range(10))} == {
            item.conversation_id for item in (await store.conversations(None, after=None, limit=100)).items
        }
        conversation = await store.load(None, "bad")
        assert conversation is not None
        assert (1, []) == (conversation.revision, conversation.messages)


async def test_cancelled_while_queued(path: Path) -> None:
    """A commit that waits for its group is withdrawn at once; the group that runs, and who else waits, are not harmed."""
    store = SqliteStore(path, busy_timeout=60)
    ended: list[str] = []
    scopes = {name: trio.CancelScope() for name in "abcd"}

    async def run(name: str) -> None:
        with scopes[name]:
            await store.commit(None, change(name))
        ended.append(name)

    async with store.open():
        with raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, "a")
                await wait_all_tasks_blocked()  # in the thread, waiting for the lock
                for name in "bcd":
                    nursery.start_soon(run, name)
                    await wait_all_tasks_blocked()
                scopes["b"].cancel()  # the next leader
                scopes["c"].cancel()
                await wait_all_tasks_blocked()
                assert {"b", "c"} == set(ended)
                other.execute("ROLLBACK")
        assert ["d", "a"] == [item.conversation_id for item in (await store.conversations(None, after=None, limit=9)).items]
        assert (True, True, False) == (scopes["b"].cancelled_caught, scopes["c"].cancelled_caught, scopes["d"].cancelled_caught)


async def test_cancelled_while_it_runs(path: Path) -> None:
    """A commit that has begun runs to its end and is reported, to the task that leads and to the others of its group."""
    store = SqliteStore(path, busy_timeout=60)
    reported: list[int] = []

    async def run(name: str) -> None:
        reported.append(await store.commit(None, change(name)))

    async def run_all(scope: trio.CancelScope) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                for name in "abc":
                    nursery.start_soon(run, name)

    scope = trio.CancelScope()
    async with store.open():
        with raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_all, scope)
                await wait_all_tasks_blocked()
                scope.cancel()
                await wait_all_tasks_blocked()
                assert [] == reported
                other.execute("ROLLBACK")
        assert [1, 1, 1] == reported


async def test_next_leader_is_cancelled_when_chosen(path: Path) -> None:
    """A task that was made the leader leads, also when it is cancelled in the same pass: the others do not wait for ever."""
    store = SqliteStore(path, busy_timeout=60)
    scopes = {name: trio.CancelScope() for name in "abc"}

    async def run(name: str) -> None:
        with scopes[name]:
            await store.commit(None, change(name))
        scopes["b"].cancel()  # by "a", which wakes in the pass in which "b" is chosen

    async with store.open():
        with raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            async with trio.open_nursery() as nursery:
                for name in "abc":
                    nursery.start_soon(run, name)
                    await wait_all_tasks_blocked()
                other.execute("ROLLBACK")
        assert len((await store.conversations(None, after=None, limit=9)).items) == 3


async def test_every_method_checkpoints(path: Path) -> None:
    """Every method passes a checkpoint."""
    store = SqliteStore(path)
    async with store.open():
        with assert_checkpoints():
            await store.load(None, "c")
        with assert_checkpoints():
            await store.commit(None, change())
        with assert_checkpoints():
            await store.history(None, "c", before=None, limit=1)
        with assert_checkpoints():
            await store.conversations(None, after=None, limit=1)
        with assert_checkpoints():
            await store.delete(None, "nothing")


async def test_idle_store_holds_no_lock(path: Path) -> None:
    """At rest no transaction is open: another process may write."""
    store = SqliteStore(path)
    async with store.open():
        await store.commit(None, change())
        await store.history(None, "c", before=None, limit=1)
        with pytest.raises(Conflict):
            await store.commit(None, change())
        with raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("UPDATE conversations SET epoch = 5")
            other.execute("COMMIT")
            assert (0, 0) == tuple(other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[:2])
        conversation = await store.load(None, "c")
        assert conversation is not None
        assert conversation.epoch == 6


async def test_refusals_leave_no_garbage(path: Path) -> None:
    """A refused commit leaves no reference cycle."""
    store = SqliteStore(path)
    async with store.open():
        await store.commit(None, change(message_ids={"m": "d"}))
        gc.collect()
        gc.disable()
        try:
            for wrong in (change(), change(revision=2, message_ids={"m": "d"}), change(messages=[{"x": object()}])):
                for _ in range(20):
                    with pytest.raises((PersistenceError, TypeError)):
                        await store.commit(None, wrong)
            assert gc.collect() == 0
        finally:
            gc.enable()


# --- cost


async def test_cost_does_not_grow(path: Path) -> None:
    """A commit writes as many bytes to a conversation of five thousand messages as to one of ten."""
    store = SqliteStore(path)

    async def cost(revision: int) -> float:
        writing(store).execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for n in range(revision, revision + 20):
            await store.commit(None, change(revision=n, messages=[message(f"m{n}-{k}", "x" * 500) for k in range(2)]))
        return path.with_name("chat.db-wal").stat().st_size / 20

    async with store.open():
        writing(store).execute("PRAGMA wal_autocheckpoint = 0")
        await store.commit(None, change(messages=[message(f"m{n}", "x" * 500) for n in range(10)]))
        short = await cost(2)
        await store.commit(None, change(revision=22, messages=[message(f"n{n}", "x" * 500) for n in range(5000)]))
        long = await cost(23)

    assert long < 1.3 * short


async def test_lists_use_an_index(path: Path) -> None:
    """Pages are read from an index: nothing is scanned, nothing is sorted."""
    store = SqliteStore(path)
    async with store.open():
        for query, arguments in (
            (tables.LIST_OWNED, ("1", 9, 9)),
            (tables.PAGE_OF_ROWS, (1, 9, 9)),
            (HISTORY, (1, 0, NO_END)),
        ):
            plan = [step[3] for step in writing(store).execute(f"EXPLAIN QUERY PLAN {query}", arguments)]
            assert len(plan) == 1
            assert plan[0].startswith("SEARCH")
        plan = [step[3] for step in writing(store).execute(f"EXPLAIN QUERY PLAN {tables.LIST_ALL}", (9, 9))]

    # The list of all owners merges the first conversations of each owner: it sorts those, and scans nothing else.
    assert 4 == sum(step.startswith("SEARCH conversations USING") for step in plan)
    assert {"SCAN owners"} == {step for step in plan if step.startswith("SCAN")}


# --- what is stored is untrusted

DAMAGE = [
    ("UPDATE messages SET body = 'not json'", "not JSON"),
    ("UPDATE messages SET body = '[1]'", "list"),
    ("UPDATE messages SET body = '7'", "int"),
    ("UPDATE messages SET body = 7.5", "float"),
    ("UPDATE messages SET body = x'7b7d'", "bytes"),
    ("UPDATE messages SET body = CAST(x'7bff7d' AS TEXT)", "utf-8"),
    ("UPDATE messages SET body = CAST(x'7b22eda08022 3a317d' AS TEXT)".replace(" 3a", "3a"), "utf-8"),
    ("""UPDATE messages SET body = '{"a": 1, "a": 2}'""", "duplicate key"),
    ("""UPDATE messages SET body = '{"a": NaN}'""", "NaN"),
    (f"""UPDATE messages SET body = '{'{"a":' * 100_000}'""", "recursion|not JSON"),
    ("UPDATE messages SET body = printf('%.*c', 100000, 'x')", "too big"),
    ("DELETE FROM messages", "has 0 messages"),
    ("UPDATE conversations SET epoch = 'x'", "counters"),
    ("UPDATE conversations SET epoch = -1", "counters"),
    ("UPDATE conversations SET revision = 1.5", "counters"),
    ("UPDATE conversations SET message_count = x'00'", "counters"),
    ("UPDATE conversations SET owner = 'nonsense'", "not JSON"),
    ("UPDATE conversations SET owner = '[1]'", "owner"),
    ("UPDATE conversations SET owner = 'true'", "owner"),
    ("UPDATE conversations SET owner = CAST(x'ff' AS TEXT)", "utf-8"),
    ("UPDATE queue SET body = '{}'", "queued"),
    ("UPDATE queue SET message_id = 'other'", "queued"),
    ("UPDATE queue SET body = 'x'", "not JSON"),
    ("UPDATE queue SET digest = x'00'", "message id"),
    ("UPDATE messages SET digest = x'00', message_id = 'm'", "message id"),
    ("UPDATE messages SET digest = 'd'", "message id"),
    ("INSERT INTO message_ids VALUES (1, 'm', x'00')", "message id"),
    ("UPDATE state SET body = ''", "not JSON"),
    ("UPDATE state SET name = x'00'", "state"),
]


def dump(path: Path) -> list[str]:
    with raw(path) as connection:
        connection.text_factory = bytes
        return [repr(row) for table in ("conversations", *tables.PARTS) for row in connection.execute(f"SELECT * FROM {table}")]


@pytest.mark.parametrize(("statement", "says"), DAMAGE, ids=[statement[:60] for statement, _ in DAMAGE])
async def test_load_of_what_is_damaged(path: Path, statement: str, says: str) -> None:
    """What cannot be used is a StateError that names the conversation; it stays as it is, the epoch too, and can be deleted."""
    store = SqliteStore(path)
    async with store.open():
        await store.commit(
            None,
            change(messages=[message()], queued=[message("q")], message_ids={"q": "d"}, state={"metadata": {}}),
        )
    with raw(path) as connection:
        connection.execute(statement)
    before = dump(path)
    async with store.open():
        writing(store).setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 90_000 if "printf" in statement else 10_000_000)
        for _ in range(2):
            with pytest.raises(StateError, match=rf"(?s)'c'.*{says}"):
                await store.load(None, "c")
        assert before == dump(path)
        await store.commit(None, change("other"))
        assert await store.load(None, "other") is not None
        assert await store.delete(None, "c")
        assert await store.load(None, "c") is None


async def test_load_of_a_newer_record(path: Path) -> None:
    """A record of a newer version is StateFromFuture, and the epoch stays: its writer is not fenced off."""
    store = SqliteStore(path)
    async with store.open():
        await store.commit(None, change(messages=[{"v": 999}]))
        with pytest.raises(StateFromFuture, match=r"'c'.*999"):
            await store.load(None, "c")
        assert await store.commit(None, change(revision=2)) == 2


@pytest.mark.parametrize(
    "fields",
    [
        "content = 'x'",
        "content = '[]'",
        "content = 5",
        "role = 'god'",
        "status = 'odd'",
        "created_at = 'now'",
        "created_at = '2024-01-01'",
        "row_id = x'00'",
        "message_id = x'00'",
        "content_type = CAST(x'ff' AS TEXT)",
        """content = '{"a":"\\ud800"}'""",
    ],
)
async def test_history_of_what_is_damaged(path: Path, fields: str) -> None:
    """A damaged row of a transcript is a StateError that names the conversation."""
    store = SqliteStore(path)
    async with store.open():
        await store.commit(None, change(rows=[_row()]))
        with raw(path) as connection:
            connection.execute(f"UPDATE transcript SET {fields}")
        with pytest.raises(StateError, match="'c'"):
            await store.history(None, "c", before=None, limit=1)


@pytest.mark.parametrize(
    "fields", ["title = x'00'", "message_count = 'x'", "updated_at = 'x'", "updated_at = '2024-01-01'", "owner = '[]'"]
)
async def test_list_of_what_is_damaged(path: Path, fields: str) -> None:
    """A damaged row of the list is a StateError that names the conversation; bytes that are not text are a PersistenceError."""
    store = SqliteStore(path)
    async with store.open():
        await store.commit(None, change())
        with raw(path) as connection:
            connection.execute(f"UPDATE conversations SET {fields}")
        with pytest.raises(StateError, match="'c'"):
            await store.conversations(None, after=None, limit=1)
        with raw(path) as connection:
            connection.execute("UPDATE conversations SET conversation_id = CAST(x'ff' AS TEXT)")
        with pytest.raises(PersistenceError, match="damaged"):
            await store.conversations(None, after=None, limit=1)


async def test_damaged_and_foreign(path: Path) -> None:
    """A damaged conversation of another owner looks like a missing one."""
    store = SqliteStore(path)
    async with store.open():
        await store.commit(None, change(owner=1))
        with raw(path) as connection:
            connection.execute("UPDATE conversations SET epoch = 'x'")
        with pytest.raises(LookupError):
            await store.load(None, "c", owner=2)


async def test_commit_of_a_record_that_is_too_big(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record over the limit is refused by the limit's name, with nothing stored."""
    monkeypatch.setattr(_records, "MAX_RECORD_BYTES", 100)
    store = SqliteStore(path)
    async with store.open():
        with pytest.raises(PersistenceError, match="MAX_RECORD_BYTES"):
            await store.commit(None, change(messages=[message(text="x" * 200)]))
        assert await store.load(None, "c") is None


@pytest.mark.parametrize("conversation_id", ["", "x" * 257, "a\nb", 5, None])
async def test_id_that_is_none(path: Path, conversation_id: str) -> None:
    """A value that is not an id is refused before anything is touched."""
    store = SqliteStore(path)
    async with store.open():
        for call in (store.load, store.delete):
            with pytest.raises((TypeError, ValueError), match="conversation_id"):
                await call(None, conversation_id)
        assert groups(store) == 0


def test_advice_for_errors_of_python() -> None:
    """An error that SQLite did not number is shown as it is."""
    assert "the database 'x': odd" == str(STORE_FILE.explain("x", sqlite3.ProgrammingError("odd")))


def _row() -> DisplayMessage:
    return DisplayMessage("r", "m", "user", "text", {"text": "Hello"}, "completed", datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC))


async def test_operation_that_sqlite_refuses(path: Path) -> None:
    """A statement that SQLite refuses, in the middle of a group, fails its own operation alone, and the error says which file it was."""
    store = SqliteStore(path)
    async with store.open():
        assert store._file is not None
        writer = store._file.group_commit

        async def refused() -> None:
            with pytest.raises(PersistenceError, match=r"chat\.db.*no such table") as caught:
                await writer.submit(lambda _: writing(store).execute("SELECT * FROM nowhere"))
            assert isinstance(caught.value.__cause__, sqlite3.Error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused)
            nursery.start_soon(store.commit, None, change())

        assert await store.commit(None, change(revision=2)) == 2


async def test_store_when_nothing_is_said_about_flushing(tmp_path: Path) -> None:
    """What was acknowledged survives a loss of power, unless the host chose otherwise."""
    store = SqliteStore(tmp_path / "chat.db")
    async with store.open():
        assert store._file is not None
        assert (2,) == store._file._writing.execute("PRAGMA synchronous").fetchone()


async def test_delete_of_the_conversation_that_came_last(tmp_path: Path) -> None:
    """Nothing of it stays in the file, neither for a reader of the file nor for the conversation that gets its number."""
    name = tmp_path / "chat.db"
    store = SqliteStore(name)
    async with opened(store=store) as sessions:
        await answer_to(sessions, "secret")
        await sessions.stop("c")
        assert await sessions.delete("c")
        assert [] == _left_in(name)
        await answer_to(sessions, "other", "next")

        assert ["other", "re: other"] == [text for _, text, _ in await transcript(sessions, "next")]


def _left_in(name: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(name)) as connection:
        tables = [table for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return [table for table in tables if connection.execute(f'SELECT count(*) FROM "{table}"').fetchone() != (0,)]  # its own names


LIFECYCLES = {lifecycle: lifecycle in ENDS for lifecycle in get_args(Lifecycle)}


@pytest.mark.parametrize(("lifecycle", "comes_first"), LIFECYCLES.items(), ids=LIFECYCLES)
async def test_list_when_a_turn_takes_a_step(path: Path, lifecycle: Lifecycle, comes_first: bool) -> None:
    """A conversation comes first in the lists when it begins, and whenever a turn ends or begins to wait; nothing else moves it."""
    store = SqliteStore(path)
    async with store.open():
        for name in "abc":
            await store.commit(None, change(name, lifecycle="on_message"))
        await store.commit(None, change("b", 2, lifecycle=lifecycle, state={"metadata": {"title": "B"}}))
        for owner in (UNCHECKED, None):
            items = (await store.conversations(None, after=None, limit=9, owner=owner)).items
            assert ("bca" if comes_first else "cba") == "".join(item.conversation_id for item in items)
            assert ["B"] == [item.title for item in items if item.conversation_id == "b"]
