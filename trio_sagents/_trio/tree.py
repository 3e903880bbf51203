"""Where the running task stands in the tree of nurseries. The parents are walked: a context variable would give wrong answers."""

import trio


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
    """Return whether the running task lives in `nursery`, or in a nursery below it."""
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while task is not None and task.parent_nursery is not nursery:
        task = None if task.parent_nursery is None else task.parent_nursery.parent_task
    return task is not None
