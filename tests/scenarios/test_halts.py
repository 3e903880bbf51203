"""Halts: a tool stops the conversation until a person has acknowledged it."""

import threading
from typing import Any

import pytest
import trio

from tests.support.people import CONVERSATION, MEANWHILE, Effects, Meanwhile, World, gated, interrupt_in, scripted, text_of
from tests.support.scenarios import of_kind, read_all
from tests.support.stores import Backend
from trio_sagents import (
    Approvals,
    Approve,
    CancelCause,
    Cancelled,
    ConversationNotFound,
    Edit,
    Halt,
    Interrupt,
    InvalidDecision,
    Middleware,
    NotInterrupted,
    Snapshot,
    StateRestored,
    Status,
    StatusChanged,
    SubAgents,
    Task,
    TurnLimits,
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
            if isinstance(first, StateRestored):
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


@pytest.mark.parametrize("how", MEANWHILE)
async def test_dismiss_when_the_halt_is_named(autojump_clock: Any, how: Meanwhile) -> None:
    """A late or repeated `dismiss` cannot hit the next halt: it names its own, and the second time it does nothing."""
    async with World(scripted([Call("stop", amount=7)], "next", [Call("stop", amount=8)], "after", tools=[stop])) as world:
        first = await world.ask()
        with pytest.raises(NotInterrupted, match="not waiting in"):
            await world.dismiss(interrupt_id="another")
        assert first == await world.interrupt()
        await world.dismiss(interrupt_id=first.interrupt_id)
        await world.pass_time(how)
        await world.dismiss(interrupt_id=first.interrupt_id)
        await world.post("go on")
        second = interrupt_in(await world.post("and again"))
        await world.pass_time(how)
        await world.dismiss(interrupt_id=first.interrupt_id)

        assert second == await world.interrupt()
        await (await world.handle()).dismiss(interrupt_id=second.interrupt_id)
        assert await world.interrupt() is None


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


# ── what a halt stops


class Site:
    """Tools of which one halts, and what became of the others."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.began, self.thread = threading.Event(), threading.Event()

    async def alarm(self) -> Halt:
        """Halt after a second."""
        await trio.sleep(1)
        self.log.append("halts")
        return Halt("fire")

    async def work(self, amount: int) -> str:
        """Work for a long time."""
        self.log.append(f"{amount} begins")
        try:
            await trio.sleep(1000)
        finally:
            self.log.append(f"{amount} ends")
        return "worked"

    def heavy(self, amount: int) -> str:
        """Work in a thread."""
        self.began.set()
        self.thread.wait(20)
        return f"{amount} done"

    async def quick(self, amount: int) -> str:
        """Work at once."""
        self.log.append(f"{amount} quick")
        await trio.lowlevel.checkpoint()
        return "done"

    @property
    def tools(self) -> list[Any]:
        return [self.alarm, self.work, self.heavy, self.quick]


async def results_by_id(world: World) -> list[tuple[str, str, str]]:
    """Return (tool, status, text) of the results, in the order in which they were stored."""
    return [(result.name, result.status, result.content) for message in await world.messages() for result in message.results]


async def test_halt_while_siblings_run(autojump_clock: Any) -> None:
    """People are told at once: a sibling in a task is cancelled, and on record as in a turn that is cut."""
    site = Site()
    agent = scripted([Call("alarm"), Call("work", amount=1), Call("quick", amount=2)], "next", tools=site.tools)
    async with World(agent) as world:
        began = trio.current_time()
        interrupt = await world.ask()

        assert "halt" == interrupt.kind
        assert 1.0 == trio.current_time() - began
        assert "1 ends" == site.log[-1]
        assert [("quick", "completed"), ("work", "cancelled")] == [(name, status) for name, status, _ in await results_by_id(world)]
        assert "while it ran" in (await world.results())["work"][1]
        await world.dismiss()
        assert "next" == text_of(await world.post("go on"))


async def test_halt_while_a_thread_runs() -> None:
    """A thread cannot be stopped: its result is discarded, its outcome is on record as unknown, and nobody waits for it."""

    async def see() -> Halt:
        """Halt when the thread works."""
        await trio.to_thread.run_sync(site.began.wait)
        return Halt("fire")

    site = Site()
    agent = scripted([Call("heavy", amount=1), Call("see")], "next", tools=[*site.tools, see])
    try:
        async with World(agent) as world:
            with trio.fail_after(10):
                interrupt = await world.ask()

            assert ("halt", "unknown") == (interrupt.kind, (await world.results())["heavy"][0])
    finally:
        site.thread.set()


@pytest.mark.parametrize("approved", [False, True])
async def test_halt_before_other_calls_begin(autojump_clock: Any, backend: Backend, approved: bool) -> None:
    """No call of the answer begins after the halt, approved or not; each is on record as not run."""
    site = Site()
    calls = [Call("alarm"), Call("quick", amount=1), Call("quick", amount=2)]
    gates = [Approvals({"alarm": True, "quick": True})] if approved else []
    agent = scripted(calls, "next", tools=site.tools, middleware=gates, limits=TurnLimits(max_parallel=1))
    async with World(agent, backend) as world:
        interrupt = await world.ask()
        if approved:
            interrupt = interrupt_in(await world.decide(*map(Approve, interrupt.calls)))
        assert "halt" == interrupt.kind
        after = site.log[site.log.index("halts") + 1 :]
        assert [] == after
        not_run = [text for name, status, text in await results_by_id(world) if "halted the conversation before" in text]
        assert 2 - len([line for line in site.log if "quick" in line]) == len(not_run)
        await world.dismiss()
        assert "next" == text_of(await world.post("go on"))


@pytest.mark.parametrize("halts_inside", [True, False], ids=["in the sub-agent", "in the parent"])
async def test_halt_beside_a_sub_agent(autojump_clock: Any, backend: Backend, halts_inside: bool) -> None:
    """A halt stops the calls of the parent and of all sub-agents, wherever it comes from."""
    site = Site()
    inner = [Call("alarm") if halts_inside else Call("work", amount=1), Call("work", amount=2)]
    task = Task(name="t", description="d", model=ScriptedModel([inner, "never"]), tools=site.tools)
    outer = [Call("task", instructions="x", name="t"), Call("work", amount=3) if halts_inside else Call("alarm")]
    agent = scripted(outer, "next", tools=site.tools, middleware=[SubAgents([task], general_purpose=False)])
    async with World(agent, backend) as world:
        interrupt = await world.ask()

        assert ("halt", ("t",) if halts_inside else ()) == (interrupt.kind, tuple(interrupt.calls[0].path))
        begun, ended = ([line.split()[0] for line in site.log if word in line] for word in ("begins", "ends"))
        assert sorted(begun) == sorted(ended)
        cut = "work" if halts_inside else "task"
        assert "cancelled" == (await world.results())[cut][0]
        await world.dismiss()
        assert "next" == text_of(await world.post("go on"))
        assert site.log.count("halts") == 1


async def test_halt_of_two_at_once(autojump_clock: Any) -> None:
    """Two calls that halt in the same instant both say why; neither takes the word from the other."""
    agent = scripted([Call("stop", amount=1), Call("stop", amount=2)], "next", tools=[stop])
    async with World(agent) as world:
        interrupt = await world.ask()

        assert {"halt"} == {call.kind for call in interrupt.calls}
        assert len(interrupt.calls) + len(await results_by_id(world)) == 2


async def test_halt_while_a_middleware_holds_a_call_back(autojump_clock: Any) -> None:
    """A call that a middleware delays has not begun, and does not begin after the halt."""

    class Slow(Middleware):
        async def around_tool(self, context: Any, call: Any, call_next: Any) -> Any:
            if call.name == "quick":
                await trio.sleep(50)
            return await call_next(call)

    site = Site()
    agent = scripted([Call("alarm"), Call("quick", amount=1)], "next", tools=site.tools, middleware=[Slow()])
    async with World(agent) as world:
        began = trio.current_time()
        await world.ask()

        assert 1.0 == trio.current_time() - began
        assert ["halts"] == site.log
        assert "halted the conversation before" in (await world.results())["quick"][1]


# ── what waits is seen while other calls run


async def seen_early(world: World, subscriber: Any, wait: float) -> list[Any]:
    """Return the calls that viewers are shown as waiting after some seconds, while the turn still runs."""
    await trio.sleep(wait)
    told = of_kind(await read_all(subscriber), StatusChanged)
    return [event.data for event in told if isinstance(event.data, Interrupt)]


@pytest.mark.parametrize("inside", [False, True], ids=["agent", "sub-agent"])
async def test_approval_behind_a_slow_sibling(autojump_clock: Any, inside: bool) -> None:
    """Viewers see what waits while a sibling still runs, as not yet decidable; then the interrupt that takes decisions."""
    site, effects = Site(), Effects()
    calls = [Call("pay", amount=1), Call("work", amount=1)]
    gates = [gated(effects, "pay")]
    if inside:
        task = Task(name="t", description="d", model=ScriptedModel([calls, "did it"]), tools=[effects.tool("pay"), site.work])
        agent = scripted(Call("task", instructions="x", name="t"), "done", middleware=[*gates, SubAgents([task], general_purpose=False)])
    else:
        agent = scripted(calls, "done", tools=[effects.tool("pay"), site.work], middleware=gates)
    async with World(agent) as world, world.sessions.open_subscriber() as subscriber:
        await world.handle()
        await subscriber.subscribe(CONVERSATION)
        receipt = await world.sessions.post(CONVERSATION, "go")
        (early,) = await seen_early(world, subscriber, 10)

        assert ("", False, ["pay"], [{"amount": 1}]) == (
            early.interrupt_id,
            early.restorable,
            [call.name for call in early.calls],
            [call.arguments for call in early.calls],
        )
        async with world.sessions.open_subscriber() as late:
            await late.subscribe(CONVERSATION)
            (shown,) = of_kind(await read_all(late), Snapshot)
        assert (Status.RUNNING, early) == (shown.status, shown.interrupt)
        with pytest.raises(NotInterrupted):
            await world.resume(Approve(early.calls[0]))
        interrupt = interrupt_in(await receipt.wait())
        async with world.sessions.open_subscriber() as late:
            await late.subscribe(CONVERSATION)
            assert [interrupt] == [snapshot.interrupt for snapshot in of_kind(await read_all(late), Snapshot)]
        assert early.calls[0].call_id == interrupt.calls[0].call_id
        assert "done" == text_of(await world.decide(Approve(interrupt.calls[0])))
        assert [1] == effects.of("pay")


async def test_approval_when_nothing_else_runs(autojump_clock: Any) -> None:
    """A call that waits alone is told once, by the interrupt itself."""
    effects = Effects()
    async with World(scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])) as world:
        async with world.sessions.open_subscriber() as subscriber:
            await world.handle()
            await subscriber.subscribe(CONVERSATION)
            await world.ask()
            told = of_kind(await read_all(subscriber), StatusChanged)

    assert [Status.RUNNING, Status.INTERRUPTED] == [event.status for event in told]
    assert [None] == [event.data for event in told if event.status is Status.RUNNING]
