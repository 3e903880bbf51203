"""A call into Trio: a task of the guest run, and its asyncio caller, who waits until the task has ended.

A cancellation of the caller cancels the task. The caller waits on until the task has ended, so that nothing is left behind, and then
raises the first `CancelledError`. The end of the task is an event; its value or its error is kept beside it.
"""

import asyncio
import contextvars
import functools
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Generic, Protocol, TypeVar

import attrs
import trio

from trio_sagents._trio.groups import is_cancelled, must_exit
from trio_sagents.asyncio._guest import Guest
from trio_sagents.asyncio._waiting import set_event, wait_through
from trio_sagents.exceptions import SessionsClosed

T = TypeVar("T")


class Ending(Protocol):
    """A call that ends with others."""

    def abandon(self) -> None:
        """Cancel the task; its caller gets `SessionsClosed`."""
        ...


@attrs.define(eq=False)
class Below:
    """A place below a task of Trio that waits for code of asyncio. Calls that come back from that code are made there.

    So the library sees where such a call comes from: for example, a tool that stops its own agent must not wait for its own end.
    """

    guest: Guest
    nursery: trio.Nursery | None
    """Below the task; None if the task does not wait any more."""


below: Final[contextvars.ContextVar[Below | None]] = contextvars.ContextVar("trio_sagents_below", default=None)
"""In asyncio code that a task of Trio waits for: the place below that task."""


class HostFailed(Exception):
    """Stands in Trio for what a block of asyncio raised."""


@attrs.define(eq=False, init=False)
class Job(Generic[T]):
    """One call into Trio."""

    done: asyncio.Event
    on_end: list[Callable[[], object]]
    """Called when the task has ended, or will take no step any more; synchronous, and must not raise."""
    guest: Guest
    _group: dict[Ending, None] | None
    _scope: trio.CancelScope
    _is_below: bool
    """Whether the task is below a task of Trio that called asyncio."""
    _values: list[T]
    # Invariant: has the value of the call, once it has returned one.
    _error: BaseException | None

    def __init__(self, guest: Guest, fn: Callable[[], Awaitable[T]], group: dict[Ending, None] | None = None) -> None:
        """Start a call.

        Args:
            guest: the run.
            fn: what to call in Trio.
            group: has the calls that end together; the job is in it until it has ended.

        Raises:
            SessionsClosed: the run has ended.
            RuntimeError: no task of the guest's loop is running.
        """
        guest.check_here("this call")
        if guest.is_over:
            raise SessionsClosed
        self.done, self.on_end = asyncio.Event(), []
        self.guest, self._group, self._scope, self._values, self._error = guest, group, trio.CancelScope(), [], None
        place = below.get()
        nursery = None if place is None or place.guest is not guest else place.nursery
        self._is_below = nursery is not None
        guest.dependents[self] = None
        if group is not None:
            group[self] = None
        try:
            (nursery or guest.nursery).start_soon(self._run, fn)
        except RuntimeError:  # the nursery is closing
            self._end(SessionsClosed())
            raise SessionsClosed from None

    async def _run(self, fn: Callable[[], Awaitable[T]]) -> None:
        error: BaseException | None = None
        try:
            with self._scope:
                self._values.append(await fn())
        except GeneratorExit:  # the run was thrown away
            raise
        except BaseException as exc:  # noqa: ASYNC103  # the error is the caller's, in asyncio; the guest continues to run
            error = _without_cancelled(exc)
            if error is None:
                # Not the call was cancelled, but what is around it. If that is a tool, its caller in asyncio is cancelled with it. If it
                # is the whole run, `run_ended` says so.
                if self._is_below:
                    self._end(asyncio.CancelledError("the tool that made this call was cancelled"))
                raise
        self._end(error)
        del error

    def _end(self, error: BaseException | None) -> None:
        """Say that the task has ended. The first end counts."""
        if self.done.is_set():
            return
        self._error = self._error or error
        self.guest.dependents.pop(self, None)
        if self._group is not None:
            self._group.pop(self, None)
        set_event(self.done)
        for callback in self.on_end:
            callback()

    def run_ended(self, cause: BaseException | None) -> None:
        """Stop waiting, because the run of Trio has ended."""
        error = SessionsClosed()
        error.__cause__ = cause
        self._end(error)

    def cancel(self) -> None:
        """Cancel the task, as a cancelled caller does."""
        if not self.done.is_set():
            self._scope.cancel()

    def abandon(self) -> None:
        """Cancel the task; its caller gets `SessionsClosed`."""
        self._error = self._error or SessionsClosed()
        self.cancel()

    @property
    def error(self) -> BaseException | None:
        """What the task raised, if it has ended and nobody has asked for its value yet."""
        return self._error

    def value(self) -> T:
        """Return the value of an ended call, or raise its error."""
        if self._values:
            return self._values[0]
        error, self._error = self._error, None
        try:
            raise error or SessionsClosed()
        finally:
            del error  # its traceback holds this frame

    def late_value(self) -> T | None:
        """Return the value of an ended call that has returned one although its caller was cancelled; otherwise None."""
        return self._values[0] if self._values else None

    async def settled(self) -> asyncio.CancelledError | None:
        """Wait until the task has ended. Returns the first cancellation of the caller, which the caller must raise.

        Cancellation: the task is cancelled, and has ended; the cancellation is returned.
        """
        return await wait_through(self.done, self.cancel)

    async def result(self) -> T:
        """Wait for the end, and return the value of the call.

        Cancellation: the task is cancelled, and has ended.
        """
        cancelled = await wait_through(self.done, self.cancel)
        if cancelled is not None and not must_exit(self._error):
            try:
                raise cancelled
            finally:
                del cancelled
        return self.value()


def _without_cancelled(error: BaseException) -> BaseException | None:
    """Return an error without any `trio.Cancelled`, which means nothing in asyncio; None if nothing else is left."""
    if is_cancelled(error):
        return None
    return error.split(trio.Cancelled)[1] if isinstance(error, BaseExceptionGroup) else error


@attrs.define(eq=False, init=False)
class Held(Generic[T]):
    """A context manager of Trio. A task of Trio enters it, holds it open, and leaves it when asyncio says so."""

    job: Job[None]
    _manager: AbstractAsyncContextManager[T]
    _values: list[T]
    _begun: asyncio.Event
    _leave: trio.Event
    _has_failed: bool
    """Whether the block in asyncio has raised."""

    def __init__(self, guest: Guest, manager: AbstractAsyncContextManager[T], group: dict[Ending, None] | None = None) -> None:
        """Start to enter; arguments and errors as for `Job`."""
        self._manager, self._values, self._begun, self._leave, self._has_failed = manager, [], asyncio.Event(), trio.Event(), False
        self.job = Job(guest, self._hold, group)
        self.job.on_end.append(functools.partial(set_event, self._begun))

    async def _hold(self) -> None:
        try:
            async with self._manager as value:
                self._values.append(value)
                set_event(self._begun)
                await self._leave.wait()
                if self._has_failed:
                    raise HostFailed
        except HostFailed:
            pass

    async def enter(self) -> T:
        """Wait until the manager is entered, and return what it yields.

        Cancellation: the manager is left again.
        """
        cancelled = await wait_through(self._begun, self.job.cancel)
        if cancelled is not None:
            self.job.cancel()
            await wait_through(self.job.done, self.job.cancel)
            try:
                raise cancelled
            finally:
                del cancelled
        if self.job.done.is_set():
            self.job.value()
            raise SessionsClosed
        return self._values[0]

    def leave(self, *, has_failed: bool = False) -> None:
        """Have the task leave the manager, after an error if the block in asyncio has raised; `job` says when it has left."""
        if not self.job.done.is_set():
            self._has_failed = has_failed
            self._leave.set()

    async def left(self) -> None:
        """Leave, and wait until the manager is left.

        Raises:
            BaseException: what leaving raised.

        Cancellation: the manager is left.
        """
        self.leave()
        await self.job.result()
