"""The built package is as promised: three dependencies, types included, and no extra needed to import it."""

import faulthandler
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
EXTRAS: Final = (
    "anthropic",
    "fastapi",
    "h11",
    "httpx2",
    "hypercorn",
    "hypothesis",
    "mcp",
    "openai",
    "opentelemetry",
    "orjson",
    "prompt_toolkit",
    "psycopg",
    "psycopg_pool",
    "pydantic",
    "pytest",
    "quart",
    "rich",
    "starlette",
    "wsproto",
)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _package(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9_-]", requirement, maxsplit=1)[0].lower()


def test_dependencies_when_listed(project: dict[str, Any]) -> None:
    """The core needs trio, attrs and cattrs, and nothing else."""
    assert ["attrs", "cattrs", "trio"] == sorted(_package(requirement) for requirement in project["dependencies"])


def test_extras_when_listed(project: dict[str, Any]) -> None:
    """An extra is listed once code uses it, and each one has a line in docs/explanation/dependencies.md."""
    page = (ROOT / "docs" / "explanation" / "dependencies.md").read_text(encoding="utf-8")

    extras = {"anthropic", "dev", "mcp", "openai", "otel", "postgres", "test", "testing", "tui", "web"}
    assert extras == set(project["optional-dependencies"])
    assert [] == [extra for extra in project["optional-dependencies"] if f"`{extra}`" not in page]
    assert [] == [_package(requirement) for requirement in project["dependencies"] if f"`{_package(requirement)}`" not in page]


def test_import_when_no_extra_is_there() -> None:
    """Importing the library, its models and its command imports no package of an extra."""
    modules = "sys, trio_sagents, trio_sagents.models, trio_sagents.cli, trio_sagents.web"
    program = f"import {modules}; print(sorted(set(sys.modules) & set({EXTRAS!r})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert "[]" == done.stdout.strip()


@pytest.mark.parametrize(
    ("module", "extra", "hidden"),
    [
        ("otel", "otel", "opentelemetry"),
        ("mcp", "mcp", "mcp"),
        ("persistence.postgres", "postgres", "psycopg"),
        ("persistence.postgres", "postgres", "psycopg_pool"),
    ],
)
def test_import_when_the_extra_is_missing(module: str, extra: str, hidden: str) -> None:
    """Without the extra the import says what to install."""
    program = f"import sys; sys.modules[{hidden!r}] = None; import trio_sagents.{module}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)

    assert f'pip install "trio-sagents[{extra}]"' in done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel that is built now, with the build tool that is installed."""
    faulthandler.dump_traceback_later(120, exit=True)
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return archive.namelist()


def test_wheel_when_built(wheel: list[str]) -> None:
    """The wheel has the marker for type checkers, every module, the licence, and nothing of the tests."""
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "trio_sagents").rglob("*.py")}

    assert "trio_sagents/py.typed" in wheel
    assert modules <= set(wheel)
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "trio_sagents" / "web" / "static").rglob("*") if path.is_file()} <= set(
        wheel
    )
    assert [] == [name for name in wheel if not name.startswith(("trio_sagents/", "trio_sagents-"))]
    assert any(name.endswith("licenses/LICENSE") for name in wheel)
    assert any(name.endswith("entry_points.txt") for name in wheel)
