"""The fuzzed provider for a whole night: `python -m tests.search.providers.nightly --scale 1`; new streams each time.

Streams come in batches, shared between as many processes as there are processors. What is found is told with its seed and its number.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final

import attrs
import trio

from tests.search.providers.conversation import converse
from tests.search.providers.running import Report, run_events, run_sessions
from tests.search.providers.streams import PROTOCOLS, Protocol

STREAMS: Final = 100_000
"""Streams of each protocol in a night."""
TURNS: Final = 4_000
"""Turns in a night, over HTTP."""
BATCH: Final = 2_500


@attrs.frozen
class Row:
    """One line of the table."""

    stage: str
    volume: int
    violations: int
    rate: float
    """Per second."""


TALK: Final = 1_000
"""Turns of one long conversation in a night, with each of these servers."""
TALKS: Final = ("openai", "anthropic", "openai-responses", "mistral")


def _talk(dialect: str, seed: int, turns: int) -> Report:
    talk = trio.run(converse, dialect, seed, turns)
    return Report(turns, turns, [f"{dialect}, seed {seed}: {found}" for found in talk.found], len(talk.found))


def _turns(protocol: Protocol, seed: int, count: int) -> Report:
    return trio.run(run_sessions, protocol, seed, count)


def rows(scale: float, processes: int | None = None) -> Iterator[Row]:
    """Run the stages, and yield a row for each; what was found is printed."""
    seed = random.SystemRandom().randrange(10**9)
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        for protocol in PROTOCOLS:
            count = max(100, int(STREAMS * scale))
            starts = range(0, count, BATCH)
            jobs = [pool.submit(run_events, protocol, seed, start, min(BATCH, count - start)) for start in starts]
            yield _row(f"fuzzed provider, {protocol}", (job.result() for job in jobs))
        count = max(10, int(TURNS * scale / len(PROTOCOLS)))
        turns = [pool.submit(_turns, protocol, seed, count) for protocol in PROTOCOLS]
        yield _row("fuzzed provider, in sessions", (job.result() for job in turns))
        talks = [pool.submit(_talk, dialect, seed, max(10, int(TALK * scale))) for dialect in TALKS]
        yield _row("long conversations", (job.result() for job in talks))


def _row(stage: str, reports: Iterator[Report]) -> Row:
    began = time.monotonic()
    count = wrong = 0
    for report in reports:
        count, wrong = count + report.count, wrong + report.wrong
        print(*report.found, sep="\n", end="\n" if report.found else "", flush=True)
    return Row(stage, count, wrong, count / max(0.001, time.monotonic() - began))


def main() -> int:
    """Print a line for each stage; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the volumes; 1 is a night's")
    found = 0
    for row in rows(parser.parse_args().scale):
        found += row.violations
        print(f"{row.stage:<36} {row.volume:>10,} {row.violations:>6} {row.rate:>10.1f}/s", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
