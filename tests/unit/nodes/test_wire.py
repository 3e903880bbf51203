"""Every event, error and letter travels without a loss; nothing that is malformed gets in."""

import contextlib
import datetime
import json
from typing import Any, get_args

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sagents import exceptions
from trio_sagents.data.cursors import Cursor
from trio_sagents.data.decisions import Answer, Approve, Edit, Reject
from trio_sagents.data.events import (
    AgentShutdown,
    AgentStateUpdated,
    ChainError,
    DisplayMessageSaved,
    DisplayMessageUpdated,
    Event,
    Gap,
    MessageCompleted,
    MessageQueued,
    MiddlewareAction,
    MiddlewareEvent,
    ModelAnswered,
    ModelCalled,
    ModelError,
    ModelFallback,
    ModelRetrying,
    Snapshot,
    StateRestored,
    StatusChanged,
    StreamingMessage,
    SubAgentEvent,
    TextDelta,
    ThinkingDelta,
    TodosUpdated,
    TokenUsage,
    ToolCallIdentified,
    ToolExecutionUpdated,
    ToolIgnoresCancellation,
    TurnEnded,
    TurnStarted,
)
from trio_sagents.data.interrupts import DecisionRecord, Interrupt, Option, PendingCall, Question
from trio_sagents.data.messages import (
    FilePart,
    ImagePart,
    Message,
    OpaquePart,
    Poster,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
    UserMessage,
)
from trio_sagents.data.outcomes import Cancelled, Completed, Failed, Interrupted, Unanswered, Usage
from trio_sagents.data.records import DisplayMessage, Row
from trio_sagents.data.requests import ModelRequest, ToolSpec
from trio_sagents.data.state import State
from trio_sagents.data.status import CancelCause, ShutdownReason, Status
from trio_sagents.data.todos import Todo
from trio_sagents.exceptions import LimitExceeded, ModelFailed, SagentsError
from trio_sagents.nodes import _letters as letters
from trio_sagents.nodes._letters import Letter, decode_letter, encode_letter
from trio_sagents.nodes._links import Incoming, Outgoing
from trio_sagents.nodes._wire import MALFORMED, Told, decode_error, decode_event, encode_error, encode_event
from trio_sagents.supervisor._info import AgentInfo

# ── values

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
words = st.text("abc-é", min_size=1, max_size=5)
numbers = st.integers(0, 10**9)
instants = st.datetimes(timezones=st.just(datetime.UTC))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(texts, values, max_size=3)
keys = st.none() | texts | st.integers(-(10**18), 10**18)
statuses = st.sampled_from(list(Status))
tool_statuses = st.sampled_from(["pending", "executing", "completed", "failed", "interrupted", "cancelled", "unknown"])


def maybe(some: Any) -> Any:
    return st.none() | some


def tuples(some: Any) -> Any:
    return st.lists(some, max_size=3).map(tuple)


opaque_parts = st.builds(OpaquePart, words, objects)
calls = st.builds(ToolCall, words, words, objects, tool_statuses, display_text=maybe(texts), opaque=maybe(opaque_parts))
images = st.builds(ImagePart, words, data=words)
files = st.builds(FilePart, words, words, words)
parts = st.one_of(
    st.builds(TextPart, texts, st.sampled_from([None, "narration"])),
    st.builds(ThinkingPart, texts, maybe(texts), maybe(words), maybe(words)),
    opaque_parts,
    images,
    files,
    calls,
    st.builds(ToolResult, words, words, texts, tool_statuses, tuples(images | files)),
)
messages = st.builds(
    Message,
    words,
    st.sampled_from(["user", "assistant", "tool", "system"]),
    tuples(parts),
    st.sampled_from([None, "stop", "cancelled", "length"]),
    maybe(words),
    objects,
    maybe(words),
    st.builds(Poster, keys, st.booleans()),
)
user_messages = st.builds(UserMessage, tuples(st.builds(TextPart, words) | images).filter(bool), metadata=objects)
questions = st.builds(
    Question,
    texts,
    st.sampled_from(["single", "multi", "text"]),
    tuples(st.builds(Option, words, texts, texts)),
    st.booleans(),
    st.booleans(),
)
pending_calls = st.builds(
    PendingCall,
    words,
    words,
    objects,
    tool_statuses,
    interrupt_id=words,
    kind=st.sampled_from(["approval", "question", "halt"]),
    claimed_by=tuples(words),
    question=maybe(questions),
    text=texts,
    path=tuples(words),
    timeout=maybe(st.floats(0, 1e6)),
    tool_digest=words,
    demands=tuples(words),
    met=tuples(words),
    asked_before=numbers,
    origin=texts,
)
records = st.builds(
    DecisionRecord, words, words, words, words, words, texts, keys, words, words, words, words, tuples(words), tuples(words)
)
interrupts = st.builds(
    Interrupt,
    words,
    words,
    tuples(pending_calls),
    kind=st.sampled_from(["approval", "question", "halt"]),
    restorable=st.booleans(),
    decided=tuples(records),
    expires_at=maybe(instants),
    since=maybe(instants),
    asked_by=keys,
)
usages = st.builds(Usage, numbers, numbers, numbers, numbers, is_estimated=st.booleans())
errors = st.one_of(
    st.builds(LimitExceeded, words, numbers, most=maybe(numbers), advice=texts),
    st.builds(ModelFailed, words, kind=st.sampled_from(sorted(exceptions.MODEL_FAILURE_KINDS)), retry_after=maybe(st.floats(0, 100))),
    st.builds(exceptions.QueueFull, words, numbers),
    st.builds(exceptions.PersistenceError, words),
)
outcomes = st.one_of(
    st.builds(Completed, messages, usages, values),
    st.builds(Interrupted, interrupts),
    st.builds(Cancelled, st.sampled_from(list(CancelCause))),
    st.builds(Failed, errors),
    st.builds(Unanswered, st.sampled_from(list(ShutdownReason)) | st.just("some other reason")),
)
todos = st.builds(Todo, st.integers(1, 1000), texts, st.sampled_from(["pending", "in_progress", "completed", "cancelled"]))
rows = st.builds(DisplayMessage, words, words, st.just("user"), words, objects, tool_statuses, instants, maybe(words), st.booleans())
cursors = st.builds(Cursor, st.text("0123abc-", min_size=1, max_size=10), st.sampled_from(["main", "debug"]), numbers)
states = st.builds(State, tuples(messages), tuples(todos), objects, numbers)
streaming = st.builds(StreamingMessage, words, tuples(parts))
requests = st.builds(ModelRequest, texts, tuples(messages), tuples(st.builds(ToolSpec, words, texts, objects, maybe(texts))), objects)

EVENTS: dict[type, Any] = {
    Snapshot: st.builds(
        Snapshot,
        statuses,
        maybe(interrupts),
        tuples(todos),
        maybe(streaming),
        tuples(calls),
        numbers,
        cursors,
        maybe(cursors),
        maybe(words),
    ),
    Gap: st.builds(Gap, numbers, numbers, maybe(cursors)),
    StatusChanged: st.builds(StatusChanged, statuses, st.none() | interrupts | texts, maybe(words)),
    TurnStarted: st.builds(TurnStarted, words),
    TurnEnded: st.builds(TurnEnded, words, outcomes),
    TextDelta: st.builds(TextDelta, texts, words, numbers, numbers, words, st.sampled_from([None, "narration"])),
    ThinkingDelta: st.builds(ThinkingDelta, texts, words, numbers, numbers, words),
    MessageCompleted: st.builds(MessageCompleted, messages, maybe(words)),
    MessageQueued: st.builds(MessageQueued, messages),
    TokenUsage: st.builds(TokenUsage, usages, words, words),
    ToolCallIdentified: st.builds(ToolCallIdentified, calls, words, words),
    ToolExecutionUpdated: st.builds(ToolExecutionUpdated, calls, tool_statuses, words, maybe(texts), maybe(texts)),
    DisplayMessageSaved: st.builds(DisplayMessageSaved, rows),
    DisplayMessageUpdated: st.builds(DisplayMessageUpdated, rows),
    TodosUpdated: st.builds(TodosUpdated, tuples(todos), maybe(words)),
    StateRestored: st.builds(StateRestored),
    ChainError: st.builds(ChainError, errors, st.booleans(), maybe(words), texts),
    ModelRetrying: st.builds(ModelRetrying, errors, words, numbers, st.floats(0, 100), words, words),
    ModelFallback: st.builds(ModelFallback, errors, words, words, words, words),
    ToolIgnoresCancellation: st.builds(ToolIgnoresCancellation, calls, words),
    AgentShutdown: st.builds(AgentShutdown, st.sampled_from(list(ShutdownReason)), statuses, numbers, st.booleans(), instants, instants),
    AgentStateUpdated: st.builds(AgentStateUpdated, states),
    MiddlewareAction: st.builds(MiddlewareAction, words, values),
    SubAgentEvent: st.builds(SubAgentEvent, words, words, objects),
    ModelError: st.builds(ModelError, errors, words),
    ModelCalled: st.builds(ModelCalled, words, requests, numbers, words),
    ModelAnswered: st.builds(ModelAnswered, words, words, usages, st.floats(0, 100), words),
}
"""A strategy for each event; `MiddlewareEvent` is a base, and its subclasses are the host's."""
infos = st.builds(
    AgentInfo,
    words,
    words,
    statuses,
    numbers,
    numbers,
    numbers,
    maybe(interrupts),
    instants,
    instants,
    st.dictionaries(words, objects),
    maybe(words),
)
posters = maybe(st.builds(Poster, keys, st.booleans()))
decisions = st.one_of(
    st.builds(Approve, words, words, words),
    st.builds(Edit, words, words, words, objects),
    st.builds(Reject, words, words, words, texts),
    st.builds(Answer, words, words, words, words),
)
some_events = st.one_of(*EVENTS.values())
told = st.builds(lambda first, more, event: Told(first, first + more, event), numbers, numbers, some_events)
channels = st.sampled_from(["main", "debug"])
REQUESTS: dict[type, Any] = {
    letters.Attach: st.builds(letters.Attach, words),
    letters.Follow: st.builds(letters.Follow, words, words, channels, numbers, maybe(numbers), tuples(numbers)),
    letters.PostMessage: st.builds(
        letters.PostMessage,
        words,
        user_messages,
        words,
        st.sampled_from(["queue", "steer", "interrupt", "reject"]),
        maybe(user_messages),
        objects,
        posters,
        st.booleans(),
    ),
    letters.Decide: st.builds(letters.Decide, words, tuples(decisions), posters),
    letters.Acknowledge: st.builds(letters.Acknowledge, words, maybe(words), posters),
    letters.AddRows: st.builds(letters.AddRows, words, tuples(st.builds(Row, words, objects, key=maybe(words))), posters),
    letters.Notify: st.builds(letters.Notify, words, words, values),
    letters.Publish: st.builds(letters.Publish, words, some_events, channels),
    letters.Touch: st.builds(letters.Touch, words),
    letters.CutTurn: st.builds(letters.CutTurn, words, maybe(words)),
    letters.WaitOutcome: st.builds(letters.WaitOutcome, words, numbers),
    letters.WaitIdle: st.builds(letters.WaitIdle, words),
    letters.Look: st.builds(letters.Look, words),
    letters.ReadState: st.builds(letters.ReadState, words),
    letters.Stop: st.builds(letters.Stop, words, st.floats(0, 1e9)),
}
REPLIES: dict[type, Any] = {
    letters.Done: st.builds(letters.Done),
    letters.Attached: st.builds(letters.Attached, words, words, keys, objects, infos),
    letters.Followed: st.builds(letters.Followed, numbers, numbers, maybe(tuples(told)), EVENTS[Snapshot]),
    letters.Accepted: st.builds(letters.Accepted, words, st.booleans()),
    letters.Settled: st.builds(letters.Settled, maybe(outcomes)),
    letters.Looked: st.builds(letters.Looked, infos),
    letters.StateRead: st.builds(letters.StateRead, states),
}
LETTERS: dict[type, Any] = {
    letters.Call: st.builds(letters.Call, numbers, st.one_of(*REQUESTS.values())),
    letters.Answer: st.builds(letters.Answer, numbers, st.one_of(*REPLIES.values())),
    letters.Refusal: st.builds(letters.Refusal, numbers, errors),
    letters.Working: st.builds(letters.Working, numbers),
    letters.HangUp: st.builds(letters.HangUp, numbers),
    letters.Events: st.builds(letters.Events, words, channels, numbers, tuples(told)),
    letters.Unfollow: st.builds(letters.Unfollow, words, channels, numbers),
    letters.Detach: st.builds(letters.Detach, words),
    letters.Ended: st.builds(letters.Ended, words, words, st.sampled_from(list(ShutdownReason))),
    letters.Payload: st.builds(letters.Payload, words, words),
}


def plain(value: Any) -> Any:
    """Return a value with its errors replaced by what they say: errors are compared by identity."""
    if isinstance(value, BaseException):
        return type(value), value.args, {name: field for name, field in vars(value).items() if name != "is_logged"}, str(value)
    if attrs.has(type(value)):
        return type(value), {field.name: plain(getattr(value, field.name)) for field in attrs.fields(type(value)) if field.eq is not False}
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return value


def travelled(value: Any) -> Any:
    return json.loads(json.dumps(value))


# ── nothing is lost


def test_every_event_has_a_strategy() -> None:
    """A new event is not forgotten here."""
    assert set(get_args(Event)) - {MiddlewareEvent} == set(EVENTS)


def test_every_letter_has_a_strategy() -> None:
    """A new letter is not forgotten here."""
    assert set(get_args(letters.Request)) == set(REQUESTS)
    assert set(get_args(letters.Reply)) == set(REPLIES)
    assert set(get_args(Letter)) == set(LETTERS)


@pytest.mark.parametrize("cls", EVENTS, ids=lambda cls: cls.__name__)
@settings(max_examples=25)
@given(data=st.data())
def test_event_when_it_travels(cls: type, data: st.DataObject) -> None:
    """What is decoded is what was encoded."""
    event = data.draw(EVENTS[cls])

    assert plain(event) == plain(decode_event(travelled(encode_event(event))))


@pytest.mark.parametrize("cls", LETTERS, ids=lambda cls: cls.__name__)
@settings(max_examples=40)
@given(data=st.data())
def test_letter_when_it_travels(cls: type, data: st.DataObject) -> None:
    """What is decoded is what was encoded."""
    letter = data.draw(LETTERS[cls])

    assert plain(letter) == plain(decode_letter(json.loads(encode_letter(letter))))


@attrs.frozen
class Rang(MiddlewareEvent):
    """A host's event."""

    who: str
    times: tuple[int, ...] = ()
    status: Status = Status.IDLE


@attrs.frozen
class Held(MiddlewareEvent):
    """A host's event that cannot travel."""

    what: Any


class Bare(MiddlewareEvent):
    """A host's event that is no attrs class of its own."""

    __slots__ = ("what",)


def test_host_event_when_it_travels() -> None:
    """A host's event is found by its class, with its types."""
    event = Rang("me", (1, 2), Status.RUNNING)

    assert event == decode_event(travelled(encode_event(event)))


def test_host_event_when_it_cannot_travel(caplog: pytest.LogCaptureFixture) -> None:
    """It is left out, with one line in the log."""
    assert encode_event(Held(object())) is None
    assert encode_event(Held(object())) is None
    assert decode_event({"type": "nowhere:Nothing", "fields": {}}) is None
    assert decode_event({"type": f"{Rang.__module__}:Rang", "fields": {"who": 1}}) is None

    assert 1 == sum("Held" in record.message for record in caplog.records)


# ── errors


def all_errors() -> list[SagentsError]:
    """Return one of each error of `exceptions`."""
    return [
        exceptions.ConversationNotFound("c"),
        exceptions.AgentNotRunning("c"),
        exceptions.AgentStopped("c"),
        exceptions.AgentBusy("c"),
        exceptions.QueueFull("c", 3),
        exceptions.MessageConflict("c", "m"),
        exceptions.StartFailed("c", "load"),
        exceptions.SessionsClosed(),
        exceptions.PersistenceError("the disk is full"),
        exceptions.Conflict("c", expected=(1, 2), found=(3, 4)),
        exceptions.StateError("c", "no"),
        exceptions.StateFromFuture("c", 3, 2),
        exceptions.RegistryUnavailable("away"),
        exceptions.RunsElsewhere("c", 2.5),
        exceptions.LimitExceeded("turns", 3, most=2, advice="wait"),
        exceptions.AlreadyDecided("c", "call", "approve"),
        exceptions.InvalidDecision("c", "no such call"),
        exceptions.NotInterrupted("c"),
        exceptions.MiddlewareError("m", "before_turn"),
        exceptions.ToolNotCalled(("a", "b"), "length"),
        exceptions.ModelFailed("no", kind="auth", retryable=True, retry_after=3.0),
    ]


def test_every_error_is_tried() -> None:
    """A new error is not forgotten here."""
    known = {cls for cls in vars(exceptions).values() if isinstance(cls, type) and issubclass(cls, SagentsError)} - {SagentsError}

    assert known == {type(error) for error in all_errors()}


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: type(error).__name__)
def test_error_when_it_travels(error: SagentsError) -> None:
    """It keeps its type, its arguments and its texts."""
    assert plain(error) == plain(decode_error(travelled(encode_error(error))))


def test_foreign_error_when_it_travels() -> None:
    """Its words may hold secrets: they stay."""
    for error in (OSError("password"), KeyError("password"), ValueError("password"), type("Own", (SagentsError,), {})("text")):
        told_text = json.dumps(encode_error(error))
        assert "password" not in told_text
    assert type(decode_error(encode_error(OSError("x")))) is SagentsError
    assert type(decode_error(encode_error(KeyError("x")))) is LookupError
    assert type(decode_error(encode_error(TypeError("x")))) is TypeError


def test_cause_of_an_error_when_it_travels() -> None:
    """The cause stays, and so do its words."""
    error = exceptions.StartFailed("c", "load")
    error.__cause__ = OSError("password")

    assert "password" not in json.dumps(encode_error(error))


# ── nothing malformed gets in


def mutations(value: Any) -> Any:
    """Return a strategy of values with one part replaced, removed or added."""
    junk = st.sampled_from([None, True, 1.5, -1, 10**30, "", "x", "Snapshot", [], {}, [[]], {"type": "Snapshot"}, {"type": "Call"}])
    if isinstance(value, dict) and value:
        return st.one_of(
            junk,
            st.sampled_from(sorted(value)).flatmap(lambda name: mutations(value[name]).map(lambda new: {**value, name: new})),
            st.sampled_from(sorted(value)).map(lambda name: {other: kept for other, kept in value.items() if other != name}),
            junk.map(lambda new: {**value, "unknown": new}),
        )
    if isinstance(value, list) and value:
        return st.one_of(
            junk, st.integers(0, len(value) - 1).flatmap(lambda i: mutations(value[i]).map(lambda new: [*value[:i], new, *value[i + 1 :]]))
        )
    return junk


@given(data=st.data())
def test_malformed_letter(data: st.DataObject) -> None:
    """A letter that was changed on the way is another letter, or is refused by an error that the receiver expects."""
    letter = json.loads(encode_letter(data.draw(st.one_of(*LETTERS.values()))))
    changed = data.draw(mutations(letter))
    try:
        read = decode_letter(changed)
    except MALFORMED:
        return

    assert isinstance(read, get_args(Letter))
    encode_letter(read)


@given(text=st.text() | values.map(json.dumps))
def test_malformed_mail(text: str) -> None:
    """A mail that is none is refused by a `StateError`, and the next mail is read."""
    incoming = Incoming()
    with contextlib.suppress(exceptions.StateError):
        incoming.take(text)
    outgoing = Outgoing()
    outgoing.put('"hello"')

    assert ["hello"] == list(incoming.take(next(outgoing.take(65536, 1))).letters)


# ── mails


def put_all(outgoing: Outgoing, sent: list[str], max_mail: int) -> list[str]:
    bodies = []
    for letter in sent:
        outgoing.put(json.dumps(letter))
    while outgoing:
        bodies.extend(outgoing.take(max_mail, 1))
    return bodies


@given(sent=st.lists(st.text(max_size=300), max_size=20), max_mail=st.integers(200, 2000), twice=st.booleans())
def test_letters_in_mails(sent: list[str], max_mail: int, twice: bool) -> None:
    """All letters arrive once and in order, whatever their sizes, also if each mail comes twice; no mail is too large."""
    bodies = put_all(Outgoing(), sent, max_mail)
    incoming = Incoming()
    arrived = [incoming.take(body) for body in bodies for _ in range(1 + twice)]

    assert sent == [letter for each in arrived for letter in each.letters]
    assert not any(each.is_hole for each in arrived)
    assert all(len(body.encode()) <= max_mail for body in bodies)


@given(sent=st.lists(st.text(max_size=300), min_size=2, max_size=20), lost=st.integers(0, 40), max_mail=st.integers(200, 600))
def test_lost_mail(sent: list[str], lost: int, max_mail: int) -> None:
    """A hole is told with the next mail, or with a ping; what arrives is whole."""
    outgoing, incoming = Outgoing(), Incoming()
    bodies = put_all(outgoing, sent, max_mail)
    lost %= len(bodies)
    arrived = [incoming.take(body) for index, body in enumerate(bodies) if index != lost]
    arrived.append(incoming.take(outgoing.ping(1)))

    letters_read = [letter for each in arrived for letter in each.letters]
    assert all(letter in sent for letter in letters_read)
    assert any(each.is_hole for each in arrived) or len(bodies) == 1
    assert not incoming.take(outgoing.ping(1)).is_hole
