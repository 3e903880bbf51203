"""Found by the session machine: an agent that is stopped between two turns ends with the status "running"."""

import pytest
import trio
import trio.testing

from trio_sagents import Agent, AgentShutdown, SessionConfig, SingleFactoryRouter, Status, open_sessions
from trio_sagents.testing import ScriptedModel
from trio_sagents.testing.machines import Schedule, scheduled


async def status_at_the_end() -> Status:
    """Stop an agent in the very moment in which its turn has ended, while another message waits."""
    agent = Agent(model=ScriptedModel(lambda _: "so be it"))
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        async with sessions.open_subscriber() as reader:
            await sessions.ensure_running("a", reader)
            first = await sessions.post("a", "one")
            await trio.lowlevel.checkpoint()
            await sessions.post("a", "two")
            await first.wait()
            await sessions.stop("a")
            async for envelope in reader:
                if isinstance(envelope.event, AgentShutdown):
                    return envelope.event.status
    raise AssertionError("no last word")


@pytest.mark.parametrize("seed", range(12))
def test_status_when_stopped_between_two_turns(seed: int) -> None:
    """Whatever the schedule: no turn runs when an agent ends, so its last word does not say that it is running."""
    with scheduled(Schedule(seed)):
        status = trio.run(status_at_the_end, clock=trio.testing.MockClock(autojump_threshold=0))

    assert status is not Status.RUNNING
