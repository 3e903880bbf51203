"""Planted bugs: one place in the library's source, and the wrong text that is put there.

A bug is anchored to a function: it names the module, the qualified name of the function (`Class.method`), and a text that occurs
exactly once in the source of that function. So a change elsewhere in the module leaves the bug alone, and a function that is renamed
or moved fails with a message that says so.

Some bugs replace a whole function in the running process instead. They name it with a `Target`.

`python -m tests.mutation.planted --check` lists every bug of the project that does not fit the library any more.
"""

import ast
import importlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import attrs

ROOT: Final = Path(__file__).parents[2]
LIBRARY: Final = ROOT / "trio_sagents"
MODULE: Final = "<module>"
"""Stands for the whole module, for a text that is in no function."""
MOST_HINTS: Final = 3

_Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class NotPlantable(ValueError):  # named by what it means
    """The library has no such place any more: the bug has to be written down again."""


@attrs.frozen
class PlantedBug:
    """One planted bug: a place in the library, the wrong text, and the tests that find it."""

    name: str
    """What the library does wrong with the bug in it."""
    module: str
    """The path of the module, below the package."""
    function: str
    """The qualified name of the function or class that has the text; `MODULE` if none has."""
    old: str
    """A text that occurs once in the source of that function."""
    new: str = attrs.field(validator=attrs.validators.instance_of(str))
    """The text that takes its place."""
    found_by: Sequence[str] = ()
    """One to three tests, as pytest names them, below `tests`. Each takes a second or two. Empty if a search finds the bug."""

    def planted_in(self, text: str) -> str:
        """Return the text of the module with the bug in it.

        Raises:
            NotPlantable: the function is gone, or its source does not have the old text exactly once.
        """
        spans = _spans(text, self.function)
        if not spans:
            raise NotPlantable(f"{self.name!r}: {self.module} has no {self.function}{_hint(self)}")
        places = [place for start, end in spans for place in _places(text, self.old, start, end)]
        if len(places) != 1:
            raise NotPlantable(f"{self.name!r}: the text occurs {len(places)} times in {self.function} of {self.module}{_hint(self)}")
        return text[: places[0]] + self.new + text[places[0] + len(self.old) :]

    def planted(self) -> str:
        """Return the text of the library's module with the bug in it.

        Raises:
            NotPlantable: the module or the function is gone, or the source does not have the old text exactly once.
        """
        path = LIBRARY / self.module
        if not path.exists():
            raise NotPlantable(f"{self.name!r}: there is no module {self.module}{_hint(self)}")
        return self.planted_in(_text_of(path))


@attrs.frozen
class Target:
    """A function, or another name, of the library that a planted bug replaces in the running process."""

    module: str
    """The path of the module, below the package."""
    name: str
    """The qualified name in the module: a function, `Class.method`, or a name that the module imports."""

    def check(self) -> None:
        """Raise `NotPlantable` if the library does not have the name; the library is not imported."""
        path = LIBRARY / self.module
        if not path.exists():
            raise NotPlantable(f"there is no module {self.module}, in which {self.name} is to be replaced")
        text = _text_of(path)
        if not _spans(text, self.name) and self.name not in _top_level_names(text):
            raise NotPlantable(f"{self.module} has no {self.name} to replace")

    def owner(self) -> Any:
        """Import the module, and return the object that has the name as an attribute: the module, or the class.

        Raises:
            NotPlantable: the library does not have the name.
        """
        self.check()
        there = importlib.import_module("trio_sagents." + self.module.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        for part in self.name.split(".")[:-1]:
            there = getattr(there, part)
        return there

    @property
    def attribute(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]

    def get(self) -> Any:
        """Return the object of that name; raises `NotPlantable` as `owner` does."""
        return getattr(self.owner(), self.attribute)

    def replace(self, new: Any) -> None:
        """Put something else in the place of the name, for as long as the process lives; raises `NotPlantable` as `owner` does."""
        setattr(self.owner(), self.attribute, new)


def plant_copy(folder: Path, bug: PlantedBug | None) -> None:
    """Copy the package into a folder, with the bug in it if there is one.

    Raises:
        NotPlantable: the bug does not fit the library.
    """
    # With the compiled files, which is quicker; but not those that another process is just writing under a passing name.
    shutil.copytree(LIBRARY, folder / "trio_sagents", ignore=shutil.ignore_patterns("*.pyc.*"))
    if bug is not None:
        (folder / "trio_sagents" / bug.module).write_text(bug.planted(), encoding="utf-8")


def misfits(bugs: Iterable[PlantedBug], targets: Iterable[Target] = ()) -> Iterator[str]:
    """Yield a sentence for each bug and target that does not fit the library. Nothing is copied, imported or run."""
    for bug in bugs:
        try:
            compile(bug.planted(), bug.module, "exec")
        except NotPlantable as exc:
            yield str(exc)
        except SyntaxError as exc:
            yield f"{bug.name!r}: with the bug in it, {bug.module} is not Python: {exc}"
    for target in targets:
        try:
            target.check()
        except NotPlantable as exc:
            yield str(exc)


def functions_with(text: str, old: str) -> list[str]:
    """Return the qualified names of the innermost functions and classes whose source has a text, in the order of the source."""
    found = []
    for name, start, end in _scopes(text):
        if _places(text, old, start, end):
            found = [outer for outer in found if not name.startswith(f"{outer}.")]
            found.append(name)
    return found


@cache
def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _scopes(text: str) -> Sequence[tuple[str, int, int]]:
    """Return (qualified name, start, end) of each function and class; the source has whole lines, the decorators included."""
    begins = [0]
    for line in text.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    found = []

    def look(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, _Scope):
                first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
                assert child.end_lineno is not None
                found.append((f"{prefix}{child.name}", begins[first - 1], begins[child.end_lineno]))
                look(child, f"{prefix}{child.name}.")
            else:
                look(child, prefix)

    look(ast.parse(text), "")
    return found


def _spans(text: str, function: str) -> list[tuple[int, int]]:
    """Return (start, end) of each function of a name: overloads, and the setter of a property, share theirs."""
    if function == MODULE:
        return [(0, len(text))]
    return [(start, end) for name, start, end in _scopes(text) if name == function]


def _places(text: str, old: str, start: int, end: int) -> list[int]:
    places = []
    place = text.find(old, start, end)
    while place >= 0:
        places.append(place)
        place = text.find(old, place + 1, end)
    return places


def _top_level_names(text: str) -> set[str]:
    names = set()
    for node in ast.parse(text).body:
        match node:
            case ast.Import() | ast.ImportFrom():
                names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            case ast.Assign():
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


def _hint(bug: PlantedBug) -> str:
    """Return where the text of a bug is today, or where a function of the name is, if either is anywhere."""
    by_text, by_name = [], []
    for path in sorted(LIBRARY.rglob("*.py")):
        text, module = _text_of(path), path.relative_to(LIBRARY).as_posix()
        if bug.old in text:
            by_text += [f"{name} of {module}" for name in functions_with(text, bug.old) or [MODULE]]
        by_name += [f"{name} of {module}" for name, *_ in _scopes(text) if name == bug.function]
    if 1 <= len(by_text) <= MOST_HINTS:
        return f"; the text is in {' and in '.join(by_text)}"
    return f"; there is a {' and a '.join(by_name[:MOST_HINTS])}" if by_name else ""
