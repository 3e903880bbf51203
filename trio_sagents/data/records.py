"""What goes to a store, and what comes back: JSON inside, so a store needs to know none of our types."""

import datetime
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, get_args

import attrs

from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.json import JSON, check_text, plain_json
from trio_sagents.data.messages import Role, ToolStatus

Lifecycle: TypeAlias = Literal[
    "on_message", "on_step", "on_completion", "on_cancel", "on_error", "on_interrupt", "on_title_generated", "on_shutdown"
]
Owner: TypeAlias = str | int | None
"""The key of the scope that owns a conversation; `1`, `"1"` and `None` are three owners."""


class Unchecked(enum.Enum):
    """The type of `UNCHECKED`; None cannot say it, for None is an owner."""

    UNCHECKED = "unchecked"


MAX_ROW_TEXT: Final = 200
"""Characters of the content type and of the key of a row of the host's."""
UNCHECKED: Final = Unchecked.UNCHECKED
"""Given to a store in the place of an owner: any owner of the conversation."""


OPEN_STATUSES: Final = frozenset({"pending", "executing", "interrupted"})
"""Statuses of a row that may still change."""


@attrs.frozen
class DisplayMessage:
    """One row of the transcript: what people see of a message."""

    row_id: str
    """Made from the message id, so that saving it twice saves it once."""
    message_id: str
    role: Role
    content_type: str
    """ "text", "thinking", "image", "file_reference", "tool_call", "tool_result", "answer", "notification", "error"; or the content type
    of a row of your own (`Row`)."""
    content: JSON
    """By content type, such as {"text": ...}; of an "error" {"kind", "text"}, with a kind of `TurnErrorKind`. The last row of an answer
    that was cut carries "stop_reason". A "tool_call" has "display_text" if its tool has one. An "answer" is what a person answered to a
    question: "text", the "labels" and the "values" that were chosen, "other", "question" and "call_id"."""
    status: ToolStatus
    created_at: datetime.datetime
    turn_id: str | None = None
    """The turn that the row belongs to; None for a message that waited in the queue when it was stored, and for older rows."""
    is_final: bool = True
    """Whether the row will not change any more; False while a tool call runs, or waits for people."""


def _check_row_text(_row: "Row | None", field: "attrs.Attribute[str]", value: object) -> None:
    if not isinstance(value, str) or not check_text(value, f"Row.{field.name}") or len(value) > MAX_ROW_TEXT:
        raise ValueError(f"Row.{field.name} must be a text of 1 to {MAX_ROW_TEXT} characters, not {value!r}"[:200])


def _check_row_key(row: "Row", field: "attrs.Attribute[str | None]", value: object) -> None:
    if value is not None:
        _check_row_text(row, field, value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # only its name is read


def _row_content(value: JSON) -> JSON:
    plain = plain_json(value, "Row.content")
    if not isinstance(plain, dict):
        raise TypeError(f"Row.content must be a JSON object, not {type(value).__name__}")
    return plain


@attrs.frozen
class Row:
    """A row of the transcript that a tool, a middleware or the host adds. People see it, and no model does."""

    content_type: str = attrs.field(validator=_check_row_text)
    """"notification", with a content of {"text": ...}, is what every viewer can show; or a word of your own, such as "chart"."""
    content: JSON = attrs.field(converter=_row_content)
    """A JSON object; copied."""
    key: str | None = attrs.field(default=None, kw_only=True, validator=_check_row_key)
    """A row with the same key replaces the one before, in its place. None makes a new row each time."""
    role: Role = attrs.field(default="system", kw_only=True, validator=attrs.validators.in_(get_args(Role)))


ENDS: Final[frozenset[Lifecycle]] = frozenset({"on_completion", "on_cancel", "on_error", "on_interrupt", "on_shutdown"})
"""The lifecycles of commits with which a turn ends, or begins to wait for people."""


@attrs.frozen
class ToolUpdate:
    """A step in the life of a tool call, for the row that shows it."""

    status: ToolStatus
    tool_info: JSON
    """{"call_id", "name"} and "arguments", "result" or "error", as the status has it."""


@attrs.frozen
class Checkpoint:
    """From where on a conversation is loaded: what is before the window stays in the store, and is read when somebody asks for it.

    The places of messages count from 0, over the whole history, in the order in which the messages were appended.
    """

    lead: int
    """How many messages at the very beginning belong to the window."""
    older: int
    """How many messages behind those do not belong to it; the window continues at the place `lead + older`."""
    known: Mapping[str, Sequence[int]] = attrs.field(factory=dict, repr=False)
    """New names for the index of what left the window, each with two places: of a message, and of the last message of its turn. A name
    that the index has already gets the new places."""


@attrs.frozen(kw_only=True)
class Commit:
    """One atomic change of one conversation. A store makes all of it durable, or none."""

    conversation_id: str
    agent_id: str
    owner: Owner
    """Stored by the first commit, and equal in each later one."""
    epoch: int
    """That of the agent; the store's, or the commit is refused."""
    revision: int
    """The one this commit establishes; the store's plus one, or the commit is refused. The first is 1."""
    lifecycle: Lifecycle
    actor: object = attrs.field(default=None, repr=False)
    """The scope of the caller that caused it; the host's own object, never stored."""
    messages: Sequence[JSON] = ()
    """To be appended to the history, in order."""
    queued: Sequence[JSON] = ()
    """To be appended to the queue of accepted messages, in order."""
    taken: Sequence[str] = ()
    """Ids of the messages that leave the queue."""
    message_ids: Mapping[str, str] = attrs.field(factory=dict)
    """New message ids, each with the digest of its content; a used one makes the store refuse."""
    state: JSON = attrs.field(factory=dict)
    """The keys of the rest of the state that change, such as "todos", "metadata", "interrupt", "draft", and "draft.1" and so on for what
    a draft has grown by; None removes a key, and absent ones stay. A store keeps any key, and looks into none but "metadata"."""
    rows: Sequence[DisplayMessage] = ()
    """Rows of the transcript to insert, or to replace if the row id is known; a replaced row keeps its place."""
    tool_updates: Sequence[ToolUpdate] = ()
    """The changes of status of the tool calls of this commit, in order."""
    checkpoint: Checkpoint | None = None
    """The new beginning of the window, counted with the messages of this commit; None leaves it. Only a `WindowedStore` is given one."""

    @property
    def comes_first(self) -> bool:
        """Whether the conversation comes first in the list of conversations from this commit on.

        A conversation comes first when it begins, and whenever a turn ends or begins to wait for people. What happens during a turn
        leaves the list as it is.
        """
        return self.revision == 1 or self.lifecycle in ENDS


@attrs.frozen(kw_only=True)
class Conversation:
    """One stored conversation, as its last commit left it."""

    conversation_id: str
    owner: Owner
    epoch: int
    """As raised by this load."""
    revision: int
    messages: Sequence[JSON]
    """The history, oldest first; after a checkpoint its window alone."""
    queue: Sequence[JSON]
    """Accepted messages that no turn has taken yet, oldest first."""
    message_ids: Mapping[str, str]
    """Every message id ever accepted, with the digest of its content; after a checkpoint those of the window and the queue alone."""
    state: JSON
    """What the commits left of their `state`, by key; a key that was removed is absent, or None."""
    older: int = 0
    """How many messages of the history are not among `messages`; see `Checkpoint`."""


Check: TypeAlias = Callable[[Conversation], None]
"""Checks a loaded conversation, and raises if it cannot be used."""


def accept_all(conversation: Conversation) -> None:
    """Look at nothing."""


@attrs.frozen
class StoredState:
    """What a host's `AgentPersistence` gives back."""

    data: JSON
    owner: Owner
    epoch: int
    revision: int


@attrs.frozen
class PersistContext:
    """Which write this is."""

    agent_id: str
    conversation_id: str
    lifecycle: Lifecycle
    actor: object = attrs.field(repr=False)
    """The scope of the caller that caused the write; the agent's own scope if no caller did."""
    owner: Owner
    epoch: int
    """The value this write establishes."""
    revision: int
    """The value this write establishes; the store expects revision - 1."""


@attrs.frozen
class HistoryPage:
    """A page of the transcript."""

    rows: Sequence[DisplayMessage]
    """Oldest first; may be empty."""
    before: str | None = None
    """For the next older page; None where there is none."""


@attrs.frozen
class Recalled:
    """What a store remembers of a name in its index."""

    message: JSON
    """The message at the first place of the name."""
    last: JSON
    """The message at its second place."""


@attrs.frozen
class OlderPage:
    """A page of the messages that are before the window of a conversation, as stored."""

    messages: Sequence[JSON]
    """Oldest first; may be empty."""
    before: str | None = None
    """For the next older page; None if there is none."""


@attrs.frozen
class ConversationItem:
    """One line of the list of conversations."""

    conversation_id: str
    owner: Owner
    title: str | None
    """The title kept in the metadata, where there is one."""
    message_count: int
    updated_at: datetime.datetime
    """When it came first in the list."""


@attrs.frozen
class ConversationPage:
    """A page of the list of conversations."""

    items: Sequence[ConversationItem]
    """The one changed last comes first; may be empty. With the stores of the library, a turn changes its conversation when it ends."""
    after: str | None = None
    """For the next page; None where there is none."""


@attrs.frozen
class WaitingConversation:
    """A stored conversation that waits for a person, whether its agent is up or not."""

    conversation_id: str
    owner: Owner
    title: str | None
    """The title kept in the metadata, where there is one."""
    interrupt: Interrupt
    """What it waits for, for whom (`asked_by`), since when, and until when. `sessions.ensure_running(conversation_id)` gives the agent
    that takes the answer."""


@attrs.frozen
class WaitingPage:
    """A page of the conversations that wait for a person."""

    items: Sequence[WaitingConversation]
    """The one that has waited longest comes first; may be empty."""
    after: str | None = None
    """For the next page; None where there is none."""


@attrs.frozen
class Saved:
    """What a store reports of one write: the rows that are new, and those that changed."""

    new: Sequence[DisplayMessage] = ()
    changed: Sequence[DisplayMessage] = ()
    by_host: bool = False
    """Whether a host's own store made the rows, from messages: then no middleware has looked at them."""
