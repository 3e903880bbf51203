"""The run of Trio in this thread, as a guest of one asyncio loop.

Trio allows one run per thread. So all that needs Trio in a thread shares one guest run, which starts with the first user and ends with
the last. Both loops take turns in the thread: between two steps of Trio, library code that does not await may be called from asyncio.

    Guest.join()      a user more; starts the run
    guest.nursery     where calls are made
    guest.leave()     a user less; the last one waits until the run has ended
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterable
from typing import Final, Protocol

import attrs
import trio

from trio_sagents.asyncio._signals import Chained, Interrupts
from trio_sagents.asyncio._steps import PAGE, Steps
from trio_sagents.asyncio._waiting import set_event, wait_through


class Dependent(Protocol):
    """What waits for something in Trio, and is told if the run has ended."""

    def run_ended(self, cause: BaseException | None) -> None:
        """Stop waiting: no task of the run takes another step. Must not raise."""
        ...


class Stream(Protocol):
    """Something that gives one event after the other."""

    def wake(self) -> None:
        """Have the reader look again: the streams have ended."""
        ...


class _Result(Protocol):
    def unwrap(self) -> object: ...


class _Here(threading.local):
    guest: "Guest | None" = None


_here: Final = _Here()


def running_guest() -> "Guest | None":
    """Return the guest run of this thread, if there is one."""
    return _here.guest


def running_loop(what: str) -> asyncio.AbstractEventLoop:
    """Return the asyncio loop whose task is running; RuntimeError if there is none, or if a task of Trio is running.

    Args:
        what: what needs asyncio, as the subject of the message.
    """
    if trio.lowlevel.in_trio_task():
        raise RuntimeError(
            f"{what} is for tasks of asyncio, and this is a task of Trio; use the names of trio_sagents here, and `sessions.trio` for the "
            f"sessions (see {PAGE})"
        )
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(f"{what} needs a running asyncio loop; call it from a coroutine that asyncio.run runs") from None


@attrs.define(eq=False)
class Guest:
    """One guest run of Trio."""

    loop: asyncio.AbstractEventLoop
    dependents: dict[Dependent, None] = attrs.field(factory=dict, repr=False)
    """The jobs that wait for something in this run, in the order in which they came."""
    streams: "dict[Stream, None]" = attrs.field(factory=dict, repr=False)
    """What is served to clients, and belongs to no block."""
    have_streams_ended: bool = False
    chained: dict[int, Chained] = attrs.field(factory=dict, repr=False)
    """By signal: what ends these streams."""
    nursery: trio.Nursery = attrs.field(init=False, repr=False)
    is_over: bool = attrs.field(default=False, init=False)
    _users: int = attrs.field(default=0, init=False)
    _ready: asyncio.Event = attrs.field(factory=asyncio.Event, init=False, repr=False)
    _over: asyncio.Event = attrs.field(factory=asyncio.Event, init=False, repr=False)
    _stop: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)
    _steps: Steps = attrs.field(init=False, repr=False)
    _interrupts: Interrupts = attrs.field(init=False, repr=False)
    _keeper: AsyncGenerator[None, None] | None = attrs.field(default=None, init=False, repr=False)
    _is_keeper_ending: bool = attrs.field(default=False, init=False, repr=False)

    @classmethod
    async def join(cls, what: str) -> "Guest":
        """Return the guest run of the running loop with one user more; start it if it is not there.

        Args:
            what: what needs the run, as the subject of an error.

        Raises:
            RuntimeError: no asyncio loop is running here, or this thread runs Trio for another loop.

        Cancellation: either there is one user more, or nothing was done.
        """
        loop = running_loop(what)
        while True:
            guest = _here.guest
            if guest is None:
                guest = cls(loop)
                guest._start()
            elif guest.loop is not loop:
                if not guest.loop.is_closed():
                    raise RuntimeError(
                        f"{what} cannot run Trio here: this thread runs Trio for another asyncio loop already, and a thread has one run of "
                        "Trio; leave the blocks that were opened in the other loop first"
                    )
                guest.settle_if_closed()
                continue
            elif guest._stop.is_set():  # it is ending
                await guest._over.wait()
                continue
            guest._users += 1
            try:
                await guest._ready.wait()
            except BaseException as exc:
                await guest.leave_after(exc)  # noqa: ASYNC102  # in asyncio, this waits through cancellations
                raise
            return guest

    def release(self) -> None:
        """Have one user less, and do not wait: the last one asks the run to end. For where nothing can be awaited."""
        self._users -= 1
        if self._users == 0 and not self.is_over:
            self._stop.set()

    async def leave_after(self, raised: BaseException) -> None:
        """Have one user less, because of an error that an `await` of the user has raised; as `leave`, if that can be awaited.

        Cancellation: as for `leave`.
        """
        if isinstance(raised, GeneratorExit):
            self.release()
        else:
            await self.leave(raised)

    async def leave(self, raised: BaseException | None = None) -> None:
        """Have one user less. The last one waits until the run has ended.

        Args:
            raised: the error with which the user leaves, if any. The caller raises it.

        Cancellation: the run has ended. The first `CancelledError` is raised then, unless `raised` is one.
        """
        self.release()
        if self._users or not (self.is_over or self._stop.is_set()):
            return
        cancelled = await wait_through(self._over, lambda: None)
        keeper, self._keeper = self._keeper, None
        if keeper is not None and not self._is_keeper_ending:
            await keeper.aclose()
        if cancelled is not None and not isinstance(raised, asyncio.CancelledError):
            try:
                raise cancelled
            finally:
                del cancelled

    def check_here(self, what: str) -> None:
        """Raise RuntimeError unless a task of this guest's loop is running.

        Args:
            what: what is used, as the subject of the message.
        """
        if running_loop(what) is not self.loop:
            raise RuntimeError(f"{what} belongs to another asyncio loop than the one that is running here; open sessions in each loop")

    def end_streams(self) -> None:
        """Have every stream that belongs to no block end."""
        self.have_streams_ended = True
        for stream in tuple(self.streams):
            stream.wake()

    def end_streams_on(self, signals: Iterable[int]) -> None:
        """Call `end_streams` when a signal arrives, as long as the run lasts. A signal that nobody handles is left alone."""
        for number in signals:
            if number not in self.chained:
                chained = Chained(number, self.loop, self.end_streams)
                if chained.begin():
                    self.chained[number] = chained

    def _start(self) -> None:
        self._interrupts = Interrupts(self.loop)
        self._interrupts.take()
        steps = self._steps = Steps(self.loop)
        try:
            trio.lowlevel.start_guest_run(
                self._main,
                run_sync_soon_threadsafe=steps.schedule_threadsafe,
                run_sync_soon_not_threadsafe=steps.schedule,
                done_callback=self._ended,
                host_uses_signal_set_wakeup_fd=True,
            )
        except BaseException:
            self._interrupts.give_back()
            raise
        _here.guest = self
        steps.keep_hooks()
        keeper = self._keep()
        try:
            # Driven by hand, and outside of any task of Trio: so the generator is the loop's.
            keeper.__anext__().send(None)
        except StopIteration:
            self._keeper = keeper

    async def _keep(self) -> AsyncGenerator[None, None]:
        """Be closed by `asyncio.run` while its loop still runs: the last chance to end blocks that nobody has left."""
        try:
            yield
        finally:
            self._is_keeper_ending = True
            if not self.is_over:
                self._cut()
                await wait_through(self._over, lambda: None)  # noqa: ASYNC102  # in asyncio; it waits through cancellations

    async def _main(self) -> None:
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            set_event(self._ready)
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    def _cut(self) -> None:
        """Cancel everything in the run, and have it end."""
        self._stop.set()
        if self._ready.is_set():
            self.nursery.cancel_scope.cancel()

    def settle_if_closed(self) -> None:
        """If the loop was closed, run what was left to its end here: the agents settle, and the thread can run Trio again."""
        if self.is_over or not self.loop.is_closed() or _here.guest is not self:
            return
        for dependent in tuple(self.dependents):
            dependent.run_ended(RuntimeError("the asyncio loop was closed"))
        self._cut()
        self._steps.drive(lambda: self.is_over)

    def _ended(self, result: _Result) -> None:
        _here.guest = None
        self.is_over = True
        cause: BaseException | None = None
        try:
            result.unwrap()
        except BaseException as exc:  # noqa: ASYNC103, BLE001  # why the run has ended; each waiter is told
            cause = exc
        for chained in reversed(self.chained.values()):
            chained.end()
        self._interrupts.give_back()
        # Also after a crash of Trio itself, when no task takes another step: nobody may wait for ever.
        for dependent in tuple(self.dependents):
            dependent.run_ended(cause)
        self.dependents.clear()
        set_event(self._ready)
        set_event(self._over)
