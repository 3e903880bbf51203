"""What a search has found so far."""

from collections.abc import Awaitable, Callable
from typing import Final

import attrs

from trio_sagents.data.json import Opaque
from trio_sagents.testing._plan import Plan
from trio_sagents.testing._simulation import Simulation

Program = Callable[[Simulation], Awaitable[object]]
RunPlan = Callable[[Program, Plan], tuple[Simulation, Opaque]]
MOST_KEPT: Final = 100
"""How many findings are kept with their errors; of further findings, only the number is kept."""


@attrs.frozen
class Finding:
    """A run that went wrong."""

    plan: Plan
    error: BaseException = attrs.field(eq=False)

    def __str__(self) -> str:
        return f"{self.plan}: {'; '.join(sorted({f'{type(leaf).__name__}: {leaf}'[:300] for leaf in leaves(self.error)}))}"


@attrs.define(eq=False)
class Tally:
    """How much was run, and what was found."""

    runs: int = 0
    steps: int = 0
    violations: int = 0
    findings: list[Finding] = attrs.field(factory=list)
    """The first findings."""

    def run(self, run_plan: RunPlan, main: Program, plan: Plan, *, keep_going: bool) -> Simulation | None:
        """Run a plan, and count the run. Return None if it went wrong; its error is raised unless `keep_going`."""
        self.runs += 1
        try:
            simulation, _ = run_plan(main, plan)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # noqa: ASYNC103  # this is a finding; no Trio run is around this code
            self.violations += 1
            if not keep_going:
                raise
            if len(self.findings) < MOST_KEPT:
                self.findings.append(Finding(plan, exc))
            return None  # noqa: ASYNC104  # as above
        self.steps += simulation.steps
        return simulation

    def add(self, other: "Tally") -> None:
        """Add what another search has found."""
        self.runs += other.runs
        self.steps += other.steps
        self.violations += other.violations
        self.findings += other.findings[: MOST_KEPT - len(self.findings)]


def leaves(error: BaseException) -> "list[BaseException]":
    """Return the errors in a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]
