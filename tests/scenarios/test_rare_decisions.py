"""Decisions in rare moments: beside a deadline, beside the end of the agent, behind a store that somebody changed."""

import datetime
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support.people import BEGIN, CONVERSATION, Effects, World, call_of, forge, gated, interrupt_in, scripted, text_of
from tests.support.stores import Backend
from trio_sagents import AlreadyDecided, Approvals, Approve, Failed, Middleware, PersistenceError, Reject, ShutdownReason, Unanswered
from trio_sagents.testing import Call, Simulation, simulate


class Later(Approvals):
    """A second policy."""

    @property
    def middleware_id(self) -> str:
        """Another one."""
        return "later"


async def test_expiry_while_the_call_that_is_due_is_decided(autojump_clock: Any, instants: None) -> None:
    """A call is rejected when its own time is over: not with another one, whose decision was being stored when its time ended."""
    effects = Effects()
    tools = [effects.tool("pay"), effects.tool("move")]
    gates = [gated(effects, "pay", timeout=60.0), Later({"move": True}, timeout=600.0)]
    agent = scripted([Call("pay", amount=1), Call("move", amount=2)], "done", tools=tools, middleware=gates)
    async with World(agent) as world:
        interrupt = await world.ask()
        await trio.sleep(55)
        world.store.delay = 10.0
        left = interrupt_in(await world.decide(Approve(call_of(interrupt, "pay"))))
        world.store.delay = 0.0
        await trio.sleep(500)

        assert left == await world.interrupt()
        assert ["move"] == [call.name for call in left.calls]
        await world.decide(Approve(call_of(left, "move")))
        assert ([1], [2]) == (effects.of("pay"), effects.of("move"))


class Takes(Middleware):
    """What it does with a message takes its time."""

    async def on_message(self, context: Any, message: Any) -> None:
        await trio.sleep(message)


async def test_expiry_while_the_agent_leaves(autojump_clock: Any, instants: None) -> None:
    """An agent that was asked to leave, and waits for a hook, decides nothing any more; the next one does, before it goes live."""
    effects = Effects()
    middleware = [gated(effects, "pay", timeout=60.0), Takes()]
    agent = scripted(Call("pay", amount=1), "then not", tools=[effects.tool("pay")], middleware=middleware)
    async with World(agent) as world, trio.open_nursery() as nursery:
        await world.ask()
        nursery.start_soon((await world.handle()).notify_middleware, "Takes", 100)
        await trio.sleep(50)
        await world.sessions.stop(CONVERSATION, grace_period=1000.0)

        assert 100 <= trio.current_time() < 101
        assert world.stored_state()["interrupt"]["calls"]
        assert await world.interrupt() is None
        await (await world.handle()).wait_idle()
        assert ("cancelled", "This call was not run: nobody decided in time.") == (await world.results())["pay"]
        assert [] == effects.done


async def test_expiry_when_the_stored_calls_have_no_time(autojump_clock: Any, instants: None, backend: Backend) -> None:
    """A stored deadline that is over decides nothing about calls that may wait for ever; they wait on."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        assert interrupt.expires_at is None
        stored = {**world.stored_state()["interrupt"], "expires_at": (BEGIN - datetime.timedelta(days=1)).isoformat()}
        await world.restart_with(lambda: forge(world.backend, interrupt=stored))
        left = await world.interrupt()
        await trio.sleep(100)

        assert left is not None
        assert (interrupt.calls, left) == (left.calls, await world.interrupt())
        assert "done" == text_of(await world.decide(Approve(left.calls[0])))
        assert [1] == effects.of("pay")


async def test_decision_on_record_about_a_call_that_is_nowhere(autojump_clock: Any, backend: Backend) -> None:
    """Whoever decides once more what a changed store says was decided, of a call that nobody made, learns that no turn answers it."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent, backend) as world:
        (call,) = (await world.ask()).calls
        await world.decide(Approve(call))
        ghost = attrs.evolve(call, call_id="ghost")
        record = {**attrs.asdict((await world.records())[0]), "call_id": "ghost"}
        await world.restart_with(lambda: forge(world.backend, taken={"ghost": [record]}))
        receipt = await world.resume(Approve(ghost))

        assert receipt.duplicate
        assert Unanswered("cut") == await receipt.wait()
        with pytest.raises(AlreadyDecided):
            await world.resume(Reject(ghost))
        assert [1] == effects.of("pay")


async def test_post_again_while_its_turn_goes_on_behind_an_interrupt(autojump_clock: Any) -> None:
    """Whoever posts a message once more, while the turn that took it goes on behind a decision, gets the outcome of that turn."""
    effects = Effects()
    effects.gates["pay"] = trio.Event()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        interrupt = await world.ask(message_id="m1")
        decided = await world.resume(Approve(interrupt.calls[0]))
        again = await world.sessions.post(CONVERSATION, "go", message_id="m1")
        effects.gates["pay"].set()

        assert again.duplicate
        assert "done" == text_of(await again.wait())
        assert await decided.wait() == await again.wait()


def test_decision_that_lands_when_nobody_waits_any_more() -> None:
    """A store that answers at the moment when its agent is given up: whoever decided hears that, or that nobody knows; never nothing."""

    async def main(simulation: Simulation) -> str:
        effects = Effects()
        agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
        async with World(agent, policy={"settle_timeout": 5.0}) as world:
            (call,) = (await world.ask()).calls
            heard: list[str] = []

            async def decide() -> None:
                try:
                    outcome = await world.decide(Approve(call))
                    heard.append(type(outcome).__name__)
                    assert isinstance(outcome, Failed) or Unanswered(ShutdownReason.STOPPED) == outcome
                except PersistenceError:
                    heard.append("nothing is known")

            async with trio.open_nursery() as nursery:
                await world.handle()
                world.store.delay = 5.0
                nursery.start_soon(decide)
                await trio.testing.wait_all_tasks_blocked()
                await world.sessions.stop(CONVERSATION)
            world.store.delay = 0.0
            again = await world.resume(Approve(call))
            await again.wait()

            assert len(effects.of("pay")) <= 1
            (how,) = heard
            return how

    # On record, and the turn is not settled; on record, and let go of; or neither.
    assert {"Failed", "Unanswered", "nothing is known"} == {simulate(main, seed, jumps=False)[1] for seed in range(16)}
