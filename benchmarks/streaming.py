"""A thousand answers at once, fifty tokens a second each, and what is left for everybody else on the event loop."""

import time
from collections.abc import Callable, Sequence
from typing import Final

import trio

from benchmarks.children import Figures, measured, tell
from benchmarks.floors import NaiveFanOut
from benchmarks.host import open_host
from benchmarks.rounds import Spread, ratios
from benchmarks.table import Row
from trio_sagents import Agent, Sessions, TextDelta
from trio_sagents.testing import ScriptedModel

SESSIONS: Final = 1_000
INTERVAL: Final = 0.02
TOKEN: Final = "word"
HEARTBEAT: Final = 0.005
SETTLING: Final = 1.0
"""Seconds from the moment at which every viewer has read something to the first heartbeat: beginning a turn is not measured here."""


def run(*, quick: bool) -> Sequence[Row]:
    """Return a row for the heartbeat and one for the tokens."""
    seconds, rounds = (1.5, 1) if quick else (4.0, 3)
    found: dict[str, list[Figures]] = {"ours": [], "naive": []}
    for _ in range(rounds):
        for kind, figures in found.items():
            figures.append(measured("streaming", kind, str(seconds)))
    what = f"{SESSIONS:,} sessions x {1 / INTERVAL:.0f} tokens/s, a viewer each"
    p99 = {kind: [one["p99"] for one in figures] for kind, figures in found.items()}
    tokens = {kind: [one["tokens"] for one in figures] for kind, figures in found.items()}
    return (
        Row(
            name="streaming",
            what=f"lag of a 5 ms heartbeat, p50 / p99, {what}; wall; baseline: sleep + channel",
            ours=_lag(found["ours"]),
            baseline=_lag(found["naive"]),
            ratio=ratios(p99["ours"], p99["naive"]),
        ),
        Row(
            name="streaming",
            what=f"tokens read, and share of a core, {what}; baseline: likewise",
            ours=_tokens(found["ours"]),
            baseline=_tokens(found["naive"]),
            ratio=ratios(tokens["ours"], tokens["naive"]),
        ),
    )


def _median(figures: Sequence[Figures], name: str) -> float:
    return Spread.of([one[name] for one in figures]).median


def _lag(figures: Sequence[Figures]) -> str:
    return f"{_median(figures, 'p50') * 1e3:.1f} / {_median(figures, 'p99') * 1e3:.1f} ms"


def _tokens(figures: Sequence[Figures]) -> str:
    return f"{_median(figures, 'tokens') * 1e-3:.1f} k/s, {_median(figures, 'cpu') * 100:.0f} %"


def child(kind: str, seconds: str) -> None:
    """Measure in this process."""
    trio.run(_ours if kind == "ours" else _naive, float(seconds))


class Reading:
    """What all viewers have read."""

    def __init__(self) -> None:
        self.characters = 0
        self._viewers: set[int] = set()
        self._everybody = trio.Event()

    def add(self, viewer: int, text: str) -> None:
        """Count what one of them has read."""
        self.characters += len(text)
        if len(self._viewers) < SESSIONS:
            self._viewers.add(viewer)
            if len(self._viewers) == SESSIONS:
                self._everybody.set()

    async def wait_for_everybody(self) -> None:
        """Wait until each has read something."""
        await self._everybody.wait()


async def _ours(seconds: float) -> None:
    text = TOKEN * int((seconds + 30) / INTERVAL)
    agent = Agent(model=ScriptedModel(lambda request: text, chunk_size=len(TOKEN), chunk_interval=INTERVAL))
    reading = Reading()
    async with open_host(agent) as sessions, trio.open_nursery() as nursery:
        for number in range(SESSIONS):
            await nursery.start(_view, sessions, number, reading)
        for number in range(SESSIONS):
            nursery.start_soon(sessions.post, f"conversation-{number}", "Go on.")
        await _listen(reading, seconds)
        await trio.sleep_forever()


async def _view(sessions: Sessions, number: int, reading: Reading, *, task_status: trio.TaskStatus[None]) -> None:
    async with sessions.open_subscriber() as subscriber:
        await sessions.ensure_running(f"conversation-{number}", subscriber)
        task_status.started()
        async for batch in subscriber.batches():
            for envelope in batch:
                if isinstance(envelope.event, TextDelta):
                    reading.add(number, envelope.event.text)


async def _naive(seconds: float) -> None:
    reading = Reading()
    async with trio.open_nursery() as nursery:
        for number in range(SESSIONS):
            hub = NaiveFanOut()
            nursery.start_soon(_read, hub.subscribe(), number, reading)
            nursery.start_soon(_speak, hub.publish)
        await _listen(reading, seconds)
        await trio.sleep_forever()


async def _speak(publish: Callable[[object], None]) -> None:
    while True:
        await trio.sleep(INTERVAL)
        publish(TOKEN)


async def _read(channel: "trio.MemoryReceiveChannel[object]", number: int, reading: Reading) -> None:
    async for token in channel:
        assert isinstance(token, str)
        reading.add(number, token)


async def _listen(reading: Reading, seconds: float) -> None:
    """Beat for a while, and tell the parent how late that was; the process ends then."""
    await reading.wait_for_everybody()
    await trio.sleep(SETTLING)
    lags = []
    before, begin, cpu = reading.characters, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        due = trio.current_time() + HEARTBEAT
        await trio.sleep_until(due)
        lags.append(trio.current_time() - due)
    passed = time.perf_counter() - begin
    lags.sort()
    tell(
        p50=lags[len(lags) // 2],
        p99=lags[int(len(lags) * 0.99)],
        tokens=(reading.characters - before) / len(TOKEN) / passed,
        cpu=(time.process_time() - cpu) / passed,
    )
