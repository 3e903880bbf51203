"""One turn across providers: the API of one provider accepts a history that another provider began."""

from typing import Any

import trio

from tests.support.providers.adapter import KEY, PATIENCE
from tests.support.providers.histories import check_anthropic, check_openai
from tests.support.scenarios import answer_to, opened
from trio_sagents import Agent, RetryPolicy
from trio_sagents.models import AnthropicModel, OpenAIModel
from trio_sagents.testing.providers import (
    anthropic_error,
    anthropic_events,
    anthropic_reply,
    call_deltas,
    error_reply,
    open_provider,
    openai_reply,
    text,
    thinking,
    tool_use,
)

BUSY = error_reply(529, anthropic_error("overloaded_error", "Overloaded"))
RETRY = RetryPolicy(attempts=2, first_delay=0.001)


async def test_turn_that_two_providers_share() -> None:
    """Claude thinks and calls, fails, GPT calls on, Claude answers: each tool ran once, every request was valid for its API."""
    runs: list[str] = []

    async def find(word: str) -> str:
        """Find a word."""
        runs.append(word)
        await trio.lowlevel.checkpoint()
        return f"{word} is here"

    thought = anthropic_reply(thinking("Hm.", signature="EqQB"), tool_use("toolu_1", "find", '{"word": "a"}'), stop_reason="tool_use")
    broken = anthropic_events(text("I", " will", " look"))[:5]
    cut = anthropic_reply().until(0, *broken)
    other = openai_reply(*call_deltas(0, "x" * 60, "find", '{"word": "b"}'), finish_reason="tool_calls")
    settings: Any = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
    with trio.fail_after(PATIENCE):
        async with open_provider(thought, cut, BUSY, anthropic_reply(text("Both."))) as first, open_provider(other) as second:
            claude = AnthropicModel("claude", api_key=KEY, base_url=first.url, settings=settings)
            agent = Agent(model=claude, fallbacks=[OpenAIModel("gpt", f"{second.url}/v1")], tools=[find], retry=RETRY)
            async with opened(agent) as sessions:
                assert "Both." == await answer_to(sessions, "a and b")

    assert ["a", "b"] == runs
    assert [4, 1] == [len(first.exchanges), len(second.exchanges)]
    for body in first.bodies:
        check_anthropic(body)
    check_openai(second.bodies[0])
    assert first.bodies[1] == first.bodies[2]
    assert "will" not in str(first.bodies[2:]) + str(second.bodies)
    assert "EqQB" not in str(second.bodies), "the seal of one provider is nothing to another"
    assert ["a is here", "b is here"] == [
        block["content"] for message in first.bodies[3]["messages"] for block in message["content"] if block["type"] == "tool_result"
    ]


async def test_turn_that_the_fallback_begins() -> None:
    """GPT makes the call, for Claude is busy; Claude answers, and is not asked to think in the middle of what it did not begin."""
    runs: list[int] = []

    async def tool() -> str:
        """Do."""
        runs.append(1)
        await trio.lowlevel.checkpoint()
        return "done"

    called = openai_reply(*call_deltas(0, "call.1", "tool", "{}"), finish_reason="tool_calls")
    settings: Any = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
    with trio.fail_after(PATIENCE):
        async with open_provider(BUSY, BUSY, anthropic_reply(text("Done."))) as first, open_provider(called) as second:
            claude = AnthropicModel("claude", api_key=KEY, base_url=first.url, settings=settings)
            agent = Agent(model=claude, fallbacks=[OpenAIModel("gpt", f"{second.url}/v1")], tools=[tool], retry=RETRY)
            async with opened(agent) as sessions:
                assert "Done." == await answer_to(sessions)

    assert [1] == runs
    assert ["thinking" in body for body in first.bodies] == [True, True, False]
    check_anthropic(first.bodies[2])
