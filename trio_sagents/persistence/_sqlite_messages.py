"""Where a file keeps messages, the queue, and the ids of accepted messages: one class for each version of the tables.

An id is accepted once in a conversation, for ever. Since version 2 the id and the digest are in the row of the message, which moves
from the queue into the history. The table `message_ids` then has only ids that no such row has. In version 1 it has all of them.
"""

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Final, Protocol, TypeAlias

import attrs

from trio_sagents.data.json import JSON
from trio_sagents.data.wire import ReadRecords
from trio_sagents.exceptions import PersistenceError, StateError
from trio_sagents.persistence._records import EncodedCommit, add_record, message_id_of
from trio_sagents.persistence._windows import Beginning

Query: TypeAlias = tuple[str, tuple[object, ...]]


@attrs.frozen
class StoredMessages:
    """What is loaded of the messages of one conversation."""

    history: Sequence[JSON]
    """The window, oldest first."""
    queue: Sequence[JSON]
    """Oldest first."""
    message_ids: Mapping[str, str]
    """All ids that were ever accepted, each with the digest of the content; after a checkpoint those of the window and the queue alone."""


class MessageTables(Protocol):
    """The tables of one version. All functions are called inside a transaction."""

    def load(self, connection: sqlite3.Connection, conversation_id: str, number: int, beginning: Beginning) -> StoredMessages:
        """Return the messages of a conversation from the beginning of its window on; StateError if they are damaged."""
        ...

    def store(self, connection: sqlite3.Connection, encoded: EncodedCommit, number: int) -> None:
        """Store the messages of a commit.

        Raises:
            PersistenceError: a message id is used already, a message is queued twice, or a taken message is not in the queue.
        """
        ...


def tables_of(version: object) -> MessageTables:
    """Return the tables of a file of this version."""
    return FirstTables() if version == 1 else SecondTables()


@contextmanager
def reading(connection: sqlite3.Connection, conversation_id: str, query: str, arguments: tuple[object, ...]) -> Iterator[sqlite3.Cursor]:
    """Run a query; an error of Python or SQLite about a damaged value becomes a StateError.

    The cursor is closed at once: otherwise the frames of an error would keep it open, and with it the lock of a reader.
    """
    try:
        with closing(connection.execute(query, arguments)) as cursor:
            yield cursor
    except (UnicodeDecodeError, sqlite3.DataError) as exc:
        raise StateError(conversation_id, str(exc)[:300]) from exc


# ── version 2

HISTORY: Final = "SELECT body, message_id, digest FROM messages WHERE conversation = ? AND place > ? AND place <= ? ORDER BY place"
_QUEUE: Final = "SELECT body, message_id, digest FROM queue WHERE conversation = ? ORDER BY place"
_USED: Final = """SELECT digest FROM messages WHERE conversation = ?1 AND message_id = ?2
UNION ALL SELECT digest FROM queue WHERE conversation = ?1 AND message_id = ?2 AND digest IS NOT NULL
UNION ALL SELECT digest FROM message_ids WHERE conversation = ?1 AND message_id = ?2"""
_APPEND: Final = "INSERT INTO messages (conversation, message_id, digest, body) VALUES (?, ?, ?, ?)"


class SecondTables:
    """The tables of this version."""

    def load(self, connection: sqlite3.Connection, conversation_id: str, number: int, beginning: Beginning) -> StoredMessages:
        """Return the messages of a conversation."""
        message_ids = {} if beginning.older else _load_ids(connection, conversation_id, number)
        history = ReadRecords(_let_others_run)
        for part in beginning.parts:
            with reading(connection, conversation_id, HISTORY, (number, *part)) as found:
                for body, message_id, digest in found:
                    add_record(conversation_id, history, body)
                    if message_id is None and digest is None:
                        continue  # nobody posted it
                    _note_id(conversation_id, message_ids, message_id, digest)
        queue = ReadRecords()
        with reading(connection, conversation_id, _QUEUE, (number,)) as found:
            for body, message_id, digest in found:
                _add_queued(conversation_id, queue, body, message_id)
                if digest is not None:
                    _note_id(conversation_id, message_ids, message_id, digest)
        return StoredMessages(history, queue, message_ids)

    def store(self, connection: sqlite3.Connection, encoded: EncodedCommit, number: int) -> None:
        """Store the messages of a commit."""
        where, new = encoded.commit.conversation_id, dict(encoded.message_ids)
        for message_id in new:
            if connection.execute(_USED, (number, message_id)).fetchone() is not None:
                raise _used(where, new)
        for message_id, body in encoded.queued.items():
            fields = (number, message_id, new.pop(message_id, None), body)
            added = connection.execute("INSERT OR IGNORE INTO queue (conversation, message_id, digest, body) VALUES (?, ?, ?, ?)", fields)
            if added.rowcount != 1:
                raise _queued_twice(where, message_id)
        for message_id in encoded.taken:
            accepted_as = _take(connection, number, where, message_id)
            if accepted_as is not None:
                new[message_id] = accepted_as
        if encoded.messages:
            connection.executemany(_APPEND, _rows(encoded, number, new))
        if new:
            connection.executemany("INSERT INTO message_ids VALUES (?, ?, ?)", [(number, *pair) for pair in new.items()])


def _rows(encoded: EncodedCommit, number: int, new: dict[str, str]) -> list[tuple[object, ...]]:
    """Return the rows of the messages; those with an id in `new` get it, and it leaves `new`."""
    rows: list[tuple[object, ...]] = []
    for record, body in zip(encoded.commit.messages, encoded.messages, strict=True):
        message_id = message_id_of(record) if new else None
        digest = None if message_id is None else new.pop(message_id, None)
        rows.append((number, None if digest is None else message_id, digest, body))
    return rows


def _take(connection: sqlite3.Connection, number: int, conversation_id: str, message_id: str) -> str | None:
    """Delete a message from the queue, and return its digest; None if its id was not accepted with it."""
    query = "SELECT place, digest FROM queue WHERE conversation = ? AND message_id = ?"
    found: tuple[int, str | None] | None = connection.execute(query, (number, message_id)).fetchone()
    if found is None:
        raise _not_queued(conversation_id, message_id)
    place, digest = found
    connection.execute("DELETE FROM queue WHERE place = ?", (place,))
    return digest


# ── version 1


FIRST_HISTORY: Final = "SELECT body FROM messages WHERE conversation = ? AND place > ? AND place <= ? ORDER BY place"


class FirstTables:
    """The tables of version 1: the ids are in a table of their own."""

    def load(self, connection: sqlite3.Connection, conversation_id: str, number: int, beginning: Beginning) -> StoredMessages:
        """Return the messages of a conversation."""
        history = ReadRecords(_let_others_run)
        for part in beginning.parts:
            with reading(connection, conversation_id, FIRST_HISTORY, (number, *part)) as found:
                for (body,) in found:
                    add_record(conversation_id, history, body)
        query = "SELECT message_id, body FROM queue WHERE conversation = ? ORDER BY place"
        queue = ReadRecords()
        with reading(connection, conversation_id, query, (number,)) as found:
            for message_id, body in found:
                _add_queued(conversation_id, queue, body, message_id)
        if not beginning.older:
            return StoredMessages(history, queue, _load_ids(connection, conversation_id, number))
        message_ids: dict[str, str] = {}
        for message_id in filter(None, map(message_id_of, (*history, *queue))):
            message_ids.update(_load_ids(connection, conversation_id, number, message_id))
        return StoredMessages(history, queue, message_ids)

    def store(self, connection: sqlite3.Connection, encoded: EncodedCommit, number: int) -> None:
        """Store the messages of a commit."""
        where = encoded.commit.conversation_id
        if encoded.messages:
            connection.executemany("INSERT INTO messages (conversation, body) VALUES (?, ?)", [(number, text) for text in encoded.messages])
        if encoded.message_ids:
            new = [(number, *pair) for pair in encoded.message_ids.items()]
            if connection.executemany("INSERT OR IGNORE INTO message_ids VALUES (?, ?, ?)", new).rowcount != len(new):
                raise _used(where, encoded.message_ids)
        for message_id, body in encoded.queued.items():
            fields = (number, message_id, body)
            added = connection.execute("INSERT OR IGNORE INTO queue (conversation, message_id, body) VALUES (?, ?, ?)", fields)
            if added.rowcount != 1:
                raise _queued_twice(where, message_id)
        for message_id in encoded.taken:
            gone = connection.execute("DELETE FROM queue WHERE conversation = ? AND message_id = ?", (number, message_id))
            if gone.rowcount != 1:
                raise _not_queued(where, message_id)


# ── what both have


def _load_ids(connection: sqlite3.Connection, conversation_id: str, number: int, only: str | None = None) -> dict[str, str]:
    """Return the ids in the table of ids with their digests: all of them, or one if it is there."""
    message_ids: dict[str, str] = {}
    query, arguments = "SELECT message_id, digest FROM message_ids WHERE conversation = ?", (number,) if only is None else (number, only)
    with reading(connection, conversation_id, query if only is None else f"{query} AND message_id = ?", arguments) as found:
        for message_id, digest in found:
            _note_id(conversation_id, message_ids, message_id, digest)
    return message_ids


def _note_id(conversation_id: str, message_ids: dict[str, str], message_id: object, digest: object) -> None:
    """Note the id of an accepted message."""
    if type(message_id) is not str or type(digest) is not str:
        raise StateError(conversation_id, "a message id is not text")
    message_ids[message_id] = digest


def _add_queued(conversation_id: str, queue: ReadRecords, body: object, message_id: object) -> None:
    if message_id_of(add_record(conversation_id, queue, body)) != message_id:
        raise StateError(conversation_id, f"a queued message is not {message_id!r}"[:300])


def _let_others_run() -> None:
    """Let the other threads run, the event loop among them: without this, they wait for the interpreter's own switch interval."""
    time.sleep(0)


def _used(conversation_id: str, message_ids: Mapping[str, str]) -> PersistenceError:
    ids = ", ".join(map(repr, message_ids))[:300]
    return PersistenceError(f"a message id of conversation {conversation_id!r} is used already: one of {ids}")


def _queued_twice(conversation_id: str, message_id: str) -> PersistenceError:
    return PersistenceError(f"message {message_id!r} of conversation {conversation_id!r} is queued twice")


def _not_queued(conversation_id: str, message_id: str) -> PersistenceError:
    return PersistenceError(f"message {message_id!r} of conversation {conversation_id!r} is not in the queue")
