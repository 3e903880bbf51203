"""Messages: what people, models and tools say, as immutable values.

A history is a sequence of `Message`. An assistant message holds its parts in the order in which the model gave them: text, thinking,
tool calls, and opaque parts, which only the provider can read and wants back. Each call is answered by one tool message with one
`ToolResult`. Every turn ends in an assistant message whose `stop_reason` says how the turn ended. A history without such a message at
its end was cut (`data.history`).
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias, get_args

import attrs

from trio_sagents.data.config import type_validator
from trio_sagents.data.json import JSON, check_text, digest_of, plain_json

Role: TypeAlias = Literal["user", "assistant", "tool", "system"]
ToolStatus: TypeAlias = Literal["pending", "executing", "completed", "failed", "interrupted", "cancelled", "unknown"]
StopReason: TypeAlias = Literal["stop", "tool_calls", "continued", "length", "content_filtered", "cancelled", "stream_error", "crashed"]
TextKind: TypeAlias = Literal["narration"]

CutReason: TypeAlias = Literal["length", "content_filtered"]

FINISH_REASONS: Final = frozenset({"stop", "tool_calls", "continued", "length", "content_filtered"})
"""How a provider may end an answer; the others mark an answer whose turn was cut. After "continued" the model is asked again."""
CUT_REASONS: Final = frozenset(get_args(CutReason))
"""How a provider may end an answer that is not whole: its length limit was reached, or a filter stopped it."""
FROM_TOOL: Final = "from_tool"
"""In the metadata of a user message: the name of the tool whose result brought the message. No person has said it."""
STOP_REASONS: Final = frozenset(get_args(StopReason))


_is_text: Final = type_validator(str)
_is_text_or_none: Final = type_validator(str, type(None))


@attrs.frozen
class TextPart:
    """Text, by custom as Markdown."""

    text: str = attrs.field(validator=_is_text)
    kind: TextKind | None = attrs.field(default=None, validator=attrs.validators.in_((None, "narration")))
    """"narration" for what a model says about its work, before it answers; None for an answer, and for what people say."""


@attrs.frozen
class ThinkingPart:
    """What the model thought aloud."""

    text: str = attrs.field(validator=_is_text)
    signature: str | None = attrs.field(default=None, validator=_is_text_or_none)
    """The provider's signature of this thinking; it goes back unchanged. None if the provider gave none."""
    provider: str | None = attrs.field(default=None, validator=_is_text_or_none)
    """The provider that gave the thinking and gets it back. None: any provider that understands the signature."""
    field: str | None = attrs.field(default=None, validator=_is_text_or_none)
    """The field of the provider's message that the thinking came in, and goes back in; None if that is not to be told apart."""


@attrs.frozen
class ImagePart:
    """An image, by address or as base64 data."""

    media_type: str = attrs.field(validator=_is_text)
    """Such as "image/png"."""
    data: str | None = attrs.field(default=None, validator=_is_text_or_none)
    """Base64; None if `url` is given."""
    url: str | None = attrs.field(default=None, validator=_is_text_or_none)


@attrs.frozen
class FilePart:
    """A file that came with a message."""

    name: str = attrs.field(validator=_is_text)
    media_type: str = attrs.field(validator=_is_text)
    data: str = attrs.field(validator=_is_text)
    """Base64."""


def _as_tuple(parts: Iterable["Part"]) -> "tuple[Part, ...]":
    return tuple(parts)


def _plain_object(value: JSON, what: str) -> JSON:
    plain = plain_json(value)
    if not isinstance(plain, dict):
        raise TypeError(f"{what} must be a JSON object, not {type(value).__name__}")
    return plain


def _plain_arguments(value: JSON) -> JSON:
    return _plain_object(value, "the arguments of a tool call")


def _plain_data(value: JSON) -> JSON:
    return _plain_object(value, "the data of an opaque part")


def _plain_metadata(value: JSON) -> JSON:
    return _plain_object(value, "the metadata of a user message")


@attrs.frozen
class OpaquePart:
    """A piece of an answer that only its provider can read, such as encrypted thinking. People do not see it.

    It goes back to the provider unchanged, in its place. It is left out of a request to any other provider.
    """

    provider: str = attrs.field(validator=_is_text)
    """The provider that gave the piece and gets it back."""
    data: JSON = attrs.field(converter=_plain_data)
    """A JSON object, as the provider's adapter understands it; copied when built."""


@attrs.frozen
class ToolCall:
    """One call that a model asks for."""

    call_id: str = attrs.field(validator=_is_text)
    name: str = attrs.field(validator=_is_text)
    arguments: JSON = attrs.field(factory=dict, converter=_plain_arguments)
    """A JSON object; copied when built."""
    status: ToolStatus = "pending"
    display_text: str | None = attrs.field(default=None, kw_only=True, validator=_is_text_or_none)
    """What people read of the call, as the tool says it (`Tool.display_text`); None if the tool says nothing. The model does not see it."""
    opaque: OpaquePart | None = attrs.field(default=None, kw_only=True)
    """What the provider attached to the call and wants back with it, such as the signature of a thought; usually None."""
    digest: str = attrs.field(init=False, eq=False, repr=False)
    """SHA-256 of the name and the arguments: an approval is bound to it."""

    @digest.default  # pyright: ignore[reportAttributeAccessIssue]  # of the attrs field
    def _digest(self) -> str:
        return digest_of([self.name, self.arguments])


MediaPart: TypeAlias = ImagePart | FilePart
"""The parts that a tool result may have beside its text."""


def _as_media(parts: Iterable[MediaPart]) -> tuple[MediaPart, ...]:
    return tuple(parts)


def check_media(_owner: object, _field: object, parts: Sequence[MediaPart]) -> None:
    """Raise TypeError or ValueError unless `parts` are images, each with data or a url, and files. Usable as an attrs validator."""
    for part in parts:
        if not isinstance(part, ImagePart | FilePart):
            raise TypeError(f"the media of a tool result are ImagePart and FilePart, not {type(part).__name__}")
        if isinstance(part, ImagePart) and part.data is None and part.url is None:
            raise ValueError("an image in a tool result must have data, or a url")


@attrs.frozen
class ToolResult:
    """The one answer to one tool call."""

    call_id: str = attrs.field(validator=_is_text)
    name: str = attrs.field(validator=_is_text)
    content: str = attrs.field(validator=_is_text)
    """What the model reads."""
    status: ToolStatus = "completed"
    """A final one: "completed", "failed", "cancelled" (the call did not run to its end) or "unknown" (it may have)."""
    media: Sequence[MediaPart] = attrs.field(default=(), converter=_as_media, validator=check_media)
    """Images and files beside the text, in order; usually empty. The model sees them if its provider takes them."""

    @property
    def is_error(self) -> bool:
        """Whether the model is told that the call did not succeed."""
        return self.status != "completed"


Part: TypeAlias = TextPart | ThinkingPart | OpaquePart | ImagePart | FilePart | ToolCall | ToolResult
UserPart: TypeAlias = TextPart | ImagePart | FilePart

PART_TAGS: Final[dict[type[Part], str]] = {
    TextPart: "text",
    ThinkingPart: "thinking",
    OpaquePart: "opaque",
    ImagePart: "image",
    FilePart: "file",
    ToolCall: "tool_call",
    ToolResult: "tool_result",
}


@attrs.frozen
class Poster:
    """Who posted a message, as far as it is stored. For the library: so that a turn runs as this person after a restart, too."""

    key: str | int | None
    is_scope: bool = False
    """Whether the scope of the poster is the key itself."""


@attrs.frozen
class Message:
    """One message of a conversation."""

    message_id: str = attrs.field(validator=_is_text)
    """Unique in the conversation, for ever."""
    role: Role
    parts: Sequence[Part] = attrs.field(default=(), converter=_as_tuple)
    """In order; empty for an answer that was cut before its first word."""
    stop_reason: StopReason | None = None
    """How an assistant message ended; None for the other roles."""
    turn_id: str | None = None
    """The turn that the message belongs to; None while the message waits in the queue."""
    metadata: JSON = attrs.field(factory=dict)
    """The host's own notes on a user message. On an assistant message: the cause of a cut; and, if it is the last one of its turn, the
    record of the turn, under "turn"."""
    digest: str | None = attrs.field(default=None, eq=False)
    """The digest of the content as it was posted. A second post with this message id is compared with it."""
    posted_by: Poster | None = attrs.field(default=None, eq=False, repr=False)
    """Who posted a user message, if nothing else tells it after a restart. Viewers are not shown it."""

    @property
    def cut(self) -> CutReason | None:
        """Why the provider ended this answer before it was whole; None for any other message."""
        match self.stop_reason:
            case "length" | "content_filtered" as reason:
                return reason
            case _:
                return None

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def answer(self) -> str:
        """The text parts without narration, joined; all of the text if there is nothing but narration."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart) and part.kind is None) or self.text

    @property
    def calls(self) -> Sequence[ToolCall]:
        """The tool calls, in the order in which the model asked for them."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def results(self) -> Sequence[ToolResult]:
        """The tool results, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolResult))


def _user_parts(value: str | Iterable[UserPart]) -> tuple[UserPart, ...]:
    if isinstance(value, str):
        return (TextPart(value),)
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise TypeError(f"a user message must be a str or a sequence of parts, not {type(value).__name__}")
    return tuple(value)


def _check_user_parts(_message: object, _field: object, parts: tuple[UserPart, ...]) -> None:
    if not parts:
        raise ValueError("a user message must have at least one part")
    for part in parts:
        if not isinstance(part, TextPart | ImagePart | FilePart):
            raise TypeError(f"a part of a user message must be text, an image or a file, not {type(part).__name__}")
        if isinstance(part, ImagePart) and part.data is None and part.url is None:
            raise ValueError("an image in a user message must have data, or a url")
        for value in attrs.astuple(part):
            if value is not None:
                check_text(value, "message")
    if not any(not isinstance(part, TextPart) or part.text.strip() for part in parts):
        raise ValueError("a user message must not be empty")


@attrs.frozen
class UserMessage:
    """A message of a person: `UserMessage("Hello")`, or a sequence of text, image and file parts."""

    parts: Sequence[UserPart] = attrs.field(converter=_user_parts, validator=_check_user_parts)
    metadata: JSON = attrs.field(factory=dict, kw_only=True, converter=_plain_metadata)
    """The host's own notes: a JSON object; copied; stored with the message, never shown to the model."""

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))
