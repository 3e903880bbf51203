"""The idle clock: when an agent may leave by itself."""

import math
from typing import TYPE_CHECKING

import attrs
import trio

from trio_sagents._trio.timers import Timer
from trio_sagents.data.status import ShutdownReason, Status

if TYPE_CHECKING:
    from trio_sagents.supervisor._live import LiveAgent


@attrs.define(eq=False)
class IdleClock:
    """What counts is the last activity, and whether anybody watches; a timer only says when to look again."""

    viewers: int = 0
    had_viewer: bool = False
    """Whether anybody watched since the boot."""
    _viewers_left: float = -math.inf
    """When the last viewer left."""
    _timer: Timer | None = None
    # Invariant: due no later than the agent is, while it waits idle.

    def begin(self, viewers: int) -> None:
        """The agent is live, with so many viewers."""
        self.viewers = viewers
        self.had_viewer = viewers > 0

    def viewers_changed(self, live: "LiveAgent", viewers: int) -> None:
        """So many watch now."""
        if viewers and not self.viewers:
            self.had_viewer = True
        elif not viewers and self.viewers:
            self._viewers_left = trio.current_time()
        self.viewers = viewers
        if not viewers:
            self.arm(live)

    def reason_to_leave(self, live: "LiveAgent") -> ShutdownReason | None:
        """Return why an agent at rest leaves now; None where it stays."""
        now = trio.current_time()
        if self._viewers_due(live) <= now:
            return ShutdownReason.NO_VIEWERS
        return ShutdownReason.INACTIVITY if self._activity_due(live) <= now else None

    def arm(self, live: "LiveAgent") -> None:
        """Have the timer look no later than the agent is due. A later look is lazy: it finds out when it comes."""
        if live.turn is not None or live.is_receiving or not live.ledger.is_at_rest:
            return
        due = min(self._activity_due(live), self._viewers_due(live))
        if self._timer is not None:
            if self._timer.deadline <= due:
                return
            self._timer.cancel()
        self._timer = live.runtime.timers.call_at(due, live.look)

    def stop(self) -> None:
        """The agent ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _activity_due(self, live: "LiveAgent") -> float:
        return live.last_activity + live.blueprint.inactivity_timeout

    def _viewers_due(self, live: "LiveAgent") -> float:
        if self.viewers or not self.had_viewer or live.status is Status.INTERRUPTED:
            return math.inf
        return max(self._viewers_left, live.last_activity) + live.policy.viewer_grace

    def look(self, live: "LiveAgent") -> None:
        """Have the agent look whether it leaves, where it is due."""
        self._timer = None
        if min(self._activity_due(live), self._viewers_due(live)) > trio.current_time():
            self.arm(live)
        else:
            live.wake()  # it looks again itself, and arms again where it stays
