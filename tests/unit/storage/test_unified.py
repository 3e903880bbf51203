"""A `ConversationStore` as the runtime sees it: who owns a conversation is known before anything has an effect."""

import datetime
import logging
from typing import Any

import attrs
import pytest
import trio

from trio_sagents.data.messages import Message, TextPart
from trio_sagents.data.records import Commit, Conversation, ConversationItem, ConversationPage, DisplayMessage, HistoryPage
from trio_sagents.exceptions import ConversationNotFound, PersistenceError
from trio_sagents.persistence.memory import MemoryStore
from trio_sagents.storage import Asker, UnifiedStore, unified

NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
SCOPE = object()
ALICE, BOB, ANYBODY = Asker(SCOPE, "alice"), Asker(SCOPE, "bob"), Asker(SCOPE)


def accept(_: Conversation) -> None:
    """Look at what was loaded."""


@attrs.define(eq=False, slots=False)
class Listing:
    """A host's store that does not compare owners. It lists in pages of one item, the newest conversation first."""

    owners: dict[str, Any]
    asked: list[str] = attrs.field(factory=list)
    loads: list[str] = attrs.field(factory=list)
    is_listed: Any = attrs.field(default=lambda scope, name: True)
    page_size: int = 1

    async def load(self, scope: Any, conversation_id: str) -> Conversation | None:
        await trio.lowlevel.checkpoint()
        self.asked.append("load")
        self.loads.append(conversation_id)
        if conversation_id not in self.owners:
            return None
        return Conversation(
            conversation_id=conversation_id,
            owner=self.owners[conversation_id],
            epoch=len(self.loads),
            revision=1,
            messages=[],
            queue=[],
            message_ids={},
            state={},
        )

    async def commit(self, scope: Any, commit: Commit) -> int:
        await trio.lowlevel.checkpoint()
        self.owners = {commit.conversation_id: commit.owner, **self.owners}
        return commit.revision

    async def history(self, scope: Any, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage:
        await trio.lowlevel.checkpoint()
        self.asked.append("history")
        if conversation_id not in self.owners:
            raise ConversationNotFound(conversation_id)
        return HistoryPage(())

    async def conversations(self, scope: Any, *, after: str | None, limit: int) -> ConversationPage:
        await trio.lowlevel.checkpoint()
        self.asked.append("list")
        names = [name for name in self.owners if self.is_listed(scope, name)]
        start = 0 if after is None else int(after)
        end = start + min(self.page_size, limit)
        items = [ConversationItem(name, self.owners[name], None, 0, NOW) for name in names[start:end]]
        return ConversationPage(items, str(end) if end < len(names) else None)

    async def delete(self, scope: Any, conversation_id: str) -> bool:
        await trio.lowlevel.checkpoint()
        return self.owners.pop(conversation_id, None) is not None


class Knowing(Listing):
    """One that can say who owns a conversation."""

    async def get_owner(self, scope: Any, conversation_id: str) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append("owner")
        if conversation_id not in self.owners:
            raise ConversationNotFound(conversation_id)
        return self.owners[conversation_id]


async def refusals(adapter: UnifiedStore, asker: Asker, conversation_id: str = "c") -> list[str]:
    """Return what refuses this asker the conversation: load, history, exists, delete."""
    refused = []
    for name, call in (
        ("load", lambda: adapter.load(asker, conversation_id, "agent", accept)),
        ("history", lambda: adapter.history(asker, conversation_id, before=None, limit=5)),
    ):
        try:
            await call()
        except ConversationNotFound:
            refused.append(name)
    if not await adapter.exists(asker, conversation_id):
        refused.append("exists")
    if not await adapter.delete(asker, conversation_id):
        refused.append("delete")
    return refused


@pytest.mark.parametrize("kind", [Listing, Knowing])
@pytest.mark.parametrize("place", range(3))
async def test_load_when_a_stranger_asks(kind: Any, place: int) -> None:
    """A stranger's load never reaches the store, wherever in a long list the conversation is: a load fences the owner off."""
    names = ["x", "y"]
    names.insert(place, "c")
    store = kind(dict.fromkeys(names, "alice"))

    assert ["load", "history", "exists", "delete"] == await refusals(UnifiedStore(store), BOB)
    assert ([], "alice") == (store.loads, store.owners["c"])
    assert [] == await refusals(UnifiedStore(store), ALICE)
    assert ["c"] == store.loads


@pytest.mark.parametrize("kind", [Listing, Knowing])
async def test_load_when_the_owner_has_changed_elsewhere(kind: Any) -> None:
    """Another process deletes the conversation and makes it again for somebody else: what was known of it counts for nothing."""
    store = kind({"c": "alice", "d": "dora"})
    adapter = UnifiedStore(store)
    await adapter.load(ALICE, "c", "agent", accept)
    store.owners = {"c": "bob", "d": "dora"}
    store.loads.clear()

    assert ["load", "history", "exists", "delete"] == await refusals(adapter, ALICE)
    assert [] == store.loads
    assert [] == await refusals(adapter, BOB)


async def test_load_when_the_list_depends_on_the_scope() -> None:
    """A conversation that exists and is not listed for the asker is somebody else's."""
    store = Listing({"c": "alice", "d": "bob"}, is_listed=lambda scope, name: store.owners[name] == scope)

    assert ["load", "history", "exists", "delete"] == await refusals(UnifiedStore(store), Asker("bob", "bob"))
    assert [] == store.loads
    assert [] == await refusals(UnifiedStore(store), Asker("alice", "alice"))


@pytest.mark.parametrize("kind", [Listing, Knowing])
async def test_load_when_there_is_no_such_conversation(kind: Any) -> None:
    """A new conversation costs one page of the list, however long the list is, or one question to a store that knows owners."""
    store = kind(dict.fromkeys("defghijklm", "alice"))

    assert await UnifiedStore(store).load(ALICE, "c", "agent", accept) is None
    assert 1 == sum(name in {"list", "owner"} for name in store.asked)


async def test_find_owner_when_the_conversation_is_known() -> None:
    """A conversation that was found once, far down in the list, costs one page of the list from then on."""
    store = Listing(dict.fromkeys("defghic", "alice"))
    adapter = UnifiedStore(store)
    await adapter.history(ALICE, "c", before=None, limit=5)
    first = store.asked.count("list")
    store.asked.clear()
    await adapter.history(ALICE, "c", before=None, limit=5)

    assert (7, ["list", "history"]) == (first, store.asked)


async def test_find_owner_when_many_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many owners are remembered: the conversation that was used longest ago is looked up again."""
    monkeypatch.setattr(unified, "MAX_OWNERS", 2)
    store = Listing({"new": "x", **dict.fromkeys("cde", "alice")})
    adapter = UnifiedStore(store)
    for name in ("c", "d", "c", "e"):
        await adapter.load(ALICE, name, "agent", accept)

    assert ["c", "e"] == list(adapter._owners)


async def test_find_owner_when_the_list_is_long(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A list that is read far for an owner is warned of, once, with what to do."""
    monkeypatch.setattr(unified, "MANY_PAGES", 3)
    store = Listing(dict.fromkeys("defghic", "alice"))
    adapter = UnifiedStore(store)
    with caplog.at_level(logging.WARNING, "trio_sagents"):
        for name in ("c", "i"):
            await adapter.exists(ALICE, name)

    (record,) = caplog.records
    assert "Listing.conversations; give the store a get_owner (OwnerLookup)" in record.getMessage()


async def test_find_owner_when_the_cursors_run_in_a_circle() -> None:
    """A store whose pages follow each other in a circle is refused, and not read for ever."""
    store = Listing({"c": "alice", "d": "alice"})

    async def conversations(scope: Any, *, after: str | None, limit: int) -> ConversationPage:
        await trio.lowlevel.checkpoint()
        return ConversationPage((), {None: "1", "1": "2", "2": "1"}[after])

    store.conversations = conversations  # type: ignore[method-assign]  # that is the mistake
    with pytest.raises(PersistenceError, match="returned the cursor '1' twice"):
        await UnifiedStore(store).exists(ALICE, "c")


async def test_load_when_the_store_cannot_list() -> None:
    """A store that cannot list is loaded from, and the owner is compared afterwards."""
    store = Listing({"c": "alice"})

    async def conversations(scope: Any, *, after: str | None, limit: int) -> ConversationPage:
        raise NotImplementedError

    store.conversations = conversations  # type: ignore[method-assign]  # as such a host does it
    adapter = UnifiedStore(store)
    found = await adapter.load(ALICE, "c", "agent", accept)
    assert found is not None
    with pytest.raises(ConversationNotFound):
        await adapter.load(BOB, "c", "agent", accept)


async def test_load_when_the_conversation_is_made_meanwhile() -> None:
    """An owner who appears between the question and the load is compared again, and `check` never sees the conversation."""
    store = Listing({})

    async def history(scope: Any, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage:
        await trio.lowlevel.checkpoint()
        store.owners["c"] = "alice"
        raise ConversationNotFound(conversation_id)

    store.history = history  # type: ignore[method-assign]  # the moment in between
    seen: list[Any] = []
    with pytest.raises(ConversationNotFound):
        await UnifiedStore(store).load(BOB, "c", "agent", seen.append)

    assert [] == seen


async def test_load_when_nobody_asks_whose_it_is() -> None:
    """Without an owner to compare nothing is looked up, and everybody may load and read."""
    store = Listing({"c": "alice"})
    adapter = UnifiedStore(store)
    assert [] == await refusals(adapter, ANYBODY)

    assert ["load", "history", "history"] == store.asked


class Skipping(MemoryStore):
    """A store that compares owners, and leaves out `check`, or calls it with another object than it returns."""

    def __init__(self, shown: Any) -> None:
        super().__init__()
        self.shown = shown

    async def load(self, scope: Any, conversation_id: str, **inside: Any) -> Conversation | None:
        check = inside.pop("check")
        found = await super().load(scope, conversation_id, **inside)
        assert found is not None
        if self.shown is not None:
            check(self.shown(found))
        return found


@pytest.mark.parametrize("shown", [None, attrs.evolve], ids=["nothing", "a copy"])
async def test_load_when_the_store_forgets_to_check(shown: Any) -> None:
    """What is returned is what was looked at, even if the store did not call `check` with it."""
    adapter = UnifiedStore(Skipping(shown))
    commit = Commit(conversation_id="c", agent_id="a", owner="alice", epoch=1, revision=1, lifecycle="on_step")
    await adapter.save(None, commit, ())
    seen: list[Any] = []
    found = await adapter.load(ALICE, "c", "a", seen.append)

    assert seen[-1] is found


# ── asking and saving


class Flat:
    """A host's store that notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, Any]] = []

    async def _note(self, method: str, scope: Any, named: Any) -> None:
        self.asked.append((method, scope, named))
        await trio.lowlevel.checkpoint()

    async def load(self, scope: Any, conversation_id: str, **more: Any) -> Conversation | None:
        await self._note("load", scope, {"conversation_id": conversation_id, **more})
        return None

    async def history(self, scope: Any, conversation_id: str, **more: Any) -> HistoryPage:
        await self._note("history", scope, {"conversation_id": conversation_id, **more})
        return HistoryPage(())

    async def conversations(self, scope: Any, **more: Any) -> ConversationPage:
        await self._note("conversations", scope, more)
        return ConversationPage([ConversationItem("c", "alice", None, 0, NOW)], None)

    async def delete(self, scope: Any, conversation_id: str, **more: Any) -> bool:
        await self._note("delete", scope, {"conversation_id": conversation_id, **more})
        return True


class Owned(Flat):
    """A store that compares owners."""

    checks_owner = True

    async def commit(self, scope: Any, commit: Commit) -> int:
        raise AssertionError("nothing is committed here")


@pytest.mark.parametrize(
    ("store", "owner", "inside"),
    [(Flat(), {}, []), (Owned(), {"owner": "alice"}, ["check", "owner"])],
    ids=["flat", "owned"],
)
async def test_methods_when_the_store_is_asked(store: Any, owner: Any, inside: Any) -> None:
    """Each method is told who asks and for what, and the owner if the store compares owners; otherwise its list is asked."""
    adapter = UnifiedStore(store)
    await adapter.history(ALICE, "c", before="r5", limit=7)
    await adapter.conversations(ALICE, after="c3", limit=9)
    await adapter.delete(ALICE, "c")
    await adapter.load(ALICE, "c", "agent", accept)

    *asked, (method, scope, named) = store.asked
    looked_up = [] if owner else [("conversations", SCOPE, {"after": None, "limit": 100})]
    assert [
        *looked_up,
        ("history", SCOPE, {"conversation_id": "c", "before": "r5", "limit": 7, **owner}),
        ("conversations", SCOPE, {"after": "c3", "limit": 9, **owner}),
        *looked_up,
        ("delete", SCOPE, {"conversation_id": "c", **owner}),
        *looked_up,
    ] == asked
    assert ("load", SCOPE, ["conversation_id", *inside]) == (
        method,
        scope,
        sorted(named, key=lambda name: (name != "conversation_id", name)),
    )


FIRST = Commit(conversation_id="c", agent_id="a", owner=None, epoch=1, revision=1, lifecycle="on_step")


def row_of(number: int = 1) -> DisplayMessage:
    return DisplayMessage(f"r{number}", f"m{number}", "user", "text", {"text": "hi"}, "completed", NOW)


async def test_save_when_rows_are_new_or_changed() -> None:
    """Rows of messages that are new in the transcript are new; all others are changes."""
    adapter = UnifiedStore(MemoryStore())
    saved = await adapter.save(
        None, attrs.evolve(FIRST, rows=(row_of(1), row_of(2), row_of(3))), (Message("m2", "user", (TextPart("x"),)),)
    )

    assert (["r2"], ["r1", "r3"]) == ([row.row_id for row in saved.new], [row.row_id for row in saved.changed])
