"""The command line: `trio-sagents chat`. It uses public names of the library alone, like any user."""

from trio_sagents.cli._main import main

__all__ = ("main",)
