"""The pub/sub of one process: publishing never waits, and a slow subscriber harms only itself."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.abc import PubSub
from trio_sagents.broadcast._pubsub import BUFFER_SIZE, MAX_PAYLOAD, LocalPubSub
from trio_sagents.exceptions import LimitExceeded


async def test_publish_when_subscribed() -> None:
    """Subscribers of the topic get the payloads in order; others get none."""
    pubsub: PubSub = LocalPubSub()
    async with pubsub.subscribe("t") as one, pubsub.subscribe("t") as two, pubsub.subscribe("u") as other:
        pubsub.publish("t", b"1")
        pubsub.publish("t", b"2")
        pubsub.publish("u", b"3")

        assert [b"1", b"2"] == [await anext(one), await anext(one)]
        assert [b"1", b"2"] == [await anext(two), await anext(two)]
        assert b"3" == await anext(other)


async def test_publish_when_nobody_subscribes() -> None:
    """A payload without a subscriber is dropped, and leaves nothing in memory."""
    pubsub = LocalPubSub()
    pubsub.publish("t", b"early")
    async with pubsub.subscribe("t") as payloads:
        pubsub.publish("t", b"in time")
        assert b"in time" == await anext(payloads)
    pubsub.publish("t", b"late")

    assert 0 == len(pubsub._topics)


async def test_publish_when_a_subscriber_waits() -> None:
    """A waiting subscriber is woken."""
    pubsub = LocalPubSub()
    seen: list[bytes] = []

    async def listen(payloads: AsyncIterator[bytes]) -> None:
        async for payload in payloads:
            seen.append(payload)  # it is watched while it grows

    async with trio.open_nursery() as nursery, pubsub.subscribe("t") as payloads:
        nursery.start_soon(listen, payloads)
        for payload in (b"1", b"2"):
            await trio.testing.wait_all_tasks_blocked()
            pubsub.publish("t", payload)
        await trio.testing.wait_all_tasks_blocked()

    assert [b"1", b"2"] == seen


async def test_publish_when_a_subscriber_is_slow() -> None:
    """A slow subscriber loses the oldest payloads; a quick subscriber loses none."""
    pubsub = LocalPubSub(buffer_size=2)
    async with pubsub.subscribe("t") as slow, pubsub.subscribe("t") as quick:
        for payload in (b"1", b"2", b"3"):
            pubsub.publish("t", payload)
            assert payload == await anext(quick)

        assert [b"2", b"3"] == [await anext(slow), await anext(slow)]


async def test_publish_when_the_buffer_is_the_default() -> None:
    """The default buffer holds 256 payloads, and a payload of 1 MiB passes."""
    pubsub = LocalPubSub()
    async with pubsub.subscribe("t") as payloads:
        pubsub.publish("t", b"x" * MAX_PAYLOAD)
        assert MAX_PAYLOAD == len(await anext(payloads))
        for number in range(BUFFER_SIZE + 1):
            pubsub.publish("t", b"%d" % number)

        assert b"1" == await anext(payloads)


@pytest.mark.parametrize(
    ("topic", "payload", "error", "words"),
    [
        ("", b"", ValueError, "topic must not be empty"),
        (5, b"", TypeError, "topic must be a str, not int: 5"),
        ("t", "text", TypeError, "payload must be bytes, not str"),
        ("t", bytearray(b"x"), TypeError, "payload must be bytes, not bytearray"),
        ("t", b"12345", LimitExceeded, "max_payload exceeded: 5, the limit is 4"),
    ],
)
async def test_publish_when_an_argument_is_wrong(topic: Any, payload: Any, error: type[Exception], words: str) -> None:
    """A payload that is refused reaches nobody."""
    pubsub = LocalPubSub(max_payload=4)
    async with pubsub.subscribe("t") as payloads:
        with pytest.raises(error, match=words):
            pubsub.publish(topic, payload)
        pubsub.publish("t", b"1234")

        assert b"1234" == await anext(payloads)


@pytest.mark.parametrize("topic", ["", 5])
async def test_subscribe_when_the_topic_is_wrong(topic: Any) -> None:
    """A wrong topic is refused."""
    with pytest.raises((TypeError, ValueError), match="topic must"):
        async with LocalPubSub().subscribe(topic):
            pytest.fail("entered")


@pytest.mark.parametrize("options", [{"max_payload": 0}, {"buffer_size": 0}])
def test_pubsub_when_a_limit_is_wrong(options: dict[str, int]) -> None:
    """A limit that lets nothing through is refused."""
    with pytest.raises(ValueError, match="must be > 0, not 0"):
        LocalPubSub(**options)


async def test_subscribe_when_the_context_is_left() -> None:
    """The iterator ends with its context, also for a task that waits on it."""
    pubsub = LocalPubSub()
    ended = trio.Event()

    async def read(payloads: AsyncIterator[bytes]) -> None:
        async for _ in payloads:
            pytest.fail("there was nothing")
        ended.set()

    async with trio.open_nursery() as nursery:
        async with pubsub.subscribe("t") as payloads, pubsub.subscribe("t"):
            nursery.start_soon(read, payloads)
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            await ended.wait()

    assert 0 == len(pubsub._topics)


async def test_subscribe_when_the_reading_is_cancelled() -> None:
    """A cancelled reading loses nothing, and a cancelled subscriber leaves nothing."""
    pubsub = LocalPubSub()
    with trio.CancelScope() as outer:
        async with pubsub.subscribe("t") as payloads:
            pubsub.publish("t", b"1")
            with trio.CancelScope() as scope:
                scope.cancel()
                await anext(payloads)
            assert scope.cancelled_caught
            assert b"1" == await anext(payloads)
            outer.cancel()
            await anext(payloads)

    assert outer.cancelled_caught
    assert 0 == len(pubsub._topics)


@given(st.lists(st.binary(max_size=3), max_size=20), st.integers(1, 5))
def test_publish_when_it_is_any_sequence(payloads: Sequence[bytes], size: int) -> None:
    """What a subscriber that did not read gets is the newest payloads, as many as its buffer holds, in order."""

    async def main() -> None:
        pubsub = LocalPubSub(buffer_size=size)
        async with pubsub.subscribe("t") as received:
            for payload in payloads:
                pubsub.publish("t", payload)
            expected = payloads[-size:]

            assert list(expected) == [await anext(received) for _ in expected]

    trio.run(main)
