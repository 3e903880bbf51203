"""The part of the conformance kit of stores about checkpoints: what a `WindowedStore` loads, recalls and reads by page."""

from contextlib import AbstractAsyncContextManager
from typing import ClassVar, cast

import pytest

from trio_sagents.data.json import JSON
from trio_sagents.data.records import Checkpoint, Owner, Recalled
from trio_sagents.exceptions import ConversationNotFound, PersistenceError
from trio_sagents.storage.ports import ConversationStore, OwnedStore, WindowedStore
from trio_sagents.testing._store_values import OwnedWindows, change, listed, loaded, message, row, texts


def messages_of(*numbers: int) -> list[JSON]:
    """Return messages m0, m1, and so on."""
    return [message(f"m{number}", str(number)) for number in numbers]


def windowed(store: ConversationStore) -> WindowedStore:
    """Return the store as one that keeps windows; skip the test if it does not."""
    if not isinstance(store, WindowedStore):
        pytest.skip("this store keeps no windows")
    return store


async def older(store: WindowedStore, limit: int = 1000, conversation_id: str = "c") -> list[JSON]:
    """Return all messages before the window, read in pages."""
    pages: list[list[JSON]] = []
    before: str | None = None
    seen: set[str] = set()
    while True:
        page = await store.older_messages(None, conversation_id, before=before, limit=limit)
        pages.insert(0, list(page.messages))
        before = page.before
        if before is None:
            return [record for found in pages for record in found]
        assert before not in seen, f"older_messages gave the cursor {before!r} twice: a reader that follows it never ends"
        seen.add(before)


class WindowTests:
    """Tests of checkpoints. They are skipped for a store that is not a `WindowedStore`."""

    pytestmark: ClassVar[pytest.MarkDecorator] = pytest.mark.trio

    def open_store(self) -> AbstractAsyncContextManager[ConversationStore]:
        """Open an empty store."""
        raise NotImplementedError

    async def test_window_before_a_checkpoint(self) -> None:
        """Without a checkpoint the window is the whole history: nothing is older, and no name is known."""
        async with self.open_store() as store:
            window = windowed(store)
            await store.commit(None, change(messages=messages_of(0, 1)))
            got = await loaded(store)
            assert (0, messages_of(0, 1)) == (got.older, got.messages)
            assert [] == await older(window)
            assert {} == await window.recall(None, "c", ["message:m0"])
            assert {} == await window.recall(None, "none", ["message:m0"])
            with pytest.raises(ConversationNotFound):
                await window.older_messages(None, "none", before=None, limit=1)

    async def test_window_after_checkpoints(self) -> None:
        """A load gives the lead and what follows the checkpoint; a later checkpoint moves on, counted with its own messages."""
        async with self.open_store() as store:
            window = windowed(store)
            await store.commit(None, change("other", messages=messages_of(0, 1, 2)))
            await store.commit(None, change(messages=messages_of(0, 1, 2, 3), queued=[message("q")]))
            await store.commit(None, change("other", 2, messages=messages_of(3)))
            await store.commit(None, change(revision=2, messages=messages_of(4), checkpoint=Checkpoint(1, 2)))
            got = await loaded(store)
            assert (2, messages_of(0, 3, 4), [message("q")]) == (got.older, got.messages, got.queue)
            assert messages_of(1, 2) == await older(window)
            await store.commit(None, change(revision=3, epoch=got.epoch, messages=messages_of(5)))
            assert messages_of(0, 3, 4, 5) == (await loaded(store)).messages
            await store.commit(None, change(revision=4, epoch=got.epoch + 1, messages=messages_of(6), checkpoint=Checkpoint(1, 5)))
            got = await loaded(store)
            assert (5, messages_of(0, 6)) == (got.older, got.messages)
            assert messages_of(1, 2, 3, 4, 5) == await older(window)
            assert (0, messages_of(0, 1, 2, 3)) == ((other := await loaded(store, "other")).older, other.messages)

    async def test_window_when_nothing_stays(self) -> None:
        """A checkpoint may leave out every message; the count of the list still has them all."""
        async with self.open_store() as store:
            window = windowed(store)
            await store.commit(None, change(messages=messages_of(0, 1, 2)))
            await store.commit(None, change(revision=2, checkpoint=Checkpoint(0, 3)))
            got = await loaded(store)
            assert (3, []) == (got.older, got.messages)
            await store.commit(None, change(revision=3, epoch=got.epoch, messages=messages_of(3)))
            assert messages_of(3) == (await loaded(store)).messages
            assert messages_of(0, 1, 2) == await older(window)
            (item,) = (await store.conversations(None, after=None, limit=1)).items
            assert 4 == item.message_count

    async def test_older_messages_in_pages(self) -> None:
        """The pages have each older message once, in order, for pages of any size; a cursor keeps its place."""
        async with self.open_store() as store:
            window = windowed(store)
            await store.commit(None, change(messages=messages_of(*range(9)), checkpoint=Checkpoint(1, 7)))
            for limit in (1, 2, 3, 6, 7, 8, 1000):
                assert messages_of(*range(1, 8)) == await older(window, limit)
            page = await window.older_messages(None, "c", before=None, limit=2)
            await store.commit(None, change(revision=2, messages=messages_of(9), checkpoint=Checkpoint(1, 8)))
            again = await window.older_messages(None, "c", before=page.before, limit=2)
            assert messages_of(4, 5) == list(again.messages)

    async def test_recall(self) -> None:
        """A name gives the messages at its two places, also after later checkpoints; a name that is given again has the new places."""
        async with self.open_store() as store:
            window = windowed(store)
            awkward = "message:quote ' \" % _ 🙂"
            await store.commit(None, change(messages=messages_of(0, 1, 2), checkpoint=Checkpoint(0, 2, {"a": (0, 1), awkward: (1, 1)})))
            await store.commit(None, change(revision=2, messages=messages_of(3), checkpoint=Checkpoint(0, 3, {"b": (2, 2)})))
            first, second, third = messages_of(0, 1, 2)
            expected = {"a": Recalled(first, second), awkward: Recalled(second, second), "b": Recalled(third, third)}
            assert expected == await window.recall(None, "c", ["a", awkward, "b", "unknown", "A"])
            assert {} == await window.recall(None, "other", ["a"])
            assert {} == await window.recall(None, "c", [])
            await store.commit(None, change(revision=3, checkpoint=Checkpoint(0, 3, {"a": (1, 2)})))
            assert {"a": Recalled(second, third)} == await window.recall(None, "c", ["a"])

    async def test_message_ids_after_a_checkpoint(self) -> None:
        """The ids of the window and the queue are loaded; the id of an older message is not, and is refused all the same."""
        async with self.open_store() as store:
            windowed(store)
            ids = {"m0": "d0", "m1": "d1", "q": "d2"}
            await store.commit(None, change(messages=messages_of(0, 1), queued=[message("q")], message_ids=ids))
            await store.commit(None, change(revision=2, checkpoint=Checkpoint(0, 1)))
            got = await loaded(store)
            assert {"m1": "d1", "q": "d2"} == got.message_ids
            with pytest.raises(PersistenceError):
                await store.commit(None, change(revision=3, epoch=got.epoch, queued=[message("m0")], message_ids={"m0": "d9"}))

    async def test_checkpoint_that_cannot_be(self) -> None:
        """A checkpoint that leaves out more messages than there are is refused with its whole commit."""
        async with self.open_store() as store:
            window = windowed(store)
            await store.commit(None, change(messages=messages_of(0, 1), checkpoint=Checkpoint(0, 1)))
            got = await loaded(store)
            with pytest.raises(PersistenceError):
                await store.commit(None, change(revision=2, epoch=got.epoch, messages=messages_of(2), checkpoint=Checkpoint(1, 3)))
            got = await loaded(store)
            assert (1, 1, messages_of(1)) == (got.revision, got.older, got.messages)
            assert messages_of(0) == await older(window)

    async def test_delete_after_a_checkpoint(self) -> None:
        """A deleted conversation leaves no window and no names: the next one of this id begins whole."""
        async with self.open_store() as store:
            window = windowed(store)
            first = change(messages=messages_of(0, 1), rows=[row("r")], checkpoint=Checkpoint(0, 1, {"a": (0, 0)}))
            await store.commit(None, first)
            assert await store.delete(None, "c")
            await store.commit(None, change(messages=messages_of(2, 3)))
            got = await loaded(store)
            assert (0, messages_of(2, 3)) == (got.older, got.messages)
            assert {} == await window.recall(None, "c", ["a"])
            assert [] == await older(window)
            assert ["c"] == await listed(store)
            assert [] == await texts(store)

    async def test_window_of_another_owner(self) -> None:
        """What is before the window of another owner's conversation is like missing."""
        async with self.open_store() as store:
            windowed(store)
            if not isinstance(store, OwnedStore):
                pytest.skip("this store does not check owners")
            window = cast("OwnedWindows", store)
            await store.commit(None, change(owner=1, messages=messages_of(0, 1), checkpoint=Checkpoint(0, 1, {"a": (0, 0)})))
            others: tuple[Owner, ...] = ("1", None)
            for owner in others:
                assert {} == await window.recall(None, "c", ["a"], owner=owner)
                with pytest.raises(ConversationNotFound):
                    await window.older_messages(None, "c", before=None, limit=1, owner=owner)
            assert ["a"] == list(await window.recall(None, "c", ["a"], owner=1))
            assert messages_of(0) == list((await window.older_messages(None, "c", before=None, limit=1, owner=1)).messages)
