"""Checks of what the methods of a host's store return.

A store is code of the host, and what it returns goes far from here: into the state of a conversation, to viewers, to the host's
own page. So each value is checked where a failure of the store is contained. A wrong value becomes a `PersistenceError` that
names the class, the method, and what was expected.
"""

import datetime
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn, get_args

from trio_sagents.data.ids import is_id
from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.json import check_text, plain_json
from trio_sagents.data.messages import Role, ToolStatus
from trio_sagents.data.records import (
    Commit,
    Conversation,
    ConversationItem,
    ConversationPage,
    DisplayMessage,
    HistoryPage,
    OlderPage,
    Owner,
    Recalled,
    StoredState,
    WaitingConversation,
    WaitingPage,
)
from trio_sagents.data.wire import RECORD_DEPTH
from trio_sagents.exceptions import PersistenceError
from trio_sagents.storage.ports import WindowedStore

_ROLES: Final = frozenset(get_args(Role))
_STATUSES: Final = frozenset(get_args(ToolStatus))
_MAX_COUNT: Final = 2**53


def checked_conversation(store: object, conversation_id: str, value: object) -> Conversation:
    """Return what `load` returned; what is inside its records is not looked at."""
    if not isinstance(value, Conversation):
        _refuse(store, "load", f"must return a Conversation, or None; not {_kind(value)}")
    if value.conversation_id != conversation_id:
        _refuse(store, "load", f"was asked for {conversation_id!r} and returned the conversation {value.conversation_id!r}")
    wrong = _wrong_head(value.owner, value.epoch, value.revision)
    for name in ("messages", "queue"):
        if not _is_sequence(getattr(value, name)):
            wrong = wrong or f"{name} is {_kind(getattr(value, name))}, not a sequence"
    for name in ("message_ids", "state"):
        if not isinstance(getattr(value, name), Mapping):
            wrong = wrong or f"{name} is {_kind(getattr(value, name))}, not a mapping"
    if type(value.older) is not int or value.older < 0:
        wrong = wrong or f"older is {_shown(value.older)}, not an int that is at least 0"
    elif value.older and not isinstance(store, WindowedStore):
        wrong = wrong or f"{value.older} messages are left out, and the store has no `recall` and `older_messages` (WindowedStore)"
    if not wrong and not all(isinstance(text, str) for pair in value.message_ids.items() for text in pair):
        wrong = "message_ids is not a mapping from str to str"
    if wrong:
        _refuse(store, "load", f"returned a Conversation that cannot be: {wrong}")
    return value


def checked_revision(store: object, commit: Commit, value: object) -> int:
    """Return what `commit` returned."""
    if type(value) is not int or value != commit.revision:
        _refuse(store, "commit", f"must return the commit's revision, which is {commit.revision}; not {_shown(value)}")
    return value


def checked_history(store: object, value: object) -> HistoryPage:
    """Return what `history` returned."""
    if not isinstance(value, HistoryPage):
        _refuse(store, "history", f"must return a HistoryPage, not {_kind(value)}")
    if not _is_sequence(value.rows):
        _refuse(store, "history", f"returned a HistoryPage whose rows are {_kind(value.rows)}, not a sequence")
    if value.before is not None and not isinstance(value.before, str):
        _refuse(store, "history", f"returned a HistoryPage whose before is {_kind(value.before)}, not str or None")
    for row in value.rows:
        _check_row(store, "history", row)
    return value


def checked_recalled(store: object, names: Sequence[str], value: object) -> Mapping[str, Recalled]:
    """Return what `recall` returned; what is inside its records is not looked at."""
    if not isinstance(value, Mapping):
        _refuse(store, "recall", f"must return a mapping from str to Recalled, not {_kind(value)}")
    for name, found in value.items():
        if name not in names or not isinstance(found, Recalled):
            _refuse(store, "recall", f"was asked for {names!r} and returned {_kind(found)} under {_shown(name)}")
    return value


def checked_older(store: object, value: object) -> OlderPage:
    """Return what `older_messages` returned; what is inside its records is not looked at."""
    if not isinstance(value, OlderPage):
        _refuse(store, "older_messages", f"must return an OlderPage, not {_kind(value)}")
    if not _is_sequence(value.messages):
        _refuse(store, "older_messages", f"returned an OlderPage whose messages are {_kind(value.messages)}, not a sequence")
    if value.before is not None and not isinstance(value.before, str):
        _refuse(store, "older_messages", f"returned an OlderPage whose before is {_kind(value.before)}, not str or None")
    return value


def checked_list(store: object, value: object, method: str = "conversations") -> ConversationPage:
    """Return what `conversations`, or another method that lists conversations, returned."""
    if not isinstance(value, ConversationPage):
        _refuse(store, method, f"must return a ConversationPage, not {_kind(value)}")
    if not _is_sequence(value.items):
        _refuse(store, method, f"returned a ConversationPage whose items are {_kind(value.items)}, not a sequence")
    if value.after is not None and not isinstance(value.after, str):
        _refuse(store, method, f"returned a ConversationPage whose after is {_kind(value.after)}, not str or None")
    for item in value.items:
        if (wrong := _wrong_item(item)) is not None:
            _refuse(store, method, wrong)
    return value


def checked_waiting(store: object, value: object) -> WaitingPage:
    """Return what `waiting` returned."""
    if not isinstance(value, WaitingPage):
        _refuse(store, "waiting", f"must return a WaitingPage, not {_kind(value)}")
    if not _is_sequence(value.items):
        _refuse(store, "waiting", f"returned a WaitingPage whose items are {_kind(value.items)}, not a sequence")
    if value.after is not None and not isinstance(value.after, str):
        _refuse(store, "waiting", f"returned a WaitingPage whose after is {_kind(value.after)}, not str or None")
    for item in value.items:
        if not (isinstance(item, WaitingConversation) and isinstance(item.conversation_id, str) and isinstance(item.interrupt, Interrupt)):
            _refuse(store, "waiting", f"returned a WaitingPage with {_kind(item)}, or one whose fields have other types")
        if not _is_owner(item.owner) or not isinstance(item.title, str | None):
            _refuse(store, "waiting", f"returned a WaitingPage whose owner is {_kind(item.owner)}, and whose title is {_kind(item.title)}")
    return value


def checked_deletion(store: object, value: object) -> bool:
    """Return what `delete` returned."""
    if type(value) is not bool:
        _refuse(store, "delete", f"must return a bool, not {_kind(value)}")
    return value


def checked_owner(store: object, value: object) -> Owner:
    """Return what `get_owner` returned."""
    if not _is_owner(value):
        _refuse(store, "get_owner", f"must return str, int or None, not {_kind(value)}")
    owner: Owner = value  # type: ignore[assignment]  # one of the three, as was just checked
    return owner


def checked_state(states: object, value: object) -> StoredState | None:
    """Return what `load_state` returned; the state's own shape is not looked at."""
    if value is None:
        return None
    if not isinstance(value, StoredState):
        _refuse(states, "load_state", f"must return a StoredState, or None; not {_kind(value)}")
    if wrong := _wrong_head(value.owner, value.epoch, value.revision):
        _refuse(states, "load_state", f"returned a StoredState that cannot be: {wrong}")
    return value


def checked_rows(display: object, value: object) -> Sequence[DisplayMessage]:
    """Return what `save_message` returned, as a tuple."""
    if not _is_sequence(value):
        _refuse(display, "save_message", f"must return a sequence of DisplayMessage, not {_kind(value)}")
    return tuple(_check_row(display, "save_message", row) for row in value)  # type: ignore[attr-defined]  # it is a sequence


def checked_update(display: object, value: object) -> DisplayMessage | None:
    """Return what `update_tool_status` returned."""
    return None if value is None else _check_row(display, "update_tool_status", value)


def _check_row(store: object, method: str, value: object) -> DisplayMessage:
    if not isinstance(value, DisplayMessage):
        _refuse(store, method, f"returned {_kind(value)} where a DisplayMessage is expected")
    try:
        for name in ("row_id", "message_id", "content_type"):
            if not isinstance(getattr(value, name), str):
                raise TypeError(f"{name} is {_kind(getattr(value, name))}, not str")
            check_text(getattr(value, name), name)
        if not value.row_id:
            raise ValueError("row_id is empty")
        if value.role not in _ROLES:
            raise ValueError(f"role is {_shown(value.role)}")
        if value.status not in _STATUSES:
            raise ValueError(f"status is {_shown(value.status)}")
        if not isinstance(value.content, Mapping):
            raise TypeError(f"content is {_kind(value.content)}, not a mapping")
        plain_json(value.content, "content", depth=-RECORD_DEPTH)
        if not _is_instant(value.created_at):
            raise ValueError(f"created_at is {_shown(value.created_at)}, not an aware datetime")
    except (TypeError, ValueError) as exc:
        _refuse(store, method, f"returned a DisplayMessage that cannot be: {exc}")
    return value


def _wrong_item(item: object) -> str | None:
    if not isinstance(item, ConversationItem):
        return f"returned {_kind(item)} where a ConversationItem is expected"
    if not is_id(item.conversation_id):
        return f"returned a ConversationItem whose conversation_id is {_shown(item.conversation_id)}, which is not an id"
    where = f"returned a ConversationItem of {item.conversation_id!r} that cannot be:"
    if not _is_owner(item.owner):
        return f"{where} owner is {_kind(item.owner)}, not str, int or None"
    if item.title is not None and not isinstance(item.title, str):
        return f"{where} title is {_kind(item.title)}, not str or None"
    if type(item.message_count) is not int:
        return f"{where} message_count is {_kind(item.message_count)}, not int"
    if not _is_instant(item.updated_at):
        return f"{where} updated_at is {_shown(item.updated_at)}, not an aware datetime"
    return None


def _wrong_head(owner: object, epoch: object, revision: object) -> str | None:
    if not _is_owner(owner):
        return f"owner is {_kind(owner)}, not str, int or None"
    for name, number in (("epoch", epoch), ("revision", revision)):
        if type(number) is not int or not 0 <= number < _MAX_COUNT:
            return f"{name} is {_shown(number)}, not an int from 0 to 2**53 - 1"
    return None


def _is_owner(value: object) -> bool:
    return value is None or type(value) is str or type(value) is int


def _is_sequence(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)


def _is_instant(value: object) -> bool:
    return isinstance(value, datetime.datetime) and value.utcoffset() is not None


def _kind(value: object) -> str:
    return type(value).__name__


def _shown(value: object) -> str:
    """Return a scalar as it is, and of anything else its type: the rest may be long, or a secret."""
    return repr(value)[:80] if value is None or isinstance(value, bool | int | str | datetime.datetime) else _kind(value)


def _refuse(store: object, method: str, what: str) -> NoReturn:
    raise PersistenceError(f"{type(store).__qualname__}.{method} {what}")
