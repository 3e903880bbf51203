"""What a `PostgresStore` knows of windows, as `_sqlite_windows` for a file. All functions run inside a transaction.

A program of an earlier version reads none of these tables. It loads a conversation with a checkpoint as a whole, which is correct and slow.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, LiteralString

import attrs

from trio_sagents._postgres import Connection
from trio_sagents.data.records import Checkpoint, OlderPage, Recalled
from trio_sagents.persistence._records import decode_record, encode_cursor
from trio_sagents.persistence._windows import Beginning, Move, beginning_of

_FIND: Final[LiteralString] = "SELECT lead, lead_place, older, last_place FROM trio_sagents_checkpoints WHERE conversation = %s"
_PLACES: Final[LiteralString] = "SELECT place FROM trio_sagents_messages WHERE conversation = %s AND place > %s ORDER BY place LIMIT %s"
_SET: Final[LiteralString] = """INSERT INTO trio_sagents_checkpoints VALUES (%s, %s, %s, %s, %s) ON CONFLICT (conversation) DO UPDATE
SET lead = excluded.lead, lead_place = excluded.lead_place, older = excluded.older, last_place = excluded.last_place"""
_NAME: Final[LiteralString] = """INSERT INTO trio_sagents_known VALUES (%s, %s, %s, %s) ON CONFLICT (conversation, name) DO UPDATE
SET place = excluded.place, last_place = excluded.last_place"""
_RECALL: Final[LiteralString] = """SELECT known.name, own.body, last.body FROM trio_sagents_known AS known
JOIN trio_sagents_messages AS own ON own.conversation = known.conversation AND own.place = known.place
JOIN trio_sagents_messages AS last ON last.conversation = known.conversation AND last.place = known.last_place
WHERE known.conversation = %s AND known.name = ANY(%s)"""
_OLDER_PAGE: Final[LiteralString] = """SELECT place, body FROM trio_sagents_messages
WHERE conversation = %s AND place > %s AND place < %s ORDER BY place DESC LIMIT %s"""


def find_beginning(connection: Connection, conversation_id: str, number: int) -> Beginning:
    """Return where the window of a conversation begins; without a checkpoint, it is the whole history."""
    return beginning_of(conversation_id, connection.execute(_FIND, (number,)).fetchone())


def set_checkpoint(connection: Connection, conversation_id: str, number: int, checkpoint: Checkpoint, stored: Callable[[str], str]) -> None:
    """Move the beginning of the window, and put the new names into the index.

    Args:
        connection: in a transaction.
        conversation_id: for errors.
        number: of the conversation.
        checkpoint: where the window begins now.
        stored: returns a text as it is stored.

    Raises:
        PersistenceError: the conversation has fewer messages than the checkpoint leaves out.
    """
    move = Move.of(conversation_id, find_beginning(connection, conversation_id, number), checkpoint)
    places = [int(str(place)) for (place,) in connection.execute(_PLACES, (number, move.after, move.count))]
    connection.execute(_SET, (number, *attrs.astuple(move.beginning(places))))
    with connection.cursor() as cursor:
        cursor.executemany(_NAME, [(number, stored(name), place, last) for name, place, last in move.known(places)])


def recall(connection: Connection, conversation_id: str, number: int, names: Mapping[str, str]) -> Mapping[str, Recalled]:
    """Return the messages at the two places of each name that is known.

    Args:
        connection: in a transaction.
        conversation_id: for errors.
        number: of the conversation.
        names: the names, by their texts as they are stored.
    """
    rows: Sequence[tuple[object, ...]] = connection.execute(_RECALL, (number, list(names))).fetchall()
    return {
        names[str(name)]: Recalled(decode_record(conversation_id, own), decode_record(conversation_id, last)) for name, own, last in rows
    }


def older_messages(connection: Connection, conversation_id: str, number: int, before: int | None, limit: int) -> OlderPage:
    """Return a page of the messages that are not in the window."""
    beginning = find_beginning(connection, conversation_id, number)
    end = beginning.last_place + 1 if before is None else min(before, beginning.last_place + 1)
    found = connection.execute(_OLDER_PAGE, (number, beginning.lead_place, end, limit + 1)).fetchall()
    more = len(found) > limit
    del found[limit:]
    messages = [decode_record(conversation_id, body) for _, body in reversed(found)]
    return OlderPage(messages, encode_cursor("m", int(str(found[-1][0]))) if more else None)
