"""Which model answers: a provider's where a key is set, else the embedded one."""

import importlib
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import attrs

from trio_sagents import Model
from trio_sagents.models.offline import OfflineModel

Provider: TypeAlias = Literal["anthropic", "openai", "offline"]
PROVIDERS: Final[tuple[Provider, ...]] = ("anthropic", "openai", "offline")
DEFAULT_MODELS: Final[Mapping[Provider, str]] = {"anthropic": "claude-sonnet-5-5", "openai": "gpt-5.4-mini", "offline": "offline"}


class UsageError(Exception):
    """What was asked for on the command line, or set in the environment, does not work."""


@attrs.frozen
class Choice:
    """A model, and what to tell people about it."""

    model: Model
    label: str
    """Its provider and name."""
    notice: str = ""
    """What people should know before they read its answers; may be empty."""


def choose_model(provider: Provider | None, name: str | None, environ: Mapping[str, str]) -> Choice:
    """Return the model to use.

    Args:
        provider: the one asked for; None takes the first whose key is set, else the offline model.
        name: the model's name; None takes TRIO_SAGENTS_MODEL, else the provider's default.
        environ: the environment; keys in it are never shown.

    Raises:
        UsageError: the provider's key, its package or the model's name is missing; the message says what to do.
    """
    chosen = provider or _first_set(environ)
    name = name or (environ.get("TRIO_SAGENTS_MODEL") if chosen != "offline" else None)
    match chosen:
        case "anthropic":
            _need_key(environ, "anthropic", "ANTHROPIC_API_KEY")
            return _adapter("anthropic", "AnthropicModel", name or DEFAULT_MODELS["anthropic"], {})
        case "openai":
            return _openai(name, environ)
        case _:
            return _offline(name, is_asked_for=provider is not None)


def _first_set(environ: Mapping[str, str]) -> Provider:
    if environ.get("ANTHROPIC_API_KEY"):
        return "anthropic"
    if environ.get("OPENAI_API_KEY") or environ.get("OPENAI_BASE_URL"):
        return "openai"
    return "offline"


def _need_key(environ: Mapping[str, str], provider: Provider, *names: str) -> None:
    if not any(environ.get(name) for name in names):
        raise UsageError(f"--provider {provider} needs {' or '.join(names)} in the environment; --provider offline needs nothing")


def _openai(name: str | None, environ: Mapping[str, str]) -> Choice:
    _need_key(environ, "openai", "OPENAI_API_KEY", "OPENAI_BASE_URL")
    base_url = environ.get("OPENAI_BASE_URL") or None
    if base_url is not None and name is None:
        raise UsageError("OPENAI_BASE_URL is set, so say which model that server has: --model NAME (or TRIO_SAGENTS_MODEL)")
    settings: dict[str, object] = {} if base_url is None else {"base_url": base_url}
    return _adapter("openai", "OpenAIModel", name or DEFAULT_MODELS["openai"], settings)


def _offline(name: str | None, *, is_asked_for: bool) -> Choice:
    if name not in {None, "offline"}:
        raise UsageError(f"--model {name} needs a provider: set ANTHROPIC_API_KEY, OPENAI_API_KEY or OPENAI_BASE_URL")
    notice = "This is the embedded offline model: fixed rules, no network, real tools."
    if not is_asked_for:
        notice += " For a large one set ANTHROPIC_API_KEY, OPENAI_API_KEY or OPENAI_BASE_URL."
    return Choice(OfflineModel(), "offline", notice)


def _adapter(provider: Provider, class_name: str, name: str, settings: Mapping[str, object]) -> Choice:
    try:
        adapter = getattr(importlib.import_module("trio_sagents.models"), class_name)
        model: Model = adapter(name, **settings)
    except ImportError as exc:
        raise UsageError(
            f"the {provider} provider needs its package: pip install 'trio-sagents[{provider}]' (or use --provider offline)"
        ) from exc
    return Choice(model, f"{provider} {name}")
