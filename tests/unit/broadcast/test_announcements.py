"""How the readers of one subscriber wait: nothing is lost and nothing is doubled, whoever is woken, is cancelled, or is quicker."""

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trio_sagents import Envelope, SessionsClosed, Snapshot, Status, TurnStarted
from trio_sagents.broadcast import Feed, Subscriber, Subscription
from trio_sagents.data.cursors import Cursor
from trio_sagents.testing import Simulation, simulate_many, sweep_cancels


def feed_of(conversation_id: str) -> Feed:
    def snapshot(place: Cursor, replaces: Cursor | None) -> Snapshot:
        return Snapshot(Status.IDLE, None, (), None, (), 0, place, replaces)

    return Feed("agent", conversation_id, "one", "main", 100, snapshot)


@attrs.define
class Board:
    """A switchboard with an agent for each conversation."""

    feeds: dict[str, Feed]

    async def admit(self, subscription: Subscription) -> None:
        await trio.lowlevel.checkpoint()
        subscription.enrol(self.feeds[subscription.conversation_id])

    def withdraw(self, subscription: Subscription) -> None:
        pass


async def subscriber_of(*feeds: Feed) -> Subscriber:
    subscriber = Subscriber(Board({feed.conversation_id: feed for feed in feeds}), None, None, 100, 10_000)
    for feed in feeds:
        await subscriber.subscribe(feed.conversation_id)
    await subscriber.batches().__anext__()  # the snapshots
    return subscriber


async def read(subscriber: Subscriber, way: str, got: list[Envelope]) -> None:
    """Read until the end, event by event or batch by batch."""
    try:
        if way == "events":
            async for envelope in subscriber:
                got.append(envelope)
        else:
            async for batch in subscriber.batches():
                got.extend(batch)
    except SessionsClosed:
        pass


def told(got: Sequence[Envelope]) -> list[tuple[str, int]]:
    """Return the turns that were told, by conversation and number."""
    return sorted((envelope.conversation_id, int(envelope.event.turn_id)) for envelope in got if isinstance(envelope.event, TurnStarted))


async def two_readers(simulation: Simulation) -> None:
    """Two tasks read one subscriber of two conversations; one of them may be cancelled anywhere, and a third reads what is left."""
    feeds = [feed_of("c"), feed_of("d")]
    subscriber = await subscriber_of(*feeds)
    got: list[Envelope] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(simulation.named, "events", read, subscriber, "events", got)
        nursery.start_soon(simulation.named, "batches", read, subscriber, "batches", got)
        for number in range(6):
            feeds[number % 2].publish(TurnStarted(str(number)))
            if number % 3:
                await trio.sleep(0.1 * number)
        subscriber.hang_up()
    await read(subscriber, "batches", got)

    assert [("c", 0), ("c", 2), ("c", 4), ("d", 1), ("d", 3), ("d", 5)] == told(got)


def test_readers_when_one_is_cancelled_at_each_yield() -> None:
    """Each event is read exactly once, whichever of two readers is cancelled, blocked or just woken."""
    sweep_cancels(two_readers, seeds=range(6))


def test_readers_on_many_schedules() -> None:
    """Each event is read exactly once, in whichever order the readers run."""
    simulate_many(two_readers, range(150))


@pytest.mark.parametrize("way", ["events", "batches"])
@pytest.mark.parametrize("end", ["hang up", "close"])
async def test_reader_when_nothing_more_comes(way: str, end: str) -> None:
    """A reader that waits is woken, and a reader that comes later does not wait."""
    subscriber = await subscriber_of(feed_of("c"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, subscriber, way, [])
        nursery.start_soon(read, subscriber, way, [])
        await trio.testing.wait_all_tasks_blocked()
        subscriber.hang_up() if end == "hang up" else subscriber.close()
    with trio.testing.assert_checkpoints(), pytest.raises(SessionsClosed):
        await subscriber.__anext__()


@pytest.mark.parametrize("is_waiting", [True, False])
async def test_reader_when_it_reads(is_waiting: bool) -> None:
    """Reading is a checkpoint, whether an event is there already or has to be waited for, and a cancelled reader has taken nothing."""
    feed = feed_of("c")
    subscriber = await subscriber_of(feed)
    with trio.CancelScope() as scope:
        scope.cancel()
        if not is_waiting:
            feed.publish(TurnStarted("1"))
        await subscriber.batches().__anext__()
    assert scope.cancelled_caught
    if is_waiting:
        feed.publish(TurnStarted("1"))

    with trio.testing.assert_checkpoints():
        batch: Any = await subscriber.batches().__anext__()
    assert [("c", 1)] == told(batch)
