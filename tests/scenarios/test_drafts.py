"""Drafts: the stored text of an answer that is still streaming."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio.testing

from tests.support.scenarios import (
    FaultyStore,
    answer_to,
    ask,
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
    drafts: list[Any] = [commit.state["draft"] for commit in store.commits if commit.state.get("draft")]
    return [len(draft["parts"][0]["text"]) for draft in drafts]


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
