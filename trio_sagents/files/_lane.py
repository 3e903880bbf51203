"""The single order in which one backend is asked about one scope.

    queued --begun--> at work --> done or failed
       `--its caller is cancelled--> withdrawn

A job that has begun goes to its end without its caller: so what a backend has done is always known here, also where whoever
asked for it has gone. Lanes do not wait for each other.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import attrs
import trio

from trio_sagents.files._errors import FileError, FilesClosed

T = TypeVar("T")


@attrs.define(eq=False)
class _Job(Generic[T]):
    """One piece of work, and who waits for it."""

    work: Callable[[], Awaitable[T]]
    has_begun: bool = False
    results: list[T] = attrs.field(factory=list)
    """The result, when it is done and has succeeded."""
    error: FileError | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        self.has_begun = True
        try:
            self.results.append(await self.work())
        except FileError as exc:
            self.error = exc
        self.ended.set()

    def give_up(self) -> None:
        if not self.ended.is_set():
            self.error = FilesClosed()
            self.ended.set()

    def take(self) -> T:
        if self.error is None:
            return self.results.pop()
        try:
            raise self.error
        finally:
            self.error = None  # its frames hold this job


@attrs.define(eq=False)
class Lane:
    """Jobs, one after the other. There is a task only while there are jobs."""

    _nursery: trio.Nursery
    """Of the services: it outlives every caller."""
    _jobs: deque[_Job[object]] = attrs.field(factory=deque)
    # Invariant: the first one is at work exactly while _is_working.
    _is_working: bool = False
    _idle: trio.Event = attrs.field(factory=trio.Event)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued or at work."""
        return not self._is_working

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` when all that was submitted before is done, and return its result.

        Raises:
            FileError: what `work` raised; or the files were closed before it was done.

        Cancellation: either it had not begun, and is withdrawn; or it goes to its end without the caller.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job = _Job(work)
        self._submit(job)
        try:
            await job.ended.wait()
        except trio.Cancelled:
            if not job.has_begun:
                self._jobs.remove(job)  # type: ignore[arg-type]  # a queue of jobs of all kinds
            raise
        return job.take()

    def submit(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have `work` done when all that was submitted before is done; nobody waits for it."""
        self._submit(_Job(work))

    async def wait_idle(self) -> None:
        """Wait until nothing is queued or at work."""
        while self._is_working:
            await self._idle.wait()

    def _submit(self, job: _Job[T]) -> None:
        self._jobs.append(job)  # type: ignore[arg-type]  # a queue of jobs of all kinds
        if not self._is_working:
            self._is_working = True
            self._idle = trio.Event()
            self._nursery.start_soon(self._work, name="file backend")

    async def _work(self) -> None:
        try:
            while self._jobs:
                await self._jobs[0].run()
                self._jobs.popleft()
        finally:
            # Cancellation: the services end, and the backend has not answered in all the time that it had. Whoever waits is told.
            while self._jobs:
                self._jobs.popleft().give_up()
            self._is_working = False
            self._idle.set()
