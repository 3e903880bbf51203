"""Found by the session machine: a message that an earlier agent left in the queue, posted again while the next agent answers it."""

import trio
import trio.testing

from trio_sagents import Agent, Completed, SessionConfig, SingleFactoryRouter, open_sessions
from trio_sagents.testing import Call, Hang, ScriptedModel


async def test_duplicate_while_the_next_agent_answers_it(autojump_clock: trio.testing.MockClock) -> None:
    """The receipt of a duplicate waits for the end of the turn that took the message, whichever agent accepted it."""

    async def work() -> str:
        """Work."""
        await trio.sleep(10)
        return "worked"

    model = ScriptedModel([["it begins", Hang()], ["first I work", Call("work")], "the answer"])
    agent = Agent(model=model, tools=[work])
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        await sessions.post("a", "one", message_id="m1")
        await trio.testing.wait_all_tasks_blocked(0.1)
        await sessions.post("a", "two", message_id="m2")
        await sessions.stop("a")
        await sessions.start("a")
        await trio.sleep(5)
        again = await sessions.post("a", "two", message_id="m2")
        outcome = await again.wait()

    assert again.duplicate
    assert isinstance(outcome, Completed)
    assert "the answer" == outcome.message.text
