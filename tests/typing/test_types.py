"""Type checkers take a host's right program, and refuse the wrong one, line by line."""

import faulthandler
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytest.importorskip("mypy")

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
_MARK: Final = re.compile(r"#\s*error: ([\w-]+(?:, [\w-]+)*)$")
_FOUND: Final = re.compile(r"^(.*?):(\d+): error: .*?\[([\w-]+)\]$", re.MULTILINE)


def check(folder: Path, cache: Path) -> tuple[set[tuple[str, int, str]], str]:
    """Return the errors of mypy in a folder as (file, line, code), and all that it said."""
    faulthandler.dump_traceback_later(240, exit=True)
    options = ["--strict", "--config-file=", "--no-error-summary", f"--cache-dir={cache}", "--enable-error-code=unused-awaitable"]
    command = [sys.executable, "-m", "mypy", *options, str(folder)]
    environ = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cache.parent, env=environ)
    found = {(Path(file).name, int(line), code) for file, line, code in _FOUND.findall(done.stdout)}
    return found, done.stdout + done.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy") / "cache"


def test_right_program_when_checked(cache: Path) -> None:
    """mypy, as strict as it can be, has nothing to say to a host that uses the library as it is meant."""
    found, said = check(HERE / "must_pass", cache)

    assert set() == found, said
    assert "" == said.strip()


def test_wrong_program_when_checked(cache: Path) -> None:
    """mypy refuses each marked line of a wrong program for the reason that is given, and no other line."""
    expected = {
        (path.name, number, code)
        for path in sorted((HERE / "must_fail").glob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (mark := _MARK.search(line))
        for code in mark[1].split(", ")
    }
    found, said = check(HERE / "must_fail", cache)

    assert expected == found, said
