"""The simulator itself: one seed is one schedule, and it finds what it is there to find."""

import subprocess
import sys

import pytest
import trio

from trio_sagents.testing._simulate import CANARIES, MODES, CancelAt, Deadlock, Mode, Runaway, Simulation, simulate


async def race(simulation: Simulation) -> str:
    """Four tasks that write their names."""
    written: list[str] = []

    async def write(name: str) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            written.append(name)

    async with trio.open_nursery() as nursery:
        for name in "abcd":
            nursery.start_soon(write, name)
    return "".join(written)


@pytest.mark.parametrize(("owner", "name"), CANARIES, ids=lambda value: str(value))
def test_private_names_when_trio_changes(owner: object, name: str) -> None:
    """Each private name of Trio's that the simulator uses is there."""
    assert name in vars(owner)


def test_private_ways_when_trio_changes() -> None:
    """What the simulator takes for granted still holds: the runner asks for a shuffle, tasks have a counter, runq takes tasks."""

    async def look(simulation: Simulation) -> bool:
        task = trio.lowlevel.current_task()
        return isinstance(task._counter, int) and hasattr(trio._core._run.GLOBAL_RUN_CONTEXT.runner.runq, "extend")

    assert simulate(look, 0)[1] is True
    assert 1 < len({simulate(race, seed, mode="shuffle")[1] for seed in range(20)})


@pytest.mark.parametrize("mode", MODES)
def test_simulate_with_one_seed_twice(mode: Mode) -> None:
    """A seed is a schedule: the same in each run, another with another seed."""
    results = [simulate(race, seed, mode=mode)[1] for seed in range(40)]

    assert results == [simulate(race, seed, mode=mode)[1] for seed in range(40)]
    assert 10 < len(set(results))


def test_simulate_in_another_process() -> None:
    """A seed is the same schedule in another process, whatever its hash seed."""
    program = "import sys; sys.path.insert(0, 'tests'); from probes.test_simulate import *; print([simulate(race, seed)[1] for seed in range(12)])"  # noqa: E501  # one program
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": str(number), "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for number in range(2)
    }

    assert {f"{[simulate(race, seed)[1] for seed in range(12)]}\n"} == printed


def test_simulate_takes_no_time() -> None:
    """Time is virtual."""

    async def sleep(simulation: Simulation) -> float:
        await trio.sleep(1e6)
        return trio.current_time()

    assert 1e6 == simulate(sleep, 0)[1]


def test_simulate_a_deadlock() -> None:
    """A deadlock is an error at once."""

    async def wait(simulation: Simulation) -> None:
        await trio.Event().wait()

    with pytest.raises(Deadlock, match="seed 7"):
        simulate(wait, 7)


def test_simulate_a_shielded_deadlock() -> None:
    """A deadlock under a shield is an error, too, and not a hang."""

    async def wait(simulation: Simulation) -> None:
        with trio.CancelScope(shield=True):
            await trio.Event().wait()

    with pytest.raises(Deadlock):
        simulate(wait, 7)


def test_simulate_a_runaway() -> None:
    """A program that does not come to its end is an error after so many steps."""

    async def run(simulation: Simulation) -> None:
        while True:
            await trio.lowlevel.checkpoint()

    with pytest.raises(Runaway):
        simulate(run, 0, max_steps=1000)


@pytest.mark.parametrize("how", ["blocked", "ready"])
def test_cancel_at_each_yield(how: str) -> None:
    """A named task is cancelled at its n-th yield: "blocked" aborts what it waits for, "ready" lets that succeed first."""

    async def main(simulation: Simulation) -> list[int]:
        done: list[int] = []

        async def work() -> None:
            for _ in range(3):
                done.append(await receive.receive())

        send, receive = trio.open_memory_channel[int](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(simulation.named, "worker", work)
            for index in range(3):
                await trio.sleep(1)
                with trio.move_on_after(1):
                    await send.send(index)
        return done

    for n in (1, 2, 3):
        cancel = CancelAt("worker", n, how)
        assert list(range(n - 1 if how == "blocked" else n)) == simulate(main, 0, cancels=[cancel])[1]
        assert cancel.was_hit
    far = CancelAt("worker", 50, how)
    assert [0, 1, 2] == simulate(main, 0, cancels=[far])[1]
    assert not far.was_hit
