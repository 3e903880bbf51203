"""The place of the running task in the tree of nurseries. The parents are walked: a context variable would give wrong answers.

There is one exception. What a tool does in a thread, and brings back with `trio.from_thread.run`, runs in a task of Trio's own, outside of
the tree. A context variable says which task waits for the thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import trio

_WAITING: Final[ContextVar[trio.lowlevel.Task | None]] = ContextVar("trio_sagents_waits_for_thread", default=None)


@contextmanager
def thread_of_task() -> Iterator[None]:
    """Mark the threads that are started in the block as those of the running task."""
    token = _WAITING.set(trio.lowlevel.current_task())
    try:
        yield
    finally:
        _WAITING.reset(token)


def is_inside(ancestor: "trio.lowlevel.Task | None") -> bool:
    """Return whether the running task is `ancestor`, or lives in a nursery below it."""
    if ancestor is None:
        return False
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while task is not None and task is not ancestor:
        nursery = task.parent_nursery
        task = None if nursery is None else nursery.parent_task
    return task is not None


def is_within(nursery: trio.Nursery) -> bool:
    """Return whether the running task lives in `nursery`, or in a nursery below it, or comes from a thread of such a task."""
    return any(_lives_in(task, nursery) for task in (trio.lowlevel.current_task(), _WAITING.get()))


def _lives_in(task: "trio.lowlevel.Task | None", nursery: trio.Nursery) -> bool:
    while task is not None and task.parent_nursery is not nursery:
        task = None if task.parent_nursery is None else task.parent_nursery.parent_task
    return task is not None
