"""Gates: which tools are asked about, and what is no claim."""

from typing import Any

import attrs
import pytest

from trio_sagents import Approvals, Failed, Middleware, Tool
from trio_sagents.data.interrupts import pending
from trio_sagents.testing import Call

from ._kit import Effects, World, gated, interrupt_in, scripted, text_of


async def test_when_asks_about_what_is_not_listed(autojump_clock: Any) -> None:
    """`when` asks about the tools for which it is true, but about none that the policy lists, either way."""
    effects, asked = Effects(), []

    def when(tool: Tool) -> bool:
        asked.append(tool.name)
        return tool.name == "pay"

    tools = [effects.tool(name) for name in ("pay", "move", "free")]
    calls = [Call(name, amount=1) for name in ("pay", "move", "free")]
    agent = scripted(calls, "done", tools=tools, middleware=[Approvals({"free": False}, when=when)])
    async with World(agent) as world:
        interrupt = await world.ask()

    assert ["pay"] == [call.name for call in interrupt.calls]
    assert ("approve", "edit", "reject") == tuple(interrupt.calls[0].allowed)
    assert {"pay", "move"} == set(asked)
    assert {"move", "free"} == set(effects.names)


def test_summary_when_it_is_asked_for() -> None:
    """The debug view shows the policy, by name."""
    assert {"interrupt_on": {"pay": ["reject"], "free": []}, "newcomers": "deny"} == Approvals(
        {"pay": ["reject"], "free": False}, newcomers="deny"
    ).debug_summary()


class Claiming(Middleware):
    """Claims every call as it is told."""

    def __init__(self, claim: Any) -> None:
        self._claim = claim

    async def claim(self, context: Any, call: Any, tool: Any) -> Any:
        return self._claim(call)


@pytest.mark.parametrize(
    "claim",
    [
        lambda call: True,
        lambda call: attrs.evolve(pending(call), call_id="other"),
        lambda call: attrs.evolve(pending(call), digest="other"),
        lambda call: attrs.evolve(pending(call), timeout=-1.0),
        lambda call: attrs.evolve(pending(call), timeout=0.0),
        lambda call: attrs.evolve(pending(call), timeout="soon"),
    ],
)
async def test_claim_when_it_is_none(autojump_clock: Any, claim: Any) -> None:
    """What is no claim on this call, or could not be loaded again, fails the turn, and the tool does not run."""
    effects = Effects()
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=[Claiming(claim)])
    async with World(agent) as world:
        outcome = await world.post()

        assert isinstance(outcome, Failed)
        assert "'Claiming' failed in claim" in str(outcome.error)
        assert [] == effects.done


@pytest.mark.parametrize(("first", "second", "shorter"), [(60.0, 5.0, 5.0), (5.0, None, 5.0), (None, 5.0, 5.0), (None, None, None)])
async def test_claims_of_two_gates(autojump_clock: Any, first: Any, second: Any, shorter: Any) -> None:
    """Two that ask about one call ask together: what both allow, within the shorter time, in both names."""
    effects = Effects()
    kinds: Any = ["approve", "reject"]
    gates = [
        Approvals({"pay": True}, **({} if first is None else {"timeout": first})),
        Claiming(lambda call: pending(call, allowed=kinds, timeout=second)),
    ]
    agent = scripted(Call("pay", amount=1), "done", tools=[effects.tool("pay")], middleware=gates)
    async with World(agent) as world:
        (call,) = (await world.ask()).calls

    assert ("approve", "reject") == tuple(call.allowed)
    assert shorter == call.timeout
    assert "Approvals, Claiming" == call.claimed_by


async def test_gate_when_a_turn_has_none_of_its_tools(autojump_clock: Any) -> None:
    """A gate lets every other tool run, and asks about its own each time anew."""
    effects = Effects()
    agent = scripted(Call("free", amount=1), "one", Call("pay", amount=2), tools=[effects.tool("free"), effects.tool("pay")],
                     middleware=[gated(effects, "pay")])  # fmt: skip
    async with World(agent) as world:
        assert "one" == text_of(await world.post())
        assert ["pay"] == [call.name for call in interrupt_in(await world.post()).calls]
        assert [1] == effects.of("free")
