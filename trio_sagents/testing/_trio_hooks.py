"""Every private name of Trio that this kit uses, each in one function: the only module to change when Trio changes.

Trio asks `trio._core._run._r` to shuffle the tasks that can run, if deterministic scheduling is allowed. A schedule of this kit takes
its place; tasks that the schedule holds back go to the end of the runner's queue. The other names are for what Trio does not make
public: how old a task is, when the clock would jump, which scopes shield a task, and what is sent to a task that runs next.

If `check_trio` raises an error: find the new name in Trio's `_core/_run.py`, and change the function in this module that uses the old
name, or pin Trio below the release that removed the name. The library itself uses none of these names.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import trio
import trio.testing
from trio._core import _run

from trio_sagents.data.json import Opaque

if TYPE_CHECKING:
    Task: TypeAlias = trio.lowlevel.Task

PRIVATE_NAMES: Final[tuple[tuple[Opaque, str], ...]] = (
    (_run, "_r"),
    (_run, "_ALLOW_DETERMINISTIC_SCHEDULING"),
    (_run, "GLOBAL_RUN_CONTEXT"),
    (_run.Runner, "runq"),
    (_run.Runner, "tasks"),
    (_run.Task, "_counter"),
    (_run.Task, "_cancel_status"),
    (_run.Task, "_next_send"),
    (_run.Task, "_next_send_fn"),
    (_run.CancelStatus, "parent"),
    (_run.CancelStatus, "_scope"),
    (trio.testing.MockClock, "_autojump"),
)
"""(owner, name) of each private name."""


class Source(Protocol):
    """What Trio asks of its source of randomness."""

    def shuffle(self, x: Opaque, /) -> None:
        """Put the tasks of a round in order; the last task runs first."""
        ...


def check_trio() -> None:
    """Raise `RuntimeError` if this version of Trio lacks a private name that schedules need."""
    for owner, name in PRIVATE_NAMES:
        if not hasattr(owner, name) and name not in {field.name for field in getattr(owner, "__attrs_attrs__", ())}:
            raise RuntimeError(
                f"this Trio ({trio.__version__}) has no {owner.__name__}.{name}, which simulated schedules need: "
                "change the function that uses it in trio_sagents/testing/_trio_hooks.py, or pin an older Trio"
            )


@contextlib.contextmanager
def steered(source: Source) -> Iterator[None]:
    """While the block is open, have Trio ask `source` for the order of each round."""
    saved = {name: getattr(_run, name) for name in ("_r", "_ALLOW_DETERMINISTIC_SCHEDULING")}
    vars(_run).update(_r=source, _ALLOW_DETERMINISTIC_SCHEDULING=True)  # pyright: ignore[reportAttributeAccessIssue]  # private to Trio
    try:
        yield
    finally:
        vars(_run).update(saved)  # pyright: ignore[reportAttributeAccessIssue]  # private to Trio


def hold_back(tasks: "Iterable[Task]") -> None:
    """Put runnable tasks back, for the next round."""
    _run.GLOBAL_RUN_CONTEXT.runner.runq.extend(tasks)  # pyright: ignore[reportAttributeAccessIssue]  # private to Trio, on purpose


def age_of(task: "Task") -> int:
    """Return a number that is larger for younger tasks; Trio sorts a round by this number."""
    return task._counter  # noqa: SLF001  # there is no public way


def drop_shields() -> None:
    """Remove the shield of every scope of every task."""
    for task in tuple(_run.GLOBAL_RUN_CONTEXT.runner.tasks):  # pyright: ignore[reportAttributeAccessIssue]  # private to Trio, on purpose
        status: _run.CancelStatus | None = task._cancel_status  # noqa: SLF001  # there is no public way to a task's scopes
        while status is not None:
            status._scope.shield = False  # noqa: SLF001  # as above
            status = status.parent


def throw_into(task: "Task", error: BaseException) -> None:
    """Have this error raised in a task that is about to run, at the place where it waits."""
    task._next_send_fn, task._next_send = task.coro.throw, error  # noqa: SLF001  # there is no public way


def watch_jumps(clock: trio.testing.MockClock, before: Callable[[], None]) -> None:
    """Have `before` called when every task waits, before the clock jumps to the next deadline."""
    jump = clock._autojump  # noqa: SLF001  # there is no public way to hear of a jump

    def autojump() -> None:
        before()
        jump()

    clock._autojump = autojump  # type: ignore[method-assign]  # noqa: SLF001  # as above
