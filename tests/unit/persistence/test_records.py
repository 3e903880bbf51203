"""Stored records: the text of an owner."""

import pytest

from trio_sagents.data.records import Owner
from trio_sagents.persistence._records import owner_key


@pytest.mark.parametrize(("left", "right"), [(1, "1"), (None, "null"), ("a", '"a"'), (-1, "-1"), ("", None)])
def test_owners_that_look_alike(left: Owner, right: Owner) -> None:
    """The stored text of an owner is that of no other."""
    assert owner_key(left) != owner_key(right)
