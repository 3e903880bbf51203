"""Reads a Markdown page as a program: its blocks of code, what they print, and which clock they run on.

    <!-- clock: real -->     the page's `trio.run` keeps real time; without it the clock is virtual, and jumps where all tasks sleep
    <!-- prints -->          the text block below is what the Python block above it prints
    <!-- hidden              code that runs, and is not shown; up to the end of the comment
    <!-- fresh -->           what follows is a program of its own

All Python blocks of a page run, in order, in one namespace and in one empty folder.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import attrs

ROOT: Final = Path(__file__).parents[3]
PAGES: Final = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
_FENCE: Final = re.compile(r"^```(\S*)\s*$")


@attrs.frozen
class Block:
    """A piece of a page."""

    kind: Literal["python", "prints", "shell", "fresh", "other"]
    text: str
    line: int
    """Of its first line of text, from 1."""


@attrs.frozen
class Page:
    """A page of the documentation."""

    path: Path
    blocks: tuple[Block, ...]
    is_real_time: bool

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))


def read_page(path: Path) -> Page:
    """Return what is in a page."""
    text = path.read_text(encoding="utf-8")
    return Page(path, tuple(_blocks(text.splitlines())), "<!-- clock: real -->" in text)


def _blocks(lines: list[str]) -> Iterator[Block]:
    kinds = {"python": "python", "sh": "shell", "bash": "shell", "console": "shell"}
    is_output = False
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if line == "<!-- prints -->":
            is_output = True
        elif line == "<!-- fresh -->":
            yield Block("fresh", "", number)
        elif line == "<!-- hidden":
            end = lines.index("-->", number)
            yield Block("python", "\n".join(lines[number:end]), number + 1)
            number = end + 1
        elif match := _FENCE.match(line):
            end = lines.index("```", number)
            kind = "prints" if is_output else kinds.get(match[1], "other")
            yield Block(kind, "\n".join(lines[number:end]), number + 1)  # type: ignore[arg-type]  # one of the above
            number, is_output = end + 1, False
