"""One run as its program sees it, and as the simulator does: who ran when, who is to be cancelled, and what went wrong."""

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
    """The program misbehaved, as the simulator sees it. No `except Exception` swallows it."""


class Deadlock(SimulationError):
    """Every task waits, and no deadline is set."""


class Runaway(SimulationError):
    """The program took more steps than it was given."""


class Step(NamedTuple):  # one is made at every step, and a tuple is made fastest
    """One line of the story: a task ran, or the program said something."""

    number: int
    time: float
    """On the virtual clock."""
    who: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.number:>7} {self.time:>12.6f} s  {self.who}{': ' if self.text else ''}{self.text}"


@attrs.define(eq=False)
class Simulation(trio.abc.Instrument):
    """One run: what the program may ask, and what was seen of it."""

    plan: Plan
    faults: Faults = attrs.field(default=attrs.Factory(lambda self: Faults(self.plan.faults), takes_self=True), init=False)
    """Hand it to `FaultyStore`, `FaultyModel` and `faulty_tool`: the plan says which of their calls go wrong."""
    disk: CrashStore = attrs.field(default=attrs.Factory(lambda self: CrashStore(self.plan.crashes), takes_self=True), init=False)
    """A store that dies as the plan says, for programs with several lives."""
    is_calm: bool = attrs.field(default=False, init=False)
    """Whether `calm` was called."""
    is_watched: bool = False
    """Whether the story tells where each task waits: slow, for a replay."""
    steps: int = 0
    story: deque[Step] = attrs.field(factory=lambda: deque(maxlen=KEPT), init=False)
    """The last steps, oldest first."""
    yields: dict[str, int] = attrs.field(factory=dict, init=False)
    """How often each named task has yielded."""
    error: SimulationError | None = None
    _unshielded: int = 0
    """How often a run that hangs has lost its shields."""
    _root: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _struck: dict["trio.lowlevel.Task", tuple[str, Callable[[], None]]] = attrs.field(factory=dict)
    """By task: its name, and what cancels it."""
    _digest: "hashlib._Hash" = attrs.field(factory=hashlib.sha256)
    _marks: dict[int, bytes] = attrs.field(factory=dict)
    """By age of a task: what stands in the digest for it."""

    @property
    def seed(self) -> int:
        """That of the plan: for a program that draws numbers of its own, with a `random.Random`."""
        return self.plan.seed

    @property
    def trace(self) -> str:
        """A digest of who ran in which order so far: the same for the same plan, in any process."""
        return str(self._digest.hexdigest())

    def say(self, text: str) -> None:
        """Add a line to the story."""
        self.story.append(Step(self.steps, trio.current_time(), trio.lowlevel.current_task().name, text))

    def calm(self) -> None:
        """From now on nothing goes wrong: no fault, no cancellation, no jump. For the end of a program, which must recover in time."""
        self.is_calm = True
        self.faults.is_over = True

    async def named(self, name: str, function: "Callable[..., Awaitable[T]]", *args: Any) -> "T | None":  # type: ignore[explicit-any]
        """Call `function(*args)` in this task, so that a `CancelAt` of this name reaches it.

        Returns:
            What it returned; None where the plan cancelled it.

        Cancellation: as of `function`.
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
        """Have a `CancelAt` of this name reach the current task from now on, by `cancel`: for a task that somebody else cancels.

        Args:
            name: for the plan.
            cancel: called at the planned yield, synchronously; a sweep counts every yield of the task.
        """
        self._struck[trio.lowlevel.current_task()] = name, cancel

    def fail(self, error: SimulationError) -> None:
        """End the run with this error; the first one stands. A run that hangs in a shield then loses its shields."""
        if self.error is None:
            self.error = error
        else:
            self._unshield()
        self._root.cancel()

    def _unshield(self) -> None:
        self._unshielded += 1
        drop_shields()

    def note_jump(self) -> None:
        """Every task waits, and the clock jumps to the next deadline: where there is none, this is the end."""
        if trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf"):
            waiting = "; ".join(f"{who} at {place}" for who, place in waiting_tasks())
            outside = "; a socket, pipe or process is waited for, which is not simulated" if waits_for_outside() else ""
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
            # Tasks of one name are told apart by their number in this run; a name may be the `repr` of an object, with its address.
            number = age - next(iter(self._marks), age)
            mark = self._marks[age] = f"{number} {_ADDRESS.sub('', task.name)}\n".encode()
        return mark

    def _run_away(self, task: "trio.lowlevel.Task") -> None:
        if self.steps == self.plan.max_steps:
            self.fail(Runaway(f"more than {self.plan.max_steps} steps, with seed {self.plan.seed}; the last one: {task.name}"))
        elif self.steps == self.plan.max_steps + KEPT:
            self._unshield()  # it runs on, though it was cancelled: perhaps in a shield

    def _throw(self, task: "trio.lowlevel.Task") -> None:
        if self.error is not None and not task.name.startswith("<"):  # not Trio's own
            throw_into(task, self.error)  # it swallows the cancellation

    def end_if_hopeless(self) -> None:
        """Raise the error of a run that goes on, whatever was done to end it. Called between two rounds, where Trio lets it through."""
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
        """Run the program, under a scope that the simulator can cancel. Cancellation: as of the program."""
        with self._root:
            running: Opaque = main(self)
            if not inspect.isawaitable(running):
                raise TypeError(f"a program is an async function of its Simulation; {main!r} returned {running!r}")
            result: T = await running
            return result
        return None


def place_of(task: "trio.lowlevel.Task") -> str:
    """Return where a task waits: the innermost frame that is not Trio's, "file.py:line in function"."""
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
    """Return whether a task waits for I/O; Trio itself waits for its wake-up, which is one read."""
    if sys.platform != "linux":
        return False
    waiting = trio.lowlevel.current_statistics().io_statistics
    return waiting.backend == "epoll" and waiting.tasks_waiting_read + waiting.tasks_waiting_write > 1


def _program_tasks() -> "Iterator[trio.lowlevel.Task]":
    root = trio.lowlevel.current_root_task()
    todo = [] if root is None else [root]
    while todo:
        task = todo.pop()
        if not task.name.startswith("<"):  # Trio's own
            yield task
        todo.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
