"""Models behind providers' official SDKs. Nothing is imported from an SDK until its model is asked for."""

from typing import TYPE_CHECKING

from trio_sagents.models._thinking import Thinking

if TYPE_CHECKING:
    from trio_sagents.models.anthropic import AnthropicModel
    from trio_sagents.models.openai import OpenAIModel

__all__ = ("AnthropicModel", "OpenAIModel", "Thinking")


def __getattr__(name: str) -> object:
    """Return a model class; ImportError, naming the extra to install, where its SDK is missing."""
    match name:
        case "AnthropicModel":
            from trio_sagents.models.anthropic import AnthropicModel  # noqa: PLC0415  # lazy, for the SDK is an extra

            return AnthropicModel
        case "OpenAIModel":
            from trio_sagents.models.openai import OpenAIModel  # noqa: PLC0415  # lazy, for the SDK is an extra

            return OpenAIModel
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))
