"""What goes to a model, and what comes back from the model."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import attrs

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import Message, OpaquePart, TextKind
from trio_sagents.data.outcomes import Usage


@attrs.frozen
class ToolSpec:
    """A tool as the model sees it."""

    name: str
    description: str
    parameters: JSON
    """A JSON schema of type "object"."""
    display_text: str | None = None
    """What people read of a call while its arguments are not known yet. No provider is told."""


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
    """The next piece of text. Neighbouring pieces of one kind are one part."""

    text: str
    kind: TextKind | None = None
    """"narration" for text that is not meant as the answer; as `TextPart.kind`."""


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
    """ "stop", "tool_calls", "continued", "length" or "content_filtered". Raise `ModelFailed` for anything else.

    "continued" says that the model is not done: its answer is kept, and it is asked again in the same turn."""
    is_end: bool | None = None
    """Whether the provider said that its turn ends here. None: it said nothing. Then an answer that ends with "stop" ends the turn, unless
    all of its text is narration."""


ModelChunk: TypeAlias = TextChunk | ThinkingChunk | OpaqueChunk | ToolCallChunk | UsageChunk | FinishChunk
