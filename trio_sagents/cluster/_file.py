"""A SQLite file that several processes of one machine share for a short time each: leases, or a cluster.

Each call is one short transaction on a connection of its own, in a thread: there are few calls, and a connection that nobody
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import attrs
import trio

from trio_sagents._sqlite import DatabaseKind, connect, create_file, pragma
from trio_sagents.exceptions import PersistenceError, RegistryUnavailable

T = TypeVar("T")
BUSY: Final = 5.0
"""Seconds that a call waits for another process's transaction."""
_IDENTITY: Final = "CREATE TABLE IF NOT EXISTS lease_file (number INTEGER PRIMARY KEY CHECK (number = 1), token TEXT NOT NULL)"


@attrs.define(eq=False)
class SharedFile:
    """One file, as one object uses it. Calls run in several threads: whoever changes what is known of the file holds `lock`."""

    kind: DatabaseKind
    path: str
    tables: Sequence[str]
    """Statements that make the tables, unless they are there."""
    lock: threading.Lock = attrs.field(factory=threading.Lock)
    token: str | None = None
    """Of the file that is used; None before the first call."""
    longest: float = 0.0
    """The longest time, in seconds, that a lease was asked for."""
    other_since: float | None = None
    """When another file was first seen in its place, by the clock; None if it is there."""

    async def run(self, change: Callable[[sqlite3.Connection], T], now: float, ttl: float = 0.0) -> T:
        """Do some work in one transaction, in a thread.

        Args:
            change: the work.
            now: what the clock said when the call began.
            ttl: seconds for which a lease is asked for.

        Raises:
            RegistryUnavailable: the file cannot be used, or it was deleted or replaced a short time ago.

        Cancellation: a transaction that has begun goes to its end first.
        """
        return await trio.to_thread.run_sync(self._change, change, now, ttl)

    def _change(self, change: Callable[[sqlite3.Connection], T], now: float, ttl: float) -> T:
        path = self.path
        try:
            with self.kind.explained(path):
                create_file(self.kind, path)
                before = os.stat(path)  # noqa: PTH116  # compared below
                with self._connected(now, ttl) as connection:
                    result = change(connection)
                try:
                    is_same = os.path.samestat(before, os.stat(path))  # noqa: PTH116
                except FileNotFoundError:
                    is_same = False
        except PersistenceError as exc:
            raise RegistryUnavailable(str(exc)) from exc
        if not is_same:
            raise RegistryUnavailable(f"{self.kind.name(path)} was deleted or replaced while it was used; try again")
        return result

    @contextlib.contextmanager
    def _connected(self, now: float, ttl: float) -> Iterator[sqlite3.Connection]:
        # A machine that has lost its power runs no agents, so nothing needs to be on the disk.
        with contextlib.closing(connect(self.kind, self.path, busy_timeout=BUSY, synchronous="OFF")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                if pragma(connection, "application_id") != self.kind.application_id:
                    raise PersistenceError(f"{self.kind.name(self.path)}: it is the file of another program or class; give another path")
                for table in (*self.tables, _IDENTITY):
                    connection.execute(table)
                connection.execute("INSERT OR IGNORE INTO lease_file VALUES (1, ?)", (secrets.token_hex(8),))
                ((token,),) = connection.execute("SELECT token FROM lease_file")
                self._check_known(str(token), now, ttl)
                yield connection

    def _check_known(self, token: str, now: float, ttl: float) -> None:
        """Raise PersistenceError if this is another file than before, unless all leases of the other one must have ended."""
        with self.lock:
            if self.token not in {None, token}:
                if self.other_since is None or now < self.other_since:  # the latter: the clock was set back
                    self.other_since = now
                waits = self.longest - (now - self.other_since)
                if waits > 0:
                    raise PersistenceError(
                        f"{self.kind.name(self.path)} was deleted or replaced while it was used, and leases of the old file may still "
                        f"last; no lease is given for {waits:.1f} s. All processes have to use the same file"
                    )
            self.token, self.other_since = token, None
            self.longest = max(self.longest, ttl)


def absolute(path: str | Path) -> str:
    """Return a path that does not depend on the current folder."""
    return str(Path(path).absolute())
