"""The three ways of leaving open_sessions, and drain()."""

import contextlib
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.payments import STORES, Purse, decide, each_store, interrupt_of, paying
from tests.support.scenarios import (
    FaultyStore,
    Router,
    ask,
    make_agent,
    make_config,
    of_kind,
    opened,
    read_all,
    read_until,
    slow_agent,
    tasks_living,
    transcript,
)
from trio_sagents import (
    Agent,
    AgentShutdown,
    Approve,
    CancelCause,
    Cancelled,
    Completed,
    MemoryStore,
    SessionConfig,
    Sessions,
    SessionsClosed,
    ShutdownReason,
    SingleFactoryRouter,
    Unanswered,
    open_sessions,
)
from trio_sagents.testing import Call, ScriptedModel, Simulation, simulate


class HostError(Exception):
    """The host's own."""


async def last_of(store: Any, conversation_id: str = "c") -> tuple[str, str, str | None]:
    """Return the last message that the next host finds."""
    async with opened(store=store) as sessions:
        return (await transcript(sessions, conversation_id))[-1]


async def test_leave_normally_lets_the_turn_finish(autojump_clock: Any) -> None:
    """Left normally, turns may finish until grace_period; what they did is saved."""
    store = MemoryStore()
    async with opened(slow_agent("0123456789", seconds=10), store=store) as sessions:
        receipt = await sessions.post("c", "count")
        await trio.sleep(0.5)
    outcome = await receipt.wait()

    assert isinstance(outcome, Completed)
    assert 9 <= trio.current_time() <= 13
    assert ("assistant", "0123456789", "stop") == await last_of(store)


async def test_leave_normally_cuts_a_turn_that_is_too_long(autojump_clock: Any) -> None:
    """After grace_period the rest is cut with cause closed, and settled."""
    store = MemoryStore()
    async with opened(slow_agent(seconds=1000), store=store, policy={"grace_period": 10.0}) as sessions:
        receipt = await sessions.post("c", "count")
        await trio.sleep(0.5)

    assert 10 <= trio.current_time() <= 12
    assert Cancelled(CancelCause.CLOSED) == await receipt.wait()
    assert "cancelled" == (await last_of(store))[2]


async def test_leave_normally_with_idle_agents_takes_no_time(autojump_clock: Any) -> None:
    """Idle agents end at once, whatever the grace."""
    async with opened() as sessions:
        for index in range(20):
            await sessions.start(str(index))

    assert 0 == trio.current_time()


async def test_leave_normally_with_a_queue(autojump_clock: Any) -> None:
    """Messages in the queue when the block is left are answered within the grace, or are Unanswered and still there at the next start."""
    store = MemoryStore()
    async with opened(slow_agent("answer", seconds=10), store=store) as sessions:
        await sessions.post("c", "one")
        await trio.sleep(1)
        receipt = await sessions.post("c", "two", message_id="m2")
    outcome = await receipt.wait()

    assert trio.current_time() <= 31
    assert isinstance(outcome, Completed) or Unanswered(ShutdownReason.CLOSED) == outcome
    async with opened(store=store) as sessions:
        assert isinstance(await ask(sessions, "two", message_id="m2"), Completed)
        assert 1 == [text for _, text, _ in await transcript(sessions)].count("two")


async def test_leave_normally_right_after_post(autojump_clock: Any) -> None:
    """A message whose post has returned may be answered within the grace, whichever task the scheduler ran first."""
    outcomes = set()
    for _ in range(20):
        async with opened() as sessions:
            receipt = await sessions.post("c", "hi")
        outcomes.add(type(await receipt.wait()))

    assert {Completed} == outcomes


async def test_leave_by_an_error_raises_that_very_object(autojump_clock: Any) -> None:
    """What the host's block raised leaves open_sessions as that object; turns are cut at once with cause host_failed."""
    store, error = FaultyStore(), HostError("mine")
    store.faults.latency["commit"] = 0.1
    with pytest.raises(HostError) as caught:
        async with open_sessions(make_config(slow_agent("0123456789", seconds=10), store=store)) as sessions:
            receipt = await sessions.post("c", "count")
            await trio.sleep(5)
            raise error

    assert error is caught.value
    assert error.__cause__ is None
    assert trio.current_time() <= 6
    assert Cancelled(CancelCause.HOST_FAILED) == await receipt.wait()
    role, text, stop_reason = await last_of(store)
    assert ("assistant", "cancelled") == (role, stop_reason)
    assert text.startswith("0123")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_leave_by_an_exit_raises_that_very_object(autojump_clock: Any, kind: type[BaseException]) -> None:
    """A BaseException of the host's block leaves as it is, too, and the turn is saved."""
    store, error = MemoryStore(), kind()
    with pytest.raises(kind) as caught:
        async with open_sessions(make_config(slow_agent(seconds=100), store=store)) as sessions:
            receipt = await sessions.post("c", "count")
            await trio.sleep(5)
            raise error

    assert error is caught.value
    assert Cancelled(CancelCause.HOST_FAILED) == await receipt.wait()
    assert "cancelled" == (await last_of(store))[2]


async def test_leave_by_an_exception_group_raises_that_very_object(autojump_clock: Any) -> None:
    """A group that the block raised leaves as that group, not wrapped and not unwrapped."""
    group = ExceptionGroup("mine", [HostError("a"), ExceptionGroup("inner", [HostError("b")])])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_sessions(make_config()) as sessions:
            await sessions.start("c")
            raise group

    assert group is caught.value


async def test_leave_by_cancellation(autojump_clock: Any) -> None:
    """Cancelled from outside: turns are cut at once with cause host_cancelled, and settled, though the host is cancelled."""
    store, before = FaultyStore(), tasks_living()
    store.faults.latency["commit"] = 0.1
    with trio.CancelScope() as outer:
        async with open_sessions(make_config(slow_agent("0123456789", seconds=10), store=store)) as sessions:
            receipt = await sessions.post("c", "count")
            await trio.sleep(5)
            outer.cancel()
            await trio.sleep(1)

    assert outer.cancelled_caught
    assert before == tasks_living()
    assert trio.current_time() <= 6
    assert Cancelled(CancelCause.HOST_CANCELLED) == await receipt.wait()
    assert "cancelled" == (await last_of(store))[2]


async def test_leave_by_a_failing_sibling(autojump_clock: Any) -> None:
    """A failing sibling of the host's cancels the block: the sibling's error leaves, the turn is saved."""
    store = MemoryStore()

    async def fail() -> None:
        await trio.sleep(5)
        raise HostError("sibling")

    async def host() -> None:
        async with open_sessions(make_config(slow_agent(seconds=100), store=store)) as sessions:
            await sessions.post("c", "count")
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(host)

    assert [HostError] == [type(exception) for exception in caught.value.exceptions]
    assert "cancelled" == (await last_of(store))[2]


async def test_leave_by_cancellation_with_nothing_running(autojump_clock: Any) -> None:
    """A cancelled block with idle agents ends at once and tells why."""
    with trio.CancelScope() as outer:
        async with open_sessions(make_config()) as sessions:
            info = await sessions.start("c")
            outer.cancel()
            await trio.sleep(1)

    assert outer.cancelled_caught
    assert ShutdownReason.HOST_CANCELLED is await info.agent.wait_ended()


async def test_leave_while_cancelled_in_the_grace(autojump_clock: Any) -> None:
    """A cancellation during the grace ends the grace: the turn is cut and settled."""
    store = MemoryStore()
    with trio.move_on_after(5) as outer:
        async with open_sessions(make_config(slow_agent(seconds=100), store=store)) as sessions:
            receipt = await sessions.post("c", "count")
            await trio.sleep(0.5)

    assert outer.cancelled_caught
    assert trio.current_time() <= 6
    assert isinstance(await receipt.wait(), Cancelled)
    assert "cancelled" == (await last_of(store))[2]


async def test_leave_with_a_store_that_hangs_is_bounded(autojump_clock: Any) -> None:
    """Every wait on a service is bounded: a store that hangs does not hold the block open for ever."""
    store = FaultyStore()
    with trio.CancelScope() as outer:
        async with open_sessions(make_config(slow_agent(seconds=100), store=store, policy={"settle_timeout": 3.0})) as sessions:
            await sessions.post("c", "count")
            await trio.sleep(0.5)
            store.faults.hang("commit")
            outer.cancel()
            await trio.sleep(1)

    assert trio.current_time() <= 10


async def test_leave_during_a_boot(autojump_clock: Any) -> None:
    """A boot that is under way when the block is left leaves nothing running."""
    async with opened(Router(build_delay=1000)) as sessions:
        with trio.move_on_after(1):
            await sessions.start("c")

    assert trio.current_time() <= 32


async def test_leave_with_everything_going_on(autojump_clock: Any) -> None:
    """Whatever is going on, nothing keeps running, and nothing that was finished stays unsaved."""
    store, router = FaultyStore(), Router(slow_agent("0123456789", seconds=10))
    store.faults.latency["commit"] = 0.01
    async with opened(router, store=store) as sessions, trio.open_nursery() as nursery:
        for index in range(10):
            receipt = await sessions.post(str(index), "count")
            nursery.start_soon(receipt.wait)
        await trio.sleep(5)

    assert 10 == sum(commit.lifecycle == "on_completion" for commit in store.commits)


async def test_leave_saves_in_every_way(autojump_clock: Any) -> None:
    """A tool result that returned before the cut is in the saved history, and each open call is closed."""
    store = MemoryStore()

    async def quick() -> str:
        """Return."""
        return "fact"

    async def slow() -> str:
        """Never return."""
        await trio.sleep_forever()
        return ""

    with trio.CancelScope() as outer:
        async with open_sessions(make_config(make_agent([Call("quick"), Call("slow")], tools=[quick, slow]), store=store)) as sessions:
            await sessions.post("c", "go")
            await trio.sleep(1)
            outer.cancel()
            await trio.sleep(1)
    async with opened(store=store) as sessions:
        state = await (await sessions.start("c")).agent.state()
        results = {result.name: result.status for message in state.messages for result in message.results}

        assert {"quick": "completed", "slow": "cancelled"} == results
        assert "cancelled" == state.messages[-1].stop_reason


async def test_closed_reason_and_subscribers(autojump_clock: Any) -> None:
    """Leaving the block gives the reason CLOSED. A reader gets what there is, and then SessionsClosed."""
    seen: list[Any] = []

    async def read() -> None:
        async with sessions.open_subscriber() as subscriber:
            await sessions.ensure_running("c", subscriber)
            task_status.set()
            with pytest.raises(SessionsClosed):
                while True:
                    seen.append((await subscriber.__anext__()).event)

    task_status = trio.Event()
    async with trio.open_nursery() as nursery:
        async with opened() as sessions:
            nursery.start_soon(read)
            await task_status.wait()

    assert [ShutdownReason.CLOSED] == [event.reason for event in seen if isinstance(event, AgentShutdown)]


async def test_drain_report(autojump_clock: Any) -> None:
    """drain() lets turns finish until grace_period, settles the rest, and reports; the reason is DRAINED."""
    agents = {"conversation-quick": slow_agent(seconds=5), "conversation-slow": slow_agent(seconds=500), "conversation-idle": make_agent()}
    async with opened(Router(agents.__getitem__), policy={"grace_period": 10.0}) as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("idle", subscriber)
        receipts = [await sessions.post(name, "go") for name in ("quick", "slow")]
        await trio.sleep(1)
        await sessions.post("slow", "more")
        report = await sessions.drain()

        assert (1, 1, 1, 1) == (report.idle, report.finished, report.cancelled, report.queued)
        assert isinstance(await receipts[0].wait(), Completed)
        assert Cancelled(CancelCause.DRAINED) == await receipts[1].wait()
        assert [ShutdownReason.DRAINED] == [event.reason for event in of_kind(await read_all(subscriber), AgentShutdown)]
        assert 0 == sessions.statistics().agents


async def test_drain_refuses_starts(autojump_clock: Any) -> None:
    """After drain() nothing starts any more: start, post to a sleeping agent and watch raise SessionsClosed."""
    async with opened() as sessions:
        await sessions.start("c")
        await sessions.drain()
        for call in (lambda: sessions.start("c"), lambda: sessions.post("c", "hi")):
            with pytest.raises(SessionsClosed):
                await call()
        with pytest.raises(SessionsClosed):
            async with sessions.watch("c"):
                pass

        assert not await sessions.running("c")


async def test_drain_twice_and_with_nothing(autojump_clock: Any) -> None:
    """drain() of nothing reports nothing, and a second drain is harmless."""
    async with opened() as sessions:
        first, second = await sessions.drain(), await sessions.drain()

        assert first == second
        assert (0, 0, 0, 0) == (first.idle, first.finished, first.cancelled, first.queued)


async def test_drain_from_a_tool_does_not_deadlock(autojump_clock: Any) -> None:
    """A tool may drain: it does not wait for its own agent."""

    async def leave() -> str:
        """Drain."""
        report = await sessions.drain()
        return f"drained {report.idle}"

    async with opened(make_agent(Call("leave"), "done", tools=[leave])) as sessions:
        await sessions.start("other")
        outcome = await ask(sessions)

        assert isinstance(outcome, Completed)
        assert 0 <= trio.current_time() < 40


async def test_memory_store_serves_one_host_after_the_other(autojump_clock: Any) -> None:
    """The next host finds what an earlier host acknowledged."""
    store = MemoryStore()
    for index in range(3):
        async with opened(store=store) as sessions:
            assert isinstance(await ask(sessions, str(index)), Completed)
    async with opened(store=store) as sessions:
        assert ["0", "re: 0", "1", "re: 1", "2", "re: 2"] == [text for _, text, _ in await transcript(sessions)]


async def test_keyboard_interrupt_in_a_tool_leaves_open_sessions(autojump_clock: Any) -> None:
    """KeyboardInterrupt in a tool leaves open_sessions; the siblings' turns are settled."""
    store = MemoryStore()

    async def interrupt() -> str:
        """Press Ctrl-C."""
        raise KeyboardInterrupt

    agents = {"conversation-bad": make_agent(Call("interrupt"), tools=[interrupt]), "conversation-good": slow_agent(seconds=100)}
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_sessions(make_config(Router(agents.__getitem__), store=store)) as sessions:
            await sessions.post("good", "count")
            await trio.sleep(1)
            await sessions.post("bad", "go")
            await trio.sleep_forever()

    assert caught.value.subgroup(KeyboardInterrupt) is not None
    assert caught.value.split(KeyboardInterrupt)[1] is None
    assert "cancelled" == (await last_of(store, "good"))[2]


async def test_runtime_and_host_both_fail(autojump_clock: Any) -> None:
    """If the runtime failed too, a group of both leaves: the host's object is in it."""
    error = HostError("mine")

    async def interrupt() -> str:
        """Press Ctrl-C, on the way out."""
        try:
            await trio.sleep_forever()
        finally:
            raise SystemExit(3)
        return ""

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_sessions(make_config(make_agent(Call("interrupt"), tools=[interrupt]))) as sessions:
            await sessions.post("c", "go")
            await trio.sleep(1)
            raise error

    assert error in caught.value.exceptions
    assert caught.value.subgroup(SystemExit) is not None


async def test_statistics_go_back_to_zero(autojump_clock: Any) -> None:
    """Counters are back at zero when nothing is up."""
    async with opened() as sessions:
        async with sessions.open_subscriber() as subscriber:
            for index in range(10):
                await sessions.ensure_running(str(index), subscriber)
                await ask(sessions, "hi", str(index))
            assert (10, 10) == (sessions.statistics().agents, sessions.statistics().subscriptions)
            for index in range(10):
                await sessions.stop(str(index))
        statistics = sessions.statistics()

        assert [0] * 5 == [statistics.agents, statistics.booting, statistics.running, statistics.stopping, statistics.subscriptions]
        assert (0, 0) == (statistics.pending_writes, statistics.timers)


async def test_read_until_is_used(autojump_clock: Any) -> None:
    """A reader that waits when an agent is drained gets the shutdown."""
    async with opened() as sessions, sessions.open_subscriber() as subscriber:
        await sessions.ensure_running("c", subscriber)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sessions.drain)
            seen = await read_until(subscriber, AgentShutdown)

        assert ShutdownReason.DRAINED is seen[-1].event.reason


async def test_readers_when_a_tool_ends_the_program(autojump_clock: Any) -> None:
    """R22: however the block ends, those who read from it get SessionsClosed."""

    async def tool() -> str:
        """Leave."""
        raise SystemExit(3)

    ended = []
    async with trio.open_nursery() as nursery:

        async def read(*, task_status: Any) -> None:
            with pytest.raises(SessionsClosed):
                async with sessions.open_subscriber() as subscriber:
                    await subscriber.subscribe("c")
                    task_status.started()
                    async for _ in subscriber:
                        pass
            ended.append("closed")

        with contextlib.suppress(BaseException):
            async with open_sessions(make_config(make_agent(Call("tool"), tools=[tool]))) as sessions:
                await nursery.start(read)
                await sessions.post("c", "hi")
                await trio.sleep(10)
        await trio.sleep(100)
        assert ["closed"] == ended
        nursery.cancel_scope.cancel()


@each_store
async def test_drain_leaves_what_waits(autojump_clock: Any, store: str) -> None:
    """An interrupted agent is at rest: drain does not wait for it, answers come too late, and it waits in the next life."""
    purse, settings = Purse(), STORES[store]()
    async with opened(paying(purse), **settings) as sessions:
        interrupt = await interrupt_of(sessions)
        report = await sessions.drain()
        assert (1, 0) == (report.idle, report.cancelled)
        for late in (sessions.resume("c", [Approve(interrupt.calls[0])]), sessions.dismiss("c")):
            with pytest.raises(SessionsClosed):
                await late
    async with opened(paying(purse, "end"), **settings) as sessions:
        assert isinstance(await decide(sessions, Approve(interrupt.calls[0])), Completed)
        assert [1] == purse.paid


async def test_leave_by_cancellation_when_a_post_is_on_its_way(autojump_clock: Any) -> None:
    """The block is cancelled from outside while a message is on its way to the store: it is stored, and its caller knows."""
    store, receipts = FaultyStore(), []

    async def post(sessions: Sessions) -> None:
        receipts.append(await sessions.post("c", "hi"))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as outer:
            async with open_sessions(make_config(store=store)) as sessions:
                await sessions.start("c")
                store.faults.latency["commit"] = 2.0
                nursery.start_soon(post, sessions)
                await trio.sleep(1)
                outer.cancel()
                await trio.sleep(1)

    assert outer.cancelled_caught
    assert [1, 1] == [len(commit.messages) for commit in store.commits]  # the message, and then the end of its turn
    assert [False] == [receipt.duplicate for receipt in receipts]


def test_open_sessions_when_it_is_cancelled_already() -> None:
    """Entering sessions in a cancelled scope ends; nothing hangs in a shield."""

    async def main(simulation: Simulation) -> bool:
        config = SessionConfig(factory_router=SingleFactoryRouter(Agent(model=ScriptedModel(["hello"]))))
        with trio.CancelScope() as scope:
            scope.cancel()
            async with open_sessions(config):
                raise AssertionError("they were opened")
        return scope.cancelled_caught

    assert simulate(main, 0)[1]
