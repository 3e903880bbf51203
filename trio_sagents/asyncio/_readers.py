"""Mailboxes, watches and pages, for asyncio.

A task of Trio holds the context manager of Trio open. Reading needs no call: the subscriber says, in the step that publishes, that there
is something; the reader in asyncio wakes up and takes the events itself, between two steps of Trio. So a reader that is cancelled loses
nothing, the bounds of the subscriber hold, and reading wakes no task of Trio.

There is no async generator here: a garbage collector has nothing to close.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar

import attrs
import trio

import trio_sagents
from trio_sagents import (
    Channel,
    Cursor,
    DisplayMessage,
    Envelope,
    Interrupt,
    PageChange,
    Scope,
    SessionsClosed,
    Status,
    StreamingMessage,
    Todo,
    ToolCall,
)
from trio_sagents.asyncio._block import Block
from trio_sagents.asyncio._handles import SessionInfo
from trio_sagents.asyncio._job import Held, Job
from trio_sagents.data.json import Opaque

T = TypeVar("T")
R = TypeVar("R")


@attrs.define(eq=False)
class Reading:
    """Waits for something to take, for the reader of one open context manager."""

    block: Block
    _job: Job[None] = attrs.field(repr=False)
    """Of the context manager."""
    _event: asyncio.Event = attrs.field(factory=asyncio.Event, repr=False)

    @classmethod
    def of(cls, block: Block, held: Held[T]) -> "Reading":
        """Return the reading of what is held, until it is left."""
        reading = cls(block, held.job)
        block.streams[reading] = None

        def end() -> None:
            block.streams.pop(reading, None)
            reading.wake()

        held.job.on_end.append(end)
        return reading

    def wake(self) -> None:
        """Have the reader look again."""
        self._event.set()

    def take(self, take: Callable[[], R]) -> R | None:
        """Return what `take` returns; None if there is nothing yet.

        Raises:
            StopAsyncIteration: `end_streams` was called.
            SessionsClosed: everything was read, and no more can come.
            RuntimeError: no task of the block's loop is running.
        """
        self.block.guest.check_here("this reader")
        if self.block.have_streams_ended:
            raise StopAsyncIteration
        try:
            return take()
        except trio.WouldBlock:
            if not self._job.done.is_set():
                return None
        error = self._job.error
        raise SessionsClosed from (None if error is None else error.__cause__)

    async def wait(self) -> None:
        """Wait until there may be something to take; call it when there was nothing.

        Cancellation: nothing was taken.
        """
        self._event.clear()
        await self._event.wait()


@attrs.define(eq=False)
class Subscriber:
    """A mailbox of events, for tasks of asyncio. As `trio_sagents.Subscriber`. Reading is safe to cancel: no event is lost."""

    _reading: Reading = attrs.field(repr=False)
    _trio: trio_sagents.Subscriber = attrs.field(repr=False)
    _ready: deque[Envelope] = attrs.field(factory=deque, init=False, repr=False)
    """Events that were taken, and not handed out one by one yet."""

    def __attrs_post_init__(self) -> None:
        self._trio.call_when_ready(self._reading.wake)

    @property
    def trio(self) -> trio_sagents.Subscriber:
        """The subscriber in Trio. Read this object, and not that."""
        return self._trio

    @property
    def scope(self) -> Scope:
        """The scope that the subscriber was opened with."""
        return self._trio.scope

    @property
    def subscriptions(self) -> Mapping[tuple[str, Channel], Literal["pending", "subscribed"]]:
        """The subscriptions: a new mapping from (conversation id, channel) to "pending" or "subscribed"."""
        return self._trio.subscriptions

    async def subscribe(
        self, conversation_id: str, *, channel: Channel = "main", after: Cursor | str | None = None, tag: Opaque = None
    ) -> None:
        """Listen to a conversation. As `trio_sagents.Subscriber.subscribe`.

        Cancellation: either the subscription exists, or nothing was done.
        """
        await self._reading.block.call(self._trio.subscribe, conversation_id, channel=channel, after=after, tag=tag)

    async def unsubscribe(self, conversation_id: str, *, channel: Channel = "main") -> None:
        """Stop listening to a conversation. As `trio_sagents.Subscriber.unsubscribe`.

        Cancellation: either the subscription has ended, or it is as before.
        """
        await self._reading.block.call(self._trio.unsubscribe, conversation_id, channel=channel)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Envelope:
        """Return the next event.

        Raises:
            SessionsClosed: all events were read, and no more can come.
            StopAsyncIteration: `Sessions.end_streams` was called.

        Cancellation: either an event is returned, or nothing was taken.
        """
        if not self._ready or self._reading.block.have_streams_ended:
            self._ready.extend(await self.read())
        return self._ready.popleft()

    def batches(self) -> AsyncIterator[Sequence[Envelope]]:
        """Return an iterator over batches. A batch is everything that there is at one wake-up; it is never empty."""
        return _Batches(self)

    async def read(self) -> Sequence[Envelope]:
        """Return the next batch; raises as `__anext__`.

        Cancellation: either a batch is returned, or nothing was taken.
        """
        while (batch := self._reading.take(self._take_nowait)) is None:
            await self._reading.wait()
        return batch

    def _take_nowait(self) -> Sequence[Envelope]:
        if not self._ready:
            return self._trio.take_nowait()
        left = tuple(self._ready)
        self._ready.clear()
        return left


@attrs.define(eq=False)
class _Batches:
    _subscriber: Subscriber

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[Envelope]:
        return await self._subscriber.read()


@attrs.define(eq=False)
class Watch(Subscriber):
    """A subscriber that is subscribed to one conversation, whose agent was running or was started. As `trio_sagents.Watch`."""

    info: SessionInfo
    """The agent that was running, or was started, when the watch began."""


@attrs.define(eq=False)
class Page:
    """One conversation as a page shows it, kept up to date by the task that iterates over the page. As `trio_sagents.Page`."""

    _reading: Reading = attrs.field(repr=False)
    _trio: trio_sagents.Page
    _is_read: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._trio.watch.call_when_ready(self._reading.wake)

    @property
    def rows(self) -> Sequence[DisplayMessage]:
        """The rows of the transcript that were read so far, oldest first; a new sequence."""
        return self._trio.rows

    @property
    def has_older(self) -> bool:
        """Whether there are rows before the first one of `rows`."""
        return self._trio.has_older

    @property
    def streaming(self) -> StreamingMessage | None:
        """The message that is being spoken, with its text so far; None between messages."""
        return self._trio.streaming

    @property
    def tool_calls(self) -> Sequence[ToolCall]:
        """The open calls of the running turn, with their status."""
        return self._trio.tool_calls

    @property
    def status(self) -> Status:
        """The status of the agent; that of its end if it is not up."""
        return self._trio.status

    @property
    def error(self) -> str | None:
        """The text of the status ERROR, if it began while the page was open."""
        return self._trio.error

    @property
    def is_up(self) -> bool:
        """Whether the agent is up. If it is not, the next message wakes it, and the page continues by itself."""
        return self._trio.is_up

    @property
    def interrupt(self) -> Interrupt | None:
        """What waits for people."""
        return self._trio.interrupt

    @property
    def todos(self) -> Sequence[Todo]:
        """The todo list of the agent."""
        return self._trio.todos

    @property
    def queued(self) -> int:
        """How many accepted messages wait for a turn."""
        return self._trio.queued

    @property
    def cursor(self) -> Cursor | None:
        """The place behind the last event of the last change; None before the first event."""
        return self._trio.cursor

    async def older(self, limit: int = 100) -> Sequence[DisplayMessage]:
        """Read older rows, and put them before the others. As `trio_sagents.Page.older`.

        Cancellation: either the rows are on the page, or the page is as before.
        """
        return await self._reading.block.call(self._trio.older, limit)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PageChange:
        """Wait for something to change, and return it; it has been merged into the page. Raises as `trio_sagents.Page.__anext__`.

        Raises:
            StopAsyncIteration: `Sessions.end_streams` was called.

        Cancellation: either a change is returned, or it is part of the change that the next call returns.
        """
        if self._is_read:
            raise trio.BusyResourceError("another task iterates over this page")
        self._is_read = True
        try:
            while (change := self._reading.take(self._trio.take_nowait)) is None:
                if self._trio.needs_history:
                    await self._reading.block.call(self._trio.read_history)
                else:
                    await self._reading.wait()
            return change
        finally:
            self._is_read = False


@attrs.define(eq=False)
class Entering(Generic[T, R]):
    """A block of asyncio around a context manager of Trio. It may be left by another task than the one that entered it."""

    _block: Block
    _manager: AbstractAsyncContextManager[T]
    _yielded: Callable[[Held[T], T], R]
    """Makes what the block yields of what the manager yields."""
    _held: Held[T] | None = None

    async def __aenter__(self) -> R:
        if self._held is not None:
            raise RuntimeError("this block was entered before; make another one")
        self._held = self._block.hold(self._manager)
        return self._yielded(self._held, await self._held.enter())

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        assert self._held is not None
        try:
            await self._held.left()  # noqa: ASYNC102  # in asyncio, this waits through cancellations
        except asyncio.CancelledError:
            raise
        except SessionsClosed:
            pass  # the manager was left with its sessions
        except BaseException:
            if exc is None:
                raise  # otherwise, what the block raised leaves it
