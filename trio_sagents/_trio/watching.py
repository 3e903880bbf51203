"""Names the code that blocks the event loop.

While an async function runs without a checkpoint, nothing else in the process runs. An instrument of Trio notes when each step of a
task ends; the next step begins then, or after the wait for I/O. A tool or a hook is called in a `label`. When a step of a task was
long, and when a label ends, the time since the step or the label began is measured, whichever was later. A task that a tool started has
the label of the nearest task around it.

The cost for each step of a task is one call and one look at the clock, and only while a tool or a hook runs, and for `LINGER` after
that: otherwise there is no instrument. A block whose limit is `math.inf` never has one.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import trio

log: Final = logging.getLogger("trio_sagents")
LINGER: Final = 1.0
"""Seconds without any label after which the instrument is removed. Adding it takes about as long as 50 steps of tasks are watched."""


@attrs.define(eq=False)
class _Label:
    """What runs in a task, from `since` on."""

    what: str
    conversation_id: str
    since: float
    told: float = 0.0
    """The longest stretch that was logged, in seconds."""


@attrs.define(eq=False)
class LoopWatch(trio.abc.Instrument):
    """Measures how long tools and hooks run without a checkpoint, and logs those that run too long."""

    limit: float
    """Seconds; a longer stretch is logged."""
    clock: Callable[[], float] = time.perf_counter
    """Real seconds, even if Trio's clock is a virtual one."""
    _step_began: float = 0.0
    """When the running step of a task began, or the last step ended."""
    _is_added: bool = False
    """Whether Trio has this instrument now."""
    _used: float = 0.0
    """When the last label ended."""
    _labels: dict[trio.lowlevel.Task, _Label] = attrs.field(factory=dict)
    """By task: the innermost label."""

    @contextmanager
    def label(self, what: str, conversation_id: str) -> Iterator[None]:
        """Say what the running task does in the block.

        Args:
            what: such as "tool 'pay'".
            conversation_id: for the log.
        """
        task = trio.lowlevel.current_task()
        outer = self._labels.get(task)
        began = self.clock()
        if not self._is_added:
            trio.lowlevel.add_instrument(self)
            self._is_added, self._step_began = True, began
        if outer is not None:
            self._measure(outer, began)
        mine = self._labels[task] = _Label(what, conversation_id, began)
        try:
            yield
        finally:
            now = self.clock()
            self._measure(mine, now)
            if outer is None:
                del self._labels[task]
                self._used = now
            else:
                outer.since = now  # what the inner one took is not taken for the outer one's
                self._labels[task] = outer

    def after_io_wait(self, timeout: float) -> None:
        """Trio is about to run the tasks that are ready."""
        self._step_began = self.clock()
        if not self._labels and self._step_began - self._used > LINGER:
            self.remove()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio has run a task up to its next checkpoint."""
        now = self.clock()
        if now - self._step_began > self.limit:
            label = self._label_of(task)
            if label is not None:
                self._measure(label, now)
        self._step_began = now

    def remove(self) -> None:
        """Have Trio forget this instrument, until the next label."""
        if self._is_added:
            self._is_added = False
            trio.lowlevel.remove_instrument(self)

    def _label_of(self, task: trio.lowlevel.Task) -> _Label | None:
        found: trio.lowlevel.Task | None = task
        while found is not None:
            if (label := self._labels.get(found)) is not None:
                return label
            nursery = found.parent_nursery
            found = None if nursery is None else nursery.parent_task
        return None

    def _measure(self, label: _Label, now: float) -> None:
        stretch = now - max(self._step_began, label.since)
        # Something that blocks in a loop is logged again only if it blocks twice as long.
        if stretch > self.limit and stretch > 2 * label.told:
            label.told = stretch
            log.warning(
                "the %s blocked the event loop for %.2f s, in conversation %r; nothing else ran meanwhile: await, or use a thread",
                label.what,
                stretch,
                label.conversation_id,
            )


@contextmanager
def watching(limit: float) -> Iterator[LoopWatch | None]:
    """Watch the running event loop in the block; give None, and watch nothing, if `limit` is `math.inf`."""
    if limit == math.inf:
        yield None
        return
    watch = LoopWatch(limit)
    try:
        yield watch
    finally:
        watch.remove()
