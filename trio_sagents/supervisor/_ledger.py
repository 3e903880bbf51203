"""The books of one live conversation: what is committed, and the one order in which more is submitted.

Memory changes only in the writer's continuation, so it is always equal to the last commit; a failed write changes nothing,
and the next one builds on what is stored. One ledger belongs to one agent, and dies with it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import attrs
import trio

from trio_sagents.abc import Scope
from trio_sagents.data.history import close_after_crash
from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.json import JSON, JSONValue, digest_of
from trio_sagents.data.messages import Message
from trio_sagents.data.records import Commit, Conversation, DisplayMessage, Lifecycle, Owner, Saved, ToolUpdate
from trio_sagents.data.state import State
from trio_sagents.data.todos import Todo
from trio_sagents.data.wire import (
    decode_interrupt,
    decode_message,
    decode_metadata,
    decode_todos,
    dumps,
    encode_interrupt,
    encode_message,
    encode_todo,
)
from trio_sagents.exceptions import LimitExceeded, PersistenceError, StateError
from trio_sagents.supervisor._writer import Write, Writer

NO_CHANGE: Final = object()
"""Stands for "leave it as it is" where None is a value."""


@attrs.frozen(kw_only=True)
class Change:
    """What one commit changes, as values."""

    lifecycle: Lifecycle
    actor: Scope = attrs.field(default=None, repr=False)
    messages: Sequence[Message] = ()
    """Go to the history."""
    queued: Sequence[Message] = ()
    """Go to the queue."""
    taken: Sequence[str] = ()
    """Leave the queue."""
    new_ids: Mapping[str, str] = attrs.field(factory=dict)
    """Message ids that are used from now on, with their digests."""
    draft: "Message | object | None" = NO_CHANGE
    interrupt: "Interrupt | object | None" = NO_CHANGE
    todos: "Sequence[Todo] | None" = None
    metadata: JSON | None = None
    shown: Sequence[Message] = ()
    """Messages that are new in the transcript."""
    rows: Sequence[DisplayMessage] = ()
    tool_updates: Sequence[ToolUpdate] = ()


@attrs.define(eq=False)
class Ledger:
    """One conversation in memory."""

    conversation_id: str
    agent_id: str
    scope: Scope = attrs.field(repr=False)
    """The agent's: what the store gets."""
    owner: Owner
    incarnation: str
    writer: Writer
    max_bytes: int
    slack_bytes: int
    """By how much the closing of one turn may exceed `max_bytes`."""
    epoch: int = 1
    messages: list[Message] = attrs.field(factory=list)
    """The history, oldest first."""
    queue: dict[str, Message] = attrs.field(factory=dict)
    """Accepted messages that no turn has taken, by id, oldest first."""
    message_ids: dict[str, str] = attrs.field(factory=dict)
    """Every message id ever accepted here, with the digest of its content."""
    ids: set[str] = attrs.field(factory=set)
    """The ids of all messages and tool calls, also of those on their way to the store: a new one must not be among them."""
    todos: Sequence[Todo] = ()
    metadata: JSON = attrs.field(factory=dict)
    interrupt: Interrupt | None = None
    draft: Message | None = None
    """The stored draft of an answer."""
    is_restored: bool = False
    size: int = 0
    """Bytes of the messages, as stored."""
    _revision: int = 0
    # Invariant: the revision of the last write that was submitted and has not failed.
    _committed: int = 0
    _pending: int = 0
    """Writes submitted and not ended."""
    _rest: trio.Event | None = None
    """Set when no write is pending, where somebody waits for that."""
    _made: int = 0
    """Ids made so far."""
    _seed: Sequence[Message] = ()
    """What a fresh conversation begins with: in memory from the start, stored by the first commit."""

    # ── ids

    def new_id(self) -> str:
        """Return an id that nothing in this conversation has."""
        while True:
            self._made += 1
            made = f"{self.incarnation}-{self._made}"
            if made not in self.ids:  # a caller may have guessed it, and used it
                return made

    def id_source(self) -> Iterator[str]:
        """Return an endless source of new ids."""
        while True:
            yield self.new_id()

    # ── loading

    def restore(self, stored: Conversation) -> None:
        """Take in what the store has. StateError where it cannot be used; nothing was changed in the store."""
        known = self.conversation_id
        self.epoch, self._revision, self._committed = stored.epoch, stored.revision, stored.revision
        self._measure(stored)
        self.messages = [decode_message(known, record) for record in stored.messages]
        for record in stored.queue:
            message = decode_message(known, record)
            self.queue[message.message_id] = message
        self.message_ids = {message.message_id: message.digest for message in (*self.messages, *self.queue.values()) if message.digest}
        self.message_ids.update(stored.message_ids)
        self.ids = {message.message_id for message in (*self.messages, *self.queue.values())} | set(self.message_ids)
        _check_history(known, self.messages)
        self.ids.update(call.call_id for message in self.messages for call in message.calls)
        unknown = set(stored.state) - {"todos", "metadata", "interrupt", "draft"}
        if unknown:
            raise StateError(known, f"the state has unknown keys: {', '.join(sorted(unknown))}")
        self.todos = decode_todos(known, stored.state.get("todos", []))
        self.metadata = decode_metadata(known, stored.state.get("metadata", {}))
        self.interrupt = decode_interrupt(known, stored.state.get("interrupt"))
        draft = stored.state.get("draft")
        self.draft = None if draft is None else decode_message(known, draft)
        self.is_restored = True

    def _measure(self, stored: Conversation) -> None:
        self.size = sum(_size(record) for record in (*stored.messages, *stored.queue))
        whole = self.size + _size(dict(stored.state))
        # What closes a turn at the limit is kept all the same, so a little more than the limit must load again.
        if whole > self.max_bytes + self.slack_bytes:
            raise StateError(self.conversation_id, f"it has {whole} bytes, max_state_bytes is {self.max_bytes}")

    def seed(self, messages: Sequence[Message], todos: Sequence[Todo], metadata: JSON) -> None:
        """Begin a fresh conversation with this; nothing is stored before the first commit."""
        self._seed = tuple(messages)
        self.messages = list(messages)
        self.ids = {message.message_id for message in messages}
        self.todos = tuple(todos)
        self.metadata = metadata
        self.size = sum(_size(encode_message(message)) for message in messages)

    def closing(self) -> Sequence[Message]:
        """Return what closes the history where a crash or a failed write cut it; empty where it is whole."""
        if self.interrupt is not None:
            return ()
        return close_after_crash(self.messages, self.draft, self.id_source())

    def state(self) -> State:
        """Return the last committed state."""
        return State(self.messages, self.todos, self.metadata)

    # ── writing

    def check_room(self, message: Message) -> None:
        """Raise LimitExceeded where the state would grow over `max_state_bytes`."""
        size = self.size + _size(encode_message(message))
        if size > self.max_bytes:
            raise LimitExceeded("max_state_bytes", size, most=self.max_bytes)

    def submit(self, change: Change, then: Callable[[Saved | None, PersistenceError | None], None]) -> Write:
        """Submit a change behind all earlier ones. `then` runs in the writer, after memory has changed."""
        commit = self._commit(change)
        added = {message.message_id for message in (*change.messages, *change.queued)} - self.ids
        added.update(call.call_id for message in change.messages for call in message.calls)
        self.ids |= added
        self._revision += 1
        self._pending += 1

        def finish(saved: Saved | None, error: PersistenceError | None) -> None:
            self._pending -= 1
            if error is None:
                self._committed = commit.revision
                self._apply(change, commit)
            else:
                self._revision = self._committed
                self.ids -= added
            then(saved, error)
            if not self._pending and self._rest is not None:
                self._rest.set()
                self._rest = None

        return self.writer.submit(Write(self.scope, commit, change.shown, finish))

    @property
    def is_at_rest(self) -> bool:
        """Whether no write is pending."""
        return not self._pending

    async def wait_at_rest(self) -> None:
        """Wait until no write is pending."""
        while self._pending:
            if self._rest is None:
                self._rest = trio.Event()
            await self._rest.wait()

    def _commit(self, change: Change) -> Commit:
        state: dict[str, JSONValue] = {}
        if change.draft is not NO_CHANGE:
            state["draft"] = encode_message(change.draft) if isinstance(change.draft, Message) else None
        if change.interrupt is not NO_CHANGE:
            state["interrupt"] = encode_interrupt(change.interrupt if isinstance(change.interrupt, Interrupt) else None)
        if change.todos is not None:
            state["todos"] = [encode_todo(todo) for todo in change.todos]
        if change.metadata is not None:
            state["metadata"] = change.metadata
        seed: Sequence[Message] = ()
        if not self._revision:
            seed = self._seed
            state.setdefault("todos", [encode_todo(todo) for todo in self.todos])
            state.setdefault("metadata", self.metadata)
        return Commit(
            conversation_id=self.conversation_id,
            agent_id=self.agent_id,
            owner=self.owner,
            epoch=self.epoch,
            revision=self._revision + 1,
            lifecycle=change.lifecycle,
            actor=change.actor,
            messages=[encode_message(message) for message in (*seed, *change.messages)],
            queued=[encode_message(message) for message in change.queued],
            taken=change.taken,
            message_ids=change.new_ids,
            state=state,
            rows=change.rows,
            tool_updates=change.tool_updates,
        )

    def _apply(self, change: Change, commit: Commit) -> None:
        self.messages.extend(change.messages)
        for message in change.queued:
            self.queue[message.message_id] = message
        for message_id in change.taken:
            self.size -= _size(encode_message(self.queue.pop(message_id)))
        self.message_ids.update(change.new_ids)
        self.size += sum(_size(encode_message(message)) for message in (*change.messages, *change.queued))
        if change.draft is not NO_CHANGE:
            self.draft = change.draft if isinstance(change.draft, Message) else None
        if change.interrupt is not NO_CHANGE:
            self.interrupt = change.interrupt if isinstance(change.interrupt, Interrupt) else None
        if change.todos is not None:
            self.todos = tuple(change.todos)
        if change.metadata is not None:
            self.metadata = change.metadata


def content_digest(parts: JSONValue, metadata: JSON) -> str:
    """Return the digest that tells whether two posts with one message id are the same."""
    return digest_of([parts, metadata])


def _size(record: JSONValue) -> int:
    return len(dumps(record).encode())


def _check_history(conversation_id: str, messages: Sequence[Message]) -> None:
    """Refuse a history in which an id stands twice, or a result answers no call: it cannot be ours."""
    ids: set[str] = set()
    calls: dict[str, bool] = {}
    for message in messages:
        if message.message_id in ids:
            raise StateError(conversation_id, f"the message id {message.message_id!r} stands twice")
        ids.add(message.message_id)
        for call in message.calls:
            if call.call_id in calls:
                raise StateError(conversation_id, f"the call id {call.call_id!r} stands twice")
            calls[call.call_id] = False
        for result in message.results:
            if calls.get(result.call_id) is not False:
                raise StateError(conversation_id, f"a result answers the call {result.call_id!r}, which is not open")
            calls[result.call_id] = True
