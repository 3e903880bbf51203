"""A line editor at a terminal: history, completion, and Ctrl-C that drops the line before it means anything else."""

from collections.abc import Sequence
from typing import Final

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.filters import Condition
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from trio_sagents.cli._keyboard import PROMPT, Line, Read, Signal


def _drop_line(event: KeyPressEvent) -> None:
    event.current_buffer.reset()


class PromptKeyboard:
    """prompt_toolkit, which brings its own event loop and therefore runs in a thread."""

    def __init__(self, commands: Sequence[str], label: str) -> None:
        """Make the prompt; nothing is shown yet.

        Args:
            commands: completed with Tab.
            label: shown below the line that is being edited.
        """
        bindings = KeyBindings()
        bindings.add("c-c", filter=Condition(lambda: bool(get_app().current_buffer.text)))(_drop_line)
        self._session: Final[PromptSession[str]] = PromptSession(
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
            bottom_toolbar=label,
            key_bindings=bindings,
        )
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
