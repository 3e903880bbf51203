"""Starting and stopping one more agent while others live: the same, however many there are."""

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.children import kept
from benchmarks.rounds import interleave, ratios
from benchmarks.table import Aim, Row, microseconds

AIM: Final = Aim("at most", 1.2)
LIVE: Final = (100, 1_000, 10_000, 100_000)


def run(*, quick: bool) -> Sequence[Row]:
    """Return a row for each number of live agents but the first, which is the baseline."""
    sizes, count, rounds = (LIVE[:3], 200, 5) if quick else (LIVE, 600, 9)
    children = {live: kept("crowd", "agents", str(live)) for live in sizes}
    for child in children.values():
        child.ask("spawn 10")

    def costs_with(live: int) -> Callable[[], float]:
        return lambda: children[live].ask(f"spawn {count}")["seconds"]

    costs = interleave({str(live): costs_with(live) for live in sizes}, rounds)
    few = costs[str(sizes[0])]
    return [
        Row(
            name="scale",
            what=f"start + stop with {live:,} live agents, a process each; CPU; baseline: with {sizes[0]}",
            ours=microseconds(costs[str(live)]),
            baseline=microseconds(few),
            ratio=ratios(costs[str(live)], few),
            aim=AIM,
        )
        for live in sizes[1:]
    ]
