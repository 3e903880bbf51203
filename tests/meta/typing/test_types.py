"""Type checkers accept a host's correct program, and refuse the wrong one, line by line."""

import faulthandler
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.slow

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[2]
_MARK: Final = re.compile(r"#\s*error: ([\w-]+(?:, [\w-]+)*)$")
_FOUND: Final = re.compile(r"^(.*?):(\d+): error: .*?\[([\w-]+)\]$", re.MULTILINE)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, int, str]]:
    """The errors of one strict mypy run over all programs here, as (file, line, code)."""
    faulthandler.dump_traceback_later(240, exit=True)
    folder = tmp_path_factory.mktemp("mypy")
    options = ["--strict", "--config-file=", "--no-error-summary", "--follow-imports=silent", f"--cache-dir={folder}"]
    command = [sys.executable, "-m", "mypy", *options, str(HERE / "must_pass"), str(HERE / "must_fail")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, "MYPYPATH": str(ROOT)})
    assert "" == done.stderr
    return {(Path(file).name, int(line), code) for file, line, code in _FOUND.findall(done.stdout)}


def _marked() -> set[tuple[str, int, str]]:
    return {
        (path.name, number, code)
        for path in (HERE / "must_fail").glob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (mark := _MARK.search(line))
        for code in mark[1].split(", ")
    }


def test_right_program_when_checked(found: set[tuple[str, int, str]]) -> None:
    """mypy, as strict as it can be, has nothing to say to a host that uses the library as it is meant."""
    names = {path.name for path in (HERE / "must_pass").glob("*.py")}

    assert [] == sorted(error for error in found if error[0] in names)


def test_wrong_program_when_checked(found: set[tuple[str, int, str]]) -> None:
    """mypy refuses each marked line of a wrong program for the reason that is given, and no other line."""
    names = {path.name for path in (HERE / "must_fail").glob("*.py")}

    assert sorted(_marked()) == sorted(error for error in found if error[0] in names)
