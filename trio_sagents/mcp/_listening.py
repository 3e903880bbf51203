"""Between a transport and the SDK's session: what goes out is noted, and what comes in is repaired."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING

import attrs
from mcp.shared.message import SessionMessage

from trio_sagents.mcp._answers import Answers

if TYPE_CHECKING:
    from typing import Self

    from mcp.client._transport import ReadStream, TransportStreams, WriteStream  # the SDK has no public names for them


@attrs.define(eq=False)
class _Heard:
    """The messages of a server, repaired."""

    _inner: "ReadStream[SessionMessage | Exception]"
    _answers: Answers

    def _read(self, item: SessionMessage | Exception) -> SessionMessage | Exception:
        if isinstance(item, SessionMessage):
            return SessionMessage(self._answers.heard(item.message), item.metadata)
        return item

    async def receive(self) -> SessionMessage | Exception:
        return self._read(await self._inner.receive())

    def __aiter__(self) -> "Self":
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        return self._read(await self._inner.__anext__())

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> "Self":
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, traceback)


@attrs.define(eq=False)
class _Said:
    """The messages to a server, noted."""

    _inner: "WriteStream[SessionMessage]"
    _answers: Answers

    async def send(self, item: SessionMessage, /) -> None:
        self._answers.asked(item.message)  # before the server can answer
        await self._inner.send(item)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> "Self":
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, traceback)


@asynccontextmanager
async def repaired_streams(
    transport: "AbstractAsyncContextManager[TransportStreams]", answers: Answers
) -> "AsyncIterator[TransportStreams]":
    """Open a transport; what comes in through it is repaired by `answers`."""
    async with transport as (read, write):
        yield _Heard(read, answers), _Said(write, answers)
