"""The lifetime of an agent: who is there, what happened last, and when the agent may leave by itself.

What counts is the last activity, and whether anybody watches. A timer only says when to look again: when it is due it rings the
agent's bell, and the agent looks at what is there *now*, and closes in the same step if it is still due. Without that second look a
message was lost in 141 of 300 schedules. A deadline for each wait, instead of lazy timers, stalls the event loop for 103 ms at 100,000
agents.
"""

import datetime
import math
from collections.abc import Callable

import attrs
import trio

from trio_sagents._trio.timers import Timer, Timers
from trio_sagents.broadcast import Presence, Tracked
from trio_sagents.data.ids import AGENTS_TOPIC, conversation_topic
from trio_sagents.data.json import JSON
from trio_sagents.data.status import ShutdownReason, Status
from trio_sagents.supervisor._blueprint import Blueprint
from trio_sagents.supervisor._journal import Journal, wall_clock


@attrs.frozen
class Facts:
    """What decides when an agent at rest leaves. Times are Trio clock times, durations seconds."""

    last_activity: float
    viewers: int
    had_viewer: bool
    """Whether anybody watched since the boot."""
    viewers_left: float
    """When the last viewer left."""
    is_interrupted: bool
    """Whether the conversation waits for people; then it does not leave for lack of viewers."""
    inactivity_timeout: float
    viewer_grace: float


def due(now: float, facts: Facts) -> float | ShutdownReason:
    """Return why an agent at rest leaves now, or when to look again; `math.inf` is never."""
    inactive_at = facts.last_activity + facts.inactivity_timeout
    unwatched_at = math.inf
    if facts.had_viewer and not facts.viewers and not facts.is_interrupted:
        unwatched_at = max(facts.viewers_left, facts.last_activity) + facts.viewer_grace
    if unwatched_at <= now:
        return ShutdownReason.NO_VIEWERS
    return ShutdownReason.INACTIVITY if inactive_at <= now else min(inactive_at, unwatched_at)


@attrs.define(eq=False)
class Lifetime:
    """The idle clock of one agent, and its entry in the presence of agents."""

    journal: Journal
    blueprint: Blueprint
    timers: Timers
    presence: Presence
    last_activity: float = attrs.field(factory=trio.current_time)
    started_at: datetime.datetime = attrs.field(factory=wall_clock)
    holds: int = 0
    """What is on its way to the agent (a message, a decision, a call of a hook); while there is any, the agent does not leave."""
    viewers: int = 0
    _had_viewer: bool = False
    _viewers_left: float = -math.inf
    _timer: Timer | None = None
    # Invariant: due no later than the agent is, while the agent waits at rest.
    _tracked: Tracked | None = None
    _forget_viewers: Callable[[], None] | None = None

    def begin(self, status: Status) -> None:
        """The agent is live: show it among the agents, and count its viewers."""
        identity = self.journal.identity
        self._tracked = self.presence.enter(AGENTS_TOPIC, identity.agent_id, _Shown(self, status))
        topic = conversation_topic(identity.conversation_id)
        self._forget_viewers = self.presence.watch_count(topic, self._viewers_changed)
        self.viewers = self.presence.count(topic)
        self._had_viewer = self.viewers > 0

    def end(self) -> None:
        """The agent has ended."""
        self._cancel_timer()
        if self._tracked is not None:
            self._tracked.leave()
        if self._forget_viewers is not None:
            self._forget_viewers()
        self._tracked = self._forget_viewers = None

    def show(self, status: Status) -> None:
        """Show another status among the agents."""
        if self._tracked is not None:
            self._tracked.update(_Shown(self, status))

    @property
    def last_activity_at(self) -> datetime.datetime:
        """The instant of the last activity."""
        return wall_clock() - datetime.timedelta(seconds=trio.current_time() - self.last_activity)

    def touch(self) -> None:
        """Renew the idle clock. An assignment: the timer looks at it when it is due."""
        self.last_activity = trio.current_time()

    def due(self) -> float | ShutdownReason:
        """Return why the agent, at rest, leaves now, or when to look again."""
        facts = Facts(
            self.last_activity,
            self.viewers,
            self._had_viewer,
            self._viewers_left,
            self.journal.state.waiting is not None,
            self.blueprint.inactivity_timeout,
            self.blueprint.policy.viewer_grace,
        )
        return due(trio.current_time(), facts)

    def arm(self) -> None:
        """Have the timer look no later than the agent is due. A later look is lazy: it finds out when it comes."""
        at = self.due()
        if not isinstance(at, float):
            at = trio.current_time()
        if self._timer is not None:
            if self._timer.deadline <= at:
                return
            self._timer.cancel()
        self._timer = self.timers.call_at(at, self._look)

    def _look(self) -> None:
        self._timer = None
        if isinstance(self.due(), float):
            self.arm()
        else:
            self.journal.bell.ring()  # the agent looks again itself, and arms again if it stays

    def _viewers_changed(self, viewers: int) -> None:
        if viewers and not self.viewers:
            self._had_viewer = True
        elif not viewers and self.viewers:
            self._viewers_left = trio.current_time()
        self.viewers = viewers
        if not viewers:
            self.arm()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Shown:
    """What the presence of agents says of an agent: the status that was shown last, and the rest when somebody reads it."""

    __slots__ = ("lifetime", "status")

    def __init__(self, lifetime: Lifetime, status: Status) -> None:
        self.lifetime = lifetime
        self.status = status

    def __call__(self) -> JSON:
        return {
            "status": self.status.value,
            "conversation_id": self.lifetime.journal.identity.conversation_id,
            "last_activity_at": self.lifetime.last_activity_at.isoformat(),
        }
