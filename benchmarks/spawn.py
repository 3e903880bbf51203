"""Starting and stopping one agent after the other, against hand-written Trio."""

from collections.abc import Sequence
from typing import Final

import trio

from benchmarks.floors import HandWrittenSessions
from benchmarks.host import open_host
from benchmarks.rounds import Cpu, interleave, ratios
from benchmarks.table import Aim, Row, microseconds

AIM: Final = Aim("at most", 1.25)


def run(*, quick: bool) -> Sequence[Row]:
    """Return the row."""
    count, rounds = (300, 5) if quick else (1500, 9)
    costs = interleave({"ours": lambda: trio.run(_ours, count), "hand": lambda: trio.run(_hand_written, count)}, rounds)
    return (
        Row(
            name="spawn",
            what="start + stop of an agent, one after the other; CPU; baseline: hand-written Trio",
            ours=microseconds(costs["ours"]),
            baseline=microseconds(costs["hand"]),
            ratio=ratios(costs["ours"], costs["hand"]),
            aim=AIM,
        ),
    )


async def _ours(count: int) -> float:
    async with open_host() as sessions:
        with Cpu() as cpu:
            for number in range(count):
                name = f"conversation-{number}"
                await sessions.start(name)
                await sessions.stop(name)
        assert not await sessions.agent_count()
    return cpu.seconds / count


async def _hand_written(count: int) -> float:
    async with trio.open_nursery() as nursery:
        sessions = HandWrittenSessions(nursery)
        with Cpu() as cpu:
            for number in range(count):
                name = f"conversation-{number}"
                await sessions.start(name)
                await sessions.stop(name)
        assert not len(sessions)
    return cpu.seconds / count
