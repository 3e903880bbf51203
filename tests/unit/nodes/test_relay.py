"""What a node is told of an agent here: events with numbers, and text that is cut where viewers go on."""

from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.broadcast import Feed
from trio_sagents.data.cursors import Cursor
from trio_sagents.data.events import Event, Snapshot, TextDelta, ThinkingDelta, TurnStarted
from trio_sagents.data.status import Status
from trio_sagents.nodes._relay import events_behind


def no_snapshot(place: Cursor, replaces: Cursor | None) -> Snapshot:
    return Snapshot(Status.IDLE, None, (), None, (), 0, place, replaces)


def feed_of(kinds: str) -> tuple[Feed, list[Event]]:
    """Return a feed with a delta for each letter, and the events; a capital letter is an event between them."""
    feed = Feed("a", "c", "i", "main", 1000, no_snapshot)
    events: list[Event] = []
    offset = 0
    for letter in kinds:
        if letter.isupper():
            events.append(TurnStarted(letter))
            feed.publish(events[-1])
        else:
            cls = TextDelta if letter < "m" else ThinkingDelta
            events.append(cls(letter, "m", 0, offset, "t"))
            offset += 1
            feed.publish_delta(cls, letter, "m", 0, offset - 1, "t")
    return feed, events


@given(kinds=st.text("abcxyzAB", max_size=30), places=st.lists(st.integers(0, 31), min_size=1, max_size=5))
def test_events_behind_places(kinds: str, places: list[int]) -> None:
    """All events behind the first place, in order and whole; each other place is between two of them."""
    feed, _ = feed_of(kinds)
    first, *others = sorted(places)
    found = events_behind(feed, (first, *others))
    if first > feed.seq:
        assert found is None
        return

    assert found is not None
    told = "".join(event.turn_id if isinstance(event, TurnStarted) else event.text for event in (each.event for each in found))  # type: ignore[union-attr]
    assert kinds[first:] == told
    ends = {first, *(each.seq for each in found)}
    assert {place for place in others if place <= feed.seq} <= ends
    assert [each.first_seq for each in found] == [first + 1, *(each.seq + 1 for each in found)][: len(found)]


def test_repeated_feed() -> None:
    """A feed that repeats another one has its numbers, and knows its places."""
    feed, _ = feed_of("abcAdef")
    copy = Feed("a", "c", "i", "main", 1000, no_snapshot, seq=2)
    for envelope in feed.since(2) or ():
        copy.republish(envelope.event, envelope.first_seq, envelope.seq)

    assert feed.since(3) == copy.since(3)
    assert feed.since(7) == copy.since(7) == ()
    assert copy.since(5) is None
    assert copy.since(1) is None
    assert 7 == copy.last_delta
    copy.republish(TextDelta("x", "m", 1, 0, "t", "narration"), 8, 9)
    (last,) = copy.since(7) or ()
    assert (8, 9, TextDelta("x", "m", 1, 0, "t", "narration")) == (last.first_seq, last.seq, last.event)
    assert 9 == copy.lone(TurnStarted("t")).seq
    copy.skip_to(20)
    assert copy.since(9) is None
    assert () == copy.since(20)
