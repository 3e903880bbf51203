"""Opening one SQLite file from several processes at once, and on a disk that cannot do what a store needs."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from trio_sagents import PersistenceError, SqliteStore
from trio_sagents._sqlite import create_file, opening
from trio_sagents.persistence import _sqlite_windows as windows
from trio_sagents.persistence._sqlite_schema import STORE_FILE, TABLES, UNFINISHED_INDEX, WAITING_INDEX, connect, prepare


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "chat.db")


def tables(path: str) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'"))


def test_create_file_when_another_process_is_quicker(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that appears between the look and the making is taken as it is."""
    make = os.open

    def slowly(name: str, *args: Any) -> int:
        Path(path).write_bytes(b"made by another")
        return make(name, *args)

    monkeypatch.setattr(os, "open", slowly)
    create_file(STORE_FILE, path)
    monkeypatch.undo()

    assert b"made by another" == Path(path).read_bytes()


def test_prepare_when_another_process_makes_the_tables_first(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If two processes find an empty file, one of them makes the tables. The other one sees this when it is its turn to write."""
    look = opening.is_empty
    looks: list[bool] = []

    def is_empty(connection: sqlite3.Connection) -> bool:
        looks.append(look(connection))
        if len(looks) == 1:
            monkeypatch.setattr(opening, "is_empty", look)
            with closing(connect(path, busy_timeout=1, synchronous="FULL")) as other:
                prepare(other, path)
            monkeypatch.setattr(opening, "is_empty", is_empty)
        return looks[-1]

    monkeypatch.setattr(opening, "is_empty", is_empty)
    create_file(STORE_FILE, path)
    with closing(connect(path, busy_timeout=1, synchronous="FULL")) as connection:
        prepare(connection, path)
        assert not connection.in_transaction

    assert [True, False] == looks
    later = {"state_waiting": WAITING_INDEX, "state_unfinished": UNFINISHED_INDEX, **dict(zip(windows.PARTS, windows.TABLES, strict=True))}
    assert TABLES | {name: text.replace("IF NOT EXISTS ", "") for name, text in later.items()} == tables(path)


def test_prepare_when_the_disk_cannot_do_write_ahead_logging(path: str) -> None:
    """A disk without shared memory is refused, and the error says what to do; here SQLite is told to lock as on such a disk."""
    create_file(STORE_FILE, path)
    with closing(sqlite3.connect(f"file:{path}?vfs=unix-dotfile", uri=True, isolation_level=None)) as connection:
        with pytest.raises(PersistenceError) as caught:
            prepare(connection, path)

    assert f"the database {path!r}: its disk cannot do write-ahead logging (mode 'delete'); put it on a local disk" == str(caught.value)


async def test_history_when_somebody_took_a_table_away(path: str) -> None:
    """A file whose tables are not the library's any more is named, with what happened and what to do."""
    store = SqliteStore(path)
    async with store.open():
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("DROP TABLE conversations")
        with pytest.raises(PersistenceError) as caught:
            await store.history(None, "c", before=None, limit=1)

    advice = "its tables are no longer those of this library; restore it from a backup"
    assert f"the database {path!r}: {advice} (no such table: conversations)" == str(caught.value)
