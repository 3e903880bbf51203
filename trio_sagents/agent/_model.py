"""The model port: what an adapter to a provider implements, and what one call of a model gives."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs

from trio_sagents.data.messages import Message
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.requests import ModelChunk, ModelRequest


class Model(Protocol):
    """A language model behind a provider."""

    @property
    def name(self) -> str:
        """The name of the model; a plain attribute is enough."""
        ...

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ModelChunk]]:
        """Open one answer.

        The iterator yields chunks in order, the last one a `FinishChunk`. Leaving the context closes the connection.

        Raises:
            ModelFailed: the provider's fault. `kind` says what went wrong, `retryable` whether the same request may succeed later.
        """
        ...


@attrs.frozen
class ModelAnswer:
    """The result of one model call."""

    message: Message
    usage: Usage = attrs.field(factory=Usage)
    invalid: "dict[str, str]" = attrs.field(factory=dict)
    """By call id: why the arguments of a call cannot be used. Such a call is answered with that text, and is not run."""
    model: str = ""
    """The name of the model that gave the answer."""
    is_usage_known: bool = True
    """False if the provider did not say what the answer cost; `usage` then counts too little."""


def name_of(model: Model) -> str:
    """Return the name of a model; the name of its class if the model has none."""
    try:
        name: object = getattr(model, "name", None)
    except Exception:  # noqa: BLE001  # an adapter without a readable name has failed already, and that failure is reported
        name = None
    return name if isinstance(name, str) else type(model).__name__
