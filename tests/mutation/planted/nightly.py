"""The row of the planted bugs in the nightly table: `python -m tests.mutation.planted` prints each of them."""

import shlex
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.mutation.planted import BUGS
from tests.mutation.planted.hunting import JOBS, hunt_all
from tests.support.planting import PlantedBug


class Row(NamedTuple):
    """One row of the table."""

    stage: str
    volume: int
    """How many bugs were hunted."""
    violations: int
    """How many of them survived."""
    rate: float
    """Bugs per second."""


def rows(bugs: Sequence[PlantedBug] = BUGS, jobs: int = JOBS) -> Iterator[Row]:
    """Hunt bugs, and yield one row with the result. Each survivor is printed, with the command that hunts it again.

    Args:
        bugs: all bugs by default.
        jobs: how many are hunted at once; > 0.
    """
    begun = time.perf_counter()
    survivors = [hunted.bug.name for hunted in hunt_all(bugs, jobs) if not hunted.is_found]
    for name in survivors:
        print(f"planted, and not found: python -m tests.mutation.planted {shlex.quote(name)}", flush=True)
    yield Row("planted bugs", len(bugs), len(survivors), len(bugs) / (time.perf_counter() - begun))
