"""One turn of a conversation that is long already: its length should not matter, neither in time nor in what is written."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio

from benchmarks.host import open_host
from benchmarks.rounds import Cpu, Spread, ratios
from benchmarks.table import Aim, Row
from trio_sagents import Agent, Completed, ConversationStore, MemoryStore, Message, Sessions, SqliteStore, TextPart
from trio_sagents.testing import ScriptedModel

AIM: Final = Aim("at most", 1.3)
LENGTHS: Final = (10, 100, 1_000, 5_000)
TURNS: Final = 15
"""In each round, with each conversation."""
TEXT: Final = "Lorem ipsum dolor sit amet, consectetur adipiscing elit. " * 10

Figures = dict[int, list[float]]


def run(*, quick: bool) -> Sequence[Row]:
    """Return rows for each store, and for each length but the first, which is the baseline."""
    lengths, rounds = (LENGTHS[:3], 3) if quick else (LENGTHS, 5)
    with TemporaryDirectory() as folder:
        memory, _ = trio.run(_measure, MemoryStore(), lengths, rounds)
        sqlite, written = trio.run(_measure, SqliteStore(Path(folder, "turns.db"), synchronous="NORMAL"), lengths, rounds)
    return (
        *_rows("one turn, MemoryStore, {} stored messages; CPU; baseline: {}", memory, 1e3, "ms"),
        *_rows("one turn, SqliteStore (NORMAL), {} stored messages; CPU; baseline: {}", sqlite, 1e3, "ms"),
        *_rows("bytes handed to the system by one turn, SqliteStore, {} stored messages; baseline: {}", written, 1e-3, "KB"),
    )


def _rows(what: str, figures: Figures, scale: float, unit: str) -> Sequence[Row]:
    first, *others = figures
    return [
        Row(
            name="turns",
            what=what.format(f"{length:,}", first),
            ours=f"{Spread.of(figures[length]).median * scale:.2f} {unit}",
            baseline=f"{Spread.of(figures[first]).median * scale:.2f} {unit}",
            ratio=ratios(figures[length], figures[first]),
            aim=AIM,
        )
        for length in others
    ]


async def _measure(store: ConversationStore, lengths: Sequence[int], rounds: int) -> tuple[Figures, Figures]:
    """Return the seconds and the bytes of a turn, by length. The lengths take turns; each round has conversations of its own."""
    seconds: Figures = {length: [] for length in lengths}
    written: Figures = {length: [] for length in lengths}
    agent = Agent(model=ScriptedModel(lambda request: "Well."))
    async with open_host(agent, store=store, seeds=_seeds(lengths, rounds)) as sessions:
        for number in range(rounds):
            for length in lengths:
                await _turn(sessions, f"{length}-{number}")  # stores what the conversation begins with
            costs = [{length: await _cost(sessions, f"{length}-{number}") for length in lengths} for _ in range(TURNS)]
            for length in lengths:
                await sessions.stop(f"{length}-{number}")
                seconds[length].append(statistics.median(cost[length][0] for cost in costs))
                written[length].append(statistics.median(cost[length][1] for cost in costs))
    return seconds, written


async def _cost(sessions: Sessions, name: str) -> tuple[float, int]:
    before = bytes_written()
    with Cpu() as cpu:
        await _turn(sessions, name)
    return cpu.seconds, bytes_written() - before


async def _turn(sessions: Sessions, name: str) -> None:
    receipt = await sessions.post(name, "And now?")
    outcome = await receipt.wait()
    assert isinstance(outcome, Completed), outcome


def _seeds(lengths: Sequence[int], rounds: int) -> Mapping[str, Sequence[Message]]:
    return {f"{length}-{number}": _history(length) for length in lengths for number in range(rounds)}


def _history(length: int) -> Sequence[Message]:
    said = (TextPart(TEXT),)
    return [
        Message(f"seed-{index}", "assistant", said, "stop") if index % 2 else Message(f"seed-{index}", "user", said)
        for index in range(length)
    ]


def bytes_written() -> int:
    """Return how many bytes this process has handed to the system to write."""
    for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise RuntimeError("this system does not say how much a process writes")
