"""Models by name: "provider:model" is all that a setting, a command line or a table has to hold."""

import importlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from trio_sagents.data.json import Opaque
from trio_sagents.data.requests import ModelChunk, ModelRequest
from trio_sagents.models._dialects import DIALECTS
from trio_sagents.models.offline import OfflineModel

PROVIDERS: Final = ("anthropic", *(name for name in DIALECTS if name != "compatible"), "openai-responses", "offline")
"""The providers that a model can be named with, in the order of the documentation."""


class NamedModel(Protocol):
    """A model of any provider; it can be given to an `Agent`."""

    name: str

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ModelChunk]]:
        """Open one answer, as `Model.stream`."""
        ...


def split_name(name: str) -> tuple[str | None, str]:
    """Return the provider and the model of "provider:model"; no provider if the text begins with none.

    The names of some models have a colon themselves, such as "llama3.2:3b", which begins with no provider.
    """
    provider, colon, model = name.partition(":")
    return (provider, model) if colon and provider in PROVIDERS else (None, name)


def model_of(name: str, **settings: Opaque) -> NamedModel:
    """Return the model of a name such as "anthropic:claude-sonnet-4-5", "openai:gpt-5.4-mini", "groq:llama-3.3-70b" or "offline".

    The address and the key are those of the provider, as `docs/how-to/providers.md` lists them.

    Args:
        name: the provider, a colon, and the model's name as the provider knows it.
        settings: further arguments of `AnthropicModel`, `OpenAIModel` or `OpenAIResponsesModel`.

    Raises:
        ValueError: the name has no provider that is known, or no model; or the model cannot be described, because a key is missing,
            say.
        TypeError: an argument that the class does not have.
        ImportError: the provider's SDK is not installed; the text names the extra to install.
    """
    if name == "offline":
        name = "offline:offline"
    provider, model = split_name(name)
    if provider is None:
        raise ValueError(f'the name of a model is "provider:model", with one of the providers {", ".join(PROVIDERS)}; not {name!r}')
    if not model.strip():
        raise ValueError(f"{name!r} names no model of {provider}")
    found: NamedModel
    match provider:
        case "offline":
            found = OfflineModel(**settings)
        case "anthropic":
            found = importlib.import_module("trio_sagents.models.anthropic").AnthropicModel(model, **settings)
        case "openai-responses":
            found = importlib.import_module("trio_sagents.models.openai_responses").OpenAIResponsesModel(model, **settings)
        case _:
            # The modules of the adapters need an SDK, so each is loaded when its model is asked for.
            found = importlib.import_module("trio_sagents.models.openai").OpenAIModel(model, **{"dialect": provider, **settings})
    return found
