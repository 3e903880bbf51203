"""The flusher: streamed text wakes readers at most once in an interval, everything else at once, and nothing is lost or reordered."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from tests.support.scenarios import answer_to, check_no_hole, of_kind, opened, text_in
from trio_sagents import (
    Agent,
    AgentShutdown,
    Completed,
    Envelope,
    SessionConfig,
    SessionOpts,
    SessionPolicy,
    SingleFactoryRouter,
    Snapshot,
    Status,
    TextDelta,
    ThinkingDelta,
    TurnEnded,
    TurnStarted,
    open_sessions,
)
from trio_sagents.broadcast import Feed, Flusher, Mailbox, Subscription
from trio_sagents.data.cursors import Cursor
from trio_sagents.testing import ScriptedModel, Simulation, simulate_many, sweep_cancels

TEXT = "abcdefghijklmnop"


def model(interval: float) -> ScriptedModel:
    return ScriptedModel(lambda request: TEXT, chunk_size=1, chunk_interval=interval)


async def test_reader_when_text_is_flushed(autojump_clock: Any) -> None:
    """The first piece of text and whole events come at once; further text comes once in an interval, at most that late."""
    woken: list[tuple[float, Sequence[Envelope]]] = []
    async with opened(Agent(model=model(0.25)), policy={"flush_interval": 1.0}) as sessions:
        async with sessions.open_subscriber() as subscriber, trio.open_nursery() as nursery:
            await sessions.ensure_running("c", subscriber)

            async def read() -> None:
                async for batch in subscriber.batches():
                    woken.append((trio.current_time(), batch))

            nursery.start_soon(read)
            began = trio.current_time()
            assert TEXT == await answer_to(sessions)
            await trio.testing.wait_all_tasks_blocked()
            ended = trio.current_time()
            nursery.cancel_scope.cancel()

    texts = [(round(at - began, 2), text_in(batch)) for at, batch in woken if text_in(batch)]
    assert [(0.25, "a"), (1.5, "bcdef"), (2.75, "ghijk"), (4.0, "lmnop")] == texts
    assert [ended] == [at for at, batch in woken if of_kind(batch, TurnEnded)]
    check_no_hole([envelope for _, batch in woken for envelope in batch])


def feed_of(flusher: Flusher) -> Feed:
    def snapshot(place: Cursor, replaces: Cursor | None) -> Snapshot:
        return Snapshot(Status.IDLE, None, (), None, (), 0, place, replaces)

    return Feed("agent", "c", "one", "main", 100, snapshot, flusher.mark)


def test_delta_when_it_wakes() -> None:
    """A delta that begins a part wakes at once, and a delta that continues one is left to the flusher."""
    flusher = Flusher(1.0)
    feed = feed_of(flusher)
    told: list[Subscription] = []
    subscription = Subscription("c", "main", None, None, 100, 10_000, Mailbox(told.append))
    subscription.enrol(feed)
    subscription.take()
    counts = []
    for event in (
        TextDelta("a", "m", 0, 0, "t"),
        TextDelta("b", "m", 0, 1, "t"),
        ThinkingDelta("c", "m", 1, 0, "t"),
        ThinkingDelta("d", "m", 1, 1, "t"),
        TextDelta("e", "m", 2, 0, "t"),
        TextDelta("f", "m", 2, 1, "t"),
        TurnStarted("u"),
    ):
        told.clear()
        feed.publish(event)
        counts.append(len(told))
        if told:
            subscription.take()

    assert [1, 0, 1, 0, 1, 0, 1] == counts


async def test_flusher_when_many_answers_stream(autojump_clock: Any) -> None:
    """All readers are woken in the same interval, a bounded number of them in one pass of the event loop."""
    flusher = Flusher(1.0)
    began = trio.current_time()
    told: list[Subscription] = []
    for _ in range(150):
        feed = feed_of(flusher)
        subscription = Subscription("c", "main", None, None, 100, 10_000, Mailbox(told.append))
        subscription.enrol(feed)
        feed.publish_delta(TextDelta, "a", "m", 0, 0, "t")
        subscription.take()
        feed.publish_delta(TextDelta, "b", "m", 0, 1, "t")
    told.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        await trio.sleep(1.0)
        counts = [len(told)]
        while counts[-1] < 150:
            await trio.lowlevel.checkpoint()
            counts.append(len(told))
        nursery.cancel_scope.cancel()

    assert 1.0 == trio.current_time() - began
    # This task may run before the flusher in one pass, and after it in the next.
    assert max(later - earlier for earlier, later in itertools.pairwise(counts)) <= 2 * 64


async def test_flusher_when_a_feed_is_marked_meanwhile(autojump_clock: Any) -> None:
    """A feed that gets text while the flusher wakes the readers of others is flushed an interval later."""
    flusher = Flusher(1.0)
    told: list[float] = []
    late = feed_of(flusher)
    meanwhile: list[Any] = []

    def wakes() -> None:
        if meanwhile:
            meanwhile.pop()()

    def follow(feed: Feed, announce: Any) -> None:
        subscription = Subscription("c", "main", None, None, 100, 10_000, Mailbox(announce))
        subscription.enrol(feed)
        feed.publish_delta(TextDelta, "a", "m", 0, 0, "t")
        subscription.take()

    follow(late, lambda _: told.append(trio.current_time()))
    feeds = [feed_of(flusher) for _ in range(70)]
    for feed in feeds:
        follow(feed, lambda _: wakes())
    told.clear()
    meanwhile.append(lambda: late.publish_delta(TextDelta, "b", "m", 0, 1, "t"))
    for feed in feeds:
        feed.publish_delta(TextDelta, "b", "m", 0, 1, "t")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        began = trio.current_time()
        await trio.sleep(5.0)
        nursery.cancel_scope.cancel()

    assert [2.0] == [at - began for at in told]


async def flushed_story(simulation: Simulation) -> None:
    """Two viewers see an answer that is flushed; one viewer and the caller may be cancelled anywhere, and then the agent is stopped."""
    config = SessionConfig(factory_router=SingleFactoryRouter(Agent(model=model(0.01))), policy=SessionPolicy(flush_interval=0.035))
    seen: list[Envelope] = []
    other: list[Envelope] = []
    async with open_sessions(config) as sessions:

        async def view(into: list[Envelope]) -> None:
            async with sessions.open_subscriber() as subscriber:
                await sessions.ensure_running("c", subscriber)
                async for batch in subscriber.batches():
                    into.extend(batch)
                    if of_kind(into, AgentShutdown):
                        return

        async def post() -> None:
            await (await sessions.post("c", "hi", message_id="m")).wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(view, seen)
            nursery.start_soon(simulation.named, "viewer", view, other)
            while not seen:
                await trio.sleep(0.001)
            await simulation.named("poster", post)
            await trio.sleep(0.02)
            await sessions.stop("c")

    check_no_hole(seen)
    check_no_hole(other)
    outcomes = [event.outcome for event in of_kind(seen, TurnEnded)]
    if outcomes and isinstance(outcomes[0], Completed):
        assert TEXT == text_in(seen)
    assert isinstance(seen[-1].event, AgentShutdown)


def test_flushed_text_on_many_schedules() -> None:
    """Whatever the schedule, each viewer gets every event in order, the text is whole, and the last event is the agent's end."""
    simulate_many(flushed_story, range(60))


def test_flushed_text_when_cancelled_at_each_yield() -> None:
    """A viewer or a caller that is cancelled anywhere takes nothing away from another viewer."""
    sweep_cancels(flushed_story, seeds=range(2))


async def cancelled_flusher(simulation: Simulation) -> None:
    """A flusher that may be cancelled anywhere, under a reader of one feed."""
    flusher = Flusher(0.035)
    feed = feed_of(flusher)
    send, receive = trio.open_memory_channel[Subscription](math.inf)
    subscription = Subscription("c", "main", None, None, 100, 10_000, Mailbox(send.send_nowait))
    got: list[Envelope] = []

    async def read() -> None:
        while not of_kind(got, TurnStarted):
            got.extend((await receive.receive()).take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(simulation.named, "flusher", flusher.run)
        subscription.enrol(feed)
        async with trio.open_nursery() as readers:
            readers.start_soon(read)
            for offset, text in enumerate(TEXT):
                feed.publish_delta(TextDelta, text, "m", 0, offset, "t")
                await trio.sleep(0.01)
            feed.publish(TurnStarted("u"))
        nursery.cancel_scope.cancel()

    check_no_hole(got)
    assert TEXT == text_in(got)


def test_flusher_when_it_is_cancelled_at_each_yield() -> None:
    """Text that no flusher tells of any more comes with the next event, in order."""
    sweep_cancels(cancelled_flusher, seeds=range(6), names=["flusher"])


@pytest.mark.parametrize("value", [math.inf, math.nan, -1.0])
def test_flush_interval_when_it_is_no_interval(value: float) -> None:
    """Text is never held back for ever."""
    with pytest.raises(ValueError, match=r"SessionPolicy\.flush_interval"):
        SessionPolicy(flush_interval=value)


def test_flush_interval_when_it_is_given_for_one_session() -> None:
    """It is an interval of the whole block."""
    with pytest.raises(ValueError, match="flush_interval"):
        SessionOpts(supervisor_opts={"flush_interval": 1.0})
