"""Models behind providers' official SDKs. Nothing is imported from an SDK until its model is asked for.

The modules, lowest first; each imports only modules above it:

    _thinking            how much a model is to think: one setting for all
    _dialects            the servers that speak the chat completions API, as a table
    _fields              reading fields of JSON that a provider sent
    _failure_words       which words of which provider mean which kind of failure
    _errors              what goes wrong, as `ModelFailed`, without secrets
    _environment         addresses, keys and proxies, looked at before anything is sent
    _tls                 the TLS settings that all clients share
    _sse                 server-sent events, out of bytes
    _answer              one streamed answer: deadlines, errors, leaving at any moment
    _settings            settings, timeouts and limits of a model
    _parts               images and files as providers take them
    _history             a history in the one shape that every provider takes
    _notices             what a model tells the log
    _anthropic_request   a request as the body of Anthropic's Messages API
    _anthropic_events    its events as chunks
    anthropic            AnthropicModel
    _openai_extras       fields that only the server understands
    _openai_calls        pieces of tool calls, put together
    _openai_request      a request as the body of the chat completions API
    _openai_events       its events as chunks
    openai               OpenAIModel
    _responses_request   a request as the body of OpenAI's Responses API
    _responses_events    its events as chunks
    openai_responses     OpenAIResponsesModel
    _offline_readers     the embedded model: what it reads out of messages and results
    _offline_asks        what a message asks for
    _offline_jobs        which calls it makes
    _offline_words       what it says
    _offline_duties      titles and summaries
    offline              OfflineModel
    _names               models by "provider:model"
"""

from typing import TYPE_CHECKING

from trio_sagents.models._names import PROVIDERS, NamedModel, model_of, split_name
from trio_sagents.models._thinking import Thinking

if TYPE_CHECKING:
    from trio_sagents.models.anthropic import AnthropicModel
    from trio_sagents.models.openai import OpenAIModel
    from trio_sagents.models.openai_responses import OpenAIResponsesModel

__all__ = (
    "PROVIDERS",
    "AnthropicModel",
    "NamedModel",
    "OpenAIModel",
    "OpenAIResponsesModel",
    "Thinking",
    "model_of",
    "split_name",
)


def __getattr__(name: str) -> object:
    """Return a model class; ImportError, naming the extra to install, if its SDK is missing."""
    match name:
        case "AnthropicModel":
            from trio_sagents.models.anthropic import AnthropicModel  # noqa: PLC0415  # lazy, because the SDK is an extra

            return AnthropicModel
        case "OpenAIModel":
            from trio_sagents.models.openai import OpenAIModel  # noqa: PLC0415  # lazy, because the SDK is an extra

            return OpenAIModel
        case "OpenAIResponsesModel":
            from trio_sagents.models.openai_responses import OpenAIResponsesModel  # noqa: PLC0415  # lazy, because the SDK is an extra

            return OpenAIResponsesModel
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))
