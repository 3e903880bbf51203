"""When an idle agent leaves, and what keeps it."""

from typing import Any

import pytest
import trio
import trio.testing

from tests.support.scenarios import (
    NEVER,
    DictStates,
    FaultyStore,
    Router,
    answer_to,
    ask,
    make_agent,
    of_kind,
    opened,
    read_until,
    slow_agent,
    tasks_living,
    transcript,
)
from trio_sagents import (
    Agent,
    AgentNotRunning,
    AgentShutdown,
    AskUser,
    Completed,
    Interrupted,
    MemoryStore,
    Middleware,
    SessionConfig,
    ShutdownReason,
    SingleFactoryRouter,
    Status,
    conversation_topic,
    open_sessions,
)
from trio_sagents.testing import Call, FaultAt, ScriptedModel, Simulation, simulate
from trio_sagents.testing import FaultyStore as FaultyStoreOnPlan


async def ended_at(agent: Any) -> tuple[ShutdownReason, float]:
    """Wait for the end of an agent, and return why and when."""
    return await agent.wait_ended(), trio.current_time()


async def test_inactivity_ends_an_idle_agent(autojump_clock: Any) -> None:
    """An agent that nothing happened to for inactivity_timeout leaves, at most 1 s late, and takes nothing with it."""
    async with opened(inactivity_timeout=60.0) as sessions:
        before = tasks_living()
        info = await sessions.start("c")
        reason, at = await ended_at(info.agent)

        assert ShutdownReason.INACTIVITY is reason
        assert 60 <= at <= 61
        assert before == tasks_living()
        assert not await sessions.running("c")


async def test_inactivity_of_infinity_disables(autojump_clock: Any) -> None:
    """math.inf disables the clock."""
    async with opened(inactivity_timeout=NEVER) as sessions:
        await sessions.start("c")
        await trio.sleep(1e5)

        assert await sessions.running("c")


async def test_inactivity_then_post_brings_the_agent_back(autojump_clock: Any) -> None:
    """An idle agent leaves, and comes back with its state."""
    async with opened(inactivity_timeout=60.0) as sessions:
        await answer_to(sessions, "one")
        await trio.sleep(100)
        assert not await sessions.running("c")
        await answer_to(sessions, "two")

        assert ["one", "re: one", "two", "re: two"] == [text for _, text, _ in await transcript(sessions)]


@pytest.mark.parametrize("command", ["touch", "post", "cancel_turn"])
async def test_commands_renew(autojump_clock: Any, command: str) -> None:
    """touch() and commands renew the clock."""
    async with opened(inactivity_timeout=60.0) as sessions:
        agent = (await sessions.start("c")).agent
        await trio.sleep(50)
        await {"touch": agent.touch, "post": lambda: agent.post("hi"), "cancel_turn": agent.cancel_turn}[command]()
        reason, at = await ended_at(agent)

        assert ShutdownReason.INACTIVITY is reason
        assert 110 <= at <= 111.5


async def test_touch_again_and_again(autojump_clock: Any) -> None:
    """An agent that is touched stays, however long."""
    async with opened(inactivity_timeout=10.0) as sessions:
        agent = (await sessions.start("c")).agent
        for _ in range(50):
            await trio.sleep(9.5)
            await agent.touch()
        assert await sessions.running("c")
        _, at = await ended_at(agent)

        assert 485 <= at <= 486


@pytest.mark.parametrize("look", ["state", "info", "agent_info", "history", "running", "get", "wait_idle", "list_running", "start"])
async def test_reading_does_not_renew(autojump_clock: Any, look: str) -> None:
    """Reading does not renew the clock."""
    async with opened(inactivity_timeout=60.0) as sessions:
        agent = (await sessions.start("c")).agent
        await agent.post("hi")
        await agent.wait_idle()
        looks = {
            "state": agent.state,
            "info": agent.info,
            "wait_idle": agent.wait_idle,
            "agent_info": lambda: sessions.agent_info("c"),
            "history": lambda: sessions.history("c"),
            "running": lambda: sessions.running("c"),
            "get": lambda: sessions.get("c"),
            "list_running": sessions.list_running,
            "start": lambda: sessions.start("c"),
        }
        await trio.sleep(50)
        await looks[look]()
        _, at = await ended_at(agent)

        assert 60 <= at <= 61.5


async def test_watching_is_not_activity(autojump_clock: Any) -> None:
    """A viewer who watches and reads does not keep an agent from its inactivity."""
    async with opened(inactivity_timeout=60.0) as sessions, sessions.watch("c", viewer="alice") as watch:
        seen = await read_until(watch, AgentShutdown)

        assert ShutdownReason.INACTIVITY is seen[-1].event.reason
        assert 60 <= trio.current_time() <= 61


async def test_inactivity_after_a_long_turn(autojump_clock: Any) -> None:
    """The clock cannot fire during a turn, and starts at its end."""
    async with opened(slow_agent(seconds=1000), inactivity_timeout=60.0) as sessions:
        receipt = await sessions.post("c", "count")
        agent = await sessions.get("c")
        assert isinstance(await receipt.wait(), Completed)
        began = trio.current_time()
        _, at = await ended_at(agent)

        assert 1000 <= began
        assert 60 <= at - began <= 61


async def test_inactivity_while_a_tool_runs(autojump_clock: Any) -> None:
    """A long tool is not inactivity."""

    async def work() -> str:
        """Work."""
        await trio.sleep(500)
        return "ok"

    async with opened(make_agent(Call("work"), "done", tools=[work]), inactivity_timeout=60.0) as sessions:
        assert "done" == await answer_to(sessions)


@pytest.mark.parametrize("latency", [0.0, 0.5, 5.0])
async def test_post_at_the_deadline_is_answered(autojump_clock: Any, latency: float) -> None:
    """A message posted around the idle deadline is accepted once, and answered, whatever the store's latency."""
    store = FaultyStore()
    store.faults.latency["commit"] = latency
    async with opened(store=store, inactivity_timeout=10.0) as sessions:
        for early in (0.2, 0.1, 0.0625, 0.01, 0.001, 0.0, -0.001, -0.01, -0.0625):
            conversation_id = f"c{early}"
            await sessions.start(conversation_id)
            await trio.sleep(10.0 - early)
            assert "re: hi" == await answer_to(sessions, "hi", conversation_id)
            assert 1 == [text for _, text, _ in await transcript(sessions, conversation_id)].count("hi")


async def test_a_slow_commit_is_no_idleness(autojump_clock: Any) -> None:
    """A reservation stops the idle clock: an agent does not leave while a message is being accepted."""
    store = FaultyStore()
    async with opened(store=store, inactivity_timeout=10.0) as sessions:
        agent = (await sessions.start("c")).agent
        store.faults.slow("commit", 100)
        receipt = await agent.post("hi")

        assert isinstance(await receipt.wait(), Completed)
        assert agent == await sessions.get("c")


async def test_viewer_grace(autojump_clock: Any) -> None:
    """An idle agent that had viewers and lost the last one leaves after viewer_grace."""
    async with opened(policy={"viewer_grace": 3.0}) as sessions:
        async with sessions.watch("c", viewer="alice") as watch:
            await trio.sleep(100)
        reason, at = await ended_at(watch.info.agent)

        assert ShutdownReason.NO_VIEWERS is reason
        assert 103 <= at <= 104


async def test_viewer_grace_when_a_viewer_comes_back(autojump_clock: Any) -> None:
    """The grace is decided again when it ends: a viewer who is back in time keeps the agent."""
    async with opened(policy={"viewer_grace": 3.0}) as sessions:
        async with sessions.watch("c", viewer="alice"):
            await trio.sleep(1)
        await trio.sleep(2.5)
        async with sessions.watch("c", viewer="alice") as watch:
            await trio.sleep(1000)
            assert await sessions.running("c")
            assert not watch.info.started


async def test_viewer_grace_with_two_viewers(autojump_clock: Any) -> None:
    """If one of two viewers leaves, no grace begins."""
    async with opened(policy={"viewer_grace": 3.0}) as sessions, sessions.watch("c", viewer="alice") as watch:
        async with sessions.watch("c", viewer="bob"):
            assert 2 == (await watch.info.agent.info()).viewers
        await trio.sleep(100)

        assert await sessions.running("c")
        assert 1 == (await watch.info.agent.info()).viewers


async def test_viewer_grace_without_any_viewer(autojump_clock: Any) -> None:
    """The grace applies to an agent that had a viewer since its boot. An agent that nobody watched stays, also after an unseen watch."""
    async with opened(policy={"viewer_grace": 3.0}) as sessions:
        async with sessions.watch("c"):
            pass
        await trio.sleep(100)

        assert await sessions.running("c")


async def test_viewer_grace_counts_from_this_boot(autojump_clock: Any) -> None:
    """A viewer before the boot says nothing about this agent."""
    async with opened(policy={"viewer_grace": 3.0}) as sessions:
        async with sessions.watch("c", viewer="alice"):
            await trio.sleep(1)
        await trio.sleep(10)
        await sessions.start("c")
        await trio.sleep(100)

        assert await sessions.running("c")


async def test_viewers_are_presence_entries(autojump_clock: Any) -> None:
    """Tracking on conversation_topic(id) makes a viewer, without any subscription."""
    async with opened(policy={"viewer_grace": 3.0}) as sessions:
        agent = (await sessions.start("c")).agent
        async with sessions.presence.track(conversation_topic("c"), "alice"):
            assert 1 == (await agent.info()).viewers
            await trio.sleep(100)
        reason, at = await ended_at(agent)

        assert (ShutdownReason.NO_VIEWERS, True) == (reason, 103 <= at <= 104)


async def test_viewer_who_was_there_before_the_boot(autojump_clock: Any) -> None:
    """A viewer who came before the boot counts when he leaves."""
    async with opened(policy={"viewer_grace": 3.0}) as sessions:
        async with sessions.presence.track(conversation_topic("c"), "alice"):
            agent = (await sessions.start("c")).agent
            await trio.sleep(5)
        reason, _ = await ended_at(agent)

        assert ShutdownReason.NO_VIEWERS is reason


async def test_viewer_grace_of_a_working_agent(autojump_clock: Any) -> None:
    """A running agent is not idle: the grace begins when its turn has ended."""
    async with opened(slow_agent(seconds=100), policy={"viewer_grace": 3.0}) as sessions:
        async with sessions.watch("c", viewer="alice") as watch:
            receipt = await sessions.post("c", "count")
        assert isinstance(await receipt.wait(), Completed)
        reason, at = await ended_at(watch.info.agent)

        assert ShutdownReason.NO_VIEWERS is reason
        assert 100 <= at <= 108


async def test_viewer_grace_renewed_by_activity(autojump_clock: Any) -> None:
    """The grace is decided again when it ends: activity during the grace gives the agent another one."""
    async with opened(policy={"viewer_grace": 3.0}) as sessions:
        async with sessions.watch("c", viewer="alice") as watch:
            await trio.sleep(1)
        await trio.sleep(2)
        await watch.info.agent.touch()
        reason, at = await ended_at(watch.info.agent)

        assert ShutdownReason.NO_VIEWERS is reason
        assert 6 <= at <= 7


async def test_viewer_grace_of_infinity(autojump_clock: Any) -> None:
    """An infinite grace ignores viewers."""
    async with opened(policy={"viewer_grace": NEVER}) as sessions:
        async with sessions.watch("c", viewer="alice"):
            pass
        await trio.sleep(1000)

        assert await sessions.running("c")


async def interrupted_states() -> DictStates:
    """Return a store with a conversation that waits for a person."""
    states = DictStates()
    agent = make_agent(Call("ask_user", question="What now?"), middleware=[AskUser()])
    async with opened(Router(agent), agent_persistence=states) as sessions:
        assert isinstance(await ask(sessions), Interrupted)
    return states


async def test_interrupted_agent_waits_for_the_inactivity_clock(autojump_clock: Any) -> None:
    """An interrupted agent does not leave for want of viewers: it waits for the inactivity clock; its interrupt is restorable."""
    states = await interrupted_states()
    async with opened(agent_persistence=states, inactivity_timeout=60.0, policy={"viewer_grace": 3.0}) as sessions:
        async with sessions.open_subscriber() as subscriber, sessions.watch("c", viewer="alice") as watch:
            await subscriber.subscribe("c")
            assert Status.INTERRUPTED is (await watch.info.agent.info()).status
            await trio.sleep(1)
            seen = []
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    seen.extend(await read_until(subscriber, AgentShutdown))

                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                reason, at = await ended_at(watch.info.agent)
        (shutdown,) = of_kind(seen, AgentShutdown)

        assert ShutdownReason.INACTIVITY is reason
        assert 60 <= at <= 61.5
        assert (Status.INTERRUPTED, True) == (shutdown.status, shutdown.interrupt_restorable)


async def test_interrupted_agent_without_viewers(autojump_clock: Any) -> None:
    """The grace applies to an agent that is not running or interrupted."""
    states = await interrupted_states()
    async with opened(agent_persistence=states, inactivity_timeout=60.0, policy={"viewer_grace": 3.0}) as sessions:
        async with sessions.watch("c", viewer="alice") as watch:
            await trio.sleep(1)
        reason, at = await ended_at(watch.info.agent)

        assert (ShutdownReason.INACTIVITY, True) == (reason, 60 <= at <= 61.5)


async def test_post_to_an_interrupted_agent_supersedes_the_interrupt(autojump_clock: Any) -> None:
    """A post to an interrupted agent supersedes the interrupt, visibly, and is answered."""
    states = await interrupted_states()
    async with opened(agent_persistence=states) as sessions:
        info = await sessions.start("c")
        assert Status.INTERRUPTED is (await info.agent.info()).status
        assert "re: instead" == await answer_to(sessions, "instead")

        assert (await info.agent.info()).interrupt is None
        assert Status.IDLE is (await info.agent.info()).status
    assert states.rows["c"].data["interrupt"] is None


async def test_shutdown_exactly_once_per_incarnation(autojump_clock: Any) -> None:
    """AgentShutdown comes exactly once per incarnation, with its reason and its last activity."""
    async with opened(inactivity_timeout=10.0) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        reasons = []
        for _ in range(3):
            await sessions.start("c")
            (shutdown,) = of_kind(await read_until(subscriber, AgentShutdown), AgentShutdown)
            reasons.append(shutdown.reason)
            assert 9 <= (shutdown.shutdown_at - shutdown.last_activity_at).total_seconds() <= 12
        with trio.move_on_after(100):
            raise AssertionError(await subscriber.__anext__())

        assert [ShutdownReason.INACTIVITY] * 3 == reasons


async def test_handle_post_after_the_agent_left(autojump_clock: Any) -> None:
    """A handle does not wake its agent; Sessions does."""
    async with opened(inactivity_timeout=10.0) as sessions:
        agent = (await sessions.start("c")).agent
        await trio.sleep(20)
        with pytest.raises(AgentNotRunning):
            await agent.post("hi")

        assert isinstance(await ask(sessions), Completed)


async def test_many_agents_leave_together(autojump_clock: Any) -> None:
    """A thousand agents that are due at once are all gone within the second."""
    async with opened(inactivity_timeout=10.0) as sessions:
        for index in range(300):
            await sessions.start(str(index))
        await trio.sleep(11)

        assert 0 == await sessions.agent_count()
        assert 0 == sessions.statistics().timers


async def test_start_while_an_idle_agent_takes_its_time_to_leave(autojump_clock: Any) -> None:
    """An agent that leaves counts as stopping until its tasks have ended. A caller who starts meanwhile gets the next agent."""

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


class Noting(Middleware):
    """Keeps a note, outside of turns."""

    async def on_message(self, context: Any, message: Any) -> None:
        """Keep it."""
        await context.update(metadata={"note": message})


def test_idle_agent_when_a_write_of_its_middleware_is_slow() -> None:
    """An agent that is due to leave while such a write is pending waits for the write, without spinning."""

    async def main(simulation: Simulation) -> float:
        store = FaultyStoreOnPlan(simulation.faults, MemoryStore())
        agent = Agent(model=ScriptedModel(["hello"]), middleware=[Noting()])
        config = SessionConfig(factory_router=SingleFactoryRouter(agent), store=store, inactivity_timeout=20)
        async with open_sessions(config) as sessions:
            handle = (await sessions.start("c")).agent
            await handle.notify_middleware("Noting", "n")
            await handle.wait_ended()
        return trio.current_time()

    simulation, ended = simulate(main, 0, jumps=False, faults=[FaultAt(2, "slow")], max_steps=5_000)
    assert ["store.commit (2:slow)"] == simulation.faults.struck
    assert ended is not None
    assert 30 <= ended < 60
