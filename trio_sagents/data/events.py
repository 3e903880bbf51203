"""Events: everything an agent tells its subscribers, as a closed union of immutable values.

What belongs to a turn has `turn_id`, what belongs to a message `message_id`. An event that tells of something stored goes
out after its commit. Offsets and sizes count characters.
"""

import datetime
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from trio_sagents.data.cursors import Channel, Cursor
from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.json import JSON, JSONValue, Opaque
from trio_sagents.data.messages import Message, Part, TextKind, ToolCall, ToolStatus
from trio_sagents.data.outcomes import TurnOutcome, Usage
from trio_sagents.data.records import DisplayMessage
from trio_sagents.data.requests import ModelRequest
from trio_sagents.data.state import State
from trio_sagents.data.status import ShutdownReason, Status
from trio_sagents.data.todos import Todo


@attrs.frozen
class StreamingMessage:
    """A message that a model is still speaking."""

    message_id: str
    parts: Sequence[Part]
    """The parts streamed so far, in order. A tool call among them has no arguments yet."""


@attrs.frozen
class Snapshot:
    """The whole picture at one moment; the events after it begin at its envelope's `seq` + 1."""

    status: Status
    interrupt: Interrupt | None
    """What waits for people. While the status is RUNNING, as of `StatusChanged`: calls that wait while other calls still run."""
    todos: Sequence[Todo]
    streaming: StreamingMessage | None
    """The message being spoken, with its text so far; None between messages."""
    tool_calls: Sequence[ToolCall]
    """The open calls of the running turn, with their status."""
    queued: int
    """How many accepted messages wait for a turn."""
    cursor: Cursor
    """The place of this snapshot."""
    replaces: Cursor | None = None
    """The last place this subscriber had seen of an earlier agent; None if it had seen none."""
    turn_id: str | None = None
    """The running turn; None if none runs."""


@attrs.frozen
class Gap:
    """Events that this subscriber missed because it was too slow, or was away for too long.

    A `Snapshot` follows if the agent is up; otherwise the agent's `AgentShutdown` follows. Read the `history()` again: rows of the
    transcript may have been missed, too.
    """

    first: int
    """The number of the first event that is missing."""
    last: int
    """The number of the last event that is missing."""
    replaces: Cursor | None = None
    """The last place that this subscriber was given of an earlier agent, if nothing of this agent was given before; else None.

    Everything behind that place is missing up to this event: of this agent, and of any agents between the two."""


@attrs.frozen
class StatusChanged:
    """The agent's status is another now."""

    status: Status
    data: Interrupt | str | None = None
    """The interrupt for INTERRUPTED, a text for ERROR, else None.

    While the status is RUNNING: calls that wait for people while other calls still run, as an interrupt with an empty
    `interrupt_id`. They can be seen and not decided yet; the status INTERRUPTED follows, with the interrupt that takes decisions.
    """
    turn_id: str | None = None


@attrs.frozen
class TurnStarted:
    """A turn has begun."""

    turn_id: str


@attrs.frozen
class TurnEnded:
    """A turn has ended, and how."""

    turn_id: str
    outcome: TurnOutcome
    usage_by_model: Mapping[str, Usage] = attrs.field(factory=dict, eq=False, kw_only=True)
    """By the name of the model: what the turn has used since it began, or since it continued after a wait for people, with its sub-agents
    and its middleware; estimates stand for what a provider did not report. Empty if no model was asked."""


@attrs.frozen
class TextDelta:
    """The next piece of text of the message being spoken. Neighbouring pieces may arrive as one."""

    text: str
    message_id: str
    part: int
    """Index of the part in the message."""
    offset: int
    """Where `text` begins in that part, in characters."""
    turn_id: str
    kind: TextKind | None = None
    """As `TextPart.kind`: "narration", or None."""


@attrs.frozen
class ThinkingDelta:
    """The next piece of thinking; as `TextDelta`."""

    text: str
    message_id: str
    part: int
    offset: int
    turn_id: str


Delta: TypeAlias = TextDelta | ThinkingDelta
DeltaMaker: TypeAlias = Callable[[str, str, int, int, str], Delta]
"""Makes a delta from its text, message id, part, offset and turn id: `TextDelta`, `ThinkingDelta` or `narration_delta`."""
narration_delta: Final = functools.partial(TextDelta, kind="narration")
"""Makes a `TextDelta` of a narration. One object, so that neighbouring pieces are known by it."""
"""A piece of the message that a model is speaking."""


@attrs.frozen
class MessageCompleted:
    """This message is now in the history: a user message that a turn took, an answer, or a tool result."""

    message: Message
    turn_id: str | None

    @property
    def message_id(self) -> str:
        """The id of the message."""
        return self.message.message_id


@attrs.frozen
class MessageQueued:
    """A message was accepted: it is durable, and the next turn takes it.

    If the message begins a turn at once, its `MessageCompleted` follows at once, and then `TurnStarted`.
    """

    message: Message

    @property
    def message_id(self) -> str:
        """The id of the message."""
        return self.message.message_id


@attrs.frozen
class TokenUsage:
    """The tokens of one model call."""

    usage: Usage
    message_id: str
    turn_id: str


@attrs.frozen
class ToolCallIdentified:
    """The model is asking for a tool; its arguments are still on their way, so they are empty here."""

    call: ToolCall
    message_id: str
    turn_id: str


@attrs.frozen
class ToolExecutionUpdated:
    """A tool call has begun, or ended."""

    call: ToolCall
    status: ToolStatus
    turn_id: str
    output: str | None = None
    """What the model reads of it, once it has completed."""
    error: str | None = None
    """What the model reads of it, if it did not complete."""


@attrs.frozen
class DisplayMessageSaved:
    """A row of the transcript is new."""

    row: DisplayMessage

    @property
    def message_id(self) -> str:
        """The message it shows."""
        return self.row.message_id


@attrs.frozen
class DisplayMessageUpdated:
    """A row of the transcript has changed."""

    row: DisplayMessage

    @property
    def message_id(self) -> str:
        """The message it shows."""
        return self.row.message_id


@attrs.frozen
class TodosUpdated:
    """The whole todo list, as it is now."""

    todos: Sequence[Todo]
    turn_id: str | None = None


@attrs.frozen
class StateRestored:
    """The agent came back with a stored state."""


@attrs.frozen
class ChainError:
    """A turn failed, or a write did."""

    error: Exception
    unsaved: bool = False
    """Whether what was shown since the last commit is lost; a fresh `Snapshot` follows then."""
    turn_id: str | None = None
    source: str = ""
    """What failed, by its kind and name: "tool 'pay'", "middleware 'Budget'", "model 'gpt-x'", "store SqliteStore". Empty if nothing of
    these failed: a limit of the turn was reached, or the library itself failed."""


@attrs.frozen
class ModelRetrying:
    """A model call failed for the moment; the same model is asked again. What this message streamed is void: forget it."""

    error: Exception
    model: str
    """The name of the model."""
    attempt: int
    """The number of the attempt that comes, of this model for this answer; from 2."""
    delay: float
    """Seconds until then."""
    message_id: str
    """The message that was being streamed; the answer that comes has another id."""
    turn_id: str


@attrs.frozen
class ModelFallback:
    """A model call failed; another model is asked for the same answer. What this message streamed is void: forget it."""

    error: Exception
    model: str
    """The name of the model that failed."""
    fallback: str
    """The name of the model that is asked now."""
    message_id: str
    """As of `ModelRetrying`."""
    turn_id: str


@attrs.frozen
class ToolIgnoresCancellation:
    """A cancelled tool still runs after `cancel_grace`, so the turn cannot end: it shields itself."""

    call: ToolCall
    turn_id: str


@attrs.frozen
class AgentShutdown:
    """The agent has ended: exactly once, the last event of each agent. The subscription stays, and heals at the next start."""

    reason: ShutdownReason
    status: Status
    """Its status when it ended."""
    queued: int
    """How many accepted messages wait for the next start."""
    interrupt_restorable: bool
    """Whether the open interrupt, if there is one, can be answered later."""
    last_activity_at: datetime.datetime
    shutdown_at: datetime.datetime


@attrs.frozen
class AgentStateUpdated:
    """Debug: the state after a turn."""

    state: State


@attrs.frozen
class MiddlewareAction:
    """Debug: what a middleware did."""

    middleware_id: str
    data: JSONValue


@attrs.frozen
class SubAgentEvent:
    """Debug: what a sub-agent did."""

    sub_agent_id: str
    name: str
    data: JSON


@attrs.frozen
class ModelError:
    """Debug: one failed model call, also where another call then succeeded."""

    error: Exception
    turn_id: str


@attrs.frozen
class ModelCalled:
    """Debug: a model is asked. Only made if somebody listens."""

    model: str
    request: ModelRequest
    """What the adapter gets, exactly."""
    attempt: int
    """Which attempt of this model it is, from 1."""
    turn_id: str


@attrs.frozen
class ModelAnswered:
    """Debug: a model has answered. What it said is in `MessageCompleted`. Only made if somebody listens."""

    model: str
    message_id: str
    usage: Usage
    """Of this call alone."""
    seconds: float
    """From the request to the end of the answer."""
    turn_id: str


@attrs.frozen
class MiddlewareEvent:
    """Base of the events that middleware and tools publish: inherit, as a frozen attrs class of plain values."""


Event: TypeAlias = (
    Snapshot
    | Gap
    | StatusChanged
    | TurnStarted
    | TurnEnded
    | TextDelta
    | ThinkingDelta
    | MessageCompleted
    | MessageQueued
    | TokenUsage
    | ToolCallIdentified
    | ToolExecutionUpdated
    | DisplayMessageSaved
    | DisplayMessageUpdated
    | TodosUpdated
    | StateRestored
    | ChainError
    | ModelRetrying
    | ModelFallback
    | ToolIgnoresCancellation
    | AgentShutdown
    | AgentStateUpdated
    | MiddlewareAction
    | SubAgentEvent
    | ModelError
    | ModelCalled
    | ModelAnswered
    | MiddlewareEvent
)


@attrs.frozen
class Envelope:
    """One event, and where it stands."""

    agent_id: str
    conversation_id: str
    channel: Channel
    first_seq: int
    """The number of the first event in it; smaller than `seq` where neighbouring deltas were joined."""
    seq: int
    """The number of the last event in it; numbers count per agent and channel, from 1, without holes."""
    event: Event
    incarnation: str
    """Names the agent among all that ever ran for this conversation."""
    tag: Opaque = attrs.field(default=None, eq=False)
    """What the reader gave with its subscription (`subscribe(..., tag=...)`): any object of its own; else None."""

    @property
    def cursor(self) -> Cursor:
        """The place after this event: hand it to `subscribe(after=...)` to go on from here."""
        return Cursor(self.incarnation, self.channel, self.seq)
