"""A planted bug, the copy of the project that it is planted in, and the hunt for it.

The copy has the package, the tests and the settings, so what runs there is what CI runs, and nothing of the real tree is touched.
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

ROOT: Final = Path(__file__).parents[3]
LIMIT: Final = 60.0
"""Seconds for the tests of one mutant. One that takes longer hangs, which counts as found: without it they pass."""
JOBS: Final = 2
"""Mutants that are hunted at once."""
_PASSED: Final = 0
_FAILED: Final = 1
_NOTHING_RUN: Final = frozenset({2, 3, 4, 5})
"""What pytest returns where it was interrupted, broke, was called wrongly, or found no test: that finds no bug."""


@attrs.frozen
class Mutant:
    """One planted bug: a place in the library's text, what stands there instead, and who finds it."""

    name: str
    """What the library does wrong then."""
    path: str
    """In the package."""
    old: str
    """Stands there once."""
    new: str
    found_by: Sequence[str]
    """One to three tests, as pytest names them, below `tests`; each takes a second or two."""


@attrs.frozen
class Hunt:
    """What came of a mutant."""

    mutant: Mutant
    is_found: bool
    how: str
    seconds: float

    def __str__(self) -> str:
        return f"{'found   ' if self.is_found else 'SURVIVED'}  {self.mutant.name:<58}  {self.how} ({self.seconds:.0f} s)"


def planted(mutant: Mutant, text: str) -> str:
    """Return the text of the module with the bug in it.

    Raises:
        ValueError: its place is not there, or more than once: the library has changed, so the mutant has to.
    """
    count = text.count(mutant.old)
    if count != 1:
        raise ValueError(f"{mutant.name}: its text stands {count} times in {mutant.path}; write down the place as it is now")
    return text.replace(mutant.old, mutant.new)


@contextmanager
def copied(mutant: Mutant | None) -> Iterator[Path]:
    """Yield a copy of the project, in a folder of its own, with the bug in it where there is one."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        # With what is compiled, which is quicker; but not what another process is just compiling, and renames.
        passing = shutil.ignore_patterns(".hypothesis", ".pytest_cache", "*.pyc.*")
        for name in ("trio_sagents", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=passing)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy2(ROOT / name, copy / name)
        if mutant is not None:
            path = copy / "trio_sagents" / mutant.path
            path.write_text(planted(mutant, path.read_text(encoding="utf-8")), encoding="utf-8")
        yield copy


def run_tests(copy: Path, tests: Iterable[str], *more: str, limit: float = LIMIT) -> tuple[int | None, str]:
    """Run tests against a copy; return what pytest returned, None where it took too long, and the last that it said."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRIO_SAGENTS_", "COV_", "PYTEST_"))}
    environment = {**kept, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *more, *(f"tests/{name}" for name in tests)]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=limit, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return None, f"it took longer than {limit:g} seconds"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("FAILED tests", "ERROR tests", "Timeout ("))]
    return done.returncode, (failed or lines or ["it said nothing"])[0 if failed else -1][:140]


def hunt(mutant: Mutant) -> Hunt:
    """Run the tests that find a mutant against a copy that has it."""
    begun = time.perf_counter()
    with copied(mutant) as copy:
        code, said = run_tests(copy, mutant.found_by, "-x")
    if code in _NOTHING_RUN:
        raise RuntimeError(f"{mutant.name}: its tests did not run: {said}")
    return Hunt(mutant, code != _PASSED, said, time.perf_counter() - begun)


def check_sound(mutants: Iterable[Mutant]) -> str | None:
    """Return what is wrong with the library as it is, by the tests that find mutants; None where all of them pass."""
    tests = sorted({name for mutant in mutants for name in mutant.found_by})
    with copied(None) as copy:
        code, said = run_tests(copy, tests, limit=LIMIT * 10)
    return None if code == _PASSED else said


def hunt_all(mutants: Sequence[Mutant], jobs: int = JOBS) -> Iterator[Hunt]:
    """Hunt mutants, some at a time, and yield what came of each, in order."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(hunt, mutants)
