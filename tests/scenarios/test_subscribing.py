"""Subscribing: calls that are cancelled or come too late, cursors of another channel, and subscribers that close."""

import contextlib
import gc
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.scenarios import (
    Verdicts,
    answer_to,
    ask,
    make_agent,
    opened,
    read_all,
    read_until,
)
from trio_sagents import (
    Agent,
    AgentShutdown,
    Gap,
    SagentsError,
    SessionConfig,
    SessionPolicy,
    Sessions,
    SessionsClosed,
    SingleFactoryRouter,
    Snapshot,
    Subscriber,
    open_sessions,
)
from trio_sagents.testing import Hang, ScriptedModel


async def test_batches_after_the_block(autojump_clock: Any) -> None:
    """A reader of batches gets what there is, and then SessionsClosed."""
    batches: list[Any] = []
    ended = trio.Event()

    async def read() -> None:
        async with sessions.open_subscriber() as subscriber:
            await subscriber.subscribe("c")
            with pytest.raises(SessionsClosed):
                async for batch in subscriber.batches():
                    batches.append(batch)
        ended.set()

    async with trio.open_nursery() as nursery:
        async with opened() as sessions:
            nursery.start_soon(read)
            await ask(sessions)

    assert ended.is_set()
    assert "AgentShutdown" == type(batches[-1][-1].event).__name__


async def test_subscriber_that_comes_with_the_start(autojump_clock: Any) -> None:
    """A subscriber that was authorised for the start is not authorised again when the agent is up; a subscriber that waited is."""
    verdicts = Verdicts()
    async with opened(make_agent(Hang()), authorizer=verdicts) as sessions, sessions.open_subscriber(scope="early") as early:
        await early.subscribe("c")
        verdicts.asked.clear()
        async with sessions.open_subscriber(scope="late") as late:
            await sessions.ensure_running("c", late)
            await trio.testing.wait_all_tasks_blocked()

            assert ["subscribed"] == list(early.subscriptions.values()) == list(late.subscriptions.values())
        assert [("late", "start"), ("late", "view"), ("early", "view")] == [(scope, action) for scope, _, action in verdicts.asked]


async def test_subscribe_with_a_place_of_the_other_channel(autojump_clock: Any) -> None:
    """A cursor of the debug channel is not a place on the main channel, so a snapshot comes first."""
    async with opened() as sessions, sessions.open_subscriber() as first, sessions.open_subscriber() as second:
        await sessions.start("c")
        await first.subscribe("c", channel="debug")
        (envelope,) = await read_all(first)
        await answer_to(sessions)
        assert isinstance(envelope.event, Snapshot)
        await second.subscribe("c", after=envelope.event.cursor)

        assert [Snapshot] == [type(envelope.event) for envelope in await read_all(second)]


async def test_subscribe_that_is_cancelled_while_the_authorizer_is_asked(autojump_clock: Any) -> None:
    """Nothing is left: the subscription is not there, and can be made again."""
    async with opened(authorizer=Verdicts(delay=5.0)) as sessions, sessions.open_subscriber() as subscriber:
        with trio.move_on_after(1):
            await subscriber.subscribe("c")

        assert {} == subscriber.subscriptions
        await subscriber.subscribe("c")
        await sessions.start("c")
        with trio.fail_after(60):
            assert isinstance((await read_until(subscriber, Snapshot))[-1].event, Snapshot)


async def test_subscribe_that_is_cancelled_when_another_has_taken_its_place(autojump_clock: Any) -> None:
    """A subscription that ended while the authorizer was asked removes only itself, and not the one that came after it."""
    asking = trio.CancelScope()
    async with opened(authorizer=Verdicts(delay=5.0)) as sessions, sessions.open_subscriber() as subscriber:

        async def ask_first() -> None:
            with asking:
                await subscriber.subscribe("c")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_first)
            await trio.sleep(1)
            await subscriber.unsubscribe("c")
            nursery.start_soon(subscriber.subscribe, "c")
            await trio.sleep(1)
            asking.cancel()

        assert {("c", "main"): "pending"} == subscriber.subscriptions


async def test_subscription_when_agents_come_and_go(autojump_clock: Any) -> None:
    """A viewer that does not read keeps a bounded number of events: of most agents only that they were there, and ended."""
    async with opened(policy={"subscriber_events": 20}) as sessions, sessions.open_subscriber() as subscriber:
        await subscriber.subscribe("c")
        for number in range(20):
            await answer_to(sessions, f"question {number}")
            await sessions.stop("c")
        events = [envelope.event for envelope in await read_all(subscriber)]

        assert [Gap, AgentShutdown] * 10 == [type(event) for event in events]


async def test_closed_subscriber_leaves_no_cycle() -> None:
    """A closed mailbox is freed with its last reference, even if there was something to take."""
    agent = Agent(model=ScriptedModel(["so be it"]))
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        await sessions.start("a")
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            async with sessions.open_subscriber() as reader:
                await reader.subscribe("a")
            del reader
            gc.collect()
            found = [type(item).__name__ for item in gc.garbage if str(type(item).__module__).startswith("trio_sagents")]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    assert [] == found


async def test_snapshot_replaces_the_last_place_when_the_batch_overflowed() -> None:
    """The first snapshot of another agent names the last place the reader has seen, however late it reads."""
    agent = Agent(model=ScriptedModel(lambda _: "one two three four five"))
    config = SessionConfig(factory_router=SingleFactoryRouter(agent), policy=SessionPolicy(subscriber_events=3))
    async with open_sessions(config) as sessions, sessions.open_subscriber() as reader:
        await sessions.ensure_running("a", reader)
        await reader.__anext__()
        await sessions.stop("a")
        last = await reader.__anext__()
        receipt = await sessions.post("a", "hello")
        await receipt.wait()
        envelope = await reader.__anext__()

    assert isinstance(envelope.event, Snapshot)
    assert last.cursor == envelope.event.replaces


async def ensure_running(sessions: Sessions, reader: Subscriber) -> None:
    """Subscribe with the agent up."""
    await sessions.ensure_running("a", reader)


async def start(sessions: Sessions, reader: Subscriber) -> None:
    """Subscribe from the first event on."""
    await sessions.start("a", initial_subscribers=[reader])


async def subscribe(_: Sessions, reader: Subscriber) -> None:
    """Subscribe alone."""
    await reader.subscribe("a")


@pytest.mark.parametrize("call", [ensure_running, start, subscribe])
async def test_closed_mailbox_leaves_no_subscription(call: object) -> None:
    """The table holds exactly the subscriptions with an open mailbox, even if a call comes too late."""
    agent = Agent(model=ScriptedModel(["so be it"]))
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        async with sessions.open_subscriber() as reader:
            pass
        with contextlib.suppress(SagentsError):
            await call(sessions, reader)  # type: ignore[operator]  # one of the above
        left = sessions.statistics().subscriptions

    assert 0 == left


@pytest.mark.parametrize("rounds", range(4))
async def test_mailbox_that_is_closed_meanwhile_leaves_no_subscription(rounds: int) -> None:
    """However far `subscribe` has come when the mailbox is closed, nothing of the subscription stays."""
    agent = Agent(model=ScriptedModel(["so be it"]))
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        await sessions.start("a")
        async with trio.open_nursery() as nursery:
            async with sessions.open_subscriber() as reader:
                nursery.start_soon(subscribe_or_hear, reader)
                for _ in range(rounds):
                    await trio.lowlevel.checkpoint()
        left = sessions.statistics().subscriptions

    assert 0 == left


async def subscribe_or_hear(reader: Subscriber) -> None:
    """Subscribe; an error of the library will do as well."""
    with contextlib.suppress(SagentsError):
        await reader.subscribe("a")
