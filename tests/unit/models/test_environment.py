"""What is wrong with an address, a key or a proxy is said when a model is described."""

import os
from typing import Any

import pytest

from trio_sagents.models import AnthropicModel, OpenAIModel
from trio_sagents.models._dialects import DIALECTS, dialect_of, provider_of
from trio_sagents.models._environment import NO_KEY, find_address

KEY = "key-of-the-environment"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL", "_ENDPOINT")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("dialect", "base_url", "environ", "expected"),
    [
        ("openai", None, {"OPENAI_API_KEY": KEY}, ("https://api.openai.com/v1", KEY)),
        ("openai", None, {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://host/v1"}, ("http://host/v1", KEY)),
        ("openai", None, {"OPENAI_BASE_URL": "http://host/v1"}, ("http://host/v1", NO_KEY)),
        ("groq", None, {"GROQ_API_KEY": KEY, "OPENAI_API_KEY": "other"}, ("https://api.groq.com/openai/v1", KEY)),
        ("groq", "https://api.groq.com/openai/v1", {"GROQ_API_KEY": KEY}, ("https://api.groq.com/openai/v1", KEY)),
        ("compatible", "http://host/v1", {"OPENAI_API_KEY": KEY}, ("http://host/v1", NO_KEY)),
        ("ollama", None, {}, ("http://localhost:11434/v1", NO_KEY)),
        ("vllm", None, {"VLLM_API_KEY": KEY}, ("http://localhost:8000/v1", KEY)),
        ("vllm", "http://host/v1", {"VLLM_API_KEY": KEY}, ("http://host/v1", NO_KEY)),
        (
            "azure",
            None,
            {"AZURE_OPENAI_ENDPOINT": "https://x.openai.azure.com/", "AZURE_OPENAI_API_KEY": KEY},
            ("https://x.openai.azure.com/openai/v1", KEY),
        ),
    ],
)
def test_address_when_found(dialect: str, base_url: str | None, environ: dict[str, str], expected: tuple[str, str]) -> None:
    """An address and its key belong together: a key goes to its own provider, or to the address of the environment."""
    found = find_address("m", DIALECTS[dialect], base_url, None, environ)

    assert expected == (found.base_url, found.key)
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    ("dialect", "base_url", "words"),
    [
        ("openai", None, "OPENAI_API_KEY"),
        ("groq", None, "GROQ_API_KEY"),
        ("groq", "http://other/v1", "give api_key$"),
        ("azure", None, "AZURE_OPENAI_ENDPOINT"),
        ("compatible", None, "no address"),
        ("compatible", "localhost:11434/v1", "must begin with"),
        ("compatible", "ftp://host", "must begin with"),
        ("compatible", "http://", "name a host"),
        ("compatible", "http://host:x/v1", "is not an address"),
        ("compatible", "http://host:99999/v1", "is not an address"),
        ("compatible", "http://host/v1/chat/completions", "must end before '/chat/completions'"),
    ],
)
def test_address_when_it_cannot_be_used(dialect: str, base_url: str | None, words: str) -> None:
    """What is missing or wrong is named, with the way out."""
    with pytest.raises(ValueError, match=words):
        find_address("m", DIALECTS[dialect], base_url, None, {})


def test_address_when_it_holds_a_password() -> None:
    """No message has it."""
    with pytest.raises(ValueError, match="host") as caught:
        find_address("m", DIALECTS["compatible"], "ftp://user:swordfish@host/v1", None, {})

    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize("key", ["", " ", "sk-1\n", "sk 1", "sk-ä", '"sk-1"', "'sk-1'"])
@pytest.mark.parametrize("make", [lambda key: OpenAIModel("m", api_key=key), lambda key: AnthropicModel("m", api_key=key)])
def test_key_when_it_was_copied_badly(key: str, make: Any) -> None:
    """A key that no header takes is refused, and is in no message."""
    with pytest.raises(ValueError, match="API key") as caught:
        make(key)

    assert "sk" not in str(caught.value)


@pytest.mark.parametrize("make", [lambda: OpenAIModel("m", api_key="k"), lambda: AnthropicModel("m", api_key="k")])
@pytest.mark.parametrize(("proxy", "words"), [("socks5://user:swordfish@host:1", "socksio"), ("foo://user:swordfish@host", "scheme")])
def test_proxy_when_it_cannot_be_used(make: Any, proxy: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment that cannot be used is named, without its password."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    with pytest.raises(ValueError, match="HTTPS_PROXY") as caught:
        make()

    assert [True, False] == [words in str(caught.value), "swordfish" in str(caught.value)]


@pytest.mark.parametrize("url", ["http://host/v1/messages", "http://host/v1", "http://host/v1/", "host"])
def test_address_of_anthropic(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address is looked at, wherever it comes from."""
    with pytest.raises(ValueError, match="base_url"):
        AnthropicModel("m", api_key="k", base_url=url)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
    with pytest.raises(ValueError, match="base_url"):
        AnthropicModel("m", api_key="k")


@pytest.mark.parametrize(
    ("url", "dialect", "provider"),
    [
        (None, "openai", "openai"),
        ("https://api.openai.com/v1", "openai", "openai"),
        ("https://eu.api.openai.com/v1/", "openai", "openai"),
        ("https://x.openai.azure.com/openai/v1", "azure", "azure"),
        ("https://openrouter.ai/api/v1", "openrouter", "openrouter"),
        ("https://api.mistral.ai/v1", "mistral", "mistral"),
        ("http://user:secret@127.0.0.1:8000/v1", "compatible", "127.0.0.1:8000"),
        ("https://evil.example/api.openai.com", "compatible", "evil.example"),
    ],
)
def test_dialect_of_an_address(url: str | None, dialect: str, provider: str) -> None:
    """A public provider is known by its host; any other server is its address."""
    found = dialect_of(url)

    assert (dialect, provider) == (found.name, provider_of(found, url))


def test_arguments_when_out_of_range() -> None:
    """Nonsense is refused when a model is described."""
    with pytest.raises(ValueError, match="no dialect 'klingon'"):
        OpenAIModel("m", api_key="k", dialect="klingon")  # type: ignore[arg-type]  # what a host may do
    with pytest.raises(ValueError, match="max_connections"):
        OpenAIModel("m", api_key="k", max_connections=0)
    with pytest.raises(TypeError, match="max_connections"):
        AnthropicModel("m", api_key="k", max_connections=1.5)  # type: ignore[arg-type]  # what a host may do
    with pytest.raises(ValueError, match="first_timeout"):
        OpenAIModel("m", api_key="k", first_timeout=0)
    with pytest.raises(ValueError, match="cache"):
        AnthropicModel("m", api_key="k", cache="2h")  # type: ignore[arg-type]  # what a host may do
