"""The servers that speak the chat completions API, as data: where they are, and in what they differ.

`docs/how-to/providers.md` shows this table to people. `trio_sagents.testing.providers` has a local server for each row.
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import attrs

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.models._thinking import Thinking

DialectName: TypeAlias = Literal[
    "openai",
    "azure",
    "openrouter",
    "groq",
    "gemini",
    "deepseek",
    "mistral",
    "vllm",
    "sglang",
    "llamacpp",
    "lmstudio",
    "ollama",
    "litellm",
    "compatible",
]
CallIds: TypeAlias = Literal["any", "nine"]
"""What a server takes as the id of a tool call: up to 40 characters, or exactly nine letters and digits."""
ThinkingWords: TypeAlias = Callable[[Thinking], JSON]
"""Return the fields of a request that say how much to think. ValueError if the server has no words for it."""


@attrs.frozen(kw_only=True)
class Dialect:
    """How one kind of server speaks the chat completions API."""

    name: DialectName
    title: str
    """Its name for people."""
    base_url: str | None = None
    """Where the API is if nothing else is said; None if only the host can know."""
    key_env: str | None = None
    """The environment variable with the API key."""
    url_env: str | None = None
    """The environment variable with the address of the server."""
    needs_key: bool = True
    """Whether the server refuses a request without a key."""
    call_ids: CallIds = "any"
    takes_images: bool = True
    takes_files: bool = False
    """Whether PDF files are sent as such."""
    images_in_results: bool = False
    """Whether the message with the result of a tool may hold images; else they follow in a user message."""
    has_stream_options: bool = True
    """Whether usage has to be asked for."""
    takes_unknown_fields: bool = False
    """Whether fields of an answer that are not known by name go back: strict servers refuse a field that they do not know."""
    needs_answer_before_user: bool = False
    """Whether a user message must not follow the result of a tool."""
    thinking: ThinkingWords


def _effort(thinking: Thinking) -> JSON:
    """Effort in OpenAI's own field; a budget has no words."""
    _no_budget(thinking)
    return {"reasoning_effort": thinking.effort}


def _openrouter(thinking: Thinking) -> JSON:
    if thinking.effort == "none":
        return {"reasoning": {"enabled": False}}
    fields: dict[str, JSONValue] = {}
    if thinking.budget_tokens is not None:  # the API takes one of the two
        fields["max_tokens"] = thinking.budget_tokens
    elif thinking.effort is not None:
        fields["effort"] = thinking.effort
    return {"reasoning": fields}


def _gemini(thinking: Thinking) -> JSON:
    if thinking.budget_tokens is None:
        return {"reasoning_effort": thinking.effort}
    config = {"thinking_budget": thinking.budget_tokens, "include_thoughts": True}
    return {"extra_body": {"google": {"thinking_config": config}}}


def _deepseek(thinking: Thinking) -> JSON:
    _no_budget(thinking)
    return {"thinking": {"type": "disabled" if thinking.effort == "none" else "enabled"}}


def _llamacpp(thinking: Thinking) -> JSON:
    _no_budget(thinking)
    template = {"enable_thinking": False} if thinking.effort == "none" else {"reasoning_effort": thinking.effort}
    return {"chat_template_kwargs": template}


def _litellm(thinking: Thinking) -> JSON:
    fields: dict[str, JSONValue] = {}
    if thinking.budget_tokens is not None:
        fields["thinking"] = {"type": "enabled", "budget_tokens": thinking.budget_tokens}
    if thinking.effort is not None:
        fields["reasoning_effort"] = thinking.effort
    return fields


def _no_budget(thinking: Thinking) -> None:
    if thinking.budget_tokens is not None:
        raise ValueError("this server does not support a budget for thinking; give Thinking(effort=...)")


_TABLE: Final = (
    Dialect(
        name="openai",
        title="OpenAI",
        base_url="https://api.openai.com/v1",
        key_env="OPENAI_API_KEY",
        url_env="OPENAI_BASE_URL",
        takes_files=True,
        thinking=_effort,
    ),
    Dialect(
        name="azure",
        title="Azure OpenAI",
        key_env="AZURE_OPENAI_API_KEY",
        url_env="AZURE_OPENAI_ENDPOINT",
        takes_files=True,
        thinking=_effort,
    ),
    Dialect(
        name="openrouter",
        title="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        key_env="OPENROUTER_API_KEY",
        url_env="OPENROUTER_BASE_URL",
        takes_files=True,
        takes_unknown_fields=True,
        thinking=_openrouter,
    ),
    Dialect(
        name="groq",
        title="Groq",
        base_url="https://api.groq.com/openai/v1",
        key_env="GROQ_API_KEY",
        url_env="GROQ_BASE_URL",
        thinking=_effort,
    ),
    Dialect(
        name="gemini",
        title="Gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key_env="GEMINI_API_KEY",
        url_env="GEMINI_BASE_URL",
        takes_unknown_fields=True,
        thinking=_gemini,
    ),
    Dialect(
        name="deepseek",
        title="DeepSeek",
        base_url="https://api.deepseek.com/v1",
        key_env="DEEPSEEK_API_KEY",
        url_env="DEEPSEEK_BASE_URL",
        takes_images=False,
        thinking=_deepseek,
    ),
    Dialect(
        name="mistral",
        title="Mistral",
        base_url="https://api.mistral.ai/v1",
        key_env="MISTRAL_API_KEY",
        url_env="MISTRAL_BASE_URL",
        call_ids="nine",
        images_in_results=True,
        has_stream_options=False,
        needs_answer_before_user=True,
        thinking=_effort,
    ),
    Dialect(
        name="vllm",
        title="vLLM",
        base_url="http://localhost:8000/v1",
        key_env="VLLM_API_KEY",
        url_env="VLLM_BASE_URL",
        needs_key=False,
        takes_unknown_fields=True,
        thinking=_effort,
    ),
    Dialect(
        name="sglang",
        title="SGLang",
        base_url="http://localhost:30000/v1",
        key_env="SGLANG_API_KEY",
        url_env="SGLANG_BASE_URL",
        needs_key=False,
        takes_unknown_fields=True,
        thinking=_effort,
    ),
    Dialect(
        name="llamacpp",
        title="llama.cpp",
        base_url="http://localhost:8080/v1",
        key_env="LLAMA_API_KEY",
        url_env="LLAMACPP_BASE_URL",
        needs_key=False,
        takes_unknown_fields=True,
        thinking=_llamacpp,
    ),
    Dialect(
        name="lmstudio",
        title="LM Studio",
        base_url="http://localhost:1234/v1",
        key_env="LMSTUDIO_API_KEY",
        url_env="LMSTUDIO_BASE_URL",
        needs_key=False,
        takes_unknown_fields=True,
        thinking=_effort,
    ),
    Dialect(
        name="ollama",
        title="Ollama",
        base_url="http://localhost:11434/v1",
        key_env="OLLAMA_API_KEY",
        url_env="OLLAMA_BASE_URL",
        needs_key=False,
        takes_unknown_fields=True,
        thinking=_effort,
    ),
    Dialect(
        name="litellm",
        title="LiteLLM",
        base_url="http://localhost:4000/v1",
        key_env="LITELLM_API_KEY",
        url_env="LITELLM_BASE_URL",
        needs_key=False,
        takes_files=True,
        takes_unknown_fields=True,
        thinking=_litellm,
    ),
    Dialect(
        name="compatible",
        title="any other server",
        needs_key=False,
        takes_files=True,
        takes_unknown_fields=True,
        thinking=_effort,
    ),
)
DIALECTS: Final[Mapping[str, Dialect]] = {dialect.name: dialect for dialect in _TABLE}
"""By name, in the order of the documentation."""

_HOSTS: Final[Mapping[str, DialectName]] = {
    "api.openai.com": "openai",
    "openrouter.ai": "openrouter",
    "api.groq.com": "groq",
    "generativelanguage.googleapis.com": "gemini",
    "api.deepseek.com": "deepseek",
    "api.mistral.ai": "mistral",
}
_AZURE_HOSTS: Final = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")


def dialect_of(base_url: str | None) -> Dialect:
    """Return the dialect of the server at an address; None is OpenAI's own. Servers on a machine of yours look all alike."""
    if base_url is None:
        return DIALECTS["openai"]
    host = urlsplit(base_url).hostname or ""
    if host.endswith(_AZURE_HOSTS):
        return DIALECTS["azure"]
    return DIALECTS[next((name for known, name in _HOSTS.items() if host == known or host.endswith(f".{known}")), "compatible")]


def provider_of(dialect: Dialect, base_url: str | None) -> str:
    """Return what tells this provider from others: a name for a public one, else the address of the server."""
    if base_url is None or (dialect.needs_key and dialect_of(base_url) is dialect):
        return dialect.name
    return urlsplit(base_url).netloc.rpartition("@")[2]
