"""The people's machine for a whole night: `python -m tests.people.nightly [histories]`, new ones each time."""

import os
import random
import sys
import time
from collections.abc import Sequence

import attrs
from hypothesis import Phase, seed, settings
from hypothesis.stateful import get_state_machine_test

from tests.people.machine import PeopleMachine, SqlitePeopleMachine
from tests.people.test_machine import profile_of

HISTORIES = 10_000
BATCH = 50
"""Histories of one seed."""
SQLITE_SHARE = 5
"""One history in so many is over SQLite."""


@attrs.frozen
class Row:
    """What one stage found."""

    stage: str
    volume: int
    """Histories."""
    violations: int
    """Batches that broke a promise; the steps and the seed are printed."""
    rate: float
    """Histories in a second."""


def run_stage(stage: str, machine: type[PeopleMachine], histories: int, first: int) -> Row:
    """Run histories, a seed for each batch; what fails is printed with its seed, and the stage goes on."""
    begun, volume, violations = time.monotonic(), 0, 0
    profile = settings(profile_of(BATCH), phases=[Phase.generate])
    for number in range(-(-histories // BATCH)):
        try:
            seed(first + number)(get_state_machine_test(machine, settings=profile))()
        except (Exception, BaseExceptionGroup) as exc:  # a night tells of all it finds
            violations += 1
            print(f"{stage}, seed {first + number}: {exc!r}", *getattr(exc, "__notes__", ()), sep="\n")
        volume += BATCH
    return Row(stage, volume, violations, volume / (time.monotonic() - begun))


def run_night(histories: int = HISTORIES, first: int | None = None) -> Sequence[Row]:
    """Run all stages; return a row for each: (stage, volume, violations, rate).

    Args:
        histories: how many, over both stores.
        first: the first seed; None draws one.
    """
    first = random.SystemRandom().randrange(10**9) if first is None else first
    on_sqlite = histories // SQLITE_SHARE
    return [
        run_stage("people, in memory", PeopleMachine, histories - on_sqlite, first),
        run_stage("people, SQLite", SqlitePeopleMachine, on_sqlite, first + 10**6),
    ]


def main() -> None:
    """Run, print the rows, and fail where a promise was broken."""
    os.environ.setdefault("TRIO_SAGENTS_NIGHTLY", "1")
    rows = run_night(int(sys.argv[1]) if len(sys.argv) > 1 else HISTORIES)
    for row in rows:
        print(f"{row.stage:<20} {row.volume:>7} histories {row.violations:>3} violations {row.rate:>6.1f}/s")
    sys.exit(any(row.violations for row in rows))


if __name__ == "__main__":
    main()
