"""The terminal, as something to write to: with colours if it has them, without control characters, and without blocking the loop."""

import importlib.util
import os
import select
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TextIO, TypeAlias

import trio

from trio_sagents.cli._words import Piece

Paint: TypeAlias = Callable[[Piece], str]
_STEERING: Final = frozenset((*range(32), *range(0x7F, 0xA0))) - frozenset(b"\n\t\r")
_CONTROLS: Final = {**dict.fromkeys(_STEERING, "\N{REPLACEMENT CHARACTER}"), ord("\r"): None}


def harmless(text: str) -> str:
    """Return `text` without the control characters with which a model or a file could control the terminal."""
    return text.translate(_CONTROLS)


def plain_paint(piece: Piece) -> str:
    """Return the text of a piece, without colours."""
    return harmless(piece.text)


def choose_paint(stream: TextIO) -> Paint:
    """Return how to colour what is written to `stream`: not at all if it is not a terminal, or if rich is not installed."""
    if not stream.isatty() or importlib.util.find_spec("rich") is None:
        return plain_paint
    from trio_sagents.cli._colours import find_colours  # noqa: PLC0415  # it needs an extra

    colour = find_colours(stream)
    if colour is None:
        return plain_paint

    def paint(piece: Piece) -> str:
        lines = harmless(piece.text).split("\n")  # a colour must not continue over the end of a line
        return "\n".join(colour(line, piece.kind) if line else "" for line in lines)

    return paint


class Screen:
    """Writes pieces to a file descriptor.

    Below them there may be lines that change: they are removed before the next text, and drawn again after it.
    """

    def __init__(self, stream: TextIO, paint: Paint | None = None) -> None:
        """Flush the stream; from now on, write past its buffer.

        Args:
            stream: sys.stdout or sys.stderr.
            paint: how to colour; the default is that of `choose_paint`.
        """
        stream.flush()
        self._handle: Final = stream.fileno()
        self._encoding: Final = stream.encoding or "utf-8"
        self._paint: Final = paint or choose_paint(stream)
        self.can_redraw: Final = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and sys.platform != "win32"
        """Whether lines can be removed again."""
        self._live: tuple[str, ...] = ()

    async def show(self, pieces: Iterable[Piece], live: Sequence[Piece] = ()) -> None:
        """Write all pieces at once.

        Args:
            pieces: what stays.
            live: whole lines that are shown below the pieces until the next call; not drawn if they could not be removed again.

        Raises:
            BrokenPipeError: nobody reads the output any more.

        Cancellation: either everything is written, or, if the terminal has stopped taking text, an unknown part of it.
        """
        data = self.encoded(pieces, live)
        if data:
            # Cancellation: a terminal that was stopped with Ctrl-S holds the thread, which holds no lock of Python; nobody waits for it.
            await trio.to_thread.run_sync(_write, self._handle, data, abandon_on_cancel=True)
        else:
            await trio.lowlevel.checkpoint()

    def encoded(self, pieces: Iterable[Piece], live: Sequence[Piece] = ()) -> bytes:
        """Return the bytes that `show` writes; the caller has to write them."""
        text = "".join(self._paint(piece) for piece in pieces)
        lines = tuple(self._paint(Piece(_fitting(piece.text, self._columns()), piece.kind)) for piece in live) if self.can_redraw else ()
        if not text and lines == self._live:
            return b""
        # No line is wider than the screen, so each line takes one row, and the cursor is at the start of the row below the last one.
        taken_away = f"\x1b[{len(self._live)}A\x1b[J" if self._live else ""
        self._live = lines
        return (taken_away + text + "".join(f"{line}\n" for line in lines)).encode(self._encoding, errors="replace")

    def write(self, data: bytes) -> None:
        """Write what `encoded` returned. This blocks, so call it in a thread."""
        _write(self._handle, data)

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._handle).columns or 80
        except OSError:
            return 80


def _fitting(text: str, columns: int) -> str:
    """Return as much of a line as fits into a row of the screen."""
    width = 0
    for place, char in enumerate(text):
        width += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if width >= columns:
            return text[: max(0, place - 1)] + "…"
    return text


def _write(handle: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(handle, data) :]
        except BlockingIOError:
            select.select([], [handle], [])


def silence(stream: TextIO) -> None:
    """Redirect the stream's descriptor to nowhere, so that the interpreter can flush the stream at exit after a broken pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def is_terminal() -> bool:
    """Return whether standard input and standard output are a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()
