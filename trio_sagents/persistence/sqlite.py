"""A store in one SQLite file, which outlives the process: also one that is killed."""

import math
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args

import trio

from trio_sagents.data.ids import check_id
from trio_sagents.data.records import UNCHECKED, Check, Commit, Conversation, ConversationPage, HistoryPage, Owner, Unchecked, accept_all
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import PersistenceError
from trio_sagents.persistence import _sqlite_tables as tables
from trio_sagents.persistence._records import check_limit, decode_cursor, encode_commit, wanted_key
from trio_sagents.persistence._sqlite_group_commit import GroupCommit, Transaction
from trio_sagents.persistence._sqlite_schema import Synchronous, connect, create_file, explained, prepare

T = TypeVar("T")
_open_files: Final[set[tuple[int, int]]] = set()
"""(device, inode) of each file that is open in this process: two stores on one file would not see each other's agents."""
_open_files_lock: Final = threading.Lock()


class _File:
    """The file while it is open: a connection that writes, one that reads."""

    def __init__(self, path: str, *, busy_timeout: float, synchronous: Synchronous) -> None:
        """Open it (in a thread).

        Raises:
            PersistenceError: it cannot be used; nothing stays open.
        """
        self.path = path
        with explained(path), ExitStack() as undo:
            self._key = _claim(path)
            undo.callback(_release, self._key)
            self._writing = undo.enter_context(closing(connect(path, busy_timeout=busy_timeout, synchronous=synchronous)))
            prepare(self._writing, path)
            self._reading = undo.enter_context(closing(connect(path, busy_timeout=busy_timeout, synchronous=synchronous)))
            self._reading.execute("PRAGMA query_only = ON")
            undo.pop_all()
        self.is_open = True
        self.group_commit = GroupCommit(self._writing, path)
        self._reader = trio.Lock()
        self._thread = trio.CapacityLimiter(1)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query on one state of the file, in a thread.

        Cancellation: while it waits for its turn; a query that has begun goes to its end.
        """
        async with self._reader:
            if not self.is_open:
                raise _not_open(self.path)
            return await trio.to_thread.run_sync(self._query, query, limiter=self._thread)

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        with explained(self.path):
            self._reading.execute("BEGIN")
            try:
                return query(self._reading)
            finally:
                if self._reading.in_transaction:
                    self._reading.execute("ROLLBACK")

    async def close(self) -> None:
        """Close it, when all that was submitted is done."""
        self.is_open = False
        await self.group_commit.wait_idle()
        async with self._reader:
            await trio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        try:
            self._reading.close()
            with suppress(sqlite3.Error):  # all is safe in the log, which the next to open the file reads
                self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._writing.close()
        finally:
            _release(self._key)


def _claim(path: str) -> tuple[int, int]:
    with _open_files_lock:
        create_file(path)
        status = Path(path).stat()
        key = (status.st_dev, status.st_ino)
        if key in _open_files:
            raise PersistenceError(f"the database {path!r} is open in this process already; share one SqliteStore, or close the other")
        _open_files.add(key)
        return key


def _release(key: tuple[int, int]) -> None:
    with _open_files_lock:
        _open_files.discard(key)


def _not_open(path: str) -> PersistenceError:
    return PersistenceError(f"the database {path!r} is not open; use it inside `async with store.open()`, or inside open_sessions")


class SqliteStore:
    """A `ConversationStore` in one SQLite file.

    Concurrent commits share transactions. Every method takes `owner`: a conversation of another one is like a missing one, and is
    not touched; `UNCHECKED`, the default, means anybody's.

    Args:
        path: of the file; made when opened, readable by its owner alone. On a local disk.
        synchronous: "FULL": what was acknowledged survives the loss of power, if the disk does not lie. "NORMAL", which
            saves a flush of the disk on each transaction: it survives the death of the process (`kill -9`); the loss of power may take the
            last commits, as a whole and in reverse order, and never damages the file.
        busy_timeout: seconds to wait for another process that holds the file; finite, must be > 0.

    Raises:
        TypeError: `path` is no path.
        ValueError: it names no file, or another argument is out of range.
    """

    checks_owner: Literal[True] = True

    def __init__(self, path: str | os.PathLike[str], *, synchronous: Synchronous = "FULL", busy_timeout: float = 5.0) -> None:
        name = os.fspath(path) if isinstance(path, os.PathLike) else path
        if not isinstance(name, str):
            raise TypeError(f"path must be str or PathLike, not {type(path).__name__}")
        if not name or "\0" in name:
            raise ValueError(f"path must name a file, not {name!r}")
        if name == ":memory:" or name.startswith("file:"):
            raise ValueError(f"path must be a plain path, not {name!r}; for a store in memory use MemoryStore")
        if synchronous not in get_args(Synchronous):
            raise ValueError(f"synchronous must be 'FULL' or 'NORMAL', not {synchronous!r}")
        if isinstance(busy_timeout, bool) or not isinstance(busy_timeout, int | float):
            raise TypeError(f"busy_timeout must be float, not {type(busy_timeout).__name__}")
        if not 0 < busy_timeout < math.inf:
            raise ValueError(f"busy_timeout must be finite and > 0, not {busy_timeout}")
        self._path = name
        self._synchronous: Synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._file: _File | None = None

    def __repr__(self) -> str:
        return f"SqliteStore({self._path!r}, synchronous={self._synchronous!r})"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the file; close it when the block is left, after what was submitted.

        Raises:
            PersistenceError: the file cannot be used, and why, and what to do; it was left as it is.

        Cancellation: of the opening: either it is open, or nothing stays open. Of the closing: it is closed none the less.
        """
        if self._file is not None:
            raise PersistenceError(f"the database {self._path!r} is open already; a SqliteStore serves one open_sessions at a time")
        file = await trio.to_thread.run_sync(self._open)
        self._file = file
        try:
            yield
        finally:
            self._file = None
            # Cancellation: what was begun is finished. Bounded by the busy timeout of SQLite, not by a deadline: a connection
            # that a thread uses cannot be closed, and a virtual clock would jump over a deadline.
            with trio.CancelScope(shield=True):
                await file.close()

    def _open(self) -> _File:
        return _File(str(Path(self._path).absolute()), busy_timeout=self._busy_timeout, synchronous=self._synchronous)

    def _opened(self) -> _File:
        if self._file is None:
            raise _not_open(self._path)
        return self._file

    async def load(
        self, scope: Scope, conversation_id: str, *, owner: Owner | Unchecked = UNCHECKED, check: Check = accept_all
    ) -> Conversation | None:
        """Return the conversation, or None where there is none, and raise its epoch in the same transaction.

        Args:
            scope: not looked at.
            conversation_id: of the conversation.
            owner: who must own it.
            check: looks at it inside the transaction, in a thread; what it raises leaves the row as it is.

        Returns:
            A new object.

        Raises:
            ConversationNotFound: somebody else owns it; nothing was changed.
            StateError: what is stored is damaged, or a newer version of the library wrote it; nothing was changed.
            PersistenceError: the file could not be read or written; nothing was changed.

        Cancellation: either nothing was changed, or the conversation is returned.
        """
        file = self._opened()
        check_id("conversation_id", conversation_id)
        wanted = wanted_key(owner)
        return await file.group_commit.submit(lambda transaction: tables.load(transaction.connection, conversation_id, wanted, check))

    async def commit(self, scope: Scope, commit: Commit, *, owner: Owner | Unchecked = UNCHECKED) -> int:
        """Make a commit durable, all of it or none, and return its revision.

        Args:
            scope: not looked at.
            commit: what changes; must not change until the call returns.
            owner: who must own the conversation; the commit's owner, where given.

        Raises:
            TypeError: something in it has no JSON form.
            ValueError: something in it cannot be stored, or the owners differ.
            Conflict: the store is not at (commit.epoch, commit.revision - 1), or somebody else owns it; nothing was changed.
            PersistenceError: a message id is used already, a taken message is not in the queue, or the file cannot be written;
                nothing was acknowledged.

        Cancellation: either it had not begun, and is withdrawn; or it goes to its end, and its revision is returned.

        Ordering: commits are made in the order of the calls.
        """
        file = self._opened()
        wanted = wanted_key(owner)

        def store(transaction: Transaction) -> int:
            encoded = encode_commit(commit, owner)
            return tables.commit(transaction.connection, encoded, wanted, transaction.next_change(), transaction.now)

        return await file.group_commit.submit(store)

    async def history(
        self, scope: Scope, conversation_id: str, *, before: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED
    ) -> HistoryPage:
        """Return a page of the transcript.

        Args:
            scope: not looked at.
            conversation_id: of the conversation.
            before: a page's `before`, for the next older page; None for the newest.
            limit: most rows on the page, 1 to 1000.
            owner: who must own it.

        Returns:
            A new page; rows oldest first.

        Raises:
            ConversationNotFound: there is none, or somebody else owns it.
            StateError: a row is damaged.
            PersistenceError: the file could not be read.
            ValueError: `before` is no cursor of a transcript, or `limit` is out of range.

        Cancellation: it only reads; a query that has begun goes to its end.
        """
        file = self._opened()
        check_id("conversation_id", conversation_id)
        place = decode_cursor("r", "before", before)
        check_limit(limit)
        wanted = wanted_key(owner)
        return await file.read(lambda connection: tables.history(connection, conversation_id, wanted, place, limit))

    async def conversations(self, scope: Scope, *, after: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED) -> ConversationPage:
        """Return a page of the conversations, the one changed last first.

        Args:
            scope: not looked at.
            after: a page's `after`, for the next page; None for the first. What changes meanwhile moves to the first page.
            limit: most items on the page, 1 to 1000.
            owner: whose conversations.

        Raises:
            StateError: a line of the list is damaged.
            PersistenceError: the file could not be read.
            ValueError: `after` is no cursor of this list, or `limit` is out of range.

        Cancellation: it only reads; a query that has begun goes to its end.
        """
        file = self._opened()
        place = decode_cursor("c", "after", after)
        check_limit(limit)
        wanted = wanted_key(owner)
        return await file.read(lambda connection: tables.conversations(connection, wanted, place, limit))

    async def delete(self, scope: Scope, conversation_id: str, *, owner: Owner | Unchecked = UNCHECKED) -> bool:
        """Delete the conversation and its transcript; False where there is none, or where somebody else owns it.

        Args:
            scope: not looked at.
            conversation_id: of the conversation.
            owner: who must own it.

        Raises:
            PersistenceError: the file could not be written; nothing was deleted.

        Cancellation: either nothing was deleted, or the answer is returned.
        """
        file = self._opened()
        check_id("conversation_id", conversation_id)
        wanted = wanted_key(owner)
        return await file.group_commit.submit(lambda transaction: tables.delete(transaction.connection, conversation_id, wanted))
