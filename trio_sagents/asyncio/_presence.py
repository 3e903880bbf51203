"""Who watches what, for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self

import attrs

import trio_sagents
from trio_sagents import JSON, PresenceDiff, SessionsClosed
from trio_sagents.asyncio._block import Block
from trio_sagents.asyncio._job import Held, Job
from trio_sagents.asyncio._readers import Entering


@attrs.frozen(eq=False)
class Presence:
    """Who is where. As `trio_sagents.Presence`, whose object is `trio`."""

    _block: Block = attrs.field(repr=False)
    trio: trio_sagents.Presence
    """The presence in Trio."""

    def track(self, topic: str, key: str, meta: JSON | None = None) -> AbstractAsyncContextManager[None]:
        """Be on a topic exactly while the context is open. As `trio_sagents.Presence.track`.

        Cancellation: either the context was not entered and there is no entry, or the entry is gone when the context has ended.
        """
        return Entering(self._block, self.trio.track(topic, key, meta), lambda _held, _value: None)

    async def list(self, topic: str) -> Mapping[str, Sequence[JSON]]:
        """Return who is on a topic. As `trio_sagents.Presence.list`.

        Cancellation: changes nothing.
        """
        return await self._block.call(self.trio.list, topic)

    def changes(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[PresenceDiff]]:
        """Listen to a topic while the context is open. As `trio_sagents.Presence.changes`.

        Cancellation: either the context was not entered, or nothing is left of it when it has ended.
        """
        return Entering(self._block, self.trio.changes(topic), self._changes)

    def _changes(self, held: Held[AsyncIterator[PresenceDiff]], changes: AsyncIterator[PresenceDiff]) -> "_Changes":
        reader = _Changes(self._block, changes)
        self._block.streams[reader] = None
        held.job.on_end.append(lambda: self._block.streams.pop(reader, None))
        return reader


@attrs.define(eq=False)
class _Changes:
    """Each difference is a call into Trio: presence changes seldom."""

    _block: Block
    _trio: AsyncIterator[PresenceDiff]
    _job: Job[PresenceDiff] | None = None
    _kept: PresenceDiff | None = None
    """The difference of a call that was cancelled too late."""

    def __aiter__(self) -> Self:
        return self

    def wake(self) -> None:
        """End the call that waits: the streams have ended."""
        if self._job is not None:
            self._job.cancel()

    async def __anext__(self) -> PresenceDiff:
        """Return the next difference.

        Cancellation: either the difference is returned, or it is still there for the next call.
        """
        if self._block.have_streams_ended:
            raise StopAsyncIteration
        if (kept := self._kept) is not None:
            self._kept = None
            return kept
        job = self._job = Job(self._block.guest, self._trio.__anext__, self._block.jobs)
        try:
            return await job.result()
        except asyncio.CancelledError:
            self._kept = job.late_value()
            raise
        except SessionsClosed:
            if self._block.have_streams_ended:
                raise StopAsyncIteration from None
            raise
        finally:
            self._job = None
