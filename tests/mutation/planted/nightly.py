"""The line of the planted bugs in the nightly table: `python -m tests.mutation.planted` prints each of them."""

import shlex
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.mutation.planted import MUTANTS
from tests.mutation.planted._planting import JOBS, Mutant, hunt_all


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
    """Hunt mutants, and yield the one line of what came of it; what survives is printed, with the command that hunts it again.

    Args:
        mutants: by default all.
        jobs: how many at once; > 0.
    """
    begun = time.perf_counter()
    survivors = [one.mutant.name for one in hunt_all(mutants, jobs) if not one.is_found]
    for name in survivors:
        print(f"planted, and not found: python -m tests.mutation.planted {shlex.quote(name)}", flush=True)
    yield Row("planted bugs", len(mutants), len(survivors), len(mutants) / (time.perf_counter() - begun))
