"""Each dialect of the table, spoken by its local server: a turn with thinking and tools, a cut, a refusal, a request that is too long."""

from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.providers.adapter import KEY, PATIENCE, chunks_of, failure_of, text_of
from tests.support.scenarios import answer_to, ask, opened
from trio_sagents import Agent, Failed, MemoryStore, RetryPolicy, ThinkingPart, UsageChunk
from trio_sagents.abc import Model
from trio_sagents.exceptions import MODEL_FAILURE_KINDS
from trio_sagents.models import AnthropicModel, OpenAIModel, OpenAIResponsesModel, Thinking
from trio_sagents.models._dialects import DIALECTS
from trio_sagents.testing.providers import SPEAKERS, AskedCall, Exchange, Provider, Reply, open_provider

NAMES = list(SPEAKERS)
THINKING = (
    "openrouter",
    "groq",
    "deepseek",
    "mistral",
    "vllm",
    "sglang",
    "llamacpp",
    "lmstudio",
    "ollama",
    "litellm",
    "anthropic",
    "openai-responses",
)
"""Those whose thinking can be read."""


def model_at(provider: Provider, name: Any, **more: Any) -> Model:
    """Return a model at this server, which speaks this dialect."""
    if name == "anthropic":
        return AnthropicModel("m", api_key=KEY, base_url=provider.url, thinking=Thinking(budget_tokens=2048), **more)
    if name == "openai-responses":
        return OpenAIResponsesModel("m", f"{provider.url}/v1", api_key=KEY, **more)
    return OpenAIModel("m", provider.url + SPEAKERS[name].path, api_key=KEY, dialect=name, **more)


def speak(provider: Provider, name: str, *replies: Reply) -> None:
    """Have a server give these replies, each unless it would refuse the request."""
    left = list(replies)

    def respond(exchange: Exchange) -> Reply:
        return SPEAKERS[name].respond(exchange, left.pop(0))

    provider.respond = respond


def test_table_when_spoken() -> None:
    """Each dialect has a server that speaks it, but for the one of servers of which nothing is known."""
    assert {*DIALECTS, "anthropic", "openai-responses"} - {"compatible"} == set(SPEAKERS)


@pytest.mark.parametrize("name", NAMES)
async def test_turn_with_thinking_and_tools(name: str) -> None:
    """Two calls of two answers run with their own arguments; what was handed out goes back; the server takes every request."""
    speaker, runs = SPEAKERS[name], []

    async def weather(city: str) -> str:
        """Say what the weather is."""
        runs.append(city)
        await trio.lowlevel.checkpoint()
        return f"sunny in {city}"

    calls = [AskedCall("weather", f'{{"city": "{city}"}}', f"call_{city}") for city in ("Rome", "Oslo")]
    store = MemoryStore()
    with trio.fail_after(PATIENCE):
        async with open_provider() as provider:
            replies = [speaker.asks(*calls, thought="Two cities."), speaker.asks(AskedCall("weather", '{"city": "Bonn"}'), thought="Bonn.")]
            speak(provider, name, *replies, speaker.says("Sunny ", "everywhere."), speaker.says("You are welcome."))
            agent = Agent(model=model_at(provider, name), tools=[weather], retry=RetryPolicy(attempts=1))
            async with opened(agent, store=store) as sessions:
                assert "Sunny everywhere." == await answer_to(sessions, "Weather in Rome, Oslo and Bonn?")
            async with opened(agent, store=store) as sessions:  # from the stored form
                assert "You are welcome." == await answer_to(sessions, "Thanks")
                messages = (await (await sessions.start("c")).agent.state()).messages

    assert ["Bonn", "Oslo", "Rome"] == sorted(runs)
    thoughts = [part.text for message in messages for part in message.parts if isinstance(part, ThinkingPart)]
    assert (["Two cities.", "Bonn."] if name in THINKING else []) == thoughts
    assert 4 == len(provider.exchanges)
    assert {f"{speaker.path}/chat/completions", "/v1/messages", "/v1/responses"} >= {exchange.path for exchange in provider.exchanges}


@pytest.mark.parametrize("name", NAMES)
async def test_usage_when_told(name: str) -> None:
    """Tokens are counted wherever a server tells them, those from a cache, too."""
    async with open_provider(SPEAKERS[name].says("Hi")) as provider:
        chunks = await chunks_of(model_at(provider, name))

    usages = [chunk.usage for chunk in chunks if isinstance(chunk, UsageChunk)]
    assert (11, 7) == (sum(usage.input_tokens for usage in usages), sum(usage.output_tokens for usage in usages))
    assert (0 if name == "anthropic" else 3) == sum(usage.cache_read_tokens for usage in usages)
    assert "Hi" == text_of(chunks)


@pytest.mark.parametrize("name", NAMES)
async def test_answer_when_broken_off(name: str) -> None:
    """A server that gives up says so in its own way; it is asked again, and what it had said is no answer."""
    speaker = SPEAKERS[name]
    with trio.fail_after(PATIENCE):
        async with open_provider(speaker.breaks_off("There are three"), speaker.breaks_off("There are", " three")) as provider:
            agent = Agent(model=model_at(provider, name), retry=RetryPolicy(attempts=2, first_delay=0.001))
            async with opened(agent) as sessions:
                outcome = await ask(sessions)

    assert isinstance(outcome, Failed)
    assert 2 == len(provider.exchanges)


@pytest.mark.parametrize("name", NAMES)
async def test_request_when_too_long(name: str) -> None:
    """A request that is too long is told apart, in the words of every server, and is not made again."""
    async with open_provider(SPEAKERS[name].too_long()) as provider:
        failure = await failure_of(model_at(provider, name))

    assert ("context_overflow", False) == (failure.kind, failure.retryable)


@pytest.mark.parametrize("name", NAMES)
async def test_request_when_refused(name: str) -> None:
    """A refusal keeps the server's words, whatever form they come in."""
    async with open_provider(SPEAKERS[name].refusal("the colour is wrong")) as provider:
        failure = await failure_of(model_at(provider, name))

    assert ("invalid_request", False) == (failure.kind, failure.retryable)
    assert "the colour is wrong" in str(failure)


@pytest.mark.parametrize("other", ["anthropic", "openrouter", "gemini", "mistral"])
@pytest.mark.parametrize("name", NAMES)
async def test_history_of_another_provider(name: str, other: str) -> None:
    """What one provider handed out to get back goes to no other one, not even to one of the same dialect; the rest does."""
    store = MemoryStore()

    async def weather(city: str) -> str:
        """Say what the weather is."""
        await trio.lowlevel.checkpoint()
        return f"sunny in {city}"

    once = RetryPolicy(attempts=1)
    call = AskedCall("weather", '{"city": "Rome"}', "functions.weather:0")
    with trio.fail_after(PATIENCE):
        async with open_provider() as first, open_provider(SPEAKERS[name].says("Yes.")) as second:
            speak(first, other, SPEAKERS[other].asks(call, thought="Hm."), SPEAKERS[other].says("Sunny."))
            async with opened(Agent(model=model_at(first, other), tools=[weather], retry=once), store=store) as sessions:
                assert "Sunny." == await answer_to(sessions, "Weather in Rome?")
            async with opened(Agent(model=model_at(second, name), tools=[weather], retry=once), store=store) as sessions:
                assert "Yes." == await answer_to(sessions, "Sure?")

    sent = str(second.bodies)
    assert [False, False] == ["c2VhbA==" in sent, "Hm." in sent]
    assert [True, True] == ["Rome" in sent, "sunny in Rome" in sent]


def test_table_of_the_docs() -> None:
    """Each dialect stands on the page of providers, with its address, the variables of its address and its key, and in this order."""
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "providers.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `") and line.count("|") == 5}
    known = {name: rows[name] for name in rows if name in DIALECTS}

    assert list(DIALECTS) == list(known)
    for name, row in known.items():
        dialect = DIALECTS[name]
        assert all(value in row for value in (dialect.base_url, dialect.url_env, dialect.key_env) if value is not None), row
    assert all(f"| `{kind}` |" in page for kind in MODEL_FAILURE_KINDS)
