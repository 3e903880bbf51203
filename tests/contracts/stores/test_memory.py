"""The store in memory: the conformance kit, and what is its own."""

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import get_args

import attrs
import pytest
import trio
from trio.testing import assert_checkpoints

from trio_sagents.abc import ConversationStore, OpenableStore, OwnedStore
from trio_sagents.data.records import ENDS, UNCHECKED, Commit, DisplayMessage, Lifecycle
from trio_sagents.exceptions import PersistenceError, StateFromFuture
from trio_sagents.persistence import MemoryStore, _records
from trio_sagents.testing.conformance_store import StoreConformance


def change(conversation_id: str, revision: int, **parts: object) -> Commit:
    first = Commit(conversation_id=conversation_id, agent_id="a", owner=None, epoch=1, revision=revision, lifecycle="on_step")
    return attrs.evolve(first, **parts)  # type: ignore[arg-type]  # the fields of a commit


class TestConformance(StoreConformance):
    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[ConversationStore]:
        yield MemoryStore()


def test_outlives_a_run() -> None:
    """A store may serve one event loop after the other."""
    store = MemoryStore()
    trio.run(store.commit, None, change("c", 1))

    assert trio.run(store.commit, None, change("c", 2)) == 2


def test_kind() -> None:
    """It checks owners, and needs no opening."""
    store = MemoryStore()

    assert (True, False) == (isinstance(store, OwnedStore), isinstance(store, OpenableStore))


async def test_every_method_checkpoints() -> None:
    """Every method passes a checkpoint, also one that does nothing."""
    store = MemoryStore()
    with assert_checkpoints():
        await store.load(None, "c")
    with assert_checkpoints():
        await store.commit(None, change("c", 1))
    with assert_checkpoints():
        await store.history(None, "c", before=None, limit=1)
    with assert_checkpoints():
        await store.conversations(None, after=None, limit=1)
    with assert_checkpoints():
        await store.delete(None, "nothing")


async def test_order_forgets_what_is_past() -> None:
    """What the order of conversations keeps does not grow with the number of changes."""
    store = MemoryStore()
    for revision in range(1, 1001):
        for name in "abc":
            await store.commit(None, change(name, revision))

    assert len(store._all._changes) < 100
    page = await store.conversations(None, after=None, limit=10)
    assert ["c", "b", "a"] == [item.conversation_id for item in page.items]


async def test_order_of_an_owner_goes_with_its_last_conversation() -> None:
    """Deleting the last conversation of an owner leaves nothing of that owner."""
    store = MemoryStore()
    for n in range(200):
        await store.commit(None, change("c", 1, owner=n))
        assert await store.delete(None, "c")

    assert {} == store._owned
    assert len(store._all._changes) < 100


async def test_load_of_a_newer_record() -> None:
    """A record of a newer version is StateFromFuture, and the epoch stays: its writer is not fenced off."""
    store = MemoryStore()
    await store.commit(None, change("c", 1, messages=[{"v": 999}]))
    with pytest.raises(StateFromFuture, match="'c'"):
        await store.load(None, "c")

    assert await store.commit(None, change("c", 2)) == 2


async def test_commit_of_a_record_that_is_too_big(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record over the limit is refused by the limit's name, with nothing stored."""
    monkeypatch.setattr(_records, "MAX_RECORD_BYTES", 100)
    store = MemoryStore()
    with pytest.raises(PersistenceError, match="MAX_RECORD_BYTES"):
        await store.commit(None, change("c", 1, messages=[{"text": "é" * 60}]))

    assert await store.load(None, "c") is None


def row(**fields: object) -> DisplayMessage:
    first = DisplayMessage("r", "m", "user", "text", {}, "completed", datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC))
    return attrs.evolve(first, **fields)  # type: ignore[arg-type]  # the fields of a row


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"conversation_id": ""}, ValueError),
        ({"conversation_id": 5}, TypeError),
        ({"agent_id": None}, TypeError),
        ({"owner": True}, TypeError),
        ({"owner": 1.5}, TypeError),
        ({"revision": "1"}, TypeError),
        ({"revision": True}, TypeError),
        ({"revision": -1}, ValueError),
        ({"epoch": 2**60}, ValueError),
        ({"queued": [{"text": "no id"}]}, ValueError),
        ({"queued": [{"message_id": "m"}, {"message_id": "m"}]}, PersistenceError),
        ({"taken": [5]}, TypeError),
        ({"message_ids": {"m": 5}}, TypeError),
        ({"message_ids": {"\ud800": "d"}}, ValueError),
        ({"state": {5: {}}}, TypeError),
        ({"rows": [row(role="god")]}, ValueError),
        ({"rows": [row(status="odd")]}, ValueError),
        ({"rows": [row(content=[])]}, TypeError),
        ({"rows": [row(row_id=None)]}, TypeError),
        ({"rows": [row(created_at=datetime.datetime(2024, 1, 1))]}, ValueError),
    ],
    ids=repr,
)
async def test_commit_of_nonsense(wrong: dict[str, object], error: type[Exception]) -> None:
    """What cannot be stored is refused before any effect."""
    store = MemoryStore()
    with pytest.raises(error):
        await store.commit(None, attrs.evolve(change("c", 1), **wrong))  # type: ignore[arg-type]

    assert "<MemoryStore of 0 conversations>" == repr(store)


async def test_commit_that_nests_without_end() -> None:
    """A value that nests deeper than the encoder goes is a ValueError."""
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="nests"):
        await MemoryStore().commit(None, change("c", 1, state={"metadata": {"x": value}}))


@pytest.mark.parametrize(("arguments", "says"), [({"after": 5, "limit": 1}, "after"), ({"after": None, "limit": "1"}, "limit")])
async def test_page_of_nonsense(arguments: dict[str, object], says: str) -> None:
    """A cursor or a limit of the wrong type is a TypeError that names it."""
    with pytest.raises(TypeError, match=says):
        await MemoryStore().conversations(None, **arguments)  # type: ignore[arg-type]


def test_repr_tells_no_content() -> None:
    """Its repr is a count."""
    assert "<MemoryStore of 0 conversations>" == repr(MemoryStore())


LIFECYCLES = {lifecycle: lifecycle in ENDS for lifecycle in get_args(Lifecycle)}


@pytest.mark.parametrize(("lifecycle", "comes_first"), LIFECYCLES.items(), ids=LIFECYCLES)
async def test_list_when_a_turn_takes_a_step(lifecycle: Lifecycle, comes_first: bool) -> None:
    """A conversation comes first in the lists when it begins, and whenever a turn ends or begins to wait; nothing else moves it."""
    store = MemoryStore()
    for name in "abc":
        await store.commit(None, change(name, 1, lifecycle="on_message"))
    await store.commit(None, change("b", 2, lifecycle=lifecycle, state={"metadata": {"title": "B"}}))
    for owner in (UNCHECKED, None):
        items = (await store.conversations(None, after=None, limit=9, owner=owner)).items
        assert ("bca" if comes_first else "cba") == "".join(item.conversation_id for item in items)
        assert ["B"] == [item.title for item in items if item.conversation_id == "b"]
