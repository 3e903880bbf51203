"""What the objects of one `open_sessions` block share: the run of Trio, the calls that are made in it, and the open streams."""

import functools
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import ParamSpec, TypeVar

import attrs

import trio_sagents
from trio_sagents.asyncio._guest import Guest, Stream
from trio_sagents.asyncio._job import Ending, Held, Job
from trio_sagents.asyncio._signals import Chained

P = ParamSpec("P")
T = TypeVar("T")


@attrs.define(eq=False)
class Block:
    """One block."""

    guest: Guest
    trio: trio_sagents.Sessions
    jobs: dict[Ending, None] = attrs.field(factory=dict, repr=False)
    """The calls that wait, and the context managers that are open; without that of the block itself."""
    streams: dict[Stream, None] = attrs.field(factory=dict, repr=False)
    """What is open for reading."""
    chained: list[Chained] = attrs.field(factory=list, repr=False)
    """What is called when a signal arrives."""
    have_streams_ended: bool = False

    async def call(self, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in Trio.

        Cancellation: `fn` is cancelled, and has ended.
        """
        return await Job(self.guest, functools.partial(fn, *args, **kwargs), self.jobs).result()

    def hold(self, manager: AbstractAsyncContextManager[T]) -> Held[T]:
        """Begin to hold a context manager of Trio open."""
        return Held(self.guest, manager, self.jobs)

    def end_streams(self) -> None:
        """Have every reader's iteration end, now and in future, and every client of an application in this loop see the end."""
        self.have_streams_ended = True
        self.guest.end_streams()
        for stream in tuple(self.streams):
            stream.wake()

    def close(self) -> None:
        """End what is left when the block was left."""
        for chained in reversed(self.chained):
            chained.end()
        for job in tuple(self.jobs):
            job.abandon()
