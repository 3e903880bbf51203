"""Opening a database file: its path, the file itself, connections to it, and its tables."""

import math
import os
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path
from typing import Final, Literal, TypeAlias

from trio_sagents._sqlite.kinds import DatabaseKind
from trio_sagents.exceptions import PersistenceError

FileKey: TypeAlias = tuple[int, int]
"""Device and inode of a file."""
_open_files: Final[set[FileKey]] = set()
"""Each file that is open in this process: two stores on one file would not see each other's agents, two backends not each other's edits."""
_open_files_lock: Final = threading.Lock()


def check_path(path: object, in_memory: str) -> str:
    """Return a path as text.

    Args:
        path: str or PathLike.
        in_memory: the class that errors name to somebody who wants no file.

    Raises:
        TypeError: `path` is not a path.
        ValueError: `path` does not name a plain file.
    """
    name = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(name, str):
        raise TypeError(f"path must be str or PathLike, not {type(path).__name__}")
    if not name or "\0" in name:
        raise ValueError(f"path must name a file, not {name!r}")
    if name == ":memory:" or name.startswith("file:"):
        raise ValueError(f"path must be a plain path, not {name!r}; use {in_memory} to keep everything in memory")
    return name


def check_busy_timeout(busy_timeout: object) -> float:
    """Return seconds; TypeError or ValueError unless they are finite and > 0."""
    if isinstance(busy_timeout, bool) or not isinstance(busy_timeout, int | float):
        raise TypeError(f"busy_timeout must be float, not {type(busy_timeout).__name__}")
    if not 0 < busy_timeout < math.inf:
        raise ValueError(f"busy_timeout must be finite and > 0, not {busy_timeout}")
    return busy_timeout


def create_file(kind: DatabaseKind, path: str) -> None:
    """Make the file if there is none, readable by its owner alone.

    A file that exists is not opened: closing a file drops every lock that this process has on it, including SQLite's.

    Raises:
        PersistenceError: something else has that name, or the file cannot be made.
        OSError: the system refused.
    """
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISREG(mode):
            raise PersistenceError(
                f"{kind.name(path)}: this is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}; give another path"
            )
        return
    folder = Path(path).parent
    if not folder.is_dir():
        raise PersistenceError(f"{kind.name(path)}: there is no folder {str(folder)!r}; make it first")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if not Path(path).is_file():  # a link to nowhere; otherwise another process was quicker
            raise PersistenceError(f"{kind.name(path)}: this is a link to a missing file; give another path") from None


def claim(kind: DatabaseKind, path: str) -> FileKey:
    """Make the file if there is none, and keep everybody else in this process from claiming it. `release` ends that.

    Raises:
        PersistenceError: somebody in this process has claimed it, or as `create_file`.
        OSError: the system refused.
    """
    with _open_files_lock:
        create_file(kind, path)
        status = Path(path).stat()
        key = (status.st_dev, status.st_ino)
        if key in _open_files:
            raise PersistenceError(f"{kind.name(path)} is open in this process already; share one {kind.holder}, or close the other")
        _open_files.add(key)
        return key


def release(key: FileKey) -> None:
    """Let others claim the file."""
    with _open_files_lock:
        _open_files.discard(key)


def connect(kind: DatabaseKind, path: str, *, busy_timeout: float, synchronous: Literal["FULL", "NORMAL", "OFF"]) -> sqlite3.Connection:
    """Return a connection to a file that exists, in autocommit mode, usable from any one thread at a time."""
    connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False, cached_statements=64)
    try:
        if kind.max_record_bytes is not None:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, kind.max_record_bytes + 4096)
        for setting in (f"synchronous = {synchronous}", "trusted_schema = OFF", "cell_size_check = ON"):
            connection.execute(f"PRAGMA {setting}")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection, kind: DatabaseKind, path: str) -> None:
    """Check that the file is of this kind, make the tables in an empty file, and turn write-ahead logging on.

    A file of another kind is not changed. The caller that opened the connection closes it on any error, which undoes what was begun.

    Raises:
        PersistenceError: the file is another program's, or of a newer version, or its disk cannot do write-ahead logging.
        sqlite3.Error: SQLite could not.
    """
    if is_empty(connection):
        if kind.page_size is not None:
            connection.execute(f"PRAGMA page_size = {kind.page_size}")  # of a file in which nothing was ever put
        connection.execute("BEGIN IMMEDIATE")
        if is_empty(connection):  # still, now that no other process can write
            for statement in kind.tables.values():
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {kind.application_id}")
            connection.execute(f"PRAGMA user_version = {kind.version}")
        connection.execute("COMMIT")
    _check_tables(connection, kind, path)
    mode = pragma(connection, "journal_mode = WAL")
    if mode != "wal":
        raise PersistenceError(f"{kind.name(path)}: its disk cannot do write-ahead logging (mode {mode!r}); put it on a local disk")
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # the log is made by the first query


def pragma(connection: sqlite3.Connection, name: str) -> object:
    """Return the value of a PRAGMA."""
    with closing(connection.execute(f"PRAGMA {name}")) as cursor:
        row: tuple[object, ...] = cursor.fetchone()
    return row[0]


def is_empty(connection: sqlite3.Connection) -> bool:
    """Return whether nothing was ever put into the file."""
    (count,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return count == 0 and pragma(connection, "application_id") == 0 and pragma(connection, "user_version") == 0


def _check_tables(connection: sqlite3.Connection, kind: DatabaseKind, path: str) -> None:
    if pragma(connection, "application_id") != kind.application_id:
        raise PersistenceError(f"{kind.name(path)}: it belongs to another program, or is not a {kind.holder} file; give another path")
    version = pragma(connection, "user_version")
    if type(version) is not int or version > kind.version:
        raise PersistenceError(
            f"{kind.name(path)}: it has file version {version!r}, this library knows up to {kind.version}; upgrade the library"
        )
    tables = kind.tables if version == kind.version else kind.older.get(version)
    found = dict(connection.execute("SELECT name, sql FROM sqlite_schema"))
    (programs,) = connection.execute("SELECT count(*) FROM sqlite_schema WHERE type IN ('trigger', 'view')").fetchone()
    if programs or tables is None or any(found.get(name) != text for name, text in tables.items()):
        raise PersistenceError(f"{kind.name(path)}: its tables are not those of this library; restore it from a backup")
