"""Halts: a tool stops the conversation until a person has acknowledged it."""

from typing import Any

import pytest
import trio

from tests.support.people import CONVERSATION, MEANWHILE, Effects, Meanwhile, World, gated, interrupt_in, scripted, text_of
from tests.support.stores import Backend
from trio_sagents import (
    Approvals,
    Approve,
    CancelCause,
    Cancelled,
    ConversationNotFound,
    Edit,
    Halt,
    InvalidDecision,
    NotInterrupted,
    Snapshot,
    Status,
    SubAgents,
    Task,
)
from trio_sagents.testing import Call, ScriptedModel


async def stop(amount: int) -> Halt:
    """Stop all."""
    return Halt(f"reactor {amount} is hot")


def halting(*more: Any, **settings: Any) -> Any:
    """Return an agent that halts in its first turn."""
    return scripted([Call("stop", amount=7), *more], "next", "after", tools=[stop, *settings.pop("tools", ())], **settings)


@pytest.mark.parametrize("how", MEANWHILE)
async def test_halt_until_it_is_acknowledged(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """The turn waits with what the tool said; `dismiss` ends it, from sleep too, and the conversation goes on."""
    async with World(halting(), backend, scope="alice") as world:
        interrupt = await world.ask()
        assert ("halt", "reactor 7 is hot", ()) == (interrupt.kind, interrupt.calls[0].text, tuple(interrupt.calls[0].allowed))
        await world.pass_time(how)
        await world.dismiss()

        assert await world.interrupt() is None
        assert Status.IDLE is (await world.sessions.agent_info(CONVERSATION, scope="alice")).status
        status, text = (await world.results())["stop"]
        assert "cancelled" == status
        assert text.startswith("reactor 7 is hot")
        assert "acknowledged" in text
        (record,) = await world.records()
        assert ("dismissed", "alice") == (record.kind, record.by)
        assert "next" == text_of(await world.post("and now"))


@pytest.mark.parametrize("how", ["stopped", "crashed"])
async def test_dismiss_wakes_and_subscribers_see_the_state_after_it(autojump_clock: Any, how: Meanwhile) -> None:
    """Whoever watched a sleeping conversation sees it idle, never the halt."""
    async with World(halting()) as world:
        await world.ask()
        await world.pass_time(how)
        async with world.sessions.open_subscriber() as subscriber:
            await subscriber.subscribe(CONVERSATION)
            await world.dismiss()
            first = (await subscriber.__anext__()).event

        assert isinstance(first, Snapshot)
        assert (Status.IDLE, None) == (first.status, first.interrupt)


async def test_halt_takes_no_decision(autojump_clock: Any) -> None:
    """What is halted is not approved, and nothing beside it in the batch can be run past it."""
    effects = Effects()
    agent = halting(Call("pay", amount=1), tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        interrupt = await world.ask()
        assert "halt" == interrupt.kind
        for call in interrupt.calls:
            with pytest.raises(InvalidDecision, match="dismiss"):
                await world.resume(Approve(call))
        await world.dismiss()

        assert [] == effects.done
        assert {"stop", "pay"} == set(await world.results())
        assert "not run" in (await world.results())["pay"][1]


async def test_dismiss_when_nothing_is_halted(autojump_clock: Any) -> None:
    """`dismiss` is no way around an approval; there must be a halt, and a conversation."""
    effects = Effects()
    agent = scripted("hi", Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with World(agent) as world:
        with pytest.raises(ConversationNotFound):
            await world.dismiss()
        await world.post()
        with pytest.raises(NotInterrupted):
            await world.dismiss()
        interrupt = interrupt_in(await world.post("pay"))
        with pytest.raises(NotInterrupted, match="resume"):
            await world.dismiss()
        assert interrupt == await world.interrupt()
        await world.restart()
        with pytest.raises(NotInterrupted, match="resume"):
            await world.dismiss()
        assert [] == effects.done


async def test_dismiss_by_many_at_once(autojump_clock: Any) -> None:
    """Of several people who acknowledge at once one does, and the others learn that nothing is halted any more."""
    async with World(halting()) as world:
        await world.ask()
        told: list[str] = []

        async def tab() -> None:
            try:
                await world.dismiss()
                told.append("done")
            except NotInterrupted:
                told.append("nothing")

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(tab)

        assert ["done", *["nothing"] * 4] == sorted(told)
        assert 1 == len(await world.records())


async def test_dismiss_lets_the_queue_go_on(autojump_clock: Any) -> None:
    """What was posted before the halt was there is answered once it is acknowledged."""
    gate = trio.Event()

    async def slow(amount: int) -> Halt:
        """Halt later."""
        await gate.wait()
        return Halt("stop")

    async with World(scripted(Call("slow", amount=1), "answer", tools=[slow])) as world:
        first = await world.sessions.post(CONVERSATION, "one")
        await trio.sleep(1)
        second = await world.sessions.post(CONVERSATION, "two")
        gate.set()
        assert "halt" == interrupt_in(await first.wait()).kind
        await trio.sleep(5)
        await world.dismiss()

        assert "answer" == text_of(await second.wait())


async def test_halt_when_a_message_comes_instead(autojump_clock: Any) -> None:
    """A new message closes the halt, visibly; the model reads that the tool had run, and what it said."""
    async with World(halting()) as world:
        await world.ask()
        assert "next" == text_of(await world.post("go on"))
        status, text = (await world.results())["stop"]

        assert "cancelled" == status
        assert text.startswith("reactor 7 is hot")
        assert "not run" not in text
        assert ["superseded"] == [record.kind for record in await world.records()]


@pytest.mark.parametrize("end", ["dismiss", "message"])
async def test_approved_tool_that_halts(autojump_clock: Any, backend: Backend, end: str) -> None:
    """The approval stands when the tool that it allowed halts: sent again it is the same, and no other; the tool runs once."""
    ran: list[int] = []

    async def pay(amount: int) -> Halt:
        """Pay."""
        ran.append(amount)
        return Halt("limit reached")

    agent = scripted(Call("pay", amount=1), "next", tools=[pay], middleware=[Approvals({"pay": True})])
    async with World(agent, backend) as world:
        first = await world.ask()
        second = interrupt_in(await world.decide(Approve(first.calls[0])))
        assert "halt" == second.kind
        again = await world.resume(Approve(first.calls[0]))
        assert again.duplicate
        assert second == interrupt_in(await again.wait())
        await world.crash()
        await (world.dismiss() if end == "dismiss" else world.post("go on"))
        again = await world.resume(Approve(first.calls[0]))

        assert again.duplicate
        assert Cancelled(CancelCause.DISMISSED if end == "dismiss" else CancelCause.SUPERSEDED) == await again.wait()
        assert [1] == ran
        assert ["approve", "dismissed" if end == "dismiss" else "superseded"] == [record.kind for record in await world.records()]


@pytest.mark.parametrize("how", MEANWHILE)
async def test_halt_in_a_sub_agent(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """The halt of a sub-agent halts its parent, with the path; acknowledged, the model reads what it said."""
    sub = ScriptedModel([Call("stop", amount=3), "never"])
    task = Task(name="t", description="d", model=sub, tools=[stop])
    agent = scripted(Call("task", instructions="x", name="t"), "next", middleware=[SubAgents([task], general_purpose=False)])
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        assert ("halt", ("t",), "reactor 3 is hot") == (interrupt.kind, tuple(interrupt.calls[0].path), interrupt.calls[0].text)
        await world.pass_time(how)
        await world.dismiss()

        status, text = (await world.results())["task"]
        assert "cancelled" == status
        assert "reactor 3 is hot" in text
        assert "not run" not in text
        assert "next" == text_of(await world.post("go on"))
        assert 1 == len(sub.requests)


@pytest.mark.parametrize("how", MEANWHILE)
async def test_edited_tool_that_halts(autojump_clock: Any, backend: Backend, how: Meanwhile) -> None:
    """A call that ran with edited arguments and halted is found again in any life, and can be acknowledged."""
    agent = scripted(Call("stop", amount=1), "next", tools=[stop], middleware=[Approvals({"stop": True})])
    async with World(agent, backend) as world:
        first = await world.ask()
        second = interrupt_in(await world.decide(Edit(first.calls[0], {"amount": 2})))
        assert ("halt", "reactor 2 is hot") == (second.kind, second.calls[0].text)
        await world.pass_time(how)
        assert second == await world.interrupt()
        await world.dismiss()

        assert (await world.resume(Edit(first.calls[0], {"amount": 2}))).duplicate
        assert "next" == text_of(await world.post("go on"))
