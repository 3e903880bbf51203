"""A line editor at a terminal, with history and completion. Ctrl-C clears the line first; on an empty line, it interrupts."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Final

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app, run_in_terminal
from prompt_toolkit.application.current import set_app
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.filters import Condition
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from trio_sagents.cli._lines import PROMPT, Line, Read, Signal, discard_typed
from trio_sagents.cli._screen import Screen
from trio_sagents.cli._words import Piece


def _drop_line(event: KeyPressEvent) -> None:
    event.current_buffer.reset()


class PromptKeyboard:
    """Reads lines with prompt_toolkit, which has its own event loop and therefore runs in a thread."""

    def __init__(self, screen: Screen, commands: Sequence[str], label: str) -> None:
        """Make the prompt; nothing is shown yet.

        Args:
            screen: shows interjections.
            commands: the commands that Tab completes.
            label: what is shown below the line that is being edited.
        """
        self.is_interactive: Final = True
        self.can_edit: Final = True
        bindings = KeyBindings()
        bindings.add("c-c", filter=Condition(lambda: bool(get_app().current_buffer.text)))(_drop_line)
        self._lines: Final[PromptSession[str]] = PromptSession(
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
            bottom_toolbar=label,
            key_bindings=bindings,
        )
        self._answers: Final[PromptSession[str]] = PromptSession(bottom_toolbar="Ctrl-C leaves it open")
        self._session = self._lines
        """The session that reads at the moment."""
        self._screen: Final = screen
        self._interjection: asyncio.Future[None] | None = None
        """The last interjection: nothing else refers to it while it is shown."""
        self._wants_end = False

    async def read(self, prompt: str = PROMPT, text: str | None = None) -> Read:
        """Show the prompt and wait for a line, as `Keyboard.read` does."""
        self._wants_end = False
        self._session = self._lines if text is None else self._answers
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_when_cancelled)
            # Cancellation: the thread is waited for, because it has to restore the terminal; the other task makes it end.
            result = await trio.to_thread.run_sync(self._ask, prompt, text)
            nursery.cancel_scope.cancel()
        return result

    def interrupt(self) -> None:
        """Let the running `read` return INTERRUPTED."""
        self._wants_end = True
        self._end()

    async def interject(self, pieces: Sequence[Piece]) -> bool:
        """Show something above the line that is being edited, as `Keyboard.interject` does."""
        await trio.lowlevel.checkpoint()
        app = self._session.app
        if not app.is_running or app.is_done or app.loop is None:
            return False
        data = self._screen.encoded(pieces)

        def show() -> None:
            with set_app(app):
                self._interjection = asyncio.ensure_future(run_in_terminal(lambda: self._screen.write(data)))

        return self._call_soon(show)

    async def _end_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.interrupt()

    def _end(self) -> None:
        self._call_soon(self._exit)

    def _call_soon(self, function: Callable[[], None]) -> bool:
        loop = self._session.app.loop
        if loop is None:
            return False
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError:  # Race: the prompt ended by itself, and its loop was closed between the check and the call
            return False
        return True

    def _exit(self) -> None:
        app = self._session.app
        if app.is_running and not app.is_done:
            app.exit(exception=KeyboardInterrupt())

    def _ask(self, prompt: str, text: str | None) -> Read:
        session = self._session
        if text is not None:
            # What was typed before the question was shown does not answer it.
            clear_typeahead(session.app.input)
            discard_typed(sys.stdin.fileno())
        try:
            return Line(session.prompt(prompt, default=text or "", handle_sigint=False, pre_run=self._end_if_wanted))
        except KeyboardInterrupt:
            return Signal.INTERRUPTED
        except EOFError:
            return Signal.ENDED

    def _end_if_wanted(self) -> None:
        if self._wants_end:
            self._end()
