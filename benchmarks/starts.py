"""The start of a long conversation that has a checkpoint: its length should not matter, neither in time nor in memory."""

import gc
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio

from benchmarks.host import open_host
from benchmarks.rounds import Cpu, Spread, ratios
from benchmarks.table import Aim, Row
from trio_sagents import Agent, Checkpoint, Commit, Completed, Message, Sessions, SqliteStore, TextPart
from trio_sagents.conversation.checkpoints import message_name
from trio_sagents.data.wire import encode_message
from trio_sagents.testing import ScriptedModel

AIM: Final = Aim("at most", 1.3)
WINDOW: Final = 100
"""Messages from the checkpoint on; the short conversation has no others."""
TEXT: Final = "Lorem ipsum dolor sit amet, consectetur adipiscing elit. " * 10
BATCH: Final = 10_000

Figures = dict[int, list[float]]


def run(*, quick: bool) -> Sequence[Row]:
    """Return a row for the time of a start, one for the first answer, and one for memory."""
    length, rounds = (10_000, 5) if quick else (100_000, 9)
    with TemporaryDirectory() as folder:
        starts, answers, sizes = trio.run(_measure, SqliteStore(Path(folder, "starts.db"), synchronous="NORMAL"), length, rounds)
    said = f"{length:,} stored messages with a checkpoint, SqliteStore (NORMAL); baseline: {WINDOW} messages without one"
    return (
        _row(f"start of an agent, {said}; CPU", starts, 1e3, "ms"),
        _row(f"from the start to the end of the first answer, {said}; CPU", answers, 1e3, "ms"),
        _row(f"memory that the agent keeps, {said}; allocated by Python", sizes, 1e-3, "KB"),
    )


def _row(what: str, figures: Figures, scale: float, unit: str) -> Row:
    short, long = figures
    return Row(
        name="starts",
        what=what,
        ours=f"{Spread.of(figures[long]).median * scale:.2f} {unit}",
        baseline=f"{Spread.of(figures[short]).median * scale:.2f} {unit}",
        ratio=ratios(figures[long], figures[short]),
        aim=AIM,
    )


async def _measure(store: SqliteStore, length: int, rounds: int) -> tuple[Figures, Figures, Figures]:
    """Return, by length, the seconds of starts, those until the first answer, and the bytes that are kept; in rotating order."""
    figures: tuple[Figures, Figures, Figures] = ({WINDOW: [], length: []}, {WINDOW: [], length: []}, {WINDOW: [], length: []})
    async with store.open():
        for number in range(rounds + 1):
            await _store(store, f"{WINDOW}-{number}", WINDOW)
        await _store(store, f"{length}-0", length)
    async with open_host(Agent(model=ScriptedModel(lambda request: "Well.")), store=store) as sessions:
        for number in range(rounds + 1):
            lengths = (WINDOW, length) if number % 2 else (length, WINDOW)
            for each in lengths:
                found = await _cost(sessions, f"{each}-{number if each == WINDOW else 0}")
                for values, value in zip(figures, found, strict=True):
                    if number:  # the first round fills caches
                        values[each].append(value)
    return figures


async def _cost(sessions: Sessions, name: str) -> tuple[float, float, float]:
    gc.collect()
    with Cpu() as started:
        await sessions.start(name)
    with Cpu() as answered:
        outcome = await (await sessions.post(name, "And now?")).wait()
    assert isinstance(outcome, Completed), outcome
    await sessions.stop(name)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    await sessions.start(name)
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    await sessions.stop(name)
    return started.seconds, started.seconds + answered.seconds, kept


async def _store(store: SqliteStore, name: str, length: int) -> None:
    """Store a conversation of so many messages whose window has `WINDOW` of them."""
    older = length - WINDOW
    for revision, begin in enumerate(range(0, length, BATCH), 1):
        end = min(begin + BATCH, length)
        gone = range(begin, min(end, older))
        known = {message_name(f"m{index}"): (index, index | 1) for index in gone}
        await store.commit(
            None,
            Commit(
                conversation_id=name,
                agent_id="benchmark",
                owner=None,
                epoch=1,
                revision=revision,
                lifecycle="on_step",
                messages=[encode_message(_message(index)) for index in range(begin, end)],
                checkpoint=Checkpoint(0, gone.stop, known) if gone else None,
            ),
        )


def _message(index: int) -> Message:
    said = (TextPart(TEXT),)
    if index % 2:
        return Message(f"m{index}", "assistant", said, "stop", f"t{index // 2}")
    return Message(f"m{index}", "user", said, None, f"t{index // 2}")
