"""The program that makes and hunts mutants: what it makes, what it finds, and that it says the same each time."""

import faulthandler
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.generated._groups import GROUPS, ROOT, TESTS, files_of
from tests.mutation.generated._making import Mutant, mutants_of, places_in
from tests.mutation.generated._running import Verdict
from tests.mutation.generated.nightly import row_of, sampled
from tests.mutation.generated.survivors import EXPLAINED

pytestmark = pytest.mark.slow

MODULE = '''"""A text."""
import logging
from typing import cast

log = logging.getLogger("x")
LIMIT = 5


def look(value: int = 7) -> str | None:
    """Look."""
    assert value > 1
    log.info("a word", value)
    if value == 3:
        raise ValueError("three is none")
    note(value)
    kind = cast("str", "some-name")
    print("two words")
    return kind


class Thing:
    @property
    def size(self) -> int:
        return LIMIT + 1
'''


def diffs(path: Path) -> list[str]:
    """Return what the places of a module become."""
    module, places = places_in(path)
    return [module.code_for_node(new).strip() for _, new, *_ in places]


def test_places_when_they_are_looked_for(tmp_path: Path) -> None:
    """Conditions, calls, names, numbers and returns are replaced, in bodies of functions alone; prose, asserts and casts are not."""
    (tmp_path / "m.py").write_text(MODULE, encoding="utf-8")
    found = diffs(tmp_path / "m.py")

    assert {"!= 3", "4", "note(None)", "pass", "return None", "LIMIT - 1", "kind = None"} <= set(found)
    assert not any("two" in text and "XX" in text for text in found)
    assert not any(word in text for text in found for word in (">= 1", "ValueError(None)", "XXsome", "log.info(None", "LIMIT = None"))


@pytest.mark.parametrize("group", GROUPS)
def test_mutants_when_drawn(group: str) -> None:
    """Every module of a group is there; a draw is that of its seed; each mutant changes its line, and names it."""
    faulthandler.cancel_dump_traceback_later()
    assert files_of(group)
    drawn = sampled(group, 4, 1)

    assert [mutant.key for mutant in drawn] == [mutant.key for mutant in sampled(group, 4, 1)]
    assert [mutant.key for mutant in drawn] != [mutant.key for mutant in sampled(group, 4, 2)]
    for mutant in drawn:
        assert mutant.diff
        assert mutant.statement <= mutant.line <= len((ROOT / mutant.path).read_text(encoding="utf-8").splitlines())
        assert mutant.text != (ROOT / mutant.path).read_text(encoding="utf-8")


def test_tests_when_listed() -> None:
    """The tests that are asked are there."""
    assert [] == [name for name in TESTS if not (ROOT / name).exists()]


@pytest.mark.skipif(not EXPLAINED, reason="nothing survives")
def test_survivors_when_explained() -> None:
    """Each explanation is of a mutant that there is."""
    faulthandler.dump_traceback_later(240, exit=True)
    keys = {mutant.key for group in GROUPS for mutant in mutants_of(group, only=EXPLAINED)[1]}

    assert set() == set(EXPLAINED) - keys


def test_row_when_counted() -> None:
    """A survivor that is not explained is a violation; the score is of those that are not explained."""
    mutants = [Mutant("trio_sagents/x.py", line, line, "f", "", (f"- {line}", "+ 0")) for line in range(4)]
    verdicts = [Verdict(mutant, how, "", 1) for mutant, how in zip(mutants, ["killed", "killed", "timed out", "survived"], strict=True)]
    row = row_of("registry", verdicts, 2.0)

    assert ("mutants, registry", 4, 2, 0, 1, 1, 2.0, 0.75) == (
        row.stage, row.mutants, row.killed, row.explained, row.survived, row.timed_out, row.rate, row.score
    )  # fmt: skip
    assert [mutants[3]] == [verdict.mutant for verdict in row.found]


def test_program_when_it_hunts() -> None:
    """Two runs find the same, in the same words, except for the rate. A survivor is shown as a diff."""
    faulthandler.dump_traceback_later(240, exit=True)
    program = (
        "import sys\n"
        "from tests.mutation.generated.nightly import hunt_groups\n"
        f"tests, seed = ['tests/unit/supervisor/test_registry.py'], {random.Random(5).randrange(100)}\n"
        "for row in hunt_groups(['registry'], sample=12, seed=seed, tests=tests):\n"
        "    print(row.mutants, row.killed, row.timed_out, sorted(one.mutant.key for one in row.found), sep='|')\n"
    )
    runs = [subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True) for _ in range(2)]
    mutants, killed, timed_out, found = runs[0].stdout.strip().split("|")

    assert runs[0].stdout == runs[1].stdout
    assert "12" == mutants
    assert int(killed) >= 6
    assert int(killed) + int(timed_out) + found.count("trio_sagents/supervisor/_registry.py::") == 12
