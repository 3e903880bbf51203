"""What can be done with this project: `nox -l` lists it, `nox -s NAME` does it."""

import os
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "uv|venv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "typing", "tests"]

PYTHONS = ("3.11", "3.12", "3.13")
SOURCES = ("trio_sagents", "benchmarks", "tests")
# Off in tests and benchmarks, beside what .flake8 says: 110, a benchmark polls, for an Event would be part of what is measured; 111 and
# 112, what a nursery uses is closed before it on purpose, for that is what is tested; 115, sleep(0) is what users write; 116, virtual
# days cost nothing; 124, a fake of an async protocol need not wait; 401, tests look at the very object that was raised.
NOT_IN_TESTS = (
    "ASYNC110,ASYNC111,ASYNC112,ASYNC114,ASYNC115,ASYNC116,ASYNC124,ASYNC128,ASYNC401,ASYNC900,ASYNC910,ASYNC911,ASYNC912,ASYNC913"
)


def install(session: nox.Session) -> None:
    session.install("-e", ".[dev]")


def python_of(session: nox.Session) -> str:
    return str(Path(session.bin) / "python")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The whole test suite; further arguments go to pytest."""
    install(session)
    session.run("python", "-m", "pytest", "-q", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """The test suite with branch coverage of the library."""
    install(session)
    session.run("python", "-m", "pytest", "-q", "--cov", "--cov-report=term-missing:skip-covered", *session.posargs)


@nox.session
def machines(session: nox.Session) -> None:
    """The state machines alone."""
    install(session)
    session.run("python", "-m", "pytest", "-q", "tests/search/sessions", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """The stores and leases, through the kits that hosts use for theirs."""
    install(session)
    kits = ("tests/contracts/stores/test_memory.py", "tests/contracts/stores/test_sqlite.py", "tests/contracts/leases")
    session.run("python", "-m", "pytest", "-q", *kits, *session.posargs)


@nox.session
def typing(session: nox.Session) -> None:
    """mypy, pyright, and the files that must and must not type-check."""
    install(session)
    session.run("mypy")
    session.run("pyright", "--pythonpath", python_of(session))
    session.run("pyright", "--pythonpath", python_of(session), "--ignoreexternal", "--verifytypes", "trio_sagents")
    session.run("python", "-m", "pytest", "-q", "tests/meta/typing")


@nox.session
def lint(session: nox.Session) -> None:
    """ruff with all its rules, its formatter, and flake8-async."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("flake8", "--select", "ASYNC", "trio_sagents")
    session.run("flake8", "--select", "ASYNC", f"--disable={NOT_IN_TESTS}", "tests", "benchmarks")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, into docs/_build; a warning is an error."""
    install(session)
    session.run("python", "-m", "sphinx", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build sdist and wheel; install the wheel into a new environment, outside the tree and without extras; use it there."""
    session.install("build")
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        session.run("python", "-m", "build", "--outdir", str(folder / "dist"))
        (wheel,) = (folder / "dist").glob("*.whl")
        session.run("python", "-m", "venv", str(folder / "venv"))
        scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        session.run(str(scripts / "python"), "-m", "pip", "install", "-q", str(wheel), external=True)
        (folder / "empty").mkdir()
        session.chdir(folder / "empty")
        session.run(str(scripts / "python"), str(here / "tests" / "meta" / "installed.py"), external=True)
        session.run(str(scripts / "trio-sagents"), "--help", external=True)
        chat = [str(scripts / "trio-sagents"), "chat", "--provider", "offline", "--db", "chat.db"]
        session.run(*chat, "--once", "What is 6*7?", external=True)
        session.run(str(scripts / "python"), "-m", "pip", "install", "-q", f"{wheel}[tui]", external=True)
        session.run(*chat, "--once", "What is 7*8?", external=True)
        session.chdir(here)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmark table; `-- --quick` for a short one."""
    session.install("-e", ".[testing]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def nightly(session: nox.Session) -> None:
    """The long proofs, as one table: simulated schedules, machines, attacks, kills, planted bugs, mutants; `-- --scale 0.01` for a look."""
    install(session)
    session.run("python", "-m", "tests.nightly", *session.posargs)
    # Each of these takes longer than the limit for one test.
    environ = {"TRIO_SAGENTS_NIGHTLY": "1", "TRIO_SAGENTS_MCP_SESSIONS": "100"}
    session.run("python", "-m", "pytest", "-q", "-o", "faulthandler_timeout=0", "tests/apps/mcp", "tests/search/crashes", env=environ)
