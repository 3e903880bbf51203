"""The tools under the machines: schedules that steer Trio, threads in lockstep, a machine that drives a run."""

import threading

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import get_state_machine_test, initialize, rule
from trio._core import _run as trio_run

from trio_sagents.testing import machines
from trio_sagents.testing.machines import MODES, Mode, Schedule, TrioStateMachine, check_trio, lockstep_threads, scheduled


async def race() -> str:
    """Return the order in which four tasks get through three rounds."""
    order: list[str] = []

    async def run(name: str) -> None:
        for _ in range(3):
            order.append(name)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for name in "abcd":
            nursery.start_soon(run, name, name=name)
    return "".join(order)


def race_of(seed: int, mode: Mode) -> tuple[str, str]:
    """Return the order and the trace that a schedule gives."""
    with scheduled(Schedule(seed, mode)) as schedule:
        order = trio.run(race)
    return order, schedule.trace


@pytest.mark.parametrize("mode", MODES)
def test_schedule_when_the_seed_is_the_same(mode: Mode) -> None:
    """The same seed gives the same run."""
    assert race_of(7, mode) == race_of(7, mode)


@pytest.mark.parametrize("mode", MODES)
def test_schedule_when_the_seed_is_another(mode: Mode) -> None:
    """Other seeds give other interleavings: a canary for Trio's private names, which must not only be there, but steer."""
    found = [race_of(seed, mode) for seed in range(40)]

    assert len({order for order, _ in found}) > 20
    assert len({trace for _, trace in found}) > 20


def test_schedule_puts_back_what_was_there() -> None:
    """After the block Trio has its own random numbers again."""
    before = trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    race_of(0, "delay")

    assert before == (trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING)


def test_check_trio_when_a_name_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Trio without the private names is refused, by name, before anything runs."""
    check_trio()
    monkeypatch.delattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING")

    with pytest.raises(RuntimeError, match="_ALLOW_DETERMINISTIC_SCHEDULING"):
        check_trio()


async def test_lockstep_threads_run_in_another_thread(autojump_clock: trio.testing.MockClock) -> None:
    """The function runs in a real thread, its result and its errors come back, and a virtual clock does not jump over it."""
    begun = trio.current_time()
    with lockstep_threads(), trio.move_on_after(1.0) as scope:
        thread = await trio.to_thread.run_sync(threading.get_ident)
        with pytest.raises(ZeroDivisionError):
            await trio.to_thread.run_sync(lambda: 1 / 0)

    assert threading.get_ident() != thread
    assert not scope.cancelled_caught
    assert begun == trio.current_time()


async def test_lockstep_threads_when_cancelled() -> None:
    """As with Trio's own threads: a cancelled call does nothing, and a call that has begun gives its result."""
    done: list[int] = []
    with lockstep_threads(), trio.CancelScope() as scope:
        await trio.to_thread.run_sync(done.append, 1)
        await trio.to_thread.run_sync(scope.cancel)
        done.append(2)
        await trio.to_thread.run_sync(done.append, 3)

    assert [1, 2] == done
    assert scope.cancelled_caught


TRACES: list[tuple[int, str]] = []


class Racing(TrioStateMachine):
    """A machine whose rules start tasks that race."""

    @initialize(seed=st.integers(0, 1000), mode=st.sampled_from(MODES))
    def open(self, seed: int, mode: Mode) -> None:
        """Begin."""
        self.ran: list[int] = []
        self.begun = 0
        self.schedule = self.begin(seed, mode)

    @rule(count=st.integers(1, 3))
    def start_some(self, count: int) -> None:
        """Start some tasks, and run nothing."""
        for _ in range(count):
            self.begun += 1
            self.nursery.start_soon(self._sleep, self.begun)

    async def _sleep(self, number: int) -> None:
        await trio.sleep(1.0)
        self.ran.append(number)

    @rule()
    def wait(self) -> None:
        """Let a second pass, so that every sleeper is awake."""
        self.advance(1.0)
        assert self.begun == len(self.ran)

    def finish(self) -> None:
        """Note the trace."""
        self.advance(2.0)
        TRACES.append((len(self.ran), self.schedule.trace))
        assert sorted(self.ran) == list(range(1, self.begun + 1))


QUICK = settings(
    max_examples=30, stateful_step_count=10, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def test_machine_when_run_twice() -> None:
    """The same draws give the same runs; and over the examples the interleavings vary."""
    TRACES.clear()
    get_state_machine_test(Racing, settings=QUICK)()
    first = list(TRACES)
    TRACES.clear()
    get_state_machine_test(Racing, settings=QUICK)()

    assert first == TRACES
    assert len({trace for _, trace in first}) > len(first) // 2


class Failing(TrioStateMachine):
    """A machine one of whose tasks fails."""

    @initialize(seed=st.integers(0, 1000))
    def open(self, seed: int) -> None:
        """Begin."""
        self.begin(seed)

    @rule(late=st.booleans())
    def fail_some(self, late: bool) -> None:
        """Start a task that fails, perhaps later."""

        async def fail() -> None:
            await trio.sleep(late)
            raise LookupError("planted")

        self.nursery.start_soon(fail)
        self.settle()


@pytest.mark.slow
def test_machine_when_a_task_fails() -> None:
    """An error in a task of the machine fails the example, which shrinks to one step. The run is ended, and Trio is as before."""
    before = trio_run._r
    with pytest.raises(BaseExceptionGroup) as caught:
        get_state_machine_test(Failing, settings=QUICK)()

    assert caught.group_contains(LookupError, match="planted", depth=1)
    assert 1 == "\n".join(caught.value.__notes__).count("state.fail_some(")
    assert before is trio_run._r


class Stuck(TrioStateMachine):
    """A machine that waits for what cannot come."""

    @initialize()
    def open(self) -> None:
        """Begin."""
        self.begin(0)

    @rule()
    def wait(self) -> None:
        """Wait for ever."""
        self.do(trio.sleep_forever)


def test_machine_when_it_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that cannot end is an error at once, which says who waits where; nobody waits for patience to end."""
    monkeypatch.setattr(machines, "PATIENCE", 15.0)

    with pytest.raises(AssertionError, match=r"cannot come: .*_main at machines.py:\d+ in _main"):
        get_state_machine_test(Stuck, settings=settings(QUICK, max_examples=2))()


class Shielded(Stuck):
    """A machine with a task that ignores the end of the run."""

    @rule()
    def wait(self) -> None:
        """Leave a task that waits in a shield."""
        self.do(self._start)
        self.settle()

    async def _start(self) -> None:
        self.nursery.start_soon(self._wait)

    async def _wait(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()


def test_machine_when_its_end_hangs() -> None:
    """A task that cannot be cancelled is an error that names it, and is in the way of no other example."""
    with pytest.raises(AssertionError, match=r"cannot come: .*Shielded._wait at test_machines.py:\d+ in _wait"):
        get_state_machine_test(Shielded, settings=settings(QUICK, max_examples=3))()


class NeverBegun(TrioStateMachine):
    """A machine that forgets to begin."""

    @rule()
    def wait(self) -> None:
        """Do anything."""
        self.settle()


def test_machine_when_it_never_begins() -> None:
    """A rule of a machine without a run says at once what is missing."""
    with pytest.raises(RuntimeError, match="call begin"):
        get_state_machine_test(NeverBegun, settings=settings(QUICK, max_examples=1))()
