"""Bytes of an idle agent: growth of the resident set of a fresh process, for each of ten thousand."""

import gc
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import trio

from benchmarks.children import measured, tell
from benchmarks.floors import HandWrittenSessions
from benchmarks.host import open_host
from benchmarks.rounds import Spread, ratios
from benchmarks.table import Aim, Row

AIM: Final = Aim("at most", 9.0, "KB")
WARM_UP: Final = 200
"""Started before the first look, so that what is made once is not counted."""


def run(*, quick: bool) -> Sequence[Row]:
    """Return the row."""
    count, rounds = (5_000, 1) if quick else (10_000, 3)
    sizes: dict[str, list[float]] = {"ours": [], "hand": []}
    for _ in range(rounds):
        for kind, values in sizes.items():
            values.append(measured("memory", kind, str(count))["bytes"] / 1000)
    ours, hand = Spread.of(sizes["ours"]), Spread.of(sizes["hand"])
    return (
        Row(
            name="memory",
            what=f"resident bytes of an idle agent without content, {count:,} of them; baseline: hand-written Trio",
            ours=f"{ours.median:.2f} KB",
            baseline=f"{hand.median:.2f} KB",
            ratio=ratios(sizes["ours"], sizes["hand"]),
            aim=AIM,
            judged=ours.median,
        ),
    )


def child(kind: str, count: str) -> None:
    """Measure in this process."""
    trio.run(_ours if kind == "ours" else _hand_written, int(count))


async def _ours(count: int) -> None:
    async with open_host() as sessions:
        await _grow(sessions.start, count)


async def _hand_written(count: int) -> None:
    async with trio.open_nursery() as nursery:
        await _grow(HandWrittenSessions(nursery).start, count)


async def _grow(start: Callable[[str], Awaitable[object]], count: int) -> None:
    for number in range(WARM_UP):
        await start(f"warm-up-{number}")
    before = _resident()
    for number in range(count):
        await start(f"conversation-{number}")
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    tell(bytes=(_resident() - before) / count)
    await trio.sleep_forever()


def _resident() -> int:
    gc.collect()
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not say how large the resident set is")
