"""The table: one row for each thing that was measured."""

from collections.abc import Iterable, Sequence
from typing import Literal

import attrs

from benchmarks.rounds import Spread


@attrs.frozen
class Aim:
    """What a figure should be."""

    kind: Literal["at most", "at least", "below"]
    bound: float
    unit: str = "x"

    def is_met(self, value: float) -> bool:
        """Whether `value` is what it should be."""
        if self.kind == "at most":
            return value <= self.bound
        return value >= self.bound if self.kind == "at least" else value < self.bound

    def __str__(self) -> str:
        sign = {"at most": "<=", "at least": ">=", "below": "<"}[self.kind]
        return f"{sign} {self.bound:g}{'' if self.unit == 'x' else ' '}{self.unit}"


@attrs.frozen(kw_only=True)
class Row:
    """One line."""

    name: str
    what: str
    ours: str
    baseline: str = "-"
    ratio: Spread | None = None
    aim: Aim | None = None
    judged: float | None = None
    """What is held against the aim where it is not the ratio's median."""

    @property
    def verdict(self) -> str:
        """Say whether the aim is met: "yes", "MISSED", or "-" where there is none."""
        value = self.judged if self.judged is not None else self.ratio.median if self.ratio is not None else None
        if self.aim is None or value is None:
            return "-"
        return "yes" if self.aim.is_met(value) else "MISSED"

    def cells(self) -> Sequence[str]:
        """Return the texts of the columns."""
        ratio = "-" if self.ratio is None else f"{self.ratio.median:.2f} [{self.ratio.low:.2f}..{self.ratio.high:.2f}]"
        aim = "-" if self.aim is None else str(self.aim)
        return (self.name, self.what, self.ours, self.baseline, ratio, aim, self.verdict)


HEAD = ("name", "what", "ours", "baseline", "ratio, median [min..max]", "aim", "met?")


def render(rows: Iterable[Row]) -> str:
    """Return the table as text."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join((texts[0], "  ".join("-" * width for width in widths), *texts[1:]))


def microseconds(seconds: Sequence[float]) -> str:
    """Return the median of durations in seconds as text."""
    return f"{Spread.of(seconds).median * 1e6:.1f} us"
