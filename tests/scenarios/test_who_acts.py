"""Who acts, and who may get past what waits: the one who asked, the one who decides, and the one who may only post."""

from contextvars import ContextVar
from typing import Any

import pytest
import trio

from tests.support.people import Effects, gated, interrupt_in, scripted
from tests.support.scenarios import FaultyStore, answer_to, ask, make_agent, of_kind, opened, read_all
from trio_sagents import (
    Agent,
    AlreadyDecided,
    Approvals,
    Approve,
    Cancelled,
    Completed,
    Halt,
    Interrupted,
    InvalidDecision,
    LimitExceeded,
    MemoryStore,
    Middleware,
    NotInterrupted,
    Reject,
    Snapshot,
    StateRestored,
    Status,
    StatusChanged,
    ToolContext,
)
from trio_sagents.testing import Call, ScriptedModel

CLERK, DIRECTOR = "clerk", "director"
caller: ContextVar[str] = ContextVar("caller", default="nobody")


class Roles:
    """Everybody may post; the director alone may decide."""

    def __init__(self, deciders: tuple[str, ...] = (DIRECTOR,)) -> None:
        self.deciders = deciders

    async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
        return action != "decide" or scope in self.deciders

    def actor_of(self, scope: Any) -> str:
        return str(scope)


@pytest.mark.parametrize("nap", [0, 400], ids=["awake", "asleep"])
@pytest.mark.parametrize("waker", [CLERK, DIRECTOR])
async def test_approved_call_runs_as_whoever_asked(autojump_clock: Any, nap: int, waker: str) -> None:
    """The scope and the context variables of an approved call are those of the post, whoever decides, and whoever wakes the agent."""
    seen: list[Any] = []

    async def pay(context: ToolContext) -> str:
        """Pay."""
        seen.append((context.scope, caller.get()))
        return "paid"

    agent = make_agent(Call("pay"), "done", tools=[pay], middleware=[Approvals({"pay": True})])
    async with opened(agent, authorizer=Roles(), inactivity_timeout=100.0) as sessions:
        caller.set(CLERK)
        interrupt = interrupt_in(await ask(sessions, scope=CLERK))
        caller.set(DIRECTOR)
        await trio.sleep(nap)
        assert bool(nap) != await sessions.running("c", scope=CLERK)
        await sessions.start("c", scope=waker)
        receipt = await sessions.resume("c", [Approve(interrupt.calls[0])], scope=DIRECTOR)
        outcome = await receipt.wait()

    assert isinstance(outcome, Completed)
    assert [(CLERK, CLERK)] == seen


async def test_tool_runs_as_whoever_posted(autojump_clock: Any) -> None:
    """A tool and a middleware have the scope of the message that began the turn, whoever started the agent."""
    seen: list[Any] = []

    async def look(context: ToolContext) -> str:
        """Look."""
        seen.append(context.scope)
        return "seen"

    agent = make_agent(Call("look"), "one", Call("look"), "two", tools=[look])
    async with opened(agent, authorizer=Roles()) as sessions:
        await sessions.start("c", scope=DIRECTOR)
        await answer_to(sessions, scope=CLERK)
        await answer_to(sessions, scope=DIRECTOR)

    assert [CLERK, DIRECTOR] == seen


@pytest.mark.parametrize("overlap", ["queue", "steer", "interrupt"])
@pytest.mark.parametrize("waits", ["a halt", "an approval"])
async def test_post_of_somebody_who_may_not_decide(autojump_clock: Any, overlap: Any, waits: str) -> None:
    """The message waits behind a halt or an approval; it is answered when somebody who may has decided."""
    paid: list[str] = []

    async def check() -> Halt:
        """Check."""
        return Halt("the ledger does not add up")

    async def pay() -> str:
        """Pay."""
        paid.append("paid")
        return "paid"

    first = Call("check") if waits == "a halt" else Call("pay")
    agent = make_agent(first, "end", "end", "end", tools=[check, pay], middleware=[Approvals({"pay": True})])
    async with opened(agent, authorizer=Roles()) as sessions:
        interrupt = interrupt_in(await ask(sessions, scope=CLERK))
        receipt = await sessions.post("c", "never mind, pay", scope=CLERK, overlap=overlap)
        await trio.sleep(10)
        info = await sessions.agent_info("c", scope=CLERK)
        assert (Status.INTERRUPTED, 1) == (info.status, info.queued)
        if waits == "a halt":
            await sessions.dismiss("c", scope=DIRECTOR)
        else:
            await sessions.resume("c", [Reject(interrupt.calls[0])], scope=DIRECTOR)
        assert isinstance(await receipt.wait(), Completed)

    assert [] == paid


async def test_post_of_somebody_who_may_decide(autojump_clock: Any) -> None:
    """The message comes instead of a decision: it closes what waits, and is answered at once."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "end", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with opened(agent, authorizer=Roles()) as sessions:
        await ask(sessions, scope=CLERK)
        assert isinstance(await ask(sessions, "stop", scope=DIRECTOR), Completed)

    assert [] == effects.done


@pytest.mark.parametrize("instant", [0.1 + 0.25 * number for number in range(20)])
async def test_interrupting_post_while_an_interrupt_is_stored(autojump_clock: Any, instant: float) -> None:
    """Whenever an interrupting message comes, it is answered, and what it interrupts does not run."""
    store, effects = FaultyStore(), Effects()
    agent = scripted(Call("pay", amount=1), "stopped", "stopped", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with opened(agent, store=store) as sessions, trio.open_nursery() as nursery:
        store.faults.latency["commit"] = 1.0
        nursery.start_soon(sessions.post, "c", "pay")
        await trio.sleep(instant)
        receipt = await sessions.post("c", "no, stop", overlap="interrupt")
        with trio.fail_after(60):
            outcome = await receipt.wait()

    # A message that comes before the turn begins is taken by that turn, which then waits.
    assert isinstance(outcome, Completed if instant > 1 else Interrupted)
    assert [] == effects.done


async def test_cancel_turn_while_a_decision_is_stored(autojump_clock: Any) -> None:
    """The turn that the decision lets continue is cut: `cancel_turn` does not come too early to be heeded."""
    store = FaultyStore()

    async def pay() -> str:
        """Pay, slowly."""
        await trio.sleep(100)
        return "paid"

    agent = make_agent(Call("pay"), "end", tools=[pay], middleware=[Approvals({"pay": True})])
    async with opened(agent, store=store) as sessions, trio.open_nursery() as nursery:
        interrupt = interrupt_in(await ask(sessions))
        store.faults.latency["commit"] = 1.0
        nursery.start_soon(sessions.resume, "c", [Approve(interrupt.calls[0])])
        await trio.sleep(0.5)
        assert isinstance(await sessions.cancel_turn("c"), Cancelled)


@pytest.mark.parametrize("size", range(17_000, 20_200, 200))
async def test_interrupt_near_the_size_limit_takes_a_rejection(autojump_clock: Any, size: int) -> None:
    """What is shown to people can be rejected, whatever the size of the conversation; otherwise the turn ends with the limit."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "end", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with opened(agent, policy={"max_state_bytes": 20_000}) as sessions:
        try:
            outcome = await ask(sessions, "x" * size)
        except LimitExceeded:
            return
        if not hasattr(outcome, "interrupt"):
            return
        receipt = await sessions.resume("c", [Reject(call) for call in outcome.interrupt.calls])
        await receipt.wait()

    assert [] == effects.done


@pytest.mark.parametrize("fault", ["raises", "junk"])
async def test_actor_of_that_fails(autojump_clock: Any, fault: str) -> None:
    """The call that needed it fails, or the record names nobody; the agent comes to rest, and the next call works."""

    class Directory(Roles):
        is_broken = False

        def actor_of(self, scope: Any) -> Any:
            if self.is_broken and fault == "raises":
                raise KeyError(scope)
            return object() if self.is_broken else str(scope)

    directory, effects = Directory((CLERK, DIRECTOR)), Effects()
    agent = scripted(Call("pay", amount=1), "end", "end", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")])
    async with opened(agent, authorizer=directory) as sessions:
        interrupt = interrupt_in(await ask(sessions, scope=CLERK))
        directory.is_broken = True
        for attempt in (
            lambda: sessions.post("c", "hello?", scope=CLERK),
            lambda: sessions.resume("c", [Approve(interrupt.calls[0])], scope=CLERK),
        ):
            with pytest.raises((KeyError, TypeError)):
                await attempt()
        directory.is_broken = False
        with trio.fail_after(60):
            await (await sessions.get("c", scope=CLERK)).wait_idle()
            receipt = await sessions.resume("c", [Approve(interrupt.calls[0])], scope=CLERK)
            assert isinstance(await receipt.wait(), Completed)
            with pytest.raises((AlreadyDecided, InvalidDecision, NotInterrupted)):
                await sessions.resume("c", [Reject(interrupt.calls[0])], scope=CLERK)


# ── turns that no person started


async def test_tool_that_posts_to_its_own_conversation(autojump_clock: Any) -> None:
    """It cannot run for ever: after `max_unattended_turns` the queue waits for a person, visibly; then it may run as long again."""
    turns: list[str] = []

    async def again() -> str:
        """Post again."""
        turns.append("again")
        await sessions.post("c", f"again {len(turns)}")
        return "posted"

    def reply(request: Any) -> Any:
        return "end" if request.messages[-1].role == "tool" else Call("again")

    agent = Agent(model=ScriptedModel(reply), tools=[again])
    async with opened(agent, policy={"max_unattended_turns": 3}) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await sessions.post("c", "begin")
        await trio.sleep(100)
        info = await sessions.agent_info("c")
        assert (Status.PAUSED, 1, 4) == (info.status, info.queued, len(turns))
        assert Status.PAUSED is of_kind(await read_all(subscriber), StatusChanged)[-1].status
        await sessions.post("c", "go on")
        await trio.sleep(100)
        assert 4 + 4 == len(turns)


# ── what a name promises


async def test_state_restored_when_a_reader_has_seen_nothing(autojump_clock: Any) -> None:
    """It is told once, before the first snapshot, if a stored state was loaded; and not for a fresh conversation."""
    store = MemoryStore()
    async with opened(store=store) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await answer_to(sessions)
        assert StateRestored() not in [envelope.event for envelope in await read_all(subscriber)]
    async with opened(store=store) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        await sessions.start("c")
        await sessions.start("c")
        events = [envelope.event for envelope in await read_all(subscriber)]

    assert [StateRestored, Snapshot] == [type(event) for event in events]


async def test_state_restored_when_the_reader_goes_before_the_snapshot(autojump_clock: Any) -> None:
    """A reader that was told only that a state was restored has no picture: it gets one when it comes back with its place."""
    store = MemoryStore()
    async with opened(store=store) as sessions:
        await answer_to(sessions)
    async with opened(store=store) as sessions:
        async with sessions.open_subscriber() as first:
            await first.subscribe("c")
            await sessions.start("c")
            restored = await anext(aiter(first))
        async with sessions.open_subscriber() as again:
            await again.subscribe("c", after=restored.cursor)
            events = [envelope.event for envelope in await read_all(again)]

    assert StateRestored() == restored.event
    assert Snapshot in [type(event) for event in events]


async def test_settings_of_middleware_in_a_picture(autojump_clock: Any) -> None:
    """`agent_info` tells what each middleware says of its settings, in order; one that fails is left out. Lists do not ask."""

    class Silent(Middleware):
        pass

    class Good(Middleware):
        def debug_summary(self) -> Any:
            return {"most": 3}

    class Bad(Middleware):
        def debug_summary(self) -> Any:
            raise ValueError("no")

    async with opened(make_agent("x", middleware=[Silent(), Bad(), Good()])) as sessions:
        await sessions.start("c")
        assert [("Silent", {}), ("Good", {"most": 3})] == [*(await sessions.agent_info("c")).middleware.items()]
        assert [{}] == [info.middleware for info in await sessions.list_running()]
