"""Planted bugs: they can all be planted in today's library, and (nightly) the machine finds each of them."""

import faulthandler
import os
from pathlib import Path

import pytest

from tests.search.sessions.planted import MUTANTS, Mutant, hunt, plant

NIGHTLY = os.environ.get("TRIO_SAGENTS_NIGHTLY") == "1"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_can_be_planted(mutant: Mutant, tmp_path: Path) -> None:
    """Its place is still in the library, once, and what stands there instead is Python."""
    plant(mutant, tmp_path)

    compile((tmp_path / "trio_sagents" / mutant.path).read_text(), mutant.path, "exec")


@pytest.mark.skipif(not NIGHTLY, reason="half a minute for each: TRIO_SAGENTS_NIGHTLY=1, or python -m tests.search.sessions.planted")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_found(mutant: Mutant) -> None:
    """The examples that CI runs find the planted bug."""
    faulthandler.cancel_dump_traceback_later()
    found, how = hunt(mutant)

    assert found, how
