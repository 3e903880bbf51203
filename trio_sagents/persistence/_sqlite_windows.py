"""What a `SqliteStore` knows of windows: from which message on a conversation is loaded, and which ids are before it.

`checkpoints` has a row for each conversation that has had a checkpoint: the places of the messages at which the window begins. `known` is
the index of what left the windows, by name. Both are empty tables in an older file, and are made when the file is opened; the
conversations of such a file are loaded whole until their next checkpoint. All functions run inside a transaction.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Final

import attrs

from trio_sagents.data.records import Checkpoint, OlderPage, Recalled
from trio_sagents.persistence._records import decode_record, encode_cursor
from trio_sagents.persistence._windows import Beginning, Move, beginning_of

TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS checkpoints (
  conversation INTEGER PRIMARY KEY,
  lead INTEGER NOT NULL,
  lead_place INTEGER NOT NULL,
  older INTEGER NOT NULL,
  last_place INTEGER NOT NULL
)""",
    """CREATE TABLE IF NOT EXISTS known (
  conversation INTEGER NOT NULL,
  name TEXT NOT NULL,
  place INTEGER NOT NULL,
  last_place INTEGER NOT NULL,
  PRIMARY KEY (conversation, name)
) WITHOUT ROWID""",
)
PARTS: Final = ("checkpoints", "known")
"""The tables that hold what belongs to a conversation."""
_FIND: Final = "SELECT lead, lead_place, older, last_place FROM checkpoints WHERE conversation = ?"
_PLACES: Final = "SELECT place FROM messages WHERE conversation = ? AND place > ? ORDER BY place LIMIT ?"
_RECALL: Final = """SELECT own.body, last.body FROM known
JOIN messages AS own ON own.place = known.place JOIN messages AS last ON last.place = known.last_place
WHERE known.conversation = ? AND name = ?"""
OLDER_PAGE: Final = """SELECT place, body FROM messages
WHERE conversation = ? AND place > ? AND place < ? ORDER BY place DESC LIMIT ?"""


def find_beginning(connection: sqlite3.Connection, conversation_id: str, number: int) -> Beginning:
    """Return where the window of a conversation begins; without a checkpoint, it is the whole history."""
    with closing(connection.execute(_FIND, (number,))) as found:
        return beginning_of(conversation_id, found.fetchone())


def set_checkpoint(connection: sqlite3.Connection, conversation_id: str, number: int, checkpoint: Checkpoint) -> None:
    """Move the beginning of the window, and put the new names into the index.

    Raises:
        PersistenceError: the conversation has fewer messages than the checkpoint leaves out.
    """
    move = Move.of(conversation_id, find_beginning(connection, conversation_id, number), checkpoint)
    places = [place for (place,) in connection.execute(_PLACES, (number, move.after, move.count))]
    beginning = move.beginning(places)
    connection.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?)", (number, *attrs.astuple(beginning)))
    known = [(number, *names) for names in move.known(places)]
    connection.executemany("INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?)", known)


def recall(connection: sqlite3.Connection, conversation_id: str, number: int, names: Sequence[str]) -> Mapping[str, Recalled]:
    """Return the messages at the two places of each name that is known."""
    found: dict[str, Recalled] = {}
    for name in names:
        with closing(connection.execute(_RECALL, (number, name))) as rows:
            row = rows.fetchone()
        if row is not None:
            found[name] = Recalled(decode_record(conversation_id, row[0]), decode_record(conversation_id, row[1]))
    return found


def older_messages(connection: sqlite3.Connection, conversation_id: str, number: int, before: int | None, limit: int) -> OlderPage:
    """Return a page of the messages that are not in the window."""
    beginning = find_beginning(connection, conversation_id, number)
    end = beginning.last_place + 1 if before is None else min(before, beginning.last_place + 1)
    with closing(connection.execute(OLDER_PAGE, (number, beginning.lead_place, end, limit + 1))) as rows:
        found = rows.fetchall()
    more = len(found) > limit
    del found[limit:]
    messages = [decode_record(conversation_id, body) for _, body in reversed(found)]
    return OlderPage(messages, encode_cursor("m", found[-1][0]) if more else None)
