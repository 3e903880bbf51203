"""How much to think, in the words of each provider."""

from typing import Any

import pytest

from trio_sagents.models import AnthropicModel, OpenAIModel, Thinking
from trio_sagents.models._anthropic_request import anthropic_thinking
from trio_sagents.models._dialects import DIALECTS


@pytest.mark.parametrize(
    ("thinking", "fields"),
    [
        (Thinking(effort="high"), {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
        (Thinking(budget_tokens=2048), {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        (
            Thinking(effort="low", budget_tokens=2048),
            {"thinking": {"type": "enabled", "budget_tokens": 2048}, "output_config": {"effort": "low"}},
        ),
        (Thinking(effort="none"), {"thinking": {"type": "disabled"}}),
        (None, {}),
    ],
)
def test_words_of_anthropic(thinking: Thinking | None, fields: dict[str, Any]) -> None:
    """An effort is adaptive thinking, a budget is enabled thinking, and both go together."""
    assert fields == anthropic_thinking(thinking, 4096)


@pytest.mark.parametrize(
    "thinking",
    [
        Thinking(budget_tokens=4096),
        Thinking(budget_tokens=1023),
        Thinking(effort="minimal"),
        Thinking(effort="none", budget_tokens=2048),
    ],
)
def test_anthropic_when_it_has_no_words(thinking: Thinking) -> None:
    """What the API would refuse is refused when the model is described."""
    with pytest.raises(ValueError, match=r"Thinking|effort"):
        AnthropicModel("claude", api_key="k", max_tokens=4096, thinking=thinking)


@pytest.mark.parametrize(
    ("dialect", "thinking", "fields"),
    [
        ("openai", Thinking(effort="low"), {"reasoning_effort": "low"}),
        ("openrouter", Thinking(effort="low"), {"reasoning": {"effort": "low"}}),
        ("openrouter", Thinking(budget_tokens=99), {"reasoning": {"max_tokens": 99}}),
        ("openrouter", Thinking(effort="none"), {"reasoning": {"enabled": False}}),
        ("gemini", Thinking(effort="low"), {"reasoning_effort": "low"}),
        (
            "gemini",
            Thinking(budget_tokens=99),
            {"extra_body": {"google": {"thinking_config": {"thinking_budget": 99, "include_thoughts": True}}}},
        ),
        ("deepseek", Thinking(effort="none"), {"thinking": {"type": "disabled"}}),
        ("deepseek", Thinking(effort="high"), {"thinking": {"type": "enabled"}}),
        ("llamacpp", Thinking(effort="none"), {"chat_template_kwargs": {"enable_thinking": False}}),
        ("llamacpp", Thinking(effort="low"), {"chat_template_kwargs": {"reasoning_effort": "low"}}),
        (
            "litellm",
            Thinking(effort="low", budget_tokens=99),
            {"reasoning_effort": "low", "thinking": {"type": "enabled", "budget_tokens": 99}},
        ),
    ],
)
def test_words_of_a_dialect(dialect: str, thinking: Thinking, fields: dict[str, Any]) -> None:
    """Each server is asked in its own fields."""
    assert fields == DIALECTS[dialect].thinking(thinking)


@pytest.mark.parametrize("dialect", ["openai", "azure", "groq", "deepseek", "mistral", "vllm", "ollama", "llamacpp"])
def test_dialect_when_it_knows_no_budget(dialect: Any) -> None:
    """A budget that would be passed over is refused when the model is described."""
    with pytest.raises(ValueError, match="budget"):
        OpenAIModel("m", "http://127.0.0.1:9/v1", dialect=dialect, api_key="k", thinking=Thinking(budget_tokens=99))


@pytest.mark.parametrize(
    ("given", "words"),
    [({}, "needs an effort"), ({"effort": "huge"}, "'huge'"), ({"budget_tokens": 0}, "budget_tokens"), ({"budget_tokens": 1.5}, "1.5")],
)
def test_setting_when_it_is_nonsense(given: dict[str, Any], words: str) -> None:
    """A setting that says nothing, or cannot be meant, is refused."""
    with pytest.raises(ValueError, match=words):
        Thinking(**given)


def test_setting_when_it_is_given_twice() -> None:
    """Thinking stands in one place."""
    with pytest.raises(ValueError, match="reasoning_effort"):
        OpenAIModel("m", api_key="k", thinking=Thinking(effort="low"), settings={"reasoning_effort": "high"})
    with pytest.raises(ValueError, match="'thinking'"):
        AnthropicModel("m", api_key="k", thinking=Thinking(effort="low"), settings={"thinking": {"type": "adaptive"}})
