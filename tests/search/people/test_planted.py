"""Every planted bug fits today's library, and the machine finds each of them (at night)."""

import faulthandler
import os

import pytest

from tests.search.hunting import hunt
from tests.search.people.planted import BUGS
from tests.support.planting import PlantedBug

NIGHTLY = os.environ.get("TRIO_SAGENTS_NIGHTLY") == "1"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_bug_when_planted(bug: PlantedBug) -> None:
    """The text is in the function once, and the module with the bug in it is Python."""
    compile(bug.planted(), bug.module, "exec")


@pytest.mark.slow
@pytest.mark.skipif(not NIGHTLY, reason="half a minute for each: TRIO_SAGENTS_NIGHTLY=1, or python -m tests.search.people.planted")
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_bug_when_hunted(bug: PlantedBug) -> None:
    """The examples that CI runs find the planted bug."""
    faulthandler.cancel_dump_traceback_later()  # the hunt has a time limit of its own
    is_found, how = hunt(bug, "tests.search.people.planted")

    assert is_found, how
