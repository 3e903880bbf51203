"""Found by the session machine: a message whose turn was cut by a failed write, posted again, is called completed."""

from typing import Any

from trio_sagents import Agent, Completed, Failed, MemoryStore, SessionConfig, SingleFactoryRouter, open_sessions
from trio_sagents.testing import Call, ScriptedModel


class FailsOnce(MemoryStore):
    """Fails the third commit: after the message and the answer that asks for a tool, the result of the tool."""

    fails_at = 4

    async def commit(self, scope: Any, commit: Any, **inside: Any) -> int:
        """Commit, or fail with nothing done."""
        self.fails_at -= 1
        if not self.fails_at:
            raise OSError("no space left on device")
        return await super().commit(scope, commit, **inside)


async def test_duplicate_when_a_step_of_the_turn_was_not_saved() -> None:
    """An answer that asks for a tool completes no turn: the duplicate's receipt says what the first one said, or that it is unanswered."""

    async def note() -> str:
        """Take a note."""
        return "noted"

    agent = Agent(model=ScriptedModel([["I note it", Call("note")], "done"]), tools=[note])
    config = SessionConfig(factory_router=SingleFactoryRouter(agent), store=FailsOnce())
    async with open_sessions(config) as sessions:
        first = await sessions.post("a", "hello", message_id="m1")
        outcome = await first.wait()
        again = await sessions.post("a", "hello", message_id="m1")
        outcome_again = await again.wait()

    assert isinstance(outcome, Failed)
    assert again.duplicate
    assert not isinstance(outcome_again, Completed)
