"""Schedules: which of the tasks that can run do so next, decided by one seed.

Modes:
    shuffle: the tasks that can run, in any order: what Trio itself may do.
    delay: as shuffle, and each task may be held back, for any number of rounds.
    pct: one task at a time, by random priorities that change at a few random steps. A bug that needs `depth` steps in one order
        is found with a probability of at least 1 in (tasks x horizon ** (depth - 1)).
"""

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from trio_sagents.data.json import Opaque
from trio_sagents.testing._trio_hooks import age_of, hold_back

if TYPE_CHECKING:
    import trio

Mode: TypeAlias = Literal["shuffle", "delay", "pct"]
MODES: Final[Sequence[Mode]] = get_args(Mode)
HOLD: Final = 0.3
"""Mode delay: the probability that a task is held back in a round."""
JUMP: Final = 0.02
"""The probability that the clock jumps in a round although tasks can run, as on a slow machine."""
JUMPS: Final = (0.001, 1.0, 30.0)
"""By how many seconds the clock jumps then."""


class Scheduler(random.Random):
    """Takes the place of Trio's source of randomness."""

    def __init__(self, seed: int, mode: Mode, *, depth: int, horizon: int) -> None:
        super().__init__(seed)
        self.mode = mode
        self.before_round: Callable[[], None] | None = None
        """Called first in each round; an exception of it ends the run."""
        self.jump: Callable[[float], None] | None = None
        """Moves the clock; None if only deadlines move it."""
        self._priorities: dict[int, float] = {}
        self._rounds = 0
        self._lowest = 0.0
        self._changes = {self.randrange(1, horizon) for _ in range(depth - 1)}
        # A source of its own, so that the order of the tasks is the same with and without jumps.
        self._jumps = random.Random(f"{seed} jumps")

    def shuffle(self, x: Opaque) -> None:
        """Decide which tasks run in this round, and put the others back."""
        if self.before_round is not None:
            self.before_round()
        if self.jump is not None and x and self._jumps.random() < JUMP:
            self.jump(self._jumps.choice(JUMPS))
        if len(x) < 2:
            return
        if self.mode == "pct":
            chosen = {self._first(x)}
        else:
            super().shuffle(x)
            chosen = x if self.mode == "shuffle" else {task for task in x if self.random() >= HOLD} or {x[0]}
        if len(chosen) < len(x):
            hold_back([task for task in x if task not in chosen])
            x[:] = [task for task in x if task in chosen]

    def _first(self, tasks: "Sequence[trio.lowlevel.Task]") -> "trio.lowlevel.Task":
        for task in tasks:
            if age_of(task) not in self._priorities:
                self._priorities[age_of(task)] = 1 + self.random()
        self._rounds += 1
        first = max(tasks, key=self._priority)
        if self._rounds in self._changes:
            self._lowest -= 1
            self._priorities[age_of(first)] = self._lowest
            first = max(tasks, key=self._priority)
        return first

    def _priority(self, task: "trio.lowlevel.Task") -> float:
        return self._priorities[age_of(task)]
