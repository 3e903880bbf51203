"""What a factory says about one session holds for that session, and for no other one: each option has its effect."""

from collections.abc import Mapping
from typing import Any, Final

import attrs
import pytest
import trio

from tests.support.records import drafts_of
from tests.support.scenarios import FaultyStore, Router, answer_to, ask, kill_9, make_agent, of_kind, opened, read_all, slow_agent, state_of
from trio_sagents import (
    Agent,
    AgentShutdown,
    CancelCause,
    Cancelled,
    LimitExceeded,
    MemoryStore,
    QueueFull,
    SessionOpts,
    Sessions,
    Snapshot,
    StartFailed,
    ToolIgnoresCancellation,
    Unanswered,
    UserMessage,
)
from trio_sagents.testing import Call

OWN: Final = "own"
"""The conversation whose factory says something."""
OTHER: Final = "other"


@attrs.define(eq=False)
class Routed(Router):
    """A router whose factory gives its options to one of two conversations."""

    overrides: Mapping[str, Any] = attrs.field(factory=dict)

    async def create_agent(self, agent_id: str, config: Any) -> Any:
        """Build an agent, and for one conversation its options."""
        agent = await super().create_agent(agent_id, config)
        return (agent, SessionOpts(supervisor_opts=self.overrides)) if agent_id.endswith(OWN) else agent


def routed(agent: Agent | None = None, **overrides: Any) -> Routed:
    """Return a router with these overrides."""
    return Routed(agent or make_agent(), overrides=overrides)


async def seconds_until_ended(sessions: Sessions, conversation_id: str) -> float:
    """Wait until an agent ends by itself, and return how long that took."""
    began = trio.current_time()
    await (await sessions.get(conversation_id)).wait_ended()
    return trio.current_time() - began


async def test_inactivity_timeout_of_a_session(autojump_clock: Any) -> None:
    """One agent leaves after its own time of idleness, the other after that of the block."""
    async with opened(routed(inactivity_timeout=5.0), inactivity_timeout=50.0) as sessions:
        for conversation_id, seconds in ((OWN, 5), (OTHER, 50)):
            await sessions.start(conversation_id)
            assert seconds <= await seconds_until_ended(sessions, conversation_id) <= seconds + 1


async def test_viewer_grace_of_a_session(autojump_clock: Any) -> None:
    """One agent leaves its own grace after its last viewer, the other that of the block."""
    async with opened(routed(viewer_grace=7.0), policy={"viewer_grace": 20.0}) as sessions:
        for conversation_id, seconds in ((OWN, 7), (OTHER, 20)):
            async with sessions.watch(conversation_id, viewer="alice"):
                pass
            assert seconds <= await seconds_until_ended(sessions, conversation_id) <= seconds + 1


async def post_to_both(sessions: Sessions) -> None:
    for conversation_id in (OWN, OTHER):
        await sessions.post(conversation_id, "go")
    await trio.sleep(1)


@pytest.mark.parametrize("own", [5.0, 50.0])
async def test_grace_period_of_a_session(autojump_clock: Any, own: float) -> None:
    """When the block is left, each turn may take the grace of its own session, be that shorter or longer than the block's."""
    async with (
        opened(routed(slow_agent(seconds=1000), grace_period=own), policy={"grace_period": 20.0}) as sessions,
        sessions.open_subscriber() as subscriber,
    ):
        for conversation_id in (OWN, OTHER):
            await subscriber.subscribe(conversation_id)
        await post_to_both(sessions)
        began = trio.current_time()
        report = await sessions.drain()

        ends = {
            envelope.conversation_id: envelope.event for envelope in await read_all(subscriber) if isinstance(envelope.event, AgentShutdown)
        }
        assert {OWN, OTHER} == set(ends)
        assert max(own, 20) <= trio.current_time() - began <= max(own, 20) + 1
        seconds = (ends[OTHER].shutdown_at - ends[OWN].shutdown_at).total_seconds()
        assert (2, seconds < 0) == (report.cancelled, own > 20)


async def test_grace_period_of_a_session_when_the_block_is_left(autojump_clock: Any) -> None:
    """Leaving the block normally gives a turn the grace of its session."""
    async with opened(routed(slow_agent(seconds=1000), grace_period=2.0)) as sessions:
        receipt = await sessions.post(OWN, "go")
        await trio.sleep(1)
        began = trio.current_time()

    assert 2 <= trio.current_time() - began <= 3
    assert Cancelled(CancelCause.CLOSED) == await receipt.wait()


async def test_settle_timeout_of_a_session(autojump_clock: Any) -> None:
    """A stop waits for a store that does not answer as long as the session says."""
    store = FaultyStore()
    async with opened(routed(slow_agent(seconds=1000), settle_timeout=3.0), store=store, policy={"settle_timeout": 11.0}) as sessions:
        await post_to_both(sessions)
        store.faults.latency["commit"] = 1e5
        for conversation_id, seconds in ((OWN, 3), (OTHER, 11)):
            began = trio.current_time()
            await sessions.stop(conversation_id)
            assert seconds <= trio.current_time() - began <= seconds + 1
        store.faults.latency.clear()


async def test_cancel_grace_of_a_session(autojump_clock: Any) -> None:
    """A tool that ignores its cancellation is named after the grace of its session."""

    async def stubborn() -> str:
        """Shield."""
        with trio.CancelScope(shield=True):
            await trio.sleep(60)
        return "done"

    agent = Agent(model=make_agent(Call("stubborn"), Call("stubborn")).model, tools=[stubborn])
    async with opened(routed(agent, cancel_grace=4.0), policy={"cancel_grace": 30.0}) as sessions:
        for conversation_id, seconds in ((OWN, 4), (OTHER, 30)):
            async with sessions.watch(conversation_id) as watch, trio.open_nursery() as nursery:
                await sessions.post(conversation_id, "go")
                await trio.sleep(1)
                nursery.start_soon(lambda conversation_id=conversation_id: sessions.cancel_turn(conversation_id))
                began = trio.current_time()
                while not of_kind(await read_all(watch), ToolIgnoresCancellation):
                    await trio.sleep(0.25)
                assert seconds <= trio.current_time() - began <= seconds + 1


async def test_draft_interval_of_a_session(autojump_clock: Any) -> None:
    """Drafts are saved as often as the session says."""
    store = FaultyStore()
    async with opened(
        routed(slow_agent("x" * 1000, seconds=100), draft_interval=2.0), store=store, policy={"draft_interval": 40.0}
    ) as sessions:
        drafts = []
        for conversation_id in (OWN, OTHER):
            await answer_to(sessions, "go", conversation_id)
            drafts.append(len(drafts_of(store.commits)))
            store.commits.clear()

    assert drafts[0] >= 25
    assert drafts[1] <= 3


async def test_queue_limit_of_a_session(autojump_clock: Any) -> None:
    """The queue takes as many messages as the session says."""
    async with opened(routed(slow_agent(seconds=1000), queue_limit=1), policy={"queue_limit": 3, "grace_period": 0.0}) as sessions:
        await post_to_both(sessions)
        for conversation_id, limit in ((OWN, 1), (OTHER, 3)):
            for _ in range(limit):
                await sessions.post(conversation_id, "and")
            with pytest.raises(QueueFull) as caught:
                await sessions.post(conversation_id, "more")
            assert limit == caught.value.limit


async def test_replay_events_of_a_session(autojump_clock: Any) -> None:
    """An agent keeps as many events for those who come back as its session says; with fewer they get a snapshot instead."""
    async with opened(routed(slow_agent("x" * 100, seconds=10), replay_events=2)) as sessions:
        for conversation_id, has_snapshot in ((OWN, True), (OTHER, False)):
            async with sessions.watch(conversation_id) as watch:
                place = (await read_all(watch))[-1].cursor
            await answer_to(sessions, "go", conversation_id)
            async with sessions.watch(conversation_id, after=place) as watch:
                assert has_snapshot == bool(of_kind(await read_all(watch), Snapshot))


async def test_max_message_bytes_of_a_session(autojump_clock: Any) -> None:
    """A message may be as long as the session says."""
    async with opened(routed(max_message_bytes=10)) as sessions:
        with pytest.raises(LimitExceeded) as caught:
            await sessions.post(OWN, "x" * 11)
        assert "re: " + "x" * 11 == await answer_to(sessions, "x" * 11, OTHER)

    assert ("max_message_bytes", 10) == (caught.value.limit, caught.value.most)


async def test_max_state_bytes_of_a_session(autojump_clock: Any) -> None:
    """The state of a conversation may be as large as the session says."""
    async with opened(routed(make_agent(), max_state_bytes=2000)) as sessions:
        with pytest.raises(LimitExceeded) as caught:
            await sessions.post(OWN, "x" * 3000)
        await answer_to(sessions, "x" * 3000, OTHER)

    assert ("max_state_bytes", 2000) == (caught.value.limit, caught.value.most)


@pytest.mark.parametrize("bound", [{"window": 2}, {"window_bytes": 500}])
async def test_window_of_a_session(autojump_clock: Any, bound: Any) -> None:
    """An agent keeps as many messages as the session says, or as many bytes."""
    async with opened(routed(make_agent(), **bound)) as sessions:
        for number in range(4):
            await ask(sessions, str(number), OWN)
            await ask(sessions, str(number), OTHER)

        assert (4, 4) == ((state := await state_of(sessions, OWN)).older, len(state.messages))
        assert (0, 8) == ((state := await state_of(sessions, OTHER)).older, len(state.messages))


async def test_max_tool_output_bytes_of_a_session(autojump_clock: Any) -> None:
    """The model reads as much of a tool's output as the session says."""

    async def talk() -> str:
        """Talk."""
        return "x" * 1000

    read: list[int] = []

    def reply(request: Any) -> Any:
        results = [result for message in request.messages for result in message.results]
        read.extend(len(result.content) for result in results)
        return "done" if results else Call("talk")

    agent = make_agent(tools=[talk])
    agent = attrs.evolve(agent, model=type(agent.model)(reply))
    async with opened(routed(agent, max_tool_output_bytes=100)) as sessions:
        await answer_to(sessions, "go", OWN)
        await answer_to(sessions, "go", OTHER)

    assert read[0] <= 200
    assert 1000 == read[1]


async def test_message_preprocessor_of_a_session(autojump_clock: Any) -> None:
    """A message is preprocessed as the session says."""

    async def shout(message: UserMessage, scope: Any) -> UserMessage:
        return UserMessage(message.text.upper())

    async with opened(routed(message_preprocessor=shout)) as sessions:
        assert ["re: HI", "re: hi"] == [await answer_to(sessions, "hi", OWN), await answer_to(sessions, "hi", OTHER)]


@pytest.mark.parametrize(
    ("key", "value"),
    [("max_sessions", 1), ("lease_ttl", 5.0), ("subscriber_events", 8), ("queue_limt", 1), ("queue_limit", 0), ("viewer_grace", None)],
)
async def test_option_that_cannot_be(autojump_clock: Any, key: str, value: Any) -> None:
    """A bad option fails the start at stage "build", before the store is asked; the error names the conversation and the key."""
    store = FaultyStore()
    async with opened(routed(**{key: value}), store=store) as sessions:
        with pytest.raises(StartFailed) as caught:
            await sessions.start(OWN)

        assert "build" == caught.value.stage
        assert f"conversation '{OWN}'" in str(caught.value)
        assert repr(key) in str(caught.value)
        assert (0, 0) == (store.faults.calls.total(), sessions.statistics().agents)
        assert (await sessions.start(OTHER)).started


async def test_seed_that_cannot_be(autojump_clock: Any) -> None:
    """A bad seed fails the start before the store is asked, whether the conversation is stored or not."""
    store, router = FaultyStore(), Router()
    async with opened(router, store=store) as sessions:
        await answer_to(sessions)
        await sessions.stop("c")
        store.faults.calls.clear()
        router.opts = SessionOpts(fresh_state_attrs={"todos": [7]})
        for conversation_id in ("c", "new"):
            with pytest.raises(StartFailed) as caught:
                await sessions.start(conversation_id)
            assert "build" == caught.value.stage
            assert "fresh_state_attrs['todos'] must be Todos or texts, not int" in str(caught.value)

        assert 0 == store.faults.calls.total()


@pytest.mark.parametrize("recoveries", [1, 2])
async def test_after_crash_and_max_recoveries_of_a_session(autojump_clock: Any, recoveries: int) -> None:
    """One session continues a turn that a crash has cut, and as often as it says; the other closes it."""
    store, router = MemoryStore(), routed(slow_agent(), after_crash="continue", max_recoveries=recoveries)
    outcomes = {}
    for _ in range(recoveries + 1):
        async with opened(router, store=store) as sessions:
            for conversation_id in (OWN, OTHER):
                receipt = await sessions.post(conversation_id, "go", message_id="m")
                with trio.move_on_after(1):
                    outcomes[conversation_id] = await receipt.wait()
            store = kill_9(store)
    assert {OTHER: Unanswered("crashed")} == outcomes
    async with opened(router, store=store) as sessions:
        assert Unanswered("crashed") == await (await sessions.post(OWN, "go", message_id="m")).wait()
