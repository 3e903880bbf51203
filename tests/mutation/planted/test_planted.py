"""Every planted bug can be planted in today's library; some are hunted in CI, all of them at night."""

import faulthandler
import os
from pathlib import Path
from typing import Final

import pytest

from tests.mutation.planted import MUTANTS
from tests.mutation.planted._planting import ROOT, Mutant, check_sound, hunt, planted
from tests.mutation.planted.nightly import rows

NIGHTLY: Final = os.environ.get("TRIO_SAGENTS_NIGHTLY") == "1"
LEAST: Final = 40
SAMPLE: Final = frozenset(
    {
        "acknowledged before the commit",
        "a sub-agent passes its parent's gate by",
        "an edit is dropped",
        "the digest of a decision is not compared",
    }
)
"""One of each kind, whose tests are quick."""
HUNTED: Final = [one for one in MUTANTS if NIGHTLY or one.name in SAMPLE]


def _text_of(mutant: Mutant) -> str:
    return (ROOT / "trio_sagents" / mutant.path).read_text(encoding="utf-8")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_when_planted(mutant: Mutant) -> None:
    """Its place is still in the library, once; what stands there instead is Python, and something else."""
    text = planted(mutant, _text_of(mutant))
    compile(text, mutant.path, "exec")

    assert text != _text_of(mutant)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_when_it_names_tests(mutant: Mutant) -> None:
    """It names one to three tests, which are there."""
    assert 1 <= len(mutant.found_by) <= 3
    for name in mutant.found_by:
        path, *_, function = name.split("::")
        texts = [(ROOT / "tests" / path).read_text(encoding="utf-8")]
        if name.count("::") > 1:  # of the kit that both stores pass
            texts += [kit.read_text(encoding="utf-8") for kit in (ROOT / "trio_sagents" / "testing").glob("*_[sl]*.py")]

        assert any(f"def {function.split('[')[0]}(" in text for text in texts), name


def test_mutants_when_counted() -> None:
    """There are enough, each has a name of its own, and those of the sample are among them."""
    names = [one.name for one in MUTANTS]

    assert len(names) >= LEAST
    assert len(set(names)) == len(names)
    assert set(names) >= SAMPLE


def test_place_when_it_is_gone(tmp_path: Path) -> None:
    """A mutant whose place the library has no more, or twice, fails loudly."""
    mutant = Mutant("a bug", "abc.py", "here\n", "there\n", ("unit/test_x.py::test_x",))
    for text in ("", "here\nhere\n"):
        with pytest.raises(ValueError, match=r"its text stands [02] times in abc\.py"):
            planted(mutant, text)


def test_hunt_when_there_is_no_bug() -> None:
    """A mutant that changes nothing survives: what finds the others is the bug, and not the copying."""
    faulthandler.cancel_dump_traceback_later()  # a process with a limit of its own
    place = "ROOT: Final = "
    mutant = Mutant("no bug", "files/_paths.py", place, place, ("unit/files/test_paths.py::test_paths_when_compared",))

    assert not hunt(mutant).is_found


@pytest.mark.parametrize("mutant", HUNTED, ids=lambda mutant: mutant.name)
def test_mutant_when_hunted(mutant: Mutant) -> None:
    """The tests that it names find it."""
    faulthandler.cancel_dump_traceback_later()  # a process with a limit of its own
    hunted = hunt(mutant)

    assert hunted.is_found, hunted.how


@pytest.mark.skipif(not NIGHTLY, reason="minutes: TRIO_SAGENTS_NIGHTLY=1, or python -m tests.mutation.planted")
def test_tests_when_there_is_no_mutant() -> None:
    """All that find mutants pass without one."""
    faulthandler.cancel_dump_traceback_later()  # a process with a limit of its own

    assert check_sound(MUTANTS) is None


def test_rows_when_few_are_hunted() -> None:
    """The nightly line counts the survivors."""
    faulthandler.cancel_dump_traceback_later()  # a process with a limit of its own
    place = "ROOT: Final = "
    survivor = Mutant("no bug", "files/_paths.py", place, place, ("unit/files/test_paths.py::test_paths_when_compared",))
    (row,) = rows([survivor])

    assert ("planted bugs", 1, 1) == row[:3]
