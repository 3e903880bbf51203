"""Moves: what a client of a foreign protocol is told of one turn, in terms that all such protocols share.

`TurnRelay` makes moves from events; an encoder writes each move in the words of its protocol. So a new event needs one mapping to moves,
and a new move needs one mapping per protocol. Both are closed unions, and a test has a golden file for each event.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import attrs

from trio_sagents import JSON, Message, PendingCall, Todo, TurnOutcome, Usage

SpokenKind: TypeAlias = Literal["text", "thinking"]


@attrs.frozen
class StepBegan:
    """A model begins to answer. One answer is one message."""

    message_id: str


@attrs.frozen
class SpeechBegan:
    """A part of a message begins: text, or thinking."""

    message_id: str
    ordinal: int
    """Which part of this message it is, counted over the parts that people can read."""
    kind: SpokenKind


@attrs.frozen
class SpeechAdded:
    """The next piece of the part that has begun last."""

    message_id: str
    ordinal: int
    kind: SpokenKind
    text: str


@attrs.frozen
class SpeechEnded:
    """A part of a message is complete, or nothing more comes of it."""

    message_id: str
    ordinal: int
    kind: SpokenKind


@attrs.frozen
class CallBegan:
    """The model asks for a tool; its arguments are still to come."""

    message_id: str
    call_id: str
    name: str
    path: Sequence[str] = ()
    """Names of the sub-agents that ask, outermost first; empty for the agent itself."""


@attrs.frozen
class CallReady:
    """The arguments of a call are complete."""

    message_id: str
    call_id: str
    name: str
    arguments: JSON
    path: Sequence[str] = ()


@attrs.frozen
class CallDropped:
    """The model did not finish asking for this call: its answer was cut, or is void. The call is not made."""

    message_id: str
    call_id: str
    name: str
    reason: str


@attrs.frozen
class CallWaits:
    """A call waits for a person."""

    call: PendingCall
    expires_at: str | None
    """The instant after which the call counts as rejected, ISO 8601; None is never."""


@attrs.frozen
class CallEnded:
    """The one answer to a call."""

    call_id: str
    name: str
    status: str
    """"completed", "failed", "cancelled" or "unknown"."""
    text: str
    """What the model reads."""
    message_id: str
    """The message that holds the answer."""
    decision: str | None = None
    """What a person decided about the call: "approve", "edit", "reject", "answer", ...; None if nobody was asked, or it is not known."""


@attrs.frozen
class StepEnded:
    """The model's answer is complete, or nothing more comes of it."""

    message_id: str


@attrs.frozen
class MessageVoid:
    """Forget what was told of this message: another answer takes its place, or it could not be stored."""

    message_id: str


@attrs.frozen
class UserSpoke:
    """The turn takes a message of a person which the client does not know yet: another person wrote it."""

    message: Message


@attrs.frozen
class TodosChanged:
    """The whole todo list, as it is now."""

    todos: Sequence[Todo]


@attrs.frozen
class UsageChanged:
    """The tokens that the turn has used so far."""

    usage: Usage


@attrs.frozen
class SubAgentBegan:
    """A sub-agent begins its work, inside a call."""

    sub_agent_id: str
    """The id of the call."""
    name: str


@attrs.frozen
class SubAgentEnded:
    """A sub-agent has ended its work, or waits for a person."""

    sub_agent_id: str
    name: str
    status: Literal["completed", "interrupted", "failed", "cancelled"]


@attrs.frozen
class Noted:
    """Something for which the protocols have no words of their own."""

    name: str
    """Lower case, with hyphens, such as "queue"."""
    data: JSON
    is_lasting: bool = False
    """Whether it belongs to the conversation, so that a client keeps it; otherwise it is news of the moment."""


@attrs.frozen
class Ended:
    """The turn is over for this client. Always the last move."""

    outcome: TurnOutcome
    usage: Usage


Move: TypeAlias = (
    StepBegan
    | SpeechBegan
    | SpeechAdded
    | SpeechEnded
    | CallBegan
    | CallReady
    | CallDropped
    | CallWaits
    | CallEnded
    | StepEnded
    | MessageVoid
    | UserSpoke
    | TodosChanged
    | UsageChanged
    | SubAgentBegan
    | SubAgentEnded
    | Noted
    | Ended
)
