"""What is told of decisions: to the store, to viewers, and to whoever reads the record later."""

from typing import Any

from tests.support.people import CONVERSATION, Effects, World, gated, interrupt_in, scripted, text_of
from tests.support.scenarios import of_kind, read_all
from tests.support.stores import Backend
from trio_sagents import Approve, MessageCompleted, Reject, SubAgents, Task
from trio_sagents.testing import Call, ScriptedModel


async def test_store_when_calls_are_decided(autojump_clock: Any) -> None:
    """A store is told what each commit is, and who caused it: some calls are decided, then the last, or a message comes instead."""
    effects = Effects()
    first, second = [Call("pay", amount=1), Call("pay", amount=2)], Call("pay", amount=3)
    agent = scripted(first, "done", second, "next", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    lifecycles, actors = [], set()
    async with World(agent, scope="alice") as world:
        one, two = (await world.ask()).calls
        for decision in (Approve(one), Reject(two)):
            world.store.commits.clear()
            await world.decide(decision)
            lifecycles.append(world.store.commits[0].lifecycle)
            actors |= {commit.actor for commit in world.store.commits}
        await world.ask()
        world.store.commits.clear()
        await world.post("never mind")
        lifecycles.append(world.store.commits[0].lifecycle)

    assert ["on_interrupt", "on_step", "on_message"] == lifecycles
    assert {"alice"} == actors


async def test_viewers_when_a_message_comes_instead(autojump_clock: Any) -> None:
    """Viewers get what closed the turn that waited, as it is in the history, and which turn it was."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        interrupt = await world.ask()
        before = len(await world.messages())
        async with world.sessions.open_subscriber() as subscriber:
            await subscriber.subscribe(CONVERSATION)
            assert "done" == text_of(await world.post("never mind"))
            told = of_kind(await read_all(subscriber), MessageCompleted)
        closing = [message for message in (await world.messages())[before:] if message.turn_id == interrupt.turn_id]

    assert closing == [event.message for event in told if event.turn_id == interrupt.turn_id]
    assert [True] == [bool(message.results) for message in closing if message.role == "tool"]


async def test_records_when_a_sub_agent_waits_again_and_is_superseded(autojump_clock: Any, backend: Backend) -> None:
    """What was decided about its first call stays on record, beside what became of its second."""
    effects = Effects()
    model = ScriptedModel([Call("pay", amount=1), Call("pay", amount=2), "its answer"])
    task = Task(name="t", description="d", model=model, tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    agent = scripted(Call("task", instructions="do it", name="t"), "done", middleware=[SubAgents([task], general_purpose=False)])
    async with World(agent, backend) as world:
        first = await world.ask()
        second = interrupt_in(await world.decide(Approve(first.calls[0])))
        assert "done" == text_of(await world.post("never mind"))
        kinds = {record.call_id: record.kind for record in await world.records()}

    assert {first.calls[0].call_id: "approve", second.calls[0].call_id: "superseded"} == kinds
    assert [1] == effects.of("pay")
