"""Drafts: the partial answer of the model, stored while it streams, so that a crash loses at most the last part.

The text so far is kept at most every `draft_interval`, or every 4,096 characters, one write at a time. The timer runs from the first
character that no draft has, so a stream that pauses is kept, too.

A draft is stored as a piece: what came since the last one. It is stored whole only if there is none of this message, and if the last write
failed. So all drafts of an answer together write about its size.
"""

from typing import Final

import attrs
import trio

from trio_sagents._trio.timers import TICK, Timer, Timers
from trio_sagents.agent import Progress
from trio_sagents.conversation.state import Step
from trio_sagents.data.draft_wire import DraftPiece, growth
from trio_sagents.data.messages import Message
from trio_sagents.data.scopes import Scope
from trio_sagents.storage import PendingCommit
from trio_sagents.supervisor._journal import Journal

DRAFT_SIZE: Final = 4096
"""Characters of streamed text after which a draft is saved, however little time has passed."""


@attrs.define(eq=False)
class Drafter:
    """Keeps the message that a turn is speaking."""

    journal: Journal
    timers: Timers
    interval: float
    """Seconds between two drafts."""
    actor: Scope = attrs.field(repr=False)
    progress: Progress
    _timer: Timer | None = None
    _drafted: int = 0
    """Characters of the message that a draft has, or will have once its write is durable."""
    _write: PendingCommit | None = None
    _kept: Message | None = None
    """The draft that the last write stores; None if the next draft is stored whole."""

    def note(self) -> None:
        """The message has grown; or it is void, and what was kept of it must not come back after a crash."""
        draft = self.progress.draft
        if draft is None:
            self._void()
        elif draft.size - self._drafted >= DRAFT_SIZE:
            self._save()
        elif self._timer is None:
            self._arm()
        self._ask()

    def _ask(self) -> None:
        """Say when the next call of `note` is needed: with the next piece if no timer runs, otherwise when the size is due."""
        if self.progress.draft is not None:
            self.progress.draft.note_at = 0 if self._timer is None else self._drafted + DRAFT_SIZE

    def _void(self) -> None:
        was_kept = self._drafted > 0
        self.stop()
        if was_kept:
            # One order for all writes of a conversation: this write comes after the draft, and before the next step of the turn.
            self._write = self.journal.submit(Step(lifecycle="on_step", actor=self.actor, draft=None))

    def stop(self) -> None:
        """The message is whole, or cut: another write keeps it."""
        self._drafted = 0
        self._kept = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        # A timer may be late by a tick, and a draft is not: `draft_interval` is what a kill may cost.
        deadline = trio.current_time() + max(0.0, self.interval - TICK)
        self._timer = self.timers.call_at(deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        self._save()
        self._ask()

    def _save(self) -> None:
        draft = self.progress.draft
        if draft is None or draft.size == self._drafted:
            return
        if self._write is not None and not self._write.has_ended:
            # The store is slower than the model: the next draft is saved once this write has ended.
            if self._timer is None:
                self._arm()
            return
        message = draft.message("crashed")
        stored: Message | DraftPiece = message
        if self._kept is not None and self._continues(message):
            stored = growth(self._kept, message)
        self._drafted, self._kept = draft.size, message
        self._write = self.journal.submit(Step(lifecycle="on_step", actor=self.actor, draft=stored))

    def _continues(self, message: Message) -> bool:
        """Return whether the store has the last draft, and the draft is one of the same message."""
        is_stored = self._write is not None and self._write.error is None
        return is_stored and self._kept is not None and self._kept.message_id == message.message_id
