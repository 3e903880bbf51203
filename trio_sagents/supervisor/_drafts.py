"""Drafts: what a kill may cost of the answer that is being spoken.

The text so far is kept at most every `draft_interval`, or every 4,096 characters, one write at a time. The timer runs from the
first character that no draft has, so a stream that pauses is kept, too.
"""

from typing import TYPE_CHECKING, Final

import attrs
import trio

from trio_sagents._trio.timers import TICK, Timer
from trio_sagents.agent import Progress
from trio_sagents.data.records import Saved
from trio_sagents.exceptions import PersistenceError
from trio_sagents.storage import PendingCommit
from trio_sagents.supervisor._change import Change

if TYPE_CHECKING:
    from trio_sagents.data.scopes import Scope
    from trio_sagents.supervisor._live import LiveAgent

DRAFT_SIZE: Final = 4096
"""Characters of streamed text after which a draft is saved, however little time has passed."""


@attrs.define(eq=False)
class Drafter:
    """Keeps the message that a turn is speaking."""

    live: "LiveAgent" = attrs.field(repr=False)
    actor: "Scope" = attrs.field(repr=False)
    progress: Progress
    _timer: Timer | None = None
    _drafted: int = 0
    """Characters of the message that a draft has, or will have once its write lands."""
    _write: PendingCommit | None = None

    def note(self) -> None:
        """The message has grown; or it is void, and what was kept of it must not come back after a crash."""
        draft = self.progress.draft
        if draft is None:
            self._void()
        elif draft.size - self._drafted >= DRAFT_SIZE:
            self._save()
        elif self._timer is None:
            self._arm()

    def _void(self) -> None:
        was_kept = self._drafted > 0
        self.stop()
        if was_kept:
            # One order for all writes of a conversation: it lands behind the draft, and before whatever the turn keeps next.
            self._write = self.live.ledger.submit(Change(lifecycle="on_step", actor=self.actor, draft=None), self._landed)

    def stop(self) -> None:
        """The message is whole, or cut: another write keeps it."""
        self._drafted = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        # A timer may be late by a tick, and a draft is not: what it says is what a kill may cost.
        deadline = trio.current_time() + max(0.0, self.live.policy.draft_interval - TICK)
        self._timer = self.live.runtime.timers.call_at(deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        self._save()

    def _save(self) -> None:
        draft = self.progress.draft
        if draft is None or draft.size == self._drafted:
            return
        if self._write is not None and not self._write.has_ended:
            # The store is slower than the model: the next draft once this one has landed.
            if self._timer is None:
                self._arm()
            return
        self._drafted = draft.size
        change = Change(lifecycle="on_step", actor=self.actor, draft=draft.message("crashed"))
        self._write = self.live.ledger.submit(change, self._landed)

    def _landed(self, saved: Saved | None, error: PersistenceError | None) -> None:
        if error is not None:
            self.live.write_failed(error)
