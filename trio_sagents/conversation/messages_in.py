"""How a message gets into a conversation.

A post is looked at twice. `examine` decides at once, before the host's preprocessor runs, whether the message is a duplicate, is
refused, or has a place in the queue. `accept` or `supersede` then gives the step that keeps the message. Between the two the place is
reserved, so nothing that was decided by the first look changes before the second.

A message usually finds the conversation at rest. Then its own step puts it into the history, and its turn begins when that step is
durable: the queue would cost one more commit, to take the message out again. If the process dies before the turn has stored
anything else, the next start finds a turn that a crash cut.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from trio_sagents.conversation.checkpoints import Past
from trio_sagents.conversation.decisions import close_waiting
from trio_sagents.conversation.history import is_cut
from trio_sagents.conversation.ids import Ids
from trio_sagents.conversation.limits import content_digest
from trio_sagents.conversation.rows import rows_of
from trio_sagents.conversation.state import ConversationState, Moment, Step
from trio_sagents.data.config import SessionPolicy
from trio_sagents.data.events import MessageCompleted, MessageQueued
from trio_sagents.data.ids import check_id
from trio_sagents.data.json import JSONValue, Options, canonical
from trio_sagents.data.messages import Message, Poster, UserMessage
from trio_sagents.data.records import Owner
from trio_sagents.data.scopes import Overlap, Scope
from trio_sagents.data.status import CancelCause
from trio_sagents.data.wire import encode_part
from trio_sagents.exceptions import AgentBusy, LimitExceeded, MessageConflict, QueueFull, SagentsError

OVERLAPS: Final = ("queue", "steer", "interrupt", "reject")


@attrs.frozen
class Posted:
    """One `post`, checked."""

    message: UserMessage
    message_id: str | None
    overlap: Overlap
    digest: str
    """Of the content as the caller gave it."""
    size: int
    """Bytes of the content, in UTF-8."""
    display: UserMessage | None = None
    """What people see instead of the message; None: the message."""
    values: Options = attrs.field(factory=dict, repr=False)
    """The host's own values for the tools of the turn."""
    is_unattended: bool = False
    """Whether an agent of another node posted it, and no person."""

    @classmethod
    def of(
        cls,
        message: str | UserMessage,
        message_id: str | None,
        overlap: Overlap,
        display: str | UserMessage | None = None,
        values: Options | None = None,
    ) -> "Posted":
        """Check what a caller hands in.

        Raises:
            TypeError, ValueError: an argument has the wrong type or an invalid value.
        """
        if not isinstance(message, UserMessage):
            if not isinstance(message, str):
                raise TypeError(f"message must be a str or a UserMessage, not {type(message).__name__}")
            message = UserMessage(message)
        if message_id is not None:
            check_id("message_id", message_id)
        if overlap not in OVERLAPS:
            raise ValueError(f"overlap must be one of {', '.join(map(repr, OVERLAPS))}, not {overlap!r}")
        if display is not None and not isinstance(display, UserMessage):
            if not isinstance(display, str):
                raise TypeError(f"display must be a str, a UserMessage or None, not {type(display).__name__}")
            display = UserMessage(display)
        if values is not None and not isinstance(values, Mapping):
            raise TypeError(f"values must be a mapping, or None, not {type(values).__name__}")
        parts: JSONValue = [encode_part(part) for part in message.parts]
        size = message_size(message)
        if display is not None:
            parts = [parts, [encode_part(part) for part in display.parts], display.metadata]
            size = max(size, message_size(display))
        digest = content_digest(parts, message.metadata)
        return cls(message, message_id, overlap, digest, size, display, dict(values or {}))


def message_size(message: UserMessage) -> int:
    """Return the bytes of the content of a message, in UTF-8."""
    said = sum(len(value.encode()) for part in message.parts for value in attrs.astuple(part) if value is not None)
    return said + (len(canonical(message.metadata).encode()) if message.metadata else 0)


@attrs.frozen
class Situation:
    """What the agent is doing when a message comes."""

    is_at_rest: bool
    """Whether nothing runs and nothing runnable is queued."""
    reserved: Mapping[str, str]
    """By message id: the digests of the messages whose place is reserved, and that are not queued yet."""
    is_superseding: bool
    """Whether a message on its way closes the open interrupt."""


@attrs.frozen
class Duplicate:
    """The same message was accepted before."""

    message_id: str


@attrs.frozen
class OnItsWay:
    """The same message is being accepted for another caller: wait for that, and look again."""

    message_id: str


@attrs.frozen
class Refused:
    """The message is not accepted; nothing was done."""

    error: SagentsError


@attrs.frozen
class Place:
    """The message has a place in the queue, under this id; None is a new id."""

    message_id: str | None


@attrs.frozen
class Others:
    """What else goes on in the moment in which a message is accepted."""

    is_running: bool
    """Whether a turn runs, or whether the end of one may still come from the store."""
    accepting: int
    """How many other messages have their places reserved."""
    changes_waiting: bool
    """Whether a step that changes what waits for people is on its way to the store."""


Examined: TypeAlias = Duplicate | OnItsWay | Refused | Place


def examine(
    conversation_id: str,
    state: ConversationState,
    ids: Ids,
    posted: Posted,
    situation: Situation,
    policy: SessionPolicy,
    *,
    past: Past | None = None,
) -> Examined:
    """Return whether a posted message has a place in the queue.

    Args:
        conversation_id: for errors.
        state: the last commit.
        ids: those of the window, and of what is on its way.
        posted: the message.
        situation: what the agent is doing.
        policy: the limits.
        past: what the store has under the id of the message before the window; None if it has nothing.
    """
    message_id = posted.message_id
    if message_id is not None:
        if past is not None and past.message.digest is None:
            return Refused(MessageConflict(conversation_id, message_id))  # an answer or a tool message has this id
        known = state.message_ids.get(message_id) if past is None else past.message.digest
        digest = known if known is not None else situation.reserved.get(message_id)
        if digest is not None and digest != posted.digest:
            return Refused(MessageConflict(conversation_id, message_id))
        if known is not None:
            return Duplicate(message_id)
        if digest is not None:
            return OnItsWay(message_id)
        if message_id in ids.messages:
            return Refused(MessageConflict(conversation_id, message_id))  # an answer or a tool message has this id
    if posted.overlap == "reject" and not situation.is_at_rest:
        return Refused(AgentBusy(conversation_id))
    # What waits behind an interrupt is let go by the message that supersedes it, so that message finds a place in a full queue.
    supersedes = state.waiting is not None and not situation.is_superseding and not situation.reserved
    if len(state.queue) + len(situation.reserved) >= policy.queue_limit and not supersedes:
        return Refused(QueueFull(conversation_id, policy.queue_limit))
    return check_message_size(posted.size, policy) or Place(message_id)


def check_message_size(size: int, policy: SessionPolicy) -> Refused | None:
    """Return a refusal if a message is too large; else None."""
    if size > policy.max_message_bytes:
        return Refused(LimitExceeded("max_message_bytes", size, most=policy.max_message_bytes))
    return None


def queued_message(message_id: str, seen: UserMessage, digest: str, posted_by: Poster | None = None) -> Message:
    """Return the message as it is queued: `seen` is what the model sees."""
    return Message(message_id, "user", seen.parts, None, None, seen.metadata, digest, posted_by)


def poster_of_turn(messages: Sequence[Message], turn_id: str | None) -> Poster | None:
    """Return who posted the message that began a turn; None if that is not stored."""
    first = next((message for message in messages if message.turn_id == turn_id and message.role == "user"), None)
    return None if first is None else first.posted_by


def posters_left(state: ConversationState) -> Collection[Poster | None]:
    """Return who posted what an agent may still work for: the turn that waits or was cut, and the messages in the queue."""
    is_open = state.waiting is not None or is_cut(state.messages)
    begun = [poster_of_turn(state.messages, state.messages[-1].turn_id)] if is_open else []
    return frozenset((*begun, *(message.posted_by for message in state.queue.values())))


def accept(moment: Moment, message: Message, shown: UserMessage, actor: Scope, others: Others, *, is_unattended: bool) -> Step:
    """Return the step that keeps a message: in the history, with a turn that begins with it; or in the queue, if anything is before it.

    Args:
        moment: the conversation.
        message: from `queued_message`.
        shown: what people see of it.
        actor: the scope of whoever posted it.
        others: what else goes on.
        is_unattended: whether no person posted it. Turns that no person started are counted when they are taken from the queue.
    """
    if is_unattended or not _is_at_rest(moment.state, others):
        return _queue(Step(lifecycle="on_message"), moment, message, shown, actor)
    turn_id = moment.ids.new()
    taken = attrs.evolve(message, turn_id=turn_id)
    step = _shown(
        Step(lifecycle="on_message"), moment, attrs.evolve(message, parts=shown.parts, metadata=shown.metadata, turn_id=turn_id), actor
    )
    return attrs.evolve(step, begins=turn_id, messages=(taken,), events=(MessageQueued(message), MessageCompleted(taken, turn_id)))


def _is_at_rest(state: ConversationState, others: Others) -> bool:
    """Return whether a message that is accepted now is the next to be answered, and nothing has to be closed before."""
    if others.is_running or others.accepting or others.changes_waiting:
        return False
    return not state.queue and state.waiting is None and not is_cut(state.messages)


def supersede(moment: Moment, message: Message, shown: UserMessage, actor: Scope, by: Owner) -> Step:
    """Return the step that queues a message which comes instead of a decision: it also closes what waits for people.

    Args:
        moment: the conversation; it has an interrupt.
        message: from `queued_message`.
        shown: what people see of it.
        actor: the scope of whoever posted it.
        by: the owner key of that scope, for the record.
    """
    return _queue(close_waiting(moment, "superseded", CancelCause.SUPERSEDED, by), moment, message, shown, actor)


def _queue(step: Step, moment: Moment, message: Message, shown: UserMessage, actor: Scope) -> Step:
    step = _shown(step, moment, attrs.evolve(message, parts=shown.parts, metadata=shown.metadata), actor)
    return attrs.evolve(step, queued=(message,), events=(*step.events, MessageQueued(message)))


def _shown(step: Step, moment: Moment, seen_by_people: Message, actor: Scope) -> Step:
    """Return the step with a message of a person as people see it; the transcript needs no digest."""
    seen_by_people = attrs.evolve(seen_by_people, digest=None)
    rows = (*step.rows, *rows_of(seen_by_people, moment.now))
    return attrs.evolve(step, actor=actor, shown=(*step.shown, seen_by_people), rows=rows)
