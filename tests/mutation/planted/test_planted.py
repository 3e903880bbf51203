"""Every planted bug fits today's library; some bugs are hunted in CI, and all of them at night."""

import faulthandler
import os
from typing import Final

import pytest

from tests.mutation.planted import BUGS
from tests.mutation.planted.hunting import check_sound, hunt
from tests.mutation.planted.nightly import rows
from tests.support.planting import LIBRARY, MODULE, ROOT, NotPlantable, PlantedBug

NIGHTLY: Final = os.environ.get("TRIO_SAGENTS_NIGHTLY") == "1"
LEAST: Final = 192
SAMPLE: Final = frozenset(
    {
        "acknowledged before the commit",
        "a sub-agent passes its parent's gate by",
        "an edit is dropped",
        "the digest of a decision is not compared",
    }
)
"""One bug of each kind, with quick tests."""
HUNTED: Final = [bug for bug in BUGS if NIGHTLY or bug.name in SAMPLE]
NO_BUG: Final = PlantedBug(
    "no bug", "files/_paths.py", MODULE, "ROOT: Final = ", "ROOT: Final = ", ("unit/files/test_paths.py::test_paths_when_compared",)
)
SOURCE: Final = """
LIMIT = 5


class Account:
    @property
    def limit(self):
        return self._limit

    @limit.setter
    def limit(self, value):
        self._limit = value

    def pay(self, amount):
        def later():
            return amount

        return amount


def pay(amount):
    return amount
"""


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_bug_when_planted(bug: PlantedBug) -> None:
    """The text is in the function once, and the module with the bug in it is Python, and another text."""
    text = bug.planted()
    compile(text, bug.module, "exec")

    assert text != (LIBRARY / bug.module).read_text(encoding="utf-8")


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_bug_when_it_names_tests(bug: PlantedBug) -> None:
    """A bug names one to three tests, or files of tests, and these exist."""
    assert 1 <= len(bug.found_by) <= 3
    for name in bug.found_by:
        if "::" not in name:
            assert (ROOT / "tests" / name).exists(), name
            continue
        path, *_, function = name.split("::")
        texts = [(ROOT / "tests" / path).read_text(encoding="utf-8")]
        if name.count("::") > 1:  # a test of the kit that every store passes
            texts += [kit.read_text(encoding="utf-8") for kit in (LIBRARY / "testing").glob("*_[csl]*.py")]

        assert any(f"def {function.split('[')[0]}(" in text for text in texts), name


def test_bugs_when_counted() -> None:
    """There are enough bugs, each has a name of its own, and those of the sample are among them."""
    names = [bug.name for bug in BUGS]

    assert len(names) >= LEAST
    assert len(set(names)) == len(names)
    assert set(names) >= SAMPLE


@pytest.mark.parametrize(
    ("function", "old", "line"),
    [
        (MODULE, "LIMIT = 5", 1),
        ("pay", "return amount", 21),
        ("Account.pay.later", "return amount", 15),
        ("Account.limit", "= value", 11),
        ("Account", "class Account:", 4),
    ],
)
def test_bug_when_its_function_has_the_text_once(function: str, old: str, line: int) -> None:
    """The text in the named function is replaced, and the same text elsewhere in the module stays."""
    lines = PlantedBug("a bug", "abc.py", function, old, "HERE").planted_in(SOURCE).splitlines()

    assert [line] == [number for number, text in enumerate(lines) if "HERE" in text]


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        (PlantedBug("a bug", "abc.py", "Account.charge", "x", "y"), "'a bug': abc.py has no Account.charge"),
        (PlantedBug("a bug", "abc.py", "pay", "absent text", "y"), "'a bug': the text occurs 0 times in pay of abc.py"),
        (PlantedBug("a bug", "abc.py", "Account.pay", "return amount", "y"), "the text occurs 2 times in Account.pay of abc.py"),
        (PlantedBug("a bug", "abc.py", "wall_clock", "x_yz", "y"), "abc.py has no wall_clock; there is a wall_clock of supervisor/"),
    ],
)
def test_bug_when_its_place_is_gone(bug: PlantedBug, message: str) -> None:
    """The error names the bug, the module and the function, and says where the function is today if another module has it."""
    with pytest.raises(NotPlantable) as caught:
        bug.planted_in(SOURCE)

    assert message in str(caught.value)


def test_bug_when_its_module_is_gone() -> None:
    """The error names the module."""
    with pytest.raises(NotPlantable, match=r"there is no module gone\.py"):
        PlantedBug("a bug", "gone.py", "pay", "absent text", "y").planted()


@pytest.mark.slow
def test_hunt_when_there_is_no_bug() -> None:
    """A bug that changes nothing survives: what finds the other bugs is their text, and not the copying."""
    faulthandler.cancel_dump_traceback_later()  # the hunt has a time limit of its own

    assert not hunt(NO_BUG).is_found


@pytest.mark.slow
@pytest.mark.parametrize("bug", HUNTED, ids=lambda bug: bug.name)
def test_bug_when_hunted(bug: PlantedBug) -> None:
    """The tests that the bug names find it."""
    faulthandler.cancel_dump_traceback_later()  # the hunt has a time limit of its own
    hunted = hunt(bug)

    assert hunted.is_found, hunted.how


@pytest.mark.slow
@pytest.mark.skipif(not NIGHTLY, reason="takes minutes: TRIO_SAGENTS_NIGHTLY=1, or python -m tests.mutation.planted")
def test_tests_when_there_is_no_bug() -> None:
    """All tests that find bugs pass without a bug."""
    faulthandler.cancel_dump_traceback_later()  # the run has a time limit of its own

    assert check_sound(BUGS) is None


@pytest.mark.slow
def test_rows_when_few_are_hunted() -> None:
    """The nightly row counts the survivors."""
    faulthandler.cancel_dump_traceback_later()  # the hunt has a time limit of its own
    (row,) = rows([NO_BUG])

    assert ("planted bugs", 1, 1) == row[:3]
