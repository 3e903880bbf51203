"""Stored records: the text of an owner, and the rows of the transcript."""

import datetime
from typing import Any

import pytest

from trio_sagents.data.records import DisplayMessage, Owner
from trio_sagents.exceptions import StateError
from trio_sagents.persistence._records import decode_row, owner_key

NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
ROW = DisplayMessage("r1", "m1", "user", "text", {"text": "hi"}, "completed", NOW)


@pytest.mark.parametrize(("left", "right"), [(1, "1"), (None, "null"), ("a", '"a"'), (-1, "-1"), ("", None)])
def test_owners_that_look_alike(left: Owner, right: Owner) -> None:
    """The stored text of an owner is that of no other."""
    assert owner_key(left) != owner_key(right)


@pytest.mark.parametrize("place", range(7))
def test_row_when_one_field_is_damaged(place: int) -> None:
    """Each field of a stored row is checked: a row that is damaged is a StateError."""
    fields = ["r1", "m1", "user", "text", '{"text": "hi"}', "completed", NOW.isoformat()]
    assert ROW == decode_row("c", fields[0], fields[1:])
    for damage in (5, "x" if place > 1 and place != 3 else None):
        damaged: list[Any] = [*fields]
        damaged[place] = damage
        with pytest.raises(StateError):
            decode_row("c", damaged[0], damaged[1:])
