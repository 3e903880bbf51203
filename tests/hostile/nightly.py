"""The large volumes: `python -m tests.hostile.nightly` runs them on all cores, and prints a line for each; `--scale 0.001` for a look.

`rows()` is for whoever makes one table of all nightly runs.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final

import attrs
import trio

from tests.hostile.fuzz import Report, gathered, spawn
from tests.hostile.mcp_fuzz import run_lives
from tests.hostile.soak import grown, run_soak, slow_subscriber

BLOBS: Final = 10_000_000
ROWS: Final = 200_000
LIVES: Final = 100_000
SESSIONS: Final = 10_000
TURNS: Final = 3_000
PORTION: Final = 250_000
"""Blobs of one process: so a violation is seen before the night is over."""
TIMES_SLOWER: Final = 1.05


@attrs.frozen
class Row:
    """One row of the table."""

    stage: str
    volume: int
    violations: int
    rate: float
    """Per second."""
    details: str = ""
    """The violations, with what is needed to see them again."""


def _row(stage: str, report: Report, seconds: float) -> Row:
    wrong = sum(report.found.values()) + len(report.forbidden)
    details = "; ".join([*(f"{count} x {what}: {report.examples.get(what)}" for what, count in report.found.items()), *report.forbidden])
    return Row(stage, report.count, wrong, report.count / seconds, details)


def _portions(volume: int, processes: int, *more: str) -> Report:
    """Run a volume in portions, so many processes at a time; each portion has a seed of its own."""
    size = min(PORTION, max(1, volume // processes))
    seeds: Iterator[int] = iter(range(1000, 1000 + max(processes, volume // size)))
    report = Report()
    while batch := [seed for _, seed in zip(range(processes), seeds, strict=False)]:
        part = gathered([spawn(size, seed, *more) for seed in batch])
        report.add(attrs.asdict(part))
        print(f"{report.count:,} of {volume:,} {more[0][2:] if more else 'blobs'}", file=sys.stderr, flush=True)
    return report


def fuzzed_blobs(scale: float, processes: int) -> Row:
    """Decode damaged conversations under guard."""
    began = time.perf_counter()
    return _row("fuzzed blobs", _portions(int(BLOBS * scale), processes), time.perf_counter() - began)


def fuzzed_rows(scale: float, processes: int) -> Row:
    """Start damaged conversations of SQLite files."""
    began = time.perf_counter()
    return _row("fuzzed rows", _portions(max(200, int(ROWS * scale)), processes, "--rows"), time.perf_counter() - began)


def fuzzed_servers(scale: float, processes: int) -> Row:
    """Live with MCP servers whose lines are mutated."""
    began = time.perf_counter()
    count = max(processes, int(LIVES * scale)) // processes
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        parts = [pool.submit(run_lives, 10**6 * number, count) for number in range(1, processes + 1)]
        found = [what for part in parts for what in part.result()]
    return Row("fuzzed servers", count * processes, len(found), count * processes / (time.perf_counter() - began), "; ".join(found))


def soaked(kind: str) -> Callable[[float, int], Row]:
    """Return the stage that uses a house for long."""

    def stage(scale: float, processes: int) -> Row:
        count = max(40, int(SESSIONS * scale))
        lefts = run_soak(count // 4, 10, kind)
        found = grown(lefts)
        return Row(
            f"soak, {kind}", 10 * (count // 4), len(found), 10 * (count // 4) / sum(left.seconds for left in lefts), "; ".join(found)
        )

    return stage


def slow_viewer(scale: float, processes: int) -> Row:
    """Compare the 99th percentile of a turn with and without a viewer a thousand times slower; the best of three."""
    turns = max(40, int(TURNS * scale))
    began = time.perf_counter()
    pairs = [trio.run(slow_subscriber, turns) for _ in range(3)]
    ratio = min(watched / alone for alone, watched in pairs)
    is_slower = ratio > TIMES_SLOWER and scale >= 1
    return Row("slow viewer", 6 * turns, int(is_slower), 6 * turns / (time.perf_counter() - began), f"p99 x {ratio:.3f}")


STAGES: Final[Sequence[Callable[[float, int], Row]]] = (
    fuzzed_blobs,
    fuzzed_rows,
    fuzzed_servers,
    soaked("memory"),
    soaked("sqlite"),
    slow_viewer,
)


def rows(scale: float = 1.0, processes: int | None = None) -> Iterator[Row]:
    """Run every stage, and give its line when it is done.

    Args:
        scale: of the volumes; 1 is a night's.
        processes: at once; None is one for each core.
    """
    for stage in STAGES:
        yield stage(scale, processes or os.cpu_count() or 1)


def main() -> None:
    """Run, print, and fail where anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--processes", type=int, default=None)
    options = parser.parse_args()
    violations = 0
    for row in rows(options.scale, options.processes):
        violations += row.violations
        details = f"  {row.details}" if row.details else ""
        print(f"{row.stage:<16}{row.volume:>12,}{row.violations:>8} violations{row.rate:>12,.0f}/s{details}", flush=True)
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
