"""Turns that are cut: the cause, the tools that ignore the cancellation, and what is left behind."""

from typing import Any

import pytest
import trio
import trio.testing

from tests.support.payments import Purse, halts, hand_over, parent, paying, results_of, task
from tests.support.scenarios import (
    FaultyStore,
    ask,
    make_agent,
    of_kind,
    opened,
    read_all,
    read_until,
    slow_agent,
    state_of,
)
from trio_sagents import (
    Agent,
    CancelCause,
    Cancelled,
    Failed,
    SessionConfig,
    SingleFactoryRouter,
    ToolIgnoresCancellation,
    TurnEnded,
    TurnLimits,
    open_sessions,
)
from trio_sagents.conversation.validity import check_history
from trio_sagents.testing import Call, Hang, ScriptedModel


async def hangs() -> str:
    """Hang."""
    await trio.sleep_forever()
    raise AssertionError


def cut_stories(purse: Purse) -> dict[str, Agent]:
    """Return agents whose first call has done something when the turn is cut."""
    asks = paying(purse, Call("look", what="x"), Call("pay", amount=1), "done")
    wordy = paying(purse, Call("look", what="x" * 3000), Call("look", what="y" * 3000), Call("pay", amount=1), "done")
    both = [hand_over("a"), hand_over("b")]
    return {
        "a sub-agent waits beside one that hangs": parent(both, tasks=[task(asks, "a"), task(paying(purse, Hang()), "b")]),
        "a tool has halted beside one that hangs": Agent(model=ScriptedModel([[Call("halts"), Call("hangs")]]), tools=[halts, hangs]),
        "a sub-agent waits with too large a state": parent(hand_over(), tasks=[task(wordy)]),
    }


@pytest.mark.parametrize("story", cut_stories(Purse()))
async def test_call_that_ran_is_not_said_not_to_have_run(autojump_clock: Any, story: str) -> None:
    """Whatever cuts a turn: of a call that had effects, the model never reads that it did not run."""
    async with opened(cut_stories(Purse())[story], policy={"max_state_bytes": 5000}) as sessions:
        receipt = await sessions.post("c", "go")
        await trio.sleep(1)
        await sessions.cancel_turn("c")
        await receipt.wait()

        assert "was not run" not in (await results_of(sessions))[0][2]


async def test_tool_that_is_cut_twice_is_named_once(autojump_clock: Any) -> None:
    """A tool that ignores its cancellation is named once for each turn, however often the turn is cut."""

    async def stubborn() -> str:
        """Shield."""
        with trio.CancelScope(shield=True):
            await trio.sleep(50)
        return "done"

    agent = make_agent(Call("stubborn"), tools=[stubborn])
    async with opened(agent, policy={"cancel_grace": 5.0}) as sessions, sessions.watch("c") as watch, trio.open_nursery() as nursery:
        await sessions.post("c", "hi")
        await trio.sleep(1)
        nursery.start_soon(sessions.cancel_turn, "c")
        await trio.sleep(1)
        await sessions.stop("c")

        assert 1 == len(of_kind(await read_all(watch), ToolIgnoresCancellation))


async def test_timers_of_a_turn_that_was_cut(autojump_clock: Any) -> None:
    """A turn that has ended leaves no timer."""
    async with opened(slow_agent(seconds=1e6), policy={"cancel_grace": 1e6}) as sessions:
        receipt = await sessions.post("c", "hi")
        before = sessions.statistics().timers
        await trio.sleep(1)
        await sessions.cancel_turn("c")
        assert isinstance(await receipt.wait(), Cancelled)

        assert sessions.statistics().timers <= before


async def _other() -> str:
    """Shield as well: which of the two begins is Trio's to say."""
    with trio.CancelScope(shield=True):
        await trio.sleep(50)
    return "done"


@pytest.mark.parametrize("way", ["handle", "sessions"])
async def test_cancel_turn_by_a_shielded_tool_of_that_turn(autojump_clock: Any, way: str) -> None:
    """A tool that cuts its own turn does not wait for itself: it is told that nothing is settled yet, and the turn is cut."""
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


async def test_cancelled_turn_when_it_is_superseded_as_well(autojump_clock: Any) -> None:
    """A turn that was cut, and takes its time to end, keeps the cause that it was cut for."""

    async def stubborn() -> str:
        """Shield."""
        with trio.CancelScope(shield=True):
            await trio.sleep(50)
        return "done all the same"

    async with opened(make_agent(Call("stubborn"), "next", tools=[stubborn])) as sessions, trio.open_nursery() as nursery:
        receipt = await sessions.post("c", "hi")
        await trio.sleep(1)
        nursery.start_soon(sessions.cancel_turn, "c")
        await trio.sleep(1)
        await sessions.post("c", "instead", overlap="interrupt")

        assert Cancelled(CancelCause.USER) == await receipt.wait()


async def test_cancel_turn_cuts_the_turn_of_an_agent_that_is_stopping_with_grace(autojump_clock: trio.testing.MockClock) -> None:
    """`cancel_turn` gives None only if no turn ran. A turn that may finish within a grace period does run."""
    agent = Agent(model=ScriptedModel([["it begins", Hang()]]))
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions, trio.open_nursery() as nursery:
        await sessions.post("a", "hello")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(lambda: sessions.stop("a", grace_period=30.0))
        await trio.testing.wait_all_tasks_blocked()
        outcome = await sessions.cancel_turn("a")

    assert isinstance(outcome, Cancelled)


async def test_no_timer_is_left_when_a_turn_was_cut(mock_clock: trio.testing.MockClock) -> None:
    """When `stop` returns, nothing of the agent is left: its timers neither."""
    agent = Agent(model=ScriptedModel(lambda _: ["it begins", Hang()]))
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        await sessions.post("a", "hello")
        await trio.testing.wait_all_tasks_blocked()
        await sessions.stop("a")
        timers = sessions.statistics().timers

    assert 0 == timers


@pytest.mark.parametrize("last", ["cut", "answer"])
async def test_turn_begins_after_the_end_of_a_turn_that_was_given_up(autojump_clock: Any, last: str) -> None:
    """A message that was on its way before the end of a turn does not begin the next turn before that end is stored.

    Otherwise the next turn closes what the end of the earlier turn closes, too, and no provider takes the history any more.
    """
    replies = [Call("hangs"), "so be it"] if last == "cut" else ["x" * 100, "so be it"]
    store = FaultyStore()
    agent = make_agent(*replies, tools=[hangs], chunk_interval=0.1)
    async with opened(agent, store=store, policy={"settle_timeout": 5.0}) as sessions, trio.open_nursery() as nursery:
        first = await sessions.post("c", "one")
        await trio.sleep(2.3)
        store.faults.latency["commit"] = 8.0
        nursery.start_soon(sessions.post, "c", "two")
        await trio.sleep(0.6)
        await sessions.cancel_turn("c")
        assert isinstance(await first.wait(), Failed)
        await trio.sleep(200)
        store.faults.latency.clear()
        state = await state_of(sessions)

    assert () == check_history("c", state.messages)
    answers = [(message.text, message.stop_reason) for message in state.messages if message.role == "assistant" and not message.calls]
    assert [("", "cancelled") if last == "cut" else ("x" * 100, "stop"), ("so be it", "stop")] == answers
