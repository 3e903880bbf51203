"""The way to a host's store: what each of its methods is told, and what a state that a host keeps has in it."""

import datetime
from typing import Any

import attrs
import pytest
import trio

from trio_sagents.data.messages import Message, TextPart
from trio_sagents.data.records import (
    Commit,
    Conversation,
    ConversationItem,
    ConversationPage,
    HistoryPage,
    PersistContext,
    StoredState,
    ToolUpdate,
)
from trio_sagents.data.wire import encode_message
from trio_sagents.persistence.memory import MemoryStore
from trio_sagents.storage import Asker, SplitStore, UnifiedStore

NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
SCOPE = object()
ALICE = Asker(SCOPE, "alice")


def commit_of(revision: int = 1, epoch: int = 1, **parts: Any) -> Commit:
    first = Commit(
        conversation_id="c", agent_id="agent", owner="alice", epoch=epoch, revision=revision, lifecycle="on_step", actor="an actor"
    )
    return attrs.evolve(first, **parts)


def said(message_id: str = "u1") -> Message:
    return Message(message_id, "user", (TextPart("hi"),), turn_id="t")


# ── a ConversationStore


class Flat:
    """A host's store, which keeps what it was asked."""

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
    """One that compares owners."""

    checks_owner = True

    async def commit(self, scope: Any, commit: Commit) -> int:
        raise AssertionError("nothing is committed here")


def check(_: Conversation) -> None:
    """Look at what was loaded."""


@pytest.mark.parametrize(
    ("store", "owner", "inside"),
    [(Flat(), {}, []), (Owned(), {"owner": "alice"}, ["check", "owner"])],
    ids=["flat", "owned"],
)
async def test_unified_store_when_it_asks(store: Any, owner: Any, inside: Any) -> None:
    """Each method is told who asks and for what, and the owner if the store compares owners; if not, the list says whose it is."""
    adapter = UnifiedStore(store)
    await adapter.history(ALICE, "c", before="r5", limit=7)
    await adapter.conversations(ALICE, after="c3", limit=9)
    await adapter.delete(ALICE, "c")
    await adapter.load(ALICE, "c", "agent", check)

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


# ── an AgentPersistence, and a DisplayMessagePersistence


class Split:
    """Both in one, which keep what they were asked; `rows_fail` says whether the transcript does."""

    def __init__(self, stored: StoredState | None = None) -> None:
        self.stored = stored
        self.rows_fail = False
        self.asked: list[tuple[Any, ...]] = []

    async def load_state(self, scope: Any, context: Any) -> StoredState | None:
        self.asked.append(("load_state", scope, context))
        await trio.lowlevel.checkpoint()
        return self.stored

    async def persist_state(self, scope: Any, state_data: Any, context: Any) -> None:
        self.asked.append(("persist_state", scope, context))
        await trio.lowlevel.checkpoint()
        self.stored = StoredState(state_data, context.owner, context.epoch, context.revision)

    async def set_interrupted(self, scope: Any, context: Any, interrupted: bool) -> None:
        self.asked.append(("set_interrupted", scope, context, interrupted))
        await trio.lowlevel.checkpoint()

    async def save_message(self, scope: Any, message: Message, context: Any) -> Any:
        self.asked.append(("save_message", scope, message.message_id, context))
        await trio.lowlevel.checkpoint()
        if self.rows_fail:
            raise OSError("the transcript is down")
        return []

    async def update_tool_status(self, scope: Any, status: str, tool_info: Any, context: Any) -> None:
        self.asked.append(("update_tool_status", scope, status, tool_info, context))
        await trio.lowlevel.checkpoint()


async def test_split_store_when_it_saves() -> None:
    """State and transcript are told the scope, and of which commit it is: whose, by whom, and the numbers that it establishes."""
    host: Any = Split()
    info = {"call_id": "c1", "name": "pay"}
    commit = commit_of(
        5, 3, messages=[encode_message(said())], state={"interrupt": {"any": 1}}, tool_updates=[ToolUpdate("executing", info)]
    )
    await SplitStore(host, host).save(SCOPE, commit, [said()])

    context = PersistContext("agent", "c", "on_step", "an actor", "alice", 3, 5)
    assert [
        ("persist_state", SCOPE, context),
        ("set_interrupted", SCOPE, context, True),
        ("save_message", SCOPE, "u1", context),
        ("update_tool_status", SCOPE, "executing", info, context),
    ] == host.asked


async def test_split_store_when_it_loads() -> None:
    """What the host is told at a load once more is told of the state as it is: its owner, its revision, and the epoch that begins."""
    host: Any = Split()
    host.rows_fail = True
    first = SplitStore(host, host)
    await first.save(SCOPE, commit_of(messages=[encode_message(said())], state={"interrupt": {"any": 1}}), [said()])
    host.rows_fail = False
    host.asked.clear()
    seen: list[Any] = []
    found = await SplitStore(host, host).load(Asker(SCOPE), "c", "agent", seen.append)

    assert [found] == seen
    assert found is not None
    assert (2, 1, "alice") == (found.epoch, found.revision, found.owner)
    context = PersistContext("agent", "c", "on_message", SCOPE, "alice", 2, 1)
    assert [
        ("load_state", SCOPE, attrs.evolve(context, owner=None, epoch=0, revision=0)),
        ("set_interrupted", SCOPE, context, True),
        ("save_message", SCOPE, "u1", context),
    ] == host.asked


async def test_split_store_when_metadata_change() -> None:
    """The metadata and the todos are those of the last commit that had any; they come back as they were given."""
    host: Any = Split()
    vault = SplitStore(host, None)
    for revision, state in enumerate(({"metadata": {"title": "one"}, "todos": []}, {"metadata": {"title": "two"}}, {}), start=1):
        await vault.save(SCOPE, commit_of(revision, state=state), ())
    found = await SplitStore(host, None).load(ALICE, "c", "agent", check)

    assert found is not None
    assert ({"title": "two"}, []) == (found.state["metadata"], found.state["todos"])


async def test_split_store_when_nobody_asks_whose_it_is() -> None:
    """Where owners are not compared the host is told none, at a load and for a page."""
    host: Any = Split()
    await SplitStore(host, None).save(SCOPE, commit_of(), ())
    host.asked.clear()
    vault, anybody = SplitStore(host, None), Asker(SCOPE)
    await vault.load(anybody, "c", "agent", check)
    await vault.history(anybody, "c", before=None, limit=1)

    assert [None, None] == [context.owner for _, _, context in host.asked]


# ── whether a conversation is there


async def stored_in(kind: str) -> Any:
    """Return a store of this kind that has a conversation of Alice's."""
    store: Any = UnifiedStore(MemoryStore()) if kind == "unified" else SplitStore(Split(), None)
    await store.save(SCOPE, commit_of(), ())
    return store


@pytest.mark.parametrize("kind", ["unified", "split"])
async def test_exists_when_it_is_asked(kind: str) -> None:
    """A conversation exists for its owner, and for whoever does not say an owner; for another owner it is missing."""
    store = await stored_in(kind)

    askers = (ALICE, Asker(SCOPE), Asker(SCOPE, "bob"))
    assert [True, True, False] == [await store.exists(asker, "c") for asker in askers]


async def test_exists_when_nothing_is_stored() -> None:
    """A conversation that nobody has stored does not exist, for nobody."""
    stores: Any = (UnifiedStore(MemoryStore()), SplitStore(Split(), None))  # type: ignore[arg-type]  # a fake

    assert [False] * 4 == [await store.exists(asker, "c") for store in stores for asker in (ALICE, Asker(SCOPE))]
