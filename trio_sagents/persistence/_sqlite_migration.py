"""Rewriting a file that an earlier library made, so that it has the tables and the pages of a new file.

    version 1 --one transaction--> version 2, with its old pages --VACUUM--> version 2, with pages of 2 KiB

Each of the two steps is done as a whole or not at all, whenever the process dies; the next call continues. Nobody else may have the
file open: SQLite's own locks see to that, because the file leaves write-ahead mode meanwhile.
"""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from trio_sagents._sqlite import claim, pragma, release
from trio_sagents.exceptions import PersistenceError
from trio_sagents.persistence._records import message_id_of
from trio_sagents.persistence._sqlite_schema import PAGE_SIZE, STORE_FILE, TABLES, connect, prepare

TO_SECOND: Final = (
    "DROP INDEX conversations_by_change",
    "ALTER TABLE messages RENAME TO first_messages",
    "ALTER TABLE queue RENAME TO first_queue",
    TABLES["messages"],
    """INSERT INTO messages (place, conversation, message_id, digest, body)
SELECT place, first_messages.conversation, message_ids.message_id, digest, body FROM first_messages LEFT JOIN message_ids
ON message_ids.conversation = first_messages.conversation AND message_ids.message_id = id_of(CAST(body AS BLOB)) ORDER BY place""",
    # Of a damaged conversation that has a message twice, the first one keeps the id: then the load refuses it, as before.
    """UPDATE messages SET message_id = NULL, digest = NULL WHERE message_id IS NOT NULL AND place NOT IN
(SELECT min(place) FROM messages WHERE message_id IS NOT NULL GROUP BY conversation, message_id)""",
    TABLES["queue"],
    """INSERT INTO queue (place, conversation, message_id, digest, body)
SELECT place, first_queue.conversation, first_queue.message_id, digest, body FROM first_queue LEFT JOIN message_ids
ON message_ids.conversation = first_queue.conversation AND message_ids.message_id = first_queue.message_id ORDER BY place""",
    """DELETE FROM message_ids WHERE (conversation, message_id) IN (
SELECT conversation, message_id FROM messages WHERE message_id IS NOT NULL
UNION ALL SELECT conversation, message_id FROM queue WHERE digest IS NOT NULL)""",
    "DROP TABLE first_messages",
    "DROP TABLE first_queue",
    TABLES["messages_by_conversation"],
    TABLES["messages_by_id"],
    "PRAGMA user_version = 2",
)
"""The statements of the transaction that leads from version 1 to version 2."""
_COUNT_MOVED: Final = """SELECT count(*) FROM (SELECT conversation, message_id FROM messages WHERE message_id IS NOT NULL
UNION SELECT conversation, message_id FROM queue WHERE digest IS NOT NULL)"""


def migrate(path: str, busy_timeout: float) -> bool:
    """Rewrite a file; return False if it has the present tables and pages already. Blocks.

    Raises:
        PersistenceError: there is no such file, it is another program's, somebody has it open, or its disk has no room for a copy.
            What the file has is as before, or is rewritten as a whole.
    """
    with STORE_FILE.explained(path):
        if not Path(path).is_file():
            raise PersistenceError(f"{STORE_FILE.name(path)}: there is no such file")
        key = claim(STORE_FILE, path)
        try:
            with closing(connect(path, busy_timeout=busy_timeout, synchronous="FULL")) as connection:
                prepare(connection, path)
                return _rewrite(connection)
        finally:
            release(key)


def _rewrite(connection: sqlite3.Connection) -> bool:
    is_old = pragma(connection, "user_version") == 1
    if not is_old and pragma(connection, "page_size") == PAGE_SIZE:
        return False
    pragma(connection, "journal_mode = DELETE")  # fails while somebody else has the file open
    if is_old:
        connection.create_function("id_of", 1, _id_of, deterministic=True)
        connection.execute("BEGIN EXCLUSIVE")
        before = _counts(connection)
        for statement in TO_SECOND:
            connection.execute(statement)
        after = _counts(connection)
        if before != after:  # pragma: no cover  # no file is known with which it would happen; nothing is changed then
            raise PersistenceError(f"the rewritten database would have {after} messages, queued messages and ids, not {before}")
        connection.execute("COMMIT")
    connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    connection.execute("VACUUM")
    pragma(connection, "journal_mode = WAL")
    return True


def _id_of(body: object) -> str | None:
    """Return the id in a stored message; None if it is damaged: then its id stays in the table of ids."""
    try:
        return message_id_of(json.loads(body)) if isinstance(body, bytes) else None
    except (ValueError, RecursionError):
        return None


def _counts(connection: sqlite3.Connection) -> Sequence[int]:
    """Return the number of messages, of queued messages, and of ids."""
    has_ids = pragma(connection, "user_version") != 1
    (messages,) = connection.execute("SELECT count(*) FROM messages").fetchone()
    (queued,) = connection.execute("SELECT count(*) FROM queue").fetchone()
    (ids,) = connection.execute("SELECT count(*) FROM message_ids").fetchone()
    if has_ids:
        ids += connection.execute(_COUNT_MOVED).fetchone()[0]
    return messages, queued, ids
