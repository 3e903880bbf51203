"""What is done inside a transaction: plain functions on a connection. They never begin or end a transaction themselves."""

import datetime
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Final

import attrs

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.records import (
    Check,
    Conversation,
    ConversationItem,
    ConversationPage,
    HistoryPage,
    OlderPage,
    Owner,
    Recalled,
    WaitingConversation,
    WaitingPage,
    accept_all,
)
from trio_sagents.exceptions import Conflict, ConversationNotFound, PersistenceError, StateError
from trio_sagents.persistence import _sqlite_windows as windows
from trio_sagents.persistence._records import (
    CursorKind,
    EncodedCommit,
    decode_row,
    decode_value,
    encode_cursor,
    waiting_item,
)
from trio_sagents.persistence._sqlite_messages import MessageTables, reading

_FIND: Final = "SELECT owner, number, epoch, revision, message_count, change FROM conversations WHERE conversation_id = ?"
_INSERT: Final = """INSERT INTO conversations
(conversation_id, agent_id, owner, epoch, revision, change, message_count, title, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_CHANGE: Final = "UPDATE conversations SET revision = ?, message_count = ? WHERE number = ?"
_COME_FIRST: Final = "UPDATE conversations SET revision = ?, message_count = ?, change = ?, updated_at = ? WHERE number = ?"
_PUT_ROW: Final = """INSERT INTO transcript (conversation, row_id, message_id, role, content_type, content, status, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (conversation, row_id) DO UPDATE SET message_id = excluded.message_id, role = excluded.role,
content_type = excluded.content_type, content = excluded.content, status = excluded.status, created_at = excluded.created_at"""
PAGE_OF_ROWS: Final = """SELECT place, row_id, message_id, role, content_type, content, status, created_at FROM transcript
WHERE conversation = ? AND place < ? ORDER BY place DESC LIMIT ?"""
PARTS: Final = ("messages", "queue", "message_ids", "state", "transcript", *windows.PARTS)
"""The tables that hold what belongs to a conversation."""
_DELETE: Final = tuple(f"DELETE FROM {part} WHERE conversation = ?" for part in PARTS)  # noqa: S608  # the library's own names
_NO_END: Final = 1 << 62
LIST_OWNED: Final = """SELECT change, conversation_id, owner, title, message_count, updated_at FROM conversations
WHERE owner = ? AND change < ? ORDER BY change DESC LIMIT ?"""
LIST_ALL: Final = """WITH RECURSIVE owners (name) AS (
  SELECT min(owner) FROM conversations
  UNION ALL SELECT (SELECT min(owner) FROM conversations WHERE owner > name) FROM owners WHERE name IS NOT NULL
)
SELECT change, conversation_id, owner, title, message_count, updated_at FROM owners JOIN conversations
ON number IN (SELECT number FROM conversations WHERE owner = name AND change < ?1 ORDER BY change DESC LIMIT ?2)
ORDER BY change DESC LIMIT ?2"""
"""The first conversations of each owner, merged: the list has one index, by owner."""
LIST_WAITING: Final = """SELECT state.rowid, conversation_id, owner, title, body FROM state INDEXED BY state_waiting
JOIN conversations ON number = conversation WHERE name = 'interrupt' AND state.rowid > ? AND owner = ifnull(?, owner)
ORDER BY state.rowid LIMIT ?"""


LIST_UNFINISHED: Final = """SELECT state.rowid, conversation_id, owner, title, message_count, updated_at
FROM state INDEXED BY state_unfinished JOIN conversations ON number = conversation
WHERE name = 'unfinished' AND state.rowid > ? AND owner = ifnull(?, owner) ORDER BY state.rowid LIMIT ?"""


@attrs.frozen
class _Head:
    """The row of `conversations`."""

    owner_key: str
    number: int
    epoch: int
    revision: int
    message_count: int
    change: int


def _decode_owner(conversation_id: str, text: object) -> Owner:
    owner = decode_value(conversation_id, text)
    if owner is not None and type(owner) is not int and type(owner) is not str:
        raise StateError(conversation_id, f"the owner is {type(owner).__name__}")
    return owner


def _find(connection: sqlite3.Connection, conversation_id: str) -> tuple[object, ...] | None:
    """Return the stored row of a conversation, undecoded: its owner is compared before anything else in it is read."""
    try:
        row: tuple[object, ...] | None = connection.execute(_FIND, (conversation_id,)).fetchone()
    except (UnicodeDecodeError, sqlite3.DataError) as exc:
        raise StateError(conversation_id, str(exc)[:300]) from exc
    return row


def _is_foreign(row: tuple[object, ...], wanted: str | None) -> bool:
    return wanted is not None and row[0] != wanted


def _decode_head(conversation_id: str, row: tuple[object, ...]) -> _Head:
    key, number, epoch, revision, message_count, change = row
    if type(number) is not int or type(epoch) is not int or type(revision) is not int:
        raise StateError(conversation_id, f"its counters are {row[1:]!r}"[:300])
    if type(message_count) is not int or type(change) is not int:
        raise StateError(conversation_id, f"its counters are {row[1:]!r}"[:300])
    if type(key) is not str or min(epoch, revision, message_count) < 0 or max(epoch, revision) >= 2**52:
        raise StateError(conversation_id, f"its owner and counters are {row!r}"[:300])
    return _Head(key, number, epoch, revision, message_count, change)


def load(
    connection: sqlite3.Connection, conversation_id: str, wanted: str | None, messages: MessageTables, check: Check = accept_all
) -> Conversation | None:
    """Return the conversation with its epoch raised, or None if there is none.

    Raises:
        ConversationNotFound: another owner has the conversation; nothing was changed.
        StateError: the conversation is damaged; the caller rolls the transaction back.
    """
    row = _find(connection, conversation_id)
    if row is None:
        return None
    if _is_foreign(row, wanted):
        raise ConversationNotFound(conversation_id)
    head = _decode_head(conversation_id, row)
    beginning = windows.find_beginning(connection, conversation_id, head.number)
    stored = messages.load(connection, conversation_id, head.number, beginning)
    if len(stored.history) != head.message_count - beginning.older:
        due = head.message_count - beginning.older
        raise StateError(conversation_id, f"its window has {len(stored.history)} messages, and should have {due}")
    conversation = Conversation(
        conversation_id=conversation_id,
        owner=_decode_owner(conversation_id, head.owner_key),
        epoch=head.epoch + 1,
        revision=head.revision,
        messages=stored.history,
        queue=stored.queue,
        message_ids=stored.message_ids,
        state=_load_state(connection, conversation_id, head.number),
        older=beginning.older,
    )
    check(conversation)
    connection.execute("UPDATE conversations SET epoch = ? WHERE number = ?", (head.epoch + 1, head.number))
    return conversation


def _load_state(connection: sqlite3.Connection, conversation_id: str, number: int) -> JSON:
    state: dict[str, JSONValue] = {}
    with reading(connection, conversation_id, "SELECT name, body FROM state WHERE conversation = ?", (number,)) as found:
        for name, body in found:
            if type(name) is not str:
                raise StateError(conversation_id, f"a key of the state is {type(name).__name__}")
            state[name] = decode_value(conversation_id, body)
    return state


def commit(
    connection: sqlite3.Connection,
    encoded: EncodedCommit,
    wanted: str | None,
    messages: MessageTables,
    next_change: Callable[[int], int],
    now: str,
) -> int:
    """Make one commit, and return its revision. On any error the caller rolls the transaction back.

    Raises:
        Conflict: the stored conversation is not at the revision before the commit, or another owner has it.
        PersistenceError: a message id is used already, or a taken message is not in the queue.
    """
    made = encoded.commit
    head = _compare(connection, encoded, wanted) or _create(connection, encoded)
    if encoded.messages or encoded.message_ids or encoded.queued or encoded.taken:
        messages.store(connection, encoded, head.number)
    if made.checkpoint is not None:
        windows.set_checkpoint(connection, made.conversation_id, head.number, made.checkpoint)
    if encoded.state:
        _patch_state(connection, encoded, head.number)
    if encoded.rows:
        connection.executemany(_PUT_ROW, [(head.number, row_id, *fields) for row_id, fields in encoded.rows.items()])
    count = head.message_count + len(encoded.messages)
    if made.comes_first:
        connection.execute(_COME_FIRST, (made.revision, count, next_change(head.change), now, head.number))
    else:
        connection.execute(_CHANGE, (made.revision, count, head.number))
    return made.revision


def _compare(connection: sqlite3.Connection, encoded: EncodedCommit, wanted: str | None) -> _Head | None:
    """Return the row that the commit builds on, or None for a first commit; Conflict if the stored row is another one."""
    made = encoded.commit
    expected = (made.epoch, made.revision - 1)
    row = _find(connection, made.conversation_id)
    if row is None and made.revision == 1:
        return None
    if row is None or _is_foreign(row, wanted):
        raise Conflict(made.conversation_id, expected=expected, found=None)
    head = _decode_head(made.conversation_id, row)
    found = (head.epoch, head.revision)
    if found != expected or head.owner_key != encoded.owner_key:
        raise Conflict(made.conversation_id, expected=expected, found=found)
    return head


def _create(connection: sqlite3.Connection, encoded: EncodedCommit) -> _Head:
    made = encoded.commit
    fields = (made.conversation_id, made.agent_id, encoded.owner_key, made.epoch, 0, 0, 0, None, "")
    number = connection.execute(_INSERT, fields).lastrowid or 0
    return _Head(encoded.owner_key, number, made.epoch, 0, 0, 0)


def _patch_state(connection: sqlite3.Connection, encoded: EncodedCommit, number: int) -> None:
    for name, body in encoded.state.items():
        if body is None:
            connection.execute("DELETE FROM state WHERE conversation = ? AND name = ?", (number, name))
        else:
            connection.execute(
                "INSERT INTO state VALUES (?, ?, ?) ON CONFLICT (conversation, name) DO UPDATE SET body = excluded.body",
                (number, name, body),
            )
    if encoded.titled:
        connection.execute("UPDATE conversations SET title = ? WHERE number = ?", (encoded.title, number))


def delete(connection: sqlite3.Connection, conversation_id: str, wanted: str | None) -> bool:
    """Delete everything of a conversation, damaged or not; return False if there is none, or if another owner has it."""
    found = connection.execute(
        "SELECT number FROM conversations WHERE conversation_id = ? AND owner = ifnull(?, owner)", (conversation_id, wanted)
    ).fetchone()
    if found is None:
        return False
    for statement in _DELETE:
        connection.execute(statement, found)
    connection.execute("DELETE FROM conversations WHERE number = ?", found)
    return True


def last_change(connection: sqlite3.Connection) -> int:
    """Return the number of the last change of any conversation, or 0 if there was none. Reads the index of the list."""
    (change,) = connection.execute("SELECT max(change) FROM conversations").fetchone()
    return change if type(change) is int else 0


def history(connection: sqlite3.Connection, conversation_id: str, wanted: str | None, before: int | None, limit: int) -> HistoryPage:
    """Return a page of the transcript.

    Raises:
        ConversationNotFound: there is no such conversation, or another owner has it.
        StateError: a row is damaged.
    """
    row = _find(connection, conversation_id)
    if row is None or _is_foreign(row, wanted):
        raise ConversationNotFound(conversation_id)
    head = _decode_head(conversation_id, row)
    place = _NO_END if before is None else before
    with reading(connection, conversation_id, PAGE_OF_ROWS, (head.number, place, limit + 1)) as page:
        found = page.fetchall()
    more = len(found) > limit
    del found[limit:]
    rows = [decode_row(conversation_id, row_id, fields) for _, row_id, *fields in reversed(found)]
    return HistoryPage(rows, encode_cursor("r", found[-1][0]) if more else None)


def recall(connection: sqlite3.Connection, conversation_id: str, wanted: str | None, names: Sequence[str]) -> Mapping[str, Recalled]:
    """Return what the index has under these names; nothing if there is no such conversation, or another owner has it."""
    row = _find(connection, conversation_id)
    if row is None or _is_foreign(row, wanted):
        return {}
    try:
        return windows.recall(connection, conversation_id, _decode_head(conversation_id, row).number, names)
    except (UnicodeDecodeError, sqlite3.DataError) as exc:
        raise StateError(conversation_id, str(exc)[:300]) from exc


def older_messages(connection: sqlite3.Connection, conversation_id: str, wanted: str | None, before: int | None, limit: int) -> OlderPage:
    """Return a page of the messages that are not in the window.

    Raises:
        ConversationNotFound: there is no such conversation, or another owner has it.
        StateError: a message is damaged.
    """
    row = _find(connection, conversation_id)
    if row is None or _is_foreign(row, wanted):
        raise ConversationNotFound(conversation_id)
    try:
        return windows.older_messages(connection, conversation_id, _decode_head(conversation_id, row).number, before, limit)
    except (UnicodeDecodeError, sqlite3.DataError) as exc:
        raise StateError(conversation_id, str(exc)[:300]) from exc


def conversations(connection: sqlite3.Connection, wanted: str | None, after: int | None, limit: int) -> ConversationPage:
    """Return a page of the list; the conversation that moved last comes first. StateError if an item is damaged."""
    older_than = _NO_END if after is None else after
    place = (older_than, limit + 1)
    query, arguments = (LIST_ALL, place) if wanted is None else (LIST_OWNED, (wanted, *place))
    try:
        with closing(connection.execute(query, arguments)) as page:
            found = page.fetchall()
    except UnicodeDecodeError as exc:
        raise PersistenceError(f"the list of conversations is damaged: {exc}") from exc
    return _page_of("c", found, limit)


def unfinished(connection: sqlite3.Connection, wanted: str | None, after: int | None, limit: int) -> ConversationPage:
    """Return a page of the conversations that have work left; the longest unfinished first. StateError if an item is damaged."""
    try:
        with closing(connection.execute(LIST_UNFINISHED, (after or 0, wanted, limit + 1))) as page:
            found = page.fetchall()
    except UnicodeDecodeError as exc:
        raise PersistenceError(f"the list of what is unfinished is damaged: {exc}") from exc
    return _page_of("u", found, limit)


def _page_of(kind: CursorKind, found: Sequence[Sequence[object]], limit: int) -> ConversationPage:
    """Return a page of what was found, one more than the limit if there is more; the first column is the place in the list."""
    items = [_decode_item(*fields) for _, *fields in found[:limit]]
    place = found[limit - 1][0] if len(found) > limit else None
    return ConversationPage(items, encode_cursor(kind, place) if isinstance(place, int) else None)


def waiting(connection: sqlite3.Connection, wanted: str | None, after: int | None, limit: int) -> WaitingPage:
    """Return a page of what waits for people; the conversation that has waited longest comes first. StateError if an item is damaged."""
    try:
        with closing(connection.execute(LIST_WAITING, (after or 0, wanted, limit + 1))) as page:
            found = page.fetchall()
    except UnicodeDecodeError as exc:
        raise PersistenceError(f"the list of what waits is damaged: {exc}") from exc
    items = [_decode_waiting(*fields) for _, *fields in found[:limit]]
    return WaitingPage(items, encode_cursor("w", found[limit - 1][0]) if len(found) > limit else None)


def _decode_waiting(conversation_id: object, owner: object, title: object, text: object) -> WaitingConversation:
    name = str(conversation_id)
    return waiting_item(name, _decode_owner(name, owner), title if isinstance(title, str) else None, text)


def _decode_item(conversation_id: object, owner: object, title: object, message_count: object, updated_at: object) -> ConversationItem:
    name = str(conversation_id)
    try:
        at = datetime.datetime.fromisoformat(str(updated_at))
    except ValueError as exc:
        raise StateError(name, str(exc)) from exc
    if type(message_count) is not int or (title is not None and type(title) is not str) or at.tzinfo is None:
        raise StateError(name, "its line in the list of conversations is damaged")
    return ConversationItem(name, _decode_owner(name, owner), title if isinstance(title, str) else None, message_count, at)
