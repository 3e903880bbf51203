"""What nodes say to each other: requests, which are answered, and notices, which are not. Closed tables of values.

A request is sent again until its answer is there, so whoever carries it out knows duplicates by its number. A notice is sent once. If a
notice is lost, the receiver finds a hole in the numbers of the mails, and asks for what it needs.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, get_args

import attrs

from trio_sagents.data.cursors import Channel
from trio_sagents.data.decisions import Decision
from trio_sagents.data.events import Event, Snapshot
from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import Poster, UserMessage
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.data.records import Owner, Row
from trio_sagents.data.scopes import Overlap
from trio_sagents.data.state import State
from trio_sagents.data.status import ShutdownReason
from trio_sagents.data.wire import dumps
from trio_sagents.nodes._wire import CONVERTER, Tagged, Told, decode_event, decode_tagged, encode_event, encode_tagged
from trio_sagents.supervisor._info import AgentInfo

# ── requests


@attrs.frozen
class Attach:
    """Tell me about the agent of a conversation, and tell me when it has ended."""

    conversation_id: str


@attrs.frozen
class Follow:
    """Tell me the events of an agent on a channel from now on."""

    conversation_id: str
    incarnation: str
    channel: Channel
    stream: int
    """A number that the asking node has not used before: later notices have it."""
    after: int | None
    """The number of the last event that the asking node has; None if it has none."""
    places: Sequence[int] = ()
    """Numbers behind `after` behind which viewers there go on: no piece of text is joined across them."""


@attrs.frozen
class PostMessage:
    """Accept a message."""

    conversation_id: str
    message: UserMessage
    message_id: str
    overlap: Overlap
    display: UserMessage | None
    values: JSON
    actor: Poster | None
    is_unattended: bool


@attrs.frozen
class Decide:
    """Record decisions."""

    conversation_id: str
    decisions: Sequence[Decision]
    actor: Poster | None


@attrs.frozen
class Acknowledge:
    """Acknowledge a halt."""

    conversation_id: str
    interrupt_id: str | None
    actor: Poster | None


@attrs.frozen
class AddRows:
    """Add rows to the transcript."""

    conversation_id: str
    rows: Sequence[Row]
    actor: Poster | None


@attrs.frozen
class Notify:
    """Hand a message to a middleware."""

    conversation_id: str
    middleware_id: str
    message: JSONValue


@attrs.frozen
class Publish:
    """Send an event of the host's to the subscribers."""

    conversation_id: str
    event: Event
    channel: Channel


@attrs.frozen
class Touch:
    """Renew the idle clock."""

    conversation_id: str


@attrs.frozen
class CutTurn:
    """Cut the running turn."""

    conversation_id: str
    turn_id: str | None


@attrs.frozen
class WaitOutcome:
    """Tell me the outcome of the turn that takes a message or a decision."""

    conversation_id: str
    call: int
    """The number of the request that brought it."""


@attrs.frozen
class WaitIdle:
    """Tell me when the agent is at rest."""

    conversation_id: str


@attrs.frozen
class Look:
    """Tell me what the agent is doing."""

    conversation_id: str


@attrs.frozen
class ReadState:
    """Tell me the last committed state."""

    conversation_id: str


@attrs.frozen
class Stop:
    """Stop the agent, and answer when it has ended."""

    conversation_id: str
    grace_period: float


Request: TypeAlias = (
    Attach
    | Follow
    | PostMessage
    | Decide
    | Acknowledge
    | AddRows
    | Notify
    | Publish
    | Touch
    | CutTurn
    | WaitOutcome
    | WaitIdle
    | Look
    | ReadState
    | Stop
)
WAITS: Final = (WaitOutcome, WaitIdle)
"""Requests that change nothing and only wait: they end if nobody waits for the answer any more."""

# ── answers


@attrs.frozen
class Done:
    """It is done; there is nothing to tell."""


@attrs.frozen
class Attached:
    """An agent that runs."""

    agent_id: str
    incarnation: str
    owner: Owner
    options: JSON
    """Those of the host's own options of the session that are plain JSON."""
    info: AgentInfo


@attrs.frozen
class Followed:
    """The present of an agent on a channel, and what leads to it."""

    stream: int
    seq: int
    """The number of the last event."""
    events: Sequence[Told] | None
    """What came behind `Follow.after`; None if that is not known, or too much."""
    snapshot: Snapshot
    """The picture behind the last event."""


@attrs.frozen
class Accepted:
    """A message, or a decision, is durable."""

    message_id: str
    duplicate: bool


@attrs.frozen
class Settled:
    """How a turn ended; None if there was none."""

    outcome: TurnOutcome | None


@attrs.frozen
class Looked:
    """What an agent is doing."""

    info: AgentInfo


@attrs.frozen
class StateRead:
    """The last committed state."""

    state: State


Reply: TypeAlias = Done | Attached | Followed | Accepted | Settled | Looked | StateRead

# ── notices


@attrs.frozen
class Answer:
    """The answer to a request."""

    call: int
    reply: Reply


@attrs.frozen
class Refusal:
    """A request that failed."""

    call: int
    error: Exception


@attrs.frozen
class Working:
    """A request has arrived, and is worked on."""

    call: int


@attrs.frozen
class HangUp:
    """Nobody waits for the answer to a request any more."""

    call: int


@attrs.frozen
class Call:
    """A request, and its number."""

    call: int
    request: Request


@attrs.frozen
class Events:
    """Events of an agent, in order."""

    conversation_id: str
    channel: Channel
    stream: int
    events: Sequence[Told]


@attrs.frozen
class Unfollow:
    """Tell me no events any more."""

    conversation_id: str
    channel: Channel
    stream: int


@attrs.frozen
class Detach:
    """I need nothing of the agent of a conversation any more."""

    conversation_id: str


@attrs.frozen
class Ended:
    """An agent has ended; everything that was to be told of it was told before."""

    conversation_id: str
    incarnation: str
    reason: ShutdownReason


@attrs.frozen
class Payload:
    """What is published on a topic of the bus that the nodes share."""

    topic: str
    text: str


Letter: TypeAlias = Call | Answer | Refusal | Working | HangUp | Events | Unfollow | Detach | Ended | Payload
_REQUESTS: Final[Tagged] = {cls.__name__: cls for cls in get_args(Request)}
_REPLIES: Final[Tagged] = {cls.__name__: cls for cls in get_args(Reply)}
_LETTERS: Final[Tagged] = {cls.__name__: cls for cls in get_args(Letter)}


def _register() -> None:
    for union, table in ((Request, _REQUESTS), (Reply, _REPLIES)):
        CONVERTER.register_unstructure_hook_func(_is(union), _encoder(table))
        CONVERTER.register_structure_hook_func(_is(union), _decoder(table))
    CONVERTER.register_unstructure_hook_func(_is(Event), encode_event)
    CONVERTER.register_structure_hook_func(_is(Event), lambda value, _: decode_event(value))
    CONVERTER.register_structure_hook_func(_is(TurnOutcome | None), lambda value, _: None if value is None else _outcome(value))
    CONVERTER.register_unstructure_hook_func(
        _is(TurnOutcome | None), lambda value: None if value is None else CONVERTER.unstructure(value, unstructure_as=TurnOutcome)
    )


def _is(kind: object) -> Callable[[object], bool]:
    return lambda other: other == kind


def _encoder(table: Tagged) -> Callable[[object], JSON]:
    return lambda value: encode_tagged(value, table)


def _decoder(table: Tagged) -> Callable[[JSONValue, object], object]:
    return lambda value, _: decode_tagged(value, table)


def _outcome(value: JSONValue) -> TurnOutcome:
    outcome: TurnOutcome = CONVERTER.structure(value, TurnOutcome)  # type: ignore[arg-type]
    return outcome


_register()


def encode_letter(letter: Letter) -> str:
    """Return the text of a letter; TypeError or ValueError if something in it cannot travel."""
    return dumps(encode_tagged(letter, _LETTERS))


def decode_letter(value: JSONValue) -> Letter:
    """Return the letter that a JSON value stands for; one of `MALFORMED` is raised if it is none."""
    letter: Letter = decode_tagged(value, _LETTERS)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # by its table
    return letter
