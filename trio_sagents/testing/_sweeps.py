"""Sweeps: run a program once without a fault, and count its places; then run it once for each place, where something goes wrong.

The program itself checks at its end what must always hold: a run that raises is a finding. A sweep that finds no place
is an error, because it would prove nothing.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

from trio_sagents.testing._plan import FAULT_KINDS, MAX_STEPS, CancelAt, CrashAt, FaultAt, FaultKind, Plan, mode_of
from trio_sagents.testing._scheduler import Mode
from trio_sagents.testing._simulation import Simulation
from trio_sagents.testing._simulator import run_plan
from trio_sagents.testing._tally import Program, Tally

Evolve = Callable[["Plan", "Simulation"], Iterable[Plan]]
HOW_CANCELLED: Final[Sequence[Literal["blocked", "ready"]]] = ("blocked", "ready")
HOW_CRASHED: Final[Sequence[Literal["before", "after"]]] = ("before", "after")


def _plan(seed: int, mode: Mode | None, max_steps: int) -> Plan:
    return Plan(seed=seed, mode=mode_of(seed, mode), jumps=False, max_steps=max_steps)


def _sweep(main: Program, plans: Iterable[Plan], evolve: Evolve, *, keep_going: bool, nothing: str) -> Tally:
    tally = Tally()
    baselines = 0
    for plan in plans:
        baseline = tally.run(run_plan, main, plan, keep_going=keep_going)
        baselines += 1
        if baseline is not None:
            for struck in evolve(plan, baseline):
                tally.run(run_plan, main, struck, keep_going=keep_going)
    _check_swept(tally, baselines, nothing)
    return tally


def _check_swept(tally: Tally, baselines: int, nothing: str) -> None:
    if tally.runs == baselines and not tally.violations:
        raise ValueError(f"{nothing}: this sweep proves nothing")


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
    """Cancel each named task at each of its yields, both while it is blocked and when it is ready.

    Args:
        main: the program; it runs what is to be cancelled through `Simulation.named`.
        seeds: the numbers of the schedules.
        mode: as for `simulate`.
        names: the named tasks to cancel, each of which must yield somewhere; None is all of them.
        max_steps: the number of task steps of one run.
        keep_going: whether to continue after a run that goes wrong.

    Returns:
        How many runs and steps there were, and what was found.

    Raises:
        ValueError: nothing was cancelled, because no task is named, or one of `names` never yielded.
        TypeError: `names` is a text.
        What the first run that goes wrong raises, unless `keep_going`.
    """
    if isinstance(names, str):
        raise TypeError(f"names must be a sequence of names, not {names!r}")
    seen: set[str] = set()

    def evolve(plan: Plan, baseline: Simulation) -> Iterable[Plan]:
        seen.update(baseline.yields)
        for name, yields in baseline.yields.items():
            if names is None or name in names:
                for n, how in itertools.product(range(1, yields + 1), HOW_CANCELLED):
                    yield Plan(seed=plan.seed, mode=plan.mode, jumps=False, max_steps=max_steps, cancels=(CancelAt(name, n, how),))

    plans = [_plan(seed, mode, max_steps) for seed in seeds]
    nothing = "no task of the program yields that it runs through Simulation.named"
    tally = _sweep(main, plans, evolve, keep_going=keep_going, nothing=nothing)
    if not tally.violations and (unknown := [name for name in names or () if name not in seen]):
        raise ValueError(f"no task yields that has the name {', '.join(map(repr, unknown))}; there are: {', '.join(sorted(seen))}")
    return tally


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
    """Let each call that passes through `Simulation.faults` go wrong.

    Args:
        main: the program; it gives `Simulation.faults` to what it depends on.
        seeds: the numbers of the schedules.
        mode: as for `simulate`.
        kinds: how calls go wrong; each call goes wrong in each of these ways, in separate runs.
        pairs: how many pairs of faults to run besides, per seed, drawn from all pairs; `math.inf` is all of them.
        max_steps: the number of task steps of one run.
        keep_going: whether to continue after a run that goes wrong.

    Returns:
        How many runs and steps there were, and what was found.

    Raises:
        ValueError: no call goes through `Simulation.faults`, or one of `kinds` is unknown.
        What the first run that goes wrong raises, unless `keep_going`.
    """
    for kind in kinds:
        if kind not in FAULT_KINDS:
            raise ValueError(f"a kind of fault must be one of {', '.join(FAULT_KINDS)}, not {kind!r}")

    def evolve(plan: Plan, baseline: Simulation) -> Iterable[Plan]:
        def struck(*faults: FaultAt) -> Plan:
            return Plan(seed=plan.seed, mode=plan.mode, jumps=False, max_steps=max_steps, faults=faults)

        singles = [FaultAt(n, kind) for n in range(1, len(baseline.faults.calls) + 1) for kind in kinds]
        yield from (struck(fault) for fault in singles)
        if pairs:
            yield from _sample([struck(*pair) for pair in itertools.combinations(singles, 2) if pair[0].n != pair[1].n], pairs, plan.seed)

    plans = [_plan(seed, mode, max_steps) for seed in seeds]
    return _sweep(main, plans, evolve, keep_going=keep_going, nothing="no call of the program goes through Simulation.faults")


def sweep_crashes(
    main: Program,
    *,
    seeds: Iterable[int] = (0,),
    mode: Mode | None = None,
    twice: float = 0,
    max_steps: int = MAX_STEPS,
    keep_going: bool = False,
) -> Tally:
    """Let the process die before and after each of its writes, and then again while it recovers.

    Args:
        main: the program; it stores everything on `Simulation.disk`, and repeats `CrashStore.live` until a life ends by itself.
        seeds: the numbers of the schedules.
        mode: as for `simulate`.
        twice: how many runs with a second crash in the next life, per seed, drawn from all; `math.inf` is all of them.
        max_steps: the number of task steps of one run.
        keep_going: whether to continue after a run that goes wrong.

    Returns:
        How many runs and steps there were, and what was found.

    Raises:
        ValueError: nothing was written to `Simulation.disk`.
        What the first run that goes wrong raises, unless `keep_going`.
    """
    tally = Tally()
    baselines = 0
    for seed in seeds:
        baselines += 1
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
    _check_swept(tally, baselines, "no life of the program writes to Simulation.disk")
    return tally


def _crashes(simulation: Simulation | None, life: int) -> Sequence[CrashAt]:
    writes = [] if simulation is None else simulation.disk.writes
    count = writes[life] if life < len(writes) else 0
    return [CrashAt(n, how) for n in range(1, count + 1) for how in HOW_CRASHED]
