"""Long use leaves nothing, and a viewer who is far too slow costs the agent nothing and is told what it missed."""

import faulthandler
import os
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import attrs
import pytest
import trio

from tests.hostile.soak import Left, grown, run_soak, slow_subscriber
from tests.support.scenarios import answer_to, make_agent, opened
from trio_sagents import Envelope, Gap, Snapshot, TurnEnded

pytestmark = pytest.mark.slow

SESSIONS = int(os.environ.get("TRIO_SAGENTS_SOAK", "1000"))
ROUNDS = 4


@pytest.mark.parametrize(("kind", "count"), [("memory", SESSIONS), ("sqlite", SESSIONS // 4)])
def test_soak(kind: str, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Sessions and viewers come and go by the thousand: memory, tasks, files, objects and cyclic garbage stay flat."""
    faulthandler.cancel_dump_traceback_later()
    lefts = run_soak(count // ROUNDS, ROUNDS, kind)
    with capsys.disabled():
        rate = count / sum(left.seconds for left in lefts)
        print(f"\nsoak, {kind}: {count} sessions, {len(grown(lefts))} violations, {rate:,.0f}/s, {lefts[-1].rss // 2**20} MiB")

    assert [] == grown(lefts)
    assert ROUNDS == len(lefts)


def test_growth_is_seen() -> None:
    """The oracle sees each kind of growth."""
    flat = Left(50_000_000, 5, 10, 20, 0, (0, 0), 1.0)
    worse: dict[str, Any] = {"rss": 60_000_000, "tasks": 6, "files": 11, "ours": 21, "garbage": 1, "counts": (0, 1)}

    assert [] == grown([attrs.evolve(flat, rss=40_000_000, ours=10), flat, flat, flat])
    for name, value in worse.items():
        assert grown([flat, flat, flat, attrs.evolve(flat, **{name: value})]), name


async def _calls_of(turns: int, *, watched: bool) -> int:
    """Return how many Python functions are called in so many turns; where watched, with two channels that nobody reads."""
    count = 0

    def note(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call"

    async with opened(make_agent(*["x" * 500] * (turns + 5), chunk_size=1)) as sessions, sessions.open_subscriber() as slow:
        if watched:
            await slow.subscribe("c")
            await slow.subscribe("c", channel="debug")
        for _ in range(5):
            await answer_to(sessions)
        sys.setprofile(note)
        try:
            for _ in range(turns):
                await answer_to(sessions)
        finally:
            sys.setprofile(None)
    return count


async def test_slow_subscriber_costs_nothing(autojump_clock: Any) -> None:
    """A subscriber who never reads costs less than a twentieth of the agent's work, counted in calls, which are reproducible."""
    alone = await _calls_of(10, watched=False)
    watched = await _calls_of(10, watched=True)

    assert alone > 10_000
    assert watched < alone * 1.05


async def test_slow_subscriber_does_not_slow_turns() -> None:
    """The same by the clock: by the faster turns, so that a busy machine does not matter; the nightly run looks at the 99th percentile."""
    alone, watched = await slow_subscriber(60, 25)

    assert watched < 3 * alone


def _told(envelopes: Sequence[Envelope]) -> list[tuple[int, int, str]]:
    return [(envelope.first_seq, envelope.seq, type(envelope.event).__name__) for envelope in envelopes]


async def test_slow_subscriber_learns_what_it_missed(autojump_clock: Any) -> None:
    """A thousand times slower than the agent: what it was given and what it was told it missed are all events, each once, in order."""
    agent = make_agent(*["y" * 2000] * 10, chunk_size=1, chunk_interval=0.001)
    slow_told: list[Envelope] = []
    fast_told: list[Envelope] = []
    async with opened(agent, policy={"subscriber_events": 20, "subscriber_text": 100}) as sessions:
        async with sessions.open_subscriber() as slow, sessions.open_subscriber() as fast:
            for subscriber in (slow, fast):
                await sessions.ensure_running("c", subscriber)

            async def read_fast() -> None:
                async for batch in fast.batches():
                    fast_told.extend(batch)

            async def read_slowly() -> None:
                while True:
                    slow_told.append(await slow.__anext__())
                    await trio.sleep(1)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_fast)
                nursery.start_soon(read_slowly)
                for _ in range(10):
                    await answer_to(sessions)
                await trio.sleep(1000)
                nursery.cancel_scope.cancel()

    assert 10 == sum(isinstance(envelope.event, TurnEnded) for envelope in fast_told)
    assert not any(isinstance(envelope.event, Gap) for envelope in fast_told)
    gaps = [envelope.event for envelope in slow_told if isinstance(envelope.event, Gap)]
    assert len(gaps) > 3
    assert len(slow_told) < 200
    expected = 1
    for envelope in slow_told:
        if isinstance(envelope.event, Snapshot):
            assert envelope.seq == expected - 1 or expected == 1, _told(slow_told)
            expected = envelope.seq + 1
            continue
        first = envelope.event.first if isinstance(envelope.event, Gap) else envelope.first_seq
        last = envelope.event.last if isinstance(envelope.event, Gap) else envelope.seq
        assert expected == first, _told(slow_told)
        expected = last + 1
    assert fast_told[-1].seq == expected - 1
    after_gaps = [slow_told[index + 1].event for index, envelope in enumerate(slow_told[:-1]) if isinstance(envelope.event, Gap)]
    assert all(isinstance(event, Snapshot) for event in after_gaps)
