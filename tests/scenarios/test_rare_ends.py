"""Ends that are rare: a boot without a limit, a stop that outlives the limit of the boot, who waits for rest and does not get it."""

import gc
import math
import weakref
from typing import Any

import pytest
import trio

from tests.support.logs import quiet_log
from tests.support.scenarios import (
    FaultyStore,
    Router,
    StuckRouter,
    answer_to,
    ask,
    make_agent,
    make_config,
    of_kind,
    opened,
    read_all,
    slow_agent,
    transcript,
)
from trio_sagents import (
    AgentNotRunning,
    AgentStopped,
    Approvals,
    Cancelled,
    ChainError,
    Completed,
    Failed,
    Interrupted,
    MemoryStore,
    Middleware,
    MiddlewareError,
    PersistenceError,
    StartFailed,
    Status,
    Todo,
    ToolIgnoresCancellation,
    TurnEnded,
    Usage,
    open_sessions,
)
from trio_sagents.testing import Call, Simulation, simulate_many


async def look() -> str:
    """Look."""
    return "seen"


async def test_start_when_the_boot_has_no_limit(autojump_clock: Any) -> None:
    """Without `start_timeout` a boot takes as long as it takes."""
    async with opened(Router(route_delay=1e5), policy={"start_timeout": math.inf}) as sessions:
        assert "re: hi" == await answer_to(sessions)
        assert trio.current_time() >= 1e5


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
    """A stop with grace waits for a message that is on its way; where that cannot be stored there is nothing to wait for."""
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


async def test_wait_idle_when_several_wait(autojump_clock: Any) -> None:
    """All who wait for an agent's rest are woken by it, and it is at rest then."""
    async with opened(slow_agent(seconds=10.0)) as sessions:
        receipt = await sessions.post("c", "hi")
        handle = (await sessions.start("c")).agent
        log: list[Any] = []

        async def wait() -> None:
            await handle.wait_idle()
            log.append((await sessions.agent_info("c")).status)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await trio.sleep(1)
            assert [] == log
        assert [Status.IDLE] * 3 == log
        assert isinstance(await receipt.wait(), Completed)


async def test_wait_idle_when_the_agent_ends_first(autojump_clock: Any) -> None:
    """An agent that ends with work left never comes to rest: who waits for that is told that it has ended."""
    async with opened(slow_agent()) as sessions, trio.open_nursery() as nursery:
        for text in ("one", "two"):
            await sessions.post("c", text)
        handle = (await sessions.start("c")).agent
        told: list[type] = []

        async def wait() -> None:
            with pytest.raises(AgentNotRunning) as caught:
                await handle.wait_idle()
            told.append(type(caught.value))

        nursery.start_soon(wait)
        await trio.sleep(1)
        await sessions.stop("c")
        await trio.sleep(1)
        assert [AgentStopped] == told


async def test_middleware_home_when_no_turn_runs(autojump_clock: Any) -> None:
    """Between turns a middleware is told the conversation, the agent and the scope, and changes todos and metadata as in a turn."""

    class Looking(Middleware):
        async def on_message(self, context: Any, message: Any) -> None:
            seen.append((context.conversation_id, context.agent_id, context.scope, context.usage))
            await context.update(todos=[Todo(1, "look")], metadata={"looked": message})

    seen: list[Any] = []
    async with opened(make_agent(middleware=[Looking()])) as sessions:
        await answer_to(sessions, scope="alice")
        handle = (await sessions.start("c", scope="alice")).agent
        await handle.notify_middleware("Looking", 5)

        assert [("c", handle.agent_id, "alice", Usage())] == seen
        assert [Todo(1, "look")] == list((await handle.state()).todos)
        assert 5 == (await handle.state()).metadata["looked"]
        assert "c" == handle.conversation_id


async def test_turn_when_an_earlier_one_could_not_be_saved(autojump_clock: Any) -> None:
    """A turn whose step was refused by the store fails; the next closes the history first, and answers."""
    store = FaultyStore()
    async with opened(store=store) as sessions:
        await answer_to(sessions, "one")
        store.faults.fail("commit", 3)
        outcome = await ask(sessions, "two")
        assert "Failed" == type(outcome).__name__
        assert "re: three" == await answer_to(sessions, "three")
        assert ["one", "re: one", "two"] == [text for _, text, _ in await transcript(sessions)][:3]


def test_start_when_the_agent_crashes_as_it_comes_up() -> None:
    """Whoever waits for a boot gets the agent, or is told what crashed it: never a failure without its cause."""

    class Bomb(Middleware):
        async def on_start(self, context: Any) -> None:
            context.start_soon(self.explode)

        async def explode(self) -> None:
            for _ in range(later[0]):
                await trio.lowlevel.checkpoint()
            raise ZeroDivisionError

    causes: list[type] = []
    later = [0]

    async def program(simulation: Simulation) -> None:
        later[0] = simulation.seed % 8
        async with open_sessions(make_config(make_agent(middleware=[Bomb()]))) as sessions:
            try:
                await sessions.start("c")
            except StartFailed as exc:
                causes.append(type(exc.__cause__))

    with quiet_log():
        simulate_many(program, range(400), jumps=False)

    assert {MiddlewareError} == set(causes)


async def test_status_when_an_interrupt_is_restored(autojump_clock: Any) -> None:
    """An agent that comes back to a call that waits for a person is interrupted, and says so to whoever looks."""
    store = MemoryStore()
    agent = make_agent(Call("look"), tools=[look], middleware=[Approvals({"look": True})])
    async with opened(agent, store=store) as sessions:
        assert isinstance(await ask(sessions), Interrupted)
    async with opened(agent, store=store) as sessions, sessions.watch("c") as watch:
        (first,) = await read_all(watch)
        info = await sessions.agent_info("c")

    assert (Status.INTERRUPTED, Status.INTERRUPTED) == (first.event.status, info.status)


async def test_stop_while_the_store_does_not_answer(autojump_clock: Any) -> None:
    """Where the end of a turn is not stored in time it counts as not saved, and viewers are told that before the agent ends."""
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


async def test_start_while_an_idle_agent_takes_its_time_to_leave(autojump_clock: Any) -> None:
    """An agent that leaves by itself counts as stopping until its tasks have ended; whoever starts meanwhile gets the next one."""

    class Slow(Middleware):
        async def on_start(self, context: Any) -> None:
            context.start_soon(self.linger)

        async def linger(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(100)

    async with opened(make_agent(middleware=[Slow()]), inactivity_timeout=10.0) as sessions:
        await sessions.start("c")
        await trio.sleep(50)
        assert 1 == sessions.statistics().stopping
        assert not await sessions.running("c")
        assert (await sessions.start("c")).started
        assert 110 <= trio.current_time()


async def test_tool_that_is_cut_twice_is_named_once(autojump_clock: Any) -> None:
    """Whoever ignores its cancellation is named once for a turn, however often the turn is cut."""

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
    """A turn that has ended leaves no timer behind."""
    async with opened(slow_agent(seconds=1e6), policy={"cancel_grace": 1e6}) as sessions:
        receipt = await sessions.post("c", "hi")
        before = sessions.statistics().timers
        await trio.sleep(1)
        await sessions.cancel_turn("c")
        assert isinstance(await receipt.wait(), Cancelled)

        assert sessions.statistics().timers <= before


async def test_agent_that_has_ended_is_gone(autojump_clock: Any) -> None:
    """What an agent held is gone when it has ended and nobody has its handle any more: no cycle waits for the collector."""
    made: list[weakref.ref[Any]] = []

    def make(_agent_id: str) -> Any:
        agent = make_agent()
        made.append(weakref.ref(agent))
        return agent

    gc.disable()
    try:
        async with opened(Router(make)) as sessions, sessions.open_subscriber() as subscriber:
            await sessions.ensure_running("c", subscriber)
            await answer_to(sessions)
            await sessions.stop("c")
            await read_all(subscriber)

            assert [None] == [one() for one in made]
    finally:
        gc.enable()
