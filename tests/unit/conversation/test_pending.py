"""What is submitted and not committed yet: each step builds on those that are on their way."""

from typing import Any

import attrs
import pytest

from tests.unit.conversation.making import call, last_answer, record_of, said, state_of
from trio_sagents.conversation.codec import FORMER_OPEN_DECISIONS, OPEN_DECISIONS, encode_open_decisions
from trio_sagents.conversation.limits import Limits, message_bytes, size_of
from trio_sagents.conversation.pending import Encoded, Pending
from trio_sagents.conversation.state import ConversationState, Step
from trio_sagents.data.draft_wire import growth
from trio_sagents.data.messages import Message, TextPart
from trio_sagents.data.todos import Todo
from trio_sagents.data.wire import encode_message, encode_todo
from trio_sagents.exceptions import LimitExceeded

LIMITS = Limits(10_000)
DRAFT = Step(lifecycle="on_step", draft=None)


def metadata_step(**metadata: Any) -> Step:
    """Return a step that changes metadata."""
    return Step(lifecycle="on_step", metadata=metadata)


def restored_state(**more: Any) -> ConversationState:
    """Return a state that a store has at revision 5."""
    return state_of(said(), **more)


def commit(pending: Pending, state: ConversationState, step: Step, encoded: Encoded) -> None:
    """Make a step durable, as the journal does."""
    pending.commit(encoded)
    state.apply(step, encoded.metadata, encoded.grown)


def test_add_when_several_steps_are_on_their_way() -> None:
    """Each step has the next revision and adds its own size; a commit gives its size back."""
    pending, state = Pending.of(restored_state(), 5), restored_state()
    message, queued = said("u2"), said("u3", turn_id=None)
    first = pending.add(Step(lifecycle="on_step", messages=[message], queued=[queued]), state, LIMITS)
    second = pending.add(DRAFT, state, LIMITS)

    size = size_of(encode_message(message)) + size_of(encode_message(queued))
    assert (6, 7, 5) == (first.revision, second.revision, pending.committed)
    assert (size, 0, size) == (first.grown, second.grown, pending.size)
    assert ([encode_message(message)], [encode_message(queued)]) == (first.messages, first.queued)
    assert ({}, {"draft": None}) == (first.state, second.state)
    pending.commit(first)
    assert (6, 7, 0) == (pending.committed, pending.revision, pending.size)


def test_add_when_it_is_the_first_step_of_a_fresh_conversation() -> None:
    """The first commit stores what the fresh state began with; a step that is submitted behind it does not store that again."""
    state = ConversationState([said()], todos=(Todo(1, "look"),), metadata={"lang": "de"})
    pending = Pending.of(state, 0)
    first = pending.add(Step(lifecycle="on_message", messages=[said("u2")]), state, LIMITS)
    second = pending.add(Step(lifecycle="on_message", messages=[said("u3")]), state, LIMITS)

    assert [encode_message(said()), encode_message(said("u2"))] == first.messages
    assert {"todos": [encode_todo(Todo(1, "look"))], "metadata": {"lang": "de"}} == first.state
    assert ([encode_message(said("u3"))], {}) == (second.messages, second.state)
    assert size_of(encode_message(said("u2"))) == first.grown


def test_add_when_the_first_step_changes_what_the_fresh_state_had() -> None:
    """Todos and metadata of the first step win over those of the fresh state."""
    state = ConversationState([], todos=(Todo(1, "look"),), metadata={"lang": "de"})
    pending = Pending.of(state, 0)
    first = pending.add(Step(lifecycle="on_step", todos=[], metadata={"title": "x"}), state, LIMITS)

    assert {"todos": [], "metadata": {"lang": "de", "title": "x"}} == first.state


def test_add_when_the_first_step_failed() -> None:
    """What a fresh state began with is offered again by the next step, until a commit has stored it."""
    state = ConversationState([said()])
    pending = Pending.of(state, 0)
    pending.fail(pending.add(DRAFT, state, LIMITS))
    again = pending.add(DRAFT, state, LIMITS)

    assert (1, [encode_message(said())]) == (again.revision, again.messages)


def test_add_when_the_state_was_restored() -> None:
    """What is stored already is not stored again."""
    pending = Pending.of(restored_state(), 0)

    assert [] == pending.add(DRAFT, restored_state(), LIMITS).messages


def test_metadata_when_two_steps_change_them_at_once() -> None:
    """A step builds on the metadata that are submitted, not on those that are committed: the two do not undo each other."""
    state = restored_state(metadata={"kept": 1, "gone": 2})
    pending = Pending.of(state, 5)
    steps = [metadata_step(title="x"), metadata_step(gone=None), metadata_step(title="y")]
    added = [pending.add(step, state, LIMITS) for step in steps]

    assert [{"kept": 1, "gone": 2, "title": "x"}, {"kept": 1, "title": "x"}, {"kept": 1, "title": "y"}] == [
        encoded.metadata for encoded in added
    ]
    for step, encoded in zip(steps, added, strict=True):
        commit(pending, state, step, encoded)
    assert {"kept": 1, "title": "y"} == state.metadata == pending.add(metadata_step(), state, LIMITS).metadata


def test_metadata_when_a_step_failed() -> None:
    """After a failed step the next one builds on the last commit: nothing of the failed step comes back."""
    state = restored_state(metadata={"kept": 1})
    pending = Pending.of(state, 5)
    first = pending.add(metadata_step(title="x"), state, LIMITS)
    second = pending.add(metadata_step(more=1), state, LIMITS)
    pending.fail(first)
    pending.fail(second)
    again = pending.add(metadata_step(other=2), state, LIMITS)

    assert (6, {"kept": 1, "other": 2}, 0) == (again.revision, again.metadata, pending.size)


def test_metadata_when_they_are_as_large_as_may_be() -> None:
    """Metadata are accepted up to the last byte, beside what is stored and what is on its way; more is refused and changes nothing."""
    state, coming, metadata = restored_state(), said("u2"), {"note": "x" * 50}
    whole = state.size + size_of(encode_message(coming)) + size_of(metadata)
    pending = Pending.of(state, 5)
    pending.add(Step(lifecycle="on_message", messages=[coming]), state, LIMITS)
    with pytest.raises(LimitExceeded) as caught:
        pending.add(metadata_step(**metadata), state, Limits(whole - 1))

    assert ("max_state_bytes", whole, whole - 1) == (caught.value.limit, caught.value.value, caught.value.most)
    assert (6, whole - state.size - size_of(metadata)) == (pending.revision, pending.size)
    assert metadata == pending.add(metadata_step(**metadata), state, Limits(whole)).metadata


def test_former_key_when_the_open_decisions_change() -> None:
    """If a state was stored under the former key, the commit that writes the present key removes the former one, and no other does."""
    state = restored_state(has_former_keys=True)
    pending = Pending.of(state, 5)
    decisions = {"c1": [record_of(call())]}
    first = pending.add(Step(lifecycle="on_step", open_decisions=decisions), state, LIMITS)

    assert {OPEN_DECISIONS: encode_open_decisions(decisions), FORMER_OPEN_DECISIONS: None} == first.state
    assert {OPEN_DECISIONS: None, FORMER_OPEN_DECISIONS: None} == pending.add(
        Step(lifecycle="on_step", open_decisions={}), state, LIMITS
    ).state
    assert {"draft": None} == pending.add(DRAFT, state, LIMITS).state
    assert {OPEN_DECISIONS: None} == Pending.of(restored_state(), 5).add(
        Step(lifecycle="on_step", open_decisions={}), restored_state(), LIMITS
    ).state


def test_add_when_a_checkpoint_is_on_its_way() -> None:
    """One step at a time moves the beginning of the window; after it failed, or is durable, the next one may."""
    messages = [message for number in range(4) for message in (said(f"u{number}", turn_id=f"t{number}"), ended(number))]
    state, limits = state_of(*messages), Limits(10**6, keeps_windows=True)
    pending = Pending.of(state, 5)
    first, second, third = (Step(lifecycle="on_step", covers=f"a{number}") for number in range(3))

    failed = pending.add(first, state, limits)
    assert failed.cut is not None
    assert -failed.cut.size == pending.size
    assert pending.add(second, state, limits).cut is None
    pending.fail(failed)
    encoded = pending.add(second, state, limits)
    assert encoded.cut is not None
    assert (0, 4) == (encoded.cut.first, encoded.cut.end)
    pending.commit(encoded)
    state.apply(second, None, encoded.grown, encoded.cut)
    assert 0 == pending.size
    later = pending.add(third, state, limits).cut
    assert later is not None
    assert (6, {"message:u2", "message:a2"}) == (later.checkpoint.older, set(later.checkpoint.known))


def test_add_when_the_conversation_is_fresh() -> None:
    """Before the first commit there is no window: the store has none of the messages."""
    state = ConversationState([said("u0", turn_id="t0"), ended(0), said("u1", turn_id="t1"), ended(1)])

    assert Pending.of(state, 0).add(Step(lifecycle="on_step", covers="a0"), state, Limits(10**6, keeps_windows=True)).cut is None


def test_cut_for_when_messages_are_taken() -> None:
    """A message that moves from the queue into the history counts once."""
    queued = said("u9", "x" * 1000, turn_id=None)
    state = state_of(said("u0", turn_id="t0"), ended(0), said("u1", turn_id="t1"), ended(1), queue=[queued])
    taken = attrs.evolve(queued, turn_id="t9")
    step = Step(lifecycle="on_step", messages=[taken], taken=["u9"])
    size = state.size + message_bytes([taken]) - message_bytes([queued])

    assert Pending.of(state, 5).add(step, state, Limits(size, keeps_windows=True)).cut is None
    assert Pending.of(state, 5).add(step, state, Limits(size - 1, keeps_windows=True)).cut is not None


def ended(number: int) -> Message:
    """Return the last answer of a turn."""
    return last_answer(message_id=f"a{number}", turn_id=f"t{number}")


def test_freeable_when_turns_may_leave() -> None:
    """What may leave is whole turns, and only if the store keeps windows and no checkpoint is on its way."""
    messages = [message for number in range(3) for message in (said(f"u{number}", turn_id=f"t{number}"), ended(number))]
    state, limits = state_of(*messages), Limits(10**6, keeps_windows=True)
    pending = Pending.of(state, 5)

    assert message_bytes(messages[:4]) == pending.freeable(state, limits)
    assert 0 == pending.freeable(state, Limits(10**6))
    pending.add(Step(lifecycle="on_step", covers="a0"), state, limits)
    assert 0 == pending.freeable(state, limits)


def test_pieces_when_a_step_fails() -> None:
    """Pieces that may be stored are removed by the next draft that is whole, and by the end of the draft, also after a failure."""
    state, pending = restored_state(), Pending.of(restored_state(), 1)
    before = Message("d", "assistant", [TextPart("a")], "crashed", "t")
    piece = Step(lifecycle="on_step", draft=growth(before, attrs.evolve(before, parts=[TextPart("ab")])))
    whole, gone = Step(lifecycle="on_step", draft=before), Step(lifecycle="on_step", draft=None)
    pending.commit(pending.add(whole, state, LIMITS))
    pending.commit(pending.add(piece, state, LIMITS))
    pending.fail(pending.add(piece, state, LIMITS))
    failed = pending.add(whole, state, LIMITS)
    pending.fail(failed)
    again = pending.add(gone, state, LIMITS)
    pending.commit(again)

    expected = {"draft.1", "draft.2"}
    assert [expected, expected] == [set(encoded.state) - {"draft"} for encoded in (failed, again)]
    assert {"draft"} == set(pending.add(gone, state, LIMITS).state)
