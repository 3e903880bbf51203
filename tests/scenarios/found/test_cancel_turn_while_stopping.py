"""Found by the session machine: while an agent is being stopped with grace, `cancel_turn` says that nothing runs, and cuts nothing."""

import trio
import trio.testing

from trio_sagents import Agent, Cancelled, SessionConfig, SingleFactoryRouter, open_sessions
from trio_sagents.testing import Hang, ScriptedModel


async def test_cancel_turn_cuts_the_turn_of_an_agent_that_is_stopping_with_grace(autojump_clock: trio.testing.MockClock) -> None:
    """`cancel_turn` gives None only where nothing ran: a turn that may finish within a grace period runs."""
    agent = Agent(model=ScriptedModel([["it begins", Hang()]]))
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions, trio.open_nursery() as nursery:
        await sessions.post("a", "hello")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(lambda: sessions.stop("a", grace_period=30.0))
        await trio.testing.wait_all_tasks_blocked()
        outcome = await sessions.cancel_turn("a")

    assert isinstance(outcome, Cancelled)
