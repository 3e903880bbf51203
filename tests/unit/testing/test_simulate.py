"""The simulator: one seed gives one schedule, and the simulator finds what it is made to find."""

import subprocess
import sys

import pytest
import trio

from trio_sagents.testing import CancelAt, Deadlock, Plan, Runaway, Simulation, _trio_hooks, run_plain, run_plan, simulate, simulate_many
from trio_sagents.testing._plan import CrashAt, FaultAt, read_cancel, read_crash, read_fault
from trio_sagents.testing._scheduler import MODES, Mode
from trio_sagents.testing._trio_hooks import PRIVATE_NAMES


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


@pytest.mark.parametrize(("owner", "name"), PRIVATE_NAMES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_private_names_when_trio_changes(owner: type, name: str) -> None:
    """Each private name of Trio's that the simulator uses is there. If not: the docstring of `_trio_hooks` says what to do."""
    fields = {field.name for field in getattr(owner, "__attrs_attrs__", ())}

    assert name in vars(owner) or name in fields, _trio_hooks.__doc__


def test_check_trio_when_a_name_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a private name nothing is simulated, and the error says which name, and where to change what."""
    monkeypatch.setattr(_trio_hooks, "PRIVATE_NAMES", ((trio, "no_such_name"),))

    with pytest.raises(RuntimeError, match=r"trio.no_such_name.*_trio_hooks.py"):
        simulate(race, 0)


def test_private_ways_when_trio_changes() -> None:
    """What the simulator takes for granted still holds: the runner asks for a shuffle, and runs what it is left, and only that."""

    async def look(simulation: Simulation) -> int:
        return trio.lowlevel.current_task()._counter

    assert isinstance(simulate(look, 0)[1], int)
    for mode in MODES:
        assert 5 < len({simulate(race, seed, mode=mode)[1] for seed in range(20)})
        assert {"aaabbbcccddd"} == {"".join(sorted(simulate(race, seed, mode=mode)[1])) for seed in range(20)}
    starved = {simulate(race, seed, mode="pct")[1] for seed in range(60)}
    assert any(text.startswith(("aaa", "bbb", "ccc")) for text in starved)


@pytest.mark.parametrize("mode", MODES)
def test_simulate_with_one_seed_twice(mode: Mode) -> None:
    """A seed is a schedule: the same in each run, another with another seed."""
    results = [simulate(race, seed, mode=mode)[1] for seed in range(40)]

    assert results == [simulate(race, seed, mode=mode)[1] for seed in range(40)]
    assert 10 < len(set(results))


@pytest.mark.slow
def test_simulate_in_another_process() -> None:
    """A seed is the same schedule in another process, whatever its hash seed."""
    program = "from tests.unit.testing.test_simulate import *; print([simulate(race, seed)[1] for seed in range(12)])"
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

    assert 1e6 == simulate(sleep, 0, jumps=False)[1]


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
        assert list(range(n - 1 if how == "blocked" else n)) == simulate(main, 0, jumps=False, cancels=[cancel])[1]
        assert cancel.was_hit
    far = CancelAt("worker", 50, how)
    assert [0, 1, 2] == simulate(main, 0, jumps=False, cancels=[far])[1]
    assert not far.was_hit


# ── time


async def measure(simulation: Simulation) -> float:
    """Return how late a task is that only had to run."""
    start = trio.current_time()
    for _ in range(200):
        await trio.lowlevel.checkpoint()
    return trio.current_time() - start


def test_jumps_when_tasks_can_run() -> None:
    """The clock jumps while tasks run, as on a slow machine; the order of the tasks is the same without jumps."""
    late = [simulate(measure, seed)[1] for seed in range(10)]

    assert any(seconds >= 30 for seconds in late)
    assert [0.0] * 10 == [simulate(measure, seed, jumps=False)[1] for seed in range(10)]
    assert simulate(race, 5)[1] == simulate(race, 5, jumps=False)[1]


def test_calm_when_called() -> None:
    """From then on no clock jumps, no call goes wrong, and nobody is cancelled."""

    async def main(simulation: Simulation) -> float | None:
        simulation.calm()
        await simulation.faults.call("any", trio.lowlevel.checkpoint)
        return await simulation.named("worker", measure, simulation)

    for seed in range(5):
        assert 0.0 == simulate(main, seed, cancels=[CancelAt("worker", 1)], faults=[FaultAt(1)])[1]


def test_threads_in_a_simulation() -> None:
    """A function in a thread runs in lockstep: the clock does not pass it by, and the schedule is the same each time."""

    async def main(simulation: Simulation) -> list[int]:
        done: list[int] = []

        async def work(number: int) -> None:
            done.append(await trio.to_thread.run_sync(lambda: number))

        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(work, number)
        return done

    orders = [tuple(simulate(main, seed, jumps=False)[1] or ()) for seed in range(20)]
    assert orders == [tuple(simulate(main, seed, jumps=False)[1] or ()) for seed in range(20)]
    assert 3 < len(set(orders))


def test_run_plain() -> None:
    """The same program runs unsimulated."""

    async def main(simulation: Simulation) -> str:
        await simulation.named("worker", trio.lowlevel.checkpoint)
        return await race(simulation)

    assert "aaabbbcccddd" == "".join(sorted(run_plain(main) or ""))


# ── what a failure says


async def broken(simulation: Simulation) -> None:
    """Fail where "b" comes before "a"."""
    simulation.say("about to race")
    text = await race(simulation)
    if text.startswith("b"):
        raise ValueError(text)


def failing_seed() -> int:
    """Return a seed with which `broken` fails under pct."""
    for seed in range(100):
        try:
            simulate(broken, seed, mode="pct")
        except ValueError:
            return seed
    raise AssertionError("no schedule fails")


def test_failure_when_explained() -> None:
    """An error says its seed, its scheduler, its last steps, and one command that replays it."""
    seed = failing_seed()
    with pytest.raises(ValueError) as found:
        simulate(broken, seed, mode="pct")
    notes = "\n".join(found.value.__notes__)

    assert f"seed {seed}, scheduler pct" in notes
    assert "write" in notes
    assert f"python -m trio_sagents.testing replay --seed {seed} --mode pct tests.unit.testing.test_simulate:broken" in notes


@pytest.mark.slow
def test_replay_when_it_fails() -> None:
    """The command fails the same way, prints the story with places, and ends with status 1; a seed that is fine ends with 0."""
    command = [
        sys.executable,
        "-m",
        "trio_sagents.testing",
        "replay",
        "--mode",
        "pct",
        "tests/unit/testing/test_simulate.py:broken",
        "--seed",
    ]
    failed, fine = (
        subprocess.run([*command, str(seed)], capture_output=True, text=True, check=False) for seed in (failing_seed(), fine_seed())
    )

    assert (1, 0) == (failed.returncode, fine.returncode), failed.stderr + fine.stderr
    assert "ValueError: b" in failed.stdout
    assert "about to race" in failed.stdout
    assert "waits at test_simulate.py:" in failed.stdout


def fine_seed() -> int:
    """Return a seed with which `broken` does not fail under pct."""
    for seed in range(100):
        try:
            simulate(broken, seed, mode="pct")
        except ValueError:
            continue
        return seed
    raise AssertionError("all schedules fail")


@pytest.mark.slow
@pytest.mark.parametrize("program", ["nothing", "tests.unit.testing.test_simulate:nothing", "no_such_module:x", "no_such_file.py:x"])
def test_replay_when_there_is_no_program(program: str) -> None:
    """A program that is not there is refused in words."""
    done = subprocess.run(
        [sys.executable, "-m", "trio_sagents.testing", "replay", "--seed", "1", program], capture_output=True, text=True, check=False
    )

    assert 2 == done.returncode
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr


def test_plan_when_it_is_a_command() -> None:
    """Everything in a plan is in its command, and is read back from it."""
    plan = Plan(
        seed=9,
        mode="pct",
        depth=5,
        jumps=False,
        cancels=[CancelAt("a:b", 3, "ready")],
        faults=[FaultAt(4, "after")],
        crashes=[CrashAt(2), CrashAt(1, "after")],
        max_steps=99,
    )

    assert (
        "--seed 9 --mode pct --depth 5 --max-steps 99 --no-jumps --cancel a:b:3:ready --fault 4:after --crash 2:before --crash 1:after"
    ) == " ".join(plan.options())
    assert FaultAt(4, "after") == read_fault("4:after")
    assert CrashAt(1, "after") == read_crash("1:after")
    for name in ("a", "a:b", "conversation:1:ready"):
        assert (name, 3, "ready") == ((cancel := read_cancel(str(CancelAt(name, 3, "ready")))).name, cancel.n, cancel.how)
    for read, text in ((read_cancel, "a:x:ready"), (read_fault, "1:sideways"), (read_crash, "1")):
        with pytest.raises(ValueError, match="not "):
            read(text)


def test_plan_when_its_mode_is_unknown() -> None:
    """An unknown mode is refused."""
    with pytest.raises(ValueError, match="shuffle, delay, pct"):
        Plan(seed=0, mode="random")  # type: ignore[arg-type]


def test_deadlock_when_explained() -> None:
    """A deadlock says who waits, and where."""

    async def wait_here(event: trio.Event) -> None:
        await event.wait()

    async def main(simulation: Simulation) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_here, trio.Event(), name="the waiter")

    with pytest.raises(Deadlock, match=r"the waiter at test_simulate.py:\d+ in wait_here"):
        simulate(main, 0)


def test_deadlock_when_the_program_raises_then() -> None:
    """The deadlock is reported, whatever the program raises while it is cut."""

    async def main(simulation: Simulation) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("from the clean-up")

    with pytest.raises(Deadlock) as found:
        simulate(main, 0)
    assert isinstance(found.value.__cause__, ValueError)


# ── many


def test_simulate_many_when_one_fails() -> None:
    """The first schedule that fails raises, with its notes. On request all schedules run, and the failures are counted."""
    with pytest.raises(ValueError) as found:
        simulate_many(broken, range(100))
    assert any("replay" in note for note in found.value.__notes__)

    tally = simulate_many(broken, range(100), keep_going=True)
    assert 100 == tally.runs
    assert 0 < tally.violations == len(tally.findings) < 100
    for finding in tally.findings[:3]:
        with pytest.raises(ValueError):
            run_plan(broken, finding.plan)


def test_simulate_many_when_its_budget_ends() -> None:
    """A budget of steps ends the search."""
    tally = simulate_many(race, range(1000), steps=500)

    assert 500 <= tally.steps < 600
    assert tally.runs < 100
