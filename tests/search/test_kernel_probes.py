"""The kernel's decisions (DESIGN 5), each with the schedules that go wrong without it.

A probe is a program that holds under every schedule. Beside each stands what undoes its mend: under that mutation the same
probe, on the same seeds, must fail. So a mend that is lost, and a probe that looks at nothing, both show.
"""

import collections
import contextvars
import functools
import logging
import math
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import pytest
import trio

from tests.support.scenarios import FaultyStore, check_no_hole, make_config, of_kind
from trio_sagents import (
    Agent,
    AgentNotRunning,
    AgentShutdown,
    CancelCause,
    Cancelled,
    ChainError,
    Completed,
    ConversationNotFound,
    Envelope,
    Gap,
    PersistenceError,
    SagentsError,
    SessionConfig,
    Sessions,
    ShutdownReason,
    Snapshot,
    StartFailed,
    Subscriber,
    TextDelta,
    ToolIgnoresCancellation,
    TurnEnded,
    open_sessions,
)
from trio_sagents.agent import _tool_calls
from trio_sagents.broadcast import _feed, _subscription
from trio_sagents.sessions import _open, _starting, _task
from trio_sagents.storage import commit_queue
from trio_sagents.supervisor import Phase, _agent, _bell, _inbox, _lifetime, _registry, _turns
from trio_sagents.testing import Call, CancelAt, ScriptedModel, Simulation, simulate

pytestmark = pytest.mark.slow

Probe = Callable[[Simulation, random.Random], Awaitable[None]]
SEEDS = 40
SCALE = int(os.environ.get("PROBE_SCALE", "1"))
"""How many times as many schedules: 1 for every day, more at night."""


class ProbeFailed(AssertionError):
    """A probe found a schedule that goes wrong."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for exception in error.exceptions:
            yield from leaves(exception)
    else:
        yield error


def hold(probe: Probe, seeds: int = SEEDS, cancels: Callable[[int], list[CancelAt]] = lambda seed: []) -> None:
    """Run a probe on many schedules; ProbeFailed names the first that goes wrong, and how to see it again."""
    for seed in range(seeds * SCALE):
        try:
            simulate(lambda simulation, seed=seed: probe(simulation, random.Random(seed)), seed, cancels=cancels(seed), jumps=False)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            what = "; ".join(sorted({f"{type(leave).__name__}: {leave}"[:200] for leave in leaves(error)}))
            raise ProbeFailed(f"{getattr(probe, '__name__', probe)}, seed {seed}: {what}") from error  # noqa: ASYNC104  # the wrong way, on purpose


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Crashes that a probe provokes are logged; nobody has to read that."""
    caplog.set_level(logging.CRITICAL, logger="trio_sagents")


def quick_agent(**settings: Any) -> Agent:
    """Return an agent that answers in a few steps and 0.02 seconds."""
    return Agent(model=ScriptedModel(lambda request: "re: " + request.messages[-1].text, chunk_size=8, chunk_interval=0.01), **settings)


def config_for(agent: Any = None, latency: float = 0.001, **settings: Any) -> SessionConfig:
    """Return a config with a store that takes its time."""
    store = settings.pop("store", None)
    if store is None and "agent_persistence" not in settings:
        store = FaultyStore()
        store.faults.latency["commit"] = latency
    return make_config(agent or quick_agent(), store=store, **settings)


# ── P1, P2: idleness ──────────────────────────────────────────────────────────────────────────────────────────────────


async def post_at_the_idle_deadline(simulation: Simulation, rnd: random.Random) -> None:
    """A message that is accepted when the idle clock fires is answered, by this very agent."""
    async with open_sessions(config_for(inactivity_timeout=10.0, latency=0)) as sessions:
        agent = (await sessions.start("c")).agent
        await trio.sleep(10 + rnd.choice((0, 0, 0, -0.001, 0.0625)))
        try:
            receipt = await agent.post("hi")
        except AgentNotRunning:
            return
        outcome = await receipt.wait()
        assert isinstance(outcome, Completed), outcome


async def post_across_the_idle_deadline(simulation: Simulation, rnd: random.Random) -> None:
    """P2: a post whose commit spans the idle deadline is neither refused though durable, nor durable and unanswered."""
    config = config_for(inactivity_timeout=10.0, latency=rnd.choice((0.002, 0.1, 1.0)))
    async with open_sessions(config) as sessions:
        agent = (await sessions.start("c")).agent
        await trio.sleep(10 - 0.001 * rnd.randrange(4))
        try:
            receipt = await agent.post("hi")
        except AgentNotRunning:
            assert [] == config.store.commits, "refused, but durable"
            return
        outcome = await receipt.wait()
        assert isinstance(outcome, Completed), outcome


async def agent_leaves_in_time(simulation: Simulation, rnd: random.Random) -> None:
    """Nothing that keeps an agent from leaving is left: after any mix of posts it leaves, at most 1 s late."""
    async with open_sessions(config_for(inactivity_timeout=10.0, latency=rnd.choice((0, 0.01, 3.0)))) as sessions:
        agent = (await sessions.start("c")).agent
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ignore, agent.post, "hi")
                await trio.sleep(rnd.choice((0, 1, 9.99)))
        await wait_idle(agent)
        began = trio.current_time()
        await agent.wait_ended()
        assert trio.current_time() - began <= 11


async def ignore(call: Callable[..., Awaitable[Any]], *args: Any) -> None:
    with suppress(AgentNotRunning):
        await call(*args)


async def wait_idle(agent: Any) -> None:
    with suppress(AgentNotRunning):
        await agent.wait_idle()


# ── P3: acknowledgement ───────────────────────────────────────────────────────────────────────────────────────────────


async def post_is_cancelled(simulation: Simulation, rnd: random.Random) -> None:
    """P3: a poster that is cancelled at any yield leaves nothing, or a message that is answered."""
    config = config_for()
    async with open_sessions(config) as sessions:
        agent = (await sessions.start("c")).agent
        async with trio.open_nursery() as nursery:
            nursery.start_soon(simulation.named, "poster", agent.post, "hi")
        await trio.sleep(2)
        roles = [message.role for message in (await agent.state()).messages]
        accepted = [message_id for commit in config.store.commits for message_id in commit.message_ids]

        assert (["user", "assistant"] if accepted else []) == roles
        assert 0 == (await agent.info()).queued
        with trio.fail_after(5):
            await agent.wait_idle()


def poster_cancels(seed: int) -> list[CancelAt]:
    return [CancelAt("poster", 1 + seed // 2 % 10, "blocked" if seed % 2 else "ready")]


# ── P0, P4: started ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def callers_at_once(simulation: Simulation, rnd: random.Random) -> None:
    """Callers at once look and reserve in one step: one boot, one agent, one started=True."""
    store, infos = FaultyStore(), []

    async def call() -> None:
        infos.append(await sessions.start("c"))

    async with open_sessions(config_for(store=store)) as sessions:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(call)
        assert (1, 1, 1) == (sum(info.started for info in infos), store.faults.calls["load"], len({info.agent for info in infos}))


async def first_starter_is_cancelled(simulation: Simulation, rnd: random.Random) -> None:
    """Exactly one call gets started=True, even if the first caller was cancelled; there is one boot."""
    store, flags = FaultyStore(), []
    store.faults.slow("load", 0.05)

    async def call(patience: float) -> None:
        with trio.move_on_after(patience):
            flags.append((await sessions.start("c")).started)

    async with open_sessions(config_for(store=store)) as sessions:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, 0.02)
            await trio.sleep(0.001)
            for _ in range(4):
                nursery.start_soon(call, math.inf)
        assert ([True], 4, 1) == ([flag for flag in flags if flag], len(flags), store.faults.calls["load"])


# ── P5: stop from inside ──────────────────────────────────────────────────────────────────────────────────────────────


def stop_from_inside(kind: str) -> Probe:
    """P5: a tool that stops its own agent ends the turn and the agent, and deadlocks nobody."""

    async def probe(simulation: Simulation, rnd: random.Random) -> None:
        async def quit() -> str:
            """Stop."""
            if kind == "plain":
                await sessions.stop("c")
            elif kind == "shielded":
                with trio.CancelScope(shield=True):
                    await sessions.stop("c")
            elif kind == "handle":
                with trio.CancelScope(shield=True):
                    await info.agent.stop()
            else:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sessions.stop, "c")
            await trio.sleep(100)
            return "never"

        async with open_sessions(config_for(Agent(model=ScriptedModel([Call("quit")]), tools=[quit]))) as sessions:
            info = await sessions.start("c")
            receipt = await info.agent.post("x")
            with trio.fail_after(50):
                assert Cancelled(CancelCause.STOPPED) == await receipt.wait()
                await info.agent.wait_ended()
            assert not await sessions.running("c")

    probe.__name__ = f"stop_from_inside({kind})"
    return probe


# ── P6: containment ───────────────────────────────────────────────────────────────────────────────────────────────────


async def messy() -> None:
    """Raise while being cancelled, beside a sibling that is cancelled: a group of ValueError and Cancelled."""

    async def cleanup() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleanup")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cleanup)
        nursery.start_soon(trio.sleep_forever)
        await trio.sleep_forever()


def messy_store() -> FaultyStore:
    """Return a store whose load of conversation "bad" crashes when it is cancelled."""
    store = FaultyStore()
    plain = store.load

    async def load(scope: Any, conversation_id: str) -> Any:
        if conversation_id == "bad":
            await messy()
        return await plain(scope, conversation_id)

    store.load = load  # type: ignore[method-assign]  # the fault
    return store


async def start_quietly(sessions: Sessions, conversation_id: str) -> None:
    with suppress(SagentsError):
        await sessions.start(conversation_id)


async def crash_while_stopping(simulation: Simulation, rnd: random.Random) -> None:
    """P6: an agent that crashes while it is being stopped harms no sibling, and the stop returns."""
    async with open_sessions(config_for(store=messy_store())) as sessions:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start_quietly, sessions, "good")
            nursery.start_soon(start_quietly, sessions, "bad")
            await trio.sleep(1)
            assert await sessions.stop("bad")
        assert await sessions.running("good")
        assert isinstance(await (await sessions.post("good", "hi")).wait(), Completed)


async def crash_while_the_host_is_cancelled(simulation: Simulation, rnd: random.Random) -> None:
    """P6b: the same while the host is cancelled: the cancellation leaves the block, and nothing else."""
    with trio.CancelScope() as outer:
        async with open_sessions(config_for(store=messy_store())) as sessions, trio.open_nursery() as nursery:
            nursery.start_soon(start_quietly, sessions, "bad")
            await trio.sleep(1)
            outer.cancel()
    assert outer.cancelled_caught


async def tool_crashes_while_cancelled(simulation: Simulation, rnd: random.Random) -> None:
    """P6c: a tool that raises while its turn is cancelled spoils neither the outcome nor the agent."""

    async def tool() -> str:
        """Be messy."""
        await messy()
        return ""

    agent = Agent(model=ScriptedModel([["text", Call("tool")], "next"]), tools=[tool])
    async with open_sessions(config_for(agent)) as sessions:
        receipt = await sessions.post("c", "x")
        await trio.sleep(1)
        await sessions.cancel_turn("c")
        assert Cancelled(CancelCause.USER) == await receipt.wait()
        assert await sessions.running("c")
        assert isinstance(await (await sessions.post("c", "y")).wait(), Completed)


# ── P7: ways of leaving ───────────────────────────────────────────────────────────────────────────────────────────────


class HostError(Exception):
    """The host's own."""


def leaving(kind: str) -> Probe:
    """P7: whichever way the block is left, what it raised leaves as that object, and the turn is saved at once."""

    async def probe(simulation: Simulation, rnd: random.Random) -> None:
        error: BaseException | None = {"raise": HostError("mine"), "kbi": KeyboardInterrupt()}.get(kind)
        config = config_for(
            Agent(model=ScriptedModel(lambda _: "0123456789", chunk_size=1, chunk_interval=0.1)), latency=rnd.choice((0, 0.01))
        )
        left: BaseException | None = None
        with trio.CancelScope() as outer:
            try:
                async with open_sessions(config) as sessions:
                    await sessions.post("c", "x")
                    await trio.sleep(0.55)
                    if error is not None:
                        raise error
                    if kind == "cancel":
                        outer.cancel()
                        await trio.sleep(0)
            except trio.Cancelled:
                raise
            except BaseException as exc:
                left = exc
        assert error is left
        assert outer.cancelled_caught == (kind == "cancel")
        saved = [record for commit in config.store.commits for record in commit.messages if record["role"] == "assistant"]
        assert 1 == len(saved)
        assert ("stop" if kind == "normal" else "cancelled") == saved[0]["stop_reason"]
        assert trio.current_time() <= (3 if kind == "normal" else 0.7)

    probe.__name__ = f"leaving({kind})"
    return probe


# ── P8: contexts ──────────────────────────────────────────────────────────────────────────────────────────────────────

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")


async def contexts(simulation: Simulation, rnd: random.Random) -> None:
    """P8: an agent boots in the context of open_sessions; each turn runs in that of its post, all of its steps."""
    seen: list[str] = []

    async def look() -> str:
        """Look."""
        for _ in range(2):
            seen.append(WHO.get())
            await trio.sleep(0)
        return "ok"

    agent = Agent(model=ScriptedModel([Call("look"), "1", Call("look"), "2"]), tools=[look])

    class Router:
        async def resolve(self, *_: Any) -> Any:
            return self, None

        async def create_agent(self, *_: Any) -> Agent:
            seen.append(WHO.get())
            return agent

    WHO.set("host")
    async with open_sessions(config_for(Router())) as sessions:
        for caller in ("alice", "bob"):
            WHO.set(caller)
            await (await sessions.post("c", "hi")).wait()
    assert ["host", "alice", "alice", "bob", "bob"] == seen


# ── P9, P10: broadcast ────────────────────────────────────────────────────────────────────────────────────────────────

CAP = 8


async def broadcast_story(simulation: Simulation, rnd: random.Random) -> None:
    """Three agents come and go, and one reader dozes and is cancelled: each gap has a Gap, and nothing is unbounded."""
    problems: list[str] = []

    def reply(request: Any) -> Any:
        return rnd.choice(("x" * rnd.choice((3, 30)), ["ab", *[Call("no")] * rnd.choice((1, 20))], "y"))

    agent = Agent(model=ScriptedModel(reply, chunk_size=2, chunk_interval=rnd.choice((0, 0.001))))
    policy = {"subscriber_events": CAP, "replay_events": rnd.choice((8, 1024))}
    async with (
        open_sessions(config_for(agent, inactivity_timeout=2.0, policy=policy)) as sessions,
        sessions.open_subscriber() as subscriber,
    ):
        reader = Reader(subscriber, problems, rnd)
        for name in "abc":
            await subscriber.subscribe(name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.run)
            for name in "abc":
                await sessions.start(name, initial_subscribers=[subscriber])
                for _ in range(3):
                    await sessions.post(name, "x")
                    await trio.sleep(rnd.choice((0, 0.01, 3.0)))
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
        assert 0 == sessions.statistics().agents
        assert reader.shutdowns <= reader.snapshots
    assert [] == problems


@attrs.define(eq=False)
class Reader:
    """Reads, dozes, is cancelled, and compares the numbers of each conversation."""

    subscriber: Subscriber
    problems: list[str]
    rnd: random.Random
    last: dict[str, int] = attrs.field(factory=dict)
    lagging: set[str] = attrs.field(factory=set)
    snapshots: int = 0
    """Of agents, or the gaps in place of a snapshot."""
    shutdowns: int = 0

    async def run(self) -> None:
        batches = self.subscriber.batches()
        while True:
            with trio.move_on_after(self.rnd.choice((0.0005, 0.01, 5.0))):
                if self.rnd.random() < 0.5:
                    batch = list(await batches.__anext__())
                else:
                    batch = [await self.subscriber.__anext__()]
                counts = collections.Counter(envelope.conversation_id for envelope in batch)
                if max(counts.values()) > 2 * (CAP + 3):
                    self.problems.append(f"a batch of {counts}")
                for envelope in batch:
                    self.see(envelope)
            if self.rnd.random() < 0.3:
                await trio.sleep(self.rnd.choice((0.01, 1.0)))

    def see(self, envelope: Envelope) -> None:
        name, event, last = envelope.conversation_id, envelope.event, self.last.get(envelope.conversation_id)
        if isinstance(event, Snapshot):
            self.snapshots += 1
            if last is not None and name not in self.lagging and last != envelope.seq:
                self.problems.append(f"{name}: a snapshot at {envelope.seq} after {last}, and no gap")
            self.lagging.discard(name)
            self.last[name] = envelope.seq
        elif isinstance(event, Gap):
            # An agent whose events were not read in time begins with a gap over all of them.
            if event.first != (last or 0) + 1 or event.last < event.first:
                self.problems.append(f"{name}: {event} after {last}")
            self.snapshots += last is None
            self.lagging.add(name)
            self.last[name] = event.last
        else:
            if last is None:
                self.problems.append(f"{name}: {event} before any snapshot")
            elif envelope.first_seq != last + 1:
                self.problems.append(f"{name}: a hole from {last} to {envelope.first_seq}")
            self.last[name] = envelope.seq
            if isinstance(event, AgentShutdown):
                self.shutdowns += 1
                self.lagging.discard(name)
                self.last.pop(name, None)


async def noisy_and_quiet(simulation: Simulation, rnd: random.Random) -> None:
    """A noisy conversation never pushes out a quiet one, and is never delivered twice before it."""
    replies = lambda request: ["x", *[Call("no")] * 60] if len(request.messages) < 3 else "done"  # noqa: E731
    async with open_sessions(config_for(Agent(model=ScriptedModel(replies)))) as sessions, sessions.open_subscriber() as subscriber:
        for name in ("noisy", "quiet"):
            await sessions.ensure_running(name, subscriber)
        await (await sessions.post("noisy", "x")).wait()
        await (await sessions.get("quiet")).touch()
        receipt = await sessions.post("quiet", "x")
        await receipt.wait()
        names = []
        with trio.move_on_after(10):
            while "quiet" not in names:
                names.append((await subscriber.__anext__()).conversation_id)
        assert "quiet" in names


async def cursor_places(simulation: Simulation, rnd: random.Random) -> None:
    """A reader who continues after any cursor gets the rest without a gap, while others read the same log."""
    async with open_sessions(
        config_for(Agent(model=ScriptedModel(lambda _: "abcdefghijklmnop", chunk_size=1, chunk_interval=0.01)))
    ) as sessions:
        seen: list[Envelope] = []

        async def read() -> None:
            async with sessions.open_subscriber() as subscriber:
                await sessions.ensure_running("c", subscriber)
                while not of_kind(seen, TurnEnded):
                    seen.append(await subscriber.__anext__())

        async def rejoin() -> None:
            await trio.sleep(rnd.random() * 0.2)
            if not seen or of_kind(seen, TurnEnded):
                return
            index = rnd.randrange(len(seen))
            before_it = seen[: index + 1]
            async with sessions.open_subscriber() as subscriber:
                await subscriber.subscribe("c", after=before_it[-1].cursor)
                rest: list[Envelope] = []
                while not of_kind(rest, TurnEnded):
                    rest.append(await subscriber.__anext__())
            check_no_hole([*before_it, *rest])
            streaming = seen[0].event.streaming
            before = "" if streaming is None else "".join(part.text for part in streaming.parts)
            assert "abcdefghijklmnop" == before + "".join(event.text for event in of_kind([*before_it, *rest], TextDelta))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.sleep(0.01)
            await sessions.post("c", "x")
            for _ in range(4):
                nursery.start_soon(rejoin)


# ── P12, P13 ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def stubborn_tool(simulation: Simulation, rnd: random.Random) -> None:
    """P12: a tool that shields itself delays the stop, and is named after cancel_grace."""

    async def stubborn() -> str:
        """Shield."""
        with trio.CancelScope(shield=True):
            await trio.sleep(100)
        return "done"

    agent = Agent(model=ScriptedModel([Call("stubborn")]), tools=[stubborn])
    named: list[float] = []

    async def listen() -> None:
        async with sessions.open_subscriber() as subscriber:
            await sessions.ensure_running("c", subscriber)
            async for envelope in subscriber:
                if isinstance(envelope.event, ToolIgnoresCancellation):
                    named.append(trio.current_time())

    async with open_sessions(config_for(agent, policy={"cancel_grace": 5.0})) as sessions, trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await sessions.post("c", "x")
        await trio.sleep(1)
        await (sessions.stop("c") if rnd.random() < 0.5 else sessions.cancel_turn("c"))
        assert 100 <= trio.current_time() <= 102
        nursery.cancel_scope.cancel()
    assert 1 == len(named)
    assert 6 <= named[0] <= 7


async def wait_idle_after_post(simulation: Simulation, rnd: random.Random) -> None:
    """P13: wait_idle right after, or during, a post returns when the message is answered, not before."""
    async with open_sessions(config_for(latency=rnd.choice((0, 0.01)))) as sessions:
        agent = (await sessions.start("c")).agent
        async with trio.open_nursery() as nursery:
            if rnd.random() < 0.5:
                await agent.post("x")
            else:
                nursery.start_soon(agent.post, "x")
                await trio.testing.wait_all_tasks_blocked(0.0001)
            await agent.wait_idle()
            assert ["user", "assistant"] == [message.role for message in (await agent.state()).messages]


# ── P14: the end of an incarnation ────────────────────────────────────────────────────────────────────────────────────


async def start_after_stop_during_a_post(simulation: Simulation, rnd: random.Random) -> None:
    """An id is free only when the last submitted write has ended, and a load queues after it: no conflict, and nothing is lost."""
    store = FaultyStore()
    store.faults.latency["commit"] = rnd.choice((0.01, 1.0))
    acknowledged: list[str] = []

    async def post(agent: Any, text: str) -> None:
        with suppress(AgentNotRunning):
            await agent.post(text, message_id=text)
            acknowledged.append(text)

    async with open_sessions(config_for(store=store)) as sessions:
        for index in range(3):
            agent = (await sessions.start("c")).agent
            async with trio.open_nursery() as nursery:
                nursery.start_soon(post, agent, f"m{index}")
                await trio.sleep(rnd.choice((0, 0.001)))
                nursery.start_soon(sessions.stop, "c")
                await trio.sleep(rnd.choice((0, 0.0005)))
                nursery.start_soon(sessions.start, "c")
        agent = (await sessions.start("c")).agent
        await agent.wait_idle()
        texts = [message.text for message in (await agent.state()).messages if message.role == "user"]
        assert len(set(texts)) == len(texts)
        assert set(acknowledged) <= set(texts)
        assert "re: last" == (await (await sessions.post("c", "last")).wait()).message.text


async def nothing_is_written_after_the_stop(simulation: Simulation, rnd: random.Random) -> None:
    """P15: when stop returned, no write of that agent is pending: the store is quiet, and the last word came after the last write."""
    store = FaultyStore()
    store.faults.latency["commit"] = 0.5
    async with open_sessions(config_for(store=store)) as sessions:
        agent = (await sessions.start("c")).agent
        async with trio.open_nursery() as nursery:
            for index in range(3):
                nursery.start_soon(ignore, agent.post, f"m{index}")
            await trio.sleep(rnd.choice((0.0, 0.2, 0.7)))
            await sessions.stop("c")
            count, pending = len(store.commits), sessions.statistics().pending_writes
            await trio.sleep(10)
        assert (0, len(store.commits)) == (pending, count)


# ── P21, P24 ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def hung_load(simulation: Simulation, rnd: random.Random) -> None:
    """A boot that hangs, left by all its callers, is ended by start_timeout, and the next start is a new one."""
    store = FaultyStore()
    store.faults.hang("load")
    async with open_sessions(config_for(store=store, policy={"start_timeout": 10.0})) as sessions:
        with trio.move_on_after(5):
            await sessions.start("c")
        with trio.fail_after(20):
            with suppress(StartFailed):
                await sessions.start("c")
            assert (await sessions.start("c")).agent


async def interrupts_and_duplicates(simulation: Simulation, rnd: random.Random) -> None:
    """Interrupting posts and duplicates at once: each message counts once, the first turn is cut, the last one is completed."""
    agent = Agent(model=ScriptedModel(lambda _: "x" * 20, chunk_size=1, chunk_interval=0.01))
    receipts: dict[int, Any] = {}

    async def post(number: int, text: str, overlap: Any) -> None:
        receipts[number] = await sessions.post("c", text, message_id=text, overlap=overlap)

    async with open_sessions(config_for(agent, latency=0.003)) as sessions:
        await sessions.post("c", "m1", message_id="m1")
        await trio.sleep(0.05)
        async with trio.open_nursery() as nursery:
            for number, (text, overlap) in enumerate((("m2", "queue"), ("m3", "interrupt"), ("m4", "interrupt"), ("m2", "queue"))):
                nursery.start_soon(post, number, text, overlap)
        handle = await sessions.get("c")
        with trio.fail_after(10):
            await handle.wait_idle()
        state = await handle.state()
        users = [message.message_id for message in state.messages if message.role == "user"]
        stops = [message.stop_reason for message in state.messages if message.role == "assistant"]

        assert ["m1", "m2", "m3", "m4"] == sorted(users)
        assert "m1" == users[0]
        assert ("cancelled", "stop") == (stops[0], stops[-1])
        assert 3 == sum(not receipt.duplicate for receipt in receipts.values())


async def commits_are_in_order(simulation: Simulation, rnd: random.Random) -> None:
    """P25: the writer is the single order of a conversation, whatever the store's latency: revisions rise, posts stay in order."""
    store = FaultyStore()
    states: list[int] = []
    plain = store.commit

    async def commit(scope: Any, commit: Any) -> int:
        await trio.sleep(rnd.choice((0, 0.001, 0.1)))
        states.append(commit.revision)
        return await plain(scope, commit)

    store.commit = commit  # type: ignore[method-assign]  # a store of varying speed
    async with open_sessions(config_for(store=store)) as sessions:
        agent = (await sessions.start("c")).agent
        async with trio.open_nursery() as nursery:
            for index in range(6):
                nursery.start_soon(agent.post, str(index))
        await agent.wait_idle()
        assert list(range(1, len(states) + 1)) == states


async def failed_write_and_those_behind_it(simulation: Simulation, rnd: random.Random) -> None:
    """After a failed write the later writes fail with it, memory equals the store, and the next post works."""
    store = FaultyStore()
    store.faults.latency["commit"] = 0.01
    failed: list[str] = []

    async def post(text: str) -> None:
        try:
            await agent.post(text, message_id=text)
        except PersistenceError:
            failed.append(text)

    async with open_sessions(config_for(store=store)) as sessions, sessions.open_subscriber() as subscriber:
        agent = (await sessions.start("c", initial_subscribers=[subscriber])).agent
        store.faults.fail("commit", rnd.randrange(1, 4))
        async with trio.open_nursery() as nursery:
            for text in "abcd":
                nursery.start_soon(post, text)
        assert await (await sessions.post("c", "last")).wait()
        await agent.wait_idle()
        messages = (await agent.state()).messages
        stored = [record["message_id"] for commit in store.commits for record in commit.messages]
        assert stored == [message.message_id for message in messages]
        users = {message.message_id for message in messages if message.role == "user"}
        assert not users & set(failed)
        assert {"a", "b", "c", "d"} - set(failed) <= users
        with trio.move_on_after(1):
            while True:
                event = (await subscriber.__anext__()).event
                assert not isinstance(event, ChainError) or event.unsaved


# ── the story ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def story(simulation: Simulation, rnd: random.Random) -> None:
    """Everything at once, from four clients over two conversations; whatever happens, the invariants hold."""
    store = FaultyStore()
    store.faults.latency["commit"] = rnd.choice((0, 0.001, 0.01))
    acknowledged: list[tuple[str, str]] = []
    live: collections.Counter[str] = collections.Counter()
    problems: list[str] = []

    async def quit(conversation_id: str) -> str:
        """Stop the agent that asks."""
        await sessions.stop(conversation_id)
        await trio.sleep(1)
        return ""

    def reply(request: Any) -> Any:
        said = request.messages[-1].text
        if said.startswith("boom"):
            return ["partial", ValueError("model")]
        if said.startswith("stop"):
            return ["partial", Call("quit", conversation_id=said[-1])]
        return "re " + said

    inner = ScriptedModel(reply, chunk_size=3, chunk_interval=rnd.choice((0, 0.01, 1)))

    class Counting:
        name = "counting"

        @asynccontextmanager
        async def stream(self, request: Any) -> Any:
            live[request.system] += 1
            try:
                async with inner.stream(request) as chunks:
                    yield chunks
            finally:
                live[request.system] -= 1

    model = Counting()

    class Router:
        async def resolve(self, scope: Any, conversation_id: str, request_opts: Any) -> Any:
            return self, conversation_id

        async def create_agent(self, agent_id: str, config: Any) -> Agent:
            return Agent(model=model, tools=[quit], system_prompt=config)

    config = config_for(Router(), store=store, inactivity_timeout=5.0, policy={"grace_period": rnd.choice((0.0, 1.0, 30.0))})
    async with open_sessions(config) as sessions, sessions.open_subscriber() as subscriber:

        async def act(number: int, step: int) -> None:
            name = rnd.choice("ab")
            match rnd.choice(("start", "post", "post", "post", "stop", "cancel", "cancelled post", "sleep", "subscribe")):
                case "start":
                    await sessions.start(name)
                case "stop":
                    await sessions.stop(name, grace_period=rnd.choice((0, 0, 2)))
                case "subscribe":
                    await subscriber.subscribe(name)
                case "cancel":
                    await sessions.cancel_turn(name)
                case "sleep":
                    await trio.sleep(rnd.choice((0.001, 1, 5.0, 4.999)))
                case kind:
                    message_id = f"{number}.{step}"
                    text = f"{rnd.choice(('hi', 'hi', 'boom', 'stop'))} {message_id} {name}"
                    with trio.move_on_after(math.inf if kind == "post" else rnd.choice((0, 0.001, 0.02))):
                        await sessions.post(name, text, message_id=message_id, overlap=rnd.choice(("queue", "interrupt", "steer")))
                        acknowledged.append((name, message_id))
            if any(count > 1 for count in live.values()):
                problems.append("two agents, or two turns, for one conversation")
            stored = {message_id for commit in store.commits for message_id in commit.message_ids}
            problems.extend(
                f"{message_id} was acknowledged and is not stored" for _, message_id in acknowledged if message_id not in stored
            )

        async def client(number: int) -> None:
            for step in range(4):
                with suppress(ConversationNotFound, AgentNotRunning, StartFailed):
                    await act(number, step)

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(client, number)
        for name in "ab":  # it lives: a post works, and everything that was accepted is taken in the end
            with trio.fail_after(200):
                for attempt in range(40):
                    receipt = await sessions.post(name, f"last {name}{attempt}")
                    if isinstance(await receipt.wait(), Completed):
                        break
        await trio.sleep(20)
        assert 0 == sessions.statistics().agents, "an idle agent stayed"
        for name in "ab":
            state = await (await sessions.start(name)).agent.state()
            ids = collections.Counter(message.message_id for message in state.messages)
            for owner, message_id in acknowledged:
                if owner == name and ids[message_id] != 1:
                    problems.append(f"{message_id} is in the history {ids[message_id]} times")
            calls = [call.call_id for message in state.messages for call in message.calls]
            results = [result.call_id for message in state.messages for result in message.results]
            if sorted(calls) != sorted(results):
                problems.append(f"calls {calls}, results {results}")
    assert [] == problems


# ── they hold ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_callers_at_once() -> None:
    """The look at the registry and the reservation are one synchronous step."""
    hold(callers_at_once)


def test_message_at_the_idle_deadline_is_answered() -> None:
    """The agent looks again when the idle clock has fired, and closes in the same step."""
    hold(post_at_the_idle_deadline)


def test_post_across_the_idle_deadline_is_answered() -> None:
    """A reservation stops the idle clock; what follows a commit runs in the agent's own continuation."""
    hold(post_across_the_idle_deadline)


def test_agent_leaves_in_time() -> None:
    """A reservation that is over keeps nobody."""
    hold(agent_leaves_in_time)


def test_cancelled_post_leaves_nothing_or_an_answer() -> None:
    """What follows a commit never runs in the caller's task."""
    hold(post_is_cancelled, 80, poster_cancels)


def test_one_started() -> None:
    """The first call that returns the boot gets started=True."""
    hold(first_starter_is_cancelled)


@pytest.mark.parametrize("kind", ["plain", "shielded", "handle", "child"])
def test_stop_from_inside(kind: str) -> None:
    """A stop from inside requests the stop, passes one checkpoint, and returns."""
    hold(stop_from_inside(kind), 30)


def test_crash_while_stopping_is_contained() -> None:
    """Mixed groups are split at the agent boundary."""
    hold(crash_while_stopping, 30)


def test_crash_while_the_host_is_cancelled_is_contained() -> None:
    """What is re-raised is Cancelled alone."""
    hold(crash_while_the_host_is_cancelled, 30)


def test_tool_that_crashes_while_cancelled_is_contained() -> None:
    """Mixed groups are split at the tool boundary, too."""
    hold(tool_crashes_while_cancelled, 30)


@pytest.mark.parametrize("kind", ["normal", "raise", "kbi", "cancel"])
def test_leaving_saves_and_raises_the_very_object(kind: str) -> None:
    """The services are shielded, and the block's error is kept apart."""
    hold(leaving(kind), 30)


def test_contexts() -> None:
    """A turn is a task of its own, in a copy of its post's context; a boot is in the host's."""
    hold(contexts, 30)


def test_broadcast_story() -> None:
    """Whatever a reader does, each number comes once, or a Gap covers it."""
    hold(broadcast_story, 30)


def test_noisy_and_quiet() -> None:
    """There is at most one untaken batch for each subscription, so send_nowait cannot block and no conversation is pushed out."""
    hold(noisy_and_quiet, 8)


def test_cursor_places() -> None:
    """Every cursor that was handed out stays a place in the log."""
    hold(cursor_places)


def test_stubborn_tool_is_named() -> None:
    """ToolIgnoresCancellation after cancel_grace, and a stop that waits."""
    hold(stubborn_tool, 20)


def test_wait_idle_counts_what_is_accepted() -> None:
    """Nothing runs, nothing runnable is queued, nothing is being accepted."""
    hold(wait_idle_after_post)


def test_post_is_answered_by_the_next_agent() -> None:
    """The store's writer is the single order of a conversation."""
    hold(start_after_stop_during_a_post)


def test_nothing_is_written_after_the_stop() -> None:
    """An id is released only when the agent's last submitted write has ended."""
    hold(nothing_is_written_after_the_stop)


def test_hung_load() -> None:
    """Boots are bounded."""
    hold(hung_load, 20)


def test_interrupts_and_duplicates() -> None:
    """Each message once, in the order of the commits."""
    hold(interrupts_and_duplicates, 45)


def test_commits_are_in_order() -> None:
    """One writer for each conversation."""
    hold(commits_are_in_order)


def test_failed_write_and_those_behind_it() -> None:
    """Later submitted writes fail with the failed write."""
    hold(failed_write_and_those_behind_it)


def test_story() -> None:
    """The whole, at random."""
    hold(story, 30)


# ── undoing the mends ─────────────────────────────────────────────────────────────────────────────────────────────────

Patch = pytest.MonkeyPatch


def no_second_look(patch: Patch) -> None:
    """The agent closes because the idle clock has fired, without a second look."""
    fired: set[int] = set()
    agents: dict[_bell.Bell, Any] = {}
    prepare, plain = _agent.LiveAgent._prepare_to_wait, _bell.Bell.wait

    def prepare_to_wait(self: Any) -> None:
        agents[self.journal.bell] = self
        prepare(self)

    async def wait(self: Any) -> None:
        await plain(self)
        agent = agents[self]
        if id(agent.lifetime) in fired and agent.turns.turn is None and agent.entry.phase is Phase.LIVE:
            agent.entry.phase = Phase.STOPPING
            agent.entry.reason = ShutdownReason.INACTIVITY

    def look(self: Any) -> None:
        self._timer = None
        if isinstance(self.due(), float):
            self.arm()
        else:
            fired.add(id(self))
            self.journal.bell.ring()

    patch.setattr(_agent.LiveAgent, "_prepare_to_wait", prepare_to_wait)
    patch.setattr(_bell.Bell, "wait", wait)
    patch.setattr(_lifetime.Lifetime, "_look", look)


def no_reservation(patch: Patch) -> None:
    """A message that is being accepted does not count: the agent may leave under it."""

    def reason(self: Any) -> Any:
        due = self.lifetime.due()
        return due if isinstance(due, ShutdownReason) else None

    patch.setattr(_agent.LiveAgent, "_reason_to_leave", reason)


def reservation_never_ends(patch: Patch) -> None:
    """A reservation is never given back."""
    plain = _agent.LiveAgent._reason_to_leave
    patch.setattr(_agent.LiveAgent, "_reason_to_leave", lambda self: None if self.journal.state.message_ids else plain(self))


def acknowledge_in_the_caller(patch: Patch) -> None:
    """What follows the commit of a message runs in the task that posted it."""
    plain_stored, plain_post = _inbox.Inbox._stored, _inbox.Inbox.post
    waiting: dict[int, list[Any]] = {}

    def stored(self: Any, *args: Any) -> None:
        waiting.setdefault(id(self), []).append(args)

    async def post(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            receipt = await plain_post(self, *args, **kwargs)
            await trio.lowlevel.checkpoint()
        except SagentsError:
            receipt = None
            raise
        finally:
            if trio.current_effective_deadline() != -math.inf:
                for event in waiting.pop(id(self), []):
                    plain_stored(self, *event)
        return receipt

    patch.setattr(_inbox.Inbox, "_stored", stored)
    patch.setattr(_inbox.Inbox, "post", post)


def flag_for_the_creator(patch: Patch) -> None:
    """started=True belongs to the call that reserved the id."""
    plain = _starting.Starter.ensure

    async def ensure(self: Any, agent_id: str, conversation_id: str, *args: Any) -> Any:
        creates = self.services.registry.find(agent_id, conversation_id) is None
        entry = await plain(self, agent_id, conversation_id, *args)
        entry.started_is_taken = not creates
        return entry

    patch.setattr(_starting.Starter, "ensure", ensure)


def stop_waits_even_from_inside(patch: Patch) -> None:
    """A stop always waits for the end."""
    patch.setattr(_registry, "is_inside", lambda task: False)


def except_exception_only_at_the_agent(patch: Patch) -> None:
    """The agent boundary contains what is an Exception; mixed groups pass."""
    patch.setattr(_task, "split", lambda error: (error, None) if isinstance(error, Exception) else (None, error))


def nothing_is_contained_at_the_agent(patch: Patch) -> None:
    """An agent's error continues into the supervisor nursery."""
    patch.setattr(_task, "split", lambda error: (None, error))


def except_exception_only_at_the_tool(patch: Patch) -> None:
    """The tool boundary, and the turn's, contain what is an Exception; mixed groups pass."""
    patch.setattr(_tool_calls, "split", lambda error: (error, None) if isinstance(error, Exception) else (None, error))


def unshielded_services(patch: Patch) -> None:
    """The services live outside of the supervisor nursery, but a cancellation of the host reaches them."""
    plain = _open._open_service_nursery

    async def open_service_nursery(scope: Any, *, task_status: Any) -> None:
        async with trio.open_nursery() as nursery:
            inner = trio.CancelScope()  # not the scope that is shielded later, so a cancellation of the host reaches it
            nursery.start_soon(functools.partial(plain, inner, task_status=task_status))
            with scope:
                await trio.sleep_forever()
            inner.cancel()

    patch.setattr(_open, "_open_service_nursery", open_service_nursery)


def literal_nesting(patch: Patch) -> None:
    """The block's error passes through the nurseries like any other."""

    def raise_both(host: BaseException | None, exc: BaseException) -> None:
        raise exc

    @asynccontextmanager
    async def run_sessions(config: Any, adapter: Any, keeper: Any, watch: Any, scope_of: Any) -> Any:
        async with trio.open_nursery() as services:
            shield = trio.CancelScope(shield=True)
            writing = await services.start(_open._open_service_nursery, shield)
            timers = _open.Timers()
            writing.start_soon(timers.run)
            try:
                async with trio.open_nursery() as supervisor:
                    block = _open.Block.of(config, adapter, keeper, writing, timers, supervisor)
                    yield block.sessions
                    await _open.close_agents(block.close(), None)
            finally:
                shield.cancel()

    patch.setattr(_open, "_raise_both", raise_both)
    patch.setattr(_open, "_run_sessions", run_sessions)


def turn_in_the_agents_context(patch: Patch) -> None:
    """The context of a post is forgotten."""

    class Forgetful:
        copy_context = staticmethod(lambda: contextvars.Context())
        Context = contextvars.Context

    patch.setattr(_inbox, "contextvars", Forgetful)


def boot_in_the_callers_context(patch: Patch) -> None:
    """An agent boots in the context of the caller who starts it first."""
    plain = _starting.Starter._reserve

    class Direct:
        def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        def copy(self) -> Any:
            return contextvars.copy_context()

    def reserve(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.services.registry.context = Direct()
        return plain(self, *args, **kwargs)

    patch.setattr(_starting.Starter, "_reserve", reserve)


def joining_across_a_place(patch: Patch) -> None:
    """Deltas in the log are joined although a reader's place is between them; soon, because the answer of the probe is short."""
    patch.setattr(_feed, "PIECES", 2)
    patch.setattr(_feed.Feed, "_sealed", property(lambda self: 0, lambda self, value: None))


def no_gap(patch: Patch) -> None:
    """A reader that missed something is given the present, and not told."""
    plain = _subscription.Subscription._lagged

    def lagged(self: Any, *args: Any, **kwargs: Any) -> Any:
        return tuple(envelope for envelope in plain(self, *args, **kwargs) if not isinstance(envelope.event, Gap))

    patch.setattr(_subscription.Subscription, "_lagged", lagged)


def no_bound(patch: Patch) -> None:
    """An untaken batch grows for ever."""
    plain = _subscription.Subscription.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        self.most_events = math.inf

    patch.setattr(_subscription.Subscription, "__init__", init)


def shutdown_is_lost_in_the_gap(patch: Patch) -> None:
    """What an ended agent left untaken is dropped with it."""
    plain = _subscription.Subscription.end

    def end(self: Any) -> None:
        plain(self)
        self._backlog = ()

    patch.setattr(_subscription.Subscription, "end", end)


def one_bounded_channel(patch: Patch) -> None:
    """All conversations of a subscriber share one bounded channel, and what does not fit is dropped."""
    plain = _subscription.Subscription.announce

    def announce(self: Any) -> None:
        if self._mailbox.announce.__self__._announced.count < 1:
            plain(self)

    patch.setattr(_subscription.Subscription, "announce", announce)


def nobody_is_named(patch: Patch) -> None:
    """Nobody looks for tools that ignore their cancellation."""
    patch.setattr(_turns.Turn, "_name_stuck_tools", lambda self: None)


def rest_is_the_status_alone(patch: Patch) -> None:
    """wait_idle looks whether a turn runs, and at nothing else."""
    patch.setattr(_agent.LiveAgent, "is_at_rest", property(lambda self: self.turns.turn is None))


def released_before_the_last_write(patch: Patch) -> None:
    """An id is free while a write of its agent is pending."""

    async def wait_settled(self: Any) -> None:
        return None

    patch.setattr(_agent.LiveAgent, "wait_settled", wait_settled)


def load_does_not_queue(patch: Patch) -> None:
    """An id is free while a write of its agent is pending, and a load does not wait for it either."""

    async def wait_free(self: Any, conversation_id: str) -> None:
        return None

    released_before_the_last_write(patch)
    patch.setattr(commit_queue.CommitQueue, "_wait_free", wait_free)


def unbounded_boot(patch: Patch) -> None:
    """A boot may take for ever."""
    patch.setattr(_task, "_give_up", lambda entry, start_timeout: None)


def interrupt_does_not_cancel(patch: Patch) -> None:
    """overlap="interrupt" is queued like any message."""
    plain = _inbox.Inbox._stored

    def stored(self: Any, message: Any, accepted: Any, *args: Any) -> None:
        accepted.overlap = "queue"
        plain(self, message, accepted, *args)

    patch.setattr(_inbox.Inbox, "_stored", stored)


def reservations_are_not_compared(patch: Patch) -> None:
    """A message id that is being accepted is not known yet."""
    plain = _inbox.Inbox._examine

    def examine(self: Any, *args: Any) -> Any:
        reserved, self.reserved = self.reserved, {}
        try:
            return plain(self, *args)
        finally:
            self.reserved = reserved

    patch.setattr(_inbox.Inbox, "_examine", examine)


def writes_side_by_side(patch: Patch) -> None:
    """Each write is a task of its own."""

    def submit(self: Any, write: Any) -> Any:
        async def work() -> None:
            saved, error = await self._save(write)
            write.finish(saved, error)

        self.nursery.start_soon(work)
        return write

    patch.setattr(commit_queue.CommitQueue, "submit", submit)


def writes_behind_a_failed_one_go_on(patch: Patch) -> None:
    """A write after a failed one is tried, with the revision that it was given."""

    async def work(self: Any, conversation_id: str, queue: Any) -> None:
        try:
            while queue:
                write = queue[0]
                saved, error = await self._save(write)
                queue.popleft()
                write.finish(saved, error)
        finally:
            del self._queues[conversation_id]
            if (free := self._free.pop(conversation_id, None)) is not None:
                free.set()

    patch.setattr(commit_queue.CommitQueue, "_work", work)


def two_agents(patch: Patch) -> None:
    """The look at the registry and the reservation are two steps."""
    plain = _starting.Starter.ensure

    async def ensure(self: Any, agent_id: str, *args: Any) -> Any:
        found = self.services.registry.find(agent_id, args[0])
        await trio.lowlevel.checkpoint()
        if found is None:
            self.services.registry._entries.pop(agent_id, None)
        return await plain(self, agent_id, *args)

    patch.setattr(_starting.Starter, "ensure", ensure)


MUTATIONS: list[tuple[Callable[[Patch], None], Probe, dict[str, Any]]] = [
    (no_second_look, post_at_the_idle_deadline, {}),
    (no_reservation, post_across_the_idle_deadline, {}),
    (reservation_never_ends, agent_leaves_in_time, {}),
    (acknowledge_in_the_caller, post_is_cancelled, {"seeds": 80, "cancels": poster_cancels}),
    (flag_for_the_creator, first_starter_is_cancelled, {}),
    (two_agents, callers_at_once, {}),
    (stop_waits_even_from_inside, stop_from_inside("shielded"), {}),
    (stop_waits_even_from_inside, stop_from_inside("handle"), {}),
    (nothing_is_contained_at_the_agent, crash_while_stopping, {}),
    (except_exception_only_at_the_agent, crash_while_the_host_is_cancelled, {}),
    (except_exception_only_at_the_tool, tool_crashes_while_cancelled, {}),
    (unshielded_services, leaving("cancel"), {}),
    (literal_nesting, leaving("raise"), {}),
    (literal_nesting, leaving("kbi"), {}),
    (turn_in_the_agents_context, contexts, {}),
    (boot_in_the_callers_context, contexts, {}),
    (joining_across_a_place, cursor_places, {}),
    (no_gap, broadcast_story, {"seeds": 60}),
    (no_bound, broadcast_story, {"seeds": 60}),
    (shutdown_is_lost_in_the_gap, broadcast_story, {"seeds": 60}),
    (one_bounded_channel, noisy_and_quiet, {}),
    (nobody_is_named, stubborn_tool, {}),
    (rest_is_the_status_alone, wait_idle_after_post, {}),
    (load_does_not_queue, start_after_stop_during_a_post, {}),
    (released_before_the_last_write, nothing_is_written_after_the_stop, {}),
    (unbounded_boot, hung_load, {}),
    (interrupt_does_not_cancel, interrupts_and_duplicates, {}),
    (reservations_are_not_compared, interrupts_and_duplicates, {}),
    (writes_side_by_side, commits_are_in_order, {}),
    (writes_behind_a_failed_one_go_on, failed_write_and_those_behind_it, {}),
    (load_does_not_queue, story, {"seeds": 60}),
]


@pytest.mark.parametrize(("mutation", "probe", "settings"), MUTATIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_probe_fails_when_its_mend_is_undone(
    mutation: Callable[[Patch], None], probe: Probe, settings: dict[str, Any], monkeypatch: Patch
) -> None:
    """The probe sees what its mend is for: without it, some schedule goes wrong."""
    mutation(monkeypatch)
    with pytest.raises(ProbeFailed) as caught:
        hold(probe, **settings)
    # A mutation that no longer fits the library proves nothing.
    for broken in ("AttributeError", "NameError", "UnboundLocalError", "takes ", "unexpected keyword"):
        assert broken not in str(caught.value)
    print(f"{mutation.__name__}: {caught.value}")  # -s shows which schedule
