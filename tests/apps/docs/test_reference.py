"""The reference: every public name is on one of its pages, and every page is in the table of contents."""

import importlib
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.apps.docs._pages import ROOT

DOCS: Final = ROOT / "docs"
MODULES: Final = (
    "trio_sagents",
    "trio_sagents.asyncio",
    "trio_sagents.exceptions",
    "trio_sagents.files",
    "trio_sagents.mcp",
    "trio_sagents.middleware",
    "trio_sagents.models",
    "trio_sagents.otel",
    "trio_sagents.testing",
)
_DIRECTIVE: Final = re.compile(
    r"^\.\. (currentmodule|automodule|auto(?:class|exception|function|data)|py:\w+):: ([\w.]+)(?:\(.*\))?\n((?:   :.*\n)*)", re.MULTILINE
)
_TOCTREE: Final = re.compile(r"^```\{toctree\}\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _found(name: str) -> Any:
    """Return the object of a dotted name."""
    module, _, rest = name.rpartition(".")
    return getattr(importlib.import_module(module), rest)


def _documented() -> Iterator[tuple[str, Any]]:
    """Yield (name, what it is) of all that a reference page documents."""
    for page in sorted((DOCS / "reference").glob("*.md")):
        current = ""
        for kind, name, options in _DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            if kind == "currentmodule":
                current = name
            elif kind == "automodule":
                if ":members:" in options:
                    module = importlib.import_module(name)
                    yield from ((key, value) for key, value in vars(module).items() if getattr(value, "__module__", None) == name)
            else:
                yield name.rpartition(".")[2], _found(name if "trio_sagents" in name else f"{current}.{name}")


def _public(module: str) -> list[str]:
    found = importlib.import_module(module)
    return list(getattr(found, "__all__", None) or [name for name, value in vars(found).items() if isinstance(value, type)])


@pytest.mark.parametrize("module", MODULES)
def test_reference_when_a_name_is_public(module: str) -> None:
    """Each public name of a module is on a page of the reference."""
    documented = list(_documented())
    missing = [
        name for name in _public(module) if not any(name == known and value is _found(f"{module}.{name}") for known, value in documented)
    ]

    assert [] == missing


def test_reference_when_a_name_stands_twice() -> None:
    """No page documents what another page documents."""
    found = [(name, id(value)) for name, value in _documented() if isinstance(value, type) or callable(value)]

    assert [] == sorted({name for name, value in found if found.count((name, value)) > 1})


def test_contents_when_there_are_pages() -> None:
    """Each page is in the table of contents, and each entry of that is a page, or a pattern for some."""
    entries = [
        line
        for body in _TOCTREE.findall((DOCS / "index.md").read_text(encoding="utf-8"))
        for line in body.splitlines()
        if line and not line.startswith(":")
    ]
    listed = {path for entry in entries for path in DOCS.glob(f"{entry}.md")}
    pages = set(DOCS.rglob("*.md")) - {DOCS / "index.md"} - set((DOCS / "_build").rglob("*"))

    assert [] == [entry for entry in entries if "*" not in entry and not (DOCS / f"{entry}.md").is_file()]
    assert set() == pages - listed
