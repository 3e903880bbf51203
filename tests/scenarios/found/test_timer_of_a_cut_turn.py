"""Found by the churn: a turn that was cut leaves its timer behind, and with it the turn and the agent, for `cancel_grace` seconds."""

import trio
import trio.testing

from trio_sagents import Agent, SessionConfig, SingleFactoryRouter, open_sessions
from trio_sagents.testing import Hang, ScriptedModel


async def test_no_timer_is_left_when_a_turn_was_cut(mock_clock: trio.testing.MockClock) -> None:
    """When `stop` returns, nothing of the agent is left: its timers neither."""
    agent = Agent(model=ScriptedModel(lambda _: ["it begins", Hang()]))
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        await sessions.post("a", "hello")
        await trio.testing.wait_all_tasks_blocked()
        await sessions.stop("a")
        timers = sessions.statistics().timers

    assert 0 == timers
