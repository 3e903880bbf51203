"""Found by the session machine: a mailbox that is closed already can still be subscribed, and stays in the table for ever."""

import contextlib

import pytest
import trio

from trio_sagents import Agent, SagentsError, SessionConfig, Sessions, SingleFactoryRouter, Subscriber, open_sessions
from trio_sagents.testing import ScriptedModel


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
    """The table holds exactly the subscriptions whose mailbox is open, also where a call comes too late (I16)."""
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
    """However far `subscribe` has come when the mailbox is closed: nothing of it stays."""
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
