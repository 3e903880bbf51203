"""One run, as the program and the simulator see it: which task ran when, which is to be cancelled, and what went wrong."""

import hashlib
import inspect
import re
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import attrs
import trio

from trio_sagents.data.json import Opaque
from trio_sagents.testing._crash import CrashStore
from trio_sagents.testing._faults import Faults
from trio_sagents.testing._plan import Plan
from trio_sagents.testing._trio_hooks import age_of, drop_shields, throw_into

T = TypeVar("T")
KEPT: Final = 2000
"""How many lines of the story are kept."""
_TRIO: Final = str(Path(trio.__file__).parent)
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


class SimulationError(BaseException):
    """The simulator found a mistake of the program. No `except Exception` catches this error."""


class Deadlock(SimulationError):
    """Every task waits, and there is no deadline."""


class Runaway(SimulationError):
    """The program took more steps than it may take."""


class Step(NamedTuple):  # a line is made at every step, and a tuple is the fastest to make
    """One line of the story: a task ran, or the program said something."""

    number: int
    time: float
    """The time of the virtual clock."""
    who: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.number:>7} {self.time:>12.6f} s  {self.who}{': ' if self.text else ''}{self.text}"


@attrs.define(eq=False)
class Simulation(trio.abc.Instrument):
    """One run: what the program may ask of it, and what the simulator has seen."""

    plan: Plan
    faults: Faults = attrs.field(default=attrs.Factory(lambda self: Faults(self.plan.faults), takes_self=True), init=False)
    """For `FaultyStore`, `FaultyModel` and `faulty_tool`: the plan says which of their calls go wrong."""
    disk: CrashStore = attrs.field(default=attrs.Factory(lambda self: CrashStore(self.plan.crashes), takes_self=True), init=False)
    """A store that dies as the plan says, for programs with several lives."""
    is_calm: bool = attrs.field(default=False, init=False)
    """Whether `calm` was called."""
    is_watched: bool = False
    """Whether the story says where each task waits; this is slow, and meant for a replay."""
    steps: int = 0
    story: deque[Step] = attrs.field(factory=lambda: deque(maxlen=KEPT), init=False)
    """The last steps, oldest first."""
    yields: dict[str, int] = attrs.field(factory=dict, init=False)
    """How often each named task has yielded."""
    error: SimulationError | None = None
    _unshielded: int = 0
    """How often the shields of a run that hangs were removed."""
    _root: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _struck: dict["trio.lowlevel.Task", tuple[str, Callable[[], None]]] = attrs.field(factory=dict)
    """By task: its name, and what cancels it."""
    _digest: "hashlib._Hash" = attrs.field(factory=hashlib.sha256)
    _marks: dict[int, bytes] = attrs.field(factory=dict)
    """By the age of a task: its name in the digest."""

    @property
    def seed(self) -> int:
        """The seed of the plan, for a program that draws its own numbers with a `random.Random`."""
        return self.plan.seed

    @property
    def trace(self) -> str:
        """A digest of which tasks ran in which order so far: the same for the same plan, in any process."""
        return str(self._digest.hexdigest())

    def say(self, text: str) -> None:
        """Add a line to the story."""
        self.story.append(Step(self.steps, trio.current_time(), trio.lowlevel.current_task().name, text))

    def calm(self) -> None:
        """Let nothing go wrong from now on: no fault, no cancellation, no jump. For the end of a program, which must recover in time."""
        self.is_calm = True
        self.faults.is_over = True

    async def named(self, name: str, function: "Callable[..., Awaitable[T]]", *args: Any) -> "T | None":  # type: ignore[explicit-any]
        """Call `function(*args)` in this task, so that a `CancelAt` of this name reaches it.

        Returns:
            What the function returned; None if the plan has cancelled it.

        Cancellation: as for `function`.
        """
        task = trio.lowlevel.current_task()
        with trio.CancelScope() as scope:
            around = self._struck.get(task)
            self._struck[task] = name, scope.cancel
            try:
                return await function(*args)
            finally:
                if around is None:
                    del self._struck[task]
                else:
                    self._struck[task] = around
        return None

    def follow(self, name: str, cancel: Callable[[], None]) -> None:
        """Have a `CancelAt` of this name call `cancel` from now on, for a task that something else cancels.

        Args:
            name: the name in the plan.
            cancel: called synchronously at the planned yield; a sweep counts every yield of the task.
        """
        self._struck[trio.lowlevel.current_task()] = name, cancel

    def fail(self, error: SimulationError) -> None:
        """End the run with this error; the first error counts. If the run hangs in a shield, its shields are removed."""
        if self.error is None:
            self.error = error
        else:
            self._unshield()
        self._root.cancel()

    def _unshield(self) -> None:
        self._unshielded += 1
        drop_shields()

    def note_jump(self) -> None:
        """Every task waits, and the clock jumps to the next deadline; if there is no deadline, the run is at its end."""
        if trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf"):
            waiting = "; ".join(f"{who} at {place}" for who, place in waiting_tasks())
            outside = "; a task waits for a socket, a pipe or a process, which are not simulated" if waits_for_outside() else ""
            self.fail(Deadlock(f"every task waits and no deadline is set, with seed {self.plan.seed}: {waiting}{outside}"))

    def before_task_step(self, task: "trio.lowlevel.Task") -> None:
        """Trio calls this before a task runs."""
        self.steps += 1
        self.story.append(Step(self.steps, trio.current_time(), task.name))
        self._digest.update(self._mark_of(task))
        if self.steps >= self.plan.max_steps:
            self._run_away(task)
        if self.error is not None and (self._unshielded > 2 or self.steps > self.plan.max_steps + KEPT + KEPT // 2):
            self._throw(task)
        if self.plan.cancels:
            self._strike(task, "ready")

    def _mark_of(self, task: "trio.lowlevel.Task") -> bytes:
        age = age_of(task)
        mark = self._marks.get(age)
        if mark is None:
            # Tasks with the same name differ by their number in this run. A name may be the `repr` of an object, with an address.
            number = age - next(iter(self._marks), age)
            mark = self._marks[age] = f"{number} {_ADDRESS.sub('', task.name)}\n".encode()
        return mark

    def _run_away(self, task: "trio.lowlevel.Task") -> None:
        if self.steps == self.plan.max_steps:
            self.fail(Runaway(f"more than {self.plan.max_steps} steps, with seed {self.plan.seed}; the last one: {task.name}"))
        elif self.steps == self.plan.max_steps + KEPT:
            self._unshield()  # it still runs although it was cancelled, perhaps in a shield

    def _throw(self, task: "trio.lowlevel.Task") -> None:
        if self.error is not None and not task.name.startswith("<"):  # not Trio's own
            throw_into(task, self.error)  # the task swallows the cancellation

    def end_if_hopeless(self) -> None:
        """Raise the error of a run that continues although it was ended. This is called between two rounds, where Trio raises it."""
        if self.error is not None and (self._unshielded > 8 or self.steps > self.plan.max_steps + 2 * KEPT):
            raise self.error

    def after_task_step(self, task: "trio.lowlevel.Task") -> None:
        """Trio calls this when a task yields."""
        if self.is_watched:
            self.story.append(Step(self.steps, trio.current_time(), task.name, f"waits at {place_of(task)}"))
        found = self._struck.get(task)
        if found is not None and not self.is_calm:
            self.yields[found[0]] = self.yields.get(found[0], 0) + 1
            self._strike(task, "blocked")

    def _strike(self, task: "trio.lowlevel.Task", how: str) -> None:
        found = self._struck.get(task)
        if found is None or self.is_calm:
            return
        name, strike = found
        for cancel in self.plan.cancels:
            if cancel.name == name and cancel.how == how and cancel.n == self.yields.get(name, 0) and not cancel.was_hit:
                cancel.was_hit = True
                self.story.append(Step(self.steps, trio.current_time(), task.name, f"is cancelled ({cancel}) at {place_of(task)}"))
                strike()

    async def run(self, main: "Callable[[Simulation], Awaitable[T]]") -> "T | None":
        """Run the program in a scope that the simulator can cancel. Cancellation: as for the program."""
        with self._root:
            running: Opaque = main(self)
            if not inspect.isawaitable(running):
                raise TypeError(f"a program must be an async function of its Simulation; {main!r} returned {running!r}")
            result: T = await running
            return result
        return None


def place_of(task: "trio.lowlevel.Task") -> str:
    """Return where a task waits, as "file.py:line in function": the innermost frame outside of Trio."""
    place = "its end"
    for frame, line in task.iter_await_frames():
        path = frame.f_code.co_filename
        if not path.startswith(_TRIO):
            place = f"{Path(path).name}:{line} in {frame.f_code.co_name}"
    return place


def waiting_tasks() -> Sequence[tuple[str, str]]:
    """Return (name, place) of each task of the program, parents first."""
    return [(task.name, place_of(task)) for task in _program_tasks()]


def waits_for_outside() -> bool:
    """Return whether a task waits for I/O; Trio itself waits for its wake-up, which is a read."""
    if sys.platform != "linux":
        return False
    waiting = trio.lowlevel.current_statistics().io_statistics
    return waiting.backend == "epoll" and waiting.tasks_waiting_read + waiting.tasks_waiting_write > 1


def _program_tasks() -> "Iterator[trio.lowlevel.Task]":
    root = trio.lowlevel.current_root_task()
    todo = [] if root is None else [root]
    while todo:
        task = todo.pop()
        if not task.name.startswith("<"):  # a task of Trio itself
            yield task
        todo.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
