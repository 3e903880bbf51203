"""Leases in a SQLite file: for several processes of one machine.

Each call is one short transaction on a connection of its own, in a thread: leases are few calls, and a connection that nobody
keeps can neither leak nor be found closed. The clock is the machine's, read when the call begins: waiting for another process
makes a lease shorter, never longer.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import trio

from trio_sagents.exceptions import RegistryUnavailable

T = TypeVar("T")
BUSY: Final = 5.0
"""Seconds that a call waits for another process's transaction."""
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS leases "
    "(conversation_id TEXT PRIMARY KEY, holder TEXT NOT NULL, ttl REAL NOT NULL, ends_at REAL NOT NULL) WITHOUT ROWID"
)
_ACQUIRE: Final = (
    "INSERT INTO leases VALUES (:id, :holder, :ttl, :now + :ttl) ON CONFLICT (conversation_id) "
    "DO UPDATE SET holder = :holder, ttl = :ttl, ends_at = :now + :ttl WHERE holder = :holder OR ends_at <= :now"
)


class SqliteLeases:
    """Leases in a file, which must not be the database of a `SqliteStore`, and must be on a disk of this machine."""

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        """Keep the path; nothing is opened.

        Args:
            path: of the file; made by the first call.
            clock: gives seconds, the same in every process that uses the file.
        """
        self.path: Final = Path(path)
        self._clock: Final = clock

    async def acquire(self, conversation_id: str, holder: str, ttl: float) -> float | None:
        """Get a lease; as `Leases.acquire`.

        Raises:
            RegistryUnavailable: the file cannot be used.

        Cancellation: a transaction that has begun goes to its end first.
        """
        now = self._clock()

        def change(connection: sqlite3.Connection) -> float | None:
            # A clock that was set back must not make a lease last longer than it was given for.
            connection.execute(
                "UPDATE leases SET ends_at = ?2 + ttl WHERE conversation_id = ?1 AND ends_at > ?2 + ttl", (conversation_id, now)
            )
            if connection.execute(_ACQUIRE, {"id": conversation_id, "holder": holder, "ttl": ttl, "now": now}).rowcount:
                return None
            (ends_at,) = connection.execute("SELECT ends_at FROM leases WHERE conversation_id = ?", (conversation_id,)).fetchone()
            return float(ends_at) - now

        return await self._run(change)

    async def renew(self, conversation_ids: Sequence[str], holder: str, ttl: float) -> Collection[str]:
        """Keep leases; as `Leases.renew`. Raises as `acquire`. Cancellation: as of `acquire`."""
        now = self._clock()

        def change(connection: sqlite3.Connection) -> Collection[str]:
            kept: set[str] = set()
            for one in conversation_ids:
                done = connection.execute(
                    "UPDATE leases SET ttl = ?3, ends_at = ?4 + ?3 WHERE conversation_id = ?1 AND holder = ?2 AND ends_at > ?4",
                    (one, holder, ttl, now),
                )
                kept.update([one] * done.rowcount)
            return kept

        return await self._run(change)

    async def release(self, conversation_id: str, holder: str) -> None:
        """End a lease; as `Leases.release`. Raises as `acquire`. Cancellation: as of `acquire`."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM leases WHERE conversation_id = ? AND holder = ?", (conversation_id, holder))

        await self._run(change)

    async def _run(self, change: Callable[[sqlite3.Connection], T]) -> T:
        return await trio.to_thread.run_sync(self._change, change)

    def _change(self, change: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._connected() as connection:
                return change(connection)
        except (sqlite3.Error, OSError) as exc:
            raise RegistryUnavailable(
                f"the leases in {str(self.path)!r} cannot be used ({exc}); see whether the file is one of them"
            ) from exc

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")  # a machine that lost its power runs no agents
            connection.execute(_TABLE)
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                yield connection
