"""Seeded, adversarial schedules for Trio programs: one integer is one schedule, in virtual time.

The program is an async function of its `Simulation`. Everything that decides what happens is in a `Plan`, which is one command
line, so the error of every run says how to repeat that run.
"""

import gc
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import trio
import trio.testing

from trio_sagents.data.json import Opaque
from trio_sagents.testing._plan import HORIZON, MAX_STEPS, CancelAt, CrashAt, FaultAt, Plan, mode_of
from trio_sagents.testing._scheduler import MODES, Mode, Scheduler
from trio_sagents.testing._simulation import Deadlock, Runaway, Simulation, SimulationError
from trio_sagents.testing._tally import Tally
from trio_sagents.testing._threads import lockstep_threads
from trio_sagents.testing._trio_hooks import check_trio, steered, watch_jumps

__all__ = (
    "MODES",
    "CancelAt",
    "Deadlock",
    "Mode",
    "Runaway",
    "Simulation",
    "SimulationError",
    "run_plain",
    "run_plan",
    "simulate",
    "simulate_many",
)

T = TypeVar("T")
SHOWN: Final = 16
"""How many steps of the story are in the notes of an error."""


def simulate(
    main: "Callable[[Simulation], Awaitable[T]]",
    seed: int,
    *,
    mode: Mode | None = None,
    depth: int = 3,
    horizon: int = HORIZON,
    jumps: bool = True,
    cancels: Sequence[CancelAt] = (),
    faults: Sequence[FaultAt] = (),
    crashes: Sequence[CrashAt] = (),
    max_steps: int = MAX_STEPS,
) -> "tuple[Simulation, T | None]":
    """Run a program once, in virtual time, on the schedule of `seed`.

    Call this from a plain test, not inside of a Trio run. Functions that the program runs in threads run in lockstep with the program.

    Args:
        main: an async function of the `Simulation`.
        seed: the number of the schedule.
        mode: "shuffle", "delay" or "pct"; None lets the seed decide.
        depth: mode pct: how many steps must come in a certain order for the bugs that it looks for; >= 1.
        horizon: mode pct: the number of rounds within which priorities change; >= 2.
        jumps: whether the clock may jump while tasks can run, as on a slow machine; False for a program that measures time.
        cancels: which named tasks are cancelled, and when.
        faults: which calls of `Simulation.faults` go wrong.
        crashes: where the lives of `Simulation.disk` end.
        max_steps: task steps that the program may take; >= 1.

    Returns:
        The simulation, and what `main` returned.

    Raises:
        TypeError, ValueError: an argument has the wrong type or an invalid value; nothing was run.
        Deadlock, Runaway: the program's fault. What `main` raises is raised unchanged. Every error has notes: the plan, the last
            steps of the story, and the command that replays the run.
    """
    plan = Plan(
        seed=seed,
        mode=mode_of(seed, mode),
        depth=depth,
        horizon=horizon,
        jumps=jumps,
        cancels=cancels,
        faults=faults,
        crashes=crashes,
        max_steps=max_steps,
    )
    return run_plan(main, plan)


def run_plan(
    main: "Callable[[Simulation], Awaitable[T]]", plan: Plan, *, watched: Callable[[Simulation], None] | None = None
) -> "tuple[Simulation, T | None]":
    """Run a program as planned; return and raise as `simulate` does.

    Args:
        main: an async function of the `Simulation`.
        plan: everything that decides what happens.
        watched: called with the `Simulation` before the run begins; the story then says where each task waits.
    """
    if not callable(main):
        raise TypeError(
            f"a program must be an async function of its Simulation, not {main!r}: give the function itself, without calling it"
        )
    check_trio()
    simulation = Simulation(plan, is_watched=watched is not None)
    if watched is not None:
        watched(simulation)
    for cancel in plan.cancels:
        cancel.was_hit = False
    clock = trio.testing.MockClock(autojump_threshold=0)
    watch_jumps(clock, simulation.note_jump)
    scheduler = Scheduler(plan.seed, plan.mode, depth=plan.depth, horizon=plan.horizon)

    def jump(seconds: float) -> None:
        if not simulation.is_calm:
            clock.jump(seconds)

    scheduler.jump = jump if plan.jumps else None
    scheduler.before_round = simulation.end_if_hopeless
    try:
        with steered(scheduler), lockstep_threads(), _without_collections():
            result = trio.run(simulation.run, main, clock=clock, instruments=[simulation])
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:
        if simulation.error is None or simulation.error is exc:
            _explain(exc, simulation, main)
            raise
        _explain(simulation.error, simulation, main)
        if exc.__cause__ is simulation.error:
            # This error ended Trio, which calls it an internal error.
            raise simulation.error from None  # noqa: ASYNC104
        raise simulation.error from exc  # noqa: ASYNC104  # what the program raised while it was cancelled is not the reason
    if simulation.error is not None:
        _explain(simulation.error, simulation, main)
        raise simulation.error
    return simulation, result


@contextmanager
def _without_collections() -> Iterator[None]:
    # The garbage collector would run finalizers at steps that no seed decides.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _explain(error: BaseException, simulation: Simulation, main: Opaque) -> None:
    plan = simulation.plan
    steps = [step for step in simulation.story if not step.who.startswith("<")][-SHOWN:]  # without the tasks of Trio itself
    error.add_note(f"simulated with {plan}; {simulation.steps} steps, the last ones:")
    error.add_note("\n".join(f"  {step}" for step in steps))
    if simulation.faults.struck:
        error.add_note(f"went wrong on plan: {', '.join(simulation.faults.struck)}")
    command = plan.command(main)
    if command is not None:
        error.add_note(f"see it again: {command}")
    else:
        error.add_note(f"see it again: run_plan(program, {plan.source()}); a program that can be imported gets a command")


def simulate_many(
    main: "Callable[[Simulation], Awaitable[object]]",
    seeds: Iterable[int] = range(100),
    *,
    mode: Mode | None = None,
    jumps: bool = True,
    steps: float = float("inf"),
    max_steps: int = MAX_STEPS,
    keep_going: bool = False,
) -> Tally:
    """Run a program on many schedules.

    Args:
        main: an async function of the `Simulation`.
        seeds: the numbers of the schedules, in order; mode pct looks 2 to 5 deep, in turn.
        mode: as for `simulate`.
        jumps: as for `simulate`.
        steps: the number of task steps after which no further schedule begins.
        max_steps: the number of task steps of one run.
        keep_going: whether to continue after a schedule that goes wrong.

    Returns:
        How many runs and steps there were, and what was found.

    Raises:
        What the first schedule that goes wrong raises, unless `keep_going`.
    """
    tally = Tally()
    for seed in seeds:
        if tally.steps >= steps:
            break
        chosen = mode_of(seed, mode)
        depth = 2 + seed // len(MODES) % 4
        tally.run(run_plan, main, Plan(seed=seed, mode=chosen, depth=depth, jumps=jumps, max_steps=max_steps), keep_going=keep_going)
    return tally


def run_plain(main: "Callable[[Simulation], Awaitable[T]]") -> "T | None":
    """Run the same program with Trio's own scheduler and the real clock: nothing is cancelled, and nothing goes wrong as planned."""
    return trio.run(Simulation(Plan(seed=0)).run, main)
