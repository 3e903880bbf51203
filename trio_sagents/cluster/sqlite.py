"""Leases in a SQLite file: for several processes of one machine.

Each call is one short transaction on a connection of its own, in a thread: leases are few calls, and a connection that nobody
keeps can neither leak nor be found closed. The clock is the machine's, read when the call begins: waiting for another process
makes a lease shorter, never longer.

A file that was deleted or replaced is another file: it knows nothing of the leases that were given by the old one, which last on.
So each file has a token, made with it, and an object remembers which file it has used. (An inode does not tell two files apart
here: between two calls nobody has the file open, and the system may give its inode to the next file.) In another file it gives
no lease until every lease that it knows of must have ended; then it takes the new file for the right one.
"""

import contextlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import attrs
import trio

from trio_sagents._sqlite import DatabaseKind, connect, create_file, pragma
from trio_sagents.exceptions import PersistenceError, RegistryUnavailable

T = TypeVar("T")
BUSY: Final = 5.0
"""Seconds that a call waits for another process's transaction."""
_FILE: Final = DatabaseKind("lease file", "SqliteLeases", 0, 0, {})
_LEASES: Final = (
    "CREATE TABLE IF NOT EXISTS leases "
    "(conversation_id TEXT PRIMARY KEY, holder TEXT NOT NULL, ttl REAL NOT NULL, ends_at REAL NOT NULL) WITHOUT ROWID"
)
_IDENTITY: Final = "CREATE TABLE IF NOT EXISTS lease_file (number INTEGER PRIMARY KEY CHECK (number = 1), token TEXT NOT NULL)"
_ACQUIRE: Final = (
    "INSERT INTO leases VALUES (:id, :holder, :ttl, :now + :ttl) ON CONFLICT (conversation_id) "
    "DO UPDATE SET holder = :holder, ttl = :ttl, ends_at = :now + :ttl WHERE holder = :holder OR ends_at <= :now"
)


@attrs.define(eq=False)
class _Known:
    """Which file an object has used. Calls run in several threads: whoever changes this holds `lock`."""

    lock: threading.Lock = attrs.field(factory=threading.Lock)
    token: str | None = None
    """Of the file that is used; None before the first call."""
    longest: float = 0.0
    """The longest time, in seconds, that a lease was asked for."""
    other_since: float | None = None
    """When another file was first seen in its place, by the clock; None if it is there."""


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
        self._known: Final = _Known()

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

        return await self._run(change, now, ttl)

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

        return await self._run(change, now, ttl)

    async def release(self, conversation_id: str, holder: str) -> None:
        """End a lease; as `Leases.release`. Raises as `acquire`. Cancellation: as for `acquire`."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM leases WHERE conversation_id = ? AND holder = ?", (conversation_id, holder))

        await self._run(change, self._clock(), 0.0)

    async def _run(self, change: Callable[[sqlite3.Connection], T], now: float, ttl: float) -> T:
        return await trio.to_thread.run_sync(self._change, change, now, ttl)

    def _change(self, change: Callable[[sqlite3.Connection], T], now: float, ttl: float) -> T:
        path = str(self.path.absolute())
        try:
            with _FILE.explained(path):
                create_file(_FILE, path)
                before = os.stat(path)  # noqa: PTH116  # compared below
                with self._connected(path, now, ttl) as connection:
                    result = change(connection)
                try:
                    is_same = os.path.samestat(before, os.stat(path))  # noqa: PTH116
                except FileNotFoundError:
                    is_same = False
        except PersistenceError as exc:
            raise RegistryUnavailable(str(exc)) from exc
        if not is_same:
            raise RegistryUnavailable(f"{_FILE.name(path)} was deleted or replaced while it was used; try again")
        return result

    @contextlib.contextmanager
    def _connected(self, path: str, now: float, ttl: float) -> Iterator[sqlite3.Connection]:
        # A machine that has lost its power runs no agents, so nothing needs to be on the disk.
        with contextlib.closing(connect(_FILE, path, busy_timeout=BUSY, synchronous="OFF")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                if pragma(connection, "application_id") != _FILE.application_id:
                    raise PersistenceError(f"{_FILE.name(path)}: it is the file of another program or class; give another path")
                connection.execute(_LEASES)
                connection.execute(_IDENTITY)
                connection.execute("INSERT OR IGNORE INTO lease_file VALUES (1, ?)", (secrets.token_hex(8),))
                ((token,),) = connection.execute("SELECT token FROM lease_file")
                self._check_known(path, str(token), now, ttl)
                yield connection

    def _check_known(self, path: str, token: str, now: float, ttl: float) -> None:
        """Raise PersistenceError if this is another file than before, unless all leases of the other one must have ended."""
        known = self._known
        with known.lock:
            if known.token not in {None, token}:
                if known.other_since is None or now < known.other_since:  # the latter: the clock was set back
                    known.other_since = now
                waits = known.longest - (now - known.other_since)
                if waits > 0:
                    raise PersistenceError(
                        f"{_FILE.name(path)} was deleted or replaced while it was used, and leases of the old file may still last; "
                        f"no lease is given for {waits:.1f} s. All processes have to use the same file"
                    )
            known.token, known.other_since = token, None
            known.longest = max(known.longest, ttl)
