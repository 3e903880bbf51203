"""A store that lives as long as its object: for tests, and for conversations that need not outlive the process.

The store keeps texts, so nothing is shared with a caller. Each method checks its arguments, passes one checkpoint, and then
acts without another checkpoint: a cancelled call has done nothing, and a call that has acted is never reported as cancelled.
"""

import datetime
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Literal

import attrs
import trio

from trio_sagents.data.json import JSON
from trio_sagents.data.records import (
    UNCHECKED,
    Check,
    Commit,
    Conversation,
    ConversationItem,
    ConversationPage,
    HistoryPage,
    OlderPage,
    Owner,
    Recalled,
    Unchecked,
    WaitingPage,
    accept_all,
)
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import Conflict, ConversationNotFound, PersistenceError
from trio_sagents.persistence._records import (
    EncodedCommit,
    RowFields,
    check_limit,
    decode_cursor,
    decode_record,
    decode_records,
    decode_row,
    encode_commit,
    encode_cursor,
    waiting_item,
    wanted_key,
)

_GONE = 0
"""The change number of a deleted conversation; the first real one is 1."""


@attrs.define(eq=False)
class _Window:
    """What the checkpoints of one conversation have left."""

    lead: int = 0
    older: int = 0
    known: dict[str, Sequence[int]] = attrs.field(factory=dict)
    """By name, the two places that a checkpoint gave."""


@attrs.define(eq=False)
class _Stored:
    """One conversation, as texts."""

    conversation_id: str
    owner: Owner
    owner_key: str
    epoch: int
    updated_at: datetime.datetime
    revision: int = 0
    change: int = _GONE
    """Number of its last change, among those of all conversations."""
    title: str | None = None
    messages: list[str] = attrs.field(factory=list)
    queue: dict[str, str] = attrs.field(factory=dict)
    """Message id to text, oldest first."""
    message_ids: dict[str, str] = attrs.field(factory=dict)
    window: _Window = attrs.field(factory=_Window)
    state: dict[str, str] = attrs.field(factory=dict)
    waits_since: int = _GONE
    """Number of the change with which it began to wait for a person."""
    unfinished_since: int = _GONE
    """Number of the change from which on it has work left."""
    rows: dict[str, RowFields] = attrs.field(factory=dict)
    row_ids: list[str] = attrs.field(factory=list)
    """The keys of `rows` in the order of their places; a place never changes."""


class _Order:
    """Conversations in the order of their last change.

    A conversation that changes is appended again; its earlier entry is dropped now and then, together with others.
    """

    __slots__ = ("_changes", "_live", "_rows")

    def __init__(self) -> None:
        # Invariant: _changes rises; an entry is current if its conversation still has that change number.
        self._changes: list[int] = []
        self._rows: list[_Stored] = []
        self._live = 0

    def append(self, row: _Stored, *, new: bool) -> None:
        self._live += new
        if len(self._changes) >= 2 * self._live + 64:
            current = [(change, row) for change, row in zip(self._changes, self._rows, strict=True) if row.change == change]
            self._changes = [change for change, _ in current]
            self._rows = [row for _, row in current]
        self._changes.append(row.change)
        self._rows.append(row)

    def forget(self) -> int:
        """Count a deletion; return how many conversations are left."""
        self._live -= 1
        return self._live

    def page(self, after: int | None, limit: int) -> list[_Stored]:
        index = len(self._changes) if after is None else bisect_left(self._changes, after)
        found: list[_Stored] = []
        while index and len(found) < limit:
            index -= 1
            if self._rows[index].change == self._changes[index]:
                found.append(self._rows[index])
        return found


class MemoryStore:
    """A `ConversationStore` in memory.

    The store may serve several `open_sessions` blocks one after the other. Every method takes `owner`: a conversation of another
    owner is like a missing one, and is not touched. `UNCHECKED`, the default, stands for any owner.
    """

    checks_owner: Literal[True] = True

    def __init__(self) -> None:
        self._stored: dict[str, _Stored] = {}
        self._all = _Order()
        self._owned: dict[str, _Order] = {}
        self._waiting: dict[str | None, dict[str, _Stored]] = {None: {}}
        self._unfinished: dict[str, _Stored] = {}
        # Invariant: the conversations that have work left, by id, in the order of `unfinished_since`.
        """By owner key, and under None for all: what waits for a person, the one that has waited longest first."""
        self._change = _GONE

    def __repr__(self) -> str:
        return f"<MemoryStore of {len(self._stored)} conversations>"

    async def load(
        self, scope: Scope, conversation_id: str, *, owner: Owner | Unchecked = UNCHECKED, check: Check = accept_all
    ) -> Conversation | None:
        """Return the conversation, or None if there is none, and raise its epoch.

        Args:
            scope: ignored.
            conversation_id: of the conversation.
            owner: who must own it; `UNCHECKED` for anybody.
            check: looks at the conversation before anything is changed; if it raises, nothing is changed.

        Returns:
            A new object, which shares nothing with the store.

        Raises:
            ConversationNotFound: another owner has the conversation; nothing was changed.
            StateFromFuture: a later version of the library wrote it; nothing was changed.

        Cancellation: either nothing was changed, or the conversation is returned.
        """
        await trio.lowlevel.checkpoint()
        row = self._stored.get(conversation_id)
        if row is None:
            return None
        if owner is not UNCHECKED and wanted_key(owner) != row.owner_key:
            raise ConversationNotFound(conversation_id)
        lead, older = row.window.lead, row.window.older
        window = (*row.messages[:lead], *row.messages[lead + older :])
        messages, queue = decode_records(conversation_id, window), decode_records(conversation_id, row.queue.values())
        conversation = Conversation(
            conversation_id=conversation_id,
            owner=row.owner,
            epoch=row.epoch + 1,
            revision=row.revision,
            messages=messages,
            queue=queue,
            message_ids=_ids_among(row.message_ids, (*messages, *queue)) if older else dict(row.message_ids),
            state={name: json.loads(text) for name, text in row.state.items()},
            older=older,
        )
        check(conversation)
        row.epoch += 1
        return conversation

    async def commit(self, scope: Scope, commit: Commit, *, owner: Owner | Unchecked = UNCHECKED) -> int:
        """Store a commit, all of it or none, and return its revision.

        Args:
            scope: ignored.
            commit: what changes; copied.
            owner: if given, must be the commit's owner, and own the conversation.

        Raises:
            TypeError: a value in the commit has no JSON form.
            ValueError: a value in the commit cannot be stored, or the owners differ.
            Conflict: the store is not at (commit.epoch, commit.revision - 1), or another owner has the conversation; nothing was changed.
            PersistenceError: a message id is used already, or a taken message is not in the queue; nothing was changed.

        Cancellation: either nothing was stored, or the revision is returned.
        """
        encoded = encode_commit(commit, owner)
        await trio.lowlevel.checkpoint()
        # No checkpoint until the return: checked and stored in one step.
        row = self._stored.get(commit.conversation_id)
        self._compare(row, encoded, owner)
        _check_ids(row, encoded)
        _check_places(row, encoded)
        self._store(row, encoded)
        return commit.revision

    def _compare(self, row: _Stored | None, encoded: EncodedCommit, owner: Owner | Unchecked) -> None:
        commit = encoded.commit
        expected = (commit.epoch, commit.revision - 1)
        if row is None:
            if commit.revision != 1:
                raise Conflict(commit.conversation_id, expected=expected, found=None)
            return
        found = (row.epoch, row.revision)
        foreign = row.owner_key != encoded.owner_key
        if foreign or found != expected:
            hidden = foreign and owner is not UNCHECKED
            raise Conflict(commit.conversation_id, expected=expected, found=None if hidden else found)

    def _store(self, row: _Stored | None, encoded: EncodedCommit) -> None:
        commit = encoded.commit
        new = row is None
        now = datetime.datetime.now(datetime.UTC)
        if row is None:
            row = _Stored(commit.conversation_id, commit.owner, encoded.owner_key, commit.epoch, now)
            self._stored[commit.conversation_id] = row
        row.messages.extend(encoded.messages)
        if commit.checkpoint is not None:
            row.window.lead, row.window.older = commit.checkpoint.lead, commit.checkpoint.older
            row.window.known.update((name, tuple(where)) for name, where in commit.checkpoint.known.items())
        row.queue.update(encoded.queued)
        for message_id in encoded.taken:
            del row.queue[message_id]
        row.message_ids.update(encoded.message_ids)
        for name, text in encoded.state.items():
            if text is None:
                row.state.pop(name, None)
            else:
                row.state[name] = text
        if encoded.titled:
            row.title = encoded.title
        row.row_ids.extend(row_id for row_id in encoded.rows if row_id not in row.rows)
        row.rows.update(encoded.rows)
        row.revision = commit.revision
        self._change += 1
        if commit.comes_first:
            row.updated_at = now
            self._move_first(row, new=new)
        if "interrupt" in encoded.state:
            self._note_waiting(row)
        if "unfinished" in encoded.state:
            self._note_unfinished(row)

    def _move_first(self, row: _Stored, *, new: bool) -> None:
        row.change = self._change
        self._all.append(row, new=new)
        owned = self._owned.get(row.owner_key)
        if owned is None:
            owned = self._owned[row.owner_key] = _Order()
        owned.append(row, new=new)

    def _note_waiting(self, row: _Stored) -> None:
        waits = "interrupt" in row.state
        row.waits_since = (row.waits_since or self._change) if waits else _GONE
        for key in (None, row.owner_key):
            listed = self._waiting.setdefault(key, {})
            if waits:
                listed[row.conversation_id] = row
            else:
                listed.pop(row.conversation_id, None)
            if not listed and key is not None:
                del self._waiting[key]

    def _note_unfinished(self, row: _Stored) -> None:
        if "unfinished" not in row.state:
            row.unfinished_since = _GONE
            self._unfinished.pop(row.conversation_id, None)
        elif row.conversation_id not in self._unfinished:
            row.unfinished_since = self._change
            self._unfinished[row.conversation_id] = row

    async def history(
        self, scope: Scope, conversation_id: str, *, before: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED
    ) -> HistoryPage:
        """Return a page of the transcript.

        Args:
            scope: ignored.
            conversation_id: of the conversation.
            before: `before` of a page, for the next older page; None for the newest page.
            limit: the most rows on the page, 1 to 1000.
            owner: who must own it; `UNCHECKED` for anybody.

        Returns:
            A new page; its rows are in order, the oldest first.

        Raises:
            ConversationNotFound: there is no such conversation, or another owner has it.
            ValueError: `before` is not a cursor of a transcript, or `limit` is out of range.

        Cancellation: nothing is changed.
        """
        place = decode_cursor("r", "before", before)
        check_limit(limit)
        wanted = wanted_key(owner)
        await trio.lowlevel.checkpoint()
        row = self._stored.get(conversation_id)
        if row is None or wanted not in {None, row.owner_key}:
            raise ConversationNotFound(conversation_id)
        end = len(row.row_ids) if place is None else min(place, len(row.row_ids))
        start = max(0, end - limit)
        rows = [decode_row(conversation_id, row_id, row.rows[row_id]) for row_id in row.row_ids[start:end]]
        return HistoryPage(rows, encode_cursor("r", start) if start else None)

    async def recall(
        self, scope: Scope, conversation_id: str, names: Sequence[str], *, owner: Owner | Unchecked = UNCHECKED
    ) -> Mapping[str, Recalled]:
        """Return the messages that checkpoints have put into the index under these names.

        Args:
            scope: ignored.
            conversation_id: of the conversation.
            names: as in `Checkpoint.known`; unknown ones are left out.
            owner: who must own it; `UNCHECKED` for anybody.

        Cancellation: nothing is changed.
        """
        wanted = wanted_key(owner)
        await trio.lowlevel.checkpoint()
        row = self._stored.get(conversation_id)
        if row is None or wanted not in {None, row.owner_key}:
            return {}
        found: dict[str, Recalled] = {}
        for name in names:
            if name in row.window.known:
                message, last = (decode_record(conversation_id, row.messages[place]) for place in row.window.known[name])
                found[name] = Recalled(message, last)
        return found

    async def older_messages(
        self, scope: Scope, conversation_id: str, *, before: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED
    ) -> OlderPage:
        """Return a page of the messages that are not in the window.

        Args:
            scope: ignored.
            conversation_id: of the conversation.
            before: `before` of a page, for the next older page; None for the page right before the window.
            limit: the most messages on the page, 1 to 1000.
            owner: who must own it; `UNCHECKED` for anybody.

        Raises:
            ConversationNotFound: there is no such conversation, or another owner has it.
            ValueError: `before` is not a cursor of older messages, or `limit` is out of range.

        Cancellation: nothing is changed.
        """
        place = decode_cursor("m", "before", before)
        check_limit(limit)
        wanted = wanted_key(owner)
        await trio.lowlevel.checkpoint()
        row = self._stored.get(conversation_id)
        if row is None or wanted not in {None, row.owner_key}:
            raise ConversationNotFound(conversation_id)
        lead, end = row.window.lead, row.window.lead + row.window.older
        end = end if place is None else max(lead, min(place, end))
        start = max(lead, end - limit)
        messages = [decode_record(conversation_id, text) for text in row.messages[start:end]]
        return OlderPage(messages, encode_cursor("m", start) if start > lead else None)

    async def conversations(self, scope: Scope, *, after: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED) -> ConversationPage:
        """Return a page of the conversations; the one in which a turn ended or began to wait last, or that began last, comes first.

        Args:
            scope: ignored.
            after: `after` of a page, for the next page; None for the first page. A conversation that changes meanwhile moves to the
                first page.
            limit: the most items on the page, 1 to 1000.
            owner: whose conversations; `UNCHECKED` for all.

        Raises:
            ValueError: `after` is not a cursor of this list, or `limit` is out of range.

        Cancellation: nothing is changed.
        """
        place = decode_cursor("c", "after", after)
        check_limit(limit)
        wanted = wanted_key(owner)
        await trio.lowlevel.checkpoint()
        order = self._all if wanted is None else self._owned.get(wanted)
        found: Sequence[_Stored] = () if order is None else order.page(place, limit + 1)
        items = [_item_of(row) for row in found[:limit]]
        return ConversationPage(items, encode_cursor("c", found[limit - 1].change) if len(found) > limit else None)

    async def waiting(self, scope: Scope, *, after: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED) -> WaitingPage:
        """Return a page of the conversations that wait for a person; the one that has waited longest comes first.

        Args:
            scope: ignored.
            after: `after` of a page, for the next page; None for the first page.
            limit: the most items on the page, 1 to 1000.
            owner: whose conversations; `UNCHECKED` for all.

        Raises:
            StateError: what one of them waits for cannot be read.
            ValueError: `after` is not a cursor of this list, or `limit` is out of range.

        Cancellation: nothing is changed.
        """
        place = decode_cursor("w", "after", after) or _GONE
        check_limit(limit)
        wanted = wanted_key(owner)
        await trio.lowlevel.checkpoint()
        rows = (row for row in self._waiting.get(wanted, {}).values() if row.waits_since > place)
        found = list(islice(rows, limit + 1))
        items = [waiting_item(row.conversation_id, row.owner, row.title, row.state["interrupt"]) for row in found[:limit]]
        return WaitingPage(items, encode_cursor("w", found[limit - 1].waits_since) if len(found) > limit else None)

    async def unfinished(self, scope: Scope, *, after: str | None, limit: int, owner: Owner | Unchecked = UNCHECKED) -> ConversationPage:
        """Return a page of the conversations that have work left; the one that is unfinished for the longest time comes first.

        Args:
            scope: ignored.
            after: `after` of a page, for the next page; None for the first page.
            limit: the most items on the page, 1 to 1000.
            owner: whose conversations; `UNCHECKED` for all.

        Raises:
            ValueError: `after` is not a cursor of this list, or `limit` is out of range.

        Cancellation: nothing is changed.
        """
        place = decode_cursor("u", "after", after) or _GONE
        check_limit(limit)
        wanted = wanted_key(owner)
        await trio.lowlevel.checkpoint()
        rows = (row for row in self._unfinished.values() if row.unfinished_since > place and wanted in {None, row.owner_key})
        found = list(islice(rows, limit + 1))
        items = [_item_of(row) for row in found[:limit]]
        return ConversationPage(items, encode_cursor("u", found[limit - 1].unfinished_since) if len(found) > limit else None)

    async def delete(self, scope: Scope, conversation_id: str, *, owner: Owner | Unchecked = UNCHECKED) -> bool:
        """Delete the conversation and its transcript; return False if there is none, or if another owner has it.

        Args:
            scope: ignored.
            conversation_id: of the conversation.
            owner: who must own it; `UNCHECKED` for anybody.

        Cancellation: either nothing was deleted, or the answer is returned.
        """
        wanted = wanted_key(owner)
        await trio.lowlevel.checkpoint()
        row = self._stored.get(conversation_id)
        if row is None or wanted not in {None, row.owner_key}:
            return False
        del self._stored[conversation_id]
        row.change = _GONE
        row.state.clear()
        self._note_waiting(row)
        self._note_unfinished(row)
        self._all.forget()
        if not self._owned[row.owner_key].forget():
            del self._owned[row.owner_key]
        return True


def _item_of(row: _Stored) -> ConversationItem:
    return ConversationItem(row.conversation_id, row.owner, row.title, len(row.messages), row.updated_at)


def _ids_among(message_ids: Mapping[str, str], records: Sequence[JSON]) -> dict[str, str]:
    there = [str(record.get("message_id")) for record in records]
    return {message_id: message_ids[message_id] for message_id in there if message_id in message_ids}


def _check_places(row: _Stored | None, encoded: EncodedCommit) -> None:
    checkpoint = encoded.commit.checkpoint
    count = len(encoded.messages) + (0 if row is None else len(row.messages))
    if checkpoint is not None and checkpoint.lead + checkpoint.older > count:
        where = f"conversation {encoded.commit.conversation_id!r}"
        raise PersistenceError(f"a checkpoint leaves out {checkpoint.lead + checkpoint.older} messages of {where}, which has {count}")


def _check_ids(row: _Stored | None, encoded: EncodedCommit) -> None:
    conversation_id = encoded.commit.conversation_id
    queue = {} if row is None else row.queue
    used = {} if row is None else row.message_ids
    for message_id in encoded.message_ids:
        if message_id in used:
            raise PersistenceError(f"message id {message_id!r} of conversation {conversation_id!r} is used already")
    for message_id in encoded.queued:
        if message_id in queue:
            raise PersistenceError(f"message {message_id!r} of conversation {conversation_id!r} is queued twice")
    taken: set[str] = set()
    for message_id in encoded.taken:
        if message_id in taken or not (message_id in queue or message_id in encoded.queued):
            raise PersistenceError(f"message {message_id!r} of conversation {conversation_id!r} is not in the queue")
        taken.add(message_id)
