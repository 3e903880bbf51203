"""What is submitted and not committed yet.

Steps are submitted without waiting for the earlier ones, so the next step builds on those that are on their way: on their
revision, on their metadata, and on the room that they take. A step that fails takes all of this back, for every step behind it
fails with it.
"""

from collections.abc import Sequence
from typing import Final

import attrs

from trio_sagents.conversation.checkpoints import Cut, Window, begins_turn, due
from trio_sagents.conversation.codec import FORMER_OPEN_DECISIONS, encode_step
from trio_sagents.conversation.history import is_cut
from trio_sagents.conversation.limits import Limits, message_bytes, size_of
from trio_sagents.conversation.state import UNCHANGED, ConversationState, Step, Unchanged
from trio_sagents.conversation.unfinished import UNFINISHED, Unfinished, encode_unfinished
from trio_sagents.data.draft_wire import DraftPiece
from trio_sagents.data.json import JSON
from trio_sagents.data.messages import Message
from trio_sagents.data.wire import encode_message, encode_todo

NO_STEP: Final = Step(lifecycle="on_step")


@attrs.frozen
class Encoded:
    """A step, as the store gets it."""

    revision: int
    """The revision that the step establishes."""
    messages: Sequence[JSON]
    queued: Sequence[JSON]
    state: JSON
    """The keys of the stored state that change."""
    metadata: JSON | None
    """All metadata as they are after the step; None if the step leaves them."""
    grown: int
    """Bytes of the step's messages."""
    cut: Cut | None = None
    """The messages that leave the window with the step."""

    unfinished: Unfinished | Unchanged | None = UNCHANGED
    """The mark of unfinished work after the step; `UNCHANGED` if the step leaves it."""
    pieces_removed: int | None = None
    """How many pieces of a draft the step removes; None unless it removes the draft or stores the draft whole."""

    @property
    def growth(self) -> int:
        """Bytes by which the step changes the size of the state."""
        return self.grown if self.cut is None else self.grown - self.cut.size


@attrs.frozen
class Work:
    """What says whether there is work left."""

    is_open: bool
    """Whether the history ends inside a turn."""
    waits: bool
    """Whether the conversation waits for people."""
    queued: int
    mark: Unfinished | None

    @classmethod
    def of(cls, state: ConversationState) -> "Work":
        """Return the work that a state has left."""
        return cls(is_cut(state.messages[-1:]), state.waiting is not None, len(state.queue), state.unfinished)

    def after(self, step: Step, *, marks: bool) -> "Work":
        """Return the work that is left after a step.

        Args:
            step: the step.
            marks: whether work is marked; a mark that is there is removed in any case when its work is done.
        """
        is_open = is_cut(step.messages[-1:]) if step.messages else self.is_open
        waits = self.waits if isinstance(step.waiting, Unchanged) else step.waiting is not None
        queued = self.queued + len(step.queued) - len(step.taken)
        is_done = waits or not (is_open or queued)
        mark = None if is_done else step.unfinished or self.mark or (Unfinished() if marks else None)
        return Work(is_open, waits, queued, mark)


@attrs.define(eq=False)
class Pending:
    """What is on its way to the store, of one conversation."""

    committed: int = 0
    """The revision of the last commit."""
    revision: int = 0
    # Invariant: the revision of the last step that was submitted and has not failed.
    size: int = 0
    """Bytes by which the pending steps grow the state."""
    is_cutting: bool = False
    """Whether a pending step moves the beginning of the window; then no other step does."""
    _draft_pieces: int = 0
    """How many pieces of a draft may be stored once all pending steps are committed. A step that fails leaves this too large, and then
    pieces are removed that are not there."""
    _metadata: JSON | None = None
    """The metadata as they are once all pending steps are committed; None if no pending step changes them."""
    _marks: bool = False
    """Whether work that is left is marked."""
    _work: Work | None = None
    """The work that is left once all pending steps are committed; None if no step is pending, or if nothing is marked."""
    _measured: tuple[Message, JSON, int] | None = None
    """The message that was measured last, its record, and the bytes of the record: a message is measured before its step is submitted."""
    _seed: Sequence[Message] = ()
    """The messages with which a fresh conversation begins: in memory from the start, stored by the first commit."""

    @classmethod
    def of(cls, state: ConversationState, revision: int, *, marks: bool = False) -> "Pending":
        """Return what is pending of a state that was just loaded or seeded: nothing but the seed.

        Args:
            state: as it was loaded.
            revision: of the last commit.
            marks: whether work that is left is marked.
        """
        seed = () if state.is_restored else tuple(state.messages)
        return cls(revision, revision, seed=seed, draft_pieces=state.draft_pieces, marks=marks)  # pyright: ignore[reportCallIssue]

    def size_of(self, message: Message) -> int:
        """Return the bytes of a message, as stored."""
        return self._record(message)[1]

    def _record(self, message: Message) -> tuple[JSON, int]:
        """Return a message as the store gets it, and its bytes; encoded once, although it is measured and then submitted."""
        if self._measured is None or self._measured[0] is not message:
            record = encode_message(message)
            self._measured = message, record, size_of(record)
        return self._measured[1:]

    def add(self, step: Step, state: ConversationState, limits: Limits, reserved: int = 0) -> Encoded:
        """Put a step behind the pending ones, and return what the store gets of it.

        Args:
            step: from a rule.
            state: the last commit.
            limits: the bounds of the state and of its window.
            reserved: bytes that are kept free for what waits for people.

        Raises:
            LimitExceeded: the metadata would grow too large; nothing was changed.
        """
        metadata = None if step.metadata is None else self._merged(step.metadata, state)
        records = [self._record(message) for message in (*step.messages, *step.queued)]
        grown = sum(size for _, size in records)
        more = grown if metadata is None else grown + size_of(metadata)
        cut = self.cut_for(state, limits, more + reserved, step)
        if metadata is not None:
            limits.check(state.size + self.size + more - (0 if cut is None else cut.size))
        changed = encode_step(step, metadata, self._draft_pieces)
        removed = self._draft_pieces if "draft" in changed else None
        if isinstance(step.draft, DraftPiece):
            self._draft_pieces += 1
        self._measured = None
        messages, queued = [record for record, _ in records[: len(step.messages)]], [record for record, _ in records[len(step.messages) :]]
        if not self.revision:
            messages = [*(encode_message(message) for message in self._seed), *messages]
            changed.setdefault("todos", [encode_todo(todo) for todo in state.todos])
            changed.setdefault("metadata", state.metadata)
        if state.has_former_keys and step.open_decisions is not None:
            changed[FORMER_OPEN_DECISIONS] = None
        if metadata is not None:
            self._metadata = metadata
        mark = self._mark_after(step, state)
        if not isinstance(mark, Unchanged):
            changed[UNFINISHED] = None if mark is None else encode_unfinished(mark)
        encoded = Encoded(self.revision + 1, messages, queued, changed, metadata, grown, cut, mark, removed)
        self.revision += 1
        self.size += encoded.growth
        self.is_cutting = self.is_cutting or cut is not None
        return encoded

    def _mark_after(self, step: Step, state: ConversationState) -> Unfinished | Unchanged | None:
        """Return the mark of unfinished work after a step; `UNCHANGED` if the step leaves it."""
        if not self._marks and state.unfinished is None:
            return UNCHANGED
        work = Work.of(state) if self._work is None else self._work
        self._work = work.after(step, marks=self._marks)
        return UNCHANGED if self._work.mark == work.mark else self._work.mark

    def cut_for(self, state: ConversationState, limits: Limits, more: int, step: Step = NO_STEP) -> Cut | None:
        """Return what leaves the window with a step that brings `more` bytes; None if nothing does.

        A fresh conversation has no window before its first commit, and one step at a time moves the beginning of the window.
        """
        if not self.committed or self.is_cutting:
            return None
        size = state.size + self.size + more
        if step.taken and size > limits.most_bytes:  # what leaves the queue with the step counts once
            size -= message_bytes([state.queue[message_id] for message_id in step.taken if message_id in state.queue])
        begins = begins_turn(state.messages, step.messages)
        return due(Window(state.messages, state.older, len(state.messages) + len(step.messages), size, begins), limits, step.covers)

    def freeable(self, state: ConversationState, limits: Limits) -> int:
        """Return the bytes of the messages that may leave the window with the next step."""
        cut = self.cut_for(state, attrs.evolve(limits, max_state_bytes=0), 1)
        return 0 if cut is None else cut.size

    def check_room(self, state: ConversationState, limits: Limits, more: int) -> None:
        """Raise LimitExceeded if the state cannot take `more` bytes, not even if older messages leave the window."""
        size = state.size + self.size + more
        if size > limits.max_state_bytes:
            cut = self.cut_for(state, limits, more)
            limits.check(size if cut is None else size - cut.size)

    def _merged(self, patch: JSON, state: ConversationState) -> JSON:
        # Built on what is submitted, not on what is committed: two steps that change other keys at once do not undo each other.
        now = state.metadata if self._metadata is None else self._metadata
        return {key: value for key, value in {**now, **patch}.items() if value is not None}

    def commit(self, encoded: Encoded) -> None:
        """A step is durable."""
        self.committed = encoded.revision
        self._end(encoded)
        if self.committed == self.revision:
            self._work = None
        if encoded.pieces_removed == self._draft_pieces:
            self._draft_pieces = 0

    def fail(self, encoded: Encoded) -> None:
        """A step was refused, and every step behind it is: the next one builds on the last commit."""
        self.revision = self.committed
        self._end(encoded)
        self._metadata = None
        self._work = None

    def _end(self, encoded: Encoded) -> None:
        self.size -= encoded.growth
        if encoded.cut is not None:
            self.is_cutting = False
