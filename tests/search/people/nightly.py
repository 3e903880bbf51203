"""The people's machine for a whole night: `python -m tests.search.people.nightly --help`; new histories each time.

Histories come in batches, each with a seed of its own, shared between as many processes as there are processors. A batch that breaks
a promise is told with the command that runs it again. So is one that hangs: no batch may take longer than `PATIENCE`.
"""

import argparse
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from types import FrameType
from typing import Final

import attrs
from hypothesis import Phase, seed, settings
from hypothesis.stateful import get_state_machine_test

from tests.search.people.machine import PeopleMachine, SqlitePeopleMachine
from tests.search.people.test_machine import profile_of

HISTORIES: Final = 10_000
BATCH: Final = 50
"""Histories of one seed."""
SQLITE_SHARE: Final = 5
"""One history out of this many runs over SQLite."""
PATIENCE: Final = 600.0
"""Seconds that a batch may take; it takes a few, on a busy machine some more."""
TOLD: Final = 1_000
"""How far it has come is told each time that so many histories more are done."""
MACHINES: Final[Mapping[str, type[PeopleMachine]]] = {"memory": PeopleMachine, "sqlite": SqlitePeopleMachine}
STAGES: Final[Mapping[str, str]] = {"memory": "people, in memory", "sqlite": "people, SQLite"}


class Hangs(BaseException):
    """A batch does not end. No `except Exception` on its way takes it for a failure of something smaller."""


@attrs.frozen
class Row:
    """The result of one stage."""

    stage: str
    volume: int
    """Histories."""
    violations: int
    """Batches that broke a promise; the steps and the seed are printed."""
    rate: float
    """Histories in a second."""


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raise Hangs in the block when it takes longer, wherever it is then; and again, as often as something swallows that."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise Hangs(f"it has not ended after {seconds:.0f} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def run_batch(store: str, number: int, patience: float = PATIENCE) -> str | None:
    """Run the histories of one seed; return what was wrong, and how to see it again, or None."""
    profile = settings(profile_of(BATCH), phases=[Phase.generate])
    try:
        with bounded(patience):
            seed(number)(get_state_machine_test(MACHINES[store], settings=profile))()
    except (Exception, BaseExceptionGroup, Hangs) as exc:  # a night reports everything that it finds
        replay = f"python -m tests.search.people.nightly --only {store} --seed {number} {BATCH}"
        return "\n".join([f"{STAGES[store]}, seed {number}: {exc!r}; replay: {replay}", *getattr(exc, "__notes__", ())])
    return None


def run_stage(store: str, histories: int, first: int) -> Row:
    """Run histories, with a seed for each batch. Failures are printed, and the stage continues."""
    begun, violations, stage = time.monotonic(), 0, STAGES[store]
    batches = -(-histories // BATCH)
    with ProcessPoolExecutor(min(batches, os.cpu_count() or 1), multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(run_batch, store, first + number) for number in range(batches)]
        for done, future in enumerate(as_completed(futures), 1):
            found = future.result()
            if found is not None:
                violations += 1
                print(found, flush=True)
            if done * BATCH % TOLD == 0:
                print(f"{stage}: {done * BATCH:,} of {batches * BATCH:,} histories", file=sys.stderr, flush=True)
    return Row(stage, batches * BATCH, violations, batches * BATCH / (time.monotonic() - begun))


def run_night(histories: int = HISTORIES, first: int | None = None) -> Sequence[Row]:
    """Run all stages; return a row for each: (stage, volume, violations, rate).

    Args:
        histories: how many, over both stores.
        first: the first seed; None draws one.
    """
    first = random.SystemRandom().randrange(10**9) if first is None else first
    on_sqlite = histories // SQLITE_SHARE
    return [run_stage("memory", histories - on_sqlite, first), run_stage("sqlite", on_sqlite, first + 10**6)]


def main() -> None:
    """Run, print the rows, and return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("histories", type=int, nargs="?", default=HISTORIES)
    parser.add_argument("--seed", type=int, help="of the first batch; drawn where none is given")
    parser.add_argument("--only", choices=STAGES, help="one store; else one history in five is over SQLite")
    given = parser.parse_args()
    if given.only is None:
        rows = run_night(given.histories, given.seed)
    else:
        rows = [run_stage(given.only, given.histories, random.SystemRandom().randrange(10**9) if given.seed is None else given.seed)]
    for row in rows:
        print(f"{row.stage:<20} {row.volume:>7} histories {row.violations:>3} violations {row.rate:>6.1f}/s")
    sys.exit(any(row.violations for row in rows))


if __name__ == "__main__":
    main()
