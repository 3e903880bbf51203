"""`python -m benchmarks [--quick] [--only NAME | --compare [FOLDER]]`: measure, and print one table."""

import argparse
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import trio

import trio_sagents
from benchmarks import broadcast, commits, cycles, guest, memory, scale, spawn, sqlite_turn, starts, streaming, timers, turns
from benchmarks.peers import compare
from benchmarks.table import Row, render


class Benchmark(Protocol):
    """Measures one thing."""

    def __call__(self, *, quick: bool) -> Sequence[Row]:
        """Return its rows."""
        ...


BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "spawn": spawn.run,
    "scale": scale.run,
    "timers": timers.run,
    "memory": memory.run,
    "broadcast": broadcast.run,
    "turns": turns.run,
    "starts": starts.run,
    "sqlite_turn": sqlite_turn.run,
    "cycles": cycles.run,
    "commits": commits.run,
    "streaming": streaming.run,
    "guest": guest.run,
}


def main() -> None:
    """Measure what was asked for. Nothing fails because something is slow: the table says what is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure, and print one table.")
    names = ", ".join(BENCHMARKS)
    parser.add_argument("--only", action="append", choices=BENCHMARKS, metavar="NAME", help=f"one of {names}; may be repeated")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller sizes: to see that it works, not to judge by")
    parser.add_argument(
        "--compare",
        nargs="?",
        const=Path(".nox", "peers"),
        type=Path,
        metavar="FOLDER",
        help="measure other libraries instead, each in an environment in FOLDER; environments that are missing are made",
    )
    options = parser.parse_args()
    begin = time.perf_counter()
    print("\n".join(facts(quick=options.quick)), flush=True)
    rows: list[Row] = []
    try:
        if options.compare is not None:
            rows.extend(compare(options.compare.absolute(), quick=options.quick))
            return
        for name, run in BENCHMARKS.items():
            if options.only is None or name in options.only:
                print(f"... {name}", file=sys.stderr, flush=True)
                rows.extend(run(quick=options.quick))
    finally:
        report(rows, time.perf_counter() - begin)


def report(rows: Sequence[Row], seconds: float) -> None:
    """Print the table: of what was measured, where a benchmark failed."""
    missed = sum(row.verdict == "MISSED" for row in rows)
    print(f"\n{render(rows)}\n")
    print(f"{len(rows)} rows, {missed} aims missed; {seconds:.0f} s; load at the end: {os.getloadavg()[0]:.1f}")


def facts(*, quick: bool) -> Sequence[str]:
    """Return what the figures depend on."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return (
        f"trio_sagents {trio_sagents.__version__}, {'quick run' if quick else 'full run'}",
        f"{platform.python_implementation()} {platform.python_version()}, trio {trio.__version__}, SQLite {sqlite3.sqlite_version}",
        f"{cores} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}",
        f"flushing 4 KiB to the disk takes {_flush_time() * 1e6:.0f} us",
    )


def _flush_time() -> float:
    flush: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
    durations = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(50):
            file.write(bytes(4096))
            begin = time.perf_counter()
            flush(file.fileno())
            durations.append(time.perf_counter() - begin)
    return statistics.median(durations)


if __name__ == "__main__":
    main()
