"""Both kinds of stores, as the runtime sees them: what a host is asked, whether a conversation exists, and for whom."""

from typing import Any

import pytest
import trio

from trio_sagents.data.records import Commit, PersistContext
from trio_sagents.exceptions import ConversationNotFound
from trio_sagents.persistence.memory import MemoryStore
from trio_sagents.storage import Asker, MemoryStates, SplitStore, UnifiedStore, same_owner

ALICE = Asker(None, "alice")
COMMIT = Commit(conversation_id="c", agent_id="agent", owner="alice", epoch=1, revision=1, lifecycle="on_step", actor="an actor")


@pytest.mark.parametrize(
    ("first", "second", "same"), [(1, 1, True), (1, True, False), (1, "1", False), (None, None, True), ("a", "b", False)]
)
def test_same_owner_when_they_look_alike(first: Any, second: Any, *, same: bool) -> None:
    """Two owners are the same if both type and value are."""
    assert same is same_owner(first, second)


class Asked:
    """A host's store and its states in one, which note how they were asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def commit(self, scope: Any, commit: Commit) -> int:
        self.asked.append(("commit", scope, commit))
        await trio.lowlevel.checkpoint()
        return commit.revision

    async def load_state(self, scope: Any, context: Any) -> None:
        self.asked.append(("load_state", scope, context))
        await trio.lowlevel.checkpoint()


async def test_stores_when_they_are_asked() -> None:
    """A host's store is given the scope; a store of states is also told who asks for what: the agent, the conversation, the owner."""
    store: Any = Asked()
    scope, commit = object(), COMMIT
    await UnifiedStore(store).save(scope, commit, ())
    assert [("commit", scope, commit)] == store.asked

    store.asked.clear()
    split = SplitStore(store, None)
    assert await split.load(Asker(scope, "alice"), "c", "agent", lambda _: None) is None
    with pytest.raises(ConversationNotFound):
        await split.history(Asker(scope, "alice"), "c", before=None, limit=1)
    assert [
        ("load_state", scope, PersistContext("agent", "c", "on_message", scope, "alice", 0, 0)),
        ("load_state", scope, PersistContext("", "c", "on_message", scope, "alice", 0, 0)),
    ] == store.asked


async def stored_in(kind: str) -> Any:
    """Return a store of this kind that has a conversation of Alice's."""
    store: Any = UnifiedStore(MemoryStore()) if kind == "unified" else SplitStore(MemoryStates(), None)
    await store.save(None, COMMIT, ())
    return store


@pytest.mark.parametrize("kind", ["unified", "split"])
async def test_exists_when_it_is_asked(kind: str) -> None:
    """A conversation exists for its owner, and for whoever names no owner; for another owner it is missing."""
    store = await stored_in(kind)

    askers = (ALICE, Asker(None), Asker(None, "bob"))
    assert [True, True, False] == [await store.exists(asker, "c") for asker in askers]


async def test_exists_when_nothing_is_stored() -> None:
    """A conversation that nobody has stored exists for nobody."""
    stores: Any = (UnifiedStore(MemoryStore()), SplitStore(MemoryStates(), None))

    assert [False] * 4 == [await store.exists(asker, "c") for store in stores for asker in (ALICE, Asker(None))]
