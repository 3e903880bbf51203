"""The feed: the log of one conversation's events."""

from trio_sagents import (
    Snapshot,
    StateRestored,
    Status,
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


def test_event_before_the_snapshot_when_a_reader_comes_back() -> None:
    """The place of the event is not a place to continue from: the snapshot that follows it has a number of its own."""

    def snapshot(place: Cursor, replaces: Cursor | None) -> Snapshot:
        return Snapshot(Status.IDLE, None, (), None, (), 0, place, replaces)

    feed = Feed("a", "c", "incarnation", "main", 8, snapshot)
    told = feed.publish_before_snapshot(StateRestored())
    first = feed.present(None)

    assert (1, 2, 2) == (told.seq, first.first_seq, first.seq)
    assert [None, None, ()] == [feed.since(place) for place in (0, told.seq, first.seq)]
    feed.publish(TurnStarted("t"))
    assert [None, [3]] == [events if events is None else [event.seq for event in events] for events in (feed.since(1), feed.since(2))]
