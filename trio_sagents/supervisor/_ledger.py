"""The books of one live conversation: what is committed, and the one order in which more is submitted.

Memory changes only in the writer's continuation, so it is always equal to the last commit; a failed write changes nothing,
and the next one builds on what is stored. One ledger belongs to one agent, and dies with it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import attrs
import trio

from trio_sagents.agent import as_run, changes_arguments
from trio_sagents.data.history import close_after_crash
from trio_sagents.data.interrupt_wire import (
    DECISIONS,
    decode_interrupt,
    decode_records,
    encode_interrupt,
    encode_record,
    records_of,
    waiting_in,
)
from trio_sagents.data.interrupts import DecisionRecord, Interrupt, copy_of, replaces
from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import Message, ToolCall
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.records import Commit, Conversation, Owner, Saved
from trio_sagents.data.scopes import Scope
from trio_sagents.data.state import State
from trio_sagents.data.todos import Todo
from trio_sagents.data.validity import check_draft, check_history, check_interrupt
from trio_sagents.data.wire import decode_message, decode_metadata, decode_todos, encode_message, encode_todo
from trio_sagents.exceptions import LimitExceeded, PersistenceError, StateError
from trio_sagents.storage import CommitQueue, PendingCommit
from trio_sagents.supervisor._change import NO_CHANGE, NOTHING, Change, Taken
from trio_sagents.supervisor._ledger_checks import RowTransform, cut_to, size_of, transformed

MAX_COUNT: Final = 2**52
"""Epochs and revisions below it leave room to count on."""


@attrs.define(eq=False)
class Ledger:
    """One conversation in memory."""

    conversation_id: str
    agent_id: str
    scope: Scope = attrs.field(repr=False)
    """The agent's: what the store gets."""
    owner: Owner
    incarnation: str
    writer: CommitQueue
    max_bytes: int
    slack_bytes: int
    """By how much the closing of one turn may exceed `max_bytes`."""
    epoch: int = 1
    messages: list[Message] = attrs.field(factory=list, repr=False)
    """The history, oldest first."""
    queue: dict[str, Message] = attrs.field(factory=dict, repr=False)
    """Accepted messages that no turn has taken, by id, oldest first."""
    message_ids: dict[str, str] = attrs.field(factory=dict, repr=False)
    """Every message id ever accepted here, with the digest of its content."""
    ids: set[str] = attrs.field(factory=set, repr=False)
    """The ids of all messages and tool calls, also of those on their way to the store: a new one must not be among them."""
    todos: Sequence[Todo] = ()
    metadata: JSON = attrs.field(factory=dict, repr=False)
    _interrupt: Interrupt | None = None
    suspended: JSON = attrs.field(default=NOTHING, repr=False)
    """By call id: the sub-agents that wait in the interrupt, or are about to go on."""
    used: Usage = attrs.field(factory=Usage)
    """What the turn that waits in the interrupt has used."""
    decisions: Mapping[str, DecisionRecord] = attrs.field(default=NOTHING, repr=False)
    """By call id: every decision ever taken here."""
    superseded_decisions: Mapping[tuple[str, str], DecisionRecord] = attrs.field(default=NOTHING, repr=False)
    """By interrupt and call id: decisions that do not hold any more, because people were asked about the call again."""
    taken: Taken = NOTHING
    draft: Message | None = None
    """The stored draft of an answer."""
    transforms: Sequence[tuple[str, RowTransform]] = ()
    """By middleware id, outermost first: what becomes of a row before it is kept and shown."""
    is_restored: bool = False
    size: int = 0
    """Bytes of the messages, as stored."""
    _revision: int = 0
    # Invariant: the revision of the last write that was submitted and has not failed.
    _committed: int = 0
    _writes: dict[PendingCommit, None] = attrs.field(factory=dict)
    """Submitted, and not ended."""
    _promised: int = 0
    """Bytes that they add to `size`."""
    _rest: trio.Event | None = None
    """Set when no write is pending, where somebody waits for that."""
    _made: int = 0
    """Ids made so far."""
    _handed: set[str] = attrs.field(factory=set, repr=False)
    """New ids that nothing has yet."""
    _coming: JSON | None = None
    """The metadata as they are once all that was submitted is committed; None where they are as committed."""
    _seed: Sequence[Message] = ()
    """What a fresh conversation begins with: in memory from the start, stored by the first commit."""

    @property
    def interrupt(self) -> Interrupt | None:
        """What waits for people: a copy, for it is handed out, and the arguments of a call are a dict."""
        return None if self._interrupt is None else copy_of(self._interrupt)

    @interrupt.setter
    def interrupt(self, value: Interrupt | None) -> None:
        self._interrupt = None if value is None else copy_of(value)

    # ── ids

    def new_id(self) -> str:
        """Return an id that nothing in this conversation has."""
        while True:
            self._made += 1
            made = f"{self.incarnation}-{self._made}"
            if made not in self.ids:  # a caller may have guessed it, and used it
                self.ids.add(made)
                self._handed.add(made)
                return made

    def is_used(self, made: str) -> bool:
        """Return whether a message or a call has this id, on record or on its way there."""
        return made in self.ids and made not in self._handed

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
        self.messages = [decode_message(known, record) for record in stored.messages]
        queue = [decode_message(known, record) for record in stored.queue]
        open_ids = check_history(known, self.messages, queue)
        self.queue = {message.message_id: message for message in queue}
        self.message_ids = {message.message_id: message.digest for message in (*self.messages, *queue) if message.digest}
        self.message_ids.update(stored.message_ids)
        self.ids = {message.message_id for message in (*self.messages, *queue)} | set(self.message_ids)
        self.ids.update(call.call_id for message in self.messages for call in message.calls)
        self._restore_state(stored, open_ids)
        self._measure(stored)
        self.is_restored = True

    def _restore_state(self, stored: Conversation, open_ids: Sequence[str]) -> None:
        known, state = self.conversation_id, stored.state
        unknown = set(state) - {"todos", "metadata", "interrupt", "draft", "taken"}
        if unknown:
            raise StateError(known, f"the state has unknown keys: {', '.join(sorted(map(str, unknown)))}")
        self.todos = decode_todos(known, state.get("todos", []))
        if len({todo.id for todo in self.todos}) != len(self.todos) or any(todo.id < 1 for todo in self.todos):
            raise StateError(known, "the ids of the todos are not distinct and positive")
        self.metadata = decode_metadata(known, state.get("metadata", {}))
        draft = state.get("draft")
        self.draft = None if draft is None else decode_message(known, draft)
        check_draft(known, self.draft, self.ids)
        if self.draft is not None:
            self.ids.add(self.draft.message_id)
        self._restore_decisions(stored)
        nested = {call_id for record in self.suspended.values() for call_id in waiting_in(known, record)}
        check_interrupt(known, self.interrupt, self.messages, open_ids, nested)

    def _restore_decisions(self, stored: Conversation) -> None:
        known = self.conversation_id
        self.interrupt, self.suspended, self.used = decode_interrupt(known, stored.state.get("interrupt"))
        taken = stored.state.get("taken") or {}
        if not isinstance(taken, dict):
            raise StateError(known, f"the decisions are {type(taken).__name__}, not an object")
        self.taken = {call_id: decode_records(known, records) for call_id, records in taken.items()}
        records = [record for message in self.messages for record in records_of(known, message)]
        records += [record for some in self.taken.values() for record in some]
        if self.interrupt is not None:
            records += self.interrupt.decided
            self.ids.update(call.call_id for call in self.interrupt.calls)
        self.decisions = {}
        self.superseded_decisions = {}
        self._note_decisions(records)

    def _note_decisions(self, records: Sequence[DecisionRecord]) -> None:
        """Note decisions, oldest first. Of several about one call the last holds."""
        holding, past = dict(self.decisions), dict(self.superseded_decisions)
        for record in records:
            earlier = holding.get(record.call_id)
            if not replaces(record, earlier):
                continue
            if earlier is not None:
                past[earlier.interrupt_id, earlier.call_id] = earlier
            holding[record.call_id] = record
        self.decisions, self.superseded_decisions = holding, past

    def decision_in(self, interrupt_id: str, call_id: str) -> DecisionRecord | None:
        """Return what was decided about a call in one interrupt."""
        holding = self.decisions.get(call_id)
        if holding is not None and holding.interrupt_id == interrupt_id:
            return holding
        return self.superseded_decisions.get((interrupt_id, call_id))

    def waits_again(self, interrupt_id: str, call_id: str) -> bool:
        """Return whether people are asked about a call in this interrupt, which they may have decided about before."""
        interrupt = self._interrupt
        return interrupt is not None and interrupt.interrupt_id == interrupt_id and any(call.call_id == call_id for call in interrupt.calls)

    def _measure(self, stored: Conversation) -> None:
        self.size = sum(size_of(record) for record in (*stored.messages, *stored.queue))
        whole = self.size + size_of(dict(stored.state))
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
            unanswered = check_history(self.conversation_id, messages)
        except StateError as exc:
            raise ValueError(f"fresh_state_attrs cannot be used: {exc.why}") from exc
        if unanswered:
            raise ValueError(f"fresh_state_attrs['messages'] leaves the tool call {unanswered[0]!r} unanswered")
        self._seed = tuple(messages)
        self.messages = list(messages)
        self.ids = {message.message_id for message in messages}
        self.todos = tuple(todos)
        self.metadata = metadata
        self.size = sum(size_of(encode_message(message)) for message in messages)
        if self.size > self.max_bytes:
            raise LimitExceeded("max_state_bytes", self.size, most=self.max_bytes)

    def closing(self) -> Sequence[Message]:
        """Return what closes the history where a crash or a failed write cut it; empty where it is whole."""
        if self.interrupt is not None:
            return ()
        return self.with_decisions(self.fitted(close_after_crash(self.messages, self.draft, self.id_source(), self.taken)))

    def with_decisions(self, messages: Sequence[Message], taken: Taken | None = None) -> Sequence[Message]:
        """Return the messages, what was decided about their calls in the metadata of the results: there it is kept for ever."""
        taken = self.taken if taken is None else taken
        return tuple(_with_decisions(message, taken) for message in messages) if taken else messages

    def state(self) -> State:
        """Return the last committed state."""
        return State(self.messages, self.todos, self.metadata)

    def messages_as_run(self) -> Sequence[Message]:
        """Return the history as the model is to read it: calls that a person edited, with the arguments that they ran with."""
        if not any(changes_arguments(record) for record in self.decisions.values()):
            return tuple(self.messages)
        return tuple(self._as_run(message) if message.calls else message for message in self.messages)

    def _as_run(self, message: Message) -> Message:
        parts = [as_run(one, self.decisions.get(one.call_id)) if isinstance(one, ToolCall) else one for one in message.parts]
        return attrs.evolve(message, parts=parts)

    # ── writing

    def check_room(self, message: Message) -> None:
        """Raise LimitExceeded where the state would grow over `max_state_bytes`."""
        size = self.size + self._promised + size_of(encode_message(message))
        if size > self.max_bytes:
            raise LimitExceeded("max_state_bytes", size, most=self.max_bytes)

    def check_suspended(self, interrupt: Interrupt, suspended: JSON) -> None:
        """Raise LimitExceeded where the sub-agents that wait in an interrupt would make the state larger than can be loaded again."""
        size = self.size + self._promised + size_of(encode_interrupt(interrupt, suspended))
        if size > self.max_bytes:
            raise LimitExceeded("max_state_bytes", size, most=self.max_bytes)

    def fitted(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return what closes a turn, its texts cut where the state would grow over what can be loaded again."""
        room = self.max_bytes + self.slack_bytes - self.size
        fitted: list[Message] = []
        for index, message in enumerate(messages):
            share = max(room // (len(messages) - index), 0)
            cut = cut_to(message, share)
            room -= size_of(encode_message(cut))
            fitted.append(cut)
        return fitted

    def submit(self, change: Change, then: Callable[[Saved | None, PersistenceError | None], None]) -> PendingCommit:
        """Submit a change behind all earlier ones. `then` runs in the writer, after memory has changed."""
        commit = self._commit(change)
        added = {message.message_id for message in (*change.messages, *change.queued)} - self.ids
        added.update(call.call_id for message in change.messages for call in message.calls)
        self.ids |= added
        self._handed.difference_update(message.message_id for message in change.messages)
        self._handed.difference_update(call.call_id for message in change.messages for call in message.calls)
        grown = sum(size_of(encode_message(message)) for message in (*change.messages, *change.queued))
        self._revision += 1
        self._promised += grown

        def finish(saved: Saved | None, error: PersistenceError | None) -> None:
            self._writes.pop(write, None)
            self._promised -= grown
            if error is None:
                self._committed = commit.revision
                self._apply(change, commit, grown)
            else:
                self._revision = self._committed
                self._coming = None
                self.ids -= added
            then(self._as_shown(saved), error)
            if not self._writes and self._rest is not None:
                self._rest.set()
                self._rest = None

        write = PendingCommit(self.scope, commit, change.shown, finish)
        self._writes[write] = None
        return self.writer.submit(write)

    def _as_shown(self, saved: Saved | None) -> Saved | None:
        """Return what was saved as viewers are to see it; the rows of our own stores were transformed before."""
        if saved is None or not saved.by_host or not self.transforms:
            return saved
        return attrs.evolve(saved, new=transformed(saved.new, self.transforms), changed=transformed(saved.changed, self.transforms))

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
            interrupt = change.interrupt
            state["interrupt"] = None
            if isinstance(interrupt, Interrupt):
                state["interrupt"] = encode_interrupt(interrupt, change.suspended, change.used)
        if change.standing is not None:
            taken = {call_id: [encode_record(record) for record in records] for call_id, records in change.standing.items()}
            state["taken"] = taken or None
        if change.todos is not None:
            state["todos"] = [encode_todo(todo) for todo in change.todos]
        if change.metadata is not None:
            state["metadata"] = self._coming = self._patched(change.metadata)
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
            rows=transformed(change.rows, self.transforms) if self.transforms else change.rows,
            tool_updates=change.tool_updates,
        )

    def _patched(self, patch: JSON) -> JSON:
        # Built on what is submitted already, not on what is committed: two that change other keys at once do not undo each other.
        now = self.metadata if self._coming is None else self._coming
        whole = {key: value for key, value in {**now, **patch}.items() if value is not None}
        size = size_of(whole)
        if self.size + self._promised + size > self.max_bytes:
            raise LimitExceeded("max_state_bytes", self.size + self._promised + size, most=self.max_bytes)
        return whole

    def _apply(self, change: Change, commit: Commit, grown: int) -> None:
        self.messages.extend(change.messages)
        for message in change.queued:
            self.queue[message.message_id] = message
        for message_id in change.taken:
            self.size -= size_of(encode_message(self.queue.pop(message_id)))
        self.message_ids.update(change.new_ids)
        self.size += grown
        if change.draft is not NO_CHANGE:
            self.draft = change.draft if isinstance(change.draft, Message) else None
        if change.interrupt is not NO_CHANGE:
            self.interrupt = change.interrupt if isinstance(change.interrupt, Interrupt) else None
            self.suspended, self.used = change.suspended, change.used
        if change.standing is not None:
            self.taken = change.standing
        if change.decided:
            self._note_decisions(change.decided)
        if change.todos is not None:
            self.todos = tuple(change.todos)
        if change.metadata is not None:
            self.metadata = commit.state["metadata"]


def _with_decisions(message: Message, taken: Taken) -> Message:
    records = [encode_record(record) for result in message.results for record in taken.get(result.call_id, ())]
    return attrs.evolve(message, metadata={**message.metadata, DECISIONS: records}) if records else message
