"""The tables of a `SqliteStore`, and how its file is opened.

What conversations say is appended to tables that they share, in the order in which it was committed, and found again through
a narrow index: a group of commits fills few pages, and an append touches as many however long its conversation is. (Clustered by
conversation, a group of a thousand wrote five times the bytes and took three times as long.)
"""

import operator
import sqlite3
from typing import Final

from trio_sagents import _sqlite
from trio_sagents._sqlite import DatabaseKind, Synchronous
from trio_sagents.persistence import _sqlite_windows as windows
from trio_sagents.persistence._records import MAX_RECORD_BYTES

TABLES: Final = {
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

WAITING_INDEX: Final = "CREATE INDEX IF NOT EXISTS state_waiting ON state (name) WHERE name = 'interrupt'"
"""Holds the conversations that wait for a person, and no others. An older file gets it when it is opened."""

STORE_FILE: Final = DatabaseKind("database", "SqliteStore", 0x54534741, 1, TABLES, MAX_RECORD_BYTES)
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
    for table in windows.TABLES:
        connection.execute(table)
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute("PRAGMA cache_size = -16384")
    connection.execute("PRAGMA journal_size_limit = 33554432")
    connection.execute("UPDATE conversations SET epoch = epoch WHERE false")  # shows now whether it can be written
