"""Promises about decisions that nobody tested: each of these was found missing by a planted bug that survived."""

from typing import Any

import trio

from tests.support.people import CONVERSATION, Effects, World, call_of, gated, interrupt_in, scripted
from trio_sagents import (
    AgentNotRunning,
    AlreadyDecided,
    Approvals,
    Approve,
    AskUser,
    Completed,
    Decision,
    Failed,
    Middleware,
    MiddlewareContext,
    MiddlewareError,
    PendingCall,
    Reject,
    SubAgents,
    Task,
    Tool,
    ToolCall,
    Usage,
    UsageChunk,
)
from trio_sagents.data.interrupts import pending
from trio_sagents.testing import Call, ScriptedModel


class SlowToSay(Approvals):
    """A gate that takes its time over each decision."""

    async def answer(self, context: MiddlewareContext, call: PendingCall, decision: Decision) -> str | None:
        await trio.sleep(1)
        return None


async def test_people_who_decide_at_once_when_the_gate_is_slow(autojump_clock: Any) -> None:
    """While middleware is asked about a decision, others decide: what is then on record counts, not what was looked at before."""
    effects, refused = Effects(), []
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[SlowToSay({"pay": True}), AskUser()])
    async with World(agent) as world:
        call = (await world.ask()).calls[0]
        world.store.delay = 1.0

        async def tab(decision: Decision) -> None:
            try:
                await world.decide(decision)
            except AlreadyDecided:
                refused.append(decision.kind)

        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tab, Reject(call))
                nursery.start_soon(tab, Approve(call))

        (kept,) = [record.kind for record in await world.records()]
        assert {"approve", "reject"} == {kept, *refused}
        assert ([1] if kept == "approve" else []) == effects.of("pay")


async def test_process_dies_behind_a_rejection(autojump_clock: Any) -> None:
    """A rejected call has its result in the commit of the decision: a crash right behind it cannot make its outcome unknown."""
    effects = Effects()
    calls = [Call("pay", amount=1), Call("move", amount=2)]
    tools = [effects.tool("pay"), effects.tool("move")]
    agent = scripted(calls, "done", "next", tools=tools, middleware=[gated(effects, "pay", "move")])
    images: list[Any] = []
    async with World(agent) as world:
        interrupt = await world.ask()
        world.store.on_commit = lambda _commit: images.append(world.backend.clone())
        await world.decide(Reject(call_of(interrupt, "pay"), "too much"), Approve(call_of(interrupt, "move")))
    async with World(agent, images[0]) as world:
        await (await world.handle()).wait_idle()
        results = await world.results()

        assert "cancelled" == results["pay"][0]
        assert "too much" in results["pay"][1]
        assert "unknown" == results["move"][0]


class Counting(ScriptedModel):
    """Each answer costs something."""

    def chunks(self, reply: Any) -> Any:
        yield UsageChunk(Usage(10, 1))
        yield from super().chunks(reply)


async def test_usage_of_a_sub_agent_that_waits_in_a_sub_agent(autojump_clock: Any) -> None:
    """What it used before it waited is in its record, and counts once, however deep."""
    effects = Effects()
    model = Counting([Call("pay", amount=1), "its answer"])
    inner = Task(name="i", description="d", model=model, tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    handing = SubAgents([inner], general_purpose=False, max_depth=2)
    task = Call("task", instructions="x", name="i")
    middle = Task(name="m", description="d", model=ScriptedModel([task, "handed back"]), middleware=[handing])
    outer = SubAgents([middle], general_purpose=False, max_depth=2)
    async with World(scripted(Call("task", instructions="x", name="m"), "done", middleware=[outer])) as world:
        interrupt = await world.ask()
        outcome = await world.decide(Approve(interrupt.calls[0]))

        assert isinstance(outcome, Completed)
        assert Usage(20, 2) == outcome.usage


class Confused(Middleware):
    """A gate that asks about other arguments than those of the call."""

    async def claim(self, context: MiddlewareContext, call: ToolCall, tool: Tool) -> PendingCall | None:
        return pending(ToolCall(call.call_id, call.name, {"amount": 1}), kind="approval")


async def test_gate_that_asks_about_another_call(autojump_clock: Any) -> None:
    """People are shown what would run: a gate that claims something else ends the turn, and nothing runs."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1000), "done", tools=[effects.tool("pay")], middleware=[Confused()])
    async with World(agent) as world:
        outcome = await world.post()

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, MiddlewareError)
        assert [] == effects.done


async def test_first_decision_again_while_the_turn_runs_behind_the_second(autojump_clock: Any) -> None:
    """It hears how the turn ends, as the second one does."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), Call("pay", amount=2), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        first = await world.ask()
        second = interrupt_in(await world.decide(Approve(first.calls[0])))
        effects.gates["pay"] = trio.Event()
        receipt = await world.resume(Approve(second.calls[0]))
        await trio.sleep(1)
        again = await world.resume(Approve(first.calls[0]))
        effects.gates["pay"].set()

        assert again.duplicate
        assert await receipt.wait() == await again.wait()
        assert [1, 2] == effects.of("pay")


async def test_deadline_while_a_decision_is_on_its_way(autojump_clock: Any) -> None:
    """It waits for the decision, and then has nothing left to reject."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay", timeout=60)])
    async with World(agent) as world:
        call = (await world.ask()).calls[0]
        await trio.sleep(58)
        world.store.delay = 5.0
        await world.decide(Approve(call))
        await trio.sleep(100)

        assert [1] == effects.of("pay")
        assert ["approve"] == [record.kind for record in await world.records()]


async def test_stop_while_a_second_decision_waits_for_the_first(autojump_clock: Any) -> None:
    """The agent leaves: the decision that had not been looked at is refused, and can be given to the next agent."""
    effects, refused = Effects(), []
    calls = [Call("pay", amount=1), Call("pay", amount=2)]
    async with World(scripted(calls, "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])) as world:
        one, two = (await world.ask()).calls
        handle = await world.handle()
        world.store.delay = 2.0

        async def decide(call: PendingCall) -> None:
            try:
                await handle.resume([Approve(call)])
            except AgentNotRunning:
                refused.append(call)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(decide, one)
            await trio.sleep(0.5)
            nursery.start_soon(decide, two)
            await trio.sleep(0.5)
            nursery.start_soon(world.sessions.stop, CONVERSATION)

        assert [two] == refused
        await world.decide(Approve(two))
        assert [1, 2] == sorted(effects.of("pay"))
