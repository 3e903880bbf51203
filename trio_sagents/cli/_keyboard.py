"""Where lines come from: prompt_toolkit at a terminal that has it, else a plain descriptor. Both read in a thread.

A reader answers with a `Line`, with `INTERRUPTED` (Ctrl-C), or with `ENDED` (Ctrl-D, end of file).
"""

import codecs
import enum
import importlib.util
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol, TextIO, TypeAlias

import attrs
import trio

from trio_sagents.cli._render import Piece
from trio_sagents.cli._screen import Screen, is_terminal

COMMANDS: Final = ("/help", "/list", "/new", "/open", "/quit")
PROMPT: Final = "> "


class Signal(enum.Enum):
    """What is no line."""

    INTERRUPTED = "Ctrl-C"
    ENDED = "Ctrl-D"


@attrs.frozen
class Line:
    """What was typed, without its line end."""

    text: str


Read: TypeAlias = Line | Signal


class Keyboard(Protocol):
    """A reader of lines, for one task."""

    async def read(self) -> Read:
        """Show the prompt and wait for a line.

        Cancellation: either a line was returned, or the one being typed is dropped.
        """
        ...

    def interrupt(self) -> None:
        """Let the running `read` return INTERRUPTED, as Ctrl-C does."""
        ...


@asynccontextmanager
async def open_keyboard(screen: Screen, *, is_plain: bool, label: str) -> AsyncIterator[Keyboard]:
    """Open the best reader there is.

    Args:
        screen: where the plain reader's prompt goes.
        is_plain: whether to take the plain one also where prompt_toolkit is installed.
        label: what prompt_toolkit shows below the line that is being edited.
    """
    if not is_plain and is_terminal() and os.environ.get("TERM") != "dumb" and importlib.util.find_spec("prompt_toolkit") is not None:
        from trio_sagents.cli._prompt import PromptKeyboard  # noqa: PLC0415  # it needs an extra

        yield PromptKeyboard(COMMANDS, label)
        return
    async with trio.open_nursery() as nursery:
        reader = LineKeyboard(sys.stdin, screen)
        nursery.start_soon(reader.run)
        yield reader
        nursery.cancel_scope.cancel()


class LineKeyboard:
    """Lines from a descriptor, read past Python's buffers: a thread that still waits there at exit holds no lock."""

    def __init__(self, source: TextIO, screen: Screen) -> None:
        """Keep the descriptor.

        Args:
            source: where lines come from.
            screen: where the prompt goes; where `source` is no terminal, the line too.
        """
        self._handle: Final = source.fileno()
        self._is_terminal: Final = source.isatty()
        self._screen: Final = screen
        self._decoder: Final = codecs.getincrementaldecoder(source.encoding or "utf-8")(errors="replace")
        self._send, self._receive = trio.open_memory_channel[str](0)
        self._waiting: trio.CancelScope | None = None

    async def run(self) -> None:
        """Read one line ahead until the end of the file."""
        async with self._send:
            rest = ""
            is_open = True
            while is_open:
                data = await trio.to_thread.run_sync(os.read, self._handle, 65_536, abandon_on_cancel=True)
                is_open = bool(data)
                *lines, rest = (rest + self._decoder.decode(data, final=not is_open)).split("\n")
                for line in lines if is_open or not rest else [*lines, rest]:
                    await self._send.send(line.removesuffix("\r"))

    async def read(self) -> Read:
        """Show the prompt and wait for a line; as `Keyboard.read`."""
        await self._show(PROMPT)
        result: Read = Signal.INTERRUPTED
        with trio.CancelScope() as self._waiting:
            try:
                result = Line(await self._receive.receive())
            except trio.EndOfChannel:
                result = Signal.ENDED
        self._waiting = None
        if isinstance(result, Signal):
            await self._show("\n")
        elif not self._is_terminal:
            await self._show(f"{result.text}\n")
        return result

    def interrupt(self) -> None:
        """Let the running `read` return INTERRUPTED."""
        if self._waiting is not None:
            self._waiting.cancel()

    async def _show(self, text: str) -> None:
        await self._screen.show([Piece(text, "user")])
