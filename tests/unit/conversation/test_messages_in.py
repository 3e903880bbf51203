"""How a message gets into a conversation."""

from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from tests.unit.conversation.making import (
    answering,
    applied,
    asking,
    call,
    last_answer,
    moment_of,
    results,
    said,
    shown,
    state_of,
    told,
    waiting_for,
    waits,
)
from trio_sagents.conversation.ids import Ids
from trio_sagents.conversation.messages_in import (
    OVERLAPS,
    Duplicate,
    OnItsWay,
    Others,
    Place,
    Posted,
    Refused,
    Situation,
    accept,
    check_message_size,
    examine,
    message_size,
    queued_message,
    supersede,
)
from trio_sagents.conversation.state import ConversationState
from trio_sagents.data.config import SessionPolicy
from trio_sagents.data.events import MessageCompleted, MessageQueued
from trio_sagents.data.messages import ImagePart, TextPart, UserMessage
from trio_sagents.exceptions import AgentBusy, LimitExceeded, MessageConflict, QueueFull

PAY, LOOK = call("c1", "pay"), call("c2", "look")
ALONE, BUSY = Others(False, 0, False), Others(True, 0, False)
AT_REST = Situation(is_at_rest=True, reserved={}, is_superseding=False)
POLICY = SessionPolicy(queue_limit=2, max_message_bytes=100)
WAITING = state_of(said(), asking(PAY), waiting=waiting_for(waits(PAY)))


def posted(message: Any = "hi", message_id: str | None = None, overlap: Any = "queue") -> Posted:
    """Return a checked post."""
    return Posted.of(message, message_id, overlap)


def known(*messages: tuple[str, Posted]) -> ConversationState:
    """Return a conversation that has accepted these messages before."""
    state = state_of(said("u0"), asking(PAY), answering("c1"), last_answer())
    state.message_ids = {message_id: post.digest for message_id, post in messages}
    return state


def queued(count: int, **more: Any) -> ConversationState:
    """Return a conversation with so many messages in its queue."""
    return state_of(queue=[said(f"q{number}", turn_id=None) for number in range(count)], **more)


def look(state: ConversationState, post: Posted, situation: Situation = AT_REST, ids: Ids | None = None) -> Any:
    """Examine a post."""
    return examine("c", state, moment_of(state).ids if ids is None else ids, post, situation, POLICY)


# ── the post itself


@pytest.mark.parametrize(
    ("message", "message_id", "overlap", "error"),
    [
        (5, None, "queue", TypeError),
        (b"hi", None, "queue", TypeError),
        ("hi", 5, "queue", TypeError),
        ("hi", "", "queue", ValueError),
        ("hi", None, "later", ValueError),
        ("hi", None, None, ValueError),
        ("", None, "queue", ValueError),
    ],
)
def test_posted_when_an_argument_is_wrong(message: Any, message_id: Any, overlap: Any, error: type[Exception]) -> None:
    """An argument that cannot be meant is refused before anything is done."""
    with pytest.raises(error):
        Posted.of(message, message_id, overlap)


def test_posted_when_the_content_is_the_same() -> None:
    """Two posts with the same content have the same digest, whatever their ids; the size is in bytes and counts the metadata."""
    first = posted("h\u00e9")

    assert first.digest == posted(UserMessage("h\u00e9"), "u1", "steer").digest
    assert first.digest != posted(UserMessage("h\u00e9", metadata={"lang": "de"})).digest
    assert 3 == first.size
    assert 3 + len('{"lang":"de"}') == message_size(UserMessage("h\u00e9", metadata={"lang": "de"}))
    assert len("image/pngQUJD") == message_size(UserMessage([ImagePart("image/png", data="QUJD")]))


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_posted_when_it_names_an_overlap(overlap: Any) -> None:
    """Every documented way is accepted."""
    assert overlap == posted(overlap=overlap).overlap


# ── examined


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_examine_when_there_is_room(overlap: Any) -> None:
    """At rest, every message has a place, under its own id or a new one."""
    assert Place(None) == look(state_of(), posted(overlap=overlap))
    assert Place("u9") == look(state_of(), posted(message_id="u9", overlap=overlap))


def test_examine_when_the_message_was_accepted_before() -> None:
    """The same id with the same content is a duplicate, even in a full queue and while the agent runs; with other content a conflict."""
    state = known(("u1", posted("hi")))
    state.queue = queued(5).queue
    busy = Situation(is_at_rest=False, reserved={}, is_superseding=False)

    assert Duplicate("u1") == look(state, posted("hi", "u1", "reject"), busy)
    refused = look(state, posted("ho", "u1"))
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, MessageConflict)
    assert ("c", "u1") == (refused.error.conversation_id, refused.error.message_id)


def test_examine_when_the_message_is_on_its_way() -> None:
    """The same message, posted at once by two callers, is accepted once: the second caller waits and looks again."""
    situation = Situation(is_at_rest=False, reserved={"u1": posted("hi").digest}, is_superseding=False)

    assert OnItsWay("u1") == look(state_of(), posted("hi", "u1"), situation)
    assert isinstance(look(state_of(), posted("ho", "u1"), situation).error, MessageConflict)


@pytest.mark.parametrize("message_id", ["a1", "r1", "a2"])
def test_examine_when_an_answer_has_the_id(message_id: str) -> None:
    """The id of an answer or of a tool message cannot be that of a post."""
    assert isinstance(look(known(), posted(message_id=message_id)).error, MessageConflict)


def test_examine_when_a_tool_call_has_the_id() -> None:
    """Messages and calls have separate spaces: a message may have the id of a call."""
    assert Place("c1") == look(known(), posted(message_id="c1"))


@pytest.mark.parametrize(("overlap", "refused"), [("reject", True), ("queue", False), ("steer", False), ("interrupt", False)])
def test_examine_when_the_agent_is_busy(overlap: Any, *, refused: bool) -> None:
    """Only a message that asks for that is refused because the agent is busy."""
    found = look(state_of(), posted(overlap=overlap), attrs.evolve(AT_REST, is_at_rest=False))

    assert refused is (isinstance(found, Refused) and isinstance(found.error, AgentBusy))
    assert refused or Place(None) == found


@pytest.mark.parametrize(
    ("count", "reserved", "full"),
    [(1, {}, False), (2, {}, True), (1, {"x": "d"}, True), (0, {"x": "d"}, False), (0, {"x": "d", "y": "d"}, True)],
)
def test_examine_when_the_queue_is_full(count: int, reserved: Mapping[str, str], *, full: bool) -> None:
    """Messages in the queue and messages that are being accepted count together against `queue_limit`."""
    found = look(queued(count), posted(), attrs.evolve(AT_REST, reserved=reserved))

    assert full is (isinstance(found, Refused) and isinstance(found.error, QueueFull))


@pytest.mark.parametrize(
    ("reserved", "is_superseding", "full"), [({}, False, False), ({}, True, True), ({"x": "d"}, False, True), ({"x": "d"}, True, True)]
)
def test_examine_when_the_message_comes_instead_of_a_decision(reserved: Any, *, is_superseding: bool, full: bool) -> None:
    """The one message that closes what waits finds a place in a full queue, for it lets the queue run; no other message does."""
    state = queued(2, waiting=waiting_for(waits(PAY)))
    found = look(state, posted(), attrs.evolve(AT_REST, reserved=reserved, is_superseding=is_superseding))

    assert full is (isinstance(found, Refused) and isinstance(found.error, QueueFull))


def test_examine_when_the_message_is_too_large() -> None:
    """A message has a place up to the last byte of `max_message_bytes`."""
    assert Place(None) == look(state_of(), posted("x" * 100))
    refused = look(state_of(), posted("x" * 101))
    assert isinstance(refused.error, LimitExceeded)
    assert ("max_message_bytes", 101, 100) == (refused.error.limit, refused.error.value, refused.error.most)
    assert check_message_size(100, POLICY) is None


def test_examine_when_the_state_is_looked_at() -> None:
    """Looking changes nothing."""
    state = queued(1)
    ids = moment_of(state).ids
    before = (dict(state.queue), dict(state.message_ids), set(ids.messages))
    look(state, posted("hi", "u9"), ids=ids)

    assert before == (state.queue, state.message_ids, ids.messages)


# ── accepted


def test_accept_when_a_message_is_queued() -> None:
    """The model's message is queued and told; people see their own version of it, in rows and in the transcript."""
    seen, for_people = UserMessage("for the model", metadata={"a": 1}), UserMessage("for people")
    message = queued_message("u2", seen, "digest")
    step = accept(moment_of(state_of()), message, for_people, "bob", BUSY, is_unattended=False)

    assert [message] == list(step.queued)
    assert ("user", "for the model", {"a": 1}, "digest", None) == (
        message.role,
        message.text,
        message.metadata,
        message.digest,
        message.turn_id,
    )
    assert [MessageQueued(message)] == list(step.events)
    assert [("m:u2:0", "text", "completed")] == shown(step.rows)
    assert ["for people"] == [row.content["text"] for row in step.rows] == [kept.text for kept in step.shown]
    assert ("on_message", "bob", ()) == (step.lifecycle, step.actor, tuple(step.messages))


@pytest.mark.parametrize(
    ("state", "others", "is_unattended", "begins"),
    [
        pytest.param(state_of(), ALONE, False, True, id="a fresh conversation at rest"),
        pytest.param(state_of(said(), last_answer()), ALONE, False, True, id="at rest"),
        pytest.param(state_of(said(), asking(PAY), answering("c1"), last_answer()), ALONE, False, True, id="at rest after tools"),
        pytest.param(state_of(said(), last_answer()), Others(True, 0, False), False, False, id="a turn runs"),
        pytest.param(state_of(said(), last_answer()), Others(False, 1, False), False, False, id="another message is being accepted"),
        pytest.param(state_of(said(), last_answer()), Others(False, 0, True), False, False, id="what waits is about to change"),
        pytest.param(queued(1), ALONE, False, False, id="a message is queued"),
        pytest.param(WAITING, ALONE, False, False, id="a call waits for people"),
        pytest.param(state_of(said()), ALONE, False, False, id="the turn before was cut before its answer"),
        pytest.param(state_of(said(), asking(PAY)), ALONE, False, False, id="the turn before was cut in its call"),
        pytest.param(state_of(said(), last_answer()), ALONE, True, False, id="a tool has posted"),
    ],
)
def test_accept_when_the_turn_may_begin_at_once(state: ConversationState, others: Others, is_unattended: bool, begins: bool) -> None:
    """Only a message that finds the conversation at rest goes into the history at once; every other one waits in the queue."""
    message = queued_message("u9", UserMessage("hi"), "digest")
    before = len(state.messages)
    step = accept(moment_of(state), message, UserMessage("hi"), None, others, is_unattended=is_unattended)

    assert begins is (step.begins is not None)
    assert (["u9"], []) == ([kept.message_id for kept in (step.messages if begins else step.queued)], list(step.taken))
    assert not (step.queued if begins else step.messages)
    assert {"u9": "digest"} == step.message_ids
    assert before == len(state.messages)


def test_accept_when_a_turn_begins_at_once() -> None:
    """In one step the message is in the history, with the id of its turn, and is told as queued and as taken; people see their version."""
    seen, for_people = UserMessage("for the model", metadata={"a": 1}), UserMessage("for people")
    message = queued_message("u2", seen, "digest")
    moment = moment_of(state_of())
    step = accept(moment, message, for_people, "bob", ALONE, is_unattended=False)

    taken = attrs.evolve(message, turn_id=step.begins)
    assert ([taken], [], []) == (list(step.messages), list(step.queued), list(step.taken))
    assert [MessageQueued(message), MessageCompleted(taken, step.begins)] == list(step.events)
    assert not moment.ids.is_used(step.begins or "")
    assert [("m:u2:0", "text", "completed")] == shown(step.rows)
    assert [("for people", step.begins)] == [(row.content["text"], row.turn_id) for row in step.rows]
    assert [("for people", None)] == [(kept.text, kept.digest) for kept in step.shown]
    assert ("on_message", "bob") == (step.lifecycle, step.actor)


def test_supersede_when_the_conversation_waits() -> None:
    """In one commit what waits is closed and the message is queued; the closing is told before the message, which is told last."""
    message = queued_message("u2", UserMessage("hi"), "digest")
    step = supersede(moment_of(WAITING), message, UserMessage("hi"), "bob", "bob-key")

    assert {"c1": "cancelled"} == {call_id: result.status for call_id, result in results(step).items()}
    assert [message] == list(step.queued)
    assert ["ToolExecutionUpdated", "MessageCompleted", "MessageCompleted", "MessageQueued"] == told(step)
    assert ("m:u2:0", "text", "completed") == shown(step.rows)[-1]
    assert (None, "on_message", "bob") == (step.waiting, step.lifecycle, step.actor)
    assert [("superseded", "bob-key")] == [(record.kind, record.by) for record in step.decided]


@pytest.mark.parametrize("others", [ALONE, BUSY], ids=["begins", "queued"])
def test_accept_when_a_message_was_accepted(others: Others) -> None:
    """An accepted message is known from then on: the same post again is a duplicate."""
    post = posted("hi", "u2")
    state = state_of()
    message = queued_message("u2", UserMessage([TextPart("hi")]), post.digest)
    applied(state, accept(moment_of(state), message, post.message, None, others, is_unattended=False))

    assert Duplicate("u2") == look(state, post)
    assert {"u2": post.digest} == state.message_ids
