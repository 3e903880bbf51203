"""Token usage of turns whose sub-agents wait for people: each model call counts once."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.people import MEANWHILE, Effects, Meanwhile, World, gated, interrupt_in, scripted
from tests.support.stores import Backend
from trio_sagents import Agent, Approve, Budget, Completed, Failed, LimitExceeded, SubAgents, Task, Usage
from trio_sagents.data.requests import FinishChunk, UsageChunk
from trio_sagents.testing import Call, ScriptedModel


class Costly(ScriptedModel):
    """A scripted model whose answers cost ten tokens each."""

    def chunks(self, reply: Any) -> Iterator[Any]:
        for chunk in super().chunks(reply):
            if isinstance(chunk, FinishChunk):
                yield UsageChunk(Usage(input_tokens=10))
            yield chunk


@pytest.mark.parametrize("how", MEANWHILE)
async def test_usage_of_a_sub_agent_that_ended_before_an_interrupt(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """What a turn used counts over the whole turn, however often it waits."""
    effects = Effects()
    replies = [Call("task", name="s", instructions="do"), [Call("pay", amount=1), Call("pay", amount=2)], Call("pay", amount=3), "end"]
    agent = Agent(
        model=Costly(replies),
        tools=[effects.tool("pay")],
        middleware=[gated(effects, "pay"), SubAgents([Task(name="s", description="a task", model=Costly(["done"]))])],
    )
    async with World(agent, backend) as world:
        first, second = (await world.ask()).calls
        await world.decide(Approve(first))
        await world.pass_time(how)
        (third,) = interrupt_in(await world.decide(Approve(second))).calls
        await world.pass_time(how)
        outcome = await world.decide(Approve(third))

    assert isinstance(outcome, Completed)
    assert Usage(input_tokens=50) == outcome.usage


@pytest.mark.parametrize("how", MEANWHILE)
async def test_usage_of_a_sub_agent_that_is_never_answered(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """The usage of the sub-agent counts for the session, even if a message came instead of an answer."""
    effects = Effects()
    task = Task(name="s", description="a task", tools=[effects.tool("pay")], model=Costly([Call("pay", amount=1)]))
    agent = Agent(
        model=Costly([Call("task", name="s", instructions="do"), "never said"]),
        middleware=[Budget(max_tokens=20, per="session"), gated(effects, "pay"), SubAgents([task])],
    )
    async with World(agent, backend) as world:
        await world.ask()
        await world.pass_time(how)
        outcome = await world.post("instead")

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, LimitExceeded)
    assert "budget_tokens" == outcome.error.limit


@pytest.mark.parametrize("how", MEANWHILE)
async def test_usage_of_a_sub_agent_that_waits_twice(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """Each of its model calls counts once."""
    effects = Effects()
    replies = [Call("pay", amount=1), Call("pay", amount=2), "done"]
    task = Task(name="s", description="a task", tools=[effects.tool("pay")], model=Costly(replies))
    agent = Agent(model=Costly([Call("task", name="s", instructions="do"), "end"]), middleware=[gated(effects, "pay"), SubAgents([task])])
    async with World(agent, backend) as world:
        outcome: Any = await world.post()
        for _ in range(2):
            await world.pass_time(how)
            outcome = await world.decide(Approve(interrupt_in(outcome).calls[0]))

    assert isinstance(outcome, Completed)
    assert Usage(input_tokens=50) == outcome.usage


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
