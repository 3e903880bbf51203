"""Paths that lead elsewhere: a store opens the regular file that it was given, or refuses and leaves everything as it was."""

import os
import socket
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.scenarios import answer_to, make_agent, opened
from trio_sagents import PersistenceError, SqliteStore


async def use(path: Path) -> None:
    """Keep a conversation in a file."""
    async with opened(make_agent(), store=SqliteStore(path)) as sessions:
        await answer_to(sessions)


async def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask, nobody else can read the database, its log or its index while it is open, or after."""
    before = os.umask(0)
    try:
        async with opened(make_agent(), store=SqliteStore(tmp_path / "chat.db")) as sessions:
            await answer_to(sessions)
            open_modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)

    assert {"chat.db", "chat.db-wal", "chat.db-shm"} == set(open_modes)
    assert {0o600} == set(open_modes.values())
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}


def _plant(kind: str, folder: Path) -> Path:
    """Put something at a path, and return it."""
    path = folder / "chat.db"
    match kind:
        case "a folder":
            path.mkdir()
        case "a FIFO":
            os.mkfifo(path)
        case "a link to nothing":
            path.symlink_to(folder / "elsewhere" / "secret")
        case "a link to a device":
            path.symlink_to("/dev/zero")
        case "a link to a FIFO":
            os.mkfifo(folder / "fifo")
            path.symlink_to(folder / "fifo")
        case "a link to itself":
            path.symlink_to(path)
        case "a socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(str(path))
        case "a text":
            path.write_text("root:x:0:0\n" * 100)
        case "a link to a text":
            (folder / "passwd").write_text("root:x:0:0\n" * 100)
            path.symlink_to(folder / "passwd")
        case "another program's database":
            with sqlite3.connect(path) as connection:
                connection.execute("CREATE TABLE t (x)")
            connection.close()
        case _:
            raise AssertionError(kind)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "a folder",
        "a FIFO",
        "a link to nothing",
        "a link to a device",
        "a link to a FIFO",
        "a link to itself",
        "a socket",
        "a text",
        "a link to a text",
        "another program's database",
    ],
)
async def test_path_of_something_else(kind: str, tmp_path: Path) -> None:
    """A file that is not our database is refused at once, by name, and not written to. No file is made next to it."""
    path = _plant(kind, tmp_path)
    is_text = path.is_file()
    before = path.read_bytes() if is_text else b""
    names = set(os.listdir(tmp_path))
    with trio.fail_after(15), pytest.raises(PersistenceError, match="database"):
        await use(path)

    assert names == set(os.listdir(tmp_path))
    assert before == (path.read_bytes() if is_text else b"")


@pytest.mark.parametrize(
    "statement", ["CREATE TRIGGER t AFTER INSERT ON messages BEGIN DELETE FROM queue; END", "CREATE VIEW v AS SELECT 1"]
)
async def test_database_with_programs_inside(statement: str, tmp_path: Path) -> None:
    """A database into which somebody put code of his own is not used."""
    path = tmp_path / "chat.db"
    await use(path)
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(PersistenceError, match="tables"):
        await use(path)


@pytest.mark.parametrize("how", ["symlink", "hard link", "dotted", "relative"])
async def test_one_file_by_two_names(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file is open once in a process, by whatever name: two stores on it would not see each other's agents."""
    path, other = tmp_path / "chat.db", tmp_path / "other.db"
    await use(path)
    match how:
        case "symlink":
            other.symlink_to(path)
        case "hard link":
            os.link(path, other)
        case "dotted":
            (tmp_path / "sub").mkdir()
            other = tmp_path / "sub" / ".." / "chat.db"
        case _:
            monkeypatch.chdir(tmp_path)
            other = Path("chat.db")
    async with SqliteStore(path).open():
        with pytest.raises(PersistenceError, match="open in this process already"):
            await use(other)


@pytest.mark.parametrize("path", ["", "a\0b", ":memory:", "file:chat.db?mode=memory", "file::memory:?cache=shared"])
def test_path_that_means_something_else(path: str) -> None:
    """A path is a path: no address, no memory, no NUL."""
    with pytest.raises(ValueError, match="path"):
        SqliteStore(path)


@pytest.mark.parametrize("path", [None, 7, b"chat.db", ["chat.db"]])
def test_path_that_is_none(path: Any) -> None:
    """A value that is not a path is a TypeError."""
    with pytest.raises(TypeError, match="path"):
        SqliteStore(path)


async def test_conversation_ids_name_no_files(tmp_path: Path) -> None:
    """An id that looks like a path is a text in a table: nothing is made on the disk for it."""
    (tmp_path / "db").mkdir()
    async with opened(make_agent(), store=SqliteStore(tmp_path / "db" / "chat.db")) as sessions:
        for name in ("../escape", "/etc/escape", "..\\escape", "~/escape", "%2e%2e%2fescape", "db-wal"):
            await answer_to(sessions, "hi", name)

        assert {"chat.db", "chat.db-wal", "chat.db-shm"} == set(os.listdir(tmp_path / "db"))
    assert {"db"} == set(os.listdir(tmp_path))
