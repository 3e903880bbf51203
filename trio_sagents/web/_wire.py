"""Commands of a page: from JSON to values, and errors to JSON. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import attrs

from trio_sagents import (
    JSON,
    AgentBusy,
    AgentNotRunning,
    AlreadyDecided,
    Channel,
    ConversationNotFound,
    Cursor,
    Decision,
    FilePart,
    ImagePart,
    InvalidDecision,
    LimitExceeded,
    MessageConflict,
    NotInterrupted,
    Overlap,
    QueueFull,
    RunsElsewhere,
    SagentsError,
    Scope,
    TextPart,
    UserMessage,
    check_id,
)

_COMMAND_ID: Final = re.compile(r"[!-~]{1,64}")
_CHANNELS: Final[Mapping[str, Channel]] = {"main": "main", "debug": "debug"}
_OVERLAPS: Final[Mapping[str, Overlap]] = {"queue": "queue", "steer": "steer", "interrupt": "interrupt", "reject": "reject"}
MAX_LIMIT: Final = 1000
MAX_DECISIONS: Final = 1000


class Invalid(Exception):  # what the page has sent is invalid; it is not an error of ours
    """A command lacks a member, or a member is wrong; the text is for the page."""


class TooMany(Exception):  # as above
    """A limit of the policy was reached; the text is for the page."""


# ── commands


@attrs.frozen
class Subscribe:
    """Listen to a conversation."""

    conversation_id: str
    after: Cursor | None
    channel: Channel
    start: bool
    """Whether to start the agent."""


@attrs.frozen
class Unsubscribe:
    """Stop listening."""

    conversation_id: str
    channel: Channel


@attrs.frozen
class SetVisible:
    """The page is looked at, or is not."""

    visible: bool


@attrs.frozen
class Ping:
    """Answer."""


@attrs.frozen
class Pong:
    """The answer to a ping of the server."""


@attrs.frozen
class Post:
    """Accept a message."""

    conversation_id: str
    message_id: str
    message: UserMessage
    overlap: Overlap


@attrs.frozen
class CancelTurn:
    """Cut a turn, and no other one."""

    conversation_id: str
    turn_id: str


@attrs.frozen
class Resume:
    """Record decisions."""

    conversation_id: str
    decisions: Sequence[Decision]


@attrs.frozen
class Dismiss:
    """Acknowledge a halt, and no other one."""

    conversation_id: str
    interrupt_id: str


@attrs.frozen
class ReadHistory:
    """Read a page of the transcript."""

    conversation_id: str
    before: str | None
    limit: int


@attrs.frozen
class ListConversations:
    """Read a page of the list of conversations."""

    after: str | None
    limit: int


@attrs.frozen
class ListWaiting:
    """Read a page of what waits for people."""

    after: str | None
    limit: int


@attrs.frozen
class ListAgents:
    """Read the list of running agents."""

    watch: bool
    """Whether to tell of changes. Only a socket can."""


@attrs.frozen
class ShowAgent:
    """Read what a running agent is made of."""

    conversation_id: str


OfSocket: TypeAlias = Subscribe | Unsubscribe | SetVisible | Ping | Pong
"""Commands that are about the socket they come by."""
OfSessions: TypeAlias = Post | CancelTurn | Resume | Dismiss | ReadHistory | ListConversations | ListWaiting | ListAgents | ShowAgent
"""Commands that may come by a socket or by a POST."""
Command: TypeAlias = OfSocket | OfSessions


@attrs.frozen
class _Fields:
    """Reads the members of a frame; whatever is wrong is an `Invalid` that names the member."""

    frame: JSON

    def id(self, name: str) -> str:
        try:
            return check_id(name, self.frame.get(name))
        except (TypeError, ValueError) as exc:
            raise Invalid(str(exc)) from None

    def text(self, name: str) -> str | None:
        value = self.frame.get(name)
        if value is not None and not isinstance(value, str):
            raise Invalid(f"{name} must be a text or null")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.frame.get(name, default)
        if not isinstance(value, bool):
            raise Invalid(f"{name} must be true or false")
        return value

    def cursor(self, name: str) -> Cursor | None:
        text = self.text(name)
        try:
            return None if text is None else Cursor.parse(text)
        except ValueError:
            raise Invalid(f"{name} is not the cursor of an event") from None

    def channel(self) -> Channel:
        channel = _CHANNELS.get(self.text("channel") or "main")
        if channel is None:
            raise Invalid('channel must be "main" or "debug"')
        return channel

    def limit(self) -> int:
        value = self.frame.get("limit", 100)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_LIMIT:
            raise Invalid(f"limit must be an integer from 1 to {MAX_LIMIT}")
        return value

    def objects(self, name: str, most: int) -> Sequence[JSON]:
        value = self.frame.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value) or not 1 <= len(value) <= most:
            raise Invalid(f"{name} must be a list of 1 to {most} objects")
        return value


def _subscribe(fields: _Fields) -> Subscribe:
    channel = fields.channel()
    start = fields.flag("start", default=channel == "main") and channel == "main"
    return Subscribe(fields.id("conversation_id"), fields.cursor("after"), channel, start)


def _post(fields: _Fields) -> Post:
    overlap = _OVERLAPS.get(fields.text("overlap") or "queue")
    if overlap is None:
        raise Invalid(f"overlap must be one of {', '.join(_OVERLAPS)}")
    return Post(fields.id("conversation_id"), fields.id("message_id"), _message(fields), overlap)


def _message(fields: _Fields) -> UserMessage:
    try:
        if fields.frame.get("parts") is None:
            return UserMessage(fields.text("text") or "")
        return UserMessage([_part(_Fields(part)) for part in fields.objects("parts", 100)])
    except (TypeError, ValueError) as exc:
        raise Invalid(str(exc)) from None


def _part(fields: _Fields) -> TextPart | ImagePart | FilePart:
    media_type, data = fields.text("media_type") or "", fields.text("data")
    match fields.frame.get("type"):
        case "text":
            return TextPart(fields.text("text") or "")
        case "image":
            return ImagePart(media_type, data, fields.text("url"))
        case "file":
            return FilePart(fields.text("name") or "", media_type, data or "")
        case _:
            raise Invalid('the type of a part must be "text", "image" or "file"')


def _resume(fields: _Fields) -> Resume:
    try:
        decisions = [Decision.from_dict(data) for data in fields.objects("decisions", MAX_DECISIONS)]
    except (TypeError, ValueError) as exc:
        raise Invalid(str(exc)) from None
    return Resume(fields.id("conversation_id"), decisions)


_READERS: Final[Mapping[str, Callable[[_Fields], Command]]] = {
    "subscribe": _subscribe,
    "unsubscribe": lambda fields: Unsubscribe(fields.id("conversation_id"), fields.channel()),
    "visible": lambda fields: SetVisible(fields.flag("visible", default=True)),
    "ping": lambda _: Ping(),
    "pong": lambda _: Pong(),
    "post": _post,
    "cancel": lambda fields: CancelTurn(fields.id("conversation_id"), fields.id("turn_id")),
    "resume": _resume,
    "dismiss": lambda fields: Dismiss(fields.id("conversation_id"), fields.id("interrupt_id")),
    "history": lambda fields: ReadHistory(fields.id("conversation_id"), fields.text("before"), fields.limit()),
    "conversations": lambda fields: ListConversations(fields.text("after"), fields.limit()),
    "waiting": lambda fields: ListWaiting(fields.text("after"), fields.limit()),
    "agents": lambda fields: ListAgents(fields.flag("watch", default=False)),
    "agent": lambda fields: ShowAgent(fields.id("conversation_id")),
}
"""By `op`. Retrying, editing and forking a message are to join when `Sessions` has them."""
OPS: Final = frozenset(_READERS)


def command_of(frame: JSON) -> Command:
    """Return the command that a frame stands for.

    Raises:
        Invalid: there is no such command, or a member is missing or wrong.
    """
    op = frame.get("op")
    reader = _READERS.get(op) if isinstance(op, str) else None
    if reader is None:
        raise Invalid("there is no such op")
    return reader(_Fields(frame))


def command_id(frame: JSON) -> str | None:
    """Return the id of a frame; None if the frame has none that a reply could name."""
    value = frame.get("id")
    return value if isinstance(value, str) and _COMMAND_ID.fullmatch(value) else None


# ── errors


@attrs.frozen
class ErrorInfo:
    """An error as a page is told of it."""

    status: int
    """The HTTP status."""
    type: str
    message: str
    retry_after: float | None = None

    def to_dict(self) -> JSON:
        """Return the JSON object."""
        return {"type": self.type, "message": self.message, "retry_after": self.retry_after}


_STATUSES: Final[Sequence[tuple[type[SagentsError], int, float | None]]] = (
    (ConversationNotFound, 404, None),
    (AgentBusy, 409, 1.0),
    (AgentNotRunning, 409, 1.0),
    (AlreadyDecided, 409, None),
    (MessageConflict, 409, None),
    (NotInterrupted, 409, None),
    (LimitExceeded, 413, None),
    (InvalidDecision, 422, None),
    (QueueFull, 429, 1.0),
)
_UNAVAILABLE: Final = (503, 1.0)
"""Of every other error of the library."""
INTERNAL: Final = ErrorInfo(500, "Internal", "the server has a defect; its log has more", None)


def error_of(error: SagentsError) -> ErrorInfo:
    """Return what a page is told of an error: its public text."""
    status, retry_after = next(((status, after) for kind, status, after in _STATUSES if isinstance(error, kind)), _UNAVAILABLE)
    if isinstance(error, RunsElsewhere):
        retry_after = error.retry_after
    return ErrorInfo(status, type(error).__name__, error.public_text, retry_after)


def invalid(message: str) -> ErrorInfo:
    """Return what a page is told of a command that is wrong."""
    return ErrorInfo(400, "Invalid", message)


def too_many(message: str, retry_after: float | None = 1.0) -> ErrorInfo:
    """Return what a page is told that wants too much."""
    return ErrorInfo(429, "TooMany", message, retry_after)


# ── endings

Reason: TypeAlias = Literal["shutdown", "expired", "revoked", "idle", "slow", "rate", "invalid", "error"]


@attrs.frozen
class Ending:
    """Why the bridge ends a stream."""

    reason: Reason
    code: int
    """The close code of a WebSocket."""
    retry_after: float | None = None
    message: str | None = None

    def to_dict(self) -> dict[str, Scope]:
        """Return the JSON object, without an `op`."""
        plain: dict[str, Scope] = {"reason": self.reason, "retry_after": self.retry_after}
        return plain if self.message is None else {**plain, "message": self.message}


EXPIRED: Final = Ending("expired", 4401)
REVOKED: Final = Ending("revoked", 4401)
IDLE: Final = Ending("idle", 4408, 0.0)
SLOW: Final = Ending("slow", 4413, 0.0)
RATE: Final = Ending("rate", 4429, 5.0)
DEFECT: Final = Ending("error", 1011, 5.0)
