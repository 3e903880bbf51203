"""Colours, for a terminal that has them."""

from collections.abc import Callable, Mapping
from typing import Final, TextIO

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from trio_sagents.cli._words import Kind

STYLES: Final[Mapping[Kind, str]] = {
    "answer": "",
    "thinking": "dim italic",
    "user": "bold",
    "tool": "cyan",
    "note": "dim",
    "error": "red",
    "ask": "yellow",
}


def find_colours(stream: TextIO) -> Callable[[str, Kind], str] | None:
    """Return how to colour a line of each kind; None if the terminal has no colours, or if NO_COLOR forbids them."""
    console = Console(file=stream)
    if console.color_system is None or console.no_color or console.legacy_windows:
        return None
    styles = {kind: Style.parse(style) for kind, style in STYLES.items()}
    return lambda line, kind: styles[kind].render(line, color_system=ColorSystem.STANDARD)
