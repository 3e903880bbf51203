"""Group commit: many tasks, one transaction.

There is no task of its own for writing, and no thread that stays. A task that submits an operation while no task leads becomes
the leader: it takes all queued operations to a thread, which does them in one transaction. What is submitted meanwhile is the
next group. When the leader comes back it wakes the members of its group, and makes the first task of the next group the leader.

One failing member does not fail the others. Most members are refused before they have changed anything. If a member fails later,
the transaction is rolled back and done again with a savepoint for each member. (Savepoints from the start would add a quarter to
the cost of every commit.)

    queued --taken by a leader--> begun --committed or refused--> done
       `--cancelled--> withdrawn

Invariant: `_led` is true exactly while one task leads, or was made the leader and has not run yet. Otherwise nothing is queued.
"""

import datetime
import sqlite3
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, Generic, TypeVar

import attrs
import trio

from trio_sagents._sqlite import FileWatch
from trio_sagents.exceptions import PersistenceError, SagentsError
from trio_sagents.persistence._sqlite_schema import STORE_FILE
from trio_sagents.persistence._sqlite_tables import last_change

T = TypeVar("T")
MAX_GROUP: Final = 1000
"""The most members of one transaction, so that no member waits long for the others of its group."""
TICK: Final = 100
"""Nanoseconds from one number of a change to the next."""


class Changes:
    """Numbers for changes of conversations: each is larger than all that were given before, in this process or in another one.

    The numbers are clock times: a transaction begins after those before it have ended, and takes longer than its numbers are apart.
    Within the process the order holds whatever the clock does. If the clock is set back, and another process has given numbers since,
    the list of conversations is in another order for as long.
    """

    __slots__ = ("_last",)

    def __init__(self, last: int) -> None:
        self._last = last
        """The largest number that was given."""

    def next(self, before: int) -> int:
        """Return a number for a conversation whose last change had the number `before`."""
        self._last = max(self._last + 1, before + 1, time.time_ns() // TICK)
        return self._last


class Transaction:
    """What an operation gets: the connection, inside a transaction, and numbers for changes."""

    __slots__ = ("changes", "connection", "now")

    def __init__(self, connection: sqlite3.Connection, changes: Changes) -> None:
        self.connection = connection
        self.changes = changes
        self.now = datetime.datetime.now(datetime.UTC).isoformat()
        """When the transaction began, as text."""


@attrs.define(eq=False)
class _Job(Generic[T]):
    """One submitted operation."""

    operation: Callable[[Transaction], T]
    """Called in the thread, perhaps twice: then the first call was undone."""
    task: trio.lowlevel.Task | None = None
    """Who waits for the operation; None for the leader."""
    begun: bool = False
    results: list[T] = attrs.field(factory=list)
    """The result, when the operation is done and has succeeded; otherwise empty."""
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return bool(self.results) or self.error is not None

    def take(self) -> T:
        """Return the result or raise the error, and drop both: the frames of an error hold this job."""
        if self.error is None:
            return self.results.pop()
        try:
            raise self.error
        finally:
            self.error = None


class GroupCommit:
    """Runs operations one after the other on one connection, grouped into transactions."""

    def __init__(self, connection: sqlite3.Connection, path: str, watch: FileWatch) -> None:
        self._connection = connection
        self._path = path
        self._watch = watch
        self._changes = Changes(last_change(connection))
        self._queued: dict[_Job[object], None] = {}
        """In order; a dict, so that a job can be withdrawn in one step."""
        self._led = False
        self._idle = trio.lowlevel.ParkingLot()
        self._thread = trio.CapacityLimiter(1)
        self.groups = 0
        """How many transactions were tried."""

    @trio.lowlevel.enable_ki_protection
    async def submit(self, operation: Callable[[Transaction], T]) -> T:
        """Do one operation, and return its result when its transaction is committed.

        Raises:
            PersistenceError: the operation could not be done, or the transaction could not be committed; nothing of it is stored, or
                the file has gone, and nobody will find it.
            BaseException: what the operation raised; nothing of it is stored.

        Cancellation: either the operation had not begun, and is withdrawn; or it runs to its end, which SQLite's busy timeout
            bounds, and its result is returned.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job = _Job(operation)
        # No checkpoint until the job is queued: a leader that stops looks at the queue in the same step.
        self._queued[job] = None  # type: ignore[index]  # a queue of jobs of all kinds
        if self._led:
            await self._wait(job)
        else:
            self._led = True
        if not job.is_done:
            await self._lead()
        return job.take()

    async def wait_idle(self) -> None:
        """Wait until no task leads: then everything that was submitted is done."""
        while self._led:
            await self._idle.park()

    async def _wait(self, job: _Job[T]) -> None:
        """Return when `job` is done, or when its task is to lead."""

        def withdraw(_raise_cancel: Callable[[], object]) -> trio.lowlevel.Abort:
            if job.begun:
                return trio.lowlevel.Abort.FAILED
            del self._queued[job]  # type: ignore[arg-type]
            return trio.lowlevel.Abort.SUCCEEDED

        job.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(withdraw)
        job.task = None

    async def _lead(self) -> None:
        # Cancellation: others wait for this task. One pass of the event loop lets all tasks that are about to submit join the group.
        await trio.lowlevel.cancel_shielded_checkpoint()
        group = list(islice(self._queued, MAX_GROUP))
        for job in group:
            del self._queued[job]
            job.begun = True
        self.groups += 1
        try:
            # Cancellation: a group that has begun is always reported, and others wait for it. SQLite's busy timeout bounds this,
            # and not a deadline: a thread cannot be abandoned, and a virtual clock would jump over a deadline.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._run, group, limiter=self._thread)
        finally:
            # No checkpoint until another task leads, or nothing is queued.
            for job in group:
                if not job.is_done:
                    job.error = PersistenceError(f"the database {self._path!r}: the transaction was given up; nothing of it is stored")
                if job.task is not None:
                    trio.lowlevel.reschedule(job.task)
            for job in self._queued:
                # A task that queues a job behind a leader waits from that step on.
                if job.task is not None:  # pragma: no branch
                    trio.lowlevel.reschedule(job.task)
                break
            else:
                self._led = False
                self._idle.unpark_all()

    def _run(self, group: Sequence[_Job[object]]) -> None:
        """Do a group in one transaction (in the thread). Nothing of it is acknowledged unless the file is there before and after."""
        try:
            self._watch.check()
            if not self._attempt(group, savepoints=False):
                self._attempt(group, savepoints=True)
            self._watch.check_written()
        except (sqlite3.Error, PersistenceError) as exc:
            for job in group:
                job.results.clear()
                job.error = STORE_FILE.explain(self._path, exc) if isinstance(exc, sqlite3.Error) else PersistenceError(str(exc))
                job.error.__cause__ = exc
        except BaseException:
            for job in group:
                job.results.clear()
                job.error = None
            raise

    def _attempt(self, group: Sequence[_Job[object]], *, savepoints: bool) -> bool:
        """Give each job its result, and commit. Without savepoints, return False and do nothing if a job has to be undone.

        An error is never kept in a local variable: the frames of the error hold this frame.

        Raises:
            sqlite3.Error: the transaction is lost, with all its members.
        """
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            transaction = Transaction(connection, self._changes)
            for job in group:
                if savepoints:
                    connection.execute("SAVEPOINT member")
                changes = connection.total_changes
                self._run_member(transaction, job)
                if job.error is not None and connection.total_changes != changes:
                    if not savepoints:
                        return False
                    connection.execute("ROLLBACK TO member")
                if savepoints:
                    connection.execute("RELEASE member")
            connection.execute("COMMIT")
            return True
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _run_member(self, transaction: Transaction, job: _Job[object]) -> None:
        job.results.clear()
        job.error = None
        try:
            job.results.append(job.operation(transaction))
        except sqlite3.Error as exc:
            if not self._connection.in_transaction:
                raise
            job.error = STORE_FILE.explain(self._path, exc)
            job.error.__cause__ = exc
        except (SagentsError, TypeError, ValueError, OverflowError) as exc:
            job.error = exc
