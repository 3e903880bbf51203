"""The first word to a subscriber, and the last."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trio_sagents.broadcast import Feed, Subscription
from trio_sagents.data.cursors import Channel, Cursor
from trio_sagents.data.events import AgentShutdown, Snapshot
from trio_sagents.data.status import ShutdownReason, Status
from trio_sagents.supervisor._runtime import wall_clock

if TYPE_CHECKING:
    from trio_sagents.supervisor._live import LiveAgent


def enrol_waiting(live: "LiveAgent", waiting: tuple[Subscription, ...]) -> None:
    """Enrol whoever subscribed before the agent was there, and may see it."""
    access = live.runtime.access
    for subscription in waiting:
        if (access.is_synchronous or subscription.is_admitted) and access.sees(subscription.owner, live.entry.owner):
            subscription.enrol(live.feed(subscription.channel))
    if not access.is_synchronous:
        runtime = live.runtime
        for subscription in waiting:
            if subscription.state == "pending":
                runtime.admission.agent_came(subscription, live.feed(subscription.channel), runtime.enrol)


def snapshot_of(live: "LiveAgent", place: Cursor, replaces: Cursor | None) -> Snapshot:
    """Return the whole picture of an agent, now."""
    progress = live.turn.progress if live.turn is not None else None
    draft = progress.draft if progress is not None else None
    return Snapshot(
        live.status,
        live.ledger.interrupt,
        live.ledger.todos,
        None if draft is None else draft.picture(),
        () if progress is None else progress.pictures(),
        len(live.ledger.queue),
        place,
        replaces,
    )


def say_last_word(live: "LiveAgent", feeds: Mapping[Channel, Feed], reason: ShutdownReason) -> None:
    """Tell all that an agent has ended, and let them go."""
    interrupt = live.ledger.interrupt
    restorable = live.status is Status.INTERRUPTED and interrupt is not None and interrupt.restorable
    shutdown = AgentShutdown(reason, live.status, len(live.ledger.queue), restorable, live.last_activity_at, wall_clock())
    for channel, feed in feeds.items():
        live.publish(shutdown, channel)
        for subscription in tuple(feed.subscriptions):
            subscription.end()
