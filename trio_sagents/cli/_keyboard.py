"""Where the chat's lines come from: prompt_toolkit at a terminal, if it is installed, else a plain descriptor."""

import importlib.util
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from trio_sagents.cli._lines import Keyboard, LineKeyboard
from trio_sagents.cli._screen import Screen, is_terminal

COMMANDS: Final = ("/decide", "/files", "/help", "/list", "/new", "/open", "/quit", "/title", "/todos")


@asynccontextmanager
async def open_keyboard(screen: Screen, *, is_plain: bool, label: str) -> AsyncIterator[Keyboard]:
    """Open the best reader there is.

    Args:
        screen: where the plain reader's prompt goes.
        is_plain: whether to use the plain reader even if prompt_toolkit is installed.
        label: what prompt_toolkit shows below the line that is being edited.
    """
    if not is_plain and is_terminal() and os.environ.get("TERM") != "dumb" and importlib.util.find_spec("prompt_toolkit") is not None:
        from trio_sagents.cli._prompt import PromptKeyboard  # noqa: PLC0415  # it needs an extra

        yield PromptKeyboard(screen, COMMANDS, label)
        return
    async with trio.open_nursery() as nursery:
        reader = LineKeyboard(sys.stdin, screen)
        nursery.start_soon(reader.run)
        yield reader
        nursery.cancel_scope.cancel()
