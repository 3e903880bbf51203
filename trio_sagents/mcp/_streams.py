"""What passes between a transport and the SDK's session. The SDK has no public names for these types."""

from types import TracebackType
from typing import Protocol, Self, TypeAlias

from mcp.shared.message import SessionMessage


class Incoming(Protocol):
    """The messages of a server, as the transport reads them."""

    async def receive(self) -> SessionMessage | Exception:
        """Return the next message."""
        ...

    async def aclose(self) -> None:
        """Close the stream."""
        ...

    def __aiter__(self) -> "Incoming": ...

    async def __anext__(self) -> SessionMessage | Exception: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None: ...


class Outgoing(Protocol):
    """The messages to a server, as the transport writes them."""

    async def send(self, item: SessionMessage, /) -> None:
        """Send a message."""
        ...

    async def aclose(self) -> None:
        """Close the stream."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None: ...


Streams: TypeAlias = tuple[Incoming, Outgoing]
