"""Whether the files of an open database are still those at their paths.

SQLite writes on to files that were deleted or replaced under it, and says that all is well; the next program finds nothing of it.
So the paths are looked at around each transaction, before anything is acknowledged: the database, its write-ahead log, and the
index of that log in shared memory. It costs five calls of `stat`, some microseconds.

- A file that is missing, or has another device or inode, was deleted, moved or replaced. While SQLite has a file open its inode
  is not given to another file, so this comparison is exact.
- A file that is shorter than after our last transaction was perhaps truncated. Another process may shorten the log (a
  checkpoint), and a person the database (VACUUM), so then a new connection reads everything once (`PRAGMA quick_check`). An empty
  database is not opened again, because SQLite would delete its log.

Not noticed: a database that is overwritten in place with a file that is not shorter, before SQLite itself trips over that.

Why not a file descriptor of our own: closing it would drop SQLite's locks.
"""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Final, NoReturn

from trio_sagents._sqlite.kinds import DatabaseKind
from trio_sagents._sqlite.opening import FileKey, connect
from trio_sagents.exceptions import PersistenceError

SUFFIXES: Final = ("", "-wal", "-shm")
"""Of the database, of its write-ahead log, and of the index of that log."""
_SHRINKING: Final = ("", "-wal")
"""Of the files whose sizes are compared."""
_READ_TIMEOUT: Final = 1.0
"""Seconds that the reading of a shortened file waits for another process."""


class FileWatch:
    """The files of one open database. One thread at a time uses it."""

    def __init__(self, kind: DatabaseKind, path: str) -> None:
        """Look at the files of a database that is open, in write-ahead mode, and was read or written.

        Raises:
            PersistenceError: one of them is not there any more.
        """
        self._kind = kind
        self._path = path
        real = os.path.realpath(path)  # SQLite names the two other files after this
        self._files = {suffix: real + suffix if suffix else path for suffix in SUFFIXES}
        self._keys: dict[str, FileKey] = {}
        self._sizes: dict[str, int] = {}
        for suffix in SUFFIXES:
            status = self._stat(suffix)
            self._keys[suffix] = (status.st_dev, status.st_ino)
            self._sizes[suffix] = status.st_size

    def check(self) -> None:
        """Look at the files before a transaction.

        Raises:
            PersistenceError: they are not those that were opened, or not all of their content is there; the message says what to do.
        """
        sizes = self._look(_SHRINKING)
        shorter = [suffix for suffix in _SHRINKING if sizes[suffix] < self._sizes[suffix]]
        if shorter:
            self._read_all(shorter[0], sizes)
        self._sizes = sizes

    def check_written(self) -> None:
        """Look at the files after a transaction of our own, which may have shortened the log. Raises as `check`."""
        sizes = self._look(SUFFIXES)
        if sizes[""] < self._sizes[""]:
            self._read_all("", sizes)
        self._sizes = sizes

    def check_there(self) -> None:
        """Look at the files before a query; nothing is remembered, so a second thread may call this. Raises as `check`."""
        self._look(SUFFIXES)

    def _look(self, suffixes: Sequence[str]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for suffix in suffixes:
            status = self._stat(suffix)
            if (status.st_dev, status.st_ino) != self._keys[suffix]:
                self._refuse(suffix, "was replaced by another file")
            sizes[suffix] = status.st_size
        return sizes

    def _stat(self, suffix: str) -> os.stat_result:
        try:
            return os.stat(self._files[suffix])  # noqa: PTH116  # twice as fast as through a Path
        except FileNotFoundError:
            self._refuse(suffix, "was deleted or moved away")
        except OSError as exc:
            raise self._kind.explain(self._files[suffix], exc) from exc

    def _read_all(self, suffix: str, sizes: dict[str, int]) -> None:
        if sizes[""] == 0:
            self._refuse("", "was truncated")
        try:
            with closing(connect(self._kind, self._path, busy_timeout=_READ_TIMEOUT, synchronous="FULL")) as connection:
                (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as exc:
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                raise self._kind.explain(self._path, exc) from exc
            found = str(exc)
        if found != "ok":
            self._refuse(suffix, "was truncated")

    def _refuse(self, suffix: str, what: str) -> NoReturn:
        name = self._kind.name(self._path) if not suffix else f"{self._files[suffix]!r}, a part of {self._kind.name(self._path)},"
        raise PersistenceError(
            f"{name} {what} while it was open: nothing is stored any more. End the program; put the file back, or a backup of it "
            f"without the files {self._files['-wal']!r} and {self._files['-shm']!r}; start the program again"
        )
