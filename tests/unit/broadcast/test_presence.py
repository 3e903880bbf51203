"""Presence: an entry is there exactly while somebody holds it, and a slow listener costs nothing."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.broadcast._presence import Presence, PresenceDiff, Tracked, _Listener
from trio_sagents.data.json import canonical

TOPIC = "conversation:1"


def is_quiet(changes: AsyncIterator[PresenceDiff]) -> bool:
    """Return whether the iterator has nothing to give now; it looks inside, for a wait would not end."""
    assert isinstance(changes, _Listener)

    return not changes.joined and not changes.left


async def test_track_when_open() -> None:
    """An entry is listed while its context is open, and not after it."""
    presence = Presence()
    async with presence.track(TOPIC, "alice", {"device": "phone"}):
        assert {"alice": [{"device": "phone"}]} == await presence.list(TOPIC)
        assert 1 == presence.count(TOPIC)

    assert {} == await presence.list(TOPIC)
    assert 0 == presence.count(TOPIC)


async def test_track_when_the_key_is_there_already() -> None:
    """One key can be tracked several times: it has one meta for each time, the earliest first."""
    presence = Presence()
    async with presence.track(TOPIC, "alice", {"n": 1}), presence.track(TOPIC, "bob"), presence.track(TOPIC, "alice", {"n": 2}):
        assert {"alice": [{"n": 1}, {"n": 2}], "bob": [{}]} == await presence.list(TOPIC)
        assert 3 == presence.count(TOPIC)


async def test_track_when_cancelled() -> None:
    """A cancelled holder is gone at once."""
    presence = Presence()
    async with trio.open_nursery() as nursery:

        async def hold() -> None:
            async with presence.track(TOPIC, "alice"):
                await trio.sleep_forever()

        nursery.start_soon(hold)
        await trio.testing.wait_all_tasks_blocked()
        assert 1 == presence.count(TOPIC)
        nursery.cancel_scope.cancel()

    assert 0 == presence.count(TOPIC)


async def test_track_when_the_body_raises() -> None:
    """A holder that crashes is gone, and its error passes."""
    presence = Presence()
    with pytest.raises(RuntimeError, match="crash"):
        async with presence.track(TOPIC, "alice"):
            raise RuntimeError("crash")

    assert 0 == presence.count(TOPIC)


async def test_track_when_cancelled_before_it_is_open() -> None:
    """A cancelled entering leaves no entry."""
    presence = Presence()
    counts: list[int] = []
    presence.watch_count(TOPIC, counts.append)
    with trio.CancelScope() as scope:
        scope.cancel()
        async with presence.track(TOPIC, "alice"):
            pytest.fail("entered")

    assert scope.cancelled_caught
    assert [] == counts


@pytest.mark.parametrize(
    ("topic", "key", "meta", "error", "words"),
    [
        ("", "a", None, ValueError, "topic must not be empty"),
        (5, "a", None, TypeError, "topic must be a str, not int: 5"),
        ("t", "", None, ValueError, "key must not be empty"),
        ("t", None, None, TypeError, "key must be a str, not NoneType: None"),
        ("t", "a", {"x": {1}}, TypeError, r"meta\.x: set has no JSON form"),
        ("t", "a", {"x": float("nan")}, ValueError, r"meta\.x: nan has no JSON form"),
        ("t", "a", {1: 2}, TypeError, "meta: the key 1 is not a str"),
        ("t", "a", [1], TypeError, r"meta must be a JSON object, not list: \[1\]"),
    ],
)
async def test_track_when_an_argument_is_wrong(topic: Any, key: Any, meta: Any, error: type[Exception], words: str) -> None:
    """A wrong argument is refused before any effect."""
    presence = Presence()
    with pytest.raises(error, match=words):
        await presence.track(topic, key, meta).__aenter__()
    with pytest.raises(error, match=words):
        presence.enter(topic, key, meta)

    assert 0 == len(presence._topics)


async def test_list_when_a_meta_is_changed_by_its_owner() -> None:
    """Metas are copied in and out, so a caller who changes a meta changes nothing else."""
    presence = Presence()
    meta = {"tags": ["a"]}
    async with presence.track(TOPIC, "alice", meta):
        meta["tags"].append("b")
        (first,) = (await presence.list(TOPIC))["alice"]
        first["tags"].append("c")
        assert {"alice": [{"tags": ["a"]}]} == await presence.list(TOPIC)


async def test_list_when_called() -> None:
    """Listing passes a checkpoint, on an empty topic too."""
    presence = Presence()
    with trio.testing.assert_checkpoints():
        await presence.list(TOPIC)


async def test_changes_when_entries_come_and_go() -> None:
    """A listener gets what joins and what leaves, with the metas."""
    presence = Presence()
    with trio.fail_after(1):
        async with presence.track(TOPIC, "before"), presence.changes(TOPIC) as changes:
            async with presence.track(TOPIC, "alice", {"n": 1}):
                assert PresenceDiff({"alice": [{"n": 1}]}, {}) == await anext(changes)

            assert PresenceDiff({}, {"alice": [{"n": 1}]}) == await anext(changes)
            assert is_quiet(changes)


async def test_changes_when_a_listener_waits() -> None:
    """A waiting listener is woken, and not for what came to nothing."""
    presence = Presence()
    seen: list[PresenceDiff] = []

    async def read(changes: AsyncIterator[PresenceDiff]) -> None:
        async for diff in changes:
            seen.append(diff)  # it is watched while it grows

    async with trio.open_nursery() as nursery, presence.changes(TOPIC) as changes:
        nursery.start_soon(read, changes)
        await trio.testing.wait_all_tasks_blocked()
        tracked = presence.enter(TOPIC, "alice")
        await trio.testing.wait_all_tasks_blocked()
        presence.enter(TOPIC, "bob").leave()
        await trio.testing.wait_all_tasks_blocked()
        tracked.leave()
        await trio.testing.wait_all_tasks_blocked()

    assert [PresenceDiff({"alice": [{}]}, {}), PresenceDiff({}, {"alice": [{}]})] == seen


async def test_changes_when_nobody_looks() -> None:
    """All that a slow listener missed is one difference. An entry that came and left in the meantime is not in it."""
    presence = Presence()
    bob = presence.enter(TOPIC, "bob", {"n": 0})
    async with presence.changes(TOPIC) as changes:
        for number in range(1000):
            presence.enter(TOPIC, f"guest-{number}").leave()
        assert is_quiet(changes)
        presence.enter(TOPIC, "alice", {"n": 1})
        bob.leave()
        presence.enter(TOPIC, "bob", {"n": 2})

        assert PresenceDiff({"alice": [{"n": 1}], "bob": [{"n": 2}]}, {"bob": [{"n": 0}]}) == await anext(changes)
        assert is_quiet(changes)


async def test_changes_when_there_are_two_listeners() -> None:
    """Each listener has its own difference. A listener that does not read costs the other nothing."""
    presence = Presence()
    async with presence.changes(TOPIC) as one, presence.changes(TOPIC) as other:
        tracked = presence.enter(TOPIC, "alice")
        assert PresenceDiff({"alice": [{}]}, {}) == await anext(one)
        tracked.leave()
        assert PresenceDiff({}, {"alice": [{}]}) == await anext(one)

        assert is_quiet(other)


async def test_changes_when_on_another_topic() -> None:
    """A listener hears only of its own topic."""
    presence = Presence()
    async with presence.changes("other") as changes:
        presence.enter(TOPIC, "alice")

        assert is_quiet(changes)


async def test_changes_when_the_context_is_left() -> None:
    """The iterator ends with its context, also for a task that waits on it."""
    presence = Presence()
    ended = trio.Event()

    async def read(changes: AsyncIterator[PresenceDiff]) -> None:
        async for _ in changes:
            pytest.fail("there was nothing")
        ended.set()

    async with trio.open_nursery() as nursery:
        async with presence.changes(TOPIC) as changes:
            nursery.start_soon(read, changes)
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            await ended.wait()
    presence.enter(TOPIC, "alice")
    with pytest.raises(StopAsyncIteration):
        await anext(changes)


async def test_changes_when_the_reading_is_cancelled() -> None:
    """A cancelled reading loses nothing."""
    presence = Presence()
    async with presence.changes(TOPIC) as changes:
        presence.enter(TOPIC, "alice")
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(changes)

        assert scope.cancelled_caught
        assert PresenceDiff({"alice": [{}]}, {}) == await anext(changes)


async def test_changes_when_two_tasks_read() -> None:
    """Each difference goes to one of the two readers of an iterator."""
    presence = Presence()
    seen: list[PresenceDiff] = []

    async def read(changes: AsyncIterator[PresenceDiff]) -> None:
        async for diff in changes:
            seen.append(diff)  # it is watched while it grows

    async with trio.open_nursery() as nursery, presence.changes(TOPIC) as changes:
        nursery.start_soon(read, changes)
        nursery.start_soon(read, changes)
        for key in "abc":
            await trio.testing.wait_all_tasks_blocked()
            presence.enter(TOPIC, key)
        await trio.testing.wait_all_tasks_blocked()

    assert [{key: [{}]} for key in "abc"] == [diff.joins for diff in seen]


async def test_update_when_listened_to() -> None:
    """A changed meta is a leave of the old meta and a join of the new one, in one difference, however often it changed."""
    presence = Presence()
    tracked = presence.enter(TOPIC, "alice", {"n": 0})
    async with presence.changes(TOPIC) as changes:
        tracked.update({"n": 1})
        tracked.update({"n": 2})
        assert PresenceDiff({"alice": [{"n": 2}]}, {"alice": [{"n": 0}]}) == await anext(changes)

        tracked.update({"n": 3})
        tracked.leave()
        assert PresenceDiff({}, {"alice": [{"n": 2}]}) == await anext(changes)

        tracked.update({"n": 4})
        tracked.leave()
        assert is_quiet(changes)
        assert not tracked.is_present


async def test_update_when_the_meta_is_wrong() -> None:
    """A wrong meta changes nothing."""
    presence = Presence()
    tracked = presence.enter(TOPIC, "alice", {"n": 0})
    with pytest.raises(TypeError, match="meta must be a JSON object"):
        tracked.update([1])  # type: ignore[arg-type]  # wrong on purpose
    assert {"alice": [{"n": 0}]} == await presence.list(TOPIC)
    tracked.update(None)

    assert {"alice": [{}]} == await presence.list(TOPIC)


async def test_enter_when_the_meta_is_lazy() -> None:
    """A lazy meta is asked when somebody reads it, and not before."""
    presence = Presence()
    calls: list[str] = []

    def meta() -> Mapping[str, Any]:
        calls.append("asked")
        return {"n": len(calls)}

    tracked = presence.enter(TOPIC, "alice", meta)
    tracked.update(meta)
    tracked.leave()
    assert [] == calls
    tracked = presence.enter(TOPIC, "alice", meta)
    assert {"alice": [{"n": 1}]} == await presence.list(TOPIC)
    async with presence.changes(TOPIC) as changes:
        tracked.leave()
        assert 2 == len(calls)
        assert PresenceDiff({}, {"alice": [{"n": 2}]}) == await anext(changes)

        presence.enter(TOPIC, "bob", meta)
        assert 2 == len(calls)
        assert PresenceDiff({"bob": [{"n": 3}]}, {}) == await anext(changes)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.sampled_from("ab"), st.integers(0, 2)),
        st.tuples(st.just("leave"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("update"), st.integers(0, 5), st.integers(0, 2)),
        st.tuples(st.sampled_from(["read", "read late"]), st.just(0), st.just(0)),
    ),
    max_size=30,
)


def bag(metas: Mapping[str, Sequence[object]]) -> Counter[tuple[str, str]]:
    """Return each (key, meta) with how often it is there."""
    return Counter((key, canonical(meta)) for key, some in metas.items() for meta in some)


@given(STEPS)
def test_changes_when_folded(steps: Sequence[tuple[str, Any, int]]) -> None:
    """Whatever happens, and however rarely a listener reads: its old knowledge plus the difference gives the present entries."""

    async def main() -> None:
        presence = Presence()
        held: list[Tracked] = [presence.enter(TOPIC, "a", {"n": 0})]
        counts: list[int] = []
        presence.watch_count(TOPIC, counts.append)
        async with presence.changes(TOPIC) as changes, presence.changes(TOPIC) as late:
            known = {id(changes): bag(await presence.list(TOPIC)), id(late): bag(await presence.list(TOPIC))}
            for what, which, number in [*steps, ("read", 0, 0), ("read late", 0, 0)]:
                if what == "enter":
                    held.append(presence.enter(TOPIC, which, {"n": number}))
                elif what == "leave" and held:
                    held.pop(which % len(held)).leave()
                elif what == "update" and held:
                    held[which % len(held)].update({"n": number})
                elif what.startswith("read"):
                    reader = changes if what == "read" else late
                    now = bag(await presence.list(TOPIC))
                    if not is_quiet(reader):
                        diff = await anext(reader)
                        gone, came = bag(diff.leaves), bag(diff.joins)
                        assert gone <= known[id(reader)]
                        known[id(reader)] = known[id(reader)] - gone + came
                    assert now == known[id(reader)]
                assert len(held) == presence.count(TOPIC)
                assert len(held) == (counts[-1] if counts else 1)

    trio.run(main)
