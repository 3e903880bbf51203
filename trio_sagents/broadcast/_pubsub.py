"""The pub/sub of one process: what `PubSub` asks for, and no more.

Publishing never waits. Each subscriber has a bounded buffer; one that is too slow loses the oldest payloads, as the contract of
`PubSub` allows, and nobody else does.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

import trio

from trio_sagents.exceptions import LimitExceeded

MAX_PAYLOAD: Final = 1024 * 1024
BUFFER_SIZE: Final = 256


class PubSub(Protocol):
    """Carries bytes between processes. Lossy by contract: it may drop, double and reorder."""

    max_payload: int

    def publish(self, topic: str, payload: bytes) -> None:
        """Send, without waiting."""
        ...

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Listen while the context is open."""
        ...


class _Mailbox:
    """What one subscriber has not taken yet."""

    def __init__(self, size: int) -> None:
        self.payloads: deque[bytes] = deque(maxlen=size)
        self.woken = trio.Event()
        self.is_open = True

    def put(self, payload: bytes) -> None:
        """Add a payload; the oldest falls out of a full mailbox."""
        self.payloads.append(payload)
        self.woken.set()

    def close(self) -> None:
        """End the iterator, also for a task that waits on it."""
        self.is_open = False
        self.woken.set()

    def __aiter__(self) -> "_Mailbox":
        return self

    async def __anext__(self) -> bytes:
        """Return the oldest payload.

        Cancellation: either it is returned, or it is still there for the next call.
        """
        await trio.lowlevel.checkpoint()
        while self.is_open and not self.payloads:
            if self.woken.is_set():
                self.woken = trio.Event()
            await self.woken.wait()
        # No checkpoint until the return: what is taken is handed over.
        if not self.is_open:
            raise StopAsyncIteration
        return self.payloads.popleft()


class LocalPubSub:
    """A `PubSub` inside one process."""

    def __init__(self, *, max_payload: int = MAX_PAYLOAD, buffer_size: int = BUFFER_SIZE) -> None:
        """Make one without subscribers.

        Args:
            max_payload: the most bytes of one payload; > 0.
            buffer_size: how many payloads wait for one slow subscriber, before it loses the oldest; > 0.

        Raises:
            ValueError: one of them is not > 0.
        """
        for name, value in (("max_payload", max_payload), ("buffer_size", buffer_size)):
            if value <= 0:
                raise ValueError(f"{name} must be > 0, not {value!r}")
        self.max_payload = max_payload
        self._buffer_size = buffer_size
        self._topics: dict[str, tuple[_Mailbox, ...]] = {}

    def publish(self, topic: str, payload: bytes) -> None:
        """Give a payload to all who subscribe to the topic now, without waiting.

        Args:
            topic: not empty.
            payload: at most `max_payload` bytes.

        Raises:
            TypeError: the topic is no str or the payload no bytes; nobody got it.
            ValueError: the topic is empty; nobody got it.
            LimitExceeded: the payload is too large; nobody got it.
        """
        _check_topic(topic)
        if not isinstance(payload, bytes):
            raise TypeError(f"payload must be bytes, not {type(payload).__name__}")
        if len(payload) > self.max_payload:
            raise LimitExceeded("max_payload", len(payload), most=self.max_payload)
        for mailbox in self._topics.get(topic, ()):
            mailbox.put(payload)

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Listen to a topic while the context is open.

        Args:
            topic: not empty.

        Yields:
            An iterator of the payloads published from now on, oldest first. It ends with the context.

        Raises:
            TypeError: the topic is no str.
            ValueError: the topic is empty.

        Cancellation: either the context was not entered, or nothing is left of it when it has ended.
        """
        _check_topic(topic)
        await trio.lowlevel.checkpoint()
        mailbox = _Mailbox(self._buffer_size)
        self._topics[topic] = (*self._topics.get(topic, ()), mailbox)
        try:
            yield mailbox
        finally:
            mailbox.close()
            left = tuple(one for one in self._topics[topic] if one is not mailbox)
            if left:
                self._topics[topic] = left
            else:
                del self._topics[topic]


def _check_topic(topic: object) -> None:
    if not isinstance(topic, str):
        raise TypeError(f"topic must be a str, not {type(topic).__name__}: {topic!r}")
    if not topic:
        raise ValueError("topic must not be empty")
