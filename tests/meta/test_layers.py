"""Imports point downwards, `data` is pure, and nothing grows too long to be read: the architecture, as tests."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

import trio_sagents

PACKAGE: Final = "trio_sagents"
ROOT: Final = Path(trio_sagents.__file__).parent
MODULES: Final = tuple(sorted(ROOT.rglob("*.py")))
MAX_LINES: Final = 700
MAX_FUNCTION_LINES: Final = 60

_BASE: Final = frozenset({"data", "exceptions", "_trio"})
ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "exceptions": frozenset(),
    "_trio": frozenset({"exceptions"}),
    "data": frozenset({"exceptions"}),
    "abc": frozenset({"agent", "broadcast", "data", "sessions", "storage", "supervisor"}),
    "storage": _BASE,
    "agent": _BASE,
    "broadcast": _BASE,
    "models": _BASE,
    "files": _BASE,
    "mcp": _BASE | {"agent"},
    "otel": _BASE | {"agent"},
    "middleware": _BASE | {"agent", "files"},
    "persistence": _BASE,
    "cluster": _BASE,
    "supervisor": _BASE | {"agent", "broadcast", "storage"},
    # `persistence.memory` is the default store, and the only adapter that the column may know.
    "sessions": _BASE | {"agent", "broadcast", "storage", "supervisor", "persistence.memory"},
    "__init__": frozenset(
        {"abc", "agent", "broadcast", "cluster", "data", "exceptions", "files", "middleware", "persistence", "sessions", "supervisor"}
    ),
    "testing": frozenset({"__init__", "agent", "data", "exceptions", "mcp", "persistence", "storage", "supervisor"}),
    "cli": frozenset({"__init__", "files", "mcp", "middleware", "models", "persistence"}),
}
"""From each unit (a top-level module or subpackage), the units or modules that it may import."""

TYPES_ONLY: Final[Mapping[str, frozenset[str]]] = {}
"""What may be imported for the type checker alone."""

IMPURE: Final = frozenset(
    {"asyncio", "io", "logging", "os", "pathlib", "random", "socket", "sqlite3", "subprocess", "threading", "time", "trio"}
)
"""What `data` must not import: it waits for nothing, opens nothing, and asks no clock."""


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _unit(dotted: str) -> str:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (module, whether for types only) for each import, wherever in the file it stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {id(child) for node in ast.walk(tree) if _is_for_types(node) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{_name(path)} has a relative import; write it out"
            assert node.module is not None
            for alias in node.names:  # `from package import module` names a module, `from module import name` does not
                child = f"{node.module}.{alias.name}"
                there = ROOT.parent.joinpath(*child.split("."))
                is_module = there.with_suffix(".py").exists() or there.is_dir()
                yield (child if is_module else node.module), id(node) in for_types


def _is_allowed(unit: str, target: str, *, for_types: bool) -> bool:
    other = _unit(target)
    inner = target.removeprefix(f"{PACKAGE}.")
    allowed = ALLOWED[unit] | (TYPES_ONLY.get(unit, frozenset()) if for_types else frozenset())
    return other == unit or other in allowed or inner in allowed


def test_units_when_one_is_new() -> None:
    """A new subpackage says what it may import before it imports anything."""
    units = {_unit(_name(path)) for path in MODULES}

    assert set() == units - set(ALLOWED)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_when_followed(path: Path) -> None:
    """A module imports from its own unit and from those below it."""
    unit = _unit(_name(path))
    wrong = [
        target
        for target, for_types in _imports(path)
        if (target == PACKAGE or target.startswith(f"{PACKAGE}.")) and not _is_allowed(unit, target, for_types=for_types)
    ]

    assert [] == wrong


@pytest.mark.parametrize("path", sorted((ROOT / "data").glob("*.py")), ids=_name)
def test_data_when_imported(path: Path) -> None:
    """`data` knows no Trio, no files and no clock: its decisions can be tested without any."""
    imported = {target.partition(".")[0] for target, _ in _imports(path)}

    assert set() == imported & IMPURE


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_when_long(path: Path) -> None:
    """No module is longer than a person reads in one sitting."""
    lines = len(path.read_text(encoding="utf-8").splitlines())

    assert lines <= MAX_LINES


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_function_when_long(path: Path) -> None:
    """No function is longer than a page; its docstring does not count."""
    long: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = 1 + ((body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0)
            if lines > MAX_FUNCTION_LINES:
                long[node.name] = lines

    assert {} == long
