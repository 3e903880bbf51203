"""What goes to a store, and what comes back: JSON inside, so a store needs to know none of our types."""

import datetime
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import attrs

from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.json import JSON
from trio_sagents.data.messages import Role, ToolStatus

Lifecycle: TypeAlias = Literal[
    "on_message", "on_step", "on_completion", "on_cancel", "on_error", "on_interrupt", "on_title_generated", "on_shutdown"
]
Owner: TypeAlias = str | int | None
"""The key of the scope that owns a conversation; `1`, `"1"` and `None` are three owners."""


class Unchecked(enum.Enum):
    """The type of `UNCHECKED`; None cannot say it, for None is an owner."""

    UNCHECKED = "unchecked"


UNCHECKED: Final = Unchecked.UNCHECKED
"""Given to a store in the place of an owner: whoever owns the conversation."""


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
    """ "text", "thinking", "image", "file_reference", "tool_call", "tool_result", "notification" or "error"."""
    content: JSON
    """By content type, such as {"text": ...}; of an "error" {"kind", "text"}, with a kind of `TurnErrorKind`. The last row of an answer
    that was cut carries "stop_reason"."""
    status: ToolStatus
    created_at: datetime.datetime
    turn_id: str | None = None
    """The turn that the row belongs to; None for a message that no turn had taken yet when it was stored, and for older rows."""
    is_final: bool = True
    """Whether the row stays as it is; False while a tool call runs, or waits for people."""


@attrs.frozen
class ToolUpdate:
    """A step in the life of a tool call, for the row that shows it."""

    status: ToolStatus
    tool_info: JSON
    """{"call_id", "name"} and "arguments", "result" or "error", as the status has it."""


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
    """Rows of the transcript to insert, or to replace where the row id is known; a replaced row keeps its place."""
    tool_updates: Sequence[ToolUpdate] = ()
    """What the tool calls of this commit went through, in order."""


@attrs.frozen(kw_only=True)
class Conversation:
    """One stored conversation, as its last commit left it."""

    conversation_id: str
    owner: Owner
    epoch: int
    """As raised by this load."""
    revision: int
    messages: Sequence[JSON]
    """The history, oldest first."""
    queue: Sequence[JSON]
    """Accepted messages that no turn has taken yet, oldest first."""
    message_ids: Mapping[str, str]
    """Every message id ever accepted, with the digest of its content."""
    state: JSON
    """What the commits left of their `state`, by key; a key that was removed is absent, or None."""


Check: TypeAlias = Callable[[Conversation], None]
"""Looks at a loaded conversation, and raises where it cannot be used."""


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
    """The scope of the caller that caused it; the agent's own where nobody did."""
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
class ConversationItem:
    """One line of the list of conversations."""

    conversation_id: str
    owner: Owner
    title: str | None
    """The title kept in the metadata, where there is one."""
    message_count: int
    updated_at: datetime.datetime


@attrs.frozen
class ConversationPage:
    """A page of the list of conversations."""

    items: Sequence[ConversationItem]
    """The one changed last comes first; may be empty."""
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
    """What it waits for, since when, and until when. `sessions.ensure_running(conversation_id)` gives the agent that takes the answer."""


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
