"""A package that declares the order of its modules keeps it: each module imports only modules that come before it."""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

import trio_sagents

ROOT: Final = Path(trio_sagents.__file__).parent
_LINE: Final = re.compile(r"^    (\w+)  +\S", re.MULTILINE)


def _declared(package: Path) -> Sequence[str]:
    """Return the modules that the docstring of a package lists, lowest first."""
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8")), clean=True) or ""
    return _LINE.findall(docstring) if "lowest first" in docstring else ()


PACKAGES: Final = tuple(path.parent for path in sorted(ROOT.rglob("__init__.py")) if _declared(path.parent))


def _imported(package: Path, module: str) -> Iterator[str]:
    """Yield the modules of the same package that a module imports, for the type checker or inside a function, too."""
    prefix = ".".join(("trio_sagents", *package.relative_to(ROOT).parts)) + "."
    for node in ast.walk(ast.parse((package / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None and f"{node.module}.".startswith(prefix):
            inner = node.module.removeprefix(prefix.rstrip(".")).lstrip(".")
            yield from [inner.partition(".")[0]] if inner else [alias.name for alias in node.names]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_order_when_declared(package: Path) -> None:
    """The list names every module of the package, once."""
    there = {path.stem for path in package.glob("*.py")} - {"__init__"}

    assert sorted(there) == sorted(_declared(package))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_order_when_followed(package: Path) -> None:
    """No module imports a later one, so there is no circle."""
    order = _declared(package)
    wrong = [
        f"{module} imports {imported}"
        for place, module in enumerate(order)
        for imported in _imported(package, module)
        if imported not in order[:place]
    ]

    assert [] == wrong


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_imports_when_looked_for(package: Path) -> None:
    """A module imports at its top, and nothing for the type checker alone."""
    hidden = [
        f"{module}:{node.lineno}"
        for module in _declared(package)
        for outer in ast.walk(ast.parse((package / f"{module}.py").read_text(encoding="utf-8")))
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.If)
        for node in ast.walk(outer)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]

    assert [] == hidden


def test_order_when_nobody_declares_one() -> None:
    """At least one package declares an order: a test that looks at nothing proves nothing."""
    assert "agent" in {package.name for package in PACKAGES}
