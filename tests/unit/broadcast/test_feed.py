"""The feed: the log of one conversation's events."""

from trio_sagents import (
    Snapshot,
    TurnStarted,
)
from trio_sagents.broadcast import Feed
from trio_sagents.data.cursors import Cursor


def test_feed_when_it_drops_old_events() -> None:
    """At any time the log reaches back as far as it says, so that a viewer who was away for less gets every event."""

    def snapshot(place: Cursor, replaces: Cursor | None) -> Snapshot:
        raise AssertionError("nobody asks for one")

    feed = Feed("a", "c", "incarnation", "main", 8, snapshot)
    for number in range(1, 100):
        feed.publish(TurnStarted(f"t{number}"))
        events = feed.since(max(0, number - 8))

        assert events is not None
        assert min(8, number) == len(events)
