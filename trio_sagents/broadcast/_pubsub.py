"""Publish and subscribe: the port for a host's bus, and the bus inside one process, which does what the port asks for and no more.

Publishing never waits. Each subscriber of a `LocalPubSub` has a bounded buffer. A subscriber that is too slow loses the oldest payloads, as
the contract of `PubSub` allows, and no other subscriber loses anything.
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
    """Carries bytes between blocks of `open_sessions`, in one process or in several. It may drop payloads, double and reorder them.

    `Presence` uses it, on one topic. If a method raises, the error is logged, and the bus is tried again.
    """

    max_payload: int
    """The most bytes of one payload. A bus that takes less than a kilobyte carries no presence."""

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a payload to all subscribers of the topic, without waiting. The publisher itself may get the payload, too."""
        ...

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Listen to a topic while the context is open.

        Cancellation: either the context was not entered, or nothing is left of it when it has ended.
        """
        ...


class _Mailbox:
    """The payloads that one subscriber has not taken yet."""

    def __init__(self, size: int) -> None:
        self.payloads: deque[bytes] = deque(maxlen=size)
        self.woken = trio.Event()
        self.is_open = True

    def put(self, payload: bytes) -> None:
        """Add a payload. If the mailbox is full, its oldest payload is lost."""
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

        Cancellation: either the payload is returned, or it is still there for the next call.
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
    """A `PubSub` inside one process. Blocks that share one see each other's viewers and agents."""

    def __init__(self, *, max_payload: int = MAX_PAYLOAD, buffer_size: int = BUFFER_SIZE) -> None:
        """Make a bus without subscribers.

        Args:
            max_payload: the most bytes of one payload; > 0.
            buffer_size: how many payloads wait for a slow subscriber before it loses the oldest; > 0.

        Raises:
            ValueError: an argument is not > 0.
        """
        for name, value in (("max_payload", max_payload), ("buffer_size", buffer_size)):
            if value <= 0:
                raise ValueError(f"{name} must be > 0, not {value!r}")
        self.max_payload = max_payload
        self._buffer_size = buffer_size
        self._topics: dict[str, tuple[_Mailbox, ...]] = {}

    def publish(self, topic: str, payload: bytes) -> None:
        """Give a payload to everybody who subscribes to the topic now, without waiting.

        Args:
            topic: not empty.
            payload: at most `max_payload` bytes.

        Raises:
            TypeError: the topic is not a str, or the payload is not bytes; nobody got the payload.
            ValueError: the topic is empty; nobody got the payload.
            LimitExceeded: the payload is larger than `max_payload`; nobody got it.
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
            TypeError: the topic is not a str.
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
            left = tuple(other for other in self._topics[topic] if other is not mailbox)
            if left:
                self._topics[topic] = left
            else:
                del self._topics[topic]


def _check_topic(topic: object) -> None:
    if not isinstance(topic, str):
        raise TypeError(f"topic must be a str, not {type(topic).__name__}: {topic!r}")
    if not topic:
        raise ValueError("topic must not be empty")
