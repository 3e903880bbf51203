"""The list of conversations that wait for a person: what it says, to whom, and that no agent is started for it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.people import interrupt_in
from tests.support.scenarios import FaultyStore, answer_to, ask, make_agent, opened
from trio_sagents import Agent, Approvals, Approve, MemoryStore, PersistenceError, Sessions, SqliteStore, WaitingConversation
from trio_sagents.testing import Call, ScriptedModel
from trio_sagents.testing.machines import lockstep_threads


async def pay(amount: int) -> str:
    """Pay an amount."""
    return f"paid {amount}"


def clerk() -> Agent:
    """Return an agent that pays where it is told so, if a person approves it."""
    model = ScriptedModel(lambda request: Call("pay", amount=1) if request.messages[-1].text == "pay" else "fine")
    return Agent(model=model, tools=[pay], middleware=[Approvals({"pay": True})])


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    with lockstep_threads():
        yield


@pytest.fixture(params=["memory", "sqlite"])
def store(request: Any, tmp_path: Path) -> Any:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "chat.db")


async def waiting_ids(sessions: Sessions, **settings: Any) -> list[str]:
    return [item.conversation_id for item in (await sessions.waiting(**settings)).items]


async def test_list_over_the_lives_of_conversations(autojump_clock: Any, store: Any) -> None:
    """A conversation is listed while it waits, over sleep and restart, with what it waits for, and not after the decision."""
    async with opened(clerk(), store=store, inactivity_timeout=10.0) as sessions:
        await answer_to(sessions, "hi", "calm")
        asked = interrupt_in(await ask(sessions, "pay", "second"))
        await ask(sessions, "pay", "first")
        await ask(sessions, "pay", "gone")
        await trio.sleep(100)
        assert 0 == await sessions.agent_count()
        page = await sessions.waiting()
        assert 0 == await sessions.agent_count()
        assert ["second", "first", "gone"] == [item.conversation_id for item in page.items]
        assert asked == page.items[0].interrupt
        assert page.items[0].interrupt.since is not None
        assert await sessions.delete("gone")

    async with opened(clerk(), store=store) as sessions:
        assert ["second", "first"] == await waiting_ids(sessions)
        await (await sessions.resume("second", [Approve(asked.calls[0])])).wait()
        assert ["first"] == await waiting_ids(sessions)


async def test_pages(autojump_clock: Any, store: Any) -> None:
    """The pages together have each waiting conversation once, the one that has waited longest first."""
    async with opened(clerk(), store=store) as sessions:
        for number in range(5):
            await ask(sessions, "pay", f"c{number}")
        found, after = [], None
        while True:
            page = await sessions.waiting(after=after, limit=2)
            found += [item.conversation_id for item in page.items]
            after = page.after
            if after is None:
                break
        with pytest.raises(ValueError, match="cursor"):
            await sessions.waiting(after="c1")
        with pytest.raises(ValueError, match="limit"):
            await sessions.waiting(limit=0)

    assert [f"c{number}" for number in range(5)] == found


async def test_list_of_another_owner(autojump_clock: Any, store: Any) -> None:
    """Nobody sees what another owner's conversations wait for."""
    async with opened(clerk(), store=store) as sessions:
        await ask(sessions, "pay", "mine", scope="anne")
        await ask(sessions, "pay", "theirs", scope="bob")

        assert ["mine"] == await waiting_ids(sessions, scope="anne")
        assert ["theirs"] == await waiting_ids(sessions, scope="bob")
        assert [] == await waiting_ids(sessions, scope="eve")


async def test_list_when_it_says_for_whom(autojump_clock: Any, store: Any) -> None:
    """An item says who posted the message that waits, whoever started the agent, also after a restart; None if nobody knows."""

    class Named:
        async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
            return True

        def actor_of(self, scope: Any) -> Any:
            if scope == "broken":
                raise KeyError(scope)
            return f"user {scope}"

    for _ in range(2):
        async with opened(clerk(), store=store, authorizer=Named()) as sessions:
            await sessions.start("c", scope="boss")
            if not (await sessions.waiting()).items:
                await ask(sessions, "pay", "c", scope="anne")
                await ask(sessions, "pay", "d", scope="broken")
            items = (await sessions.waiting(scope="boss")).items
            assert [("c", "user anne"), ("d", None)] == [(item.conversation_id, item.interrupt.asked_by) for item in items]


@pytest.mark.parametrize("refused", ["list", "view"])
async def test_list_of_somebody_who_may_not(autojump_clock: Any, store: Any, refused: str) -> None:
    """An item is for those who may list and view the conversation: it has the arguments of the call."""

    class Rules:
        async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
            return scope == "boss" or action != refused

    async with opened(clerk(), store=store, authorizer=Rules()) as sessions:
        await ask(sessions, "pay", "c", scope="boss")

        assert ["c"] == await waiting_ids(sessions, scope="boss")
        assert [] == await waiting_ids(sessions, scope="guest")


async def test_file_from_before_the_list(autojump_clock: Any, tmp_path: Path) -> None:
    """A file that an earlier version made has no index of what waits: it gets one when it is opened."""
    path = tmp_path / "chat.db"
    async with opened(clerk(), store=SqliteStore(path)) as sessions:
        await ask(sessions, "pay")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP INDEX state_waiting")

    async with opened(clerk(), store=SqliteStore(path)) as sessions:
        (item,) = (await sessions.waiting()).items
    assert isinstance(item, WaitingConversation)
    assert ("c", None) == (item.conversation_id, item.title)


async def test_store_that_cannot_list(autojump_clock: Any) -> None:
    """A host's store without `waiting` says what it lacks."""
    async with opened(make_agent("hi"), store=FaultyStore(MemoryStore())) as sessions:
        with pytest.raises(PersistenceError, match="waiting"):
            await sessions.waiting()
