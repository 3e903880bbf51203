"""The part of the conformance kit of stores about lists, pages and owners."""

import datetime
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, cast

import pytest

from trio_sagents.data.records import UNCHECKED, Conversation, Owner
from trio_sagents.exceptions import Conflict, ConversationNotFound, StateFromFuture
from trio_sagents.storage.ports import ConversationStore, OwnedStore
from trio_sagents.testing._store_values import EPOCH_START, OwnedMethods, change, listed, message, row, texts


class PageTests:
    """Tests of `history` and `conversations`, and of what an owner sees."""

    pytestmark: ClassVar[pytest.MarkDecorator] = pytest.mark.trio

    def open_store(self) -> AbstractAsyncContextManager[ConversationStore]:
        """Open an empty store."""
        raise NotImplementedError

    async def test_history_in_pages(self) -> None:
        """The pages of a transcript have each row once, in order, for pages of any size."""
        async with self.open_store() as store:
            await store.commit(None, change(rows=[row(f"r{n}", str(n)) for n in range(7)]))
            for limit in (1, 2, 3, 6, 7, 8, 1000):
                assert [str(n) for n in range(7)] == await texts(store, limit=limit)

    async def test_history_while_rows_come(self) -> None:
        """A cursor keeps its place while rows are added and replaced."""
        async with self.open_store() as store:
            await store.commit(None, change(rows=[row(f"r{n}", str(n)) for n in range(4)]))
            newest = await store.history(None, "c", before=None, limit=2)
            await store.commit(None, change(revision=2, rows=[row("r0", "new"), row("r9", "9")]))
            older = await store.history(None, "c", before=newest.before, limit=2)
            assert tuple([entry.content["text"] for entry in page.rows] for page in (newest, older)) == (["2", "3"], ["new", "1"])
            assert older.before is None

    async def test_history_of_nothing(self) -> None:
        """A conversation without rows has an empty page; a conversation that does not exist is an error."""
        async with self.open_store() as store:
            with pytest.raises(ConversationNotFound):
                await store.history(None, "c", before=None, limit=1)
            await store.commit(None, change())
            page = await store.history(None, "c", before=None, limit=1)
            assert (list(page.rows), page.before) == ([], None)

    async def test_conversations_in_order(self) -> None:
        """The conversation that was changed last comes first; a load is not a change."""
        async with self.open_store() as store:
            for name in "abcd":
                await store.commit(None, change(name, state={"metadata": {"title": name.upper()}}, messages=[message("m")]))
            await store.commit(None, change("b", 2, messages=[message("n")], state={"metadata": {"title": 5}}))
            await store.load(None, "a")
            for limit in (1, 2, 3, 4, 5):
                assert await listed(store, limit) == ["b", "d", "c", "a"]
            items = (await store.conversations(None, after=None, limit=2)).items
            assert [(item.conversation_id, item.title, item.message_count) for item in items] == [("b", None, 2), ("d", "D", 1)]
            assert all(item.updated_at.utcoffset() == datetime.timedelta(0) for item in items)
            day = datetime.timedelta(days=1)  # the clock of a server may say anything
            assert all(abs(item.updated_at - datetime.datetime.now(datetime.UTC)) < day for item in items)

    async def test_conversations_while_they_change(self) -> None:
        """A conversation that does not change is listed exactly once, even if others change between two pages."""
        async with self.open_store() as store:
            for name in "abcdef":
                await store.commit(None, change(name))
            first = await store.conversations(None, after=None, limit=2)
            await store.commit(None, change("a", 2))
            await store.delete(None, "e")
            await store.commit(None, change("g"))
            second = await store.conversations(None, after=first.after, limit=2)
            await store.delete(None, "c")
            third = await store.conversations(None, after=second.after, limit=2)
            assert [[item.conversation_id for item in page.items] for page in (first, second, third)] == [["f", "e"], ["d", "c"], ["b"]]

    @pytest.mark.parametrize("limit", [0, -1, 1001, 1 << 70])
    async def test_limit_out_of_range(self, limit: int) -> None:
        """A limit that is not 1 to 1000 is a ValueError."""
        async with self.open_store() as store:
            await store.commit(None, change())
            with pytest.raises(ValueError, match="limit"):
                await store.history(None, "c", before=None, limit=limit)
            with pytest.raises(ValueError, match="limit"):
                await store.conversations(None, after=None, limit=limit)

    @pytest.mark.parametrize("cursor", ["", "nonsense", "-1", "1e9", "r" + "9" * 400, "c-5", "\x00", "r1 ", "' OR 1=1"])
    async def test_cursor_that_is_none(self, cursor: str) -> None:
        """A cursor that did not come from a page is a ValueError."""
        async with self.open_store() as store:
            await store.commit(None, change())
            with pytest.raises(ValueError, match="before"):
                await store.history(None, "c", before=cursor, limit=1)
            with pytest.raises(ValueError, match="after"):
                await store.conversations(None, after=cursor, limit=1)

    async def test_foreign_is_like_missing(self) -> None:
        """With an owner given, a conversation of another owner is neither seen nor changed."""
        async with self.open_store() as opened:
            if not isinstance(opened, OwnedStore):
                pytest.skip("this store does not check owners")
            store = cast("OwnedMethods", opened)
            await opened.commit(None, change(owner=1, rows=[row("r")]))
            for stranger in ("1", None, 2, "alice"):
                with pytest.raises(ConversationNotFound):
                    await store.load(None, "c", owner=stranger)
                with pytest.raises(ConversationNotFound):
                    await store.history(None, "c", before=None, limit=1, owner=stranger)
                assert not await store.delete(None, "c", owner=stranger)
                assert not (await store.conversations(None, after=None, limit=10, owner=stranger)).items
                with pytest.raises(Conflict) as caught:
                    await store.commit(None, change(revision=2, owner=stranger), owner=stranger)
                assert caught.value.found is None
            conversation = await store.load(None, "c", owner=1)
            assert conversation is not None
            assert (conversation.epoch, conversation.revision) == (EPOCH_START + 1, 1)
            assert await store.delete(None, "c", owner=1)

    async def test_load_that_is_refused(self) -> None:
        """A check sees the whole conversation that is loaded, and may refuse the load: then nothing was changed."""
        async with self.open_store() as opened:
            if not isinstance(opened, OwnedStore):
                pytest.skip("this store does not check owners")
            store = cast("OwnedMethods", opened)
            await opened.commit(None, change(owner=1, messages=[message("m")], state={"metadata": {"v": 1}}))
            seen: list[Conversation] = []

            def refuse(conversation: Conversation) -> None:
                seen.append(conversation)
                raise StateFromFuture("c", 99, 1)

            for _ in range(2):
                with pytest.raises(StateFromFuture):
                    await store.load(None, "c", owner=1, check=refuse)
            accepted = await store.load(None, "c", owner=1, check=seen.append)
            assert accepted is not None
            assert (EPOCH_START + 1, [message("m")], {"v": 1}) == (accepted.epoch, accepted.messages, accepted.state["metadata"])
            assert [accepted] * 3 == seen

    async def test_missing_with_an_owner(self) -> None:
        """With an owner given, the error for a missing conversation has the same words."""
        async with self.open_store() as opened:
            if not isinstance(opened, OwnedStore):
                pytest.skip("this store does not check owners")
            store = cast("OwnedMethods", opened)
            assert await store.load(None, "c", owner=1) is None
            with pytest.raises(ConversationNotFound):
                await store.history(None, "c", before=None, limit=1, owner=1)
            assert not await store.delete(None, "c", owner=1)
            assert await store.commit(None, change(owner=1), owner=1) == 1
            with pytest.raises(ValueError, match="owner"):
                await store.commit(None, change(revision=2, owner=1), owner=2)

    async def test_conversations_of_an_owner(self) -> None:
        """The list of an owner has only the conversations of that owner, in order and in pages; without an owner, it has all."""
        async with self.open_store() as opened:
            if not isinstance(opened, OwnedStore):
                pytest.skip("this store does not check owners")
            store = cast("OwnedMethods", opened)
            owners: tuple[Owner, ...] = (1, "1", None)
            for n in range(9):
                await opened.commit(None, change(f"c{n}", owner=owners[n % 3]))
            await opened.commit(None, change("c0", 2, owner=1))
            for owner, expected in ((1, ["c0", "c6", "c3"]), ("1", ["c7", "c4", "c1"]), (None, ["c8", "c5", "c2"])):
                first = await store.conversations(None, after=None, limit=2, owner=owner)
                second = await store.conversations(None, after=first.after, limit=2, owner=owner)
                assert expected == [item.conversation_id for item in (*first.items, *second.items)]
                assert second.after is None
            assert len((await store.conversations(None, after=None, limit=10, owner=UNCHECKED)).items) == len(await listed(opened))
