"""Runs the tests that run a line, against the mutants of that line.

One process imports the library and collects the tests, once, and runs none. For each mutant it forks; the child puts the mutated
code into the function, where it stands, runs the tests that run that line, one after the other, and says which one failed first.
Which tests those are is asked beforehand, of children that run all tests under coverage, each with a context of its own.
"""

import contextlib
import gc
import os
import selectors
import signal
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs
import coverage
import pytest
from _pytest.runner import runtestprotocol

from tests.mutation.generated._groups import GROUPS, LIBRARY, ROOT, SLOW, files_of
from tests.mutation.generated._making import Mutant

LIMIT: Final = 60.0
"""Seconds for the tests of one mutant. A mutant that hangs is found."""
MAPPING_LIMIT: Final = 1800.0
JOBS: Final = 2
UNITS: Final = 20
"""How many unit tests of one file run before all others."""
Map = dict[tuple[str, int], tuple[str, ...]]
"""By module and line, the tests that run it, in the order in which they are asked."""


class MutationError(Exception):
    """The run says nothing: the tests do not pass without a mutant, or a mutant cannot be put in."""


@attrs.frozen
class Verdict:
    """The result for one mutant."""

    mutant: Mutant
    how: str
    """`killed`, `timed out` or `survived`."""
    test: str
    """The test that failed."""
    asked: int
    """How many tests run its line."""


@attrs.frozen
class _Child:
    reader: int
    pid: int
    deadline: float
    said: bytearray = attrs.field(factory=bytearray)


def _forked(work: Callable[[], str]) -> tuple[int, int]:
    """Start work in a child, silent, in a process group of its own; return where its answer is read, and its id."""
    reader, writer = os.pipe()
    if pid := os.fork():
        os.close(writer)
        return reader, pid
    try:
        os.setsid()
        os.close(reader)
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        os.write(writer, work().encode())
    except BaseException as exc:  # the answer is what went wrong  # noqa: ASYNC103  # no Trio runs here
        os.write(writer, f"broken {exc!r}".encode()[:4000])
    finally:
        os._exit(0)


def side_by_side(works: Sequence[Callable[[], str]], jobs: int, limit: float) -> Iterator[tuple[int, str]]:
    """Do works in children, several at once. Yield the number of each finished work and its answer, `timed out` if it took too long."""
    waiting = list(enumerate(works))
    waiting.reverse()
    with selectors.DefaultSelector() as selector:
        running: dict[int, _Child] = {}
        while waiting or running:
            while waiting and len(running) < jobs:
                number, work = waiting.pop()
                reader, pid = _forked(work)
                running[number] = _Child(reader, pid, time.monotonic() + limit)
                selector.register(reader, selectors.EVENT_READ, number)
            first = min(child.deadline for child in running.values())
            for key, _ in selector.select(max(0.0, first - time.monotonic())):
                child = running[key.data]
                if piece := os.read(child.reader, 1 << 16):
                    child.said.extend(piece)
                else:
                    _end(selector, running.pop(key.data))
                    yield key.data, child.said.decode() or "died"
            for number, child in list(running.items()):
                if child.deadline <= time.monotonic():
                    _end(selector, running.pop(number))
                    yield number, "timed out"


def _end(selector: selectors.BaseSelector, child: _Child) -> None:
    selector.unregister(child.reader)
    os.close(child.reader)
    with contextlib.suppress(ProcessLookupError):  # it has not made its group yet, or is gone
        os.killpg(child.pid, signal.SIGKILL)
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)


Functions = dict[tuple[str, str, int], list[types.FunctionType]]
"""By file, qualified name and first line: the functions of a module as they are loaded."""


def functions_loaded() -> Functions:
    """Return the library's functions."""
    found: Functions = {}
    for item in gc.get_objects():
        if isinstance(item, types.FunctionType) and item.__code__.co_filename.startswith(str(LIBRARY)):
            code = item.__code__
            found.setdefault((code.co_filename, code.co_qualname, code.co_firstlineno), []).append(item)
    return found


def put_in(mutant: Mutant, functions: Functions) -> None:
    """Put a mutant's code into the loaded function, which may be there twice: for example as a getter and its setter.

    Raises:
        MutationError: the function is not loaded.
        ValueError: its variables are others.
    """
    path = str(ROOT / mutant.path)
    codes = [compile(mutant.text, path, "exec")]
    is_in = False
    while codes:
        code = codes.pop()
        if code.co_qualname == mutant.function:
            for function in functions.get((path, code.co_qualname, code.co_firstlineno), ()):
                function.__code__ = code
                is_in = True
        else:
            codes.extend(const for const in code.co_consts if isinstance(const, types.CodeType))
    if not is_in:
        raise MutationError(f"{mutant.function} is not loaded")


class Runner:
    """A plugin of pytest that runs no tests itself, but has children run them."""

    def __init__(self, then: "Callable[[Runner], None]", jobs: int) -> None:
        self.jobs = jobs
        self._then = then
        self._items: dict[str, pytest.Item] = {}
        self._functions: Functions = {}

    def pytest_configure(self, config: pytest.Config) -> None:
        """Keep nothing of what Hypothesis finds, and find the same each time."""
        import hypothesis  # not before pytest, which rewrites its plugins' asserts

        hypothesis.settings.register_profile(
            "mutation", database=None, derandomize=True, deadline=None, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
        )
        hypothesis.settings.load_profile("mutation")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the collected tests, and hand over."""
        self._items = {item.nodeid: item for item in session.items if not any(mark.name == "skip" for mark in item.iter_markers())}
        gc.unfreeze()  # the collector knows no object that `tests/conftest.py` has frozen
        self._functions = functions_loaded()
        gc.collect()
        gc.freeze()  # what is never collected is never written to, and so is shared with the children
        self._then(self)
        return True

    def run_test(self, name: str) -> bool:
        """Run one test in this process; return whether it passed."""
        item = self._items[name]
        reports = runtestprotocol(item, log=False, nextitem=None)
        return not any(report.failed for report in reports)

    def map(self, folder: Path) -> Map:
        """Find out which tests run which lines of all groups.

        Raises:
            MutationError: a test does not pass as things are.
        """
        paths = [path for group in GROUPS for path in files_of(group)]
        names = list(self._items)

        def mapping(part: int) -> Callable[[], str]:
            def work() -> str:
                watch = coverage.Coverage(
                    data_file=str(folder / f"map{part}"), include=[str(path) for path in paths], branch=False, config_file=False
                )
                watch.start()
                failed: list[str] = []
                for name in names[part :: self.jobs]:
                    watch.switch_context(name)
                    if not self.run_test(name):
                        failed.append(name)
                watch.stop()
                watch.save()
                return "\n".join(["mapped", *failed])

            return work

        for _, said in side_by_side([mapping(part) for part in range(self.jobs)], self.jobs, MAPPING_LIMIT):
            if said != "mapped":
                raise MutationError(f"without a mutant the tests do not pass: {said}")
        return self._read(paths, folder, names)

    def _read(self, paths: Sequence[Path], folder: Path, names: Sequence[str]) -> Map:
        lines: dict[tuple[str, int], set[str]] = {}
        for part in range(self.jobs):
            data = coverage.CoverageData(str(folder / f"map{part}"))
            data.read()
            for path in paths:
                for line, contexts in data.contexts_by_lineno(str(path)).items():
                    lines.setdefault((path.relative_to(ROOT).as_posix(), line), set()).update(context for context in contexts if context)
        places = {name: place for place, name in enumerate(_spread(names))}
        return {line: tuple(sorted(tests, key=places.__getitem__)) for line, tests in lines.items()}

    def hunt(self, mutants: Sequence[Mutant], lines: Map, most: int, limit: float = LIMIT) -> Iterator[Verdict]:
        """Run the tests of each mutant, and yield each result as it comes.

        Args:
            mutants: any number.
            lines: which tests run which line.
            most: tests for one mutant.
            limit: seconds for one mutant.
        """
        tests = [(lines.get((mutant.path, mutant.line)) or lines.get((mutant.path, mutant.statement), ()))[:most] for mutant in mutants]

        def hunting(mutant: Mutant, names: Sequence[str]) -> Callable[[], str]:
            def work() -> str:
                put_in(mutant, self._functions)
                return next((f"killed {name}" for name in names if not self.run_test(name)), "survived")

            return work

        works = [hunting(mutant, names) for mutant, names in zip(mutants, tests, strict=True)]
        for number, said in side_by_side(works, self.jobs, limit):
            if said.startswith("broken ") and "free vars" not in said:
                raise MutationError(f"{mutants[number]}: {said}")
            how, _, test = said.partition(" ")
            how = how if how in {"killed", "survived"} else "timed out" if said == "timed out" else "killed"
            yield Verdict(mutants[number], how, test if how == "killed" else "", len(tests[number]))


def _spread(names: Sequence[str]) -> list[str]:
    """Return tests in the order in which they are asked.

    Some unit tests of each file first, for they are quick; then one of each file in turn, for breadth finds more; the slow ones last.
    """
    turns: dict[str, int] = {}
    ranked = []
    for place, name in enumerate(names):
        path = name.partition("::")[0]
        turn = turns[path] = turns.get(path, -1) + 1
        is_first = path.startswith("tests/unit/") and turn < UNITS
        ranked.append((path in SLOW, not is_first, turn, place, name))
    return [name for *_, name in sorted(ranked)]


def run(tests: Sequence[str], then: Callable[[Runner], None], jobs: int = JOBS) -> None:
    """Collect tests, and do something with a runner of them.

    Raises:
        MutationError: they cannot be collected.
    """
    failures: list[BaseException] = []

    def guarded(runner: Runner) -> None:
        try:
            then(runner)
        except MutationError as exc:
            failures.append(exc)

    plain = ["-s", "-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:terminal", "-p", "no:xdist", "-o", "faulthandler_timeout=0"]
    given = [str(ROOT / name) for name in tests if (ROOT / name.partition("::")[0]).exists()]
    code = pytest.main([*plain, "--rootdir", str(ROOT), *given], plugins=[Runner(guarded, jobs)])
    if failures:
        raise failures[0]
    if code not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        raise MutationError(f"the tests cannot be collected: {code!r}")
