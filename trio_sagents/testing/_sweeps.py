"""Sweeps: run a program once as it is, count its places, and then once for each place with something going wrong there.

The program checks what must hold, at its end and whatever happened: a run that raises is a finding.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

from trio_sagents.testing._plan import MAX_STEPS, CancelAt, CrashAt, FaultAt, FaultKind, Plan
from trio_sagents.testing._scheduler import MODES, Mode
from trio_sagents.testing._simulation import Simulation
from trio_sagents.testing._simulator import run_plan
from trio_sagents.testing._tally import Program, Tally

Evolve = Callable[["Plan", "Simulation"], Iterable[Plan]]
HOW_CANCELLED: Final[Sequence[Literal["blocked", "ready"]]] = ("blocked", "ready")
HOW_CRASHED: Final[Sequence[Literal["before", "after"]]] = ("before", "after")


def _plan(seed: int, mode: Mode | None, max_steps: int) -> Plan:
    return Plan(seed=seed, mode=MODES[seed % len(MODES)] if mode is None else mode, jumps=False, max_steps=max_steps)


def _sweep(main: Program, plans: Iterable[Plan], evolve: Evolve, *, keep_going: bool) -> Tally:
    tally = Tally()
    for plan in plans:
        baseline = tally.run(run_plan, main, plan, keep_going=keep_going)
        if baseline is not None:
            for struck in evolve(plan, baseline):
                tally.run(run_plan, main, struck, keep_going=keep_going)
    return tally


def _sample(plans: Sequence[Plan], most: float, seed: int) -> Sequence[Plan]:
    return plans if len(plans) <= most else random.Random(seed).sample(plans, int(most))


def sweep_cancels(
    main: Program,
    *,
    seeds: Iterable[int] = (0,),
    mode: Mode | None = None,
    names: Sequence[str] | None = None,
    max_steps: int = MAX_STEPS,
    keep_going: bool = False,
) -> Tally:
    """Cancel each named task at each of its yields, both ways.

    Args:
        main: runs what is to be cancelled through `Simulation.named`.
        seeds: which schedules.
        mode: as in `simulate`.
        names: which of the named tasks; None is all.
        max_steps: task steps of one run.
        keep_going: whether to go on where a run goes wrong.

    Returns:
        How many runs and steps there were, and what was found.

    Raises:
        What the first run raises that goes wrong, unless `keep_going`.
    """

    def evolve(plan: Plan, baseline: Simulation) -> Iterable[Plan]:
        for name, yields in baseline.yields.items():
            if names is None or name in names:
                for n, how in itertools.product(range(1, yields + 1), HOW_CANCELLED):
                    yield Plan(seed=plan.seed, mode=plan.mode, jumps=False, max_steps=max_steps, cancels=(CancelAt(name, n, how),))

    return _sweep(main, [_plan(seed, mode, max_steps) for seed in seeds], evolve, keep_going=keep_going)


def sweep_faults(
    main: Program,
    *,
    seeds: Iterable[int] = (0,),
    mode: Mode | None = None,
    kinds: Sequence[FaultKind] = ("before", "after"),
    pairs: float = 0,
    max_steps: int = MAX_STEPS,
    keep_going: bool = False,
) -> Tally:
    """Let each call go wrong that passes through `Simulation.faults`.

    Args:
        main: hands `Simulation.faults` to what it depends on.
        seeds: which schedules.
        mode: as in `simulate`.
        kinds: how each call goes wrong, one after the other.
        pairs: how many pairs of faults to run, too, per seed, drawn from all; `math.inf` is all of them.
        max_steps: task steps of one run.
        keep_going: whether to go on where a run goes wrong.

    Returns, raises: as `sweep_cancels`.
    """

    def evolve(plan: Plan, baseline: Simulation) -> Iterable[Plan]:
        def struck(*faults: FaultAt) -> Plan:
            return Plan(seed=plan.seed, mode=plan.mode, jumps=False, max_steps=max_steps, faults=faults)

        singles = [FaultAt(n, kind) for n in range(1, len(baseline.faults.calls) + 1) for kind in kinds]
        yield from (struck(fault) for fault in singles)
        if pairs:
            yield from _sample([struck(*pair) for pair in itertools.combinations(singles, 2) if pair[0].n != pair[1].n], pairs, plan.seed)

    return _sweep(main, [_plan(seed, mode, max_steps) for seed in seeds], evolve, keep_going=keep_going)


def sweep_crashes(
    main: Program,
    *,
    seeds: Iterable[int] = (0,),
    mode: Mode | None = None,
    twice: float = 0,
    max_steps: int = MAX_STEPS,
    keep_going: bool = False,
) -> Tally:
    """Let the process die at each of its writes, before and after it; then again while it recovers from that.

    Args:
        main: keeps everything on `Simulation.disk`, and lives on it until a life ends by itself (`CrashStore.live`).
        seeds: which schedules.
        mode: as in `simulate`.
        twice: how many runs with a second crash, in the next life, per seed, drawn from all; `math.inf` is all of them.
        max_steps: task steps of one run.
        keep_going: whether to go on where a run goes wrong.

    Returns, raises: as `sweep_cancels`.
    """
    tally = Tally()
    for seed in seeds:
        plain = _plan(seed, mode, max_steps)
        baseline = tally.run(run_plan, main, plain, keep_going=keep_going)
        again: list[Plan] = []
        for first in _crashes(baseline, 0):
            plan = Plan(seed=seed, mode=plain.mode, jumps=False, max_steps=max_steps, crashes=(first,))
            recovered = tally.run(run_plan, main, plan, keep_going=keep_going)
            again += [
                Plan(seed=seed, mode=plain.mode, jumps=False, max_steps=max_steps, crashes=(first, second))
                for second in _crashes(recovered, 1)
            ]
        for plan in _sample(again, twice, seed):
            tally.run(run_plan, main, plan, keep_going=keep_going)
    return tally


def _crashes(simulation: Simulation | None, life: int) -> Sequence[CrashAt]:
    writes = [] if simulation is None else simulation.disk.writes
    count = writes[life] if life < len(writes) else 0
    return [CrashAt(n, how) for n in range(1, count + 1) for how in HOW_CRASHED]
