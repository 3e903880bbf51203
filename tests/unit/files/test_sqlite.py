"""Files in SQLite: files that it cannot use, other processes, and the death of the process."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from trio_sagents._sqlite import opening
from trio_sagents.exceptions import PersistenceError
from trio_sagents.files import DirectoryFiles, FilesConfig, FilesUnsaved, Mount, SqliteFiles, open_files
from trio_sagents.persistence import SqliteStore

S = ("s",)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "files.db"


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        yield connection


async def fails_to_open(path: Path, says: str) -> None:
    with pytest.raises(PersistenceError, match=says):
        async with SqliteFiles(path).open():
            pass
    assert set() == opening._open_files


@pytest.mark.parametrize(
    ("argument", "error"),
    [(":memory:", ValueError), ("file:x", ValueError), ("", ValueError), ("a\0", ValueError), (3, TypeError), (b"x", TypeError)],
)
def test_backend_when_the_path_is_wrong(argument: object, error: type[Exception]) -> None:
    """A path is that of a file."""
    with pytest.raises(error, match="path"):
        SqliteFiles(argument)


@pytest.mark.parametrize(
    ("timeout", "error"), [(0, ValueError), (float("inf"), ValueError), (float("nan"), ValueError), ("5", TypeError), (True, TypeError)]
)
def test_backend_when_the_timeout_is_wrong(timeout: object, error: type[Exception]) -> None:
    """Waiting for another process is bounded."""
    with pytest.raises(error, match="busy_timeout"):
        SqliteFiles("x.db", busy_timeout=timeout)


async def test_open_when_the_file_is_not_ours(path: Path, tmp_path: Path) -> None:
    """A file of another program, of a store, or of a later version is refused, and left as it is."""
    path.write_bytes(b"no database at all" * 100)
    await fails_to_open(path, "files.db")
    path.unlink()
    with raw(path) as connection:
        connection.execute("CREATE TABLE other (x)")
    before = path.read_bytes()
    await fails_to_open(path, "another program")
    assert before == path.read_bytes()
    path.unlink()
    async with SqliteStore(path).open():
        pass
    await fails_to_open(path, "is not a SqliteFiles file")
    await fails_to_open(tmp_path, "this is a folder")
    await fails_to_open(tmp_path / "missing" / "files.db", "make it first")


async def test_open_when_the_version_is_later(path: Path) -> None:
    """A file of a later version, or with other tables, is refused in words that help."""
    async with SqliteFiles(path).open():
        pass
    with raw(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    await fails_to_open(path, "upgrade")
    with raw(path) as connection:
        connection.execute("PRAGMA user_version = 1")
        connection.execute("CREATE TRIGGER t AFTER INSERT ON files BEGIN DELETE FROM files; END")
    await fails_to_open(path, "backup")


async def test_open_when_open_elsewhere(path: Path) -> None:
    """Two backends on one file would not see each other's edits, so the second is refused until the first is closed."""
    async with SqliteFiles(path).open():
        with pytest.raises(PersistenceError, match="in this process already"):
            async with SqliteFiles(path).open():
                pass
    async with SqliteFiles(path).open():
        pass


def test_backend_when_shown(path: Path) -> None:
    """A backend says which file it is."""
    assert f"SqliteFiles({str(path)!r})" == repr(SqliteFiles(path))


async def test_file_when_made(path: Path) -> None:
    """The file is readable by its owner alone."""
    async with SqliteFiles(path).open():
        pass

    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


async def test_write_when_another_process_holds_the_file(path: Path) -> None:
    """A file that is held is a named error; the edit is saved when it is free again."""
    async with open_files(FilesConfig(mounts=[Mount("/", SqliteFiles(path, busy_timeout=0.01))])) as files:
        area = files.area("s")
        await area.create("/a", "one")
        await area.write("/a", "two")
        with raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(FilesUnsaved):
                await area.flush()
            other.execute("ROLLBACK")
        await area.flush()
    async with SqliteFiles(path).open() as _, open_files() as _:
        pass
    with raw(path) as other:
        assert [(b"two",)] == other.execute("SELECT content FROM files").fetchall()


async def test_move_when_names_are_like_patterns(path: Path) -> None:
    """A folder is not a pattern: "%" and "_" in names mean themselves."""
    backend = SqliteFiles(path)
    async with backend.open():
        for name in ("/a%/x", "/ab/x", "/a_/x", "/a%0", "/a%"):
            if name != "/a%":
                await backend.create(S, name, name)
        await backend.move(S, "/a%", "/n")

        assert {"/n/x", "/ab/x", "/a_/x", "/a%0"} == {record.path for record in await backend.index(S)}


async def test_file_when_damaged(path: Path) -> None:
    """A content that is no longer text is a named error."""
    async with open_files(FilesConfig(mounts=[Mount("/", SqliteFiles(path))])) as files:
        await files.area("s").create("/a", "one")
    with raw(path) as other:
        other.execute("UPDATE files SET content = x'ff'")
    async with open_files(FilesConfig(mounts=[Mount("/", SqliteFiles(path))])) as files:
        with pytest.raises(ValueError, match="UTF-8"):
            await files.area("s").read("/a")


KILLED = """
import sys, trio
from trio_sagents.files import *
async def main():
    backend = SqliteFiles(sys.argv[2]) if sys.argv[1] == "sqlite" else DirectoryFiles(sys.argv[2])
    async with open_files(FilesConfig(mounts=[Mount("/", backend)])) as files:
        area = files.area("s")
        for number in range(1_000_000):
            await area.create(f"/f{number}", f"{number} " * 1000)
            await area.write(f"/f{number}", f"{number}+" * 1000)
            if number % 2:
                await area.flush()
            else:
                await area.move(f"/f{number}", f"/m/f{number}")
            print(number, flush=True)
trio.run(main)
"""


def _run_and_kill(kind: str, place: Path) -> int:
    """Return the last number that the program has acknowledged."""
    command = [sys.executable, "-c", KILLED, kind, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout is not None
        last = -1
        for line in process.stdout:
            last = int(line)
            if last == 20:
                os.kill(process.pid, signal.SIGKILL)
                break
        return max([last, *map(int, process.stdout.read().split())])


@pytest.mark.parametrize("kind", ["sqlite", "directory"])
async def test_process_when_killed(tmp_path: Path, kind: str) -> None:
    """After a kill -9 everything that was acknowledged is there, every file is whole, and none is there twice."""
    place = tmp_path / "files.db" if kind == "sqlite" else tmp_path
    last = _run_and_kill(kind, place)
    backend = SqliteFiles(place) if kind == "sqlite" else DirectoryFiles(place)
    async with open_files(FilesConfig(mounts=[Mount("/", backend)])) as files:
        area = files.area("s")
        found = {info.path: (await area.read(info.path)).text for info in await area.list()}
    for number in range(last + 1):
        if number % 2:
            assert f"{number}+" * 1000 == found.pop(f"/f{number}")
        else:
            assert found.pop(f"/m/f{number}") in {f"{number} " * 1000, f"{number}+" * 1000}
    assert len(found) <= 1
    for path, text in found.items():
        number = path.rpartition("f")[2]
        assert text in {f"{number} " * 1000, f"{number}+" * 1000}
