"""The statuses of an agent: the table is the machine."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conversation.making import call, last_answer, said, state_of, waiting_for, waits
from trio_sagents.conversation.status import TABLE, Happening, IllegalTransition, StatusMachine, diagram, follows, happening_of
from trio_sagents.data.outcomes import Cancelled, Completed, Failed, Interrupted, Unanswered
from trio_sagents.data.status import HELD, CancelCause, Status
from trio_sagents.exceptions import ModelFailed

EVERYTHING = [(status, happening) for status in Status for happening in Happening]
LEGAL = [(status, happening, following) for status, row in TABLE.items() for happening, following in row.items()]
ILLEGAL = [(status, happening) for status, happening in EVERYTHING if happening not in TABLE[status]]


def test_table_when_all_statuses_are_looked_up() -> None:
    """The table has a row for each status, each status can be reached, and each happening happens somewhere."""
    assert set(Status) == set(TABLE) == {following for _, _, following in LEGAL}
    assert set(Happening) == {happening for _, happening, _ in LEGAL}
    assert len(EVERYTHING) == len(LEGAL) + len(ILLEGAL)


@pytest.mark.parametrize(("status", "happening", "following"), LEGAL)
def test_change_when_the_table_has_it(status: Status, happening: Happening, following: Status) -> None:
    """What the table has leads to the status that the table says."""
    machine = StatusMachine(status)

    assert following is machine.following(happening)
    assert status is machine.status
    assert following is machine.change(happening) is machine.status
    assert follows(status, following)


@pytest.mark.parametrize(("status", "happening"), ILLEGAL)
def test_change_when_the_table_does_not_have_it(status: Status, happening: Happening) -> None:
    """What the table does not have is an error that names both, and changes nothing."""
    machine = StatusMachine(status, is_released=True)
    with pytest.raises(IllegalTransition, match=f"status '{status.value}': {re.escape(repr(happening.value))} cannot happen here"):
        machine.change(happening)

    assert (status, True) == (machine.status, machine.is_released)


@pytest.mark.parametrize(
    ("status", "happening", "following"),
    [
        (Status.IDLE, Happening.BEGAN, Status.RUNNING),
        (Status.IDLE, Happening.RESTORED, Status.INTERRUPTED),
        (Status.RUNNING, Happening.COMPLETED, Status.IDLE),
        (Status.RUNNING, Happening.WAITS, Status.INTERRUPTED),
        (Status.RUNNING, Happening.CANCELLED, Status.CANCELLED),
        (Status.RUNNING, Happening.FAILED, Status.ERROR),
        (Status.INTERRUPTED, Happening.PARTLY_DECIDED, Status.INTERRUPTED),
        (Status.INTERRUPTED, Happening.LET_GO, Status.IDLE),
        (Status.INTERRUPTED, Happening.BEGAN, Status.RUNNING),
    ],
)
def test_change_when_a_turn_lives(status: Status, happening: Happening, following: Status) -> None:
    """The life of a turn, as the documentation tells it."""
    assert following is StatusMachine(status).change(happening)


def test_change_when_a_person_is_needed() -> None:
    """A cancelled agent does not become idle by itself, and a paused one runs only when a turn begins."""
    assert not follows(Status.CANCELLED, Status.IDLE)
    assert {Happening.BEGAN: Status.RUNNING} == TABLE[Status.PAUSED]


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("is_released", [False, True])
def test_may_begin_when_a_message_is_queued(*, status: Status, is_released: bool) -> None:
    """A queue that is held runs only after the next message; nothing runs while the conversation waits for people."""
    machine = StatusMachine(status, is_released)
    queued = state_of(queue=[said(turn_id=None)])
    waiting = state_of(queue=[said(turn_id=None)], waiting=waiting_for(waits(call())))

    assert (is_released or status not in HELD) is machine.may_begin(queued)
    assert not machine.may_begin(state_of())
    assert not machine.may_begin(waiting)


def test_released_when_a_turn_begins() -> None:
    """One message releases a held queue for one turn."""
    machine = StatusMachine(Status.ERROR, is_released=True)
    machine.change(Happening.BEGAN)

    assert not machine.is_released


@pytest.mark.parametrize(
    ("outcome", "happening"),
    [
        (Completed(last_answer()), Happening.COMPLETED),
        (Unanswered("cut"), Happening.COMPLETED),
        (Interrupted(waiting_for(waits(call())).interrupt), Happening.WAITS),
        (Cancelled(CancelCause.USER), Happening.CANCELLED),
        (Failed(ModelFailed("x")), Happening.FAILED),
    ],
)
def test_happening_of_when_a_turn_ends(outcome: Any, happening: Happening) -> None:
    """Each outcome of a turn is one happening."""
    assert happening is happening_of(outcome)


def test_diagram_when_it_is_drawn() -> None:
    """The diagram has one line for each change of the table, and begins with the status of a new agent."""
    lines = diagram().splitlines()

    assert ["stateDiagram-v2", "    [*] --> idle"] == lines[:2]
    assert len(LEGAL) == len(lines) - 2 == len(set(lines[2:]))
    assert "    interrupted --> idle: superseded or dismissed" in lines
    assert all(line.count(":") == 1 for line in lines[2:])


def test_diagram_when_the_page_shows_it() -> None:
    """The page about sessions contains the diagram as it is drawn from the table."""
    page = Path(__file__).parents[3] / "docs" / "explanation" / "session.md"

    assert f"```mermaid\n{diagram()}\n```" in page.read_text(encoding="utf-8")
