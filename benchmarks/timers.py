"""The longest pass of the event loop while all agents are renewed and all their timers come due."""

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.children import kept
from benchmarks.rounds import Spread, interleave, ratios
from benchmarks.table import Aim, Row

AIM: Final = Aim("below", 1.0, "ms")


def run(*, quick: bool) -> Sequence[Row]:
    """Return the row."""
    live, rounds = ("10000", 2) if quick else ("100000", 5)

    def longest_in(kind: str) -> Callable[[], float]:
        return lambda: kept("crowd", kind, live).ask("upkeep")["longest"] * 1e3

    longest = interleave({kind: longest_in(kind) for kind in ("agents", "deadlines")}, rounds, warm_up=False)
    ours, eager = Spread.of(longest["agents"]), Spread.of(longest["deadlines"])
    return (
        Row(
            name="timers",
            what=f"longest loop pass, {int(live):,} idle agents renewed and due; CPU; baseline: a deadline each, moved",
            ours=f"{ours.median:.2f} ms [{ours.low:.2f}..{ours.high:.2f}]",
            baseline=f"{eager.median:.1f} ms",
            ratio=ratios(longest["agents"], longest["deadlines"]),
            aim=AIM,
            judged=ours.median,
        ),
    )
