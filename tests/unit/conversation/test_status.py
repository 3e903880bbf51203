"""Tests of `trio_sagents.conversation.status`."""

from pathlib import Path
from typing import Final

import pytest

from trio_sagents.conversation.status import TABLE, Happening, IllegalTransition, StatusMachine, diagram
from trio_sagents.data.status import Status

PAGE: Final = Path(__file__).parents[3] / "docs" / "explanation" / "session.md"


def test_diagram_when_the_page_shows_it() -> None:
    """The page about sessions contains the diagram as it is drawn from the table."""
    assert f"```mermaid\n{diagram()}\n```" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("status", Status)
def test_change_when_the_table_does_not_have_it(status: Status) -> None:
    """A happening that the table does not have is refused, and the status is as before."""
    for happening in set(Happening) - set(TABLE[status]):
        machine = StatusMachine(status)
        with pytest.raises(IllegalTransition):
            machine.change(happening)

        assert machine.status is status


def test_table_when_a_status_is_defined() -> None:
    """Each status has a row in the table, and each of them can be reached."""
    assert set(Status) == set(TABLE)
    assert set(Status) == {following for row in TABLE.values() for following in row.values()}
