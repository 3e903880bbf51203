"""Models by name: "provider:model"."""

from typing import Any

import pytest

from trio_sagents.models import PROVIDERS, AnthropicModel, OpenAIModel, OpenAIResponsesModel, Thinking, model_of, split_name
from trio_sagents.models._dialects import DIALECTS
from trio_sagents.models.offline import OfflineModel


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("groq:llama-3.3", ("groq", "llama-3.3")),
        ("ollama:llama3.2:3b", ("ollama", "llama3.2:3b")),
        ("llama3.2:3b", (None, "llama3.2:3b")),
        ("gpt-5.4-mini", (None, "gpt-5.4-mini")),
        ("openai:", ("openai", "")),
        ("", (None, "")),
    ],
)
def test_name_when_split(name: str, expected: tuple[str | None, str]) -> None:
    """Only a provider that is known ends at a colon: names of models have colons, too."""
    assert expected == split_name(name)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_model_of_each_provider(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each provider is found by its name alone, with the address and the key of its own."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com")
    for dialect in DIALECTS.values():
        if dialect.key_env is not None:
            monkeypatch.setenv(dialect.key_env, "key")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")

    model = model_of(f"{provider}:offline")

    assert "offline" == model.name
    assert isinstance(
        model, {"anthropic": AnthropicModel, "offline": OfflineModel, "openai-responses": OpenAIResponsesModel}.get(provider, OpenAIModel)
    )


def test_model_when_it_has_settings() -> None:
    """Further arguments are those of the class."""
    assert "OpenAIModel('m')" == repr(model_of("openrouter:m", api_key="k", thinking=Thinking(budget_tokens=9)))
    assert isinstance(model_of("offline"), OfflineModel)
    with pytest.raises(TypeError):
        model_of("openrouter:m", api_key="k", colour="red")


@pytest.mark.parametrize(("name", "words"), [("gpt", "one of the providers"), ("openai: ", "names no model"), ("klingon:x", "'klingon:x'")])
def test_name_when_it_names_nothing(name: Any, words: str) -> None:
    """The error names the providers that there are."""
    with pytest.raises(ValueError, match=words):
        model_of(name)
