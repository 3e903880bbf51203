"""Reading lines: with prompt_toolkit at a terminal if it is installed, otherwise from a plain descriptor. Both read in a thread.

A terminal in its usual mode keeps a line until it is complete, and keeps only so many bytes of it: what is pasted beyond that is gone,
and no program can get it back. The plain reader notices a line of that length, says so, and does not send a message without its end.
"""

import codecs
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TextIO

import attrs
import trio

from trio_sagents.cli._lines import PROMPT, Keyboard, Line, Read, Signal, discard_typed
from trio_sagents.cli._screen import Screen, is_terminal
from trio_sagents.cli._words import Piece

__all__ = ("COMMANDS", "MAX_LINE_BYTES", "PROMPT", "Keyboard", "Line", "LineKeyboard", "Read", "Signal", "open_keyboard")

COMMANDS: Final = ("/decide", "/files", "/help", "/list", "/new", "/open", "/quit", "/title", "/todos")
MAX_LINE_BYTES: Final = 1023 if sys.platform == "darwin" else 4095
"""How many bytes of a line a terminal passes on, in its usual mode."""


@asynccontextmanager
async def open_keyboard(screen: Screen, *, is_plain: bool, label: str) -> AsyncIterator[Keyboard]:
    """Open the best reader that there is.

    Args:
        screen: shows the prompt of the plain reader.
        is_plain: whether to use the plain reader although prompt_toolkit is installed.
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


@attrs.frozen
class _Typed:
    """A line as it was read."""

    text: str
    is_cut: bool
    """Whether the line is so long that the terminal may have dropped its end."""


class LineKeyboard:
    """Reads lines from a descriptor, past Python's buffers: a thread that still waits there at exit holds no lock."""

    def __init__(self, source: TextIO, screen: Screen) -> None:
        """Keep the descriptor.

        Args:
            source: where lines come from.
            screen: shows the prompt; if `source` is not a terminal, the line, too.
        """
        self._handle: Final = source.fileno()
        self.is_interactive: Final = source.isatty()
        self.can_edit: Final = False
        self._screen: Final = screen
        self._encoding: Final = codecs.lookup(source.encoding or "utf-8").name
        self._send, self._receive = trio.open_memory_channel[_Typed](0)
        self._reading = trio.CancelScope()
        """Around the wait of the last `read`."""
        self._is_waiting = False
        self._prompt = PROMPT

    async def run(self) -> None:
        """Read one line ahead until the end of the file."""
        async with self._send:
            rest = b""
            is_open = True
            while is_open:
                data = await trio.to_thread.run_sync(os.read, self._handle, 65_536, abandon_on_cancel=True)
                is_open = bool(data)
                *lines, rest = (rest + data).split(b"\n")
                for line in lines if is_open or not rest else [*lines, rest]:
                    await self._send.send(self._typed(line))

    def _typed(self, line: bytes) -> _Typed:
        text = line.decode(self._encoding, errors="replace").removesuffix("\r")
        return _Typed(text, self.is_interactive and len(line) >= MAX_LINE_BYTES)

    async def read(self, prompt: str = PROMPT, text: str | None = None) -> Read:
        """Show the prompt and wait for a line, as `Keyboard.read` does. The text is not shown, because it could not be edited."""
        # Race: a signal may come as soon as the chat says that it reads, so signals are handled from here on, before the prompt is shown.
        self._reading = scope = trio.CancelScope()
        if text is not None and self.is_interactive:
            await self._drop_typed()
        self._prompt = prompt
        await self._show(prompt)
        result: Read = Signal.INTERRUPTED
        self._is_waiting = True
        with scope:
            result = await self._next(prompt)
        self._is_waiting = False
        if isinstance(result, Signal):
            await self._show("\n")
        elif not self.is_interactive:
            await self._show(f"{result.text}\n")
        return result

    async def _next(self, prompt: str) -> Read:
        """Return the next whole line. A line that the terminal may have cut is told and dropped."""
        while True:
            try:
                typed = await self._receive.receive()
            except trio.EndOfChannel:
                return Signal.ENDED
            if not typed.is_cut:
                return Line(typed.text)
            words = (
                f"[not sent: this line is too long. A terminal passes on only {MAX_LINE_BYTES} bytes of a line, so its end may be missing. "
                "Use shorter lines, install 'trio-sagents[tui]', or pass the text by standard input to --once -]"
            )
            await self._screen.show([Piece(f"{words}\n", "error"), Piece(prompt, "user")])

    async def interject(self, pieces: Sequence[Piece]) -> bool:
        """Show something below the line that is being typed, and the prompt again, as `Keyboard.interject` does."""
        if not self._is_waiting:
            await trio.lowlevel.checkpoint()
            return False
        await self._screen.show([Piece("\n", "note"), *pieces, Piece(self._prompt, "user")])
        return True

    async def _drop_typed(self) -> None:
        """Forget lines that were typed before there was a question."""
        discard_typed(self._handle)
        while True:
            await trio.lowlevel.checkpoint()  # the reading task puts the next line into the channel, if it has one
            try:
                self._receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return

    def interrupt(self) -> None:
        """Let the running `read` return INTERRUPTED."""
        self._reading.cancel()

    async def _show(self, text: str) -> None:
        await self._screen.show([Piece(text, "user")])
