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
# Off in tests and benchmarks, besides those in .flake8: 110, because a benchmark polls where an Event would be part of the measurement;
# 111 and 112, because some tests close on purpose what a nursery still uses; 115, because users write sleep(0); 116, because virtual days
# cost nothing; 124, because a fake of an async protocol need not wait; 401, because tests look at the very object that was raised.
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
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "-q", *session.posargs)


@nox.session
def quick(session: nox.Session) -> None:
    """The tests that are not slow: under a minute on two cores."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "-q", "-n", "2", "-m", "not slow", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """The test suite with branch coverage of the library."""
    install(session)
    session.run("python", "-m", "pytest", "-q", "--cov", "--cov-report=term-missing:skip-covered", *session.posargs)


@nox.session
def machines(session: nox.Session) -> None:
    """The state machines: of the sessions, and of the people who decide."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "-q", "tests/search/sessions", "tests/search/people", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """The stores, leases, providers and file systems, through the kits; a host uses the first two for its own."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "-q", "tests/contracts", *session.posargs)


@nox.session
def typing(session: nox.Session) -> None:
    """mypy, pyright, and the files that must and must not type-check."""
    install(session)
    session.run("mypy")
    session.run("pyright", "--pythonpath", python_of(session))
    session.run("pyright", "--pythonpath", python_of(session), "--ignoreexternal", "--verifytypes", "trio_sagents")
    session.run("python", "-m", "pytest", "-q", "tests/meta/typing")


@nox.session
def vendor(session: nox.Session) -> None:
    """Fetch the newest versions of the files of other projects that the pages use."""
    session.run("python", "-m", "tests.apps.web.vendor")


@nox.session
def screenshots(session: nox.Session) -> None:
    """Make the pictures of the pages in the documentation. Needs Chromium."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.apps.web.screenshots")


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
    """Build sdist and wheel, install the wheel into a new environment outside the tree and without extras, and use it there."""
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
        session.run(str(scripts / "trio-sagents"), "serve", "--help", external=True)
        session.run(str(scripts / "python"), "-m", "pip", "install", "-q", f"{wheel}[tui]", external=True)
        session.run(*chat, "--once", "What is 7*8?", external=True)
        session.chdir(here)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmark table; `-- --quick` for a short one."""
    session.install("-e", ".[testing]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def bench_peers(session: nox.Session) -> None:
    """Other libraries beside this one, with the same fake model, each in an environment of its own; then the plots of the documentation."""
    session.install("-e", ".[testing]")
    table = Path(session.create_tmp()).absolute() / "peers.txt"
    with table.open("w") as out:
        session.run("python", "-m", "benchmarks", "--compare", *session.posargs, stdout=out)
    session.run("python", "-m", "benchmarks.plot", str(table), "docs/pictures")


@nox.session
def nightly(session: nox.Session) -> None:
    """The long proofs, as one table: simulated schedules, machines, attacks, kills, planted bugs, mutants; `-- --scale 0.01` for a look."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.nightly", *session.posargs)
    # Each of these tests takes longer than the time limit for a test.
    environ = {"TRIO_SAGENTS_NIGHTLY": "1", "TRIO_SAGENTS_MCP_SESSIONS": "100"}
    session.run(
        "python",
        "-m",
        "pytest",
        "-q",
        "-o",
        "faulthandler_timeout=0",
        "tests/apps/mcp",
        "tests/apps/web/test_leaving.py",
        "tests/apps/web/test_random_frames.py",
        "tests/search/crashes",
        env=environ,
    )
