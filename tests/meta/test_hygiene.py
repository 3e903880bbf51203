"""The repository works on any machine: no paths of a machine, no hosts of registries, and no open ends without an issue."""

import re
import subprocess
import tokenize
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = frozenset(
    {"", ".cfg", ".css", ".html", ".in", ".ini", ".json", ".md", ".py", ".pyi", ".sh", ".toml", ".txt", ".yaml", ".yml"}
)

# Put together here, so that this file does not hold what it looks for.
_HOSTS: Final = (
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "registry.npmjs" + ".org",
    "deb.debian" + ".org",
    "proxy.golang" + ".org",
    "crates" + ".io",
)
_PATHS: Final = re.compile(r"(?<![\w.~])(/(?:root|work|home/\w+|Users/\w+|tmp/v|mnt/\w+)/|[A-Z]:\\Users)")
_LEFT: Final = re.compile(r"\b(?:" + "TO" + r"DO|FIX" + r"ME|X" + r"XX)\b(?!\s*\(?#\d)")


@cache
def _files() -> tuple[Path, ...]:
    """Return the text files of the repository: those that git tracks or would track, or all below the root if there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        names = [name for name in done.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        skipped = {
            ".git",
            ".nox",
            ".venv",
            ".mypy_cache",
            ".ruff_cache",
            ".pytest_cache",
            ".hypothesis",
            "__pycache__",
            "build",
            "dist",
            "_build",
        }
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if not skipped & set(path.relative_to(ROOT).parts)]
    return tuple(ROOT / name for name in names if Path(name).suffix in TEXT and (ROOT / name).is_file())


def _lines_with(pattern: re.Pattern[str]) -> list[str]:
    found: list[str] = []
    for path in _files():
        if path.name == "LICENSE":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    return found


def test_files_when_looked_for() -> None:
    """The tests below look at something."""
    assert {"README.md", "pyproject.toml"} <= {path.name for path in _files()}


def test_files_when_they_name_a_machine() -> None:
    """No file holds a path of the machine that it was written on."""
    assert [] == _lines_with(_PATHS)


def test_files_when_they_name_a_registry() -> None:
    """No file names the host of a package registry: the user decides where packages come from."""
    assert [] == _lines_with(re.compile("|".join(map(re.escape, _HOSTS))))


def test_files_when_something_is_left_to_do() -> None:
    """A note about something that is left to do names its issue."""
    assert [] == _lines_with(_LEFT)


def test_newsfragments_when_named() -> None:
    """A fragment is called after its issue and its kind, and says something to users."""
    kinds = re.compile(r"\d+\.(feature|bugfix|breaking|doc|misc)\.md")
    fragments = [path for path in (ROOT / "newsfragments").glob("*") if path.name != "README.md"]

    assert [] == [path.name for path in fragments if not kinds.fullmatch(path.name) or not path.read_text(encoding="utf-8").strip()]


def _tests_named_in_the_library() -> set[tuple[str, str]]:
    """Return (place, name) of each test that a comment or a docstring of the library names."""
    named = set()
    for path in (ROOT / "trio_sagents").rglob("*.py"):
        if path.is_relative_to(ROOT / "trio_sagents" / "testing"):  # its texts name the tests of the kits, and pytest's own
            continue
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type in {tokenize.COMMENT, tokenize.STRING}:
                    named |= {(f"{path.relative_to(ROOT)}:{token.start[0]}", name) for name in re.findall(r"\btest_\w+", token.string)}
    return named


def test_comments_when_they_name_a_test() -> None:
    """A comment of the library that names the test of a race or an order names a test that exists."""
    written = {name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))}
    named = _tests_named_in_the_library()

    assert named
    assert [] == sorted((place, name) for place, name in named if name not in written)
