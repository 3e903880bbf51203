"""What goes to a model, and what comes back from the model."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import attrs

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import Message, OpaquePart
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
    """Settings for this call alone; they replace those of the model."""


@attrs.frozen
class TextChunk:
    """The next piece of text."""

    text: str


@attrs.frozen
class ThinkingChunk:
    """The next piece of thinking. Neighbouring pieces are one part, up to a signature or another provider or field."""

    text: str
    signature: str | None = None
    """The provider's signature of the thinking so far, if this piece ends with a signature."""
    provider: str | None = None
    """As `ThinkingPart.provider`."""
    field: str | None = None
    """As `ThinkingPart.field`."""


@attrs.frozen
class OpaqueChunk:
    """A part that only its provider can read; the part is whole."""

    part: OpaquePart


@attrs.frozen
class ToolCallChunk:
    """The next piece of a tool call; the pieces with the same `index` are one call."""

    index: int
    id: str | None = None
    """The call's id, in its first piece."""
    name: str | None = None
    """The tool's name, in its first piece."""
    arguments_json: str = ""
    """The next piece of the JSON text of the arguments."""
    opaque: OpaquePart | None = None
    """What the provider attached to the call and wants back with it; the last one counts."""


@attrs.frozen
class UsageChunk:
    """Tokens used; several chunks in one stream are added up. A model that knows no count sends no such chunk."""

    usage: Usage


@attrs.frozen
class FinishChunk:
    """The last chunk: why the model stopped."""

    reason: str
    """ "stop", "tool_calls", "length" or "content_filtered". Raise `ModelFailed` for anything else."""


ModelChunk: TypeAlias = TextChunk | ThinkingChunk | OpaqueChunk | ToolCallChunk | UsageChunk | FinishChunk
