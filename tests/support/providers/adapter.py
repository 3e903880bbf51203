"""How a test sees a model adapter: a subclass of `Adapter` says how its provider speaks."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import trio

from trio_sagents.abc import Model
from trio_sagents.data.messages import Message, TextPart
from trio_sagents.data.requests import ModelChunk, ModelRequest, TextChunk
from trio_sagents.exceptions import ModelFailed
from trio_sagents.testing.providers import Provider, Reply, open_provider

PATIENCE = 60.0
"""How long a test waits for what must happen at once, in seconds: a busy machine takes its time."""
KEY = "secret-key-4711"


def ask(words: str = "Hello", **fields: Any) -> ModelRequest:
    """Return a request with one user message."""
    return ModelRequest("", [Message("m-1", "user", (TextPart(words),))], **fields)


async def chunks_of(model: Model, request: ModelRequest | None = None) -> list[ModelChunk]:
    """Return all chunks of one answer."""
    with trio.fail_after(PATIENCE):
        async with model.stream(request or ask()) as answer:
            return [chunk async for chunk in answer]


async def failure_of(model: Model, request: ModelRequest | None = None) -> ModelFailed:
    """Return the error that an answer ends with."""
    with pytest.raises(ModelFailed) as caught:
        await chunks_of(model, request)
    return caught.value


def text_of(chunks: Sequence[ModelChunk]) -> str:
    """Return the text of an answer."""
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))


def messages_in(body: Any) -> Any:
    """Return the history in a body."""
    return body["input"] if "input" in body else body["messages"]


def without_marks(value: Any) -> Any:
    """Return a body without the marks that say what is to be cached."""
    if isinstance(value, list):
        return [without_marks(item) for item in value]
    if isinstance(value, dict):
        return {key: without_marks(item) for key, item in value.items() if key != "cache_control"}
    return value


class Adapter(ABC):
    """How a provider speaks."""

    @pytest.fixture
    async def provider(self) -> AsyncIterator[Provider]:
        """Serve without a script."""
        async with open_provider() as provider:
            yield provider

    @abstractmethod
    def model(self, provider: Provider, **more: Any) -> Model:
        """Return a model at this server, with `KEY`."""

    @abstractmethod
    def client(self, provider: Provider) -> Any:
        """Return an SDK's client at this server, as a host would make it."""

    @abstractmethod
    def model_of(self, client: Any) -> Model:
        """Return a model that uses a host's client."""

    @abstractmethod
    def says(self, *pieces: str) -> Reply:
        """Return an answer of text, its first piece of text in the first four steps, and more than one step after it."""

    @abstractmethod
    def asks(self, call_id: str, name: str, *pieces: str) -> Reply:
        """Return an answer that asks for a tool, with these pieces of arguments."""

    @abstractmethod
    def error_event(self, kind: str, message: str) -> bytes:
        """Return an error event for the middle of a stream."""

    @abstractmethod
    def error(self, status: int, kind: str, message: str, **headers: str) -> Reply:
        """Return an answer with an error status."""
