"""Where lines come from: prompt_toolkit at a terminal that has it, else a plain descriptor. Both read in a thread.

A reader answers with a `Line`, with `INTERRUPTED` (Ctrl-C), or with `ENDED` (Ctrl-D, end of file).
"""

import codecs
import enum
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol, TextIO, TypeAlias

import attrs
import trio

from trio_sagents.cli._render import Piece
from trio_sagents.cli._screen import Screen, is_terminal

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyPressEvent

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
    keyboard = None if is_plain or not is_terminal() or os.environ.get("TERM") == "dumb" else _prompt_keyboard(label)
    if keyboard is not None:
        yield keyboard
        return
    async with trio.open_nursery() as nursery:
        reader = LineKeyboard(sys.stdin, screen)
        nursery.start_soon(reader.run)
        yield reader
        nursery.cancel_scope.cancel()


def _prompt_keyboard(label: str) -> "PromptKeyboard | None":
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.application import get_app
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.key_binding import KeyBindings
    except ImportError:
        return None
    bindings = KeyBindings()

    @bindings.add("c-c", filter=Condition(lambda: bool(get_app().current_buffer.text)))
    def _drop_line(event: "KeyPressEvent") -> None:
        event.current_buffer.reset()

    completer = WordCompleter(list(COMMANDS), sentence=True)
    session: PromptSession[str] = PromptSession(
        completer=completer, complete_while_typing=False, bottom_toolbar=label, key_bindings=bindings
    )
    return PromptKeyboard(session)


class PromptKeyboard:
    """prompt_toolkit, which brings its own event loop and therefore runs in a thread."""

    def __init__(self, session: "PromptSession[str]") -> None:
        """Keep the session.

        Args:
            session: asked for one line at a time.
        """
        self._session: Final = session
        self._wants_end = False

    async def read(self) -> Read:
        """Show the prompt and wait for a line; as `Keyboard.read`."""
        self._wants_end = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_when_cancelled)
            # Cancellation: the thread is waited for, so that it gives the terminal back; the task beside it makes it end.
            result = await trio.to_thread.run_sync(self._ask)
            nursery.cancel_scope.cancel()
        return result

    def interrupt(self) -> None:
        """Let the running `read` return INTERRUPTED."""
        self._wants_end = True
        self._end()

    async def _end_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.interrupt()

    def _end(self) -> None:
        loop = self._session.app.loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(self._exit)
        except RuntimeError:  # Race: the prompt ended by itself, and its loop closed between the look and the call
            return

    def _exit(self) -> None:
        app = self._session.app
        if app.is_running and not app.is_done:
            app.exit(exception=KeyboardInterrupt())

    def _ask(self) -> Read:
        try:
            return Line(self._session.prompt(PROMPT, handle_sigint=False, pre_run=self._end_if_wanted))
        except KeyboardInterrupt:
            return Signal.INTERRUPTED
        except EOFError:
            return Signal.ENDED

    def _end_if_wanted(self) -> None:
        if self._wants_end:
            self._end()


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
