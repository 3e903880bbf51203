"""Where the running task stands in the tree of nurseries."""

import trio


def is_inside(ancestor: "trio.lowlevel.Task | None") -> bool:
    """Return whether the running task is `ancestor`, or lives in a nursery below it.

    The parents are walked: a context variable would be copied into tasks that run elsewhere.
    """
    if ancestor is None:
        return False
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while task is not None:
        if task is ancestor:
            return True
        nursery = task.parent_nursery
        task = None if nursery is None else nursery.parent_task
    return False
