"""A call as people decided it."""

import attrs
import pytest

from tests.unit.conversation.making import call, record_of
from trio_sagents.conversation.decided import as_run, changes_arguments, decided_call, digest_now, runs

PAY = call("c1", amount=1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("approve", True),
        ("edit", True),
        ("reject", False),
        ("answer", False),
        ("superseded", False),
        ("dismissed", False),
        ("expired", False),
    ],
)
def test_runs_when_a_call_was_decided(kind: str, *, expected: bool) -> None:
    """A call runs if it was approved, or approved with other arguments; never otherwise."""
    assert expected is runs(record_of(PAY, kind))


def test_decided_call_when_it_was_approved() -> None:
    """An approved call runs with the arguments that were shown; it is a new object, for viewers may still have the old one."""
    found = decided_call(PAY, record_of(PAY))

    assert PAY == found
    assert PAY is not found
    assert found is not None
    assert PAY.arguments is not found.arguments


def test_decided_call_when_it_was_edited() -> None:
    """An edited call keeps its id and its tool and has the new arguments."""
    assert call("c1", amount=5) == decided_call(PAY, record_of(PAY, "edit", '{"arguments":{"amount":5}}'))


def test_decided_call_when_the_decision_is_about_something_else() -> None:
    """A decision about another call, or about other arguments, lets nothing run; arguments that changed later count as others."""
    changed = call("c1", amount=1)
    changed.arguments["amount"] = 100  # type: ignore[index]  # whoever was shown the call has the dict

    assert decided_call(call("c2", amount=1), record_of(PAY)) is None
    assert decided_call(call("c1", amount=2), record_of(PAY)) is None
    assert decided_call(changed, record_of(PAY)) is None
    assert changed.digest != digest_now(changed)


def test_decided_call_when_people_were_asked_again() -> None:
    """A record that names its own arguments decides about those, whatever the model had asked for."""
    asked_again = call("c1", amount=5)
    record = attrs.evolve(record_of(asked_again), name="pay", arguments='{"amount":5}', asked_before=1)

    assert asked_again == decided_call(PAY, record)
    assert asked_again == as_run(PAY, record)
    assert decided_call(PAY, attrs.evolve(record, digest=PAY.digest)) is None


@pytest.mark.parametrize(
    ("kind", "content", "amount"),
    [
        ("approve", "{}", 1),
        ("edit", '{"arguments":{"amount":5}}', 5),
        ("reject", "{}", 1),
        ("superseded", "{}", 1),
        (None, "", 1),
    ],
)
def test_as_run_when_the_model_reads_its_history(kind: str | None, content: str, amount: int) -> None:
    """The model reads the arguments that a call ran with; the status of the call stays."""
    executing = attrs.evolve(PAY, status="executing")
    record = None if kind is None else record_of(PAY, kind, content)

    assert attrs.evolve(call("c1", amount=amount), status="executing") == as_run(executing, record)
    assert (amount != 1) is (record is not None and changes_arguments(record))


def test_as_run_when_the_edit_is_of_other_arguments() -> None:
    """An edit of other arguments than those in the history changes nothing."""
    other = call("c1", amount=2)

    assert other is as_run(other, record_of(PAY, "edit", '{"arguments":{"amount":5}}'))
