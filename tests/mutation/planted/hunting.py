"""Hunt planted bugs: run the tests that a bug names against a copy of the project that has the bug in it.

The copy has the package, the tests and the settings, so the tests run there as they run in CI, and the real tree stays untouched.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from tests.support.planting import ROOT, PlantedBug, plant_copy

LIMIT: Final = 60.0
"""Seconds for the tests of one bug. Tests that take longer hang, which counts as found: without the bug they pass."""
JOBS: Final = 2
"""How many bugs are hunted at once."""
_PASSED: Final = 0
_NOTHING_RUN: Final = frozenset({2, 3, 4, 5})
"""What pytest returns if it was interrupted, broke, was called wrongly, or found no test: then nothing was tested."""


@attrs.frozen
class Hunt:
    """The result of the hunt for one bug."""

    bug: PlantedBug
    is_found: bool
    how: str
    seconds: float

    def __str__(self) -> str:
        return f"{'found   ' if self.is_found else 'SURVIVED'}  {self.bug.name:<58}  {self.how} ({self.seconds:.0f} s)"


@contextmanager
def copied(bug: PlantedBug | None) -> Iterator[Path]:
    """Yield a copy of the project in a folder of its own, with the bug in it if there is one."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder)
        plant_copy(copy, bug)
        shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("*.pyc.*"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy2(ROOT / name, copy / name)
        yield copy


def run_tests(copy: Path, tests: Iterable[str], *more: str, limit: float = LIMIT) -> tuple[int | None, str]:
    """Run tests in a copy; return pytest's exit status and its last words. The status is None if the tests took too long."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRIO_SAGENTS_", "COV_", "PYTEST_"))}
    environment = {**kept, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *more, *(f"tests/{name}" for name in tests)]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=limit, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return None, f"the tests took longer than {limit:g} seconds"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("FAILED tests", "ERROR tests", "Timeout ("))]
    return done.returncode, (failed or lines or ["pytest printed nothing"])[0 if failed else -1][:140]


def hunt(bug: PlantedBug) -> Hunt:
    """Run the tests that a bug names against a copy that has the bug.

    Raises:
        NotPlantable: the bug does not fit the library.
        RuntimeError: none of the tests ran.
    """
    begun = time.perf_counter()
    with copied(bug) as copy:
        code, last_words = run_tests(copy, bug.found_by, "-x")
    if code in _NOTHING_RUN:
        raise RuntimeError(f"{bug.name!r}: its tests did not run: {last_words}")
    return Hunt(bug, code != _PASSED, last_words, time.perf_counter() - begun)


def check_sound(bugs: Iterable[PlantedBug]) -> str | None:
    """Run the tests of all these bugs without any bug; return what fails, or None if everything passes."""
    tests = sorted({name for bug in bugs for name in bug.found_by})
    with copied(None) as copy:
        code, last_words = run_tests(copy, tests, limit=LIMIT * 10)
    return None if code == _PASSED else last_words


def hunt_all(bugs: Sequence[PlantedBug], jobs: int = JOBS) -> Iterator[Hunt]:
    """Hunt bugs, several at a time, and yield the results in the order of the bugs."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(hunt, bugs)
