"""Which model answers: the named one, else that of a provider whose key is set, else the embedded one."""

from collections.abc import Mapping
from typing import Final, TypeAlias

import attrs

from trio_sagents import Model
from trio_sagents.models import model_of, split_name

Provider: TypeAlias = str
"""One of `trio_sagents.models.PROVIDERS`."""
DEFAULT_MODELS: Final[Mapping[Provider, str]] = {"anthropic": "claude-sonnet-5-5", "openai": "gpt-5.4-mini", "offline": "offline"}
_KEYS: Final = "set ANTHROPIC_API_KEY, OPENAI_API_KEY or OPENAI_BASE_URL"


class UsageError(Exception):
    """Something does not work that the command line asked for, or that the environment sets."""


@attrs.frozen
class Choice:
    """A model, and what to tell people about it."""

    model: Model
    label: str
    """The provider and the name of the model."""
    notice: str = ""
    """What people should know before they read the answers; may be empty."""


def choose_model(provider: Provider | None, name: str | None, environ: Mapping[str, str]) -> Choice:
    """Return the model to use.

    Args:
        provider: the one asked for; None takes the one that the name begins with, else the first whose key is set, else the offline
            model.
        name: "provider:model", or the model's name as its provider knows it; None takes TRIO_SAGENTS_MODEL, else the provider's
            default.
        environ: the environment; keys are never shown.

    Raises:
        UsageError: the provider's key, its package or the model's name is missing; the message says what to do.
    """
    is_asked_for = provider is not None
    if name is None and provider != "offline":
        name = environ.get("TRIO_SAGENTS_MODEL")
    if provider is None and name is not None:
        provider, name = split_name(name)
        is_asked_for = provider is not None
    provider = provider or _first_set(environ)
    if provider == "offline":
        return _offline(name, is_asked_for=is_asked_for)
    name = name or _default(provider, environ)
    return Choice(_made(provider, name), f"{provider} {name}")


def _first_set(environ: Mapping[str, str]) -> Provider:
    if environ.get("ANTHROPIC_API_KEY"):
        return "anthropic"
    if environ.get("OPENAI_API_KEY") or environ.get("OPENAI_BASE_URL"):
        return "openai"
    return "offline"


def _default(provider: Provider, environ: Mapping[str, str]) -> str:
    if provider == "openai" and environ.get("OPENAI_BASE_URL"):
        raise UsageError("OPENAI_BASE_URL is set, so say which model that server has: --model NAME (or TRIO_SAGENTS_MODEL)")
    if provider not in DEFAULT_MODELS:
        raise UsageError(f"{provider} has no default model; name one with --model NAME (or TRIO_SAGENTS_MODEL)")
    return DEFAULT_MODELS[provider]


def _offline(name: str | None, *, is_asked_for: bool) -> Choice:
    if name not in {None, "offline"}:
        raise UsageError(f"--model {name} needs a provider: --model provider:{name}, or {_KEYS}")
    notice = "This is the embedded offline model: fixed rules, no network, real tools."
    if not is_asked_for:
        notice += f" For a large one {_KEYS}, or name one: --model provider:model."
    return Choice(model_of("offline"), "offline", notice)


def _made(provider: Provider, name: str) -> Model:
    try:
        return model_of(f"{provider}:{name}")
    except ImportError as exc:
        extra = "anthropic" if provider == "anthropic" else "openai"
        raise UsageError(
            f"the {provider} provider needs its package: pip install 'trio-sagents[{extra}]' (or use --provider offline)"
        ) from exc
    except ValueError as exc:
        raise UsageError(f"{exc} (--provider offline needs nothing)") from exc
