"""Leases that are lost or given back while something of theirs is under way."""

import math
from typing import Any

import pytest
import trio

from tests.scenarios.test_leases import TTL, FaultyLeases, node
from tests.support.scenarios import ask, make_agent
from trio_sagents import CancelCause, Cancelled, MemoryLeases, Middleware
from trio_sagents.supervisor import _leases
from trio_sagents.testing import Call


async def test_no_tool_begins_when_the_lease_was_lost_before(autojump_clock: Any) -> None:
    """A middleware that shields itself from the end of its agent starts no tool any more: another process may run the conversation."""
    begun: list[str] = []
    leases = MemoryLeases()

    async def pay() -> str:
        """Pay."""
        begun.append("pay")
        return "paid"

    class Shields(Middleware):
        async def around_tool(self, context: Any, call: Any, call_next: Any) -> Any:
            with trio.CancelScope(shield=True):
                leases._held["c"] = ("another process", math.inf)
                await trio.sleep(TTL)  # the next renewal finds out
                return await call_next(call)

    async with node(make_agent(Call("pay"), "well", tools=[pay], middleware=[Shields()]), leases=leases) as sessions:
        assert Cancelled(CancelCause.FENCED) == await ask(sessions)

        assert [] == begun


async def test_renewal_when_all_was_given_back_meanwhile(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that were given back while others were renewed are not acquired again."""
    monkeypatch.setattr(_leases, "BATCH", 1)
    leases = FaultyLeases()
    async with node(leases=leases) as sessions:
        await sessions.start("a")
        await sessions.start("b")
        leases.faults.slow("renew", 1.0)
        await trio.sleep(TTL / 3 + 0.5)
        assert [("renew", ["a"])] == [call for call in leases.calls if call[0] == "renew"]
        for name in ("a", "b"):
            await sessions.stop(name)
        await trio.sleep(2 * TTL)

        assert [("renew", ["a"])] == [call for call in leases.calls if call[0] == "renew"]
        assert {} == leases.inner._held
        await sessions.start("a")  # and the next lease is kept, as usual
        await trio.sleep(2 * TTL)
        assert await sessions.running("a")
