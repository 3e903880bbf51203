"""One subscriber's place in the events of one conversation: enrolled once, ended once, and deaf when nobody reads any more."""

import datetime
import math
from typing import Any

import pytest
import trio

from trio_sagents.broadcast import Feed, Subscription
from trio_sagents.data.cursors import Cursor
from trio_sagents.data.events import AgentShutdown, Snapshot, TurnStarted
from trio_sagents.data.status import ShutdownReason, Status

NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


def feed_of(incarnation: str = "one") -> Feed:
    def snapshot(place: Cursor, replaces: Cursor | None) -> Snapshot:
        return Snapshot(Status.IDLE, None, (), None, (), 0, place, replaces)

    return Feed("agent", "c", incarnation, "main", 10, snapshot)


def subscription_of(announce: Any, place: Cursor | None = None) -> Subscription:
    return Subscription("c", "main", None, None, 10, 10_000, announce, place)


def kinds(envelopes: Any) -> list[str]:
    return [type(event).__name__ for event in events(envelopes)]


def events(envelopes: Any) -> list[Any]:
    return [envelope.event for envelope in envelopes]


@pytest.mark.parametrize("end", ["reading", "writing"])
async def test_publish_when_nobody_reads_any_more(end: str) -> None:
    """A mailbox that is gone at either end harms neither the feed nor the other readers, and is not told again."""
    send, receive = trio.open_memory_channel[Subscription](math.inf)
    told: list[Subscription] = []
    feed = feed_of()
    gone, other = subscription_of(send.send_nowait), subscription_of(told.append)
    for one in (gone, other):
        one.enrol(feed)
        one.take()
    told.clear()
    if end == "reading":
        receive.close()
    else:
        send.close()
    feed.publish(TurnStarted("t1"))

    assert (True, False) == (gone.is_closed, other.is_closed)
    assert [other] == told
    assert ["TurnStarted"] == kinds(other.take())
    feed.publish(TurnStarted("t2"))
    assert () == gone.take()
    assert [other, other] == told


def test_enrol_when_it_is_enrolled_or_closed() -> None:
    """Enrolled twice with one agent it gets one snapshot; one that was closed is enrolled with nobody."""
    told: list[Subscription] = []
    feed = feed_of()
    one, closed = subscription_of(told.append), subscription_of(told.append)
    one.enrol(feed)
    one.enrol(feed)
    closed.close()
    closed.enrol(feed)

    assert [one] == told == list(feed.subscriptions)
    assert ["Snapshot"] == kinds(one.take())
    assert ("subscribed", "pending") == (one.state, closed.state)


def test_enrol_when_nothing_came_since_its_cursor() -> None:
    """There is nothing to take at the very place that the reader has seen, and the next event is told."""
    told: list[Subscription] = []
    feed = feed_of()
    feed.publish(TurnStarted("t1"))
    one = subscription_of(told.append, feed.place)
    one.enrol(feed)
    assert [] == told
    feed.publish(TurnStarted("t2"))

    assert [one] == told
    assert ["t2"] == [event.turn_id for event in events(one.take())]


def test_take_when_there_is_nothing() -> None:
    """Whoever takes once more gets nothing, and stays where it was."""
    feed = feed_of()
    one = subscription_of(lambda _: None)
    one.enrol(feed)
    one.take()
    feed.publish(TurnStarted("t1"))
    one.take()
    place = one.place

    assert () == one.take()
    assert Cursor("one", "main", 1) == place == one.place


def test_end_when_all_was_taken() -> None:
    """Nobody is told of an end that has nothing to take; a second end does nothing."""
    told: list[Subscription] = []
    feed = feed_of()
    one = subscription_of(told.append)
    one.enrol(feed)
    one.take()
    told.clear()
    one.end()
    one.end()

    assert [] == told
    assert ("pending", ()) == (one.state, one.take())
    one.enrol(feed_of("two"))
    assert [one] == told
    (snapshot,) = events(one.take())
    assert Cursor("one", "main", 0) == snapshot.replaces


def test_end_when_something_is_left() -> None:
    """What was not taken is kept until it is, and told of once."""
    told: list[Subscription] = []
    feed = feed_of()
    one = subscription_of(told.append)
    one.enrol(feed)
    one.take()
    told.clear()
    feed.publish(TurnStarted("t1"))
    one.end()

    assert [one] == told
    assert ["TurnStarted"] == kinds(one.take())
    assert () == one.take()


def test_end_when_something_of_an_earlier_agent_is_left() -> None:
    """All that was left of the first agent is kept, and of those that came and went since only the last word of the last one."""
    one = subscription_of(lambda _: None)
    for incarnation in ("one", "two", "three"):
        feed = feed_of(incarnation)
        one.enrol(feed)
        feed.publish(TurnStarted("t"))
        feed.publish(AgentShutdown(ShutdownReason.STOPPED, Status.IDLE, 0, False, NOW, NOW))
        one.end()

    left = one.take()
    assert ["Snapshot", "TurnStarted", "AgentShutdown", "AgentShutdown"] == kinds(left)
    assert ["one", "one", "one", "three"] == [envelope.incarnation for envelope in left]
