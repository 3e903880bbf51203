"""Leases in a SQLite file: for several processes of one machine."""

import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from trio_sagents._sqlite import DatabaseKind
from trio_sagents.cluster._file import SharedFile, absolute

_FILE: Final = DatabaseKind("lease file", "SqliteLeases", 0, 0, {})
_LEASES: Final = (
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
            path: of the file; made by the first call, readable by its owner alone.
            clock: returns seconds, the same in every process that uses the file.
        """
        self.path: Final = Path(path)
        self._clock: Final = clock
        self._file: Final = SharedFile(_FILE, absolute(path), (_LEASES,))

    async def acquire(self, conversation_id: str, holder: str, ttl: float) -> float | None:
        """Get a lease; as `Leases.acquire`.

        Raises:
            RegistryUnavailable: the file cannot be used, or it was deleted or replaced a short time ago.

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

        return await self._file.run(change, now, ttl)

    async def renew(self, conversation_ids: Sequence[str], holder: str, ttl: float) -> Collection[str]:
        """Keep leases; as `Leases.renew`. Raises as `acquire`. Cancellation: as for `acquire`."""
        now = self._clock()

        def change(connection: sqlite3.Connection) -> Collection[str]:
            kept: set[str] = set()
            for conversation_id in conversation_ids:
                done = connection.execute(
                    "UPDATE leases SET ttl = ?3, ends_at = ?4 + ?3 WHERE conversation_id = ?1 AND holder = ?2 AND ends_at > ?4",
                    (conversation_id, holder, ttl, now),
                )
                kept.update([conversation_id] * done.rowcount)
            return kept

        return await self._file.run(change, now, ttl)

    async def release(self, conversation_id: str, holder: str) -> None:
        """End a lease; as `Leases.release`. Raises as `acquire`. Cancellation: as for `acquire`."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM leases WHERE conversation_id = ? AND holder = ?", (conversation_id, holder))

        await self._file.run(change, self._clock())
