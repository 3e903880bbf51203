"""Leases: of several processes one runs a conversation's agent. A lost lease ends the agent in time, and subscribers are told."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from tests.support.scenarios import Faults, answer_to, ask, make_agent, make_config, of_kind, read_all, transcript
from trio_sagents import (
    AgentBusy,
    AgentShutdown,
    CancelCause,
    Cancelled,
    Completed,
    ConversationNotFound,
    MemoryLeases,
    MemoryStore,
    Middleware,
    RegistryUnavailable,
    RunsElsewhere,
    Sessions,
    ShutdownReason,
    StartFailed,
    StateError,
    open_sessions,
)
from trio_sagents.supervisor import _leases
from trio_sagents.testing import Call, Hang

TTL = 9.0


@attrs.define(eq=False)
class FaultyLeases:
    """Leases that fail as planned, in front of some that several processes share."""

    inner: MemoryLeases = attrs.field(factory=MemoryLeases)
    faults: Faults = attrs.field(factory=Faults)
    calls: list[tuple[str, Any]] = attrs.field(factory=list)

    async def acquire(self, conversation_id: str, holder: str, ttl: float) -> Any:
        return await self._call("acquire", conversation_id, holder, ttl)

    async def renew(self, conversation_ids: Any, holder: str, ttl: float) -> Any:
        return await self._call("renew", conversation_ids, holder, ttl)

    async def release(self, conversation_id: str, holder: str) -> None:
        await self._call("release", conversation_id, holder)

    async def _call(self, method: str, what: Any, *rest: Any) -> Any:
        self.calls.append((method, what))
        results: list[Any] = []

        async def effect() -> None:
            results.append(await getattr(self.inner, method)(what, *rest))

        if self.faults.planned.get((method, self.faults.calls[method] + 1), ("", None))[0] == "after":
            await effect()
        await self.faults.call(method, lambda: None)
        if not results:
            await effect()
        return results[0]


@asynccontextmanager
async def node(router: Any = None, leases: Any = None, **settings: Any) -> AsyncIterator[Sessions]:
    """Open sessions as one of several processes does."""
    policy = {"lease_ttl": TTL, "cancel_grace": 1.0, "settle_timeout": 1.0, **settings.pop("policy", {})}
    async with open_sessions(make_config(router, leases=leases, policy=policy, **settings)) as sessions:
        yield sessions


async def why_not(sessions: Sessions, **settings: Any) -> BaseException | None:
    """Try to start, and return the cause of the failure."""
    with pytest.raises(StartFailed) as caught:
        await sessions.start("c", **settings)
    assert "load" == caught.value.stage
    return caught.value.__cause__


async def test_one_process_runs_it_and_the_next_one_after_that(autojump_clock: Any) -> None:
    """While one process runs the agent, the other is told for how long. Once it has stopped, the other continues from its state."""
    store, leases = MemoryStore(), MemoryLeases()
    async with node(store=store, leases=leases) as first, node(store=store, leases=leases) as second:
        assert "re: one" == await answer_to(first, "one")
        await trio.sleep(5 * TTL)
        cause = await why_not(second)
        assert isinstance(cause, RunsElsewhere)
        assert ("c", True) == (cause.conversation_id, 0 < cause.retry_after <= TTL)
        assert "another process" in str(cause)
        assert not await second.running("c")

        await first.stop("c")
        assert "re: two" == await answer_to(second, "two")
        assert ["one", "re: one", "two", "re: two"] == [text for _, text, _ in await transcript(second)]
        assert isinstance(await why_not(first), RunsElsewhere)
        assert "re: three" == await answer_to(second, "three")


async def test_agent_that_leaves_by_itself_gives_it_back(autojump_clock: Any) -> None:
    """Inactivity, a crash, a failed boot and the end of a block free it at once."""
    leases = FaultyLeases()
    store = MemoryStore()
    async with node(store=store, leases=leases, inactivity_timeout=5.0) as sessions:
        await sessions.start("c")
        await trio.sleep(7)
        assert [("acquire", "c"), ("release", "c")] == [call for call in leases.calls if call[0] != "renew"]
        await sessions.start("c")
    assert not leases.inner._held


@pytest.mark.parametrize("how", ["before", "after", "hang"])
async def test_start_when_nobody_can_say(autojump_clock: Any, how: str) -> None:
    """Leases that do not answer are an error, not "it is free"; what may have been got is given back, and the next start works."""
    leases = FaultyLeases()
    if how == "hang":
        leases.faults.hang("acquire")
    else:
        leases.faults.fail("acquire", after=how == "after")
    async with node(leases=leases) as sessions:
        began = trio.current_time()
        cause = await why_not(sessions)
        assert isinstance(cause, RegistryUnavailable)
        assert trio.current_time() - began <= TTL / 3
        assert ("release", "c") == leases.calls[-1]
        assert not leases.inner._held
        assert "re: hi" == await answer_to(sessions)


async def test_stop_when_the_engine_hangs(autojump_clock: Any) -> None:
    """An agent whose lease cannot be given back ends in bounded time, and the lease expires."""
    leases = FaultyLeases()
    async with node(leases=leases) as sessions:
        await sessions.start("c")
        leases.faults.hang("release")
        began = trio.current_time()
        assert await sessions.stop("c")
        assert trio.current_time() - began <= 1.0
        assert "c" in leases.inner._held
        assert "re: hi" == await answer_to(sessions)


async def test_stop_while_it_is_asked_for(autojump_clock: Any) -> None:
    """A boot that is stopped while it waits for its lease leaves no lease."""
    leases = FaultyLeases()
    leases.faults.slow("acquire", 2)
    async with node(leases=leases) as sessions, trio.open_nursery() as nursery:
        nursery.start_soon(why_not, sessions)
        await trio.sleep(1)
        assert await sessions.stop("c")
        assert not leases.inner._held


async def test_long_turn_keeps_its_lease(autojump_clock: Any) -> None:
    """However long a turn takes, the lease is renewed meanwhile, though some renewals fail."""

    async def work() -> str:
        """Work for long."""
        await trio.sleep(20 * TTL)
        return "done"

    leases = FaultyLeases()
    for number in (2, 3, 7, 11):
        leases.faults.fail("renew", number)
    leases.faults.hang("renew", 5)
    async with node(make_agent(Call("work"), "well", tools=[work]), leases=leases) as sessions:
        assert "well" == await answer_to(sessions)


@pytest.mark.parametrize("lasting", [1, 2.5 * TTL])
async def test_lost_lease_ends_the_agent(autojump_clock: Any, lasting: float) -> None:
    """When renewals fail the agent ends before its lease does, its turn cut as fenced; subscribers and callers are told."""
    leases = FaultyLeases()
    store = MemoryStore()
    async with node(make_agent(["half", Hang()], "later"), store=store, leases=leases) as sessions, sessions.watch("c") as watch:
        receipt = await sessions.post("c", "go")
        await trio.sleep(lasting)
        leases.faults.every["renew"] = OSError("the engine is away")
        leases.faults.every["release"] = OSError("the engine is away")
        began = trio.current_time()
        assert Cancelled(CancelCause.FENCED) == await receipt.wait()
        assert trio.current_time() - began <= TTL + 1.0
        await watch.info.agent.wait_ended()
        shutdown = of_kind(await read_all(watch), AgentShutdown)
        assert [ShutdownReason.FENCED] == [event.reason for event in shutdown]
        assert not await sessions.running("c")

        async with node(make_agent("taken over"), store=store, leases=leases.inner) as other:
            assert trio.current_time() - began <= TTL + 1.0
            await trio.sleep(TTL)  # an engine that could not be told lets the lease expire
            assert "taken over" == await answer_to(other, "and now?")
            assert ("assistant", "half", "cancelled") in await transcript(other)


async def test_lease_that_another_took(autojump_clock: Any) -> None:
    """What the engine says is not held any more ends at the next renewal, and what it would still save is refused by the store."""
    leases, store = FaultyLeases(), MemoryStore()

    async def work() -> str:
        """Work, and ignore a cancellation for a while."""
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        return "stale"

    async with node(make_agent(Call("work"), "well", tools=[work]), store=store, leases=leases) as sessions:
        receipt = await sessions.post("c", "go")
        await trio.sleep(1)
        leases.inner._held.clear()  # as if it had been expired by hand
        async with node(make_agent("fresh"), store=store, leases=leases.inner) as other:
            assert "fresh" == await answer_to(other, "go on")
            outcome = await receipt.wait()
            assert not isinstance(outcome, Completed)
            await trio.sleep(TTL)
            texts = [text for _, text, _ in await transcript(other)]
            assert "stale" not in texts
            assert "fresh" == texts[-1]


async def test_lease_that_another_took_ends_at_the_next_renewal(autojump_clock: Any) -> None:
    """An agent that learns that its lease is another's ends at once, whether it wants to save something or not."""
    leases = MemoryLeases()
    async with node(make_agent(Hang()), leases=leases) as sessions:
        receipt = await sessions.post("c", "go")
        leases._held["c"] = ("another process", math.inf)
        began = trio.current_time()
        assert Cancelled(CancelCause.FENCED) == await receipt.wait()
        assert trio.current_time() - began <= TTL / 3
        await sessions.stop("c")
        assert "another process" == leases._held["c"][0]


@pytest.mark.parametrize("shields", [False, True])
async def test_no_tool_begins_behind_the_end_of_a_lease(autojump_clock: Any, shields: bool) -> None:
    """A program that blocked its event loop for longer than a lease begins nothing new when it comes back."""
    begun: list[str] = []

    async def pay() -> str:
        """Pay."""
        begun.append("pay")
        return "paid"

    class Blocks(Middleware):
        async def around_tool(self, context: Any, call: Any, call_next: Any) -> Any:
            autojump_clock.jump(2 * TTL)  # a task that slept meanwhile runs after this task
            with trio.CancelScope(shield=shields):
                return await call_next(call)

    async with node(make_agent(Call("pay"), "well", tools=[pay], middleware=[Blocks()]), leases=MemoryLeases()) as sessions:
        outcome = await ask(sessions)

        assert [] == begun
        assert Cancelled(CancelCause.FENCED) == outcome


async def test_boot_whose_lease_is_lost(autojump_clock: Any) -> None:
    """A boot that takes longer than its lease, which nobody renews, fails, and says why."""
    leases = FaultyLeases()
    leases.faults.every["renew"] = OSError("away")

    class SlowStore(MemoryStore):
        async def load(self, *args: Any, **kwargs: Any) -> Any:
            await trio.sleep(3 * TTL)
            return await super().load(*args, **kwargs)

    async with node(leases=leases, store=SlowStore(), policy={"start_timeout": 100.0}) as sessions:
        cause = await why_not(sessions)

        assert isinstance(cause, RegistryUnavailable)
        assert "lost while its agent started" in str(cause)


async def test_delete_when_it_runs_elsewhere(autojump_clock: Any) -> None:
    """What runs in another process is not deleted under it; once it has stopped there, it is."""
    store, leases = MemoryStore(), FaultyLeases()
    async with node(store=store, leases=leases) as first, node(store=store, leases=leases) as second:
        await ask(first)
        with pytest.raises(AgentBusy, match="another process"):
            await second.delete("c")
        await first.stop("c")
        leases.faults.fail("acquire")
        with pytest.raises(RegistryUnavailable):
            await second.delete("c")
        assert await second.delete("c")
        assert not await second.delete("c")
        assert not leases.inner._held


async def test_foreign_conversation_that_runs_elsewhere(autojump_clock: Any) -> None:
    """For another tenant, a conversation that runs in another process looks like a missing one."""
    store, leases = MemoryStore(), MemoryLeases()
    async with node(store=store, leases=leases) as first, node(store=store, leases=leases) as second:
        await ask(first, scope="alice")
        with pytest.raises(ConversationNotFound):
            await second.start("c", scope="bob")
        with pytest.raises(ConversationNotFound):
            await second.post("c", "hi", scope="bob")
        assert not await second.delete("c", scope="bob")
        assert isinstance(await why_not(second, scope="alice"), RunsElsewhere)


async def test_damaged_conversation_gives_its_lease_back(autojump_clock: Any) -> None:
    """A load that is refused holds no lease."""
    store, leases = MemoryStore(), MemoryLeases()

    class Damaged(MemoryStore):
        async def load(self, *args: Any, **kwargs: Any) -> Any:
            raise StateError("c", "it is damaged")

    async with node(store=Damaged(), leases=leases) as sessions:
        assert isinstance(await why_not(sessions), StateError)
    async with node(store=store, leases=leases) as sessions:
        assert "re: hi" == await answer_to(sessions)


async def test_leases_that_are_plain_functions(autojump_clock: Any) -> None:
    """A method that is not async is named in the error, and an invalid return value is not a lease."""

    class Plain(MemoryLeases):
        def acquire(self, *args: Any) -> Any:  # type: ignore[override]
            return None

    class Nonsense(MemoryLeases):
        async def acquire(self, *args: Any) -> Any:
            return "yes"

    async with node(leases=Plain()) as sessions:
        cause = await why_not(sessions)
        assert isinstance(cause, RegistryUnavailable)
        assert "async def" in str(cause.__cause__)
    async with node(leases=Nonsense()) as sessions:
        cause = await why_not(sessions)
        assert isinstance(cause, RegistryUnavailable)
        assert "acquire" in str(cause.__cause__)


async def test_renewal_that_gives_nonsense(autojump_clock: Any) -> None:
    """A renewal that does not return a list of ids counts as unanswered: it is retried, and the agent ends in time."""

    class Nonsense(MemoryLeases):
        async def renew(self, *args: Any) -> Any:
            await trio.lowlevel.checkpoint()
            return "c"

    async with node(make_agent(Hang()), leases=Nonsense()) as sessions:
        began = trio.current_time()
        assert Cancelled(CancelCause.FENCED) == await ask(sessions)
        assert trio.current_time() - began <= TTL


async def test_answer_about_a_lease_that_was_given_back(autojump_clock: Any) -> None:
    """A late answer about the lease of an agent that has ended does not affect the lease of the next agent."""

    class Late(MemoryLeases):
        async def renew(self, *args: Any) -> Any:
            await trio.sleep(0.5)
            kept = await super().renew(*args)
            await trio.sleep(1)
            return kept

    leases = Late()
    async with node(leases=leases) as sessions:
        await sessions.start("c")
        await sessions.start("d")
        await trio.sleep(TTL / 3 + 0.25)
        await sessions.stop("c")
        await trio.sleep(0.5)
        await sessions.start("c")
        await trio.sleep(2 * TTL)

        assert await leases.acquire("c", "another process", 1.0) is not None
        assert ["d", "c"] == [info.conversation_id for info in await sessions.list_running()]


async def test_many_are_renewed_together(autojump_clock: Any) -> None:
    """One call renews all leases, and an idle process makes no calls."""
    leases = FaultyLeases()
    async with node(leases=leases) as sessions:
        for number in range(50):
            await sessions.start(f"c{number}")
        await trio.sleep(TTL - 0.1)
        renewals = [what for method, what in leases.calls if method == "renew"]
        assert [50, 50] == [len(what) for what in renewals]
        for number in range(50):
            await sessions.stop(f"c{number}")
        leases.calls.clear()
        await trio.sleep(10 * TTL)
        assert [] == leases.calls


async def test_more_are_held_than_one_renewal_takes(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewal takes so many ids at most; all that are held are renewed all the same, by as many calls as that takes."""
    monkeypatch.setattr(_leases, "BATCH", 4)
    leases = FaultyLeases()
    names = [f"c{number}" for number in range(10)]
    async with node(leases=leases) as here:
        for name in names:
            await here.start(name)
        leases.calls.clear()
        await trio.sleep(0.4 * TTL)
        renewed = [list(ids) for method, ids in leases.calls if method == "renew"]
        await trio.sleep(4 * TTL)

        assert [4, 4, 2] == [len(ids) for ids in renewed]
        assert names == sorted(identifier for ids in renewed for identifier in ids)
        assert len(names) == await here.agent_count()
