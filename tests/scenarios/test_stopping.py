"""Stopping: at once or with grace, during a boot, from inside; and what comes after."""

from typing import Any

import pytest
import trio
import trio.testing

from tests.support.scenarios import (
    FaultyStore,
    Router,
    StuckRouter,
    answer_to,
    ask,
    make_agent,
    of_kind,
    opened,
    read_all,
    slow_agent,
    tasks_living,
    transcript,
)
from trio_sagents import (
    Agent,
    AgentNotRunning,
    AgentShutdown,
    AgentStopped,
    CancelCause,
    Cancelled,
    ChainError,
    Completed,
    Failed,
    PersistenceError,
    SessionConfig,
    ShutdownReason,
    SingleFactoryRouter,
    StartFailed,
    Status,
    StatusChanged,
    TurnEnded,
    Unanswered,
    open_sessions,
)
from trio_sagents.testing import Call, Hang, ScriptedModel
from trio_sagents.testing.machines import Schedule, scheduled


async def test_stop_when_it_runs_and_when_it_does_not(autojump_clock: Any) -> None:
    """`stop` gives True if there was an agent, and else False; `running` and the lists agree."""
    async with opened() as sessions:
        await sessions.start("c")
        assert [True, False] == [await sessions.stop("c"), await sessions.stop("c")]
        assert not await sessions.running("c")
        assert [] == list(await sessions.list_running())
        assert 0 == await sessions.agent_count()
        assert not await sessions.stop("never")


async def test_stop_cuts_the_turn_at_once(autojump_clock: Any) -> None:
    """Stop cancels at once with cause stopped, keeps the partial text with its mark, and returns when it is saved."""
    store = FaultyStore()
    store.faults.latency["commit"] = 0.5
    async with opened(slow_agent("0123456789", seconds=10), store=store) as sessions:
        receipt = await sessions.post("c", "count")
        await trio.sleep(6)
        began = trio.current_time()
        assert await sessions.stop("c")

        assert trio.current_time() - began <= 2
        assert Cancelled(CancelCause.STOPPED) == await receipt.wait()
        *_, (role, text, stop_reason) = await transcript(sessions)
        assert ("assistant", "cancelled") == (role, stop_reason)
        assert text
        assert "0123456789".startswith(text)


async def test_stop_with_grace_when_the_turn_finishes(autojump_clock: Any) -> None:
    """With grace_period the turn may finish first; the agent accepts nothing meanwhile."""
    async with opened(slow_agent("0123456789", seconds=10)) as sessions:
        info = await sessions.start("c")
        receipt = await sessions.post("c", "count")
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: sessions.stop("c", grace_period=60))
            await trio.sleep(1)
            assert not await sessions.running("c")
            with pytest.raises(AgentStopped):
                await info.agent.post("more")
        outcome = await receipt.wait()

        assert isinstance(outcome, Completed)
        assert "0123456789" == outcome.message.text
        assert trio.current_time() < 30


async def test_stop_with_grace_when_the_turn_is_too_long(autojump_clock: Any) -> None:
    """When the grace is over the turn is cut."""
    async with opened(slow_agent(seconds=100)) as sessions:
        receipt = await sessions.post("c", "count")
        await trio.sleep(1)
        began = trio.current_time()
        assert await sessions.stop("c", grace_period=10)

        assert 10 <= trio.current_time() - began <= 11
        assert Cancelled(CancelCause.STOPPED) == await receipt.wait()


async def test_stop_with_grace_right_after_post(autojump_clock: Any) -> None:
    """A message whose post has returned may be answered within the grace, whichever task the scheduler ran first."""
    outcomes = set()
    async with opened() as sessions:
        for index in range(20):
            receipt = await sessions.post(str(index), "hi")
            await sessions.stop(str(index), grace_period=10)
            outcomes.add(type(await receipt.wait()))

    assert {Completed} == outcomes


async def test_stop_again_without_grace_while_it_stops_with_grace(autojump_clock: Any) -> None:
    """A second stop without grace does not wait for the grace of the first. Both return True."""
    results = []
    async with opened(slow_agent(seconds=1000)) as sessions:
        await sessions.post("c", "count")
        async with trio.open_nursery() as nursery:

            async def stop(grace: float) -> None:
                results.append(await sessions.stop("c", grace_period=grace))

            nursery.start_soon(stop, 500.0)
            await trio.sleep(1)
            nursery.start_soon(stop, 0.0)

    assert [True, True] == results
    assert trio.current_time() < 50


async def test_start_during_stop(autojump_clock: Any) -> None:
    """A start during a stop waits for the end, and boots again with the state."""
    router = Router(slow_agent("0123456789", seconds=10))
    store = FaultyStore()
    async with opened(router, store=store) as sessions:
        await sessions.post("c", "count")
        await trio.sleep(5)
        store.faults.latency["commit"] = 1.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sessions.stop, "c")
            await trio.testing.wait_all_tasks_blocked()
            info = await sessions.start("c")

        assert info.started
        assert 2 == len(router.built)
        assert ["user", "assistant"] == [message.role for message in (await info.agent.state()).messages]


async def test_stop_during_start(autojump_clock: Any) -> None:
    """While booting: the boot is cancelled, its callers get StartFailed from AgentStopped, stop returns True."""
    caught: list[BaseException | None] = []

    async def call() -> None:
        with pytest.raises(StartFailed) as failure:
            await sessions.start("c")
        caught.append(failure.value.__cause__)

    async with opened(Router(build_delay=5)) as sessions:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)
            await trio.sleep(1)
            assert await sessions.stop("c")

        assert 1 == trio.current_time()
        assert [AgentStopped] * 3 == [type(error) for error in caught]
        assert 0 == sessions.statistics().agents


async def test_stop_then_start_restores(autojump_clock: Any) -> None:
    """Stop then start works, and restores."""
    async with opened() as sessions:
        for index in range(3):
            assert f"re: {index}" == await answer_to(sessions, str(index))
            assert await sessions.stop("c")

        assert ["0", "re: 0", "1", "re: 1", "2", "re: 2"] == [text for _, text, _ in await transcript(sessions)]


@pytest.mark.parametrize("by", ["sessions", "handle"])
@pytest.mark.parametrize("how", ["plain", "child", "shielded", "child of child"])
async def test_stop_from_the_agents_own_tool(autojump_clock: Any, how: str, by: str) -> None:
    """A stop from inside the agent's own task tree requests the stop, passes one checkpoint and returns. It does not deadlock."""

    async def stop() -> None:
        assert await (sessions.stop("c") if by == "sessions" else info.agent.stop())
        events.append("returned")

    async def quit() -> str:
        """Stop the agent."""
        if how == "plain":
            await stop()
        elif how == "shielded":
            with trio.CancelScope(shield=True):
                await stop()
        else:
            async with trio.open_nursery() as nursery:
                if how == "child":
                    nursery.start_soon(stop)
                else:
                    async with trio.open_nursery() as inner:
                        inner.start_soon(stop)
        await trio.sleep(1000)
        return "never"

    events: list[str] = []
    async with opened(make_agent(["bye", Call("quit")], "again", tools=[quit])) as sessions:
        info = await sessions.start("c")
        assert Cancelled(CancelCause.STOPPED) == await ask(sessions)
        assert ShutdownReason.STOPPED is await info.agent.wait_ended()

        assert trio.current_time() < 10
        assert ["returned"] * (how == "shielded") == events
        assert not await sessions.running("c")
        assert "again" == await answer_to(sessions)


async def test_stop_from_a_sync_tools_thread() -> None:
    """A sync tool may stop its own agent through trio.from_thread.run: no deadlock."""

    def quit() -> str:
        """Stop the agent."""
        trio.from_thread.run(sessions.stop, "c")
        return "stopped"

    async with opened(make_agent(Call("quit"), "again", tools=[quit])) as sessions:
        info = await sessions.start("c")
        assert Cancelled(CancelCause.STOPPED) == await ask(sessions)
        assert ShutdownReason.STOPPED is await info.agent.wait_ended()
        assert "again" == await answer_to(sessions)


async def test_stop_of_another_agent_from_a_tool(autojump_clock: Any) -> None:
    """A tool may stop another agent, and waits for its end."""

    async def kill() -> str:
        """Stop the other."""
        stopped = await sessions.stop("other")
        return f"{stopped} {await sessions.running('other')}"

    async with opened(make_agent(Call("kill"), "done", tools=[kill])) as sessions:
        await sessions.start("other")
        assert "done" == await answer_to(sessions)

        assert "True False" == (await transcript(sessions))[2][1]


async def test_stop_when_the_caller_is_cancelled(autojump_clock: Any) -> None:
    """A stop whose caller is cancelled stops the agent all the same."""
    store = FaultyStore()
    async with opened(slow_agent(), store=store) as sessions:
        await sessions.post("c", "hi")
        await trio.sleep(1)
        store.faults.latency["commit"] = 1.0
        with trio.move_on_after(0.1):
            await sessions.stop("c")
        await trio.sleep(5)

        assert not await sessions.running("c")
        assert 0 == sessions.statistics().agents


async def test_stop_means_stopped(autojump_clock: Any) -> None:
    """When stop returns, no task of that session lives: model stream, tools and their children have ended."""
    ended: list[str] = []

    async def work() -> str:
        """Work with a child."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await trio.sleep_forever()
        finally:
            ended.append("tool")
        return "never"

    async with opened(make_agent([Call("work"), Call("work")], tools=[work])) as sessions:
        await sessions.start("other")
        before = tasks_living()
        await sessions.post("c", "hi")
        await trio.sleep(1)
        assert await sessions.stop("c")

        assert ["tool", "tool"] == ended
        assert before == tasks_living()


async def test_stop_when_a_tool_delays_its_end(autojump_clock: Any) -> None:
    """A shielded async tool delays the stop: it returns when the tool has ended, not before."""

    async def stubborn() -> str:
        """Shield."""
        with trio.CancelScope(shield=True):
            await trio.sleep(20)
        return "done"

    async with opened(make_agent(Call("stubborn"), tools=[stubborn])) as sessions:
        await sessions.post("c", "hi")
        await trio.sleep(1)
        await sessions.stop("c")

        assert 20 <= trio.current_time() <= 22


async def test_stop_tells_the_subscribers_once(autojump_clock: Any) -> None:
    """AgentShutdown comes exactly once, last, with its reason and the queued messages."""
    async with opened(slow_agent()) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await sessions.post("c", "one")
        await trio.sleep(1)
        await sessions.post("c", "two")
        await sessions.stop("c")
        seen = await read_all(subscriber)
        (shutdown,) = of_kind(seen, AgentShutdown)

        assert seen[-1].event == shutdown
        assert (ShutdownReason.STOPPED, 1, False) == (shutdown.reason, shutdown.queued, shutdown.interrupt_restorable)
        assert shutdown.last_activity_at <= shutdown.shutdown_at
        assert {("c", "main"): "pending"} == subscriber.subscriptions


async def test_stop_leaves_the_queue_for_the_next_start(autojump_clock: Any) -> None:
    """A message that was accepted and not taken is Unanswered now, and the next agent answers it."""
    router = Router(slow_agent())
    async with opened(router) as sessions:
        await sessions.post("c", "one")
        await trio.sleep(1)
        receipt = await sessions.post("c", "two", message_id="m2")
        await sessions.stop("c")
        assert Unanswered(ShutdownReason.STOPPED) == await receipt.wait()
        router.agent = make_agent()
        again = await sessions.post("c", "two", message_id="m2")

        assert again.duplicate
        assert isinstance(await again.wait(), Completed)
        assert 1 == [text for _, text, _ in await transcript(sessions)].count("two")


async def test_handle_after_the_end(autojump_clock: Any) -> None:
    """Every command of a handle whose agent has ended raises AgentNotRunning; it never acts on a later agent."""
    async with opened() as sessions:
        old = (await sessions.start("c")).agent
        await sessions.stop("c")
        new = (await sessions.start("c")).agent
        for call in (lambda: old.post("hi"), old.cancel_turn, old.touch, old.info, old.state, old.wait_idle):
            with pytest.raises(AgentNotRunning):
                await call()

        assert old != new
        assert not await old.stop()
        assert ShutdownReason.STOPPED is await old.wait_ended()
        assert await sessions.running("c")


async def test_handles_are_equal_when_the_agent_is(autojump_clock: Any) -> None:
    """== compares the agent; handles have no public constructor."""
    async with opened() as sessions:
        info = await sessions.start("c")
        other = await sessions.start("d")

        assert info.agent == await sessions.get("c")
        assert hash(info.agent) == hash(await sessions.get("c"))
        assert info.agent != other.agent
        with pytest.raises(TypeError):
            type(info.agent)()


async def test_post_during_stop_wakes_the_next_agent(autojump_clock: Any) -> None:
    """A post through Sessions during a stop waits for the end, and the next agent answers."""
    router, store = Router(slow_agent()), FaultyStore()
    async with opened(router, store=store) as sessions:
        await sessions.post("c", "one")
        await trio.sleep(1)
        store.faults.latency["commit"] = 1.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sessions.stop, "c")
            await trio.testing.wait_all_tasks_blocked()
            router.agent = make_agent()
            assert "re: two" == await answer_to(sessions, "two")


async def test_stop_when_the_store_hangs(autojump_clock: Any) -> None:
    """The settling of a cut turn is bounded by settle_timeout: a store that hangs does not hold up the stop for ever."""
    store = FaultyStore()
    async with opened(make_agent(Hang()), store=store, policy={"settle_timeout": 3.0}) as sessions:
        await sessions.post("c", "one")
        await trio.sleep(1)
        store.faults.hang("commit")
        began = trio.current_time()
        assert await sessions.stop("c")

        assert trio.current_time() - began <= 7


async def test_status_while_stopping(autojump_clock: Any) -> None:
    """running is True only while commands are accepted, and the lists agree."""
    store, looks = FaultyStore(), []
    async with opened(slow_agent(), store=store) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        await sessions.post("c", "hi")
        await trio.sleep(1)
        store.faults.latency["commit"] = 1.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sessions.stop, "c")
            await trio.testing.wait_all_tasks_blocked()
            looks += [await sessions.running("c"), len(await sessions.list_running()), await sessions.agent_count()]
            with pytest.raises(AgentNotRunning):
                await sessions.get("c")

        assert [False, 0, 0] == looks
        assert Status.CANCELLED is of_kind(await read_all(subscriber), StatusChanged)[-1].status


@pytest.mark.parametrize("bad", [-1.0, "5", None, True, float("nan")], ids=repr)
async def test_stop_with_a_grace_that_cannot_be(autojump_clock: Any, bad: Any) -> None:
    """A wrong grace_period is refused before any side effect."""
    async with opened() as sessions:
        info = await sessions.start("c")
        for stop in (lambda: sessions.stop("c", grace_period=bad), lambda: info.agent.stop(grace_period=bad)):
            with pytest.raises((TypeError, ValueError), match="grace_period"):
                await stop()

        assert await sessions.running("c")


async def test_commit_that_hangs_when_the_agent_is_stopped(autojump_clock: Any) -> None:
    """R11: a post whose write never ends is told so once its agent has ended, not when the block is left."""
    store, told = FaultyStore(), []
    async with opened(store=store) as sessions, trio.open_nursery() as nursery:
        await sessions.start("c")
        store.faults.hang("commit")

        async def post() -> None:
            with pytest.raises(PersistenceError):
                await sessions.post("c", "hi")
            told.append(trio.current_time())

        nursery.start_soon(post)
        await trio.sleep(1)
        await sessions.stop("c")
        await trio.sleep(10)

        assert 1 == len(told)


async def test_stop_while_a_boot_takes_longer_to_end_than_it_may_take(autojump_clock: Any) -> None:
    """A boot that was stopped failed for that reason, also where its own limit passes while it ends."""

    async with opened(StuckRouter(), policy={"start_timeout": 10.0}) as sessions:

        async def start() -> None:
            with pytest.raises(StartFailed) as caught:
                await sessions.start("c")
            assert isinstance(caught.value.__cause__, AgentStopped)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            await trio.sleep(5)
            await sessions.stop("c")


async def test_stop_with_grace_when_what_was_on_its_way_is_not_stored(autojump_clock: Any) -> None:
    """A stop with grace waits for a pending message. If the message cannot be stored, there is nothing to wait for."""
    store = FaultyStore()
    async with opened(store=store) as sessions, trio.open_nursery() as nursery:
        await sessions.start("c")
        store.faults.fail("commit")
        store.faults.latency["commit"] = 5.0

        async def post() -> None:
            with pytest.raises(PersistenceError):
                await sessions.post("c", "hi")

        nursery.start_soon(post)
        await trio.sleep(1)
        began = trio.current_time()
        assert await sessions.stop("c", grace_period=1000.0)
        assert 3.9 <= trio.current_time() - began <= 5.0
        assert [] == store.commits


async def test_stop_while_the_store_does_not_answer(autojump_clock: Any) -> None:
    """If the end of a turn is not stored in time, the turn counts as not saved, and viewers are told before the agent ends."""
    store = FaultyStore()
    async with opened(slow_agent(seconds=10.0), store=store, policy={"settle_timeout": 5.0}) as sessions, sessions.watch("c") as watch:
        receipt = await sessions.post("c", "hi")
        await trio.sleep(1)
        store.faults.hang("commit")
        await sessions.stop("c")
        outcome = await receipt.wait()
        seen = await read_all(watch)

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, PersistenceError)
    assert [(outcome.error, True)] == [(event.error, event.unsaved) for event in of_kind(seen, ChainError)]
    assert [outcome] == [event.outcome for event in of_kind(seen, TurnEnded)]


async def test_stop_when_a_post_is_on_its_way(autojump_clock: Any) -> None:
    """A stop returns when the last submitted write has ended, of whomever: not when the agent's own task has."""
    store = FaultyStore()
    async with opened(store=store) as sessions, trio.open_nursery() as nursery:
        await sessions.start("c")
        store.faults.latency["commit"] = 2.0
        nursery.start_soon(sessions.post, "c", "hi")
        await trio.sleep(1)

        assert await sessions.stop("c")
        assert [1, 1] == [len(commit.messages) for commit in store.commits]  # the message, and then the end of its turn
        nursery.cancel_scope.cancel()


async def status_at_the_end() -> Status:
    """Stop an agent in the very moment in which its turn has ended, while another message waits."""
    agent = Agent(model=ScriptedModel(lambda _: "so be it"))
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        async with sessions.open_subscriber() as reader:
            await sessions.ensure_running("a", reader)
            first = await sessions.post("a", "one")
            await trio.lowlevel.checkpoint()
            await sessions.post("a", "two")
            await first.wait()
            await sessions.stop("a")
            async for envelope in reader:
                if isinstance(envelope.event, AgentShutdown):
                    return envelope.event.status
    raise AssertionError("no last word")


@pytest.mark.parametrize("seed", range(12))
def test_status_when_stopped_between_two_turns(seed: int) -> None:
    """Whatever the schedule: no turn runs when an agent ends, so its last word does not say that it is running."""
    with scheduled(Schedule(seed)):
        status = trio.run(status_at_the_end, clock=trio.testing.MockClock(autojump_threshold=0))

    assert status is not Status.RUNNING
