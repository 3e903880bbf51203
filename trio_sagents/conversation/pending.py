"""What is submitted and not committed yet.

Steps are submitted without waiting for the earlier ones, so the next step builds on those that are on their way: on their
revision, on their metadata, and on the room that they take. A step that fails takes all of this back, for every step behind it
fails with it.
"""

from collections.abc import Sequence

import attrs

from trio_sagents.conversation.codec import FORMER_OPEN_DECISIONS, encode_step
from trio_sagents.conversation.limits import Limits, message_bytes, size_of
from trio_sagents.conversation.state import ConversationState, Step
from trio_sagents.data.draft_wire import DraftPiece
from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import Message
from trio_sagents.data.wire import encode_message, encode_todo


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
    pieces_removed: int | None = None
    """How many pieces of a draft the step removes; None unless it removes the draft or stores the draft whole."""


@attrs.define(eq=False)
class Pending:
    """What is on its way to the store, of one conversation."""

    committed: int = 0
    """The revision of the last commit."""
    revision: int = 0
    # Invariant: the revision of the last step that was submitted and has not failed.
    size: int = 0
    """Bytes by which the pending steps grow the state."""
    _draft_pieces: int = 0
    """How many pieces of a draft may be stored once all pending steps are committed. A step that fails leaves this too large, and then
    pieces are removed that are not there."""
    _metadata: JSON | None = None
    """The metadata as they are once all pending steps are committed; None if no pending step changes them."""
    _seed: Sequence[Message] = ()
    """The messages with which a fresh conversation begins: in memory from the start, stored by the first commit."""

    @classmethod
    def of(cls, state: ConversationState, revision: int) -> "Pending":
        """Return what is pending of a state that was just loaded or seeded: nothing but the seed."""
        seed = () if state.is_restored else tuple(state.messages)
        return cls(revision, revision, seed=seed, draft_pieces=state.draft_pieces)  # pyright: ignore[reportCallIssue]

    def add(self, step: Step, state: ConversationState, limits: Limits) -> Encoded:
        """Put a step behind the pending ones, and return what the store gets of it.

        Raises:
            LimitExceeded: the metadata would grow too large; nothing was changed.
        """
        metadata = None if step.metadata is None else self._merged(step.metadata, state, limits)
        changed = encode_step(step, metadata, self._draft_pieces)
        removed = self._draft_pieces if "draft" in changed else None
        if isinstance(step.draft, DraftPiece):
            self._draft_pieces += 1
        messages = [encode_message(message) for message in step.messages]
        if not self.revision:
            messages = [*(encode_message(message) for message in self._seed), *messages]
            changed.setdefault("todos", [encode_todo(todo) for todo in state.todos])
            changed.setdefault("metadata", state.metadata)
        if state.has_former_keys and step.open_decisions is not None:
            changed[FORMER_OPEN_DECISIONS] = None
        if metadata is not None:
            self._metadata = metadata
        queued: list[JSONValue] = [encode_message(message) for message in step.queued]
        grown = message_bytes((*step.messages, *step.queued))
        self.revision += 1
        self.size += grown
        return Encoded(self.revision, messages, queued, changed, metadata, grown, removed)

    def _merged(self, patch: JSON, state: ConversationState, limits: Limits) -> JSON:
        # Built on what is submitted, not on what is committed: two steps that change other keys at once do not undo each other.
        now = state.metadata if self._metadata is None else self._metadata
        whole = {key: value for key, value in {**now, **patch}.items() if value is not None}
        limits.check(state.size + self.size + size_of(whole))
        return whole

    def commit(self, encoded: Encoded) -> None:
        """A step is durable."""
        self.committed = encoded.revision
        self.size -= encoded.grown
        if encoded.pieces_removed == self._draft_pieces:
            self._draft_pieces = 0

    def fail(self, encoded: Encoded) -> None:
        """A step was refused, and every step behind it is: the next one builds on the last commit."""
        self.revision = self.committed
        self.size -= encoded.grown
        self._metadata = None
