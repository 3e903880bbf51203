"""Rows of the transcript, as middleware wants them shown."""

import datetime
import logging

import attrs
import pytest

from trio_sagents.data.records import DisplayMessage
from trio_sagents.supervisor._rows import transformed

NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


def row(number: int = 1) -> DisplayMessage:
    return DisplayMessage(f"r{number}", f"m{number}", "user", "text", {"text": "hi"}, "completed", NOW)


def test_transformed_when_a_middleware_hides_or_fails(caplog: pytest.LogCaptureFixture) -> None:
    """No middleware is asked about a hidden row any more; a row for which one fails, or returns another row, becomes a notice."""

    def hide(given: DisplayMessage) -> DisplayMessage | None:
        return None if given.row_id == "r1" else given

    def shout(given: DisplayMessage) -> DisplayMessage | None:
        asked.append(given.row_id)
        if given.row_id == "r2":
            raise OSError("secret")
        return row(9) if given.row_id == "r3" else attrs.evolve(given, content={"text": "HI"})

    asked: list[str] = []
    with caplog.at_level(logging.CRITICAL, "trio_sagents"):
        shown = transformed([row(1), row(2), row(3), row(4)], [("hide", hide), ("shout", shout)])

    assert ["r2", "r3", "r4"] == asked == [kept.row_id for kept in shown]
    assert ["notification", "notification", "text"] == [kept.content_type for kept in shown]
    assert {"text": "HI"} == shown[2].content
    assert "secret" not in repr(shown)
