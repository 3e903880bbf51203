"""The serial queue of one backend and one scope: the backend gets one job at a time, in the order of their submission.

    queued --begun--> running --> done or failed
       `--its caller is cancelled--> removed

A job that has begun runs to its end even if its caller is cancelled. So the result of every call of the backend is known here,
even if the task that asked for it was cancelled. Serial queues do not wait for each other.
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
    """One piece of work, and its result for the task that waits."""

    work: Callable[[], Awaitable[T]]
    has_begun: bool = False
    results: list[T] = attrs.field(factory=list)
    """The result, once the work has succeeded."""
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
            self.error = None  # its frames refer to this job


@attrs.define(eq=False)
class SerialQueue:
    """Runs jobs one after the other. There is a task only while there are jobs."""

    _nursery: trio.Nursery
    """The nursery of the services: it outlives every caller."""
    _jobs: deque[_Job[object]] = attrs.field(factory=deque)
    # Invariant: the first job is running exactly while _is_working.
    _is_working: bool = False
    _idle: trio.Event = attrs.field(factory=trio.Event)

    @property
    def is_idle(self) -> bool:
        """Whether no job is queued or running."""
        return not self._is_working

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Call `work` when all jobs that were submitted before have ended, and return its result.

        Raises:
            FileError: `work` raised it; or FilesClosed, if the files were closed before the work was done.

        Cancellation: either the work had not begun, and is removed from the queue; or it runs to its end without the caller.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job = _Job(work)
        self._submit(job)
        try:
            await job.ended.wait()
        except trio.Cancelled:
            if not job.has_begun:
                self._jobs.remove(job)  # type: ignore[arg-type]  # the queue has jobs of all result types
            raise
        return job.take()

    def submit(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have `work` called when all jobs that were submitted before have ended; nobody waits for it."""
        self._submit(_Job(work))

    async def wait_idle(self) -> None:
        """Wait until no job is queued or running."""
        while self._is_working:
            await self._idle.wait()

    def _submit(self, job: _Job[T]) -> None:
        self._jobs.append(job)  # type: ignore[arg-type]  # the queue has jobs of all result types
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
            # Cancellation: the services end, and the backend has not answered in the time that it had. Everybody who waits gets
            # FilesClosed.
            while self._jobs:
                self._jobs.popleft().give_up()
            self._is_working = False
            self._idle.set()
