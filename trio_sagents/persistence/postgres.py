"""A store in PostgreSQL, or in a database that speaks its protocol: for several processes and machines. Needs the extra `postgres`.

Safety is in the store. Each commit is compared and set in one statement on the owner, the epoch and the revision of the conversation, and
each load raises the epoch in its own transaction. Whoever loaded a conversation last is its only effective writer: what an earlier one
still tries to save is refused.

Psycopg's own asynchronous connections need asyncio, so each call runs in a thread, with a connection of a bounded pool. A call that is
cancelled is cancelled in the server, too.
"""

import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Generic, Literal, TypeVar

import trio

try:
    import psycopg
    import psycopg_pool
except ImportError as _exc:
    if _exc.name not in {"psycopg", "psycopg_pool"}:
        raise
    raise ImportError(
        'PostgresStore needs the packages "psycopg" and "psycopg_pool": pip install "trio-sagents[postgres]"', name=_exc.name
    ) from _exc

from trio_sagents._trio.groups import in_nursery
from trio_sagents.data.ids import check_id
from trio_sagents.data.records import (
    UNCHECKED,
    Check,
    Commit,
    Conversation,
    ConversationPage,
    HistoryPage,
    Owner,
    Unchecked,
    WaitingPage,
    accept_all,
)
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import PersistenceError
from trio_sagents.persistence import _postgres_tables as tables
from trio_sagents.persistence._postgres_schema import prepare
from trio_sagents.persistence._postgres_tables import Connection
from trio_sagents.persistence._records import check_limit, decode_cursor, encode_commit, wanted_key

T = TypeVar("T")
CANCEL_TIMEOUT: Final = 5.0
"""How long the server may take to hear that a call was cancelled, in seconds; the call ends at `statement_timeout` anyway."""


class PostgresStore:
    """A `ConversationStore` in PostgreSQL.

    Every method takes `owner`: a conversation of another owner is like a missing one, and is not touched. `UNCHECKED`, the default, stands
    for any owner. The tables have names that begin with `trio_sagents_`, and are made when the store is first opened.

    What was acknowledged is as durable as the server makes it: with `synchronous_commit = on`, its default, it survives a loss of power. It
    survives a fail-over to another server only with synchronous replication.

    Args:
        conninfo: where the database is, as libpq takes it: "postgresql://user@host/name", or "host=... dbname=...". It may hold a password,
            so it is in no error and no log.
        connections: the most connections at a time, >= 1. More calls wait.
        statement_timeout: seconds after which the server gives up one statement; finite, > 0.
        connect_timeout: seconds to wait for a connection; finite, > 0.

    Raises:
        ValueError: an argument is out of range.
    """

    checks_owner: Literal[True] = True

    def __init__(self, conninfo: str, *, connections: int = 8, statement_timeout: float = 10.0, connect_timeout: float = 10.0) -> None:
        if isinstance(connections, bool) or not isinstance(connections, int) or connections < 1:
            raise ValueError(f"connections must be an int of at least 1, not {connections!r}")
        for name, seconds in (("statement_timeout", statement_timeout), ("connect_timeout", connect_timeout)):
            if not 0 < seconds < float("inf"):
                raise ValueError(f"{name} must be a finite number of seconds above 0, not {seconds!r}")
        self._conninfo = conninfo
        self._connections = connections
        self._statement_timeout = statement_timeout
        self._connect_timeout = connect_timeout
        self._threads = trio.CapacityLimiter(connections)
        self._pool: psycopg_pool.ConnectionPool[Connection] | None = None

    def __repr__(self) -> str:
        return f"PostgresStore(connections={self._connections})"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Connect, and bring the schema up to date; disconnect when the block is left.

        Raises:
            PersistenceError: the database cannot be used; the message says why.

        Cancellation: nothing stays open.
        """
        if self._pool is not None:
            raise PersistenceError("this PostgresStore is open already; a store serves one open_sessions at a time")
        pool = await trio.to_thread.run_sync(self._open)
        self._pool = pool
        try:
            yield
        finally:
            self._pool = None
            # Cancellation: the threads have ended, so this only closes sockets. The pool waits for its own threads, at most 5 seconds.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await trio.to_thread.run_sync(pool.close, CANCEL_TIMEOUT)

    def _open(self) -> "psycopg_pool.ConnectionPool[Connection]":
        settings = {"connect_timeout": max(2, round(self._connect_timeout)), "application_name": "trio_sagents"}
        pool: psycopg_pool.ConnectionPool[Connection] = psycopg_pool.ConnectionPool(
            self._conninfo,
            kwargs=settings,
            min_size=1,
            max_size=self._connections,
            timeout=self._connect_timeout,
            configure=self._configure,
            open=False,
        )
        try:
            pool.open(wait=True, timeout=self._connect_timeout)
            with pool.connection() as connection:
                prepare(connection)
        except (psycopg.Error, psycopg_pool.PoolTimeout) as exc:
            pool.close(CANCEL_TIMEOUT)
            raise PersistenceError(f"the PostgreSQL database cannot be used: {_words_of(exc)}") from exc
        except BaseException:
            pool.close(CANCEL_TIMEOUT)
            raise
        return pool

    def _configure(self, connection: Connection) -> None:
        """Set what each connection needs; the options of the host's own stay."""
        with connection.transaction():
            connection.execute("SELECT set_config('statement_timeout', %s, false)", (str(int(self._statement_timeout * 1000)),))
            connection.execute("SELECT set_config('default_transaction_isolation', 'read committed', false)")

    async def _call(self, work: Callable[[Connection], T]) -> T:
        """Do some work in one transaction, in a thread.

        Raises:
            PersistenceError: the database failed. Whether a commit is durable whose answer was lost is not known; a later commit on the
                same revision finds out, by a `Conflict`.

        Cancellation: the server is told to give up. Either the transaction was committed as a whole, or nothing was changed.
        """
        pool = self._pool
        if pool is None:
            raise PersistenceError("the store is not open; use it inside `async with store.open()`, or inside open_sessions")
        await trio.lowlevel.checkpoint_if_cancelled()
        call = _Call(pool, work)

        async def run(nursery: trio.Nursery) -> T:
            nursery.start_soon(call.cancel_when_cancelled)
            try:
                # Cancellation: a thread is waited for. It ends soon after the server was told; `statement_timeout` bounds it otherwise.
                return await trio.to_thread.run_sync(call.run, limiter=self._threads)
            except PersistenceError as exc:
                failed = exc
            await trio.lowlevel.checkpoint_if_cancelled()  # then it failed because it was cancelled
            try:
                raise failed
            finally:
                del failed  # it holds this frame, which holds it

        return await in_nursery(run)

    async def load(
        self, scope: Scope, conversation_id: str, *, owner: Owner | Unchecked = UNCHECKED, check: Check = accept_all
    ) -> Conversation | None:
        """Return the conversation, or None if there is none, and raise its epoch in the same transaction.

        Args:
            scope: ignored.
            conversation_id: of the conversation.
            owner: who must own it; `UNCHECKED` for anybody.
            check: looks at the conversation inside the transaction, in a thread; if it raises, nothing is changed.

        Raises:
            ConversationNotFound: another owner has the conversation; nothing was changed.
            StateError: what is stored is damaged, or a later version of the library wrote it; nothing was changed.
            PersistenceError: the database could not be used.

        Cancellation: either the epoch was raised, or nothing was changed.
        """
        check_id("conversation_id", conversation_id)
        wanted = wanted_key(owner)
        return await self._call(lambda connection: tables.load(connection, conversation_id, wanted, check))

    async def commit(self, scope: Scope, commit: Commit, *, owner: Owner | Unchecked = UNCHECKED) -> int:
        """Make a commit durable, all of it or none, and return its revision.

        Args:
            scope: ignored.
            commit: the change.
            owner: if given, must be the commit's owner, and own the conversation.

        Raises:
            TypeError: a value in the commit has no JSON form.
            ValueError: a value in the commit cannot be stored, or the owners differ.
            Conflict: the store is not at (commit.epoch, commit.revision - 1), or another owner has the conversation; nothing was changed.
            PersistenceError: a message id is used already, a taken message is not in the queue, or the database could not be used.

        Cancellation: either the whole commit is durable, or nothing was changed.
        """
        encoded = encode_commit(commit, owner)
        wanted = wanted_key(owner)
        now = datetime.datetime.now(datetime.UTC).isoformat()
        return await self._call(lambda connection: tables.commit(connection, encoded, wanted, now))

    async def history(
        self, scope: Scope, conversation_id: str, *, before: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED
    ) -> HistoryPage:
        """Return a page of the transcript; its rows are in order, the oldest first. As `SqliteStore.history`."""
        check_id("conversation_id", conversation_id)
        place = decode_cursor("r", "before", before)
        check_limit(limit)
        wanted = wanted_key(owner)
        return await self._call(lambda connection: tables.history(connection, conversation_id, wanted, place, limit))

    async def conversations(self, scope: Scope, *, after: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED) -> ConversationPage:
        """Return a page of the conversations; the one that changed last comes first. As `SqliteStore.conversations`."""
        place = decode_cursor("c", "after", after)
        check_limit(limit)
        wanted = wanted_key(owner)
        return await self._call(lambda connection: tables.conversations(connection, wanted, place, limit))

    async def waiting(self, scope: Scope, *, after: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED) -> WaitingPage:
        """Return a page of the conversations that wait for a person; the longest wait comes first. As `SqliteStore.waiting`."""
        place = decode_cursor("w", "after", after)
        check_limit(limit)
        wanted = wanted_key(owner)
        return await self._call(lambda connection: tables.waiting(connection, wanted, place, limit))

    async def unfinished(self, scope: Scope, *, after: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED) -> ConversationPage:
        """Return a page of the conversations that have work left; the one that began first comes first. As `SqliteStore.unfinished`."""
        place = decode_cursor("u", "after", after)
        check_limit(limit)
        wanted = wanted_key(owner)
        return await self._call(lambda connection: tables.unfinished(connection, wanted, place, limit))

    async def delete(self, scope: Scope, conversation_id: str, *, owner: Owner | Unchecked = UNCHECKED) -> bool:
        """Delete the conversation and its transcript; return False if there is none, or if another owner has it.

        Raises:
            PersistenceError: the database could not be used.

        Cancellation: either nothing was deleted, or all of it.
        """
        check_id("conversation_id", conversation_id)
        wanted = wanted_key(owner)
        return await self._call(lambda connection: tables.delete(connection, conversation_id, wanted))


class _Call(Generic[T]):
    """One transaction, in a thread that can be told to give up."""

    def __init__(self, pool: "psycopg_pool.ConnectionPool[Connection]", work: Callable[[Connection], T]) -> None:
        self.pool = pool
        self.work = work
        self.connection: Connection | None = None
        """While the work is done."""

    def run(self) -> T:
        """Do the work, and return its result; to be called in a thread.

        Raises:
            PersistenceError: the database failed.
        """
        try:
            with self.pool.connection() as connection:
                self.connection = connection
                try:
                    return self.work(connection)
                finally:
                    self.connection = None
        except (psycopg.Error, psycopg_pool.PoolTimeout) as exc:
            raise PersistenceError(f"the PostgreSQL database failed: {_words_of(exc)}") from exc

    async def cancel_when_cancelled(self) -> None:
        """Wait for the end, and tell the server if the caller is cancelled before that."""
        try:
            await trio.sleep_forever()
        finally:
            connection = self.connection
            if connection is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CANCEL_TIMEOUT):
                    await trio.to_thread.run_sync(_cancel, connection)


def _cancel(connection: Connection) -> None:
    try:
        connection.cancel_safe(timeout=CANCEL_TIMEOUT)
    except psycopg.Error:  # the server does not hear: then its `statement_timeout` ends the call
        return


def _words_of(error: Exception) -> str:
    """Return what the database says, without the values that were sent."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return f"{error.diag.message_primary} ({error.diag.sqlstate})"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason is known'}"[:300]
