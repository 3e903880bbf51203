"""Decisions in rare moments: beside a deadline, beside the end of the agent, behind a store that somebody changed."""

from typing import Any

import trio

from trio_sagents import Approvals, Approve
from trio_sagents.testing import Call

from ._kit import Effects, World, call_of, gated, interrupt_in, scripted


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
