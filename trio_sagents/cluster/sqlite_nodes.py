"""A cluster in a SQLite file: for several processes of one machine, and never on a network file system, whose locks do not hold.

Whoever waits for mail looks at SQLite's own version of the data, which changes with each commit of another connection. That takes some
microseconds and no thread, so it can be done often.
"""

import datetime
import json
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from trio_sagents._sqlite import DatabaseKind, connect, pragma
from trio_sagents.cluster._file import SharedFile, absolute
from trio_sagents.cluster._rules import LONGEST_WAIT, MAX_BOX, SWEPT_AFTER, check_bounds, check_limit, check_mails, check_ttl
from trio_sagents.exceptions import PersistenceError, RegistryUnavailable
from trio_sagents.nodes import Claim, Mail, Node, NodeInfo, Received

_FILE: Final = DatabaseKind("cluster file", "SqliteCluster", 0, 0, {})
_NODE_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS nodes (number INTEGER PRIMARY KEY AUTOINCREMENT, node_id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, "
    "code_version TEXT NOT NULL, state_version INTEGER NOT NULL, is_draining INTEGER NOT NULL, joined_at REAL NOT NULL, "
    "ttl REAL NOT NULL, ends_at REAL NOT NULL)"
)
_MAIL_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS mail "
    "(number INTEGER PRIMARY KEY AUTOINCREMENT, recipient TEXT NOT NULL, sender TEXT NOT NULL, body TEXT NOT NULL)"
)
_TABLES: Final = (
    _NODE_TABLE,
    "CREATE TABLE IF NOT EXISTS claims (conversation_id TEXT PRIMARY KEY, node_id TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS claims_by_node ON claims (node_id)",
    _MAIL_TABLE,
    "CREATE INDEX IF NOT EXISTS mail_by_recipient ON mail (recipient, number)",
)
_JOIN: Final = (
    "INSERT INTO nodes (node_id, name, code_version, state_version, is_draining, joined_at, ttl, ends_at) "
    "VALUES (:id, :name, :code, :state, 0, :now, :ttl, :now + :ttl) ON CONFLICT (node_id) DO UPDATE "
    "SET name = :name, code_version = :code, state_version = :state, is_draining = 0, ttl = :ttl, ends_at = :now + :ttl"
)
_NODES: Final = (
    "SELECT node_id, name, code_version, state_version, is_draining, joined_at, ends_at, "
    "(SELECT count(*) FROM claims WHERE claims.node_id = nodes.node_id) FROM nodes ORDER BY number"
)
_CLAIM: Final = (
    "INSERT INTO claims VALUES (:conversation, :node) ON CONFLICT (conversation_id) DO UPDATE SET node_id = :node "
    "WHERE node_id = :node OR NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.node_id = claims.node_id AND ends_at > :now)"
)
_HOLDERS: Final = (
    "SELECT conversation_id, node_id, ends_at FROM claims JOIN nodes USING (node_id) "
    "WHERE ends_at > :now AND conversation_id IN (SELECT value FROM json_each(:ids))"
)


class SqliteCluster:
    """A cluster in a file of its own, which must be on a disk of this machine; each process makes its own object for it.

    The file holds no conversations: put it beside the database of the store. A cluster file that was deleted or replaced gives nothing
    until all leases of the old file must have ended.

    Cancellation: a transaction that has begun goes to its end first.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        poll_interval: float = 0.05,
        max_mail: int = 256 * 1024,
        max_box: int = MAX_BOX,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep the path; nothing is opened.

        Args:
            path: of the file; made by `open`, readable by its owner alone.
            poll_interval: seconds between two looks for mail; > 0. It bounds what a command to another process takes longer.
            max_mail: the most bytes of one mail; at least 64 KiB.
            max_box: the most mails that wait for one node, > 0. A node whose box has no place for all that one `send` brings gets nothing
                of it.
            clock: returns seconds, the same in every process that uses the file.

        Raises:
            TypeError, ValueError: an argument is out of range.
        """
        check_bounds(max_mail, max_box)
        if not 0 < poll_interval <= LONGEST_WAIT:
            raise ValueError(f"poll_interval must be above 0 and at most {LONGEST_WAIT:g} seconds, not {poll_interval!r}")
        self.path: Final = Path(path)
        self.max_mail: Final[int] = max_mail
        self.max_box: Final = max_box
        self._poll_interval: Final = poll_interval
        self._clock: Final = clock
        self._file: Final = SharedFile(_FILE, absolute(path), _TABLES)
        self._watch: sqlite3.Connection | None = None
        self._watched: os.stat_result | None = None
        self._seen: dict[str, object] = {}
        """By node: the version of the data when its last `receive` began."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Make the file if there is none, and look whether it can be used. One block at a time has an object open.

        Raises:
            PersistenceError: the file cannot be used; the message says why.
        """
        if self._watch is not None:
            raise PersistenceError("this SqliteCluster is open already; make one for each open_sessions, on the same path")
        try:
            await self._file.run(lambda _connection: None, self._clock())
        except RegistryUnavailable as exc:
            raise PersistenceError(str(exc)) from exc
        self._watch_file()
        try:
            yield
        finally:
            self._end_watch()

    # ── nodes

    async def join(self, node: Node, ttl: float) -> None:
        """Add a node; as `Cluster.join`."""
        check_ttl(ttl)
        now = self._clock()
        values = {
            "id": node.node_id,
            "name": node.name,
            "code": node.code_version,
            "state": node.state_version,
            "now": now,
            "ttl": ttl,
        }

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(_JOIN, values)
            _sweep(connection, now)

        await self._file.run(change, now, ttl)

    async def renew(self, node_id: str, ttl: float, *, is_draining: bool = False) -> bool:
        """Let the lease of a node last longer; as `Cluster.renew`."""
        check_ttl(ttl)
        now = self._clock()

        def change(connection: sqlite3.Connection) -> bool:
            renewed = connection.execute(
                "UPDATE nodes SET ttl = ?2, ends_at = ?3 + ?2, is_draining = ?4 WHERE node_id = ?1", (node_id, ttl, now, is_draining)
            )
            _sweep(connection, now)
            return renewed.rowcount > 0

        return await self._file.run(change, now, ttl)

    async def leave(self, node_id: str) -> None:
        """Remove a node; as `Cluster.leave`."""
        await self._file.run(lambda connection: _remove(connection, node_id), self._clock())

    async def nodes(self) -> Sequence[NodeInfo]:
        """Return the nodes; as `Cluster.nodes`."""
        now = self._clock()

        def look(connection: sqlite3.Connection) -> Sequence[NodeInfo]:
            _heed_clock(connection, now)
            return tuple(
                NodeInfo(
                    Node(node_id, name, code_version, state_version),
                    bool(is_draining),
                    datetime.datetime.fromtimestamp(joined_at, datetime.UTC),
                    ends_at - now,
                    claims,
                )
                for node_id, name, code_version, state_version, is_draining, joined_at, ends_at, claims in connection.execute(_NODES)
            )

        return await self._file.run(look, now)

    # ── conversations

    async def claim(self, conversation_id: str, node_id: str) -> Claim | None:
        """Let a node run the agent of a conversation; as `Cluster.claim`."""
        now = self._clock()

        def change(connection: sqlite3.Connection) -> Claim | None:
            _heed_clock(connection, now)
            own = connection.execute("SELECT ends_at, is_draining FROM nodes WHERE node_id = ?", (node_id,)).fetchone()
            if own is None or own[0] <= now:
                raise RegistryUnavailable("the lease of this node has ended, so it cannot take a conversation")
            if own[1]:
                raise RegistryUnavailable("this node is draining, so it takes no conversation")
            if connection.execute(_CLAIM, {"conversation": conversation_id, "node": node_id, "now": now}).rowcount:
                return None
            return _holders(connection, [conversation_id], now)[conversation_id]

        return await self._file.run(change, now)

    async def release(self, conversation_ids: Sequence[str], node_id: str) -> None:
        """End claims of a node; as `Cluster.release`."""

        def change(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM claims WHERE conversation_id = ? AND node_id = ?",
                [(conversation_id, node_id) for conversation_id in conversation_ids],
            )

        await self._file.run(change, self._clock())

    async def holders(self, conversation_ids: Collection[str]) -> Mapping[str, Claim]:
        """Return who has each of the conversations; as `Cluster.holders`."""
        now = self._clock()

        def look(connection: sqlite3.Connection) -> Mapping[str, Claim]:
            _heed_clock(connection, now)
            return _holders(connection, conversation_ids, now)

        return await self._file.run(look, now)

    # ── mail

    async def send(self, mails: Sequence[Mail]) -> Collection[str]:
        """Put mails into boxes; as `Cluster.send`.

        Raises:
            ValueError: a mail is too long, or its body is not JSON text; nothing was sent.
        """
        check_mails(mails, self.max_mail)
        now = self._clock()

        def change(connection: sqlite3.Connection) -> Collection[str]:
            _heed_clock(connection, now)
            refused: set[str] = set()
            for recipient in dict.fromkeys(mail.recipient for mail in mails):
                theirs = [(recipient, mail.sender, mail.body) for mail in mails if mail.recipient == recipient]
                is_live = connection.execute("SELECT 1 FROM nodes WHERE node_id = ? AND ends_at > ?", (recipient, now)).fetchone()
                (waiting,) = connection.execute("SELECT count(*) FROM mail WHERE recipient = ?", (recipient,)).fetchone()
                if is_live is None or waiting + len(theirs) > self.max_box:
                    refused.add(recipient)
                    continue
                connection.executemany("INSERT INTO mail (recipient, sender, body) VALUES (?, ?, ?)", theirs)
            return refused

        return await self._file.run(change, now)

    async def receive(self, node_id: str, done: Sequence[int], limit: int) -> Sequence[Received]:
        """Return what is in the box of a node; as `Cluster.receive`."""
        check_limit(limit)
        self._seen[node_id] = self._version()

        def change(connection: sqlite3.Connection) -> Sequence[Received]:
            connection.executemany("DELETE FROM mail WHERE number = ? AND recipient = ?", [(number, node_id) for number in done])
            # By what is left, not by a number: in an engine where numbers are drawn before the commit, a lower number can come later.
            rows = connection.execute("SELECT number, sender, body FROM mail WHERE recipient = ? ORDER BY number LIMIT ?", (node_id, limit))
            return tuple(Received(*row) for row in rows)

        return await self._file.run(change, self._clock())

    async def wait(self, node_id: str) -> None:
        """Wait for mail; as `Cluster.wait`."""
        await trio.lowlevel.checkpoint()
        self._watch_file()
        with trio.move_on_after(LONGEST_WAIT):
            # SQLite tells nobody of a commit: to look again and again is the only way.
            while self._version() == self._seen.get(node_id, _NEVER):  # noqa: ASYNC110
                await trio.sleep(self._poll_interval)

    # ── looking for changes

    def _version(self) -> object:
        """Return what changes with each commit of another connection; something new if it cannot be read now."""
        if self._watch is None:
            return object()
        try:
            return pragma(self._watch, "data_version")
        except sqlite3.Error:  # another process has the file locked at this moment, so it changes: look again
            return object()

    def _watch_file(self) -> None:
        """Look at the file that is there now: it may have been replaced."""
        try:
            found = os.stat(self._file.path)  # noqa: PTH116  # compared with another one
        except OSError:
            return
        if self._watch is not None and self._watched is not None and os.path.samestat(found, self._watched):
            return
        self._end_watch()
        # No wait for locks: this runs in the event loop, and whoever finds the file locked looks again.
        self._watch = connect(_FILE, self._file.path, busy_timeout=0, synchronous="OFF")
        self._watched = found

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._watch = self._watched = None


_NEVER: Final = object()


def _heed_clock(connection: sqlite3.Connection, now: float) -> None:
    """A clock that was set back must not make a lease last longer than it was given for."""
    connection.execute("UPDATE nodes SET ends_at = ?1 + ttl WHERE ends_at > ?1 + ttl", (now,))


def _sweep(connection: sqlite3.Connection, now: float) -> None:
    _heed_clock(connection, now)
    for (node_id,) in connection.execute("SELECT node_id FROM nodes WHERE ends_at + ? * ttl <= ?", (SWEPT_AFTER, now)).fetchall():
        _remove(connection, node_id)


def _remove(connection: sqlite3.Connection, node_id: str) -> None:
    connection.execute("DELETE FROM nodes WHERE node_id = ?", (node_id,))
    connection.execute("DELETE FROM claims WHERE node_id = ?", (node_id,))
    connection.execute("DELETE FROM mail WHERE recipient = ?", (node_id,))


def _holders(connection: sqlite3.Connection, conversation_ids: Collection[str], now: float) -> Mapping[str, Claim]:
    rows = connection.execute(_HOLDERS, {"now": now, "ids": json.dumps(list(conversation_ids))})
    return {conversation_id: Claim(node_id, ends_at - now) for conversation_id, node_id, ends_at in rows}
