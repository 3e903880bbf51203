"""Which ids of messages and of calls are in use."""

import itertools

from tests.unit.conversation.making import asking, call, said
from trio_sagents.conversation.ids import Ids


def test_new_when_somebody_guessed_it() -> None:
    """An id that a caller has used is given to nobody else; one that was handed out is not in use before something has it."""
    ids = Ids("new", messages={"new-1"}, calls={"new-2"})

    assert "new-3" == ids.new()
    assert [True, True, False, False] == [ids.is_used(f"new-{number}") for number in (1, 2, 3, 4)]
    assert ["new-4", "new-5"] == list(itertools.islice(ids.source(), 2))


def test_claim_when_an_id_was_handed_out() -> None:
    """An id is in use from the moment at which a message or a call has it."""
    ids = Ids("new")
    for_message, for_call = ids.new(), ids.new()
    ids.claim([asking(call(for_call), message_id=for_message)])

    assert ids.is_used(for_message)
    assert ids.is_used(for_call)


def test_claim_when_a_message_and_a_call_have_the_same_name() -> None:
    """Messages and calls have separate spaces: the id of a call is free for a message, and the other way round."""
    ids = Ids("new")
    ids.claim([asking(call("x"), message_id="y")])

    assert ({"y"}, {"x"}) == (ids.messages, ids.calls)
    assert (frozenset({"x"}), frozenset({"y"})) == ids.claim([asking(call("y"), message_id="x")])


def test_release_when_a_write_failed() -> None:
    """A claim that is taken back frees what it had claimed, and nothing that was in use before."""
    ids = Ids("new")
    ids.claim([asking(call("c1"), message_id="a1")])
    claimed = ids.claim([asking(call("c1"), call("c2"), message_id="a2"), said("u1")])

    assert (frozenset({"a2", "u1"}), frozenset({"c2"})) == claimed
    ids.release(claimed)
    assert ({"a1"}, {"c1"}) == (ids.messages, ids.calls)


def test_release_when_nothing_was_new() -> None:
    """A write that brings only what is in use takes nothing with it when it fails."""
    ids = Ids("new")
    ids.claim([said("u1")])
    ids.release(ids.claim([said("u1")]))

    assert {"u1"} == ids.messages


def test_forget_when_messages_left_the_window() -> None:
    """Their ids are free in memory, but for one that the next new id may come to: a caller may have guessed it."""
    ids = Ids("new")
    made = ids.new()
    old = [said(made), said("other-5"), said("new-7"), said("new-x"), asking(call("c1"), call("new-2"), message_id="a1")]
    ids.claim(old)
    ids.forget(old)

    assert {"new-7"} == ids.messages
    assert {"new-2"} == ids.calls
    assert ["new-3", "new-4", "new-5", "new-6", "new-8"] == [ids.new() for _ in range(5)]


def test_forget_when_ids_were_never_used() -> None:
    """An id that was handed out before the messages that left, and that nothing has got, is dropped; a later one stays."""
    ids = Ids("new")
    of_turn, of_message, later = ids.new(), ids.new(), ids.new()
    ids.claim([said(of_message)])
    ids.forget([said(of_message)])

    assert {later} == ids.messages == ids.calls
    assert not ids.is_used(of_turn)
    ids.claim([said(later)])
    assert ids.is_used(later)


def test_forget_when_a_call_has_the_id_of_a_message() -> None:
    """Messages and calls have separate spaces: an id that a caller chose is dropped from the one that it left."""
    ids = Ids("new")
    ids.claim([said("same"), asking(call("same"))])
    ids.forget([said("same")])

    assert ({"a1"}, {"same"}) == (ids.messages, ids.calls)
