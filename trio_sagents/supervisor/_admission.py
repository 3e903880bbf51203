"""Admission: which subscriptions may follow an agent, asked when an agent comes up, and again while the subscriptions are open.

With the synchronous default, `SameScope`, nobody is asked: owners are compared where a subscription is enrolled. Any other authorizer is
asked about a subscription

- once by `subscribe`, in the caller's task;
- once for each agent that comes up while the subscription waits, in a task of its own, so that a slow answer about one viewer keeps no
  other viewer waiting. The task belongs to the services, not to the agent: if the agent has ended before the answer, and the answer is
  yes, the viewer is told that it has missed this agent;
- at least every `SessionPolicy.reauthorize_interval`, by one task for all subscriptions. A right that was withdrawn ends the stream, and a
  right that was granted begins it. While there is no subscription the task sleeps without a deadline, and no subscription has a timer.

An authorizer that raises, or that does not answer within `ANSWER_TIMEOUT` seconds, has refused. The log says so, and the next round asks
again. So an outage of the authorizer interrupts the streams, and they continue where they were interrupted.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

import attrs
import trio

from trio_sagents._trio.groups import split
from trio_sagents.broadcast import Feed, Subscription
from trio_sagents.data.scopes import Action
from trio_sagents.supervisor._access import Access

log: Final = logging.getLogger("trio_sagents")
ANSWER_TIMEOUT: Final = 10.0
"""Seconds that the authorizer has for one answer about a viewer."""
PARALLEL: Final = 16
"""How many questions of one round the authorizer is asked at once."""


@attrs.define(eq=False)
class ViewerAdmission:
    """Asks the authorizer about viewers. Not used with an authorizer that is synchronous."""

    access: Access
    interval: float
    """Seconds from one round of questions to the next; math.inf disables the rounds."""
    services: trio.Nursery
    """The parent of the questions. It outlives the agents."""
    _asking: dict[Subscription, list[Feed]] = attrs.field(factory=dict)
    # Invariant: the subscriptions about which a task asks, because an agent came up; each with the feeds of the agents that came up since
    # the question began, in order.
    present: dict[Subscription, Callable[[bool], None]] = attrs.field(factory=dict)
    """By subscription whose reader is shown among the viewers: called with each answer whether the reader may watch; must not raise."""
    _woken: trio.Event | None = None

    async def may_see(self, subscription: Subscription) -> bool:
        """Ask whether the scope of a subscription may see its conversation on its channel. What the authorizer raises is raised."""
        action: Action = "debug" if subscription.channel == "debug" else "view"
        return await self.access.allows(subscription.scope, subscription.conversation_id, action)

    def wake(self) -> None:
        """Note that there is a subscription."""
        if self._woken is not None:
            self._woken.set()

    def agent_came(self, subscription: Subscription, feed: Feed | None, enrol: Callable[[Subscription], None]) -> None:
        """Ask about a subscription that waited for an agent, and enrol it if it may see the agent.

        Args:
            subscription: its owner is that of the agent, if owners are compared. It may be closed or enrolled meanwhile.
            feed: of the agent that came up; None if the agent runs on another node.
            enrol: enrols the subscription with the agent that is up when the answer comes, if there is one.
        """
        feeds = [] if feed is None else [feed]
        if subscription in self._asking:
            self._asking[subscription].extend(feeds)
        else:
            self._asking[subscription] = feeds
            self.services.start_soon(self._admit, subscription, enrol, name="authorize a viewer")

    async def _admit(self, subscription: Subscription, enrol: Callable[[Subscription], None]) -> None:
        try:
            is_allowed = await self._is_allowed(subscription)
        finally:
            feeds = self._asking.pop(subscription)
        # No checkpoint until the end: no agent can come or end between these steps.
        if subscription.is_closed:
            return
        self._note(subscription, is_allowed)
        if not is_allowed:
            return
        if subscription.state == "pending":
            for feed in feeds:
                if feed.shutdown():
                    subscription.miss(feed)
        _enrol(enrol, subscription)

    async def run(self, subscriptions: Mapping[str, Mapping[Subscription, None]], enrol: Callable[[Subscription], None]) -> None:
        """Ask again and again about each open subscription, until cancelled.

        Args:
            subscriptions: the open subscriptions by conversation. It is kept, and changes while this runs.
            enrol: as for `agent_came`.
        """
        while self.interval < math.inf:
            # No checkpoint from the look to the wait: a subscription that comes later wakes this task.
            if not subscriptions:
                self._woken = trio.Event()
                await self._woken.wait()
                self._woken = None
            due = trio.current_time() + self.interval
            while subscriptions:
                await trio.sleep_until(due)
                due = trio.current_time() + self.interval
                waiting = iter([subscription for table in subscriptions.values() for subscription in table])
                async with trio.open_nursery() as nursery:
                    for _ in range(PARALLEL):
                        nursery.start_soon(self._ask_about_each, waiting, enrol)

    async def _ask_about_each(self, waiting: Iterator[Subscription], enrol: Callable[[Subscription], None]) -> None:
        """Take one subscription after the other from an iterator that several tasks share."""
        for subscription in waiting:
            if subscription.is_closed or subscription in self._asking:
                continue
            is_allowed = await self._is_allowed(subscription)
            if subscription.is_closed:
                continue
            self._note(subscription, is_allowed)
            if is_allowed:
                _enrol(enrol, subscription)
            elif subscription.has_events:
                subscription.suspend()

    def _note(self, subscription: Subscription, is_allowed: bool) -> None:  # noqa: FBT001  # the answer of the authorizer
        changed = self.present.get(subscription)
        if changed is not None:
            changed(is_allowed)

    async def _is_allowed(self, subscription: Subscription) -> bool:
        """Ask, for a bounded time; whatever is not an answer is a refusal."""
        with trio.move_on_after(ANSWER_TIMEOUT):
            return await _contained(self.may_see, subscription)
        log.error(
            "the authorizer did not answer within %g s whether a viewer may see conversation %r; the viewer is refused until it answers",
            ANSWER_TIMEOUT,
            subscription.conversation_id,
        )
        return False


def _enrol(enrol: Callable[[Subscription], None], subscription: Subscription) -> None:
    """Enrol a subscription. The host's `agent_id_fun` runs for that; what it raises harms nobody else."""
    try:
        enrol(subscription)
    except Exception:  # the boundary to the host's `agent_id_fun`
        log.exception("agent_id_fun failed for a viewer of conversation %r; the viewer waits", subscription.conversation_id)


async def _contained(ask: Callable[[Subscription], Awaitable[bool]], subscription: Subscription) -> bool:
    """Ask; an authorizer that raises has refused this viewer, and harms nobody else."""
    try:
        return await ask(subscription)
    except BaseException as exc:  # noqa: ASYNC103, BLE001  # the boundary to the host's authorizer; what is not an error is raised below
        error, onward = split(exc)
    if error is not None:
        log.error(
            "the authorizer failed for a viewer of conversation %r; the viewer is refused until it answers",
            subscription.conversation_id,
            exc_info=error,
        )
    if onward is not None:
        raise onward
    return False
