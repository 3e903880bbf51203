"""What goes to a model, and what comes back from it."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import attrs

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import Message
from trio_sagents.data.outcomes import Usage


@attrs.frozen
class ToolSpec:
    """A tool as the model sees it."""

    name: str
    description: str
    parameters: JSON
    """A JSON schema of type "object"."""


@attrs.frozen
class ModelRequest:
    """One call of a model."""

    system: str
    """The system prompt; may be empty."""
    messages: Sequence[Message]
    """The history, oldest first, valid for a provider: each tool call is answered exactly once."""
    tools: Sequence[ToolSpec] = ()
    settings: Mapping[str, JSONValue] = attrs.field(factory=dict)
    """Settings for this call alone, on top of the model's own."""


@attrs.frozen
class TextChunk:
    """The next piece of text."""

    text: str


@attrs.frozen
class ThinkingChunk:
    """The next piece of thinking."""

    text: str
    signature: str | None = None
    """The provider's seal on the thinking so far, where it gives one."""


@attrs.frozen
class ToolCallChunk:
    """The next piece of a tool call; the pieces with one `index` are one call."""

    index: int
    id: str | None = None
    """The call's id, in its first piece."""
    name: str | None = None
    """The tool's name, in its first piece."""
    arguments_json: str = ""
    """The next piece of the JSON text of the arguments."""


@attrs.frozen
class UsageChunk:
    """Tokens used; several in one stream are added up."""

    usage: Usage


@attrs.frozen
class FinishChunk:
    """The last chunk: why the model stopped."""

    reason: str
    """ "stop", "tool_calls", "length" or "content_filtered"."""


ModelChunk: TypeAlias = TextChunk | ThinkingChunk | ToolCallChunk | UsageChunk | FinishChunk
