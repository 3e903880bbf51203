"""The night of the people's machine: it tells what it finds, and a history that hangs is a finding."""

from contextlib import suppress

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.search.people import nightly
from tests.search.people.machine import PeopleMachine

pytestmark = pytest.mark.slow


class _Broken(PeopleMachine):
    @invariant()
    def complain(self) -> None:
        """Complain."""
        raise AssertionError("a promise was broken")


class _Spinning(RuleBasedStateMachine):
    @rule()
    def spin(self) -> None:
        """Continue for ever, whatever fails."""
        while True:
            with suppress(Exception):
                continue


@pytest.mark.parametrize(("machine", "patience", "told"), [(_Broken, 60.0, "a promise was broken"), (_Spinning, 0.5, "it has not ended")])
def test_a_batch_that_fails_or_hangs_is_told(
    machine: type[RuleBasedStateMachine], patience: float, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a batch found comes with the command that runs it again."""
    monkeypatch.setattr(nightly, "MACHINES", {"memory": machine})

    found = nightly.run_batch("memory", 7, patience)

    assert found is not None
    assert told in found
    assert "python -m tests.search.people.nightly --only memory --seed 7 50" in found
