"""A store in PostgreSQL, or in a database that speaks its protocol: for several processes and machines. Needs the extra `postgres`.

Safety is in the store. Each commit is compared and set in one statement on the owner, the epoch and the revision of the conversation, and
each load raises the epoch in its own transaction. Whoever loaded a conversation last is its only effective writer: what an earlier one
still tries to save is refused.
"""

import datetime
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Literal, TypeVar

try:
    from trio_sagents._postgres import Connection, Database
except ImportError as _exc:
    if _exc.name not in {"psycopg", "psycopg_pool"}:
        raise
    raise ImportError(
        'PostgresStore needs the packages "psycopg" and "psycopg_pool": pip install "trio-sagents[postgres]"', name=_exc.name
    ) from _exc

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
from trio_sagents.persistence import _postgres_tables as tables
from trio_sagents.persistence._postgres_schema import prepare
from trio_sagents.persistence._records import check_limit, decode_cursor, encode_commit, wanted_key

T = TypeVar("T")


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
        self._database = Database(
            conninfo,
            kind="PostgresStore",
            connections=connections,
            statement_timeout=statement_timeout,
            connect_timeout=connect_timeout,
        )

    def __repr__(self) -> str:
        return f"PostgresStore(connections={self._database.connections})"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Connect, and bring the schema up to date; disconnect when the block is left.

        Raises:
            PersistenceError: the database cannot be used; the message says why.

        Cancellation: nothing stays open.
        """
        async with self._database.open(prepare):
            yield

    async def _call(self, work: Callable[[Connection], T]) -> T:
        return await self._database.call(work)

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

    async def recall(
        self, scope: Scope, conversation_id: str, names: Sequence[str], *, owner: Owner | Unchecked = UNCHECKED
    ) -> Mapping[str, Recalled]:
        """Return the messages that checkpoints have put into the index under these names. As `SqliteStore.recall`."""
        check_id("conversation_id", conversation_id)
        wanted = wanted_key(owner)
        return await self._call(lambda connection: tables.recall(connection, conversation_id, wanted, names))

    async def older_messages(
        self, scope: Scope, conversation_id: str, *, before: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED
    ) -> OlderPage:
        """Return a page of the messages that are not in the window. As `SqliteStore.older_messages`."""
        check_id("conversation_id", conversation_id)
        place = decode_cursor("m", "before", before)
        check_limit(limit)
        wanted = wanted_key(owner)
        return await self._call(lambda connection: tables.older_messages(connection, conversation_id, wanted, place, limit))

    async def delete(self, scope: Scope, conversation_id: str, *, owner: Owner | Unchecked = UNCHECKED) -> bool:
        """Delete the conversation and its transcript; return False if there is none, or if another owner has it.

        Raises:
            PersistenceError: the database could not be used.

        Cancellation: either nothing was deleted, or all of it.
        """
        check_id("conversation_id", conversation_id)
        wanted = wanted_key(owner)
        return await self._call(lambda connection: tables.delete(connection, conversation_id, wanted))
