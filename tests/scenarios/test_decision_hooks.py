"""Middleware that is asked about a decision: what it says, and that it is asked nothing once its agent leaves."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support.payments import Purse, interrupt_of, paying
from tests.support.people import Effects, World, gated, scripted, text_of
from tests.support.scenarios import (
    opened,
)
from trio_sagents import (
    AgentNotRunning,
    AlreadyDecided,
    Approve,
    Conflict,
    InvalidDecision,
    Middleware,
    MiddlewareError,
    Reject,
    SagentsError,
)
from trio_sagents.data.interrupts import pending
from trio_sagents.testing import Call


@attrs.define(eq=False)
class Asked(Middleware):
    """Claims every call, and answers a decision as it is told to."""

    middleware_id: str
    says: Callable[[], Any] = lambda: None
    seconds: float = 0.0
    """How long it looks at a decision about an amount of 1."""
    seen: list[str] = attrs.field(factory=list)
    """The calls that it was asked about."""

    async def claim(self, context: Any, call: Any, tool: Any) -> Any:
        return pending(call)

    async def answer(self, context: Any, call: Any, decision: Any) -> Any:
        self.seen.append(call.call_id)
        await trio.sleep(self.seconds * call.arguments["amount"])
        return self.says()


def asking(effects: Effects, *asked: Asked, amounts: Any = (1,)) -> Any:
    return scripted([Call("pay", amount=amount) for amount in amounts], "done", tools=[effects.tool("pay")], middleware=asked)


USUAL = "This call was not run: a person rejected it."


@pytest.mark.parametrize(
    ("first", "second", "read"), [("one", "two", "one"), ("one", None, "one"), (None, "two", "two"), (None, None, USUAL)]
)
async def test_text_when_two_are_asked(autojump_clock: Any, first: Any, second: Any, read: str) -> None:
    """The model reads what the first of them says that says something; where none does, the usual text."""
    effects = Effects()
    asked = Asked("outer", lambda: first), Asked("inner", lambda: second)
    async with World(asking(effects, *asked)) as world:
        (call,) = (await world.ask()).calls
        await world.decide(Reject(call))

        assert ("cancelled", read) == (await world.results())["pay"]
        assert [[call.call_id]] * 2 == [hook.seen for hook in asked]


async def test_text_when_it_cannot_be_stored(autojump_clock: Any) -> None:
    """A text with a lone surrogate refuses the decision, and the error quotes it. Nothing was done, and the call stays pending."""
    effects = Effects()
    texts = ["\ud800", "fine"]
    async with World(asking(effects, Asked("asked", lambda: texts.pop(0)))) as world:
        interrupt = await world.ask()
        with pytest.raises(InvalidDecision, match="the answer"):
            await world.resume(Reject(interrupt.calls[0]))
        assert interrupt == await world.interrupt()
        await world.decide(Reject(interrupt.calls[0]))

        assert ("cancelled", "fine") == (await world.results())["pay"]


@pytest.mark.parametrize("delay", [0.1, 1.0], ids=["on record", "on its way"])
async def test_decision_of_another_while_it_is_looked_at(autojump_clock: Any, delay: float) -> None:
    """A decision that is examined for longer, and finds the call decided meanwhile, is refused: one decision is on record."""

    class Slow(Asked):
        async def answer(self, context: Any, call: Any, decision: Any) -> Any:
            await trio.sleep(1.0 if isinstance(decision, Reject) else 0.5)

    effects = Effects()
    async with World(asking(effects, Slow("slow"))) as world:
        (call,) = (await world.ask()).calls
        world.store.delay = delay
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.decide, Approve(call))
            with pytest.raises(AlreadyDecided, match="approve"):
                await world.resume(Reject(call))

        assert ["approve"] == [record.kind for record in await world.records()]
        assert [1] == effects.of("pay")


async def test_decision_when_another_agent_has_taken_over(autojump_clock: Any) -> None:
    """A conflict refuses the decision, and the agent, which has no business there any more, leaves."""
    effects = Effects()
    async with World(asking(effects, Asked("asked"))) as world:
        (call,) = (await world.ask()).calls
        handle = await world.handle()
        world.store.before_commit = lambda commit: Conflict("c", expected=(1, 1), found=None)
        with pytest.raises(Conflict):
            await handle.resume([Approve(call)])
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(AgentNotRunning):
            await handle.wait_idle()

        assert [] == effects.done


# ── an agent that leaves meanwhile


@pytest.mark.parametrize("several", [False, True], ids=["one", "two"])
async def test_leaving_while_a_decision_is_looked_at(autojump_clock: Any, several: bool) -> None:
    """However much grace it has: what is still looked at when the agent is asked to leave is not recorded, nobody else is asked."""
    effects = Effects()
    asked = [Asked("outer", seconds=1.0), Asked("inner")][: 1 + several]
    async with World(asking(effects, *asked, amounts=(1, 3))) as world:
        interrupt = await world.ask()
        handle = await world.handle()
        told: list[Any] = []
        async with trio.open_nursery() as nursery:
            for call in interrupt.calls:  # the second decision is examined for longer, so the agent is still there after the first
                nursery.start_soon(_refused, handle, Approve(call), told)
            nursery.start_soon(_stop_later, handle)
        assert [Approve(call) for call in interrupt.calls] == told
        assert {call.call_id for call in interrupt.calls} == set(asked[0].seen)
        assert all(not hook.seen for hook in asked[1:])
        assert interrupt == await world.interrupt()
        assert "done" == text_of(await world.decide(*map(Approve, interrupt.calls)))

        assert [1, 3] == sorted(effects.of("pay"))


async def test_leaving_while_others_decide(autojump_clock: Any) -> None:
    """A caller who waits for another decision, and finds the agent leaving, is told so, whether the decisions are the same or not."""
    effects = Effects()
    agent = scripted(
        [Call("pay", amount=1), Call("pay", amount=2)], "done", tools=[effects.tool("pay")], middleware=[gated(effects, "pay")]
    )
    async with World(agent) as world:
        one, two = (await world.ask()).calls
        handle = await world.handle()
        world.store.delay = 1.0
        told: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.resume, [Approve(one)])
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(_refused, handle, Approve(one), told)
            nursery.start_soon(_refused, handle, Approve(two), told)
            nursery.start_soon(_stop_later, handle)
        waiting = await world.interrupt()

    assert {Approve(one), Approve(two)} == set(told)
    assert waiting is not None
    assert [two.call_id] == [call.call_id for call in waiting.calls]
    assert [] == effects.done


async def _refused(handle: Any, decision: Any, told: list[Any]) -> None:
    with pytest.raises(AgentNotRunning):
        await handle.resume([decision])
    told.append(decision)


async def _stop_later(handle: Any) -> None:
    await trio.sleep(0.5)
    await handle.stop(grace_period=30.0)


@pytest.mark.parametrize("wrong", [KeyError("x"), 42])
async def test_answer_that_fails_is_named(autojump_clock: Any, wrong: Any) -> None:
    """The caller who decides is told which middleware failed, and the call stays pending."""

    class Bad(Middleware):
        async def claim(self, context: Any, call: Any, tool: Any) -> Any:
            return pending(call)

        async def answer(self, context: Any, call: Any, decision: Any) -> Any:
            if isinstance(wrong, BaseException):
                raise wrong
            return wrong

    async with opened(paying(Purse(), middleware=[Bad()])) as sessions:
        interrupt = await interrupt_of(sessions)
        with pytest.raises(MiddlewareError, match="Bad"):
            await sessions.resume("c", [Reject(interrupt.calls[0])])

        assert (await sessions.agent_info("c")).interrupt == interrupt


async def test_answer_ends_with_its_agent(autojump_clock: Any) -> None:
    """When stop returns, no hook of the agent runs; and what is being decided is activity."""
    running: list[Any] = []

    class Slow(Middleware):
        async def claim(self, context: Any, call: Any, tool: Any) -> Any:
            return pending(call)

        async def answer(self, context: Any, call: Any, decision: Any) -> None:
            running.append(call)
            try:
                await trio.sleep(5)
            finally:
                running.remove(call)

    async with opened(paying(Purse(), middleware=[Slow()])) as sessions, trio.open_nursery() as nursery:
        interrupt = await interrupt_of(sessions)

        async def resume() -> None:
            with trio.CancelScope(), pytest.raises(SagentsError):
                await sessions.resume("c", [Approve(interrupt.calls[0])])

        nursery.start_soon(resume)
        await trio.sleep(1)
        await sessions.stop("c")
        still_running = [*running]
        nursery.cancel_scope.cancel()

    assert [] == still_running
