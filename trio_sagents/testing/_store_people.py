"""The part of the conformance kit of stores about what people decide: the list of what waits, and rows of calls."""

import datetime
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Protocol, cast

import attrs
import pytest

from trio_sagents.data.interrupt_wire import encode_interrupt
from trio_sagents.data.interrupts import Interrupt, pending
from trio_sagents.data.json import JSON
from trio_sagents.data.messages import ToolCall
from trio_sagents.data.records import UNCHECKED, ConversationPage, Owner, Unchecked, WaitingPage
from trio_sagents.data.scopes import Scope
from trio_sagents.storage.ports import ConversationStore, OwnedStore, UnfinishedLookup, WaitingLookup
from trio_sagents.testing._store_values import AT, AWKWARD, change, row


class OwnedWaiting(Protocol):
    """`WaitingLookup.waiting` of an `OwnedStore`, as the kit calls it."""

    async def waiting(self, scope: Scope, *, after: str | None, limit: int, owner: Owner | Unchecked) -> WaitingPage: ...


class OwnedUnfinished(Protocol):
    """`UnfinishedLookup.unfinished` of an `OwnedStore`, as the kit calls it."""

    async def unfinished(self, scope: Scope, *, after: str | None, limit: int, owner: Owner | Unchecked) -> ConversationPage: ...


def interrupt(name: str) -> Interrupt:
    """Return an interrupt with one call; its texts are awkward, and it has waited since an instant with microseconds."""
    call = pending(ToolCall(f"call-{name}", "pay", {"amount": 5, "to": list(AWKWARD)}), interrupt_id=name, text=AWKWARD[0])
    until = AT + datetime.timedelta(hours=1)
    return Interrupt(name, f"turn-{name}", [call], expires_at=until, since=AT)


def waits(name: str, *, restorable: bool = True) -> JSON:
    """Return the stored state of a conversation that waits in an interrupt."""
    return {"interrupt": encode_interrupt(attrs.evolve(interrupt(name), restorable=restorable), {})}


async def waiting_ids(store: WaitingLookup, limit: int = 1000) -> list[str]:
    """Return the ids of the conversations that wait, read in pages."""
    found: list[str] = []
    after: str | None = None
    while True:
        page = await store.waiting(None, after=after, limit=limit)
        found += [item.conversation_id for item in page.items]
        if page.after is None:
            return found
        assert page.after != after, f"waiting gave the cursor {after!r} twice: a reader that follows it never ends"
        after = page.after


async def unfinished_ids(store: UnfinishedLookup, limit: int = 1000) -> list[str]:
    """Return the ids of the conversations that have work left, read in pages."""
    found: list[str] = []
    after: str | None = None
    while True:
        page = await store.unfinished(None, after=after, limit=limit)
        found += [item.conversation_id for item in page.items]
        if page.after is None:
            return found
        assert page.after != after, f"unfinished gave the cursor {after!r} twice: a reader that follows it never ends"
        after = page.after


class PeopleTests:
    """Tests of `waiting` and `unfinished`, skipped for a store without these methods, and of rows that name their turn."""

    pytestmark: ClassVar[pytest.MarkDecorator] = pytest.mark.trio

    def open_store(self) -> AbstractAsyncContextManager[ConversationStore]:
        """Open an empty store."""
        raise NotImplementedError

    async def test_row_of_a_call(self) -> None:
        """A row keeps its turn and whether it is final; the row that replaces it when the call has ended does so, too."""
        open_row = attrs.evolve(row("r"), turn_id=f"turn {AWKWARD[1]}", is_final=False, status="executing")
        final = attrs.evolve(open_row, is_final=True, status="completed", turn_id="another")
        async with self.open_store() as store:
            await store.commit(None, change(rows=[open_row, row("without a turn")]))
            assert [open_row, row("without a turn")] == list((await store.history(None, "c", before=None, limit=5)).rows)
            await store.commit(None, change(revision=2, rows=[final]))
            assert [final, row("without a turn")] == list((await store.history(None, "c", before=None, limit=5)).rows)

    async def test_waiting_list(self) -> None:
        """A conversation is listed while it waits, the longest first, with its title and its interrupt; a change keeps its place."""
        async with self.open_store() as store:
            if not isinstance(store, WaitingLookup):
                pytest.skip("this store does not list what waits")
            assert await store.waiting(None, after=None, limit=1) == WaitingPage([], None)
            for name in "abcd":
                await store.commit(None, change(name, owner=name, state={"metadata": {"title": name.upper()}}))
            for name in "bdca":
                await store.commit(None, change(name, 2, owner=name, state=waits(name)))
            for limit in (1, 2, 3, 4, 5):
                assert ["b", "d", "c", "a"] == await waiting_ids(store, limit)
            (first,) = (await store.waiting(None, after=None, limit=1)).items
            assert ("b", "b", "B", interrupt("b"), AT) == (
                first.conversation_id,
                first.owner,
                first.title,
                first.interrupt,
                first.interrupt.since,
            )
            await store.commit(None, change("d", 3, owner="d", state=waits("d", restorable=False)))
            await store.commit(None, change("b", 3, owner="b", state={"interrupt": None}))
            assert await store.delete(None, "c")
            assert ["d", "a"] == await waiting_ids(store)
            assert not (await store.waiting(None, after=None, limit=1)).items[0].interrupt.restorable
            await store.commit(None, change("b", 4, owner="b", state=waits("b")))
            assert ["d", "a", "b"] == await waiting_ids(store)
            await store.load(None, "d")
            assert ["d", "a", "b"] == await waiting_ids(store)

    async def test_waiting_list_while_it_is_read(self) -> None:
        """A cursor keeps its place while conversations leave the list and come to it."""
        async with self.open_store() as store:
            if not isinstance(store, WaitingLookup):
                pytest.skip("this store does not list what waits")
            for name in "abcd":
                await store.commit(None, change(name, state=waits(name)))
            page = await store.waiting(None, after=None, limit=2)
            await store.commit(None, change("b", 2, state={"interrupt": None}))
            await store.commit(None, change("e", state=waits("e")))
            rest = await store.waiting(None, after=page.after, limit=5)
            assert ["a", "b", "c", "d", "e"] == [item.conversation_id for item in (*page.items, *rest.items)]
            assert rest.after is None
            with pytest.raises(ValueError, match=r"after|cursor"):
                await store.waiting(None, after="not a cursor", limit=1)

    async def test_waiting_list_of_an_owner(self) -> None:
        """The list of an owner has only the conversations of that owner: `1`, `"1"` and None are three; without an owner, it has all."""
        async with self.open_store() as store:
            if not isinstance(store, WaitingLookup) or not isinstance(store, OwnedStore):
                pytest.skip("this store does not check owners, or does not list what waits")
            owned = cast("OwnedWaiting", store)
            owners: tuple[Owner, ...] = (1, "1", None)
            for number in range(6):
                await store.commit(None, change(f"c{number}", owner=owners[number % 3], state=waits(f"c{number}")))
            for owner, expected in ((1, ["c0", "c3"]), ("1", ["c1", "c4"]), (None, ["c2", "c5"]), ("other", [])):
                page = await owned.waiting(None, after=None, limit=10, owner=owner)
                assert expected == [item.conversation_id for item in page.items]
            page = await owned.waiting(None, after=None, limit=10, owner=UNCHECKED)
            assert [f"c{number}" for number in range(6)] == [item.conversation_id for item in page.items]

    async def test_unfinished_list(self) -> None:
        """A conversation is listed while its mark is there, whatever the mark says; a change of the mark keeps its place."""
        async with self.open_store() as store:
            if not isinstance(store, UnfinishedLookup):
                pytest.skip("this store does not list what is unfinished")
            assert await store.unfinished(None, after=None, limit=1) == ConversationPage([], None)
            for name in "abcde":
                await store.commit(None, change(name, owner=name, state={"metadata": {"title": name.upper()}, "unfinished": {}}))
            listed = await unfinished_ids(store)
            assert sorted(listed) == list("abcde")
            for limit in (1, 2, 3, 4, 5, 6):
                assert listed == await unfinished_ids(store, limit)
            first = next(item for item in (await store.unfinished(None, after=None, limit=5)).items if item.conversation_id == "a")
            assert ("a", "A") == (first.owner, first.title)
            await store.commit(
                None, change("c", 2, owner="c", state={"unfinished": {"turn_id": "t", "recoveries": 1, "in_all": 1, "seen": 0}})
            )
            assert listed == await unfinished_ids(store)
            await store.commit(None, change("b", 2, owner="b", state={"unfinished": None}))
            assert await store.delete(None, "d")
            await store.load(None, "a")
            assert [name for name in listed if name not in "bd"] == await unfinished_ids(store)
            await store.commit(None, change("b", 3, owner="b", state={"unfinished": {}}))
            assert sorted("abce") == sorted(await unfinished_ids(store))
            with pytest.raises(ValueError, match=r"after|cursor"):
                await store.unfinished(None, after="not a cursor", limit=1)

    async def test_unfinished_list_of_an_owner(self) -> None:
        """The list of an owner has only the conversations of that owner; without an owner, it has all."""
        async with self.open_store() as store:
            if not isinstance(store, UnfinishedLookup) or not isinstance(store, OwnedStore):
                pytest.skip("this store does not check owners, or does not list what is unfinished")
            owned = cast("OwnedUnfinished", store)
            owners: tuple[Owner, ...] = (1, "1", None)
            for number in range(6):
                await store.commit(None, change(f"c{number}", owner=owners[number % 3], state={"unfinished": {}}))
            for owner, expected in ((1, ["c0", "c3"]), ("1", ["c1", "c4"]), (None, ["c2", "c5"]), ("other", [])):
                page = await owned.unfinished(None, after=None, limit=10, owner=owner)
                assert expected == sorted(item.conversation_id for item in page.items)
            page = await owned.unfinished(None, after=None, limit=10, owner=UNCHECKED)
            assert [f"c{number}" for number in range(6)] == sorted(item.conversation_id for item in page.items)
