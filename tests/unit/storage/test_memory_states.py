"""States in memory, for a host that keeps the transcript alone."""

from typing import Any

import pytest

from trio_sagents.data.records import PersistContext
from trio_sagents.exceptions import Conflict, ConversationNotFound
from trio_sagents.storage import Asker, MemoryStates, SplitStore
from trio_sagents.storage.state_data import empty_state_data


async def persist(states: MemoryStates, name: str, owner: Any = None, revision: int = 1, epoch: int = 1, title: Any = None) -> None:
    data = {**empty_state_data(), "metadata": {"title": title}}
    await states.persist_state(None, data, PersistContext("a", name, "on_step", None, owner, epoch, revision))


async def test_persist_state_when_somebody_else_was_faster() -> None:
    """A write that does not build on what is kept is a Conflict, and changes nothing."""
    states = MemoryStates()
    await persist(states, "c", epoch=2)
    for revision, epoch in ((1, 2), (3, 2), (2, 1)):
        with pytest.raises(Conflict):
            await persist(states, "c", revision=revision, epoch=epoch)
    await persist(states, "c", revision=2, epoch=3)

    assert (3, 2) == (states._states["c"].epoch, states._states["c"].revision)


async def test_conversations_when_they_are_read_page_by_page() -> None:
    """The conversation that changed last comes first, each once, and only those of the owner."""
    states = MemoryStates()
    store = SplitStore(states, None)
    for number in range(5):
        await persist(states, f"c{number}", "alice", title=f"title {number}")
        await persist(states, f"d{number}", "bob", title=number)
    await persist(states, "c1", "alice", revision=2)
    seen: list[Any] = []
    after = None
    while True:
        page = await store.conversations(Asker(None, "alice"), after=after, limit=2)
        seen += [(item.conversation_id, item.title) for item in page.items]
        after = page.after
        if after is None:
            break

    assert [("c1", None), *((f"c{number}", f"title {number}") for number in (4, 3, 2, 0))] == seen
    assert 10 == len((await store.conversations(Asker(None), after=None, limit=50)).items)
    for junk in ("x", "-1", 5):
        with pytest.raises(ValueError, match="earlier page"):
            await store.conversations(Asker(None), after=junk, limit=2)  # type: ignore[arg-type]  # that is the mistake


async def test_delete_when_somebody_asks() -> None:
    """An owner can delete a conversation, once; for a stranger it is not there."""
    states = MemoryStates()
    store = SplitStore(states, None)
    await persist(states, "c", "alice")

    assert [False, True, False] == [await store.delete(Asker(None, owner), "c") for owner in ("bob", "alice", "alice")]
    with pytest.raises(ConversationNotFound):
        await store.history(Asker(None, "alice"), "c", before=None, limit=1)
