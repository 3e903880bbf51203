"""A pool of connections to PostgreSQL, and calls in threads that can be cancelled.

Psycopg's own asynchronous connections need asyncio, so each call runs in a thread, with a connection of a bounded pool. A call that is
cancelled is cancelled in the server, too.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

import psycopg
import psycopg_pool
import trio

from trio_sagents._postgres.migrating import Connection
from trio_sagents._trio.groups import in_nursery
from trio_sagents.exceptions import PersistenceError

T = TypeVar("T")

CANCEL_TIMEOUT: Final = 5.0
"""How long the server may take to hear that a call was cancelled, in seconds; the call ends at `statement_timeout` anyway."""


class Database:
    """One database, as one object uses it.

    Args:
        conninfo: where the database is, as libpq takes it. It may hold a password, so it is in no error and no log.
        kind: the class that errors name.
        connections: the most connections at a time, >= 1. More calls wait.
        statement_timeout: seconds after which the server gives up one statement; finite, > 0.
        connect_timeout: seconds to wait for a connection; finite, > 0.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, conninfo: str, *, kind: str, connections: int, statement_timeout: float, connect_timeout: float) -> None:
        if isinstance(connections, bool) or not isinstance(connections, int) or connections < 1:
            raise ValueError(f"connections must be an int of at least 1, not {connections!r}")
        for name, seconds in (("statement_timeout", statement_timeout), ("connect_timeout", connect_timeout)):
            if not 0 < seconds < float("inf"):
                raise ValueError(f"{name} must be a finite number of seconds above 0, not {seconds!r}")
        self.conninfo: Final = conninfo
        self.kind: Final = kind
        self.connections: Final = connections
        self.statement_timeout: Final = statement_timeout
        self.connect_timeout: Final = connect_timeout
        self._threads = trio.CapacityLimiter(connections)
        self._pool: psycopg_pool.ConnectionPool[Connection] | None = None

    @asynccontextmanager
    async def open(self, prepare: Callable[[Connection], None]) -> AsyncIterator[None]:
        """Connect, and prepare the database; disconnect when the block is left.

        Args:
            prepare: makes the tables, in a thread.

        Raises:
            PersistenceError: the database cannot be used; the message says why.

        Cancellation: nothing stays open.
        """
        if self._pool is not None:
            raise PersistenceError(f"this {self.kind} is open already; one object serves one open_sessions at a time")
        pool = await trio.to_thread.run_sync(self._open, prepare)
        self._pool = pool
        try:
            yield
        finally:
            self._pool = None
            # Cancellation: the threads have ended, so this only closes sockets. The pool waits for its own threads, at most 5 seconds.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await trio.to_thread.run_sync(pool.close, CANCEL_TIMEOUT)

    def _open(self, prepare: Callable[[Connection], None]) -> "psycopg_pool.ConnectionPool[Connection]":
        settings = {"connect_timeout": max(2, round(self.connect_timeout)), "application_name": "trio_sagents"}
        pool: psycopg_pool.ConnectionPool[Connection] = psycopg_pool.ConnectionPool(
            self.conninfo,
            kwargs=settings,
            min_size=1,
            max_size=self.connections,
            timeout=self.connect_timeout,
            configure=self._configure,
            open=False,
        )
        try:
            pool.open(wait=True, timeout=self.connect_timeout)
            with pool.connection() as connection:
                prepare(connection)
        except (psycopg.Error, psycopg_pool.PoolTimeout) as exc:
            pool.close(CANCEL_TIMEOUT)
            raise PersistenceError(f"the PostgreSQL database cannot be used: {words_of(exc)}") from exc
        except BaseException:
            pool.close(CANCEL_TIMEOUT)
            raise
        return pool

    def _configure(self, connection: Connection) -> None:
        """Set what each connection needs; the options of the host's own stay."""
        with connection.transaction():
            connection.execute("SELECT set_config('statement_timeout', %s, false)", (str(int(self.statement_timeout * 1000)),))
            connection.execute("SELECT set_config('default_transaction_isolation', 'read committed', false)")

    async def call(self, work: Callable[[Connection], T]) -> T:
        """Do some work in one transaction, in a thread.

        Raises:
            PersistenceError: the database failed. Whether a commit is durable whose answer was lost is not known; a later commit on the
                same revision finds out, by a `Conflict`.

        Cancellation: the server is told to give up. Either the transaction was committed as a whole, or nothing was changed.
        """
        pool = self._pool
        if pool is None:
            raise PersistenceError(f"this {self.kind} is not open; use it inside `async with` of its open(), or inside open_sessions")
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
            raise PersistenceError(f"the PostgreSQL database failed: {words_of(exc)}") from exc

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


def words_of(error: Exception) -> str:
    """Return what the database says, without the values that were sent."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return f"{error.diag.message_primary} ({error.diag.sqlstate})"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason is known'}"[:300]
