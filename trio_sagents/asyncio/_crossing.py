"""From Trio to asyncio: how a tool uses what the application has in its loop. And from asyncio to any function of Trio."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, TypeVarTuple

import attrs
import trio

from trio_sagents.asyncio._guest import Guest, running_guest
from trio_sagents.asyncio._job import Below, Job, below
from trio_sagents.asyncio._steps import PAGE

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@attrs.define(eq=False)
class Crossing(Generic[T]):
    """One call of asyncio by a task of Trio, which waits until the asyncio task has ended."""

    _guest: Guest
    _fn: Callable[[], Awaitable[T]]
    _task: asyncio.Task[T] | None = None
    _waiter: trio.lowlevel.Task | None = None
    """The task of Trio, while it waits."""
    _is_cancelled: bool = False
    _error: BaseException | None = None
    """Why nobody needs to wait for the asyncio task."""

    async def wait(self, context: contextvars.Context) -> None:
        """Make the call in a context, and wait until it has ended. Raises nothing.

        Cancellation: the asyncio task is cancelled, and has ended.
        """
        self._guest.dependents[self] = None
        try:
            # The task is made in a callback of the loop: an eager task factory would run it inside a step of Trio.
            self._guest.loop.call_soon(self._begin, context)
            self._waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        finally:
            self._guest.dependents.pop(self, None)

    async def value(self) -> T:
        """Return the value of the ended call, or raise its error.

        Cancellation: if the call has a value or an error all the same, that counts.
        """
        if self._error is not None:
            raise self._error
        task = self._task
        assert task is not None
        if task.cancelled():
            await trio.lowlevel.checkpoint_if_cancelled()
            # A CancelledError that the caller has not asked for would pass every `except Exception` in code of Trio.
            raise RuntimeError("the asyncio task of this call was cancelled by somebody else")
        return task.result()

    @property
    def was_cancelled(self) -> bool:
        """Whether the asyncio task has ended by a cancellation."""
        return self._task is not None and self._task.done() and self._task.cancelled()

    def cancel_task(self) -> None:
        """Cancel the asyncio task, if it was made."""
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()

    def run_ended(self, cause: BaseException | None) -> None:
        """Stop waiting: the loop, or the run of Trio, is closed."""
        self._error = cause or RuntimeError("Trio has ended")
        self._wake()

    def _begin(self, context: contextvars.Context) -> None:
        if self._error is not None:
            return
        self._task = self._guest.loop.create_task(self._call(), context=context)
        self._task.add_done_callback(lambda _: self._wake())
        if self._is_cancelled:
            self._task.cancel()

    async def _call(self) -> T:
        return await self._fn()

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self.cancel_task()
        return trio.lowlevel.Abort.FAILED

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not self._guest.is_over:
            trio.lowlevel.reschedule(waiter)


async def call_asyncio(fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Call a function of asyncio from a task of Trio, such as a tool or a factory, and wait for it.

    It runs as a task of the application's loop, in a copy of the caller's context. Calls of sessions that it makes are seen to come from
    the caller: a tool may stop its own agent that way.

    Args:
        fn: an async function.
        args: for `fn`.

    Returns:
        What `fn` returns.

    Raises:
        RuntimeError: Trio is not a guest of asyncio here; or something else than this call has cancelled the asyncio task.
        BaseException: what `fn` raised.

    Cancellation: the asyncio task is cancelled, and has ended. So have the calls of sessions that it has made.
    """
    guest = running_guest()
    if guest is None or not trio.lowlevel.in_trio_task():
        raise RuntimeError(
            "call_asyncio is for tasks of Trio whose sessions were opened with trio_sagents.asyncio.open_sessions, and this is not one "
            f"(see {PAGE})"
        )
    await trio.lowlevel.checkpoint_if_cancelled()
    context = contextvars.copy_context()
    crossing: Crossing[T] = Crossing(guest, lambda: fn(*args))
    async with trio.open_nursery() as nursery:
        place = Below(guest, nursery)
        context.run(below.set, place)
        try:
            await crossing.wait(context)
        finally:
            place.nursery = None  # what outlives this call is not below it
    return await crossing.value()  # outside of the nursery, which would put an error into a group


async def call_trio(fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Call a function of Trio from a task of asyncio, and wait for it. Trio runs as a guest of the loop, at least as long as the call.

    Args:
        fn: an async function.
        args: for `fn`.

    Returns:
        What `fn` returns.

    Raises:
        RuntimeError: no asyncio loop is running here, or this thread runs Trio for another loop.
        SessionsClosed: the run of Trio crashed.
        BaseException: what `fn` raised.

    Cancellation: `fn` is cancelled, and has ended.
    """
    guest = await Guest.join("call_trio")
    try:
        value = await Job(guest, lambda: fn(*args)).result()
    except BaseException as exc:
        await guest.leave_after(exc)  # noqa: ASYNC102  # in asyncio, this waits through cancellations
        raise
    await guest.leave()
    return value
