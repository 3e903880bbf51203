"""The tables of a `SqliteStore`, and how its file is opened.

What conversations say is appended to tables that they share, in the order in which it was committed, and found again through
a narrow index: a group of commits fills few pages, and an append touches as many however long its conversation is. (Clustered by
conversation, a group of a thousand wrote five times the bytes and took three times as long.)

What a turn writes is pages, so a turn touches few, and small ones: a page has 2 KiB (with 4 KiB a turn writes nearly twice as much;
with 1 KiB a large group of commits splits too many pages). The id and the digest of a message that somebody posted are in the row of
the message. The list of conversations has one index, by owner; whoever lists the conversations of all owners merges the owners.

Files of version 1, which an earlier library made, are used as they are: they have 4 KiB pages, two indexes of the list, and all message
ids in a table of their own. `_sqlite_migration` rewrites such a file.
"""

import operator
import sqlite3
from typing import Final

from trio_sagents import _sqlite
from trio_sagents._sqlite import DatabaseKind, Synchronous
from trio_sagents.persistence import _sqlite_windows as windows
from trio_sagents.persistence._records import MAX_RECORD_BYTES

FIRST_TABLES: Final = {
    "conversations": """CREATE TABLE conversations (
  number INTEGER PRIMARY KEY,
  conversation_id TEXT NOT NULL UNIQUE,
  agent_id TEXT NOT NULL,
  owner TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  change INTEGER NOT NULL,
  message_count INTEGER NOT NULL,
  title TEXT,
  updated_at TEXT NOT NULL
)""",
    "conversations_by_change": "CREATE INDEX conversations_by_change ON conversations (change)",
    "conversations_by_owner": "CREATE INDEX conversations_by_owner ON conversations (owner, change)",
    "messages": "CREATE TABLE messages (place INTEGER PRIMARY KEY, conversation INTEGER NOT NULL, body TEXT NOT NULL)",
    "messages_by_conversation": "CREATE INDEX messages_by_conversation ON messages (conversation)",
    "queue": """CREATE TABLE queue (
  place INTEGER PRIMARY KEY,
  conversation INTEGER NOT NULL,
  message_id TEXT NOT NULL,
  body TEXT NOT NULL,
  UNIQUE (conversation, message_id)
)""",
    "message_ids": """CREATE TABLE message_ids (
  conversation INTEGER NOT NULL,
  message_id TEXT NOT NULL,
  digest TEXT NOT NULL,
  PRIMARY KEY (conversation, message_id)
) WITHOUT ROWID""",
    "state": "CREATE TABLE state (conversation INTEGER NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (conversation, name))",
    "transcript": """CREATE TABLE transcript (
  place INTEGER PRIMARY KEY,
  conversation INTEGER NOT NULL,
  row_id TEXT NOT NULL,
  message_id TEXT NOT NULL,
  role TEXT NOT NULL,
  content_type TEXT NOT NULL,
  content TEXT NOT NULL,
  status TEXT NOT NULL,
  created_at TEXT NOT NULL,
  UNIQUE (conversation, row_id)
)""",
    "transcript_by_conversation": "CREATE INDEX transcript_by_conversation ON transcript (conversation)",
}

TABLES: Final = {
    **{name: text for name, text in FIRST_TABLES.items() if name not in {"conversations_by_change", "message_ids"}},
    "messages": """CREATE TABLE messages (
  place INTEGER PRIMARY KEY,
  conversation INTEGER NOT NULL,
  message_id TEXT,
  digest TEXT,
  body TEXT NOT NULL
)""",
    "messages_by_id": "CREATE UNIQUE INDEX messages_by_id ON messages (conversation, message_id) WHERE message_id IS NOT NULL",
    "queue": """CREATE TABLE queue (
  place INTEGER PRIMARY KEY,
  conversation INTEGER NOT NULL,
  message_id TEXT NOT NULL,
  digest TEXT,
  body TEXT NOT NULL,
  UNIQUE (conversation, message_id)
)""",
    # Only ids whose messages are neither in the history nor in the queue.
    "message_ids": FIRST_TABLES["message_ids"],
}
"""In `messages` and `queue`, `message_id` and `digest` are those of a message that was accepted under its id; otherwise both, or the
digest, are NULL."""

WAITING_INDEX: Final = "CREATE INDEX IF NOT EXISTS state_waiting ON state (name) WHERE name = 'interrupt'"
"""Holds the conversations that wait for a person, and no others. An older file gets it when it is opened."""

UNFINISHED_INDEX: Final = "CREATE INDEX IF NOT EXISTS state_unfinished ON state (name) WHERE name = 'unfinished'"
"""Holds the conversations that have work left, and no others; likewise."""

PAGE_SIZE: Final = 2048
LOG_BYTES: Final = 16 * 1024 * 1024
"""How long the log grows before it is copied into the database: 8,000 pages of a new file."""
STORE_FILE: Final = DatabaseKind("database", "SqliteStore", 0x54534741, 2, TABLES, MAX_RECORD_BYTES, PAGE_SIZE, {1: FIRST_TABLES})
"""The version is that of the tables, not of the records in them: `wire.SCHEMA_VERSION` is that of the records."""


def connect(path: str, *, busy_timeout: float, synchronous: Synchronous) -> sqlite3.Connection:
    """Return a connection to a file that exists, in autocommit mode, usable from any one thread at a time."""
    connection = _sqlite.connect(STORE_FILE, path, busy_timeout=busy_timeout, synchronous=synchronous)
    connection.text_factory = operator.methodcaller("decode")  # strict, and says so with UnicodeDecodeError
    return connection


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Check that the file is ours, make the tables in an empty file, and see that the file can be written.

    A file that is not ours is left as it is. Whoever opened the connection closes it on any error, which undoes what was begun.

    Raises:
        PersistenceError: the file is another program's, or of a newer version, or cannot be written in this mode.
        sqlite3.Error: SQLite could not.
    """
    _sqlite.prepare(connection, STORE_FILE, path)
    connection.execute(WAITING_INDEX)
    connection.execute(UNFINISHED_INDEX)
    for table in windows.TABLES:
        connection.execute(table)
    page_size = _sqlite.pragma(connection, "page_size")
    connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // page_size if isinstance(page_size, int) else 4000}")
    connection.execute("PRAGMA cache_size = -16384")
    connection.execute("PRAGMA journal_size_limit = 33554432")
    connection.execute("UPDATE conversations SET epoch = epoch WHERE false")  # shows now whether it can be written
