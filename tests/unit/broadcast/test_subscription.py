"""A subscriber's place in the events of one conversation: it is enrolled once, ends once, and takes nothing when nobody reads any more."""

import datetime
import math
from typing import Any

import pytest
import trio

from trio_sagents.broadcast import Feed, Mailbox, Subscription
from trio_sagents.data.cursors import Cursor
from trio_sagents.data.events import AgentShutdown, Snapshot, StateRestored, TextDelta, TurnStarted
from trio_sagents.data.status import ShutdownReason, Status

NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


def feed_of(incarnation: str = "one") -> Feed:
    def snapshot(place: Cursor, replaces: Cursor | None) -> Snapshot:
        return Snapshot(Status.IDLE, None, (), None, (), 0, place, replaces)

    return Feed("agent", "c", incarnation, "main", 10, snapshot)


def subscription_of(announce: Any, place: Cursor | None = None) -> Subscription:
    return Subscription("c", "main", None, None, 10, 10_000, Mailbox(announce), place)


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
    for subscription in (gone, other):
        subscription.enrol(feed)
        subscription.take()
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
    """A subscription that is enrolled twice with one agent gets one snapshot. A closed subscription is not enrolled."""
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
    """A second take gives nothing, and the place does not move."""
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
    """A subscription whose events were all taken is not woken by the end; a second end does nothing."""
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
    """Events that were not taken are kept until they are taken, and announced once."""
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


SHUTDOWN = AgentShutdown(ShutdownReason.STOPPED, Status.IDLE, 0, False, NOW, NOW)


def live_and_end(one: Subscription, incarnation: str, turns: int = 1) -> None:
    """Have an agent come up, publish some events, and end, with the subscription enrolled."""
    feed = feed_of(incarnation)
    one.enrol(feed)
    for number in range(turns):
        feed.publish(TurnStarted(f"t{number}"))
    feed.publish(SHUTDOWN)
    one.end()


def places(envelopes: Any) -> list[tuple[str, str, int, int]]:
    return [(envelope.incarnation, type(envelope.event).__name__, envelope.first_seq, envelope.seq) for envelope in envelopes]


def test_end_when_something_of_an_earlier_agent_is_left() -> None:
    """A reader that is away gets all events of all the agents that came and went, as long as they are within the bounds."""
    one = subscription_of(lambda _: None)
    for incarnation in ("one", "two", "three"):
        live_and_end(one, incarnation)

    left = one.take()
    assert ["Snapshot", "TurnStarted", "AgentShutdown"] * 3 == kinds(left)
    assert ["one"] * 3 + ["two"] * 3 + ["three"] * 3 == [envelope.incarnation for envelope in left]
    assert [None, Cursor("one", "main", 2), Cursor("two", "main", 2)] == [event.replaces for event in events(left)[::3]]


def test_end_when_the_backlog_is_full() -> None:
    """Beyond the bound each ended agent is told in two events: a gap that names what is missing, and its end."""
    one = subscription_of(lambda _: None)
    live_and_end(one, "one", turns=4)
    live_and_end(one, "two", turns=8)
    live_and_end(one, "three", turns=0)

    left = one.take()
    assert [
        ("one", "Gap", 1, 4),
        ("one", "AgentShutdown", 5, 5),
        ("two", "Gap", 1, 8),
        ("two", "AgentShutdown", 9, 9),
        ("three", "Snapshot", 0, 0),
        ("three", "AgentShutdown", 1, 1),
    ] == places(left)
    assert [(1, 4, None), (1, 8, Cursor("one", "main", 5))] == [(event.first, event.last, event.replaces) for event in events(left)[:3:2]]
    assert Cursor("two", "main", 9) == events(left)[4].replaces


def test_end_when_the_backlog_is_full_and_a_part_was_given() -> None:
    """The gap begins behind what the reader has, and replaces nothing: its agent is the one that the reader knows."""
    one = subscription_of(lambda _: None)
    feed = feed_of("one")
    one.enrol(feed)
    feed.publish(TurnStarted("t1"))
    one.take()
    for _ in range(9):
        feed.publish(TurnStarted("t"))
    feed.publish(SHUTDOWN)
    one.end()
    live_and_end(one, "two")

    assert [("one", "Gap", 2, 10), ("one", "AgentShutdown", 11, 11), ("two", "Gap", 1, 1), ("two", "AgentShutdown", 2, 2)] == places(
        left := one.take()
    )
    assert [None, Cursor("one", "main", 11)] == [event.replaces for event in events(left)[::2]]


def test_end_when_the_first_snapshot_was_not_taken_either() -> None:
    """An agent with more events than the bound, none of them taken, is told by a gap over all of them, not by its end alone."""
    one = subscription_of(lambda _: None, Cursor("zero", "main", 7))
    live_and_end(one, "one", turns=20)

    assert [("one", "Gap", 1, 20), ("one", "AgentShutdown", 21, 21)] == places(left := one.take())
    assert Cursor("zero", "main", 7) == events(left)[0].replaces


def test_end_when_even_the_notices_are_too_many() -> None:
    """The backlog stays bounded: what was dropped in the middle is told by the gap behind it, which replaces the place before it."""
    one = subscription_of(lambda _: None)
    for number in range(40):
        live_and_end(one, f"agent-{number}")

    left = one.take()
    assert 10 == len(left)
    assert ["Gap", "AgentShutdown"] * 5 == kinds(left)
    assert ["agent-0", "agent-36", "agent-37", "agent-38", "agent-39"] == [envelope.incarnation for envelope in left[::2]]
    assert [None, *(envelope.cursor for envelope in left[1:-1:2])] == [event.replaces for event in events(left)[::2]]


def test_end_when_agents_that_did_nothing_are_too_many() -> None:
    """An agent that did nothing is told by its snapshot and its end; among too many of them the same are dropped."""
    one = subscription_of(lambda _: None)
    for number in range(40):
        live_and_end(one, f"agent-{number}", turns=0)

    left = one.take()
    assert ["Snapshot", "AgentShutdown"] * 5 == kinds(left)
    assert [None, *(envelope.cursor for envelope in left[1:-1:2])] == [event.replaces for event in events(left)[::2]]


def test_end_when_the_text_of_the_backlog_is_too_long() -> None:
    """The bound on untaken text holds for all ended agents together."""
    one = subscription_of(lambda _: None)
    for incarnation in ("one", "two"):
        feed = feed_of(incarnation)
        one.enrol(feed)
        feed.publish(TextDelta("x" * 6_000, "m", 0, 0, "t"))
        feed.publish(SHUTDOWN)
        one.end()

    assert ["Gap", "AgentShutdown"] * 2 == kinds(one.take())


def test_take_when_an_agent_is_up_behind_a_backlog() -> None:
    """The present of the agent that is up follows what was left of the agents before it, and replaces the last of them."""
    one = subscription_of(lambda _: None)
    live_and_end(one, "one", turns=20)
    feed = feed_of("two")
    one.enrol(feed)
    feed.publish(TurnStarted("t"))

    assert [
        ("one", "Gap", 1, 20),
        ("one", "AgentShutdown", 21, 21),
        ("two", "Snapshot", 0, 0),
        ("two", "TurnStarted", 1, 1),
    ] == places(left := one.take())
    assert Cursor("one", "main", 21) == events(left)[2].replaces


def test_take_when_a_costly_event_was_not_made() -> None:
    """An event that was not made because nobody listened is told as missing to a reader that comes back from before it."""
    feed = feed_of()
    feed.publish(TurnStarted("t1"))
    made: list[str] = []

    def make() -> TurnStarted:
        made.append("made")
        return TurnStarted("costly")

    feed.publish_lazily(make)
    assert [] == made
    one = subscription_of(lambda _: None, Cursor("one", "main", 1))
    one.enrol(feed)
    feed.publish_lazily(make)

    assert ["made"] == made
    assert [("one", "Gap", 2, 3), ("one", "Snapshot", 3, 3)] == places(one.take())
    feed.publish_lazily(make)
    assert ["costly"] == [event.turn_id for event in events(one.take())]


@pytest.mark.parametrize("taken", [True, False], ids=["some taken", "nothing taken"])
def test_suspend_when_an_agent_is_up(taken: bool) -> None:
    """What was not given is dropped, and comes when the right comes back: from the place that the reader has."""
    feed = feed_of()
    one = subscription_of(lambda _: None)
    one.enrol(feed)
    if taken:
        one.take()
    feed.publish(TurnStarted("t1"))
    one.suspend()

    assert ("pending", False) == (one.state, one.has_events)
    assert () == one.take()
    assert {} == feed.subscriptions
    feed.publish(TurnStarted("t2"))
    assert () == one.take()
    one.enrol(feed)
    assert (["TurnStarted"] * 2 if taken else ["Snapshot"]) == kinds(one.take())


def test_suspend_when_there_is_a_backlog() -> None:
    """The backlog is dropped, and the snapshot of the next agent replaces the place that the reader really has."""
    one = subscription_of(lambda _: None, Cursor("zero", "main", 7))
    live_and_end(one, "one")
    live_and_end(one, "two")
    assert one.has_events
    one.suspend()

    assert () == one.take()
    one.enrol(feed_of("three"))
    assert [Cursor("zero", "main", 7)] == [event.replaces for event in events(one.take())]


@pytest.mark.parametrize(
    ("given", "place"),
    [(0, None), (1, Cursor("one", "main", 0)), (2, Cursor("one", "main", 1)), (4, Cursor("one", "main", 3))],
)
def test_suspend_when_the_subscriber_gives_something_back(given: int, place: Cursor | None) -> None:
    """What the subscriber took and did not hand over yet was not given: the place is the one before it."""
    back: list[Any] = []
    one = Subscription("c", "main", None, None, 10, 10_000, Mailbox(lambda _: None, lambda _: back))
    live_and_end(one, "one", turns=2)
    live_and_end(one, "two", turns=20)
    back.extend(one.take()[given:])
    one.suspend()

    assert place == one.place


def test_suspend_when_a_notice_comes_back() -> None:
    """The gap of an agent of which nothing was given knows the place before it."""
    back: list[Any] = []
    one = Subscription("c", "main", None, None, 10, 10_000, Mailbox(lambda _: None, lambda _: back), Cursor("zero", "main", 7))
    live_and_end(one, "one", turns=20)
    back.extend(one.take())
    one.suspend()

    assert Cursor("zero", "main", 7) == one.place


def restored_of(incarnation: str) -> tuple[Feed, Any]:
    """Return the feed of an agent that was restored, and what a new reader is told of that."""
    feed = feed_of(incarnation)
    return feed, [feed.publish_before_snapshot(StateRestored())]


def test_enrol_when_the_agent_was_restored() -> None:
    """A reader who has seen nothing yet is told before the snapshot; any other reader gets the snapshot alone."""
    feed, told = restored_of("one")
    new, old = subscription_of(lambda _: None), subscription_of(lambda _: None, Cursor("zero", "main", 7))
    for one in (new, old):
        one.enrol(feed, told)
    feed.publish(TurnStarted("t"))

    assert [("one", "StateRestored", 1, 1), ("one", "Snapshot", 2, 2), ("one", "TurnStarted", 3, 3)] == places(new.take())
    assert [("one", "Snapshot", 2, 2), ("one", "TurnStarted", 3, 3)] == places(old.take())


@pytest.mark.parametrize("turns", [1, 20])
def test_enrol_when_the_agent_was_restored_and_has_ended(turns: int) -> None:
    """What was told is kept with the other events of the agent, or is missing with them: no number comes twice."""
    one = subscription_of(lambda _: None)
    feed, told = restored_of("one")
    one.enrol(feed, told)
    for _ in range(turns):
        feed.publish(TurnStarted("t"))
    feed.publish(SHUTDOWN)
    one.end()

    expected = (
        [("one", "Gap", 1, turns + 2)]
        if turns > 10
        else [("one", "StateRestored", 1, 1), ("one", "Snapshot", 2, 2), ("one", "TurnStarted", 3, 3)]
    )
    assert [*expected, ("one", "AgentShutdown", turns + 3, turns + 3)] == places(one.take())


def test_enrol_when_the_agent_was_restored_and_the_reader_is_too_slow() -> None:
    """The present takes the place of everything, what was told included."""
    one = subscription_of(lambda _: None)
    feed, told = restored_of("one")
    one.enrol(feed, told)
    for _ in range(20):
        feed.publish(TurnStarted("t"))

    assert [("one", "Snapshot", 22, 22)] == places(one.take())


def test_suspend_when_what_was_told_comes_back() -> None:
    """The reader has seen nothing then, and begins with a snapshot if the right comes back."""
    back: list[Any] = []
    one = Subscription("c", "main", None, None, 10, 10_000, Mailbox(lambda _: None, lambda _: back))
    feed, told = restored_of("one")
    one.enrol(feed, told)
    back.extend(one.take())
    one.suspend()
    assert one.place is None
    one.enrol(feed)

    assert ["Snapshot"] == kinds(one.take())


def test_miss_when_an_agent_has_ended_before_it_could_be_followed() -> None:
    """The reader is told that an agent came and went, and which of its events are missing."""
    one = subscription_of(lambda _: None, Cursor("zero", "main", 7))
    feed = feed_of()
    feed.publish(TurnStarted("t1"))
    feed.publish(SHUTDOWN)
    one.miss(feed)

    assert [("one", "Gap", 1, 1), ("one", "AgentShutdown", 2, 2)] == places(left := one.take())
    assert Cursor("zero", "main", 7) == events(left)[0].replaces
    one.enrol(feed_of("two"))
    assert [Cursor("one", "main", 2)] == [event.replaces for event in events(one.take())]


def test_miss_when_the_reader_knows_the_agent() -> None:
    """The gap begins behind the cursor that the reader came with."""
    one = subscription_of(lambda _: None, Cursor("one", "main", 1))
    feed = feed_of()
    for _ in range(3):
        feed.publish(TurnStarted("t"))
    feed.publish(SHUTDOWN)
    one.miss(feed)

    assert [("one", "Gap", 2, 3), ("one", "AgentShutdown", 4, 4)] == places(left := one.take())
    assert events(left)[0].replaces is None


def test_miss_when_there_is_nothing_to_tell() -> None:
    """Nothing is told of an agent that did nothing, to a subscription that follows a later agent, or to one that was closed."""
    idle, feed = feed_of(), feed_of()
    idle.publish(SHUTDOWN)
    feed.publish(TurnStarted("t"))
    feed.publish(SHUTDOWN)
    one, later, closed = (subscription_of(lambda _: None) for _ in range(3))
    one.miss(idle)
    later.enrol(feed_of("two"))
    later.miss(feed)
    closed.close()
    closed.miss(feed)

    assert () == one.take()
    assert ["Snapshot"] == kinds(later.take())
    assert () == closed.take()


def test_end_when_the_agent_is_lost() -> None:
    """The last event has no number: the reader goes on behind the last event that has one, and a gap names all that is missing."""
    feed = feed_of()
    subscription = subscription_of(lambda _: None)
    subscription.enrol(feed)
    subscription.take()
    feed.publish(TurnStarted("t"))
    shutdown = AgentShutdown(ShutdownReason.FENCED, Status.IDLE, 0, False, NOW, NOW)
    subscription.end((feed.lone(shutdown),))
    given = subscription.take()

    assert ["TurnStarted", "AgentShutdown"] == kinds(given)
    assert [1, 1] == [envelope.seq for envelope in given]
    assert feed.place == subscription.place
    subscription.enrol(feed)
    assert () == subscription.take()
    for number in range(20):
        feed.publish(TurnStarted(f"u{number}"))
    subscription.end((feed.lone(shutdown),))
    gap, last = subscription.take()
    assert (2, 21, "AgentShutdown") == (gap.event.first, gap.event.last, kinds([last])[0])  # type: ignore[union-attr]


def test_backlog_when_the_agent_was_lost() -> None:
    """Shrunk to a notice, it names the event that has the number of the last one, too."""
    subscription = subscription_of(lambda _: None)
    shutdown = AgentShutdown(ShutdownReason.FENCED, Status.IDLE, 0, False, NOW, NOW)
    for incarnation in ("one", "two"):
        feed = feed_of(incarnation)
        subscription.enrol(feed)
        for number in range(7):
            feed.publish(TurnStarted(f"u{number}"))
        subscription.end((feed.lone(shutdown),))
    given = subscription.take()

    assert ["Gap", "AgentShutdown"] * 2 == kinds(given)
    assert [(1, 7), (1, 7)] == [(event.first, event.last) for event in events(given) if type(event).__name__ == "Gap"]
