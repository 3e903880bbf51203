"""The line of the planted bugs in the nightly table: `python -m tests.mutants` prints each of them."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.mutants import MUTANTS
from tests.mutants._planting import JOBS, Mutant, hunt_all


class Row(NamedTuple):
    """One line of the table."""

    stage: str
    volume: int
    """Mutants that were hunted."""
    violations: int
    """Those that survived."""
    rate: float
    """Mutants per second."""


def rows(mutants: Sequence[Mutant] = MUTANTS, jobs: int = JOBS) -> Iterator[Row]:
    """Hunt mutants, and yield the one line of what came of it.

    Args:
        mutants: by default all.
        jobs: how many at once; > 0.
    """
    begun = time.perf_counter()
    survivors = sum(not one.is_found for one in hunt_all(mutants, jobs))
    yield Row("planted bugs", len(mutants), survivors, len(mutants) / (time.perf_counter() - begun))
