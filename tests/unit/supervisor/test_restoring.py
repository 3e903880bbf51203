"""What a store gives back is looked at before it is believed."""

from typing import Any

import attrs
import pytest

from trio_sagents.data.records import Conversation
from trio_sagents.exceptions import StateError
from trio_sagents.supervisor import Ledger


def ledger_of() -> Ledger:
    writer: Any = None  # nothing is written here
    return Ledger("c", "agent", None, None, "new", writer, 10_000, 1_000)


STORED = Conversation(conversation_id="c", owner=None, epoch=3, revision=7, messages=[], queue=[], message_ids={}, state={})


@pytest.mark.parametrize("key", ["", "Todos", "secrets", 7])
def test_restore_when_the_state_has_a_key_that_is_none_of_ours(key: Any) -> None:
    """A state with a key that nobody knows is not loaded, for what it means would be lost; the error names it."""
    with pytest.raises(StateError, match=f"the state has unknown keys: {key}"):
        ledger_of().restore(attrs.evolve(STORED, state={"todos": [], key: None}))


def test_restore_when_the_state_is_empty() -> None:
    """A conversation may have no state yet."""
    ledger = ledger_of()
    ledger.restore(STORED)

    assert (3, True, (), {}) == (ledger.epoch, ledger.is_restored, tuple(ledger.todos), dict(ledger.metadata))
    assert (None, None) == (ledger.interrupt, ledger.draft)
