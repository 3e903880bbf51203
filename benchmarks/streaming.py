"""A thousand answers at once, fifty tokens a second each, and what is left for everybody else on the event loop.

Each row compares with hand-written tasks under the same settings of the garbage collector: those of Python, or `tune_gc()`.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Self

import attrs
import trio

from benchmarks.children import Figures, measured, tell
from benchmarks.floors import NaiveFanOut
from benchmarks.host import open_host
from benchmarks.rounds import Spread, ratios
from benchmarks.table import Aim, Row
from trio_sagents import Agent, Model, ModelChunk, ModelRequest, SessionPolicy, Sessions, TextChunk, TextDelta, tune_gc
from trio_sagents.testing import ScriptedModel

SESSIONS: Final = 1_000
INTERVAL: Final = 0.02
TOKEN: Final = "word"
CHUNK: Final = TextChunk(TOKEN)
HEARTBEAT: Final = 0.005
SETTLING: Final = 1.0
"""Seconds from the moment at which every viewer has read something to the first heartbeat: beginning a turn is not measured here."""


@attrs.frozen
class Setting:
    """How a run is set."""

    name: str
    words: str
    per_wake_up: int = 1
    """Tokens that the source says at a time, with pauses that are longer by as much."""
    is_tuned: bool = False
    flush_interval: float = 0.0
    aim: Aim | None = None
    """For the CPU of a token."""


SETTINGS: Final = (
    Setting("python", "GC as Python has it"),
    Setting("tuned", "tune_gc()", is_tuned=True, aim=Aim("at least", 0.65)),
    Setting("five", "tune_gc(), 5 tokens per wake-up", 5, is_tuned=True),
    Setting("sixteen", "tune_gc(), 16 tokens per wake-up", 16, is_tuned=True, aim=Aim("at least", 1.0)),
    Setting("flushed", "tune_gc(), flush_interval=0.2", is_tuned=True, flush_interval=0.2),
)


def run(*, quick: bool) -> Sequence[Row]:
    """Return, for each setting, a row for the heartbeat and one for the tokens."""
    seconds, rounds = (1.5, 1) if quick else (4.0, 3)
    rows: list[Row] = []
    for setting in SETTINGS:
        found: dict[str, list[Figures]] = {"ours": [], "naive": []}
        for _ in range(rounds):
            for kind, figures in found.items():
                figures.append(measured("streaming", kind, str(seconds), setting.name))
        rows += _rows(setting, found)
    return rows


def _rows(setting: Setting, found: Mapping[str, Sequence[Figures]]) -> Sequence[Row]:
    what = f"{SESSIONS:,} sessions x {1 / INTERVAL:.0f} tokens/s, a viewer each, {setting.words}"
    p99 = {kind: [one["p99"] for one in figures] for kind, figures in found.items()}
    cpu = {kind: [one["cpu"] / one["tokens"] for one in figures] for kind, figures in found.items()}
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
            what=f"CPU of a token, and share of a core, {what}; baseline: likewise",
            ours=_cost(found["ours"], cpu["ours"]),
            baseline=_cost(found["naive"], cpu["naive"]),
            ratio=ratios(cpu["naive"], cpu["ours"]),
            aim=setting.aim,
        ),
    )


def _median(figures: Sequence[Figures], name: str) -> float:
    return Spread.of([one[name] for one in figures]).median


def _lag(figures: Sequence[Figures]) -> str:
    return f"{_median(figures, 'p50') * 1e3:.1f} / {_median(figures, 'p99') * 1e3:.1f} ms"


def _cost(figures: Sequence[Figures], cpu: Sequence[float]) -> str:
    return f"{Spread.of(cpu).median * 1e6:.1f} us, {_median(figures, 'cpu') * 100:.0f} %"


def child(kind: str, seconds: str, name: str) -> None:
    """Measure in this process."""
    (setting,) = (setting for setting in SETTINGS if setting.name == name)
    if setting.is_tuned:
        tune_gc()
    trio.run(_ours if kind == "ours" else _naive, float(seconds), setting)


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


@attrs.frozen
class Source:
    """A model that says a token again and again, several at a time, without an end."""

    per_wake_up: int
    name: str = "source"

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[ModelChunk]]:
        """Open an answer."""
        yield _Tokens(self.per_wake_up)


@attrs.define(eq=False)
class _Tokens:
    _per_wake_up: int
    _left: int = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TextChunk:
        if not self._left:
            await trio.sleep(INTERVAL * self._per_wake_up)
            self._left = self._per_wake_up
        self._left -= 1
        return CHUNK


def _model(seconds: float, per_wake_up: int) -> Model:
    """Return the source: the model that tests use if it says one token at a time, as this benchmark has always had it."""
    if per_wake_up > 1:
        return Source(per_wake_up)
    text = TOKEN * int((seconds + 30) / INTERVAL)
    return ScriptedModel(lambda request: text, chunk_size=len(TOKEN), chunk_interval=INTERVAL)


async def _ours(seconds: float, setting: Setting) -> None:
    agent = Agent(model=_model(seconds, setting.per_wake_up))
    reading = Reading()
    policy = SessionPolicy(flush_interval=setting.flush_interval, max_message_bytes=2**40)
    async with open_host(agent, policy=policy) as sessions, trio.open_nursery() as nursery:
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


async def _naive(seconds: float, setting: Setting) -> None:
    reading = Reading()
    async with trio.open_nursery() as nursery:
        for number in range(SESSIONS):
            hub = NaiveFanOut()
            nursery.start_soon(_read, hub.subscribe(), number, reading)
            nursery.start_soon(_speak, hub.publish, setting.per_wake_up)
        await _listen(reading, seconds)
        await trio.sleep_forever()


async def _speak(publish: Callable[[object], None], per_wake_up: int) -> None:
    while True:
        await trio.sleep(INTERVAL * per_wake_up)
        for _ in range(per_wake_up):
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
