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
from trio_sagents.data.ids import MAX_ID_BYTES
from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.json import JSON, JSONValue, digest_of
from trio_sagents.data.messages import Message, Part, TextPart, ThinkingPart, ToolResult
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

MAX_COUNT: Final = 2**52
"""Epochs and revisions below it leave room to count on."""
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
    _writes: dict[Write, None] = attrs.field(factory=dict)
    """Submitted, and not ended."""
    _promised: int = 0
    """Bytes that they add to `size`."""
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
                self.ids.add(made)
                return made

    def id_source(self) -> Iterator[str]:
        """Return an endless source of new ids."""
        while True:
            yield self.new_id()

    # ── loading

    def restore(self, stored: Conversation) -> None:
        """Take in what the store has. StateError where it cannot be used; nothing was changed in the store."""
        known = self.conversation_id
        if not (0 <= stored.epoch < MAX_COUNT and 0 <= stored.revision < MAX_COUNT):
            raise StateError(known, f"its epoch and revision are {stored.epoch} and {stored.revision}")
        self.epoch, self._revision, self._committed = stored.epoch, stored.revision, stored.revision
        self._measure(stored)
        self.messages = [decode_message(known, record) for record in stored.messages]
        for record in stored.queue:
            message = decode_message(known, record)
            if message.role != "user" or message.message_id in self.queue:
                raise StateError(known, f"{message.message_id!r} cannot wait in the queue")
            self.queue[message.message_id] = message
        self.message_ids = {message.message_id: message.digest for message in (*self.messages, *self.queue.values()) if message.digest}
        self.message_ids.update(stored.message_ids)
        self.ids = {message.message_id for message in (*self.messages, *self.queue.values())} | set(self.message_ids)
        _check_history(known, (*self.messages, *self.queue.values()))
        self.ids.update(call.call_id for message in self.messages for call in message.calls)
        unknown = set(stored.state) - {"todos", "metadata", "interrupt", "draft"}
        if unknown:
            raise StateError(known, f"the state has unknown keys: {', '.join(sorted(unknown))}")
        self.todos = decode_todos(known, stored.state.get("todos", []))
        if len({todo.id for todo in self.todos}) != len(self.todos) or any(todo.id < 1 for todo in self.todos):
            raise StateError(known, "the ids of the todos are not distinct and positive")
        self.metadata = decode_metadata(known, stored.state.get("metadata", {}))
        self.interrupt = decode_interrupt(known, stored.state.get("interrupt"))
        draft = stored.state.get("draft")
        self.draft = None if draft is None else decode_message(known, draft)
        if self.draft is not None and self.draft.role != "assistant":
            raise StateError(known, f"the draft is of the role {self.draft.role!r}")
        self.is_restored = True

    def _measure(self, stored: Conversation) -> None:
        self.size = sum(_size(record) for record in (*stored.messages, *stored.queue))
        whole = self.size + _size(dict(stored.state))
        # What closes a turn at the limit is kept all the same, so a little more than the limit must load again.
        if whole > self.max_bytes + self.slack_bytes:
            raise StateError(self.conversation_id, f"it has {whole} bytes, max_state_bytes is {self.max_bytes}")

    def seed(self, messages: Sequence[Message], todos: Sequence[Todo], metadata: JSON) -> None:
        """Begin a fresh conversation with this; nothing is stored before the first commit.

        Raises:
            ValueError: it could not be loaded again, or no provider would take it.
        """
        try:
            for message in messages:
                decode_message(self.conversation_id, encode_message(message))
            decode_todos(self.conversation_id, [encode_todo(todo) for todo in todos])
            unanswered = _check_history(self.conversation_id, messages)
        except StateError as exc:
            raise ValueError(f"fresh_state_attrs cannot be used: {exc.why}") from exc
        if unanswered:
            raise ValueError(f"fresh_state_attrs['messages'] leaves the tool call {unanswered[0]!r} unanswered")
        self._seed = tuple(messages)
        self.messages = list(messages)
        self.ids = {message.message_id for message in messages}
        self.todos = tuple(todos)
        self.metadata = metadata
        self.size = sum(_size(encode_message(message)) for message in messages)
        if self.size > self.max_bytes:
            raise LimitExceeded("max_state_bytes", self.size, most=self.max_bytes)

    def closing(self) -> Sequence[Message]:
        """Return what closes the history where a crash or a failed write cut it; empty where it is whole."""
        if self.interrupt is not None:
            return ()
        return self.fitted(close_after_crash(self.messages, self.draft, self.id_source()))

    def state(self) -> State:
        """Return the last committed state."""
        return State(self.messages, self.todos, self.metadata)

    # ── writing

    def check_room(self, message: Message) -> None:
        """Raise LimitExceeded where the state would grow over `max_state_bytes`."""
        size = self.size + self._promised + _size(encode_message(message))
        if size > self.max_bytes:
            raise LimitExceeded("max_state_bytes", size, most=self.max_bytes)

    def fitted(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return what closes a turn, its texts cut where the state would grow over what can be loaded again."""
        room = self.max_bytes + self.slack_bytes - self.size
        fitted: list[Message] = []
        for index, message in enumerate(messages):
            share = max(room // (len(messages) - index), 0)
            cut = _cut_to(message, share)
            room -= _size(encode_message(cut))
            fitted.append(cut)
        return fitted

    def submit(self, change: Change, then: Callable[[Saved | None, PersistenceError | None], None]) -> Write:
        """Submit a change behind all earlier ones. `then` runs in the writer, after memory has changed."""
        commit = self._commit(change)
        added = {message.message_id for message in (*change.messages, *change.queued)} - self.ids
        added.update(call.call_id for message in change.messages for call in message.calls)
        self.ids |= added
        grown = sum(_size(encode_message(message)) for message in (*change.messages, *change.queued))
        self._revision += 1
        self._promised += grown

        def finish(saved: Saved | None, error: PersistenceError | None) -> None:
            self._writes.pop(write, None)
            self._promised -= grown
            if error is None:
                self._committed = commit.revision
                self._apply(change, commit)
            else:
                self._revision = self._committed
                self.ids -= added
            then(saved, error)
            if not self._writes and self._rest is not None:
                self._rest.set()
                self._rest = None

        write = Write(self.scope, commit, change.shown, finish)
        self._writes[write] = None
        return self.writer.submit(write)

    def abandon(self) -> None:
        """The agent ends, and the store has not answered: whoever waits for a write learns that nobody knows."""
        for write in tuple(self._writes):
            write.give_up(
                PersistenceError(
                    f"the store did not answer for conversation {self.conversation_id!r} before its agent ended: what was posted may "
                    "be stored, or not; post it again with the same message_id"
                )
            )

    @property
    def is_at_rest(self) -> bool:
        """Whether no write is pending."""
        return not self._writes

    async def wait_at_rest(self) -> None:
        """Wait until no write is pending."""
        while self._writes:
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


def _cut_to(message: Message, most: int) -> Message:
    """Return the message with its texts halved until it has at most `most` bytes, as stored, or none to cut."""
    while _size(encode_message(message)) > most and any(_text_of(part) for part in message.parts):
        message = attrs.evolve(message, parts=tuple(_halved(part) for part in message.parts))
    return message


def _text_of(part: Part) -> str:
    match part:
        case TextPart(text=text) | ThinkingPart(text=text):
            return text
        case ToolResult(content=content):
            return content
        case _:
            return ""


def _halved(part: Part) -> Part:
    text = _text_of(part)
    if not text:
        return part
    half = text[: len(text) // 2]
    match part:
        case ToolResult():
            return attrs.evolve(part, content=half)
        case TextPart() | ThinkingPart():
            return attrs.evolve(part, text=half)
        case _:
            return part


def _size(record: JSONValue) -> int:
    return len(dumps(record).encode())


def _check_history(conversation_id: str, messages: Sequence[Message]) -> Sequence[str]:
    """Refuse a history in which an id stands twice, or a result answers no call: it cannot be ours. Return the open calls' ids."""
    ids: set[str] = set()
    calls: dict[str, bool] = {}
    for message in messages:
        if message.message_id in ids:
            raise StateError(conversation_id, f"the message id {message.message_id!r} stands twice")
        ids.add(message.message_id)
        if not 0 < len(message.message_id.encode()) <= MAX_ID_BYTES:
            raise StateError(conversation_id, f"a message id has {len(message.message_id.encode())} bytes")
        if message.role != "assistant" and message.calls:
            raise StateError(conversation_id, f"the {message.role} message {message.message_id!r} asks for a tool")
        for call in message.calls:
            if call.call_id in calls:
                raise StateError(conversation_id, f"the call id {call.call_id!r} stands twice")
            calls[call.call_id] = False
        for result in message.results:
            if calls.get(result.call_id) is not False:
                raise StateError(conversation_id, f"a result answers the call {result.call_id!r}, which is not open")
            calls[result.call_id] = True
    return tuple(call_id for call_id, is_answered in calls.items() if not is_answered)
