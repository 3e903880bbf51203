"""Interleaved rounds: every variant once per round, in rotating order, so that drift of the machine meets all alike."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import attrs


@attrs.frozen
class Spread:
    """What several measurements of one thing gave."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Return the spread of `values`; there is at least one."""
        return cls(statistics.median(values), min(values), max(values))


class Cpu:
    """Seconds of processor time that a block took, in all threads: other programs on the machine hardly change it."""

    seconds: float = 0.0

    def __enter__(self) -> Self:
        self._begin = time.process_time()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds = time.process_time() - self._begin


class Wall:
    """Seconds that passed while a block ran: for what waits for threads and disks."""

    seconds: float = 0.0

    def __enter__(self) -> Self:
        self._begin = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds = time.perf_counter() - self._begin


def interleave(variants: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: bool = True) -> dict[str, list[float]]:
    """Measure variants in turns.

    Args:
        variants: by name, what measures once and returns a cost.
        rounds: how often each is measured.
        warm_up: whether each is run once before, uncounted.

    Returns:
        By name, the costs; those at the same index are of the same round.
    """
    names = list(variants)
    costs: dict[str, list[float]] = {name: [] for name in names}
    if warm_up:
        for name in names:
            variants[name]()
    for number in range(rounds):
        start = number % len(names)
        for name in (*names[start:], *names[:start]):
            gc.collect()
            costs[name].append(variants[name]())
    return costs


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Return the spread of the quotients, each of two measurements of the same round."""
    return Spread.of([one / other for one, other in zip(above, below, strict=True)])
