"""A store in one SQLite file, which outlives the process, even if the process is killed."""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Literal, TypeVar, get_args

import trio

from trio_sagents._sqlite import FileWatch, Synchronous, check_busy_timeout, check_path, claim, pragma, release
from trio_sagents.data.ids import check_id
from trio_sagents.data.records import (
    UNCHECKED,
    Check,
    Commit,
    Conversation,
    ConversationPage,
    HistoryPage,
    OlderPage,
    Owner,
    Recalled,
    Unchecked,
    WaitingPage,
    accept_all,
)
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import PersistenceError
from trio_sagents.persistence import _sqlite_tables as tables
from trio_sagents.persistence._records import check_limit, decode_cursor, encode_commit, wanted_key
from trio_sagents.persistence._sqlite_group_commit import GroupCommit, Transaction
from trio_sagents.persistence._sqlite_messages import tables_of
from trio_sagents.persistence._sqlite_migration import migrate
from trio_sagents.persistence._sqlite_schema import STORE_FILE, connect, prepare

T = TypeVar("T")


class _File:
    """The file while it is open: one connection that writes, and one that reads."""

    def __init__(self, path: str, *, busy_timeout: float, synchronous: Synchronous) -> None:
        """Open the file; to be called in a thread.

        Raises:
            PersistenceError: the file cannot be used; nothing stays open.
        """
        self.path = path
        with STORE_FILE.explained(path), ExitStack() as undo:
            self._key = claim(STORE_FILE, path)
            undo.callback(release, self._key)
            self._writing = undo.enter_context(closing(connect(path, busy_timeout=busy_timeout, synchronous=synchronous)))
            prepare(self._writing, path)
            self._reading = undo.enter_context(closing(connect(path, busy_timeout=busy_timeout, synchronous=synchronous)))
            self._reading.execute("PRAGMA query_only = ON")
            self.messages = tables_of(pragma(self._writing, "user_version"))
            self._watch = FileWatch(STORE_FILE, path)
            self.group_commit = GroupCommit(self._writing, path, self._watch)
            undo.pop_all()
        self.is_open = True
        self._reader = trio.Lock()
        self._thread = trio.CapacityLimiter(1)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query on one state of the file, in a thread.

        Cancellation: possible while the query waits for its turn; a query that has begun runs to its end.
        """
        async with self._reader:
            if not self.is_open:
                raise _not_open(self.path)
            return await trio.to_thread.run_sync(self._query, query, limiter=self._thread)

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        self._watch.check_there()
        with STORE_FILE.explained(self.path):
            self._reading.execute("BEGIN")
            try:
                return query(self._reading)
            finally:
                if self._reading.in_transaction:
                    self._reading.execute("ROLLBACK")

    async def close(self) -> None:
        """Close the file, after all that was submitted is done."""
        self.is_open = False
        await self.group_commit.wait_idle()
        async with self._reader:
            await trio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        try:
            self._reading.close()
            with suppress(sqlite3.Error):  # everything is safe in the log, which the next program reads
                self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._writing.close()
        finally:
            release(self._key)


def _not_open(path: str) -> PersistenceError:
    return PersistenceError(f"the database {path!r} is not open; use it inside `async with store.open()`, or inside open_sessions")


class SqliteStore:
    """A `ConversationStore` in one SQLite file.

    Concurrent commits share transactions. Every method takes `owner`: a conversation of another owner is like a missing one, and is
    not touched. `UNCHECKED`, the default, stands for any owner.

    If the file, its log, or the index of its log is deleted, replaced or truncated while it is open, every call raises a
    PersistenceError from then on, and nothing more is acknowledged.

    Args:
        path: of the file, on a local disk; the file is made when the store is opened, readable by its owner alone.
        synchronous: with "FULL" what was acknowledged survives the loss of power, if the disk does not lie. "NORMAL" saves a flush
            of the disk on each transaction: what was acknowledged survives the death of the process (`kill -9`); a loss of power may
            take the last commits, each as a whole and the latest ones first, and never damages the file.
        busy_timeout: seconds to wait for another process that holds the file; finite, must be > 0.

    Raises:
        TypeError: `path` is not a path.
        ValueError: `path` does not name a plain file, or another argument is out of range.
    """

    checks_owner: Literal[True] = True

    def __init__(self, path: str | os.PathLike[str], *, synchronous: Synchronous = "FULL", busy_timeout: float = 5.0) -> None:
        self._path = check_path(path, "MemoryStore")
        if synchronous not in get_args(Synchronous):
            raise ValueError(f"synchronous must be 'FULL' or 'NORMAL', not {synchronous!r}")
        self._synchronous: Synchronous = synchronous
        self._busy_timeout = check_busy_timeout(busy_timeout)
        self._file: _File | None = None

    def __repr__(self) -> str:
        return f"SqliteStore({self._path!r}, synchronous={self._synchronous!r})"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the file; close it when the block is left, after all that was submitted is done.

        Raises:
            PersistenceError: the file cannot be used; the message says why, and what to do. The file was left as it is.

        Cancellation: of the opening: either the file is open, or nothing stays open. Of the closing: the file is closed anyway.
        """
        if self._file is not None:
            raise PersistenceError(f"the database {self._path!r} is open already; a SqliteStore serves one open_sessions at a time")
        file = await trio.to_thread.run_sync(self._open)
        self._file = file
        try:
            yield
        finally:
            self._file = None
            # Cancellation: what was begun is finished. SQLite's busy timeout bounds this, and not a deadline: a connection that
            # a thread uses cannot be closed, and a virtual clock would jump over a deadline.
            with trio.CancelScope(shield=True):
                await file.close()

    async def migrate(self) -> bool:
        """Rewrite a file that an earlier version of the library made, as a new file is: then a turn writes a third of the bytes.

        Without this, the file can be used as it is. The store, and everybody else, must have closed the file; the disk needs room for
        a copy. A library of the earlier version cannot open the file afterwards, so make a copy before.

        Returns:
            Whether the file was rewritten; False if there was nothing to do.

        Raises:
            PersistenceError: there is no such file, it cannot be used, somebody has it open, or the disk is full. Nothing is lost.

        Cancellation: the work runs to its end, and its answer is returned. If the process dies meanwhile, nothing is lost: call again.
        """
        if self._file is not None:
            raise PersistenceError(f"the database {self._path!r} is open; close the store before its file is migrated")
        return await trio.to_thread.run_sync(migrate, self._path, self._busy_timeout)

    def _open(self) -> _File:
        return _File(str(Path(self._path).absolute()), busy_timeout=self._busy_timeout, synchronous=self._synchronous)

    def _opened(self) -> _File:
        if self._file is None:
            raise _not_open(self._path)
        return self._file

    async def load(
        self, scope: Scope, conversation_id: str, *, owner: Owner | Unchecked = UNCHECKED, check: Check = accept_all
    ) -> Conversation | None:
        """Return the conversation, or None if there is none, and raise its epoch in the same transaction.

        Args:
            scope: ignored.
            conversation_id: of the conversation.
            owner: who must own it; `UNCHECKED` for anybody.
            check: looks at the conversation inside the transaction, in a thread; if it raises, nothing is changed. It may be called
                twice.

        Returns:
            A new object.

        Raises:
            ConversationNotFound: another owner has the conversation; nothing was changed.
            StateError: what is stored is damaged, or a later version of the library wrote it; nothing was changed.
            PersistenceError: the file could not be read or written; nothing was changed.

        Cancellation: either nothing was changed, or the conversation is returned.
        """
        file = self._opened()
        check_id("conversation_id", conversation_id)
        wanted = wanted_key(owner)
        return await file.group_commit.submit(
            lambda transaction: tables.load(transaction.connection, conversation_id, wanted, file.messages, check)
        )

    async def commit(self, scope: Scope, commit: Commit, *, owner: Owner | Unchecked = UNCHECKED) -> int:
        """Make a commit durable, all of it or none, and return its revision.

        Args:
            scope: ignored.
            commit: the change; the object must not change until the call returns.
            owner: if given, must be the commit's owner, and own the conversation.

        Raises:
            TypeError: a value in the commit has no JSON form.
            ValueError: a value in the commit cannot be stored, or the owners differ.
            Conflict: the store is not at (commit.epoch, commit.revision - 1), or another owner has the conversation; nothing was changed.
            PersistenceError: a message id is used already, a taken message is not in the queue, or the file cannot be written;
                nothing was acknowledged.

        Cancellation: either the commit had not begun, and is withdrawn; or it runs to its end, and its revision is returned.

        Ordering: commits are made in the order of the calls.
        """
        file = self._opened()
        wanted = wanted_key(owner)

        def store(transaction: Transaction) -> int:
            encoded = encode_commit(commit, owner)
            return tables.commit(transaction.connection, encoded, wanted, file.messages, transaction.changes.next, transaction.now)

        return await file.group_commit.submit(store)

    async def history(
        self, scope: Scope, conversation_id: str, *, before: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED
    ) -> HistoryPage:
        """Return a page of the transcript.

        Args:
            scope: ignored.
            conversation_id: of the conversation.
            before: `before` of a page, for the next older page; None for the newest page.
            limit: the most rows on the page, 1 to 1000.
            owner: who must own it; `UNCHECKED` for anybody.

        Returns:
            A new page; its rows are in order, the oldest first.

        Raises:
            ConversationNotFound: there is no such conversation, or another owner has it.
            StateError: a row is damaged.
            PersistenceError: the file could not be read.
            ValueError: `before` is not a cursor of a transcript, or `limit` is out of range.

        Cancellation: nothing is changed; a query that has begun runs to its end.
        """
        file = self._opened()
        check_id("conversation_id", conversation_id)
        place = decode_cursor("r", "before", before)
        check_limit(limit)
        wanted = wanted_key(owner)
        return await file.read(lambda connection: tables.history(connection, conversation_id, wanted, place, limit))

    async def recall(
        self, scope: Scope, conversation_id: str, names: Sequence[str], *, owner: Owner | Unchecked = UNCHECKED
    ) -> Mapping[str, Recalled]:
        """Return the messages that checkpoints have put into the index under these names.

        Args:
            scope: ignored.
            conversation_id: of the conversation.
            names: as in `Checkpoint.known`; unknown ones are left out.
            owner: who must own it; `UNCHECKED` for anybody.

        Raises:
            StateError: one of the messages is damaged.
            PersistenceError: the file could not be read.

        Cancellation: nothing is changed; a query that has begun runs to its end.
        """
        file = self._opened()
        check_id("conversation_id", conversation_id)
        wanted = wanted_key(owner)
        return await file.read(lambda connection: tables.recall(connection, conversation_id, wanted, names))

    async def older_messages(
        self, scope: Scope, conversation_id: str, *, before: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED
    ) -> OlderPage:
        """Return a page of the messages that are not in the window.

        Args:
            scope: ignored.
            conversation_id: of the conversation.
            before: `before` of a page, for the next older page; None for the page right before the window.
            limit: the most messages on the page, 1 to 1000.
            owner: who must own it; `UNCHECKED` for anybody.

        Raises:
            ConversationNotFound: there is no such conversation, or another owner has it.
            StateError: a message is damaged.
            PersistenceError: the file could not be read.
            ValueError: `before` is not a cursor of older messages, or `limit` is out of range.

        Cancellation: nothing is changed; a query that has begun runs to its end.
        """
        file = self._opened()
        check_id("conversation_id", conversation_id)
        place = decode_cursor("m", "before", before)
        check_limit(limit)
        wanted = wanted_key(owner)
        return await file.read(lambda connection: tables.older_messages(connection, conversation_id, wanted, place, limit))

    async def conversations(self, scope: Scope, *, after: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED) -> ConversationPage:
        """Return a page of the conversations; the one in which a turn ended or began to wait last, or that began last, comes first.

        Args:
            scope: ignored.
            after: `after` of a page, for the next page; None for the first page. A conversation that changes meanwhile moves to the
                first page.
            limit: the most items on the page, 1 to 1000.
            owner: whose conversations; `UNCHECKED` for all.

        Raises:
            StateError: an item of the list is damaged.
            PersistenceError: the file could not be read.
            ValueError: `after` is not a cursor of this list, or `limit` is out of range.

        Cancellation: nothing is changed; a query that has begun runs to its end.
        """
        file = self._opened()
        place = decode_cursor("c", "after", after)
        check_limit(limit)
        wanted = wanted_key(owner)
        return await file.read(lambda connection: tables.conversations(connection, wanted, place, limit))

    async def waiting(self, scope: Scope, *, after: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED) -> WaitingPage:
        """Return a page of the conversations that wait for a person; the one that has waited longest comes first.

        The query reads the conversations that wait, of all owners, and no others.

        Args:
            scope: ignored.
            after: `after` of a page, for the next page; None for the first page.
            limit: the most items on the page, 1 to 1000.
            owner: whose conversations; `UNCHECKED` for all.

        Raises:
            StateError: what one of them waits for cannot be read.
            PersistenceError: the file could not be read.
            ValueError: `after` is not a cursor of this list, or `limit` is out of range.

        Cancellation: nothing is changed; a query that has begun runs to its end.
        """
        file = self._opened()
        place = decode_cursor("w", "after", after)
        check_limit(limit)
        wanted = wanted_key(owner)
        return await file.read(lambda connection: tables.waiting(connection, wanted, place, limit))

    async def unfinished(self, scope: Scope, *, after: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED) -> ConversationPage:
        """Return a page of the conversations that have work left; the one that is unfinished for the longest time comes first.

        The query reads the conversations that have work left, of all owners, and no others.

        Args:
            scope: ignored.
            after: `after` of a page, for the next page; None for the first page.
            limit: the most items on the page, 1 to 1000.
            owner: whose conversations; `UNCHECKED` for all.

        Raises:
            StateError: one of them is damaged.
            PersistenceError: the file could not be read.
            ValueError: `after` is not a cursor of this list, or `limit` is out of range.

        Cancellation: nothing is changed; a query that has begun runs to its end.
        """
        file = self._opened()
        place = decode_cursor("u", "after", after)
        check_limit(limit)
        wanted = wanted_key(owner)
        return await file.read(lambda connection: tables.unfinished(connection, wanted, place, limit))

    async def delete(self, scope: Scope, conversation_id: str, *, owner: Owner | Unchecked = UNCHECKED) -> bool:
        """Delete the conversation and its transcript; return False if there is none, or if another owner has it.

        Args:
            scope: ignored.
            conversation_id: of the conversation.
            owner: who must own it; `UNCHECKED` for anybody.

        Raises:
            PersistenceError: the file could not be written; nothing was deleted.

        Cancellation: either nothing was deleted, or the answer is returned.
        """
        file = self._opened()
        check_id("conversation_id", conversation_id)
        wanted = wanted_key(owner)
        return await file.group_commit.submit(lambda transaction: tables.delete(transaction.connection, conversation_id, wanted))
