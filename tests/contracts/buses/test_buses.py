"""The buses of the library: the conformance kit; and the kit finds broken buses, each of which is wrong in one way."""

import inspect
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from trio_sagents import LocalPubSub, PubSub
from trio_sagents.testing.conformance_pubsub import PubSubConformance


class TestLocal(PubSubConformance):
    @asynccontextmanager
    async def open_bus(self) -> AsyncIterator[PubSub]:
        yield LocalPubSub()


class Unreliable(LocalPubSub):
    """Drops about half of the payloads, and doubles the others: what the contract allows."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = random.Random(1)

    def publish(self, topic: str, payload: bytes) -> None:
        if self.dice.random() < 0.5:
            super().publish(topic, payload)
            super().publish(topic, payload)


class OneGetsIt(LocalPubSub):
    """Each payload goes to one subscriber, as in a queue of work."""

    turn = 0

    def publish(self, topic: str, payload: bytes) -> None:
        mailboxes = self._topics.get(topic, ())
        if mailboxes:
            mailboxes[0].put(payload)


class IsText(LocalPubSub):
    """Payloads are sent as text."""

    def publish(self, topic: str, payload: bytes) -> None:
        super().publish(topic, payload.decode("utf-8", errors="replace").encode())


class FoldsTopics(LocalPubSub):
    """Topics are compared without their case."""

    def publish(self, topic: str, payload: bytes) -> None:
        super().publish(topic.lower(), payload)


class IsSmall(LocalPubSub):
    """Takes less than a presence needs."""

    def __init__(self) -> None:
        super().__init__(max_payload=500)


class CutsPayloads(LocalPubSub):
    """A payload has at most 64 KiB."""

    def publish(self, topic: str, payload: bytes) -> None:
        super().publish(topic, payload[:65_536])


class NeedsASubscriber(LocalPubSub):
    """Publishing to nobody is an error."""

    def publish(self, topic: str, payload: bytes) -> None:
        if topic not in self._topics:
            raise LookupError(topic)
        super().publish(topic, payload)


class LeavingEndsAll(LocalPubSub):
    """Whoever leaves a topic ends it for the others."""

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with super().subscribe(topic) as payloads:
            yield payloads
        self._topics.pop(topic, None)
        self._topics[topic] = ()


class EndsWithItsReader:
    """An iterator that is over once a reading was cancelled."""

    def __init__(self, payloads: AsyncIterator[bytes]) -> None:
        self.payloads = payloads
        self.is_over = False

    def __aiter__(self) -> "EndsWithItsReader":
        return self

    async def __anext__(self) -> bytes:
        if self.is_over:
            raise StopAsyncIteration
        try:
            return await anext(self.payloads)
        except trio.Cancelled:
            self.is_over = True
            raise


class ForgetsTheReader(LocalPubSub):
    """A reading that is cancelled ends the subscription."""

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with super().subscribe(topic) as payloads:
            yield EndsWithItsReader(payloads)


class Blocks(LocalPubSub):
    """A full mailbox is an error of the publisher."""

    def publish(self, topic: str, payload: bytes) -> None:
        for mailbox in self._topics.get(topic, ()):
            if len(mailbox.payloads) > 100:
                raise trio.WouldBlock
        super().publish(topic, payload)


def failed_tests(make: Callable[[], PubSub]) -> list[str]:
    """Return the names of the kit's tests that fail."""

    class Kit(PubSubConformance):
        @asynccontextmanager
        async def open_bus(self) -> AsyncIterator[PubSub]:
            yield make()

    failed: list[str] = []
    names = [name for name, _ in inspect.getmembers(Kit, inspect.iscoroutinefunction) if name.startswith("test_")]
    for name in names:
        try:
            trio.run(getattr(Kit(), name), clock=trio.testing.MockClock(autojump_threshold=0))
        except (Exception, BaseExceptionGroup):
            failed.append(name)
    assert len(names) >= 8
    return failed


@pytest.mark.parametrize(
    ("broken", "found_by"),
    [
        (OneGetsIt, "test_payload_when_several_subscribe"),
        (IsText, "test_payload_when_several_subscribe"),
        (FoldsTopics, "test_payload_of_another_topic"),
        (IsSmall, "test_payload_when_it_is_large"),
        (CutsPayloads, "test_payload_when_it_is_large"),
        (NeedsASubscriber, "test_publish_when_nobody_listens"),
        (LeavingEndsAll, "test_subscribe_when_the_context_is_left"),
        (ForgetsTheReader, "test_subscribe_when_a_reader_is_cancelled"),
        (Blocks, "test_publish_when_a_subscriber_is_slow"),
    ],
)
def test_kit_when_a_bus_is_broken(broken: Any, found_by: str) -> None:
    """Each of them is found, by the test that is about it."""
    assert found_by in failed_tests(broken)


@pytest.mark.parametrize("made", [LocalPubSub, Unreliable])
def test_kit_when_a_bus_is_right(made: Any) -> None:
    """Nothing is found in a bus that is right; payloads may be lost and doubled."""
    assert [] == failed_tests(made)
