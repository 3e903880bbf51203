"""What is committed of one conversation, and the step that changes it.

A step is a value: what one commit changes, with the rows of the transcript and the events that follow from it. The state changes
in one place, `ConversationState.apply`, and only by a step that is durable. So memory always equals the last commit.
"""

import datetime
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import attrs

from trio_sagents.conversation.checkpoints import Cut
from trio_sagents.conversation.decided import as_run, changes_arguments, runs
from trio_sagents.conversation.ids import Ids
from trio_sagents.conversation.limits import Limits, message_bytes
from trio_sagents.conversation.unfinished import Unfinished
from trio_sagents.data.draft_wire import DraftPiece
from trio_sagents.data.events import Event
from trio_sagents.data.interrupt_wire import DECISIONS, encode_record
from trio_sagents.data.interrupts import DecisionRecord, Interrupt, copy_of, replaces
from trio_sagents.data.json import JSON
from trio_sagents.data.messages import Message, ToolCall, ToolResult, ToolStatus
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.records import DisplayMessage, Lifecycle, ToolUpdate
from trio_sagents.data.scopes import Scope
from trio_sagents.data.state import State
from trio_sagents.data.todos import Todo

OpenDecisions: TypeAlias = Mapping[str, Sequence[DecisionRecord]]
"""By the id of an open call: what was decided about the call, and about the calls of its sub-agent."""
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})  # type: ignore[explicit-any]  # an empty mapping of whatever type
"""Shared by all conversations, most of which have no decisions."""


class Unchanged:
    """The type of `UNCHANGED`."""


UNCHANGED: Final = Unchanged()
"""In a `Step`: leave this as it is. It stands where None is a value."""


def _copied(interrupt: Interrupt) -> Interrupt:
    return copy_of(interrupt)


@attrs.frozen
class Waiting:
    """A turn that waits for people."""

    interrupt: Interrupt = attrs.field(converter=_copied)
    """A copy of its own: the arguments of a call are a dict, which whoever was shown the interrupt may have changed."""
    suspended: JSON = attrs.field(default=NOTHING, repr=False)
    """By call id: the state of the sub-agents that wait in the interrupt."""
    used: Usage = attrs.field(factory=Usage)
    """What the turn has used so far."""


@attrs.frozen(kw_only=True)
class Step:
    """What one commit changes, and what follows from it."""

    lifecycle: Lifecycle
    actor: Scope = attrs.field(default=None, repr=False)
    """The scope of whoever caused the step."""
    messages: Sequence[Message] = ()
    """Appended to the history, in order."""
    begins: str | None = None
    """The id of the turn that begins with this step: its message goes into the history without waiting in the queue."""
    queued: Sequence[Message] = ()
    """Appended to the queue, in order."""
    taken: Sequence[str] = ()
    """Ids of the messages that leave the queue."""
    draft: Message | DraftPiece | Unchanged | None = UNCHANGED
    """The text so far of an answer that streams, or what it has grown by; None if there is no such answer any more."""
    waiting: Waiting | Unchanged | None = UNCHANGED
    decided: Sequence[DecisionRecord] = ()
    """Decisions that are new."""
    open_decisions: OpenDecisions | None = None
    """The decisions about calls that are open after this step; None leaves them as they are."""
    todos: Sequence[Todo] | None = None
    """The whole list; None leaves the list as it is."""
    metadata: JSON | None = None
    """Keys to set; None as a value removes the key. None leaves all keys as they are."""
    unfinished: Unfinished | None = None
    """What the mark of unfinished work says after this step; None leaves what it says."""
    covers: str | None = None
    """The id of the last message that a summary in this step covers: what is before need not be read any more."""
    shown: Sequence[Message] = ()
    """Messages that are new in the transcript; a host's own transcript is given these."""
    rows: Sequence[DisplayMessage] = ()
    """Rows of the transcript that are new or changed."""
    new_rows: Collection[str] = ()
    """The ids of those rows that show no message and are new; a row that shows no message and is not here replaces another."""
    tool_updates: Sequence[ToolUpdate] = ()
    """Steps in the life of tool calls, for a host's own transcript."""
    events: Sequence[Event] = ()
    """Published after the rows, in order, once the step is durable."""

    @property
    def message_ids(self) -> Mapping[str, str]:
        """The ids of the messages that are accepted with this step, each with the digest of its content."""
        accepted = self.messages if self.begins is not None else self.queued
        return {message.message_id: message.digest or "" for message in accepted}


@attrs.define(eq=False)
class ConversationState:
    """The last commit of one conversation, in memory. The journal owns it and is the only one that changes it."""

    messages: list[Message] = attrs.field(factory=list, repr=False)
    """The window of the history, oldest first."""
    queue: dict[str, Message] = attrs.field(factory=dict, repr=False)
    """Accepted messages that no turn has taken, by id, oldest first."""
    message_ids: dict[str, str] = attrs.field(factory=dict, repr=False)
    """Every message id ever accepted here that is in the window or the queue, with the digest of its content."""
    todos: Sequence[Todo] = ()
    metadata: JSON = attrs.field(factory=dict, repr=False)
    waiting: Waiting | None = None
    """The turn that waits for people."""
    decisions: Mapping[str, DecisionRecord] = attrs.field(default=NOTHING, repr=False)
    """By call id: the decisions that hold."""
    former_decisions: Mapping[tuple[str, str], DecisionRecord] = attrs.field(default=NOTHING, repr=False)  # pyright: ignore[reportAssignmentType]
    """By interrupt and call id: decisions that do not hold any more, because people were asked about the call again."""
    open_decisions: OpenDecisions = NOTHING
    draft: Message | None = None
    """The stored draft of an answer."""
    draft_pieces: int = 0
    """In how many pieces the draft is stored, beside its beginning, if the state was just loaded."""
    size: int = 0
    """Bytes of the messages in window and queue, as stored."""
    older: int = 0
    """How many messages are before the window, in the store alone."""
    is_restored: bool = False
    """Whether the state was loaded from a store."""
    unfinished: Unfinished | None = None
    """The mark of unfinished work, as stored; None if there is no mark."""
    has_former_keys: bool = False
    """Whether the stored state has keys under their former names, which the next commits remove."""

    @property
    def interrupt(self) -> Interrupt | None:
        """What waits for people: a copy, for whoever gets it may change the arguments in it."""
        return None if self.waiting is None else copy_of(self.waiting.interrupt)

    def apply(
        self,
        step: Step,
        metadata: JSON | None,
        grown: int,
        cut: Cut | None = None,
        unfinished: Unfinished | Unchanged | None = UNCHANGED,
    ) -> None:
        """Change the state by a step that is durable.

        Args:
            step: what was committed.
            metadata: all metadata as committed; None leaves them as they are.
            grown: bytes of the messages that the step brought, as stored.
            cut: what left the window with the step; None if nothing did.
            unfinished: the mark of unfinished work as committed.
        """
        if cut is not None:
            self._let_go(cut)
        self.messages.extend(step.messages)
        for message in step.queued:
            self.queue[message.message_id] = message
        self.message_ids.update(step.message_ids)
        for message_id in step.taken:
            self.size -= message_bytes((self.queue.pop(message_id),))
        self.size += grown
        if not isinstance(step.draft, Unchanged):
            self.draft = step.draft.message if isinstance(step.draft, DraftPiece) else step.draft
        if not isinstance(step.waiting, Unchanged):
            self.waiting = step.waiting
        if step.open_decisions is not None:
            self.open_decisions = step.open_decisions
        if step.decided:
            self.note_decisions(step.decided)
        if step.todos is not None:
            self.todos = tuple(step.todos)
        if metadata is not None:
            self.metadata = metadata
        if not isinstance(unfinished, Unchanged):
            self.unfinished = unfinished

    def _let_go(self, cut: Cut) -> None:
        """Leave the messages before the window to the store, with what was decided about their calls."""
        for message in self.messages[cut.first : cut.end]:
            self.message_ids.pop(message.message_id, None)
        del self.messages[cut.first : cut.end]
        self.older = cut.checkpoint.older
        self.size -= cut.size
        self.decisions = {call_id: record for call_id, record in self.decisions.items() if not cut.has_call(call_id)}
        self.former_decisions = {key: record for key, record in self.former_decisions.items() if not cut.has_call(key[1])}

    def note_decisions(self, records: Sequence[DecisionRecord]) -> None:
        """Note decisions, oldest first. If there are several about one call, the last holds."""
        holding, past = dict(self.decisions), dict(self.former_decisions)
        for record in records:
            earlier = holding.get(record.call_id)
            # A decision may be stored in two places: beside the result of its call, and still among those about open calls.
            is_holding = earlier is not None and earlier.interrupt_id == record.interrupt_id
            if is_holding or (record.interrupt_id, record.call_id) in past or not replaces(record, earlier):
                continue
            if earlier is not None:
                past[earlier.interrupt_id, earlier.call_id] = earlier
            holding[record.call_id] = record
        self.decisions, self.former_decisions = holding, past

    def decision_in(self, interrupt_id: str, call_id: str) -> DecisionRecord | None:
        """Return what was decided about a call in one interrupt."""
        holding = self.decisions.get(call_id)
        if holding is not None and holding.interrupt_id == interrupt_id:
            return holding
        return self.former_decisions.get((interrupt_id, call_id))

    def picture(self) -> State:
        """Return an immutable picture of the state."""
        return State(self.messages, self.todos, self.metadata, self.older)

    def messages_as_run(self) -> Sequence[Message]:
        """Return the history as the model is to read it: calls that a person edited have the arguments that they ran with."""
        if not any(changes_arguments(record) for record in self.decisions.values()):
            return tuple(self.messages)
        return tuple(self._as_run(message) if message.calls else message for message in self.messages)

    def _as_run(self, message: Message) -> Message:
        parts = [as_run(part, self.decisions.get(part.call_id)) if isinstance(part, ToolCall) else part for part in message.parts]
        return attrs.evolve(message, parts=parts)


@attrs.frozen
class Moment:
    """A conversation at one moment: what a rule looks at."""

    state: ConversationState
    """The last commit. A rule reads the state and never changes it."""
    ids: Ids
    """Where new ids come from."""
    limits: Limits
    now: datetime.datetime
    """The instant of rows and records; aware, in UTC."""


def with_decisions(messages: Sequence[Message], decided: OpenDecisions, inner: Mapping[str, ToolStatus] = NOTHING) -> Sequence[Message]:
    """Return tool messages with what was decided about their calls in the metadata: there the decisions are kept for ever.

    Args:
        messages: each has the result of a call.
        decided: what was decided, by the id of such a call.
        inner: by call id, how calls of sub-agents have ended, as far as that is known.
    """
    return tuple(_with_decisions(message, decided, inner) for message in messages) if decided else messages


def _ended(record: DecisionRecord, result: ToolResult, inner: Mapping[str, ToolStatus]) -> ToolStatus:
    """Return how the call of a record ended, when the call around it, or the call itself, has this result."""
    if record.call_id == result.call_id:
        return result.status
    if record.call_id in inner:
        return inner[record.call_id]
    return "unknown" if runs(record) else "completed" if record.kind == "answer" else "cancelled"


def _with_decisions(message: Message, decided: OpenDecisions, inner: Mapping[str, ToolStatus]) -> Message:
    records = [
        encode_record(attrs.evolve(record, outcome=_ended(record, result, inner)))
        for result in message.results
        for record in decided.get(result.call_id, ())
    ]
    return attrs.evolve(message, metadata={**message.metadata, DECISIONS: records}) if records else message
