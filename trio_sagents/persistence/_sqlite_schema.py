"""The SQLite file: what it looks like, how it is opened and checked, and what its errors mean to a person.

What conversations say is appended to tables that they share, in the order in which it was committed, and found again through
a narrow index: a group of commits fills few pages, and an append touches as many however long its conversation is. (Clustered by
conversation, a group of a thousand wrote five times the bytes and took three times as long.)
"""

import operator
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Literal, TypeAlias

from trio_sagents.exceptions import PersistenceError
from trio_sagents.persistence._records import MAX_RECORD_BYTES

Synchronous: TypeAlias = Literal["FULL", "NORMAL"]
APPLICATION_ID: Final = 0x54534741
"""In the header of each file that is ours."""
FILE_VERSION: Final = 1
"""Of the tables, not of the records in them: `wire.SCHEMA_VERSION` is those'."""

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

_ADVICE: Final = {
    sqlite3.SQLITE_BUSY: "another process holds it; end that process, or wait until it is done",
    sqlite3.SQLITE_LOCKED: "another connection holds it; close that one",
    sqlite3.SQLITE_FULL: "there is no room; make some on its disk",
    sqlite3.SQLITE_READONLY: "it cannot be written; make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; see that its folder exists and may be read and written",
    sqlite3.SQLITE_PERM: "it may not be opened; see to its permissions",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database, or it is encrypted; give another path",
    sqlite3.SQLITE_CORRUPT: "the database is damaged; restore it from a backup, or try `sqlite3 FILE .recover`",
    sqlite3.SQLITE_IOERR: "reading or writing it failed; see to its disk",
    sqlite3.SQLITE_ERROR: "its tables are not those of this library any more; restore it from a backup",
    sqlite3.SQLITE_TOOBIG: f"a record has more than {MAX_RECORD_BYTES} bytes",
}


def explain(path: str, exc: sqlite3.Error) -> PersistenceError:
    """Return the error that says which file it was, what happened, and what to do."""
    code = getattr(exc, "sqlite_errorcode", None)  # absent where Python's own layer raised it
    advice = _ADVICE.get(code & 0xFF) if isinstance(code, int) else None
    return PersistenceError(f"the database {path!r}: {exc}" if advice is None else f"the database {path!r}: {advice} ({exc})")


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn the errors of SQLite and of the system into PersistenceError."""
    try:
        yield
    except sqlite3.Error as exc:
        raise explain(path, exc) from exc
    except OSError as exc:
        raise PersistenceError(f"the database {path!r}: {exc.strerror or exc}; see to its folder and its permissions") from exc


def create_file(path: str) -> None:
    """Make the file if there is none, readable by its owner alone.

    A file that is there is not opened: closing a file drops every lock that this process has on it, SQLite's too.

    Raises:
        PersistenceError: there is something else of that name, or it cannot be made.
    """
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISREG(mode):
            raise PersistenceError(
                f"the database {path!r}: this is {'a folder' if stat.S_ISDIR(mode) else 'not a file'}; give another path"
            )
        return
    folder = Path(path).parent
    if not folder.is_dir():
        raise PersistenceError(f"the database {path!r}: there is no folder {str(folder)!r}; make it first")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if not Path(path).is_file():  # a link to nowhere; otherwise another process was quicker
            raise PersistenceError(f"the database {path!r}: this is a link to nothing; give another path") from None


def connect(path: str, *, busy_timeout: float, synchronous: Synchronous) -> sqlite3.Connection:
    """Return a connection to a file that is there, in autocommit mode, usable from any one thread at a time."""
    connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False, cached_statements=64)
    try:
        connection.text_factory = operator.methodcaller("decode")  # strict, and says so with UnicodeDecodeError
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_RECORD_BYTES + 4096)
        for setting in (f"synchronous = {synchronous}", "trusted_schema = OFF", "cell_size_check = ON"):
            connection.execute(f"PRAGMA {setting}")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Check that the file is ours, and make the tables in an empty one. A file that is not ours is left as it is.

    Whoever opened the connection closes it on any error, which undoes what was begun.

    Raises:
        PersistenceError: it is another program's, or of a newer version, or cannot be written in this mode.
        sqlite3.Error: SQLite could not.
    """
    if _is_empty(connection):
        connection.execute("BEGIN IMMEDIATE")
        if _is_empty(connection):  # still, now that no other process can write
            for statement in TABLES.values():
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FILE_VERSION}")
        connection.execute("COMMIT")
    _check(connection, path)
    mode = _pragma(connection, "journal_mode = WAL")
    if mode != "wal":
        raise PersistenceError(f"the database {path!r}: its disk cannot do write-ahead logging (mode {mode!r}); put it on a local one")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute("PRAGMA cache_size = -16384")
    connection.execute("PRAGMA journal_size_limit = 33554432")
    connection.execute("UPDATE conversations SET epoch = epoch WHERE false")  # shows now whether it can be written


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    with closing(connection.execute(f"PRAGMA {name}")) as cursor:
        row: tuple[object, ...] = cursor.fetchone()
    return row[0]


def _is_empty(connection: sqlite3.Connection) -> bool:
    (count,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return count == 0 and _pragma(connection, "application_id") == 0 and _pragma(connection, "user_version") == 0


def _check(connection: sqlite3.Connection, path: str) -> None:
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise PersistenceError(f"the database {path!r}: it belongs to another program; give another path")
    version = _pragma(connection, "user_version")
    if type(version) is not int or version > FILE_VERSION:
        raise PersistenceError(
            f"the database {path!r}: it has file version {version!r}, this library knows up to {FILE_VERSION}; upgrade the library"
        )
    found = dict(connection.execute("SELECT name, sql FROM sqlite_schema"))
    (programs,) = connection.execute("SELECT count(*) FROM sqlite_schema WHERE type IN ('trigger', 'view')").fetchone()
    if programs or version < FILE_VERSION or any(found.get(name) != text for name, text in TABLES.items()):
        raise PersistenceError(f"the database {path!r}: its tables are not those of this library; restore it from a backup")
