"""What every `PubSub` must do, as tests: subclass `PubSubConformance`, say how a bus is opened, and run pytest.

    class TestMyBus(PubSubConformance):
        @asynccontextmanager
        async def open_bus(self):
            yield MyBus()

Needs pytest and pytest-trio. A bus may drop payloads, double and reorder them, so the tests publish until what they wait for has come,
for at most `patience` seconds. A bus over a network takes real time: make `patience` large enough there.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final

import pytest
import trio

from trio_sagents import Presence, PubSub

MIN_PAYLOAD: Final = 1024
"""Bytes that a payload may have at least, or the bus carries no presence."""


class PubSubConformance:
    """The tests. A subclass overrides `open_bus`; each test opens one bus, to which nobody listens."""

    pytestmark: ClassVar[pytest.MarkDecorator] = pytest.mark.trio
    patience: ClassVar[float] = 10.0
    """Seconds that a payload may take, lost payloads that are published again included."""
    interval: ClassVar[float] = 0.05
    """Seconds between two attempts to publish the same payload."""

    def open_bus(self) -> AbstractAsyncContextManager[PubSub]:
        """Open a bus."""
        raise NotImplementedError

    async def arrives(self, bus: PubSub, topic: str, payload: bytes, *readers: AsyncIterator[bytes]) -> None:
        """Publish a payload until each reader has got it; fail if one of them gets another payload, or none in time."""
        missing = len(readers)

        async def read(payloads: AsyncIterator[bytes], scope: trio.CancelScope) -> None:
            nonlocal missing
            async for found in payloads:
                assert isinstance(found, bytes), f"the bus gave {type(found).__name__}, not bytes"
                if found == payload:
                    break
                assert found in self.published, "the bus gave a payload that nobody has published on this topic"
            else:
                raise AssertionError("the iterator of a subscription ended before its context")
            missing -= 1
            if not missing:
                scope.cancel()

        self.published.add(payload)
        with trio.move_on_after(self.patience):
            async with trio.open_nursery() as nursery:
                for reader in readers:
                    nursery.start_soon(read, reader, nursery.cancel_scope)
                while True:
                    bus.publish(topic, payload)
                    await trio.sleep(self.interval)
        assert missing == 0, f"{missing} of {len(readers)} subscribers did not get the payload within {self.patience:g} seconds"

    @property
    def published(self) -> set[bytes]:
        """The payloads that the running test has published on its topic."""
        found: set[bytes] = self.__dict__.setdefault("_published", set())
        return found

    async def test_payload_when_several_subscribe(self) -> None:
        """Each subscriber of the topic gets the payload, byte by byte as it was published."""
        every_byte = bytes(range(256))
        async with self.open_bus() as bus, bus.subscribe("t") as one, bus.subscribe("t") as other:
            await self.arrives(bus, "t", every_byte, one, other)
            await self.arrives(bus, "t", b"second", one, other)
            await self.arrives(bus, "t", b"", one, other)

    async def test_payload_when_it_is_large(self) -> None:
        """A payload of `max_payload` bytes passes, and that is enough for a presence."""
        async with self.open_bus() as bus, bus.subscribe("t") as payloads:
            assert bus.max_payload >= MIN_PAYLOAD
            await self.arrives(bus, "t", b"x" * min(bus.max_payload, 1024 * 1024), payloads)

    async def test_payload_of_another_topic(self) -> None:
        """A subscriber gets nothing of other topics, even if their names are similar."""
        async with self.open_bus() as bus, bus.subscribe("t") as payloads:
            for other in ("T", "t ", "t/x", "t*", "ţ"):
                bus.publish(other, b"of another topic")
            await self.arrives(bus, "t", b"of this topic", payloads)

    async def test_publish_when_nobody_listens(self) -> None:
        """Publishing is synchronous and does not fail, with or without subscribers; a later subscriber can still be reached."""
        async with self.open_bus() as bus:
            assert bus.publish("t", b"to nobody") is None  # type: ignore[func-returns-value]  # an `async def` would return a coroutine
            self.published.add(b"to nobody")
            async with bus.subscribe("t") as payloads:
                await self.arrives(bus, "t", b"to somebody", payloads)
            bus.publish("t", b"to nobody again")

    async def test_subscribe_when_the_context_is_left(self) -> None:
        """A subscription that has ended takes nothing from the others, and can be made again."""
        async with self.open_bus() as bus, bus.subscribe("t") as kept:
            async with bus.subscribe("t") as left:
                await self.arrives(bus, "t", b"1", kept, left)
            await self.arrives(bus, "t", b"2", kept)
            async with bus.subscribe("t") as again:
                await self.arrives(bus, "t", b"3", kept, again)

    async def test_subscribe_when_a_reader_is_cancelled(self) -> None:
        """A reading that is cancelled ends at once, and leaves the subscription usable."""
        async with self.open_bus() as bus, bus.subscribe("t") as payloads:
            with trio.move_on_after(self.interval) as scope, trio.fail_after(self.patience):
                async for found in payloads:
                    assert found in self.published
            assert scope.cancelled_caught
            await self.arrives(bus, "t", b"after that", payloads)

    async def test_publish_when_a_subscriber_is_slow(self) -> None:
        """A subscriber that does not read holds up neither the publisher nor another subscriber."""
        async with self.open_bus() as bus, bus.subscribe("t"), bus.subscribe("t") as quick:
            with trio.fail_after(self.patience):
                for number in range(2000):
                    payload = b"%d" % number
                    self.published.add(payload)
                    bus.publish("t", payload)
                await self.arrives(bus, "t", b"last", quick)

    async def test_presence_over_the_bus(self) -> None:
        """Two presences on the bus see each other's entries come and go."""
        async with self.open_bus() as bus, trio.open_nursery() as nursery:
            here, there = (Presence(bus, heartbeat_interval=0.2) for _ in range(2))
            nursery.start_soon(here.run)
            nursery.start_soon(there.run)
            async with here.track("room", "anne", {"name": "Anne"}):
                await self.comes(lambda: there.count("room") == 1)
                assert {"anne": [{"name": "Anne"}]} == {key: list(metas) for key, metas in (await there.list("room")).items()}
            await self.comes(lambda: there.count("room") == 0)
            nursery.cancel_scope.cancel()

    async def comes(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so, for at most `patience` seconds."""
        with trio.fail_after(self.patience):
            while not is_so():  # noqa: ASYNC110  # the bus may be of another process, which sets no event here
                await trio.sleep(self.interval)
