"""Stored records <-> the state of a conversation: what a store gives back is looked at before it is believed."""

from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from tests.unit.conversation.making import NOW, answering, asking, call, draft_of, last_answer, record_of, said, waiting_for, waits
from trio_sagents.conversation.codec import (
    FORMER_OPEN_DECISIONS,
    OPEN_DECISIONS,
    encode_open_decisions,
    encode_step,
    encode_waiting,
    restored,
    seeded,
)
from trio_sagents.conversation.ids import Ids
from trio_sagents.conversation.limits import Limits, size_of
from trio_sagents.conversation.state import ConversationState, Step
from trio_sagents.data.draft_wire import encode_piece, growth, piece_key
from trio_sagents.data.interrupt_wire import DECISIONS, encode_record
from trio_sagents.data.messages import Message, TextPart, ToolResult
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.records import Conversation
from trio_sagents.data.todos import Todo
from trio_sagents.data.wire import encode_message, encode_todo
from trio_sagents.exceptions import LimitExceeded, StateError

LIMITS = Limits(10_000, 1_000)
STORED = Conversation(conversation_id="c", owner=None, epoch=3, revision=7, messages=[], queue=[], message_ids={}, state={})


def restore(ids: Ids | None = None, limits: Limits = LIMITS, **changes: Any) -> ConversationState:
    """Return what is restored of the stored conversation, with these changes."""
    return restored(attrs.evolve(STORED, **changes), Ids("new") if ids is None else ids, limits)


# ── loading


@pytest.mark.parametrize("key", ["", "Todos", "secrets", 7])
def test_restored_when_the_state_has_an_unknown_key(key: Any) -> None:
    """A state with a key that nobody knows is not loaded, for its meaning would be lost; the error names the key."""
    with pytest.raises(StateError, match=f"the state has unknown keys: {key}"):
        restore(state={"todos": [], key: None})


def test_restored_when_the_state_is_empty() -> None:
    """A conversation may have no state yet."""
    state = restore()

    assert (True, (), {}, None, None) == (state.is_restored, tuple(state.todos), dict(state.metadata), state.interrupt, state.draft)


@pytest.mark.parametrize("numbers", [{"epoch": -1}, {"epoch": 2**53}, {"revision": -1}, {"revision": 2**53}])
def test_restored_when_the_numbers_cannot_be(numbers: Any) -> None:
    """An epoch or a revision that no commit of this library can have written stops the boot."""
    with pytest.raises(StateError, match="its epoch and revision are"):
        restore(**numbers)


def test_restored_when_everything_is_stored() -> None:
    """What was stored comes back: history, queue, todos, metadata, draft, what waits, and every decision that was ever taken."""
    waits_for, decided, answered = call("c1"), call("c2"), call("c3")
    earlier = record_of(answered, "reject")
    result = Message("r0", "tool", (ToolResult("c3", "pay", "no", "cancelled"),), None, "t0", {DECISIONS: [encode_record(earlier)]})
    history = [said("u0", turn_id="t0"), asking(answered, message_id="a0", turn_id="t0"), result, last_answer("x", "e0", "t0")]
    history += [said(), asking(waits_for, decided)]
    waiting = waiting_for(waits(waits_for), used=Usage(1, 2))
    waiting = attrs.evolve(waiting, interrupt=attrs.evolve(waiting.interrupt, decided=[record_of(decided)], expires_at=NOW))
    queued = attrs.evolve(said("u2", turn_id=None), digest="d2")
    ids = Ids("new")
    state = restore(
        ids,
        messages=[encode_message(message) for message in history],
        queue=[encode_message(queued)],
        message_ids={"u1": "d1", "u2": "d2"},
        state={
            "todos": [encode_todo(Todo(1, "look"))],
            "metadata": {"title": "x"},
            "draft": encode_message(draft_of()),
            "interrupt": encode_waiting(waiting),
            OPEN_DECISIONS: encode_open_decisions({"c2": [record_of(decided)]}),
        },
    )

    assert history == state.messages
    assert [queued] == list(state.queue.values())
    assert {"u1": "d1", "u2": "d2"} == state.message_ids
    assert ((Todo(1, "look"),), {"title": "x"}, draft_of()) == (tuple(state.todos), state.metadata, state.draft)
    assert waiting == state.waiting
    assert {"c2": record_of(decided), "c3": earlier} == state.decisions
    assert {"c2": [record_of(decided)]} == {call_id: list(records) for call_id, records in state.open_decisions.items()}
    assert sum(size_of(encode_message(message)) for message in (*history, queued)) == state.size
    assert {"u0", "a0", "r0", "e0", "u1", "a1", "u2", "d1"} == ids.messages
    assert {"c1", "c2", "c3"} == ids.calls


def grown_draft() -> tuple[Message, Message]:
    """Return a draft, and the same draft later."""
    before = attrs.evolve(draft_of(), parts=(TextPart("so"),))
    return before, attrs.evolve(before, parts=(TextPart("so far"), TextPart("!")))


def test_restored_when_the_draft_has_pieces() -> None:
    """A draft is what its beginning and its pieces say together, and the state knows how many pieces there are to remove."""
    before, after = grown_draft()
    later = attrs.evolve(after, parts=(*after.parts[:1], TextPart("!?")))
    pieces = {piece_key(1): encode_piece(growth(before, after)), piece_key(2): encode_piece(growth(after, later))}
    state = restore(messages=[encode_message(said())], state={"draft": encode_message(before), **pieces})

    assert (later, 2) == (state.draft, state.draft_pieces)


@pytest.mark.parametrize("left", [{}, {"draft": None}, {"draft": 5}])
def test_restored_when_there_are_pieces_of_no_draft(left: Any) -> None:
    """Pieces without the beginning are damage, and are not loaded as if they were nothing."""
    before, after = grown_draft()
    with pytest.raises(StateError, match="pieces of a draft, and no draft"):
        restore(messages=[encode_message(said())], state={**left, piece_key(1): encode_piece(growth(before, after))})


def test_encode_step_when_a_draft_has_pieces() -> None:
    """A piece is stored under the next number; what stores the draft whole, or drops it, removes all pieces."""
    before, after = grown_draft()
    whole, grown, gone = (Step(lifecycle="on_step", draft=draft) for draft in (before, growth(before, after), None))

    assert {"draft.3": encode_piece(growth(before, after))} == encode_step(grown, None, 2)
    assert {"draft": encode_message(before), "draft.1": None, "draft.2": None} == encode_step(whole, None, 2)
    assert {"draft": None, "draft.1": None} == encode_step(gone, None, 1)


@pytest.mark.parametrize("key", [OPEN_DECISIONS, FORMER_OPEN_DECISIONS])
def test_restored_when_the_decisions_are_under_either_key(key: str) -> None:
    """Decisions about open calls are read under their present and under their former key; the state says which of them it was."""
    stored = {key: {"c1": [encode_record(record_of(call()))]}}
    state = restore(messages=[encode_message(asking(call()))], state=stored)

    assert {"c1": record_of(call())} == state.decisions
    assert ["c1"] == list(state.open_decisions)
    assert (key == FORMER_OPEN_DECISIONS) is state.has_former_keys


def test_restored_when_a_call_was_approved_and_halted() -> None:
    """A call that was approved, and that halted the conversation, was approved: the dismissal does not take its place."""
    both = [encode_record(record_of(call(), kind, interrupt_id=name)) for kind, name in (("approve", "i1"), ("dismissed", "i2"))]
    state = restore(messages=[encode_message(asking(call()))], state={OPEN_DECISIONS: {"c1": both}})

    assert "approve" == state.decisions["c1"].kind


def test_restored_when_decisions_are_stored_in_two_places() -> None:
    """A decision that is stored beside its result, and still among the open ones, is the same decision: the later one of two holds."""
    first = record_of(call(), interrupt_id="i1")
    second = record_of(call(), "edit", '{"arguments":{"amount":5}}', interrupt_id="i2")
    both = [encode_record(first), encode_record(second)]
    answered = attrs.evolve(answering("c1"), metadata={DECISIONS: both})
    history = [encode_message(message) for message in (said(), asking(call()), answered)]
    state = restore(messages=history, state={OPEN_DECISIONS: {"c1": both}})

    assert ({"c1": second}, {("i1", "c1"): first}) == (state.decisions, state.former_decisions)
    assert {"amount": 5} == state.messages_as_run()[1].calls[0].arguments


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        ({"todos": [encode_todo(Todo(1, "a")), encode_todo(Todo(1, "b"))]}, "the ids of the todos"),
        ({"todos": [{**encode_todo(Todo(1, "a")), "id": 0}]}, "the ids of the todos"),
        ({"todos": {}}, "not a list"),
        ({"metadata": []}, "metadata"),
        ({"draft": {}}, "version"),
        ({"draft": encode_message(said())}, "of the role"),
        ({"interrupt": []}, "the interrupt is list"),
        ({"interrupt": encode_waiting(waiting_for(waits(call())))}, "the last answer did not make"),
        ({OPEN_DECISIONS: []}, "the decisions are list"),
        ({OPEN_DECISIONS: "", FORMER_OPEN_DECISIONS: {}}, "the decisions are str"),
        ({OPEN_DECISIONS: ["x"]}, "the decisions are list"),
        ({OPEN_DECISIONS: {"c1": {}}}, "not a list"),
        ({OPEN_DECISIONS: {"c1": [{"kind": "approve"}]}}, "DecisionRecord"),
        ({FORMER_OPEN_DECISIONS: "x"}, "the decisions are str"),
    ],
)
def test_restored_when_the_state_is_damaged(stored: Mapping[str, Any], why: str) -> None:
    """Nothing of a damaged state is coerced or ignored."""
    with pytest.raises(StateError, match=why):
        restore(state=stored)


def test_restored_when_it_is_as_large_as_may_be() -> None:
    """A stored conversation is loaded up to `max_state_bytes` and the slack, and everything that is stored counts."""
    parts: dict[str, Any] = {"messages": [encode_message(said())], "state": {"metadata": {"title": "x"}}}
    whole = size_of(encode_message(said())) + size_of(parts["state"])
    restore(limits=Limits(whole - 10, 10), **parts)

    with pytest.raises(StateError, match=f"it has {whole} bytes, max_state_bytes is {whole - 11}"):
        restore(limits=Limits(whole - 11, 10), **parts)


# ── beginning


def test_seeded_when_it_is_as_large_as_may_be() -> None:
    """A fresh state may have `max_state_bytes`, and not one more."""
    size = size_of(encode_message(said()))
    state = seeded("c", [said()], [], {}, Limits(size))
    assert (size, [said()], False) == (state.size, state.messages, state.is_restored)

    with pytest.raises(LimitExceeded) as caught:
        seeded("c", [said()], [], {}, Limits(size - 1))
    assert ("max_state_bytes", size, size - 1) == (caught.value.limit, caught.value.value, caught.value.most)


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([said("u1"), said("u1")], "fresh_state_attrs cannot be used: duplicate message id 'u1'"),
        ([asking(call())], r"fresh_state_attrs\['messages'\] leaves the tool call 'c1' unanswered"),
        ([attrs.evolve(said(), turn_id=5)], "fresh_state_attrs cannot be used"),
    ],
)
def test_seeded_when_it_could_not_be_loaded_again(messages: Any, why: str) -> None:
    """A fresh state that no provider would take, or that could not be loaded again, is an error that names the argument."""
    with pytest.raises(ValueError, match=why):
        seeded("c", messages, [], {}, LIMITS)


# ── storing


def test_encode_step_when_it_leaves_everything() -> None:
    """A step writes only the keys that it changes."""
    assert {} == encode_step(Step(lifecycle="on_step"), None)


def test_encode_step_when_it_changes_everything() -> None:
    """Each changed part has its key; nothing that waits, no draft and no open decisions are None, which removes the key."""
    waiting = waiting_for(waits(call()))
    decisions = {"c1": [record_of(call())]}
    whole = Step(lifecycle="on_step", draft=draft_of(), waiting=waiting, open_decisions=decisions, todos=[Todo(1, "look")])
    empty = Step(lifecycle="on_step", draft=None, waiting=None, open_decisions={}, todos=[])

    assert {
        "draft": encode_message(draft_of()),
        "interrupt": encode_waiting(waiting),
        "open_decisions": encode_open_decisions(decisions),
        "todos": [encode_todo(Todo(1, "look"))],
        "metadata": {"title": "x"},
    } == encode_step(whole, {"title": "x"})
    assert {"draft": None, "interrupt": None, "open_decisions": None, "todos": [], "metadata": {}} == encode_step(empty, {})
