"""Hypothesis state machines over Trio: sync rules, one Trio run, a drawn schedule, and a clock that only rules move.

The machine is the host of a Trio run in guest mode, in the same thread. Between two rules the run does not move, so invariants may
look at anything. A rule starts tasks and says how far the run goes: some scheduler rounds, until all tasks wait, or some virtual
seconds. So the operations of several rules overlap, and the drawn seed decides how exactly: Trio asks an object for the order of each
round (as it does for Hypothesis' own plugin), and here that object is a `Schedule`.

Nothing else is random, no thread runs at the same time as the run (`lockstep_threads`), and the clock is virtual. So the same draws
give the same run, and failures replay and shrink. This needs private names of Trio; `check_trio` says whether Trio still has them.
"""

import contextlib
import hashlib
import math
import queue
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, Literal, TypeVar

import outcome
import trio
import trio.testing
from hypothesis.stateful import RuleBasedStateMachine

from trio_sagents.testing._simulation import waiting_tasks, waits_for_outside
from trio_sagents.testing._threads import lockstep_threads
from trio_sagents.testing._trio_hooks import age_of, check_trio, drop_shields, hold_back, steered, watch_jumps

T = TypeVar("T")
Mode = Literal["shuffle", "delay", "priority"]
MODES: Final[Sequence[Mode]] = ("shuffle", "delay", "priority")
"""How a schedule treats the runnable tasks of a round: all in a random order; some held back for a round; or only one."""
MOST_TICKS: Final = 200_000
"""How many passes of the event loop a command may take; a command that takes more has a task that never waits."""
PATIENCE: Final = 5.0
"""How many real seconds a run may wait for the outside; with `lockstep_threads`, it waits only for sockets and pipes."""


class Schedule:
    """Decides which of the runnable tasks run now; takes the place of Trio's own random numbers.

    Args:
        seed: the same seed gives the same decisions.
        mode: see `MODES`. "delay" holds each task back with probability 0.3, for any number of rounds. "priority" runs one task a
            round, the task with the highest random priority, and sometimes lowers the priority of a running task.
    """

    def __init__(self, seed: int, mode: Mode = "shuffle") -> None:
        self.mode = mode
        self._random = random.Random(seed)
        self._priorities: dict[int, float] = {}
        self._trace = hashlib.sha256()
        self.rounds: int = 0

    @property
    def trace(self) -> str:
        """A digest of which tasks ran in which order so far."""
        return self._trace.hexdigest()

    def random(self) -> float:
        """Return a number from 0 to 1; Trio asks for it if schedules are not deterministic."""
        return self._random.random()

    def uniform(self, low: float, high: float) -> float:
        """Return a number between two others; Trio's own clock begins at such a number."""
        return self._random.uniform(low, high)

    def shuffle(self, batch: list[Any]) -> None:  # type: ignore[explicit-any]  # Trio's tasks, with private parts
        """Put a round in order; the tasks that are held back become runnable again."""
        self.rounds += 1
        if self.mode == "priority":
            held = self._keep_first(batch)
        else:
            self._random.shuffle(batch)
            held = self._hold_back(batch) if self.mode == "delay" else []
        hold_back(held)
        self._trace.update("|".join(task.name for task in batch).encode() + b"\n")

    def _hold_back(self, batch: list[Any]) -> list[Any]:  # type: ignore[explicit-any]  # as above
        held = [task for task in batch[1:] if self._random.random() < 0.3]
        batch[:] = [task for task in batch if task not in held]
        return held

    def _keep_first(self, batch: list[Any]) -> list[Any]:  # type: ignore[explicit-any]  # as above
        for task in batch:
            self._priorities.setdefault(age_of(task), self._random.random())
        batch.sort(key=lambda task: self._priorities[age_of(task)])
        chosen = batch.pop()
        held = list(batch)
        batch[:] = [chosen]
        if self._random.random() < 0.1:
            self._priorities[age_of(chosen)] -= 1.0
        return held


@contextlib.contextmanager
def scheduled(schedule: Schedule) -> Iterator[Schedule]:
    """While the block is open, have Trio ask `schedule` for the order of each round."""
    check_trio()
    with steered(schedule):
        yield schedule


class _Watch(trio.abc.Instrument):
    """Detects that a run has stopped and nothing can continue it."""

    def __init__(self) -> None:
        self.standing: str = ""
        """Which task waits where; empty while the run continues, or waits for a socket or a pipe."""

    def before_io_wait(self, timeout: float) -> None:
        """Trio calls this in each pass. If Trio would wait for longer than anything takes, every task waits."""
        stands = timeout > PATIENCE and not waits_for_outside()
        self.standing = "; ".join(f"{who} at {place}" for who, place in waiting_tasks()) if stands else ""


class TrioStateMachine(RuleBasedStateMachine):
    """A `RuleBasedStateMachine` whose rules drive one Trio run. Call `begin` in an `@initialize` rule.

    Override `finish` to check something at the end of an example that has not failed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock: trio.testing.MockClock = trio.testing.MockClock()
        """The clock; only `advance` and `jump` move it."""
        self.nursery: trio.Nursery
        """For tasks of the machine; an exception of such a task fails the example."""
        self.has_failed: bool = False
        """Whether a rule or an invariant has failed, as far as the machine has seen."""
        self._host: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._ended: outcome.Outcome[None] | None = None
        self._command: Callable[[], Awaitable[object]] | None = None
        self._answer: outcome.Outcome[object] | None = None
        self._is_begun = False
        self._is_leaving = False
        self._token: trio.lowlevel.TrioToken
        self._watch = _Watch()
        self._undo = contextlib.ExitStack()

    def begin(self, seed: int, mode: Mode = "shuffle") -> Schedule:
        """Start the run, and return its schedule."""
        schedule = self._undo.enter_context(scheduled(Schedule(seed, mode)))
        self._undo.enter_context(lockstep_threads())
        self._is_begun = True
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._host.put,
            done_callback=self._note_end,
            clock=self.clock,
            instruments=[self._watch],
        )
        self.do(trio.lowlevel.checkpoint)
        return schedule

    def _note_end(self, result: "outcome.Outcome[None]") -> None:
        self._ended = result

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self.nursery:
            while not self._is_leaving:
                command, self._command = self._command, None
                if command is None:
                    await trio.lowlevel.checkpoint()
                    continue
                try:
                    self._answer = outcome.Value(await command())
                except Exception as exc:  # raised again in the rule that gave the command
                    self._answer = outcome.Error(exc)

    def _cut(self) -> None:
        self._is_leaving = True
        watch_jumps(self.clock, self._stop_jumping)
        self.clock.autojump_threshold = 0
        self.nursery.cancel_scope.cancel()

    def _stop_jumping(self) -> None:
        if trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf:
            self.clock.autojump_threshold = math.inf  # otherwise Trio would look for the next deadline for ever, and there is none

    def _unshield(self) -> None:
        drop_shields()
        self.clock.autojump_threshold = 0

    def _pump(self, is_done: Callable[[], bool]) -> None:
        for _ in range(MOST_TICKS):
            if is_done() or self._ended is not None:
                return
            if self._watch.standing and self._host.empty():
                raise AssertionError(
                    f"the run waits for something that cannot come: only `advance` and `jump` move time; {self._watch.standing}"
                )
            try:
                tick = self._host.get(timeout=PATIENCE)
            except queue.Empty:
                raise AssertionError("the run waits for something that cannot come") from None
            tick()
        raise AssertionError(f"a command takes more than {MOST_TICKS} passes of the event loop")

    def do(self, function: Callable[..., Awaitable[T]], *args: object) -> T:  # type: ignore[explicit-any]  # any function
        """Return `await function(*args)`, called in the run. The run does not move before and after the call.

        Raises:
            AssertionError: the call cannot end, because every task waits and the clock does not move; or the call does not end within very
                many passes of the event loop.
            RuntimeError: `begin` was not called.
            What the function raised, or the error that ended the run.
        """
        if not self._is_begun:
            raise RuntimeError("there is no run yet: call begin(seed) in an @initialize rule")
        self._answer, self._command = None, partial(function, *args)
        try:
            self._pump(lambda: self._answer is not None)
            if self._answer is None:
                assert self._ended is not None
                self._ended.unwrap()
                raise AssertionError("the run has ended")
            result: T = self._answer.unwrap()
        except BaseException:
            self.has_failed = True
            raise
        return result

    # ── how far the run goes

    def tick(self, rounds: int) -> None:
        """Let some scheduler rounds pass."""
        self.do(_pass_rounds, rounds)

    def settle(self) -> None:
        """Let the run continue until every task waits."""
        self.do(trio.testing.wait_all_tasks_blocked)

    def jump(self, seconds: float) -> None:
        """Move the clock, and run nothing: all deadlines up to that time expire together, at the same time as what the next rules do."""
        self.clock.jump(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass: the deadlines expire one after the other, each with everything that follows from it."""
        self.do(self._advance, seconds)

    async def _advance(self, seconds: float) -> None:
        end = trio.current_time() + seconds
        while True:
            await trio.testing.wait_all_tasks_blocked()
            left = end - trio.current_time()
            if left <= 0:
                return
            self.clock.jump(max(0.0, min(left, trio.lowlevel.current_statistics().seconds_to_next_deadline)))

    def seconds_to_deadline(self) -> float:
        """Return the seconds to the next deadline of any task; `math.inf` if there is none."""
        return self.do(_seconds_to_deadline)

    # ── the end

    def finish(self) -> None:
        """Check what must hold at the end; this method checks nothing."""

    def teardown(self) -> None:
        """End the run, in any state."""
        try:
            if self._is_begun and not self.has_failed:
                self.finish()
        finally:
            try:
                self._leave()
            finally:
                self._undo.close()

    def _leave(self) -> None:
        if not self._is_begun or self._ended is not None:
            return
        try:
            self._pump_to_end(self._cut)
        except AssertionError:
            # Something hangs in a shield; a run that is left behind would disturb the next example.
            self._pump_to_end(self._unshield)
            raise
        assert self._ended is not None
        if not self.has_failed:
            self._ended.unwrap()

    def _pump_to_end(self, action: Callable[[], object]) -> None:
        self._watch.standing = ""  # the action will wake the run
        self._token.run_sync_soon(action)
        self._pump(lambda: False)


async def _pass_rounds(rounds: int) -> None:
    for _ in range(rounds):
        await trio.lowlevel.checkpoint()


async def _seconds_to_deadline() -> float:
    await trio.testing.wait_all_tasks_blocked()
    return trio.lowlevel.current_statistics().seconds_to_next_deadline
