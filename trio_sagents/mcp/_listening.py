"""Between a transport and the SDK's session: what goes out is noted, and what comes in is repaired."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Final, Self

import attrs
import trio
from mcp.shared.message import SessionMessage

from trio_sagents.mcp._answers import Answers
from trio_sagents.mcp._streams import Incoming, Outgoing, Streams

PROBE_TIMEOUT: Final = 2.0
"""Seconds that a server has to answer the first request of the newest revision of the protocol; then it is spoken to as an old one."""


@attrs.define(eq=False)
class _Heard:
    """The messages of a server, repaired."""

    _inner: Incoming
    _answers: Answers
    _patience: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Around the wait for the next message."""

    def expect_probe(self) -> None:
        """The first request goes out: do not wait for its answer as long as the SDK does."""
        self._patience.deadline = trio.current_time() + PROBE_TIMEOUT

    async def receive(self) -> SessionMessage | Exception:
        return await self.__anext__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        item: SessionMessage | Exception | None = None
        # Cancellation: a wait that is cancelled has taken no message.
        with trio.CancelScope(deadline=self._patience.deadline) as self._patience:
            item = await self._inner.__anext__()
        if item is None:
            item = SessionMessage(self._answers.give_up_probe())
        elif isinstance(item, SessionMessage):
            item = SessionMessage(self._answers.heard(item.message), item.metadata)
        if self._answers.probe is None:
            self._patience = trio.CancelScope()
        return item

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, traceback)  # noqa: ASYNC102  # the exit of the stream, which only closes it


@attrs.define(eq=False)
class _Said:
    """The messages to a server, noted."""

    _inner: Outgoing
    _answers: Answers
    _heard: _Heard

    async def send(self, item: SessionMessage, /) -> None:
        self._answers.asked(item.message)  # before the server can answer
        await self._inner.send(item)
        if self._answers.is_probe(item.message):
            self._heard.expect_probe()

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, traceback)  # noqa: ASYNC102  # the exit of the stream, which only closes it


@asynccontextmanager
async def repaired_streams(transport: AbstractAsyncContextManager[Streams], answers: Answers) -> AsyncIterator[Streams]:
    """Open a transport; what comes in through it is repaired by `answers`."""
    async with transport as (read, write):
        heard = _Heard(read, answers)
        yield heard, _Said(write, answers, heard)
