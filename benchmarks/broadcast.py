"""One agent's events to many readers, against a memory channel for each reader."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import trio

from benchmarks.floors import NaiveFanOut
from benchmarks.host import live_agent, open_host
from benchmarks.rounds import Cpu, interleave, ratios
from benchmarks.table import Aim, Row
from trio_sagents import Gap, Snapshot, Status, StatusChanged, Subscriber

AIMS: Final = {1: Aim("at least", 0.8), 16: Aim("at least", 5.0)}
"""By backlog: events published before the loop runs."""
EVENT: Final = StatusChanged(Status.IDLE)
"""One that cannot be joined with its neighbours."""


def run(*, quick: bool) -> Sequence[Row]:
    """Return a row for each number of readers and each backlog."""
    rounds = 3 if quick else 5
    return [_row(readers, backlog, rounds, quick=quick) for backlog in AIMS for readers in (1, 10, 100, 1000)]


def _row(readers: int, backlog: int, rounds: int, *, quick: bool) -> Row:
    deliveries = (10_000 if quick else 30_000) * (1 if backlog == 1 else 3)
    events = max(4 * backlog, min(3200, deliveries // readers) // backlog * backlog)
    costs = interleave(
        {
            "ours": lambda: trio.run(_ours, readers, events, backlog),
            "naive": lambda: trio.run(_naive, readers, events, backlog),
        },
        rounds,
    )
    return Row(
        name="broadcast",
        what=f"to {readers} readers, {backlog} event{'s' if backlog > 1 else ''} per loop pass; CPU; baseline: channels",
        ours=_rate(costs["ours"]),
        baseline=_rate(costs["naive"]),
        ratio=ratios(costs["naive"], costs["ours"]),
        aim=AIMS[backlog],
    )


def _rate(costs: Sequence[float]) -> str:
    return f"{1e-3 / sorted(costs)[len(costs) // 2]:.0f} k/s"


async def _publish(publish: Callable[[StatusChanged], None], events: int, backlog: int, readers: trio.Nursery) -> float:
    with Cpu() as cpu:
        for _ in range(events // backlog):
            for _ in range(backlog):
                publish(EVENT)
            await trio.lowlevel.checkpoint()
        while readers.child_tasks:
            await trio.lowlevel.checkpoint()
    return cpu.seconds


async def _ours(readers: int, events: int, backlog: int) -> float:
    async with open_host() as sessions, AsyncExitStack() as stack:
        await sessions.start("conversation")
        subscribers = [await stack.enter_async_context(sessions.open_subscriber()) for _ in range(readers)]
        for subscriber in subscribers:
            await subscriber.subscribe("conversation")
        async with trio.open_nursery() as nursery:
            for subscriber in subscribers:
                nursery.start_soon(_read_batches, subscriber, events)
            for _ in range(3):  # the snapshots are taken, and everybody waits
                await trio.lowlevel.checkpoint()
            seconds = await _publish(live_agent(sessions, "conversation").journal.publish, events, backlog, nursery)
    return seconds / (readers * events)


async def _read_batches(subscriber: Subscriber, events: int) -> None:
    count = 0
    async for batch in subscriber.batches():
        for envelope in batch:
            if type(envelope.event) is StatusChanged:
                count += 1
            elif isinstance(envelope.event, Gap) or not isinstance(envelope.event, Snapshot):
                raise RuntimeError(f"not like for like: the reader got {envelope.event!r}")
        if count == events:
            return


async def _naive(readers: int, events: int, backlog: int) -> float:
    hub = NaiveFanOut()
    async with trio.open_nursery() as nursery:
        for _ in range(readers):
            nursery.start_soon(_read_channel, hub.subscribe(), events)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        seconds = await _publish(hub.publish, events, backlog, nursery)
    return seconds / (readers * events)


async def _read_channel(channel: "trio.MemoryReceiveChannel[object]", events: int) -> None:
    count = 0
    async for event in channel:
        if type(event) is StatusChanged:
            count += 1
        if count == events:
            return
