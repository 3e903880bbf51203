"""A cluster in PostgreSQL: for several machines. Needs the extra `postgres`.

Mail is in an unlogged table: a crash of the server may lose it, and whoever sent a command sends it again. A notification only says "look".
It is sent from a connection of its own, behind the transaction of the mail, for many mails at once, because a NOTIFY inside a transaction
takes a lock of the whole server at its commit. Notifications may be lost, so every node also looks by itself every few seconds.
"""

import functools
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import trio

try:
    import psycopg
    from psycopg import sql

    from trio_sagents._postgres import Connection, Database
except ImportError as _exc:
    if _exc.name not in {"psycopg", "psycopg_pool"}:
        raise
    raise ImportError(
        'PostgresCluster needs the packages "psycopg" and "psycopg_pool": pip install "trio-sagents[postgres]"', name=_exc.name
    ) from _exc

from trio_sagents.cluster import _postgres_nodes as tables
from trio_sagents.cluster._rules import LONGEST_WAIT, MAX_BOX, check_bounds, check_limit, check_mails, check_ttl
from trio_sagents.exceptions import PersistenceError, RegistryUnavailable
from trio_sagents.nodes import Claim, Mail, Node, NodeInfo, Received

T = TypeVar("T")
PROBE_TIMEOUT: Final = 2.0
"""Seconds within which a notification of this process to itself has to arrive when the cluster is opened."""
log: Final = logging.getLogger("trio_sagents")


class PostgresCluster:
    """A cluster in a PostgreSQL database, which may be that of the store. Its tables have names that begin with `trio_sagents_`.

    Each open cluster has, besides its pool, one connection that listens and one that notifies. Both need sessions of their own: a pooler
    that gives a session to each transaction breaks them without an error. `open` finds that out; then the cluster polls, and warns.

    Args:
        conninfo: where the database is, as libpq takes it: "postgresql://user@host/name", or "host=... dbname=...". It may hold a password,
            so it is in no error and no log.
        connections: the most connections at a time, >= 1, without the two that listen and notify.
        statement_timeout: seconds after which the server gives up one statement; finite, > 0.
        connect_timeout: seconds to wait for a connection; finite, > 0.
        poll_interval: seconds between two looks for mail if notifications do not arrive; > 0, at most 5.
        max_mail: the most bytes of one mail; at least 64 KiB.
        max_box: the most mails that wait for one node, > 0; a few more if several nodes send at the same moment.

    Raises:
        TypeError, ValueError: an argument is out of range.

    Cancellation: the server is told to give up; nobody knows whether the change was made.
    """

    def __init__(  # each is a choice of its own
        self,
        conninfo: str,
        *,
        connections: int = 4,
        statement_timeout: float = 5.0,
        connect_timeout: float = 5.0,
        poll_interval: float = 0.5,
        max_mail: int = 1024 * 1024,
        max_box: int = MAX_BOX,
    ) -> None:
        check_bounds(max_mail, max_box)
        if not 0 < poll_interval <= LONGEST_WAIT:
            raise ValueError(f"poll_interval must be above 0 and at most {LONGEST_WAIT:g} seconds, not {poll_interval!r}")
        self.max_mail: Final[int] = max_mail
        self.max_box: Final = max_box
        self._database: Final = Database(
            conninfo,
            kind="PostgresCluster",
            connections=connections,
            statement_timeout=statement_timeout,
            connect_timeout=connect_timeout,
        )
        self._poll_interval: Final = poll_interval
        self._is_notified = False
        """Whether notifications arrive, as far as is known."""
        self._sessions: dict[str, Connection] = {}
        """The sessions of this process's own: by node id one that listens, and by "" one that notifies."""
        self._to_tell: dict[str, None] = {}
        """Nodes that have mail, and were not notified yet."""
        self._is_telling = False

    def __repr__(self) -> str:
        return f"PostgresCluster(connections={self._database.connections})"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Connect, make the tables, and find out whether notifications arrive; disconnect when the block is left.

        Raises:
            PersistenceError: the database cannot be used; the message says why.

        Cancellation: nothing stays open.
        """
        async with self._database.open(tables.prepare):
            try:
                self._is_notified = await self._probe()
                if not self._is_notified:
                    log.warning(
                        "notifications of PostgreSQL do not arrive, probably because of a pooler in between: nodes look for mail every %g "
                        "seconds; connect the cluster to the server itself, or with session pooling",
                        self._poll_interval,
                    )
                yield
            finally:
                for name in tuple(self._sessions):
                    self._end_session(name)

    # ── nodes

    async def join(self, node: Node, ttl: float) -> None:
        """Add a node; as `Cluster.join`."""
        check_ttl(ttl)
        await self._call(lambda connection: tables.join(connection, node, ttl))

    async def renew(self, node_id: str, ttl: float, *, is_draining: bool = False) -> bool:
        """Let the lease of a node last longer; as `Cluster.renew`."""
        check_ttl(ttl)
        return await self._call(lambda connection: tables.renew(connection, node_id, ttl, is_draining=is_draining))

    async def leave(self, node_id: str) -> None:
        """Remove a node; as `Cluster.leave`."""
        await self._call(lambda connection: tables.leave(connection, node_id))

    async def nodes(self) -> Sequence[NodeInfo]:
        """Return the nodes; as `Cluster.nodes`."""
        return await self._call(tables.nodes)

    # ── conversations

    async def claim(self, conversation_id: str, node_id: str) -> Claim | None:
        """Let a node run the agent of a conversation; as `Cluster.claim`."""
        return await self._call(lambda connection: tables.claim(connection, conversation_id, node_id))

    async def release(self, conversation_ids: Sequence[str], node_id: str) -> None:
        """End claims of a node; as `Cluster.release`."""
        await self._call(lambda connection: tables.release(connection, conversation_ids, node_id))

    async def holders(self, conversation_ids: Collection[str]) -> Mapping[str, Claim]:
        """Return who has each of the conversations; as `Cluster.holders`."""
        return await self._call(lambda connection: tables.holders(connection, conversation_ids))

    # ── mail

    async def send(self, mails: Sequence[Mail]) -> Collection[str]:
        """Put mails into boxes; as `Cluster.send`.

        Raises:
            ValueError: a mail is too long, or its body is not JSON text; nothing was sent.
        """
        check_mails(mails, self.max_mail)
        refused, told = await self._call(lambda connection: tables.send(connection, mails, self.max_box))
        await self._tell(told)
        return refused

    async def receive(self, node_id: str, done: Sequence[int], limit: int) -> Sequence[Received]:
        """Return what is in the box of a node; as `Cluster.receive`."""
        check_limit(limit)
        return await self._call(lambda connection: tables.receive(connection, node_id, done, limit))

    async def wait(self, node_id: str) -> None:
        """Wait for mail; as `Cluster.wait`."""
        await trio.lowlevel.checkpoint()
        if not self._is_notified:
            await trio.sleep(self._poll_interval)
            return
        session = self._sessions.get(node_id)
        try:
            if session is None:
                await self._listen(node_id)
                return  # mail may have come before this session has listened
            with trio.move_on_after(LONGEST_WAIT):
                await _notified(session)
        except psycopg.Error:
            self._end_session(node_id)  # the next wait connects again; until then the nodes poll
            await trio.sleep(self._poll_interval)

    # ── inside

    async def _call(self, work: Callable[[Connection], T]) -> T:
        try:
            return await self._database.call(work)
        except PersistenceError as exc:
            raise RegistryUnavailable(str(exc)) from exc

    def _connect(self) -> Connection:
        database = self._database
        return psycopg.connect(
            database.conninfo,
            autocommit=True,
            connect_timeout=max(2, round(database.connect_timeout)),
            application_name="trio_sagents cluster",
        )

    async def _session(self, name: str) -> Connection:
        """Return a session of this process's own, which is made if there is none; raise psycopg.Error if that fails."""
        session = self._sessions.get(name)
        if session is None:
            # Cancellation: a thread is waited for, at most for connect_timeout.
            session = self._sessions[name] = await trio.to_thread.run_sync(self._connect)
        return session

    def _end_session(self, name: str) -> None:
        session = self._sessions.pop(name, None)
        if session is not None:
            if not session.closed:
                trio.lowlevel.notify_closing(session.fileno())
            session.close()

    async def _listen(self, node_id: str) -> Connection:
        session = await self._session(node_id)
        await trio.to_thread.run_sync(session.execute, sql.SQL("LISTEN {}").format(sql.Identifier(_channel(node_id))))
        return session

    async def _probe(self) -> bool:
        """Return whether a notification of this process arrives at this process."""
        name = "probe"
        try:
            session = await self._listen(name)
            await self._notify([name])
            with trio.move_on_after(PROBE_TIMEOUT) as waited:
                await _notified(session)
        except psycopg.Error:
            return False
        finally:
            self._end_session(name)
        return not waited.cancelled_caught

    async def _tell(self, node_ids: Iterable[str]) -> None:
        """Notify nodes that have mail. Of several senders at once, one notifies for all of them."""
        if not self._is_notified:
            return
        self._to_tell.update(dict.fromkeys(node_ids))
        if self._is_telling:
            return
        self._is_telling = True
        try:
            while self._to_tell:
                told, self._to_tell = tuple(self._to_tell), {}
                await self._notify(told)
        except psycopg.Error:
            self._end_session("")  # the nodes look by themselves; the next mail connects again
        finally:
            self._is_telling = False

    async def _notify(self, node_ids: Sequence[str]) -> None:
        session = await self._session("")
        channels = [_channel(node_id) for node_id in node_ids]
        await trio.to_thread.run_sync(
            functools.partial(session.execute, "SELECT pg_notify(channel, '') FROM unnest(%s::text[]) AS channel", (channels,))
        )


async def read_nodes(conninfo: str) -> Sequence[NodeInfo] | None:
    """Return the nodes of a cluster, for an operator; nothing is changed, and no tables are made.

    Args:
        conninfo: as of `PostgresCluster`.

    Returns:
        None if there are no tables of a cluster.

    Raises:
        PersistenceError: the database cannot be used; the message says why.

    Cancellation: nothing is changed.
    """
    database = Database(conninfo, kind="PostgresCluster", connections=1, statement_timeout=10.0, connect_timeout=10.0)
    async with database.open(lambda _connection: None):
        is_there = await database.call(lambda connection: connection.execute("SELECT to_regclass('trio_sagents_nodes')").fetchone())
        return None if is_there is None or is_there[0] is None else await database.call(tables.nodes)


def _channel(node_id: str) -> str:
    """Return the channel of a node: at most 63 bytes, whatever its id is."""
    return f"trio_sagents_{hashlib.sha256(node_id.encode()).hexdigest()[:32]}"


async def _notified(session: Connection) -> None:
    """Wait until at least one notification has arrived; raise psycopg.Error if the session is lost."""
    while True:
        session.pgconn.consume_input()
        is_new = False
        while session.pgconn.notifies() is not None:
            is_new = True
        if is_new:
            return
        await trio.lowlevel.wait_readable(session.fileno())
