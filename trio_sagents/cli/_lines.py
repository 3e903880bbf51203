"""Readers of lines: what each of them gives, and the plain one, which reads a descriptor in a thread.

A reader gives a `Line`, `INTERRUPTED` (Ctrl-C), or `ENDED` (Ctrl-D, end of file).
"""

import codecs
import contextlib
import enum
import os
from collections.abc import Sequence
from typing import Final, Protocol, TextIO, TypeAlias

import attrs
import trio

from trio_sagents.cli._screen import Screen
from trio_sagents.cli._words import Piece

PROMPT: Final = "> "


class Signal(enum.Enum):
    """What a reader gives instead of a line."""

    INTERRUPTED = "Ctrl-C"
    ENDED = "Ctrl-D"


@attrs.frozen
class Line:
    """The typed text, without its line end."""

    text: str


Read: TypeAlias = Line | Signal


class Keyboard(Protocol):
    """A reader of lines, for one task."""

    @property
    def is_interactive(self) -> bool:
        """Whether a person can be asked. An attribute is enough."""
        ...

    @property
    def can_edit(self) -> bool:
        """Whether a person can edit the text that is given to `read`. An attribute is enough."""
        ...

    async def read(self, prompt: str = PROMPT, text: str | None = None) -> Read:
        """Show the prompt and wait for a line.

        Args:
            prompt: shown before the line.
            text: None for a line of the conversation. Any text means that the line answers a question: what was typed before the
                question is dropped, Ctrl-C ends the reading, and a person can edit this text if `can_edit`.

        Cancellation: either a line was returned, or the line that was being typed is dropped.
        """
        ...

    async def interject(self, pieces: Sequence[Piece]) -> bool:
        """Show something while `read` runs in another task. If `read` does not run, do nothing and return False.

        Cancellation: either something is shown, or nothing is.
        """
        ...

    def interrupt(self) -> None:
        """Let the running `read` return INTERRUPTED, as Ctrl-C does."""
        ...


class LineKeyboard:
    """Lines from a descriptor, read past Python's buffers, so that a thread that still reads at exit holds no lock."""

    def __init__(self, source: TextIO, screen: Screen) -> None:
        """Keep the descriptor.

        Args:
            source: where lines come from.
            screen: where the prompt goes. If `source` is not a terminal, the line goes there as well.
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
        """Show the prompt and wait for a line; as `Keyboard.read`. The text is not shown, because nobody could edit it."""
        # Race: a signal may come as soon as the chat reads, so it counts from here on, even before the prompt is shown.
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
        """Show something below the line that is being typed, and the prompt again; as `Keyboard.interject`."""
        if not self._is_waiting:
            await trio.lowlevel.checkpoint()
            return False
        await self._screen.show([Piece("\n", "note"), *pieces, Piece(self._prompt, "user")])
        return True

    async def _drop_typed(self) -> None:
        """Drop the lines that were typed before the question."""
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
    """Make the terminal drop what was typed and not read yet."""
    try:
        import termios  # noqa: PLC0415  # not on every system
    except ImportError:
        return
    with contextlib.suppress(termios.error):
        termios.tcflush(handle, termios.TCIFLUSH)
