"""A database that is deleted, replaced or truncated while it is open: nothing is acknowledged that nobody will find."""

import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from trio_sagents._sqlite import watching
from trio_sagents.data.records import Commit
from trio_sagents.exceptions import PersistenceError
from trio_sagents.files import SqliteFiles
from trio_sagents.persistence import SqliteStore

BIG = "x" * 200_000


@attrs.define(eq=False)
class Store:
    """A store, and what it acknowledged."""

    backend: SqliteStore
    acknowledged: list[str] = attrs.field(factory=list)

    async def write(self) -> None:
        name = f"c{len(self.acknowledged)}"
        row = {"v": 1, "message_id": "m1", "text": BIG}
        commit = Commit(conversation_id=name, agent_id="a", owner=None, epoch=1, revision=1, lifecycle="on_step", messages=[row])
        await self.backend.commit(None, commit)
        self.acknowledged.append(name)

    async def found(self) -> list[str]:
        page = await self.backend.conversations(None, after=None, limit=1000)
        return sorted(item.conversation_id for item in page.items)


@attrs.define(eq=False)
class Files:
    """Files, and those that were acknowledged."""

    backend: SqliteFiles
    acknowledged: list[str] = attrs.field(factory=list)

    async def write(self) -> None:
        name = f"/f{len(self.acknowledged)}"
        await self.backend.write(("s",), name, BIG)
        self.acknowledged.append(name)

    async def found(self) -> list[str]:
        return sorted(record.path for record in await self.backend.index(("s",)))


KINDS: dict[str, Callable[[Path], Any]] = {"store": lambda path: Store(SqliteStore(path)), "files": lambda path: Files(SqliteFiles(path))}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Callable[[Path], Any]:
    return KINDS[request.param]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def part(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def unlink_all(path: Path) -> None:
    for suffix in watching.SUFFIXES:
        part(path, suffix).unlink()


def replace_with_copy(path: Path, suffix: str) -> None:
    copy = part(path, ".copy")
    shutil.copy(part(path, suffix), copy)
    copy.replace(part(path, suffix))


def replace_with_other(path: Path, suffix: str) -> None:
    part(path, suffix).unlink()
    part(path, suffix).write_bytes(b"")


def checkpoint_and_truncate(path: Path) -> None:
    with raw(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(path, path.stat().st_size // 2)


TROUBLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "all deleted": (unlink_all, "was deleted or moved away"),
    "deleted": (Path.unlink, "was deleted or moved away"),
    "moved": (lambda path: path.rename(part(path, ".moved")), "was deleted or moved away"),
    "replaced by a copy": (lambda path: replace_with_copy(path, ""), "was replaced by another file"),
    "replaced by another": (lambda path: replace_with_other(path, ""), "was replaced by another file"),
    "log deleted": (lambda path: part(path, "-wal").unlink(), r"chat\.db-wal', a part of .*, was deleted"),
    "log replaced": (lambda path: replace_with_copy(path, "-wal"), r"chat\.db-wal', a part of .*, was replaced"),
    "index deleted": (lambda path: part(path, "-shm").unlink(), r"chat\.db-shm', a part of .*, was deleted"),
    "emptied": (lambda path: os.truncate(path, 0), "was truncated"),
    "log emptied": (lambda path: os.truncate(part(path, "-wal"), 0), r"chat\.db-wal', a part of .*, was truncated"),
    "half of the log": (lambda path: os.truncate(part(path, "-wal"), part(path, "-wal").stat().st_size // 2), "was truncated"),
    "half of the database": (checkpoint_and_truncate, "was truncated"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_write_when_the_files_change(path: Path, kind: Any, trouble: str) -> None:
    """Whatever happens to the files, the next write fails, and says which file it was and what to do; so do all later ones."""
    do, says = TROUBLES[trouble]
    thing = kind(path)
    async with thing.backend.open():
        await thing.write()
        do(path)
        for _ in range(2):
            with pytest.raises(PersistenceError, match=says) as caught:
                await thing.write()
            assert "nothing is stored any more. End the program; put the file back" in str(caught.value)

    assert 1 == len(thing.acknowledged)


@pytest.mark.parametrize("trouble", ["all deleted", "replaced by a copy", "log deleted"])
async def test_write_when_the_files_change_during_the_transaction(
    path: Path, kind: Any, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is committed into a file that has just gone is not acknowledged."""
    do, says = TROUBLES[trouble]
    thing = kind(path)
    look = watching.FileWatch.check

    def check(self: watching.FileWatch) -> None:
        look(self)
        do(path)

    async with thing.backend.open():
        await thing.write()
        monkeypatch.setattr(watching.FileWatch, "check", check)
        with pytest.raises(PersistenceError, match=says):
            await thing.write()


@pytest.mark.parametrize("trouble", ["all deleted", "replaced by another"])
async def test_read_when_the_files_change(path: Path, kind: Any, trouble: str) -> None:
    """A read does not show what nobody will find any more."""
    do, says = TROUBLES[trouble]
    thing = kind(path)
    async with thing.backend.open():
        await thing.write()
        do(path)
        with pytest.raises(PersistenceError, match=says):
            await thing.found()


async def test_write_when_the_file_comes_back(path: Path, kind: Any) -> None:
    """A file that is put back under its name is the one that was opened: writing continues, and nothing is missing."""
    thing = kind(path)
    async with thing.backend.open():
        await thing.write()
        for suffix in watching.SUFFIXES:
            part(path, suffix).rename(part(path, suffix + ".away"))
        with pytest.raises(PersistenceError):
            await thing.write()
        for suffix in watching.SUFFIXES:
            part(path, suffix + ".away").rename(part(path, suffix))
        await thing.write()
    again = kind(path)
    async with again.backend.open():
        assert thing.acknowledged == await again.found()


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
async def test_next_program_when_a_part_was_deleted(path: Path, kind: Any, suffix: str) -> None:
    """After the log or its index was deleted, what was acknowledged before is found by the next program."""
    thing = kind(path)
    async with thing.backend.open():
        for _ in range(3):
            await thing.write()
        part(path, suffix).unlink()
        with pytest.raises(PersistenceError):
            await thing.write()
    again = kind(path)
    async with again.backend.open():
        assert thing.acknowledged == [name for name in await again.found() if name in thing.acknowledged]


@pytest.mark.parametrize(
    "statement", ["PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA wal_checkpoint(RESTART)", "VACUUM", "PRAGMA journal_size_limit = 0"]
)
async def test_write_when_another_process_tidies_up(path: Path, kind: Any, statement: str) -> None:
    """A checkpoint or a VACUUM by somebody else shortens files, and takes nothing away: writing continues."""
    thing = kind(path)
    async with thing.backend.open():
        for _ in range(3):
            await thing.write()
        with raw(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            table = "messages" if isinstance(thing, Store) else "files"
            connection.execute(f"CREATE TABLE waste AS SELECT * FROM {table}")  # names of our own
            connection.execute("DROP TABLE waste")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute(statement)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for _ in range(3):
            await thing.write()

        assert thing.acknowledged == await thing.found()


async def test_write_when_the_path_is_a_link(tmp_path: Path, kind: Any) -> None:
    """A link is followed: SQLite's other files are beside the file that it names. A link that names another file is noticed."""
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "real.db", tmp_path / "chat.db"
    real.touch()
    link.symlink_to(real)
    thing = kind(link)
    async with thing.backend.open():
        await thing.write()
        link.unlink()
        link.symlink_to(tmp_path / "other.db")
        (tmp_path / "other.db").touch()
        with pytest.raises(PersistenceError, match="was replaced by another file"):
            await thing.write()


async def test_group_when_the_file_is_gone(path: Path) -> None:
    """Every commit of a group fails, each with an error of its own."""
    store = SqliteStore(path)
    errors: list[BaseException] = []

    async def write(name: str) -> None:
        commit = Commit(conversation_id=name, agent_id="a", owner=None, epoch=1, revision=1, lifecycle="on_step")
        with pytest.raises(PersistenceError) as caught:
            await store.commit(None, commit)
        errors.append(caught.value)

    async with store.open():
        path.unlink()
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(write, f"c{number}")

    assert 5 == len(set(map(id, errors)))


async def test_folder_that_cannot_be_searched(path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that does not say whether the file is there is an error that names the file."""
    thing = kind(path)
    async with thing.backend.open():
        await thing.write()
        stat = os.stat

        def refuse(name: Any, *args: Any, **named: Any) -> os.stat_result:
            if str(name) == str(path):
                raise PermissionError(13, "Permission denied")
            return stat(name, *args, **named)

        monkeypatch.setattr(os, "stat", refuse)
        with pytest.raises(PersistenceError, match=r"chat\.db.*Permission denied"):
            await thing.write()
        monkeypatch.undo()


@asynccontextmanager
async def shortened(path: Path) -> AsyncIterator[Store]:
    """Yield a store whose log another process has shortened."""
    thing = Store(SqliteStore(path))
    async with thing.backend.open():
        await thing.write()
        with raw(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        yield thing


async def test_shorter_file_when_it_cannot_be_read_now(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter file that another process holds is not called truncated: the error says that it is held, and the next write succeeds."""

    def busy(*_: Any, **__: Any) -> sqlite3.Connection:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    async with shortened(path) as thing:
        monkeypatch.setattr(watching, "connect", busy)
        with pytest.raises(PersistenceError, match="another process holds it"):
            await thing.write()
        monkeypatch.undo()
        await thing.write()

        assert 2 == len(thing.acknowledged)
