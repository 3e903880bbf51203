"""Seeded, adversarial schedules for Trio programs: one integer is one schedule, in virtual time.

Trio decides the order of the tasks that can run by asking `trio._core._run._r` to shuffle them, where deterministic scheduling
is allowed. Here an object of our own answers: it may also hold tasks back for a round, or run one task at a time by priority.
No other private name is used but the queue that tasks are put back on, and the clock's jump (`CANARIES` names them all; a test
looks at them, so a Trio that renames one fails there and not in the middle of a search).

Modes:
    shuffle: the tasks that can run, in any order.
    delay: likewise, and each may be held back for any number of rounds.
    pct: one task at a time, by random priorities that change at a few random steps.
"""

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

import attrs
import trio
import trio.testing
from trio._core import _run

T = TypeVar("T")
Mode: TypeAlias = Literal["shuffle", "delay", "pct"]
MODES: Final[Sequence[Mode]] = get_args(Mode)
CANARIES: Final = (
    (_run, "_r"),
    (_run, "_ALLOW_DETERMINISTIC_SCHEDULING"),
    (_run, "GLOBAL_RUN_CONTEXT"),
    (_run.CancelStatus, "parent"),
    (_run.CancelStatus, "_scope"),
    (trio.testing.MockClock, "_autojump"),
)
"""Every private name of Trio's that this module uses."""
HOLD: Final = 0.3
"""Mode delay: how likely a task is held back in a round."""
CHANGES: Final = 2
"""Mode pct: how often priorities change in one run."""


class SimulationError(BaseException):
    """The program misbehaved, as the simulator sees it. No `except Exception` swallows it."""


class Deadlock(SimulationError):
    """Every task waits, and no deadline is set."""


class Runaway(SimulationError):
    """The program took more steps than it was given."""


@attrs.define(eq=False)
class CancelAt:
    """Cancel a named task at its n-th yield.

    "blocked": what it waits for is aborted. "ready": that has succeeded already, and the cancellation strikes at the next
    checkpoint.
    """

    name: str
    n: int
    how: Literal["blocked", "ready"] = "blocked"
    was_hit: bool = False
    """Whether the task came that far."""


class _Scheduler(random.Random):
    """Stands in for Trio's source of randomness."""

    def __init__(self, seed: int, mode: Mode, horizon: int) -> None:
        super().__init__(seed)
        self.mode = mode
        self.priorities: dict[int, float] = {}
        self.rounds = 0
        self.lowest = 0.0
        self.changes = {self.randrange(1, horizon) for _ in range(CHANGES)}

    def shuffle(self, x: Any) -> None:  # type: ignore[explicit-any]  # as `Random` has it
        """Decide who runs in this round, and put the others back."""
        if len(x) < 2:
            return
        if self.mode == "pct":
            chosen = [self._first(x)]
        else:
            super().shuffle(x)
            chosen = x if self.mode == "shuffle" else [task for task in x if self.random() >= HOLD] or [x[0]]
        if len(chosen) < len(x):
            _run.GLOBAL_RUN_CONTEXT.runner.runq.extend(task for task in x if task not in chosen)  # pyright: ignore[reportAttributeAccessIssue]  # Trio's own, on purpose
            x[:] = chosen

    def _first(self, tasks: Sequence[Any]) -> Any:  # type: ignore[explicit-any]  # Trio's own tasks
        for task in tasks:
            if task._counter not in self.priorities:  # noqa: SLF001  # the order in which Trio sorts, too
                self.priorities[task._counter] = 1 + self.random()  # noqa: SLF001
        self.rounds += 1
        first = max(tasks, key=self._priority)
        if self.rounds in self.changes:
            self.lowest -= 1
            self.priorities[first._counter] = self.lowest  # noqa: SLF001
            first = max(tasks, key=self._priority)
        return first

    def _priority(self, task: Any) -> float:  # type: ignore[explicit-any]  # Trio's own task
        return self.priorities[task._counter]  # noqa: SLF001


@attrs.define(eq=False)
class Simulation(trio.abc.Instrument):
    """One run: what the program may ask, and what was seen of it."""

    seed: int
    max_steps: int
    cancels: Sequence[CancelAt] = ()
    steps: int = 0
    trace: list[str] = attrs.field(factory=list)
    """The names of the tasks, in the order in which they ran."""
    error: SimulationError | None = None
    _is_unshielded: bool = False
    _root: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _scopes: dict["trio.lowlevel.Task", tuple[str, trio.CancelScope]] = attrs.field(factory=dict)
    _yields: dict[str, int] = attrs.field(factory=dict)

    async def named(self, name: str, function: "Callable[..., Awaitable[T]]", *args: Any) -> "T | None":  # type: ignore[explicit-any]
        """Call `function(*args)` in this task, so that a `CancelAt` of this name reaches it; None where it was cancelled."""
        task = trio.lowlevel.current_task()
        with trio.CancelScope() as scope:
            self._scopes[task] = name, scope
            try:
                return await function(*args)
            finally:
                self._scopes.pop(task, None)
        return None

    def fail(self, error: SimulationError) -> None:
        """End the run with this error; the first one stands. A run that hangs in a shield then loses its shields."""
        if self.error is None:
            self.error = error
        elif self._is_unshielded:
            raise self.error
        else:
            self._is_unshielded = True
            for task in tuple(_run.GLOBAL_RUN_CONTEXT.runner.tasks):  # pyright: ignore[reportAttributeAccessIssue]  # Trio's own, on purpose
                status: _run.CancelStatus | None = task._cancel_status  # noqa: SLF001  # there is no public way to a task's scopes
                while status is not None:
                    status._scope.shield = False  # noqa: SLF001
                    status = status.parent
        self._root.cancel()

    def before_task_step(self, task: "trio.lowlevel.Task") -> None:
        """Trio calls this before a task runs."""
        self.steps += 1
        self.trace.append(task.name)
        if self.steps == self.max_steps:
            self.fail(Runaway(f"more than {self.max_steps} steps, with seed {self.seed}"))
        self._strike(task, "ready")

    def after_task_step(self, task: "trio.lowlevel.Task") -> None:
        """Trio calls this when a task yields."""
        found = self._scopes.get(task)
        if found is not None:
            self._yields[found[0]] = self._yields.get(found[0], 0) + 1
            self._strike(task, "blocked")

    def _strike(self, task: "trio.lowlevel.Task", how: str) -> None:
        found = self._scopes.get(task)
        if found is None:
            return
        name, scope = found
        for cancel in self.cancels:
            if cancel.name == name and cancel.how == how and cancel.n == self._yields.get(name, 0) and not cancel.was_hit:
                cancel.was_hit = True
                scope.cancel()

    async def run(self, main: "Callable[[Simulation], Awaitable[T]]") -> "T | None":
        """Run the program, under a scope that the simulator can cancel."""
        with self._root:
            return await main(self)
        return None


def _watched_clock(simulation: Simulation) -> trio.testing.MockClock:
    clock = trio.testing.MockClock(autojump_threshold=0)
    jump = clock._autojump  # noqa: SLF001  # there is no public way to hear of a jump

    def autojump() -> None:
        if math.isinf(trio.lowlevel.current_statistics().seconds_to_next_deadline):
            simulation.fail(Deadlock(f"every task waits and no deadline is set, with seed {simulation.seed}"))
        jump()

    clock._autojump = autojump  # type: ignore[method-assign]  # noqa: SLF001
    return clock


def simulate(
    main: "Callable[[Simulation], Awaitable[T]]",
    seed: int,
    *,
    mode: Mode | None = None,
    cancels: Sequence[CancelAt] = (),
    max_steps: int = 50_000,
    horizon: int = 200,
) -> "tuple[Simulation, T | None]":
    """Run a program once, in virtual time, on the schedule that `seed` stands for.

    Args:
        main: an async function of the `Simulation`.
        seed: which schedule.
        mode: None takes the modes by turns.
        cancels: which named tasks are cancelled, and when.
        max_steps: task steps that the program may take.
        horizon: mode pct: rounds within which priorities change.

    Returns:
        What was seen, and what `main` returned.

    Raises:
        Deadlock, Runaway: the program's fault. Whatever `main` raises leaves as it is.
    """
    simulation = Simulation(seed, max_steps, cancels)
    scheduler = _Scheduler(seed, MODES[seed % len(MODES)] if mode is None else mode, horizon)
    saved = {name: getattr(_run, name) for name in ("_r", "_ALLOW_DETERMINISTIC_SCHEDULING")}
    vars(_run).update(_r=scheduler, _ALLOW_DETERMINISTIC_SCHEDULING=True)  # pyright: ignore[reportAttributeAccessIssue]  # Trio's own, on purpose
    try:
        result = trio.run(simulation.run, main, clock=_watched_clock(simulation), instruments=[simulation])
    finally:
        vars(_run).update(saved)  # pyright: ignore[reportAttributeAccessIssue]  # Trio's own, on purpose
    if simulation.error is not None:
        raise simulation.error
    return simulation, result
