"""What programs of users do to the simulator and its sweeps, and what these say then."""

import ast
import re
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from trio_sagents.testing import (
    CancelAt,
    CrashAt,
    Deadlock,
    FaultAt,
    Plan,
    Runaway,
    Simulation,
    run_plan,
    simulate,
    simulate_many,
    sweep_cancels,
    sweep_crashes,
    sweep_faults,
)

Program = Callable[[Simulation], Awaitable[Any]]


# ── programs that do not end


async def swallows_cancelled(simulation: Simulation) -> None:
    """Take a cancellation for an error, and continue."""
    while True:
        try:
            await trio.sleep(1)
        except trio.Cancelled:  # noqa: ASYNC103  # on purpose
            simulation.say("what was that?")


async def swallows_in_a_task(simulation: Simulation) -> None:
    """Let a task swallow what ends it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(swallows_cancelled, simulation)


async def runs_in_a_shield(simulation: Simulation) -> None:
    """Be busy in a shield, where no cancellation arrives."""
    with trio.CancelScope(shield=True):
        while True:
            await trio.lowlevel.checkpoint()


async def swallows_everything(simulation: Simulation) -> None:
    """Continue, whatever is raised."""
    while True:
        try:
            await trio.lowlevel.checkpoint()
        except BaseException:  # that is what it is about  # noqa: ASYNC103  # on purpose
            continue  # noqa: ASYNC104  # likewise


@pytest.mark.parametrize("program", [swallows_cancelled, swallows_in_a_task, runs_in_a_shield])
def test_runaway_when_it_cannot_be_cancelled(program: Program) -> None:
    """A program that continues although it is cancelled is reported as a runaway, and does not hang the simulation."""
    with pytest.raises(Runaway, match="more than 300 steps") as found:
        simulate(program, 0, max_steps=300)

    assert f"tests.unit.testing.test_programs:{program.__name__}" in "\n".join(found.value.__notes__)


@pytest.mark.slow
def test_runaway_when_it_cannot_be_ended_at_all() -> None:
    """A program that continues whatever is raised in it is cut off. It runs in a process of its own, because its coroutines stay behind."""
    command = [sys.executable, "-m", "trio_sagents.testing", "replay", "--seed", "0", "--max-steps", "300", "--lines", "1"]
    done = subprocess.run(
        [*command, "tests/unit/testing/test_programs.py:swallows_everything"], capture_output=True, text=True, check=False, timeout=60
    )

    assert 1 == done.returncode
    assert "Runaway: more than 300 steps, with seed 0" in done.stdout


@pytest.mark.parametrize("how", ["in a shield", "again and again"])
def test_deadlock_when_it_cannot_be_cancelled(how: str) -> None:
    """A program that keeps waiting although it is cancelled is reported as a deadlock, and does not hang the simulation."""

    async def wait(simulation: Simulation) -> None:
        while True:
            with trio.CancelScope(shield=how == "in a shield"):
                try:
                    await trio.sleep_forever()
                except trio.Cancelled:  # noqa: ASYNC103  # on purpose
                    simulation.say("what was that?")

    with pytest.raises(Deadlock, match="in wait"):
        simulate(wait, 0, max_steps=300)


def test_deadlock_when_it_waits_for_a_socket() -> None:
    """A program that waits for the outside is told that this is not simulated."""

    async def main(simulation: Simulation) -> None:
        here, there = socket.socketpair()
        with here, there, trio.socket.from_stdlib_socket(here) as connection:
            here.setblocking(False)
            await connection.recv(1)

    with pytest.raises(Deadlock, match="not simulated"):
        simulate(main, 0)


# ── traces


async def write(written: list[int], number: int) -> None:
    """Write a number, twice."""
    for _ in range(2):
        await trio.lowlevel.checkpoint()
        written.append(number)


async def namesakes(simulation: Simulation) -> tuple[int, ...]:
    """Run four tasks with the same name."""
    written: list[int] = []
    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(write, written, number)
    return tuple(written)


def test_trace_when_tasks_have_one_name() -> None:
    """Tasks with the same name are told apart: another order gives another trace."""
    runs = [simulate(namesakes, seed) for seed in range(60)]
    traces = {simulation.trace: result for simulation, result in runs}

    assert all(traces[simulation.trace] == result for simulation, result in runs)
    assert len({result for _, result in runs}) > 30


class Nap:
    """A task function that is an object, as a partial of a library may be."""

    async def __call__(self) -> None:
        """Sleep."""
        await trio.sleep(1)


def test_trace_when_a_task_is_an_object() -> None:
    """The address of an object is not part of a trace, because another process has other addresses."""
    kept: list[Nap] = []

    async def naps(simulation: Simulation) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                kept.append(Nap())
                nursery.start_soon(kept[-1])

    assert simulate(naps, 3)[0].trace == simulate(naps, 3)[0].trace
    assert 4 == len({repr(nap) for nap in kept})


# ── how to see it again


class Programs:
    """Programs that are not plain functions."""

    @staticmethod
    async def fails(simulation: Simulation) -> None:
        """Fail."""
        raise ValueError("planned")


def test_command_when_the_program_is_a_static_method() -> None:
    """What a class holds as it is has a command, too."""
    assert str(Plan(seed=4).command(Programs.fails)).endswith("--seed 4 --mode delay tests.unit.testing.test_programs:Programs.fails")


def test_failure_when_its_program_has_no_name() -> None:
    """If no command can name the program, the notes have the whole plan as Python code."""

    async def fails(simulation: Simulation) -> None:
        await simulation.named("worker", trio.sleep, 1)
        raise ValueError("planned")

    plan = Plan(
        seed=3,
        mode="pct",
        depth=4,
        horizon=50,
        jumps=False,
        cancels=(CancelAt("worker", 1, "ready"),),
        faults=(FaultAt(7, "slow"),),
        crashes=(CrashAt(2, "after"),),
        max_steps=999,
    )
    with pytest.raises(ValueError) as found:
        run_plan(fails, plan)
    match = re.search(r"run_plan\(program, (Plan\(.*\))\);", "\n".join(found.value.__notes__))
    assert match is not None
    again = eval(match[1], {kind.__name__: kind for kind in (Plan, CancelAt, FaultAt, CrashAt)})

    assert str(plan) == str(again)
    assert (plan.horizon, plan.max_steps) == (again.horizon, again.max_steps)
    assert isinstance(ast.parse(match[1]), ast.Module)


# ── what cannot be meant


async def idle(simulation: Simulation) -> None:
    """Do next to nothing."""
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: simulate(idle, "7"), TypeError, "seed must be an int, not '7'"),
        (lambda: simulate(idle, None), TypeError, "seed"),
        (lambda: simulate_many(idle, [1.5]), TypeError, "seed"),
        (lambda: simulate(idle, 0, mode="random"), ValueError, "mode must be one of"),
        (lambda: simulate(idle, 0, depth=0), ValueError, "depth must be at least 1"),
        (lambda: simulate(idle, 0, horizon=1), ValueError, "horizon must be at least 2"),
        (lambda: simulate(idle, 0, max_steps=0), ValueError, "max_steps must be at least 1"),
        (lambda: simulate(idle, 0, cancels=CancelAt("a", 1)), TypeError, "cancels must be a sequence of CancelAt"),
        (lambda: simulate(idle, 0, faults=["1:before"]), TypeError, "faults must be a sequence of FaultAt"),
        (lambda: simulate(idle, 0, crashes=[FaultAt(1)]), TypeError, "crashes must be a sequence of CrashAt"),
        (lambda: CancelAt("a", 0), ValueError, "n of CancelAt must be a number from 1, not 0"),
        (lambda: CancelAt("a", 1, "soon"), ValueError, "how of CancelAt must be one of blocked, ready, not 'soon'"),
        (lambda: FaultAt(0), ValueError, "n of FaultAt"),
        (lambda: FaultAt(1, "sometimes"), ValueError, "how of FaultAt"),
        (lambda: CrashAt(-1), ValueError, "n of CrashAt"),
        (lambda: CrashAt(1, "during"), ValueError, "how of CrashAt"),
        (lambda: sweep_faults(idle, kinds=["sometimes"]), ValueError, "a kind of fault must be one of"),
        (lambda: sweep_cancels(idle, names="worker"), TypeError, "names must be a sequence of names"),
        (lambda: simulate(lambda simulation: 5, 0), TypeError, "an async function of its Simulation"),
        (lambda: simulate(5, 0), TypeError, "an async function of its Simulation"),
    ],
)
def test_arguments_when_they_cannot_be_meant(call: Callable[[], object], error: type[Exception], match: str) -> None:
    """What cannot be meant is refused in words, and is not taken for a search that found nothing."""
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize(
    ("sweep", "match"),
    [
        (sweep_cancels, "no task of the program yields that it runs through Simulation.named"),
        (sweep_faults, "no call of the program goes through Simulation.faults"),
        (sweep_crashes, "no life of the program writes to Simulation.disk"),
    ],
)
def test_sweep_when_it_finds_no_place(sweep: Callable[..., object], match: str) -> None:
    """A sweep that strikes nowhere says so: nothing was proved."""
    with pytest.raises(ValueError, match=match):
        sweep(idle, seeds=range(2), keep_going=True)


def test_sweep_when_a_name_is_unknown() -> None:
    """A name that nobody has is refused, with the names that there are."""

    async def main(simulation: Simulation) -> None:
        await simulation.named("worker", idle, simulation)

    assert 3 == sweep_cancels(main, names=["worker"]).runs
    with pytest.raises(ValueError, match="the name 'wroker'; there are: worker"):
        sweep_cancels(main, names=["worker", "wroker"])
