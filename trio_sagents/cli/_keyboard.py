"""Where lines come from: prompt_toolkit at a terminal that has it, else a plain descriptor. Both read in a thread.

A reader answers with a `Line`, with `INTERRUPTED` (Ctrl-C), or with `ENDED` (Ctrl-D, end of file).
"""

import codecs
import contextlib
import enum
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol, TextIO, TypeAlias

import attrs
import trio

from trio_sagents.cli._screen import Screen, is_terminal
from trio_sagents.cli._words import Piece

COMMANDS: Final = ("/decide", "/files", "/help", "/list", "/new", "/open", "/quit", "/title", "/todos")
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

    @property
    def is_interactive(self) -> bool:
        """Whether a person sits there, who can be asked; an attribute will do."""
        ...

    @property
    def can_edit(self) -> bool:
        """Whether a text that is given to `read` stands there to be edited; an attribute will do."""
        ...

    async def read(self, prompt: str = PROMPT, text: str | None = None) -> Read:
        """Show the prompt and wait for a line.

        Args:
            prompt: stands before the line.
            text: None for a line of the conversation. Else the line answers what was just asked: what was typed before it was
                asked is dropped, Ctrl-C drops no line but ends the reading, and this text is there to be edited, where it can be.

        Cancellation: either a line was returned, or the one being typed is dropped.
        """
        ...

    async def interject(self, pieces: Sequence[Piece]) -> bool:
        """Show something while `read` runs in another task; return False, with nothing done, where it does not.

        Cancellation: it may be shown.
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

        yield PromptKeyboard(screen, COMMANDS, label)
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
        self.is_interactive: Final = source.isatty()
        self.can_edit: Final = False
        self._screen: Final = screen
        self._decoder: Final = codecs.getincrementaldecoder(source.encoding or "utf-8")(errors="replace")
        self._send, self._receive = trio.open_memory_channel[str](0)
        self._reading = trio.CancelScope()
        """Around the wait of the last `read`."""
        self._is_waiting = False
        self._prompt = PROMPT

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

    async def read(self, prompt: str = PROMPT, text: str | None = None) -> Read:
        """Show the prompt and wait for a line; as `Keyboard.read`. The text is not shown: it could not be edited."""
        # Race: a signal may come as soon as the chat says that it reads, so it is heeded from here on, before the prompt is there.
        self._reading = scope = trio.CancelScope()
        if text is not None and self.is_interactive:
            await self._drop_typed()
        self._prompt = prompt
        await self._show(prompt)
        result: Read = Signal.INTERRUPTED
        self._is_waiting = True
        with scope:
            try:
                result = Line(await self._receive.receive())
            except trio.EndOfChannel:
                result = Signal.ENDED
        self._is_waiting = False
        if isinstance(result, Signal):
            await self._show("\n")
        elif not self.is_interactive:
            await self._show(f"{result.text}\n")
        return result

    async def interject(self, pieces: Sequence[Piece]) -> bool:
        """Show something below the line being typed, and the prompt again; as `Keyboard.interject`."""
        if not self._is_waiting:
            await trio.lowlevel.checkpoint()
            return False
        await self._screen.show([Piece("\n", "note"), *pieces, Piece(self._prompt, "user")])
        return True

    async def _drop_typed(self) -> None:
        """Forget lines that were typed before there was anything to answer."""
        discard_typed(self._handle)
        while True:
            await trio.lowlevel.checkpoint()  # the reading task puts the next line there, if it has one
            try:
                self._receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return

    def interrupt(self) -> None:
        """Let the running `read` return INTERRUPTED."""
        self._reading.cancel()

    async def _show(self, text: str) -> None:
        await self._screen.show([Piece(text, "user")])


def discard_typed(handle: int) -> None:
    """Have the terminal forget what was typed and not read yet."""
    try:
        import termios  # noqa: PLC0415  # not on every system
    except ImportError:
        return
    with contextlib.suppress(termios.error):
        termios.tcflush(handle, termios.TCIFLUSH)
