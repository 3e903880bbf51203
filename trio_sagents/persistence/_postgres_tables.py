"""What is done inside a transaction on PostgreSQL: plain functions on a connection. They never begin or end a transaction themselves.

A commit is compared and set in one statement: the row of the conversation is changed where it has the owner, the epoch and the revision
that the commit builds on, and nowhere else. That statement comes first, so it also takes the lock that orders two commits of one
conversation.
"""

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Final, LiteralString

import attrs

from trio_sagents._postgres import Connection
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
    WaitingPage,
)
from trio_sagents.exceptions import Conflict, ConversationNotFound, PersistenceError, StateError
from trio_sagents.persistence import _postgres_windows as windows
from trio_sagents.persistence._records import (
    CursorKind,
    EncodedCommit,
    RowFields,
    decode_record,
    decode_row,
    decode_value,
    encode_cursor,
    message_id_of,
    waiting_item,
)

_FIND: Final[LiteralString] = (
    "SELECT owner, number, epoch, revision, message_count FROM trio_sagents_conversations WHERE conversation_id = %s"
)
_RAISE: Final[LiteralString] = """UPDATE trio_sagents_conversations SET epoch = epoch + 1 WHERE conversation_id = %s
RETURNING owner, number, epoch, revision, message_count"""
_CHANGE: Final[LiteralString] = """UPDATE trio_sagents_conversations
SET revision = %(revision)s, message_count = message_count + %(added)s,
    change = CASE WHEN %(moves)s THEN nextval('trio_sagents_change') ELSE change END,
    updated_at = CASE WHEN %(moves)s THEN %(now)s ELSE updated_at END,
    title = CASE WHEN %(titled)s THEN %(title)s ELSE title END,
    waiting_since = CASE %(waits)s WHEN 1 THEN coalesce(waiting_since, nextval('trio_sagents_change'))
        WHEN 0 THEN NULL ELSE waiting_since END
WHERE conversation_id = %(conversation_id)s AND owner = %(owner)s AND epoch = %(epoch)s AND revision = %(revision)s - 1
RETURNING number"""
_INSERT: Final[LiteralString] = """INSERT INTO trio_sagents_conversations
    (conversation_id, agent_id, owner, epoch, revision, change, message_count, title, updated_at, waiting_since)
VALUES (%(conversation_id)s, %(agent_id)s, %(owner)s, %(epoch)s, %(revision)s, nextval('trio_sagents_change'), %(added)s, %(title)s,
    %(now)s,
    CASE %(waits)s WHEN 1 THEN nextval('trio_sagents_change') END)
ON CONFLICT (conversation_id) DO NOTHING RETURNING number"""
_PUT_ROW: Final[LiteralString] = """INSERT INTO trio_sagents_transcript
    (conversation, row_id, message_id, role, content_type, content, status, created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (conversation, row_id) DO UPDATE SET message_id = excluded.message_id,
    role = excluded.role, content_type = excluded.content_type, content = excluded.content, status = excluded.status,
    created_at = excluded.created_at"""
_PAGE_OF_ROWS: Final[LiteralString] = """SELECT place, row_id, message_id, role, content_type, content, status, created_at
FROM trio_sagents_transcript WHERE conversation = %s AND place < %s ORDER BY place DESC LIMIT %s"""
_MESSAGES: Final[LiteralString] = (
    "SELECT body FROM trio_sagents_messages WHERE conversation = %s AND place > %s AND place <= %s ORDER BY place"
)
_LIST: Final[LiteralString] = """SELECT change, conversation_id, owner, title, message_count, updated_at FROM trio_sagents_conversations
WHERE (%(owner)s::text IS NULL OR owner = %(owner)s) AND change < %(place)s ORDER BY change DESC LIMIT %(limit)s"""
_WAITING: Final[LiteralString] = """SELECT waiting_since, conversation_id, owner, title, body FROM trio_sagents_conversations
JOIN trio_sagents_state ON conversation = number AND name = 'interrupt'
WHERE waiting_since > %(place)s AND (%(owner)s::text IS NULL OR owner = %(owner)s) ORDER BY waiting_since LIMIT %(limit)s"""
_UNFINISHED: Final[LiteralString] = """SELECT number, conversation_id, owner, title, message_count, updated_at
FROM trio_sagents_state JOIN trio_sagents_conversations ON number = conversation
WHERE name = 'unfinished' AND conversation > %(place)s AND (%(owner)s::text IS NULL OR owner = %(owner)s)
ORDER BY conversation LIMIT %(limit)s"""
_NO_END: Final = 1 << 62
_ESCAPE: Final = re.compile(r"\\\\|\\0")


def _put(text: str) -> str:
    """Return a text as it is stored: PostgreSQL has no NUL in texts. JSON texts have none anyway."""
    return text.replace("\\", "\\\\").replace("\0", "\\0") if "\\" in text or "\0" in text else text


def _get(stored: object) -> str:
    """Return the text that `_put` was given."""
    text = str(stored)
    return _ESCAPE.sub(lambda match: "\0" if match[0] == "\\0" else "\\", text) if "\\" in text else text


@attrs.frozen
class _Head:
    """The row of a conversation."""

    owner_key: str
    number: int
    epoch: int
    revision: int
    message_count: int


def _head(conversation_id: str, row: Sequence[object]) -> _Head:
    key, number, epoch, revision, message_count = row
    if type(number) is not int or type(epoch) is not int or type(revision) is not int or type(message_count) is not int:
        raise StateError(conversation_id, f"its counters are {row[1:]!r}"[:300])
    if type(key) is not str or min(epoch, revision, message_count) < 0 or max(epoch, revision) >= 2**52:
        raise StateError(conversation_id, f"its owner and counters are {row!r}"[:300])
    return _Head(key, number, epoch, revision, message_count)


def _owner(conversation_id: str, text: object) -> Owner:
    owner = decode_value(conversation_id, text)
    if owner is not None and type(owner) is not int and type(owner) is not str:
        raise StateError(conversation_id, f"the owner is {type(owner).__name__}")
    return owner


def load(connection: Connection, conversation_id: str, wanted: str | None, check: Check) -> Conversation | None:
    """Return the conversation with its epoch raised, or None if there is none.

    Raises:
        ConversationNotFound: another owner has the conversation; the caller rolls back.
        StateError: the conversation is damaged; the caller rolls back.
    """
    row = connection.execute(_RAISE, (conversation_id,)).fetchone()
    if row is None:
        return None
    if wanted is not None and row[0] != wanted:
        raise ConversationNotFound(conversation_id)
    head = _head(conversation_id, row)
    beginning = windows.find_beginning(connection, conversation_id, head.number)
    messages = [
        decode_record(conversation_id, body)
        for first, last in beginning.parts
        for (body,) in connection.execute(_MESSAGES, (head.number, first, last))
    ]
    if len(messages) != head.message_count - beginning.older:
        due = head.message_count - beginning.older
        raise StateError(conversation_id, f"its window has {len(messages)} messages, and should have {due}")
    queue = _queue(connection, conversation_id, head.number)
    only = [message_id_of(record) for record in (*messages, *queue)] if beginning.older else None
    conversation = Conversation(
        conversation_id=conversation_id,
        owner=_owner(conversation_id, head.owner_key),
        epoch=head.epoch,
        revision=head.revision,
        messages=messages,
        queue=queue,
        message_ids=_message_ids(connection, head.number, only),
        state=_state(connection, conversation_id, head.number),
        older=beginning.older,
    )
    check(conversation)
    return conversation


def _queue(connection: Connection, conversation_id: str, number: int) -> Sequence[JSON]:
    queue: list[JSON] = []
    query: LiteralString = "SELECT message_id, body FROM trio_sagents_queue WHERE conversation = %s ORDER BY place"
    for message_id, body in connection.execute(query, (number,)):
        record = decode_record(conversation_id, body)
        if message_id_of(record) != _get(message_id):
            raise StateError(conversation_id, f"a queued message is not {message_id!r}"[:300])
        queue.append(record)
    return queue


def _message_ids(connection: Connection, number: int, only: Sequence[str | None] | None) -> dict[str, str]:
    """Return the accepted ids with their digests: all of them, or those among `only`."""
    query: LiteralString = (
        "SELECT message_id, digest FROM trio_sagents_message_ids WHERE conversation = %s AND (%s::text[] IS NULL OR message_id = ANY(%s))"
    )
    wanted = None if only is None else [_put(message_id) for message_id in only if message_id is not None]
    return {_get(message_id): _get(digest) for message_id, digest in connection.execute(query, (number, wanted, wanted))}


def _state(connection: Connection, conversation_id: str, number: int) -> JSON:
    query: LiteralString = "SELECT name, body FROM trio_sagents_state WHERE conversation = %s"
    state: dict[str, JSONValue] = {}
    for name, body in connection.execute(query, (number,)):
        state[_get(name)] = decode_value(conversation_id, body)
    return state


def commit(connection: Connection, encoded: EncodedCommit, wanted: str | None, now: str) -> int:
    """Make one commit, and return its revision. On any error the caller rolls the transaction back.

    Raises:
        Conflict: the stored conversation is not at the revision before the commit, or another owner has it.
        PersistenceError: a message id is used already, or a taken message is not in the queue.
    """
    made = encoded.commit
    number = _compare_and_set(connection, encoded, wanted, now)
    with connection.pipeline(), connection.cursor() as cursor:
        if encoded.messages:
            cursor.executemany(
                "INSERT INTO trio_sagents_messages (conversation, body) VALUES (%s, %s)", [(number, text) for text in encoded.messages]
            )
        if encoded.state:
            _patch_state(connection, encoded, number)
        if encoded.rows:
            cursor.executemany(_PUT_ROW, [_stored_row(number, row_id, fields) for row_id, fields in encoded.rows.items()])
    if encoded.message_ids:
        _add_message_ids(connection, encoded, number)
    if encoded.queued or encoded.taken:
        _move_queue(connection, encoded, number)
    if made.checkpoint is not None:
        windows.set_checkpoint(connection, made.conversation_id, number, made.checkpoint, _put)
    return made.revision


def _compare_and_set(connection: Connection, encoded: EncodedCommit, wanted: str | None, now: str) -> int:
    """Move the conversation to the commit's revision, and return its number."""
    made = encoded.commit
    waits = 2 if "interrupt" not in encoded.state else int(encoded.state["interrupt"] is not None)  # 2: as before
    values = {
        "conversation_id": made.conversation_id,
        "agent_id": _put(made.agent_id),
        "owner": encoded.owner_key,
        "epoch": made.epoch,
        "revision": made.revision,
        "added": len(encoded.messages),
        "titled": encoded.titled,
        "title": None if encoded.title is None else _put(encoded.title),
        "now": now,
        "moves": made.comes_first,
        "waits": waits,
    }
    set_row = connection.execute(_CHANGE, values).fetchone()
    if set_row is None and made.revision == 1:
        set_row = connection.execute(_INSERT, values).fetchone()
    if set_row is not None:
        (number,) = set_row
        assert isinstance(number, int)  # a bigint
        return number
    expected = (made.epoch, made.revision - 1)
    row = connection.execute(_FIND, (made.conversation_id,)).fetchone()
    if row is None or (wanted is not None and row[0] != wanted):
        raise Conflict(made.conversation_id, expected=expected, found=None)
    head = _head(made.conversation_id, row)
    raise Conflict(made.conversation_id, expected=expected, found=(head.epoch, head.revision))


def _add_message_ids(connection: Connection, encoded: EncodedCommit, number: int) -> None:
    added = connection.execute(
        "INSERT INTO trio_sagents_message_ids SELECT %s, * FROM unnest(%s::text[], %s::text[]) ON CONFLICT DO NOTHING",
        (number, [*map(_put, encoded.message_ids)], [*map(_put, encoded.message_ids.values())]),
    )
    if added.rowcount != len(encoded.message_ids):
        ids = ", ".join(map(repr, encoded.message_ids))[:300]
        raise PersistenceError(f"a message id of conversation {encoded.commit.conversation_id!r} is used already: one of {ids}")


def _move_queue(connection: Connection, encoded: EncodedCommit, number: int) -> None:
    where = f"conversation {encoded.commit.conversation_id!r}"
    for message_id, body in encoded.queued.items():
        added = connection.execute(
            "INSERT INTO trio_sagents_queue (conversation, message_id, body) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (number, _put(message_id), body),
        )
        if added.rowcount != 1:
            raise PersistenceError(f"message {message_id!r} of {where} is queued twice")
    for message_id in encoded.taken:
        gone = connection.execute("DELETE FROM trio_sagents_queue WHERE conversation = %s AND message_id = %s", (number, _put(message_id)))
        if gone.rowcount != 1:
            raise PersistenceError(f"message {message_id!r} of {where} is not in the queue")


def _patch_state(connection: Connection, encoded: EncodedCommit, number: int) -> None:
    for name, body in encoded.state.items():
        if body is None:
            connection.execute("DELETE FROM trio_sagents_state WHERE conversation = %s AND name = %s", (number, _put(name)))
        else:
            connection.execute(
                "INSERT INTO trio_sagents_state VALUES (%s, %s, %s) ON CONFLICT (conversation, name) DO UPDATE SET body = excluded.body",
                (number, _put(name), body),
            )


def _stored_row(number: int, row_id: str, fields: RowFields) -> Sequence[object]:
    message_id, role, content_type, *others = fields
    return number, _put(row_id), _put(message_id), role, _put(content_type), *others


def recall(connection: Connection, conversation_id: str, wanted: str | None, names: Sequence[str]) -> Mapping[str, Recalled]:
    """Return what the index has under these names; nothing if there is no such conversation, or another owner has it."""
    row = connection.execute(_FIND, (conversation_id,)).fetchone()
    if row is None or (wanted is not None and row[0] != wanted):
        return {}
    return windows.recall(connection, conversation_id, _head(conversation_id, row).number, {_put(name): name for name in names})


def older_messages(connection: Connection, conversation_id: str, wanted: str | None, before: int | None, limit: int) -> OlderPage:
    """Return a page of the messages that are not in the window.

    Raises:
        ConversationNotFound: there is no such conversation, or another owner has it.
        StateError: a message is damaged.
    """
    row = connection.execute(_FIND, (conversation_id,)).fetchone()
    if row is None or (wanted is not None and row[0] != wanted):
        raise ConversationNotFound(conversation_id)
    return windows.older_messages(connection, conversation_id, _head(conversation_id, row).number, before, limit)


def delete(connection: Connection, conversation_id: str, wanted: str | None) -> bool:
    """Delete everything of a conversation, damaged or not; return False if there is none, or if another owner has it."""
    gone = connection.execute(
        "DELETE FROM trio_sagents_conversations WHERE conversation_id = %s AND (%s::text IS NULL OR owner = %s)",
        (conversation_id, wanted, wanted),
    )
    return gone.rowcount == 1


def history(connection: Connection, conversation_id: str, wanted: str | None, before: int | None, limit: int) -> HistoryPage:
    """Return a page of the transcript.

    Raises:
        ConversationNotFound: there is no such conversation, or another owner has it.
        StateError: a row is damaged.
    """
    row = connection.execute(_FIND, (conversation_id,)).fetchone()
    if row is None or (wanted is not None and row[0] != wanted):
        raise ConversationNotFound(conversation_id)
    head = _head(conversation_id, row)
    place = _NO_END if before is None else before
    found = connection.execute(_PAGE_OF_ROWS, (head.number, place, limit + 1)).fetchall()
    has_more = len(found) > limit
    del found[limit:]
    rows = [
        decode_row(conversation_id, _get(row_id), (_get(message_id), role, _get(content_type), *fields))
        for _, row_id, message_id, role, content_type, *fields in reversed(found)
    ]
    return HistoryPage(rows, _cursor("r", found) if has_more else None)


def conversations(connection: Connection, wanted: str | None, after: int | None, limit: int) -> ConversationPage:
    """Return a page of the list; the conversation that changed last comes first. StateError if an item is damaged."""
    place = _NO_END if after is None else after
    found = connection.execute(_LIST, {"owner": wanted, "place": place, "limit": limit + 1}).fetchall()
    has_more = len(found) > limit
    del found[limit:]
    return ConversationPage([_item(fields) for fields in found], _cursor("c", found) if has_more else None)


def unfinished(connection: Connection, wanted: str | None, after: int | None, limit: int) -> ConversationPage:
    """Return a page of the conversations that have work left; the one that began first comes first. StateError if an item is damaged."""
    found = connection.execute(_UNFINISHED, {"owner": wanted, "place": after or 0, "limit": limit + 1}).fetchall()
    has_more = len(found) > limit
    del found[limit:]
    return ConversationPage([_item(fields) for fields in found], _cursor("u", found) if has_more else None)


def waiting(connection: Connection, wanted: str | None, after: int | None, limit: int) -> WaitingPage:
    """Return a page of the conversations that wait for a person; the one that has waited longest comes first."""
    place = 0 if after is None else after
    found = connection.execute(_WAITING, {"owner": wanted, "place": place, "limit": limit + 1}).fetchall()
    has_more = len(found) > limit
    del found[limit:]
    items = [
        waiting_item(str(conversation_id), _owner(str(conversation_id), owner), _get(title) if isinstance(title, str) else None, body)
        for _, conversation_id, owner, title, body in found
    ]
    return WaitingPage(items, _cursor("w", found) if has_more else None)


def _cursor(kind: CursorKind, found: Sequence[Sequence[object]]) -> str:
    """Return the cursor behind the last line of a page."""
    number = found[-1][0]
    assert isinstance(number, int)  # a bigint
    return encode_cursor(kind, number)


def _item(fields: Sequence[object]) -> ConversationItem:
    _, conversation_id, owner, title, message_count, updated_at = fields
    name = str(conversation_id)
    try:
        at = datetime.datetime.fromisoformat(str(updated_at))
    except ValueError as exc:
        raise StateError(name, str(exc)) from exc
    if type(message_count) is not int or (title is not None and type(title) is not str) or at.tzinfo is None:
        raise StateError(name, "its line in the list of conversations is damaged")
    return ConversationItem(name, _owner(name, owner), None if title is None else _get(title), message_count, at)
