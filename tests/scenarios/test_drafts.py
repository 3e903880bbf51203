"""Drafts: the stored text of an answer that is still streaming."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support.records import drafts_of, stored_draft
from tests.support.scenarios import (
    DictStates,
    FaultyStore,
    answer_to,
    ask,
    kill_9,
    opened,
)
from trio_sagents import (
    Agent,
    CancelCause,
    Cancelled,
    Conflict,
    FinishChunk,
    TextChunk,
)


@attrs.define(eq=False)
class Paced:
    """A model that speaks at stated times."""

    steps: Any
    """(seconds to wait, the text that is sent then), in order."""
    name: str = "paced"

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[Any]:
        yield self.chunks()

    async def chunks(self) -> AsyncIterator[Any]:
        for seconds, text in self.steps:
            await trio.sleep(seconds)
            yield TextChunk(text)
        yield FinishChunk("stop")


def paced(*steps: tuple[float, str]) -> Agent:
    return Agent(model=Paced(steps))


def drafts_in(store: FaultyStore) -> list[int]:
    """Return how many characters each stored draft has."""
    return [len(draft["parts"][0]["text"]) for draft in drafts_of(store.commits)]


async def test_draft_when_its_size_was_quicker_than_its_time(autojump_clock: Any) -> None:
    """A draft that was stored because of its size is not stored again when its time comes."""
    store = FaultyStore()
    async with opened(paced((0, "a"), (1, "b" * 5_000), (100, "c")), store=store, policy={"draft_interval": 5.0}) as sessions:
        assert 5_002 == len(await answer_to(sessions))

    assert [5_001] == drafts_in(store)


async def test_draft_when_the_store_is_slower_than_the_model(autojump_clock: Any) -> None:
    """Drafts are stored one at a time. While a draft is being stored the next one waits, and then has the whole text."""
    store = FaultyStore()
    store.faults.slow("commit", 50.0, n=3)
    agent = paced((0, "a"), (10, "b"), (1, "c" * 5_000), (100, "d"))
    async with opened(agent, store=store, policy={"draft_interval": 5.0}) as sessions:
        assert 5_003 == len(await answer_to(sessions))

    assert [1, 5_002] == drafts_in(store)


async def test_draft_when_it_cannot_be_stored(autojump_clock: Any) -> None:
    """A lost draft costs nothing else: the answer continues, and the next draft has the whole text."""
    store = FaultyStore()
    store.faults.fail("commit", n=2)
    async with opened(paced((0, "a"), (10, "b"), (10, "c")), store=store, policy={"draft_interval": 5.0}) as sessions:
        assert "abc" == await answer_to(sessions)

    assert [2] == drafts_in(store)


async def test_draft_when_another_writer_has_the_conversation(autojump_clock: Any) -> None:
    """A draft that the store refuses, because another process has loaded the conversation, ends the agent here at once."""
    store = FaultyStore()
    store.faults.fail("commit", n=2, error=Conflict("c", expected=(1, 2), found=(2, 2)))
    async with opened(paced((0, "a"), (1000, "b")), store=store, policy={"draft_interval": 5.0}) as sessions:
        assert Cancelled(CancelCause.FENCED) == await ask(sessions)
        assert trio.current_time() < 10


def written(store: FaultyStore) -> int:
    """Return how many characters of text the drafts in the store's commits have together."""
    keys = [value for commit in store.commits for key, value in commit.state.items() if key.startswith("draft") and value is not None]
    return sum(len(part["text"]) for value in keys for part in value["parts"])


async def test_draft_when_an_answer_is_long(autojump_clock: Any) -> None:
    """All drafts of an answer together have at most three times its text, and nothing of them is left behind the answer."""
    store = FaultyStore()
    text = "x" * 32_768
    agent = paced(*((0.1, text[at : at + 64]) for at in range(0, len(text), 64)))
    async with opened(agent, store=store, policy={"draft_interval": 0.25}) as sessions:
        assert text == await answer_to(sessions)

    assert len(drafts_of(store.commits)) > 100
    assert written(store) <= 3 * len(text)
    found = await store.inner.load(None, "c")
    assert found is not None
    assert [] == [key for key, value in found.state.items() if key.startswith("draft") and value is not None]


@pytest.mark.parametrize("lost", range(2, 12))
async def test_draft_when_one_of_its_pieces_cannot_be_stored(lost: int, autojump_clock: Any) -> None:
    """A piece that is lost leaves no hole: what is stored after it is the whole text."""
    store = FaultyStore()
    store.faults.fail("commit", n=lost)
    steps = [(1.0, letter) for letter in "abcdefghijklmnopqrst"]
    async with opened(Agent(model=Paced((*steps, (1e9, "z")))), store=store, policy={"draft_interval": 1.0}) as sessions:
        with trio.move_on_after(1):
            await sessions.post("c", "hi")
        await trio.sleep(18.5)
        left = kill_9(store.inner)
        await sessions.stop("c")
    found = await left.load(None, "c")
    draft = None if found is None else stored_draft(found.state)
    if draft is not None:
        said = draft["parts"][0]["text"]
        assert "abcdefghijklmnopqrst".startswith(said)
        assert len(said) >= 15
    async with opened(Agent(model=Paced([(0, "next")])), store=left) as sessions:
        assert "next" == await answer_to(sessions, "go on")


async def test_draft_when_a_host_stores_snapshots(autojump_clock: Any) -> None:
    """A host's own store gets the whole draft each time, so that its snapshot alone is enough."""
    states = DictStates()
    steps = [(1.0, letter) for letter in "abcdefghij"]
    async with opened(Agent(model=Paced((*steps, (1e9, "z")))), agent_persistence=states, policy={"draft_interval": 1.0}) as sessions:
        await sessions.post("c", "hi")
        await trio.sleep(12)
        kept = [record for record in states.rows["c"].data["messages"] if record.get("draft")]
        await sessions.stop("c")

    assert ["abcdefghij"] == [part["text"] for record in kept for part in record["parts"]]
