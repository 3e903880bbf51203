"""Rare moments: drafts that fail or are overtaken, commands from inside a turn, hooks behind an end, rows of a host's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support.scenarios import (
    NOW,
    DictRows,
    DictStates,
    FaultyStore,
    Verdicts,
    answer_to,
    ask,
    make_agent,
    of_kind,
    opened,
    read_all,
    read_until,
)
from trio_sagents import (
    Agent,
    AgentNotRunning,
    AgentStopped,
    CancelCause,
    Cancelled,
    Completed,
    Conflict,
    DisplayMessage,
    DisplayMessageUpdated,
    FinishChunk,
    MemoryStore,
    Middleware,
    SessionsClosed,
    TextChunk,
    ToolIgnoresCancellation,
    TurnEnded,
    TurnLimits,
    Unanswered,
)
from trio_sagents.supervisor import Posted
from trio_sagents.testing import Call, Hang

# ── drafts


@attrs.define(eq=False)
class Paced:
    """A model that speaks at stated times."""

    steps: Any
    """(seconds to wait, what is said then), in order."""
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
    """What was kept because there was much of it is not kept once more when its time comes."""
    store = FaultyStore()
    async with opened(paced((0, "a"), (1, "b" * 5_000), (100, "c")), store=store, policy={"draft_interval": 5.0}) as sessions:
        assert 5_002 == len(await answer_to(sessions))

    assert [5_001] == drafts_in(store)


async def test_draft_when_the_store_is_slower_than_the_model(autojump_clock: Any) -> None:
    """One draft at a time: while one is being stored another one waits, however much is said, and then has all of it."""
    store = FaultyStore()
    store.faults.slow("commit", 50.0, n=3)
    agent = paced((0, "a"), (10, "b"), (1, "c" * 5_000), (100, "d"))
    async with opened(agent, store=store, policy={"draft_interval": 5.0}) as sessions:
        assert 5_003 == len(await answer_to(sessions))

    assert [1, 5_002] == drafts_in(store)


async def test_draft_when_it_cannot_be_stored(autojump_clock: Any) -> None:
    """A draft that is lost costs nothing but itself: the answer goes on, and the next draft has all of it."""
    store = FaultyStore()
    store.faults.fail("commit", n=3)
    async with opened(paced((0, "a"), (10, "b"), (10, "c")), store=store, policy={"draft_interval": 5.0}) as sessions:
        assert "abc" == await answer_to(sessions)

    assert [2] == drafts_in(store)


async def test_draft_when_another_writer_has_the_conversation(autojump_clock: Any) -> None:
    """A draft that the store refuses, because another process has loaded the conversation, ends the agent here at once."""
    store = FaultyStore()
    store.faults.fail("commit", n=3, error=Conflict("c", expected=(1, 3), found=(2, 3)))
    async with opened(paced((0, "a"), (1000, "b")), store=store, policy={"draft_interval": 5.0}) as sessions:
        assert Cancelled(CancelCause.FENCED) == await ask(sessions)
        assert trio.current_time() < 10


# ── from inside a turn, and behind an end


@pytest.mark.parametrize("way", ["handle", "sessions"])
async def test_cancel_turn_by_a_shielded_tool_of_that_turn(autojump_clock: Any, way: str) -> None:
    """A tool that cuts its own turn is not made to wait for itself: it hears that nothing is settled yet, and the turn is cut."""
    heard: list[Any] = []

    async def cut() -> str:
        """Cut the turn."""
        with trio.CancelScope(shield=True):
            asked: Any = sessions if way == "sessions" else await sessions.get("c")
            heard.append(await (asked.cancel_turn("c") if way == "sessions" else asked.cancel_turn()))
        await trio.sleep(1000)
        return "never"

    async with opened(make_agent(Call("cut"), "never", tools=[cut])) as sessions:
        assert Cancelled(CancelCause.USER) == await ask(sessions)
        assert [None] == heard
        assert trio.current_time() < 1


async def test_tool_that_ignores_cancellation_beside_one_that_has_not_begun(autojump_clock: Any) -> None:
    """Only what runs is named: a call that waits for its turn ignores nothing."""

    async def stubborn() -> str:
        """Shield."""
        with trio.CancelScope(shield=True):
            await trio.sleep(50)
        return "done"

    agent = make_agent([Call("stubborn"), Call("other")], "next", tools=[stubborn, _other], limits=TurnLimits(max_parallel=1))
    async with opened(agent, policy={"cancel_grace": 5.0}) as sessions, sessions.watch("c") as watch:
        receipt = await sessions.post("c", "hi")
        await trio.sleep(1)
        await sessions.cancel_turn("c")
        named = of_kind(await read_until(watch, TurnEnded), ToolIgnoresCancellation)

        assert Cancelled(CancelCause.USER) == await receipt.wait()
        assert 1 == len(named)
        assert named[0].call.name in {"stubborn", "other"}


async def _other() -> str:
    """Shield as well: which of the two begins is Trio's to say."""
    with trio.CancelScope(shield=True):
        await trio.sleep(50)
    return "done"


class Keeps(Middleware):
    """Keeps its context, and what it does with a message takes its time."""

    context: Any = None

    async def on_message(self, context: Any, message: Any) -> None:
        self.context = context
        await trio.sleep(message)


async def test_update_by_a_middleware_whose_agent_has_ended(autojump_clock: Any) -> None:
    """What is to be kept for an agent that is gone is refused, and nothing is stored: the conversation may be another's by now."""
    store, keeps = FaultyStore(), Keeps()
    async with opened(make_agent(middleware=[keeps]), store=store) as sessions:
        await ask(sessions)
        await (await sessions.start("c")).agent.notify_middleware("Keeps", 0)
        await sessions.stop("c")
        commits = len(store.commits)
        with pytest.raises(AgentStopped):
            await keeps.context.update(metadata={"note": "late"})

        assert commits == len(store.commits)


async def test_hook_of_an_agent_that_waits_for_its_last_write_alone(autojump_clock: Any) -> None:
    """Nothing of an agent begins any more once all its tasks have ended, though its last write has not."""
    store, begun = FaultyStore(), []

    async def hook() -> None:
        begun.append("hook")

    async with opened(store=store, policy={"settle_timeout": 100.0}) as sessions, trio.open_nursery() as nursery:
        agent = (await sessions.start("c")).agent
        store.faults.latency["commit"] = 50.0
        nursery.start_soon(sessions.post, "c", "hi")
        await trio.sleep(1)
        nursery.start_soon(sessions.stop, "c")
        await trio.testing.wait_all_tasks_blocked()
        live = agent._live
        with pytest.raises(AgentNotRunning):
            await live.home.run(hook)

        assert not live.has_ended
        assert (0, []) == (live.hooks, begun)


# ── what was posted, and what is shown


async def test_post_again_when_the_message_is_not_in_the_history(autojump_clock: Any) -> None:
    """A message that is on record as accepted is not taken twice, though somebody took it out of the store: nobody answers it."""
    store = MemoryStore()
    async with opened(store=store) as sessions:
        await ask(sessions)
    store._stored["c"].message_ids["lost"] = Posted.of("hello", "lost", "queue").digest
    async with opened(store=store) as sessions:
        receipt = await sessions.post("c", "hello", message_id="lost")

        assert receipt.duplicate
        assert Unanswered("cut") == await receipt.wait()


class Steps(DictRows):
    """A host's transcript with a row for each step of a call."""

    async def update_tool_status(self, scope: Any, status: Any, tool_info: Any, context: Any) -> DisplayMessage | None:
        await super().update_tool_status(scope, status, tool_info, context)
        if status == "executing":
            return None
        return DisplayMessage("call", "m", "tool", "tool_call", {"name": tool_info["name"]}, status, NOW)


async def test_row_that_a_host_changes_with_a_call(autojump_clock: Any) -> None:
    """A row that a host's own transcript gives back for the step of a call is told to viewers as changed."""
    rows = Steps()
    agent = make_agent(Call("_other"), "done", tools=[_other])
    async with opened(agent, agent_persistence=DictStates(), display_message_persistence=rows) as sessions, sessions.watch("c") as watch:
        assert isinstance(await ask(sessions), Completed)
        changed = of_kind(await read_all(watch), DisplayMessageUpdated)

    assert ["executing", "completed"] == [status for status, _ in rows.statuses]
    assert [("call", "completed")] == [(event.row.row_id, event.row.status) for event in changed]


# ── subscribers


async def test_batches_after_the_block(autojump_clock: Any) -> None:
    """Whoever reads by batches gets what there is, and is then told that the sessions are gone."""
    batches: list[Any] = []
    ended = trio.Event()

    async def read() -> None:
        async with sessions.open_subscriber() as subscriber:
            await subscriber.subscribe("c")
            with pytest.raises(SessionsClosed):
                async for batch in subscriber.batches():
                    batches.append(batch)
        ended.set()

    async with trio.open_nursery() as nursery:
        async with opened() as sessions:
            nursery.start_soon(read)
            await ask(sessions)

    assert ended.is_set()
    assert "AgentShutdown" == type(batches[-1][-1].event).__name__


async def test_subscriber_that_comes_with_the_start(autojump_clock: Any) -> None:
    """Whoever was allowed to start an agent and to see it is not asked for once more when it is up; who waited for it is."""
    verdicts = Verdicts()
    async with opened(make_agent(Hang()), authorizer=verdicts) as sessions, sessions.open_subscriber(scope="early") as early:
        await early.subscribe("c")
        verdicts.asked.clear()
        async with sessions.open_subscriber(scope="late") as late:
            await sessions.ensure_running("c", late)
            await trio.testing.wait_all_tasks_blocked()

            assert ["subscribed"] == list(early.subscriptions.values()) == list(late.subscriptions.values())
        assert [("late", "start"), ("late", "view"), ("early", "view")] == [(scope, action) for scope, _, action in verdicts.asked]
