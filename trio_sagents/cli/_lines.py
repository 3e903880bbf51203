"""What the chat reads: lines, and the signals that come instead of a line.

A reader gives a `Line`, `Signal.INTERRUPTED` (Ctrl-C), or `Signal.ENDED` (Ctrl-D, or the end of the file).
"""

import contextlib
import enum
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

import attrs

from trio_sagents.cli._words import Piece

PROMPT: Final = "> "


class Signal(enum.Enum):
    """What a reader may give instead of a line."""

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
        """Whether there is a person, who can be asked; a plain attribute is enough."""
        ...

    @property
    def can_edit(self) -> bool:
        """Whether the person can edit a text that is given to `read`; a plain attribute is enough."""
        ...

    async def read(self, prompt: str = PROMPT, text: str | None = None) -> Read:
        """Show the prompt and wait for a line.

        Args:
            prompt: what is shown before the line.
            text: None for a line of the conversation. Otherwise the line answers a question: what was typed before the question is
                dropped, Ctrl-C does not clear the line but ends the reading, and this text is there to be edited, if the reader can.

        Cancellation: either a line was returned, or the line that is being typed is dropped.
        """
        ...

    async def interject(self, pieces: Sequence[Piece]) -> bool:
        """Show something while `read` runs in another task; return False, and show nothing, if `read` does not run.

        Cancellation: the pieces may be shown.
        """
        ...

    def interrupt(self) -> None:
        """Let the running `read` return INTERRUPTED, as Ctrl-C does."""
        ...


def discard_typed(handle: int) -> None:
    """Have the terminal forget what was typed and not read yet."""
    try:
        import termios  # noqa: PLC0415  # not on every system
    except ImportError:
        return
    with contextlib.suppress(termios.error):
        termios.tcflush(handle, termios.TCIFLUSH)
