"""The committed state, and how a step changes it."""

import attrs

from tests.unit.conversation.making import answering, applied, asking, call, draft_of, record_of, said, state_of, waiting_for, waits
from trio_sagents.conversation.limits import message_bytes
from trio_sagents.conversation.state import Step, Waiting, with_decisions
from trio_sagents.data.interrupt_wire import DECISIONS, encode_record
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.todos import Todo

KEPT = ("draft", "waiting", "open_decisions", "decisions", "todos", "metadata", "messages", "queue", "message_ids", "size")


def test_apply_when_a_step_is_empty() -> None:
    """A step that says nothing changes nothing."""
    waiting = waiting_for(waits(call()))
    state = state_of(said(), draft=draft_of(), waiting=waiting, todos=(Todo(1, "look"),), metadata={"title": "x"})
    state.open_decisions = {"c1": [record_of(call())]}
    before = {name: getattr(state, name) for name in KEPT}
    applied(state, Step(lifecycle="on_step"))

    assert before == {name: getattr(state, name) for name in KEPT}


def test_apply_when_a_message_is_queued_and_taken() -> None:
    """A queued message has its id noted for ever; a taken one leaves the queue, and the size counts each message once."""
    state = state_of()
    queued = [attrs.evolve(said(f"u{number}", turn_id=None), digest=f"d{number}") for number in (1, 2)]
    applied(state, Step(lifecycle="on_message", queued=queued))
    assert (queued, message_bytes(queued)) == (list(state.queue.values()), state.size)

    taken = attrs.evolve(queued[0], turn_id="t")
    applied(state, Step(lifecycle="on_step", taken=["u1"], messages=[taken]))

    assert ([taken], [queued[1]]) == (state.messages, list(state.queue.values()))
    assert message_bytes((taken, queued[1])) == state.size
    assert {"u1": "d1", "u2": "d2"} == state.message_ids


def test_apply_when_everything_changes() -> None:
    """Each part of a step replaces its part of the state; None removes a draft and what waits, an empty value is a value."""
    state = state_of(said(), draft=draft_of(), waiting=waiting_for(waits(call())), todos=(Todo(1, "look"),))
    state.open_decisions = {"c1": [record_of(call())]}
    step = Step(lifecycle="on_step", draft=None, waiting=None, open_decisions={}, todos=[])
    state.apply(step, {"title": "x"}, 0)

    assert (None, None, {}, (), {"title": "x"}) == (state.draft, state.waiting, state.open_decisions, state.todos, state.metadata)


def test_decisions_when_a_call_is_decided_again() -> None:
    """If people are asked again, the later decision holds, and the earlier one is found by its interrupt."""
    state = state_of()
    first, second = record_of(call()), record_of(call(), "reject", interrupt_id="i2")
    applied(state, Step(lifecycle="on_step", decided=[first]))
    applied(state, Step(lifecycle="on_step", decided=[second]))

    assert {"c1": second} == state.decisions
    assert (first, second, None) == (state.decision_in("i1", "c1"), state.decision_in("i2", "c1"), state.decision_in("i1", "c2"))


def test_decisions_when_a_halt_is_dismissed() -> None:
    """A call that was approved, has run and halted was approved: that the halt was dismissed or superseded changes nothing."""
    for kind in ("dismissed", "superseded"):
        state = state_of()
        applied(state, Step(lifecycle="on_step", decided=[record_of(call())]))
        applied(state, Step(lifecycle="on_step", decided=[record_of(call(), kind, interrupt_id="i2")]))

        assert {"c1": "approve"} == {call_id: record.kind for call_id, record in state.decisions.items()}


def test_interrupt_when_somebody_changes_what_was_shown() -> None:
    """Whoever is shown the interrupt gets a copy: the arguments of its calls are dicts."""
    given = waits(call("c1", amount=1))
    state = state_of(waiting=waiting_for(given))
    given.arguments["amount"] = 100  # type: ignore[index]  # as a careless caller does
    assert state.interrupt is not None
    state.interrupt.calls[0].arguments["amount"] = 100  # type: ignore[index]  # as a careless caller does

    assert {"amount": 1} == state.interrupt.calls[0].arguments
    assert state_of().interrupt is None


def test_messages_as_run_when_a_call_was_edited() -> None:
    """The model reads the history with the arguments that its calls ran with; nothing else differs."""
    edited, other = call("c1", amount=1), call("c2", amount=1)
    state = state_of(said(), asking(edited, other), answering("c1", "c2"))
    assert tuple(state.messages) == state.messages_as_run()

    applied(state, Step(lifecycle="on_step", decided=[record_of(edited, "edit", '{"arguments":{"amount":5}}')]))
    as_run = state.messages_as_run()

    assert [{"amount": 5}, {"amount": 1}] == [made.arguments for made in as_run[1].calls]
    assert [state.messages[0], state.messages[2]] == [as_run[0], as_run[2]]
    assert {"amount": 1} == state.messages[1].calls[0].arguments


def test_with_decisions_when_results_are_stored() -> None:
    """The result of a call carries what was decided about it and about the calls of its sub-agent, with how these ended; others stay."""
    records = [record_of(call()), record_of(call("nested")), record_of(call("lost")), record_of(call("refused"), "reject", '{"reason":""}')]
    first, second = answering("c1"), answering("c2", message_id="r2")
    kept = with_decisions([first, second], {"c1": records}, {"nested": "failed"})

    ended = ("completed", "failed", "unknown", "cancelled")
    expected = [encode_record(attrs.evolve(record, outcome=outcome)) for record, outcome in zip(records, ended, strict=True)]
    assert [{DECISIONS: expected}, {}] == [message.metadata for message in kept]
    assert [first, second] == with_decisions([first, second], {})


def test_picture_when_the_state_changes_later() -> None:
    """A picture of the state does not change afterwards."""
    state = state_of(said(), todos=(Todo(1, "look"),), metadata={"title": "x"})
    picture = state.picture()
    applied(state, Step(lifecycle="on_step", messages=[said("u2")], todos=[]))

    assert ([said()], (Todo(1, "look"),)) == (list(picture.messages), picture.todos)


def test_waiting_when_nothing_was_used() -> None:
    """A turn that waits has used nothing and has no sub-agents, unless it says so."""
    waiting = waiting_for(waits(call()))

    assert (Usage(), {}) == (waiting.used, waiting.suspended)
    assert isinstance(waiting, Waiting)
