"""What an agent does with providers that fail: every request is counted at the server, and every tool call in the tool."""

from typing import Any

import pytest
import trio

from tests.support.providers.adapter import PATIENCE, Adapter
from tests.support.scenarios import answer_to, ask, of_kind, opened, read_all
from trio_sagents import Agent, Completed, Failed, ModelFailed, ModelFallback, ModelRetrying, RetryPolicy
from trio_sagents.testing.providers import CLOSE, RESET, Provider, open_provider

_SOON = 0.001


class AttemptContract(Adapter):
    """Retries and fallbacks, over the wire."""

    async def test_busy_provider_is_asked_again(self, provider: Provider) -> None:
        """429 with `Retry-After`, 529 and 500 are asked again, after what the provider named or a wait that doubles; then it answers."""
        provider.replies += [
            self.error(429, "rate_limit_error", "Slow down.", retry_after="0.02"),
            self.error(529, "overloaded_error", "Overloaded."),
            self.error(500, "api_error", "Oops."),
            self.says("Hello"),
        ]
        agent = Agent(model=self.model(provider), retry=RetryPolicy(attempts=4, first_delay=_SOON))
        with trio.fail_after(PATIENCE):
            async with opened(agent) as sessions, sessions.watch("c") as watch:
                assert "Hello" == await answer_to(sessions)
                retries = of_kind(await read_all(watch), ModelRetrying)
            await provider.wait_no_connections()

        assert [(2, 0.02), (3, 2 * _SOON), (4, 4 * _SOON)] == [(event.attempt, event.delay) for event in retries]
        assert [True, True, True] == [str(status) in str(event.error) for status, event in zip((429, 529, 500), retries, strict=True)]
        assert 4 == len(provider.exchanges)
        assert all(body == provider.bodies[0] for body in provider.bodies)

    async def test_attempts_come_to_an_end(self, provider: Provider) -> None:
        """A provider is asked `attempts` times. The turn gets the last error, and the next turn counts from the beginning."""
        provider.replies += [self.error(529, "overloaded_error", f"Overloaded {number}.") for number in range(2)]
        provider.replies.append(self.says("Back"))
        agent = Agent(model=self.model(provider), retry=RetryPolicy(attempts=2, first_delay=_SOON))
        with trio.fail_after(PATIENCE):
            async with opened(agent) as sessions:
                outcome = await ask(sessions)
                assert 2 == len(provider.exchanges)
                assert "Back" == await answer_to(sessions, "again")

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ModelFailed)
        assert "Overloaded 1." in str(outcome.error)
        assert ["Overloaded 0." in note for note in outcome.error.__notes__] == [True]

    @pytest.mark.parametrize("how", ["error", "close", "reset"])
    async def test_answer_that_breaks_off_is_asked_for_again(self, provider: Provider, how: str) -> None:
        """What a broken answer had said is in no history and no later request; the whole answer counts."""
        ends: dict[str, Any] = {"error": self.error_event("overloaded_error", "Overloaded"), "close": CLOSE, "reset": RESET}
        provider.replies += [self.says("half", "more").until(4, ends[how]), self.says("Whole"), self.says("Next")]
        agent = Agent(model=self.model(provider), retry=RetryPolicy(first_delay=_SOON))
        with trio.fail_after(PATIENCE):
            async with opened(agent) as sessions:
                assert "Whole" == await answer_to(sessions)
                assert "Next" == await answer_to(sessions, "again")

        assert 3 == len(provider.exchanges)
        assert provider.bodies[0] == provider.bodies[1]
        assert "half" not in str(provider.bodies[2])

    @pytest.mark.parametrize(
        ("status", "headers"), [(400, {}), (401, {}), (429, {"retry_after": "3600"}), (529, {"x_should_retry": "false"})], ids=str
    )
    async def test_refusal_goes_to_the_fallback_at_once(self, provider: Provider, status: int, headers: dict[str, str]) -> None:
        """What asking again would not heal, or not soon, is asked of the next model; the first was asked once."""
        provider.replies.append(self.error(status, "api_error", "No.", **headers))
        with trio.fail_after(PATIENCE):
            async with open_provider(self.says("I do")) as other:
                agent = Agent(model=self.model(provider), fallbacks=[self.model(other)])
                async with opened(agent) as sessions, sessions.watch("c") as watch:
                    assert "I do" == await answer_to(sessions)
                    seen = await read_all(watch)

        assert [1, 1] == [len(provider.exchanges), len(other.exchanges)]
        assert provider.bodies == other.bodies
        assert ([], 1) == (of_kind(seen, ModelRetrying), len(of_kind(seen, ModelFallback)))

    async def test_tool_runs_once_when_the_next_call_fails(self, provider: Provider) -> None:
        """A tool that ran is not run again: its result goes to the model that answers, and the history has each thing once."""
        runs: list[str] = []

        async def book(place: str) -> str:
            """Book a hotel."""
            runs.append(place)
            await trio.lowlevel.checkpoint()
            return f"booked in {place}"

        provider.replies += [self.asks("call_1", "book", '{"place": ', '"Oslo"}'), *[self.error(500, "api_error", "Oops.")] * 2]
        with trio.fail_after(PATIENCE):
            async with open_provider(self.says("Your hotel is booked.")) as other:
                retry = RetryPolicy(attempts=2, first_delay=_SOON)
                agent = Agent(model=self.model(provider), fallbacks=[self.model(other)], tools=[book], retry=retry)
                async with opened(agent) as sessions:
                    outcome = await ask(sessions, "a hotel in Oslo")
                    assert isinstance(outcome, Completed)
                    messages = (await (await sessions.start("c")).agent.state()).messages

        assert "Your hotel is booked." == outcome.message.text
        assert ["Oslo"] == runs
        assert [3, 1] == [len(provider.exchanges), len(other.exchanges)]
        assert provider.bodies[1] == provider.bodies[2] == other.bodies[0]
        assert 1 == str(other.bodies[0]).count("booked in Oslo")
        assert ["user", "assistant", "tool", "assistant"] == [message.role for message in messages]

    async def test_nothing_is_open_while_a_provider_is_waited_for(self, provider: Provider) -> None:
        """During the wait no connection is open. A cut ends the wait at once, and no model is asked afterwards."""
        provider.replies.append(self.error(429, "rate_limit_error", "Slow down.", retry_after="25"))
        with trio.fail_after(PATIENCE):
            async with opened(Agent(model=self.model(provider))) as sessions:
                receipt = await sessions.post("c", "hi")
                await provider.exchange()
                await provider.wait_no_connections()
                assert await sessions.cancel_turn("c")
                await receipt.wait()

        assert 1 == len(provider.exchanges)
