"""What both stores share: arguments and commits are checked and encoded before anything is touched; cursors are opaque."""

import datetime
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias, cast, get_args

from trio_sagents.data.ids import check_id
from trio_sagents.data.interrupt_wire import read_interrupt
from trio_sagents.data.json import JSON, JSONValue, check_text, plain_json
from trio_sagents.data.messages import Role, ToolStatus
from trio_sagents.data.records import OPEN_STATUSES, UNCHECKED, Checkpoint, Commit, DisplayMessage, Owner, Unchecked, WaitingConversation
from trio_sagents.data.wire import RECORD_DEPTH, SCHEMA_VERSION, ReadRecords, dumps, loads
from trio_sagents.exceptions import PersistenceError, StateError, StateFromFuture

MAX_PAGE: Final = 1000
"""The most items on one page."""
MAX_RECORD_BYTES: Final = 64 * 1024 * 1024
"""The most bytes of one stored record: a message, a row, or one key of the state."""
_MAX_COUNT: Final = 2**53
_ROLES: Final = frozenset(get_args(Role))
_STATUSES: Final = frozenset(get_args(ToolStatus))
_CURSOR: Final = re.compile(r"([a-z])(0|[1-9][0-9]{0,17})", re.ASCII)

CursorKind: TypeAlias = Literal["r", "c", "w", "m", "u"]
"""What a cursor belongs to: "r" for the rows of a transcript, "m" for its older messages, "c" for the list of conversations, "w" for those
that wait, "u" for those that have work left."""
RowFields: TypeAlias = tuple[str, str, str, str, str, str]
"""message_id, role, content_type, content as JSON text, status, created_at in ISO 8601."""


_EXTRA: Final = "_row"
"""In the stored content of a row: {"turn_id", "is_final"}, and "own", the value that the content itself has under this key."""
_NOTHING: Final[Mapping[str, str]] = {}
_NO_ROWS: Final[Mapping[str, RowFields]] = {}


class EncodedCommit(NamedTuple):
    """A commit as texts: checked, and sharing nothing with the caller."""

    commit: Commit
    owner_key: str
    messages: Sequence[str]
    queued: Mapping[str, str]
    """Message id to text, in order."""
    taken: Sequence[str]
    message_ids: Mapping[str, str]
    state: Mapping[str, str | None]
    """Only the keys that change; None removes a key."""
    rows: Mapping[str, RowFields]
    """Row id to its fields, in order. Of a row that is given twice, the first place and the last fields count."""
    titled: bool
    """Whether the title changes."""
    title: str | None


def owner_key(owner: Owner) -> str:
    """Return the text that stands for an owner: `1`, `"1"` and None have three different texts.

    Raises:
        TypeError: it is not an owner.
    """
    if owner is not None and type(owner) is not str and type(owner) is not int:
        raise TypeError(f"an owner must be str, int or None, not {type(owner).__name__}")
    return "null" if owner is None else json.dumps(owner)


def wanted_key(owner: Owner | Unchecked) -> str | None:
    """Return the text of the owner whose conversations alone are visible, or None if all conversations are visible."""
    return None if owner is UNCHECKED else owner_key(owner)


def encode_value(value: JSONValue, what: str) -> str:
    """Return the stored text of a JSON value.

    Raises:
        TypeError: something in it has no JSON form.
        ValueError: a number is not finite, a text has lone surrogates, or the value nests too deeply.
        PersistenceError: the text has more than `MAX_RECORD_BYTES`.
    """
    try:
        text = dumps(value)
    except RecursionError:
        raise ValueError(f"{what} nests too deeply") from None
    size = len(text) if text.isascii() else len(check_text(text, what).encode())
    if size > MAX_RECORD_BYTES:
        raise PersistenceError(f"{what} has {size} bytes; a record has at most MAX_RECORD_BYTES = {MAX_RECORD_BYTES}")
    return text


def encode_commit(commit: Commit, owner: Owner | Unchecked) -> EncodedCommit:
    """Return a commit ready to be stored.

    Raises:
        TypeError: a field has the wrong type.
        ValueError: a field has a value that cannot be stored, or `owner` is given and is not the commit's owner.
        PersistenceError: a record has more than `MAX_RECORD_BYTES`.
    """
    check_id("conversation_id", commit.conversation_id)
    check_name("agent_id", commit.agent_id)
    for name, number in (("epoch", commit.epoch), ("revision", commit.revision)):
        if type(number) is not int:
            raise TypeError(f"{name} must be int, not {type(number).__name__}")
        if not 0 <= number <= _MAX_COUNT:
            raise ValueError(f"{name} must be 0 to 2**53, not {number}")
    key = owner_key(commit.owner)
    if owner is not UNCHECKED and owner_key(owner) != key:
        raise ValueError(f"a commit of owner {commit.owner!r} was given for owner {owner!r}")
    if commit.checkpoint is not None:
        _check_checkpoint(commit.checkpoint)
    metadata = commit.state.get("metadata")
    title = metadata.get("title") if isinstance(metadata, Mapping) else None
    return EncodedCommit(
        commit,
        key,
        [encode_value(message, "a message") for message in commit.messages] if commit.messages else (),
        _encode_queued(commit) if commit.queued else _NOTHING,
        [check_name("taken", message_id) for message_id in commit.taken] if commit.taken else (),
        _encode_message_ids(commit) if commit.message_ids else _NOTHING,
        _encode_state(commit) if commit.state else _NOTHING,
        {check_name("row_id", row.row_id): _encode_row(row) for row in commit.rows} if commit.rows else _NO_ROWS,
        "metadata" in commit.state,
        title if isinstance(title, str) else None,
    )


def _check_checkpoint(checkpoint: Checkpoint) -> None:
    places = [place for where in checkpoint.known.values() for place in where]
    for name, number in (("lead", checkpoint.lead), ("older", checkpoint.older), *(("known", place) for place in places)):
        if type(number) is not int or not 0 <= number <= _MAX_COUNT:
            raise ValueError(f"the {name} of a checkpoint must be 0 to 2**53, not {number!r}")
    for name, where in checkpoint.known.items():
        check_name("known", name)
        if len(where) != 2 or max(where) >= checkpoint.lead + checkpoint.older:
            raise ValueError(f"the checkpoint knows {name!r} at the places {where!r}, which are not two places before its window")


def _encode_message_ids(commit: Commit) -> Mapping[str, str]:
    return {check_name("message_id", name): check_name("digest", digest) for name, digest in commit.message_ids.items()}


def _encode_state(commit: Commit) -> Mapping[str, str | None]:
    return {check_name("state", name): None if value is None else encode_value(value, name) for name, value in commit.state.items()}


def check_name(name: str, value: object) -> str:
    """Return `value`; TypeError or ValueError unless it is a str that can be stored."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, not {type(value).__name__}")
    return value if value.isascii() else check_text(value, name)


def _encode_queued(commit: Commit) -> dict[str, str]:
    queued: dict[str, str] = {}
    for message in commit.queued:
        message_id = message_id_of(message)
        if message_id is None:
            raise ValueError("a queued message must have a message_id")
        if message_id in queued:
            raise PersistenceError(f"message {message_id!r} of conversation {commit.conversation_id!r} is queued twice")
        queued[check_name("message_id", message_id)] = encode_value(message, "a queued message")
    return queued


def _with_extra(row: DisplayMessage) -> JSON:
    """Return the content of a row as it is stored: what has no column of its own is in it, under one key."""
    extra: dict[str, JSONValue] = {} if row.turn_id is None else {"turn_id": check_name("turn_id", row.turn_id)}
    if row.is_final == (row.status in OPEN_STATUSES):
        extra["is_final"] = bool(row.is_final)
    if _EXTRA in row.content:
        extra["own"] = row.content[_EXTRA]
    return {**row.content, _EXTRA: extra} if extra else row.content


def _without_extra(content: dict[str, JSONValue], status: object) -> tuple[dict[str, JSONValue], str | None, bool]:
    """Return what `_with_extra` was given: content, turn id, and whether the row is final. Older rows have none of it."""
    extra = content.pop(_EXTRA, None)
    if extra is None:
        return content, None, status not in OPEN_STATUSES
    if not isinstance(extra, dict):
        raise TypeError("its turn is not an object")
    turn_id, is_final = extra.get("turn_id"), extra.get("is_final", status not in OPEN_STATUSES)
    if not isinstance(turn_id, str | None) or not isinstance(is_final, bool):
        raise TypeError("its turn is damaged")
    if "own" in extra:
        content[_EXTRA] = extra["own"]
    return content, turn_id, is_final


def _encode_row(row: DisplayMessage) -> RowFields:
    if row.role not in _ROLES or row.status not in _STATUSES:
        raise ValueError(f"row {row.row_id!r} has the role {row.role!r} and the status {row.status!r}")
    if row.created_at.tzinfo is None:
        raise ValueError(f"row {row.row_id!r} has no time zone in created_at")
    if not isinstance(row.content, Mapping):
        raise TypeError(f"the content of row {row.row_id!r} must be an object, not {type(row.content).__name__}")
    return (
        check_name("message_id", row.message_id),
        row.role,
        check_name("content_type", row.content_type),
        encode_value(_with_extra(row), "the content of a row"),
        row.status,
        row.created_at.isoformat(),
    )


def waiting_item(conversation_id: str, owner: Owner, title: str | None, text: object) -> WaitingConversation:
    """Return a line of the list of what waits; StateError if its stored interrupt is damaged."""
    return WaitingConversation(conversation_id, owner, title, read_interrupt(conversation_id, decode_value(conversation_id, text)))


def message_id_of(record: JSONValue) -> str | None:
    """Return the id in a stored message, or None if there is none."""
    value = record.get("message_id") if isinstance(record, Mapping) else None
    return value if isinstance(value, str) and value else None


def decode_record(conversation_id: str, text: object) -> JSON:
    """Return the record that a stored text stands for.

    Raises:
        StateFromFuture: a later version of the library wrote it.
        StateError: the text is not a JSON object.
    """
    return _checked_record(conversation_id, decode_value(conversation_id, text))


def decode_records(conversation_id: str, texts: Iterable[object], pause: Callable[[], object] | None = None) -> ReadRecords:
    """Return the records that stored texts stand for, and the bytes of the texts.

    Args:
        conversation_id: for errors.
        texts: in order.
        pause: called now and then, in a thread; None in a task.

    Raises:
        StateFromFuture: a later version of the library wrote a record.
        StateError: a text is not a JSON object.
    """
    records = ReadRecords(pause)
    for text in texts:
        add_record(conversation_id, records, text)
    return records


def add_record(conversation_id: str, records: ReadRecords, text: object) -> JSON:
    """Read one more record, and return it; raises as `decode_records`."""
    if type(text) is not str:
        raise _not_text(conversation_id, text)
    return _checked_record(conversation_id, records.read(conversation_id, text))


def _checked_record(conversation_id: str, value: JSONValue) -> JSON:
    if not isinstance(value, dict):
        raise StateError(conversation_id, f"a record is {type(value).__name__}, not an object")
    version = value.get("v")
    if type(version) is int and version > SCHEMA_VERSION:
        raise StateFromFuture(conversation_id, version, SCHEMA_VERSION)
    return value


def _not_text(conversation_id: str, value: object) -> StateError:
    return StateError(conversation_id, f"a record is stored as {type(value).__name__}, not as text")


def decode_value(conversation_id: str, text: object) -> JSONValue:
    """Return the JSON value that a stored text stands for; StateError if it is not JSON."""
    if type(text) is not str:
        raise _not_text(conversation_id, text)
    return loads(conversation_id, text)


def decode_row(conversation_id: str, row_id: object, fields: Sequence[object]) -> DisplayMessage:
    """Return a row of the transcript from its stored fields, in the order of `RowFields`; StateError if they are damaged."""
    message_id, role, content_type, content, status, created_at = fields
    try:
        if role not in _ROLES or status not in _STATUSES:
            raise ValueError(f"it has the role {role!r} and the status {status!r}")
        if type(created_at) is not str or (at := datetime.datetime.fromisoformat(created_at)).tzinfo is None:
            raise ValueError("its time has no zone")
        if type(row_id) is not str or type(message_id) is not str or type(content_type) is not str:
            raise TypeError("its ids are not text")
        plain = plain_json(decode_value(conversation_id, content), depth=-RECORD_DEPTH)
        if not isinstance(plain, dict):
            raise TypeError("its content is not an object")
        own, turn_id, is_final = _without_extra(plain, status)
    except (TypeError, ValueError) as exc:
        raise StateError(conversation_id, f"a row of the transcript: {exc}"[:300]) from exc
    return DisplayMessage(row_id, message_id, cast("Role", role), content_type, own, cast("ToolStatus", status), at, turn_id, is_final)


def encode_cursor(kind: CursorKind, number: int) -> str:
    """Return the opaque text that names a place in a list."""
    return f"{kind}{number}"


def decode_cursor(kind: CursorKind, name: str, text: str | None) -> int | None:
    """Return the place that a cursor names, or None for None; TypeError or ValueError unless it is a cursor of that kind."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f"{name} must be str or None, not {type(text).__name__}")
    match = _CURSOR.fullmatch(text)
    if match is None or match[1] != kind:
        raise ValueError(f"{name} is not a cursor of this list: {text[:40]!r}")
    return int(match[2])


def check_limit(limit: int) -> int:
    """Return `limit`; TypeError or ValueError unless it is an int from 1 to `MAX_PAGE`."""
    if type(limit) is not int:
        raise TypeError(f"limit must be int, not {type(limit).__name__}")
    if not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"limit must be 1 to {MAX_PAGE}, not {limit}")
    return limit
