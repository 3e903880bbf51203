"""Files in one SQLite file, which survives the process, also one that is killed."""

import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Final, Literal, TypeVar

import trio

from trio_sagents._sqlite import DatabaseKind, FileKey, FileWatch, check_busy_timeout, check_path, claim, connect, prepare, release
from trio_sagents.exceptions import PersistenceError
from trio_sagents.files._backend import FileRecord
from trio_sagents.files._errors import FileConflict, FileExists, FileNotFound, QuotaExceeded
from trio_sagents.files._paths import ScopeKey, parents
from trio_sagents.files._text import decode, digest_of

T = TypeVar("T")
# The content last: a listing then never touches the pages that it fills.
_TABLE: Final = """CREATE TABLE files (
  number INTEGER PRIMARY KEY,
  scope TEXT NOT NULL,
  path TEXT NOT NULL,
  size INTEGER NOT NULL,
  content BLOB NOT NULL,
  UNIQUE (scope, path)
)"""
FILES_FILE: Final = DatabaseKind("file database", "SqliteFiles", 0x54534746, 1, {"files": _TABLE})


class SqliteFiles:
    """A `FileBackend` in one SQLite file.

    Args:
        path: of the file; made when opened, readable by its owner alone. On a local disk, and not the one of a SqliteStore.
        busy_timeout: seconds to wait for another process that holds the file; finite, must be > 0.

    Raises:
        TypeError: `path` is not a path.
        ValueError: it names no file, or `busy_timeout` is out of range.
    """

    def __init__(self, path: str | os.PathLike[str], *, busy_timeout: float = 5.0) -> None:
        self._path = str(Path(check_path(path, "MemoryFiles")).absolute())
        self._busy_timeout = check_busy_timeout(busy_timeout)
        self._watch: FileWatch | None = None
        self._connection: sqlite3.Connection | None = None
        self._thread = trio.CapacityLimiter(1)
        # Invariant: the task that holds its one token is the only one that uses the connection.

    def __repr__(self) -> str:
        return f"SqliteFiles({self._path!r})"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the file; close it when the block is left.

        Raises:
            PersistenceError: the file cannot be used, and why; it was left as it is.

        Cancellation: of the opening: either it is open, or nothing stays open. Of the closing: it is closed none the less.
        """
        if self._connection is not None:
            raise PersistenceError(f"the file database {self._path!r} is open already; a SqliteFiles serves one open_files at a time")
        connection, watch, key = await trio.to_thread.run_sync(self._open, limiter=self._thread)
        self._connection, self._watch = connection, watch
        try:
            yield
        finally:
            self._connection = self._watch = None
            # Cancellation: what a thread has begun is finished; SQLite's busy timeout bounds it.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._close, connection, key, limiter=self._thread)

    def _open(self) -> tuple[sqlite3.Connection, FileWatch, FileKey]:
        with FILES_FILE.explained(self._path), ExitStack() as undo:
            key = claim(FILES_FILE, self._path)
            undo.callback(release, key)
            connection = connect(FILES_FILE, self._path, busy_timeout=self._busy_timeout, synchronous="FULL")
            undo.enter_context(closing(connection))
            prepare(connection, FILES_FILE, self._path)
            watch = FileWatch(FILES_FILE, self._path)
            undo.pop_all()
        return connection, watch, key

    def _close(self, connection: sqlite3.Connection, key: FileKey) -> None:
        try:
            connection.close()
        finally:
            release(key)

    async def _run(self, work: Callable[[sqlite3.Connection], T], *, begin: Literal["BEGIN", "BEGIN IMMEDIATE"] = "BEGIN IMMEDIATE") -> T:
        """Call `work` in one transaction, in a thread; the transaction is committed if this returns, and rolled back if this raises."""
        connection, watch = self._connection, self._watch
        if connection is None or watch is None:
            raise PersistenceError(f"the file database {self._path!r} is not open; use it inside of open_files")
        return await trio.to_thread.run_sync(self._transact, connection, watch, work, begin, limiter=self._thread)

    def _transact(self, connection: sqlite3.Connection, watch: FileWatch, work: Callable[[sqlite3.Connection], T], begin: str) -> T:
        watch.check()
        with FILES_FILE.explained(self._path):
            connection.execute(begin)
            try:
                result = work(connection)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        watch.check_written()
        return result

    async def index(self, scope: ScopeKey) -> Sequence[FileRecord]:
        """Return all files of `scope`, as a new list.

        Cancellation: a query that has begun runs to its end; it only reads.
        """
        key = _text(scope)
        query = "SELECT path, size FROM files WHERE scope = ?"
        return await self._run(
            lambda connection: [FileRecord(path, size) for path, size in connection.execute(query, (key,))], begin="BEGIN"
        )

    async def read(self, scope: ScopeKey, path: str, *, max_bytes: float) -> str:
        """Return the content; raise FileNotFound, or QuotaExceeded if the content has more than `max_bytes`.

        Cancellation: a query that has begun runs to its end; it only reads.
        """

        def work(connection: sqlite3.Connection) -> bytes:
            row = connection.execute("SELECT number, size FROM files WHERE scope = ? AND path = ?", (_text(scope), path)).fetchone()
            if row is None:
                raise FileNotFound(path)
            number, size = row
            if size > max_bytes:
                raise QuotaExceeded("max_file_bytes", size, most=max_bytes, path=path)
            content: bytes = connection.execute("SELECT content FROM files WHERE number = ?", (number,)).fetchone()[0]
            return content

        return decode(path, await self._run(work, begin="BEGIN"))

    async def create(self, scope: ScopeKey, path: str, content: str) -> None:
        """Make a file; raise `FileExists` if the path is taken.

        Cancellation: either nothing was begun, or the file is made.
        """
        data = content.encode()

        def work(connection: sqlite3.Connection) -> None:
            _check_free(connection, _text(scope), path)
            connection.execute("INSERT INTO files (scope, path, size, content) VALUES (?, ?, ?, ?)", (_text(scope), path, len(data), data))

        await self._run(work)

    async def write(self, scope: ScopeKey, path: str, content: str) -> None:
        """Replace the content of a file; make the file if there is none.

        Cancellation: either nothing was begun, or the file has the content.
        """
        data = content.encode()
        statement = (
            "INSERT INTO files (scope, path, size, content) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (scope, path) DO UPDATE SET size = excluded.size, content = excluded.content"
        )
        await self._run(lambda connection: _execute(connection, statement, (_text(scope), path, len(data), data)))

    async def write_if(self, scope: ScopeKey, path: str, content: str, *, digests: Collection[bytes]) -> None:
        """Replace the content of a file if it has one of these digests; raise `FileConflict` otherwise.

        Cancellation: either nothing was begun, or the file has the content.
        """
        data = content.encode()

        def work(connection: sqlite3.Connection) -> None:
            if _digest(connection, _text(scope), path) not in digests:
                raise FileConflict(path)
            statement = "UPDATE files SET size = ?, content = ? WHERE scope = ? AND path = ?"
            connection.execute(statement, (len(data), data, _text(scope), path))

        await self._run(work)

    async def delete_if(self, scope: ScopeKey, path: str, *, digests: Collection[bytes]) -> None:
        """Delete a file if it has one of these digests; raise `FileConflict` if it has another content; do nothing if there is none.

        Cancellation: either nothing was begun, or the file is deleted.
        """

        def work(connection: sqlite3.Connection) -> None:
            found = _digest(connection, _text(scope), path)
            if found is not None and found not in digests:
                raise FileConflict(path)
            connection.execute("DELETE FROM files WHERE scope = ? AND path = ?", (_text(scope), path))

        await self._run(work)

    async def delete(self, scope: ScopeKey, path: str) -> None:
        """Delete a file; do nothing if there is none.

        Cancellation: either nothing was begun, or the file is deleted.
        """
        statement = "DELETE FROM files WHERE scope = ? AND path = ?"
        await self._run(lambda connection: _execute(connection, statement, (_text(scope), path)))

    async def move(self, scope: ScopeKey, old: str, new: str) -> None:
        """Move a file, or all files below a folder, in one transaction.

        Cancellation: either nothing was begun, or everything is moved.
        """
        key = _text(scope)

        def work(connection: sqlite3.Connection) -> None:
            moved = [path for path in (old, *_paths_below(connection, key, old)) if _is_there(connection, key, path)]
            if not moved:
                raise FileNotFound(old)
            _check_free(connection, key, new)
            for path in moved:
                there = new + path[len(old) :]
                connection.execute("UPDATE files SET path = ? WHERE scope = ? AND path = ?", (there, key, path))

        await self._run(work)


def _text(scope: ScopeKey) -> str:
    return json.dumps(scope, ensure_ascii=False, separators=(",", ":"))


def _execute(connection: sqlite3.Connection, statement: str, values: tuple[str | int | bytes, ...]) -> None:
    connection.execute(statement, values)


def _digest(connection: sqlite3.Connection, key: str, path: str) -> bytes | None:
    """Return the digest of the content of a file; None if there is no file."""
    row = connection.execute("SELECT content FROM files WHERE scope = ? AND path = ?", (key, path)).fetchone()
    return None if row is None else digest_of(row[0])


def _is_there(connection: sqlite3.Connection, key: str, path: str) -> bool:
    return connection.execute("SELECT 1 FROM files WHERE scope = ? AND path = ?", (key, path)).fetchone() is not None


def _paths_below(connection: sqlite3.Connection, key: str, folder: str) -> list[str]:
    # A range, not a pattern: the paths in the folder are between "folder/" and "folder0", because "0" follows "/".
    query = "SELECT path FROM files WHERE scope = ? AND path > ? AND path < ?"
    return [path for (path,) in connection.execute(query, (key, f"{folder}/", f"{folder}0"))]


def _check_free(connection: sqlite3.Connection, key: str, path: str) -> None:
    if any(_is_there(connection, key, taken) for taken in (path, *parents(path))) or _paths_below(connection, key, path):
        raise FileExists(path)
