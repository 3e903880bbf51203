"""The interactive chat: a prompt, an answer that streams, a prompt again.

Two tasks share one `TurnView`: one follows the conversation's events onto the screen, one reads lines. The reader waits while
a turn runs, so the two never write at once. Signals are heeded by a third, outside the sessions: Ctrl-C means what it can
mean at that moment.
"""

import contextlib
import secrets
import signal
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Final, Literal, TypeAlias

import trio

from trio_sagents import Conflict, ConversationNotFound, Receipt, SagentsError, Sessions, Unanswered, Watch, open_sessions
from trio_sagents.cli._catalogue import Catalogue, new_conversation_id
from trio_sagents.cli._keyboard import Keyboard, Line, Signal, open_keyboard
from trio_sagents.cli._render import Kind, Piece, TurnView, error_text, outcome_text
from trio_sagents.cli._screen import Screen
from trio_sagents.cli._setup import Options, Setup

Moment: TypeAlias = Literal["between", "prompt", "turn"]
"""What Ctrl-C meets: the chat's own work, the keyboard, or an answer on its way."""
SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
TAIL: Final = 20
"""Rows of the history shown when a conversation is opened."""
_LAG: Final = 2.0
"""Seconds that the screen may lag behind an outcome that has no event."""
HELP: Final = """\
/list          lists the conversations
/open N or ID  opens one of them
/new           begins a new one
/help          shows this
/quit          leaves, as Ctrl-D does
Ctrl-C cancels the answer that is coming. At an empty prompt, pressed twice, it leaves.
A line that begins with a space is never a command."""


async def run_chat(setup: Setup, options: Options, screen: Screen) -> int:
    """Hold conversations until the person leaves; return the exit status.

    Raises:
        SagentsError: the database or the conversation cannot be used, alone or in a group.

    Cancellation: the running turn is cut, and what it said is saved.
    """
    chat = Chat(setup, screen)
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chat.heed, signals, nursery)
            async with (
                open_sessions(setup.config) as sessions,
                open_keyboard(screen, is_plain=options.is_plain, label=f"{setup.choice.label} · /help") as keyboard,
            ):
                await chat.run(sessions, keyboard, await Catalogue(sessions).choose(options))
            nursery.cancel_scope.cancel()
    return chat.exit_status


class Chat:
    """One run of the chat."""

    def __init__(self, setup: Setup, screen: Screen) -> None:
        """Make the chat; `run` runs it."""
        self.exit_status = 0
        self._setup: Final = setup
        self._screen: Final = screen
        self._view = TurnView()
        self._progress: Final = trio.lowlevel.ParkingLot()
        self._is_behind = False
        """Whether the view knows of text that is not on the screen yet."""
        self._moment: Moment = "between"
        self._presses = 1
        """Of Ctrl-C at this moment; one more than that while the chat opens and closes, where nothing else is to be stopped."""
        self._was_interrupted = False
        self._conversation_id: str | None = None
        self._is_open = False
        self._is_over = False
        self._sessions: Sessions
        self._keyboard: Keyboard
        self._catalogue: Catalogue

    async def run(self, sessions: Sessions, keyboard: Keyboard, conversation_id: str) -> None:
        """Talk, beginning with one conversation, until the person leaves."""
        self._sessions = sessions
        self._keyboard = keyboard
        self._catalogue = Catalogue(sessions)
        self._conversation_id = conversation_id
        await self._say_hello()
        while not self._is_over:
            await self._converse(self._conversation_id)
        self._presses = 1
        if self._conversation_id is not None:
            await self._line(f"Saved. To come back: trio-sagents chat --conversation {self._conversation_id}")

    async def heed(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        """Do what each signal means at its moment, until the chat ends."""
        async for number in signals:
            if number == signal.SIGINT and self._moment == "prompt":
                self._keyboard.interrupt()
                continue
            self._presses += 1
            if number != signal.SIGINT or self._presses > (2 if self._moment == "turn" else 1):
                self.exit_status = 128 + number
                nursery.cancel_scope.cancel()
            elif self._moment == "turn" and self._presses == 1:
                nursery.start_soon(self._cancel_turn)
            elif self._moment == "turn":
                await self._line("[still cancelling; Ctrl-C once more leaves]")

    async def _cancel_turn(self) -> None:
        try:
            while self._moment == "turn" and self._conversation_id is not None:
                if await self._sessions.cancel_turn(self._conversation_id) is not None:
                    return
                await trio.sleep(0.05)  # Race: the message is accepted, and its turn has not begun
        except SagentsError as exc:
            await self._line(f"error: {error_text(exc)}", "error")

    async def _say_hello(self) -> None:
        choice = self._setup.choice
        await self._line(f"trio-sagents chat · {choice.label} · everything is kept in {self._setup.database}")
        if choice.notice:
            await self._line(choice.notice)
        await self._line("/help lists the commands; Ctrl-C cancels an answer; Ctrl-D or /quit leaves.")

    async def _converse(self, conversation_id: str | None) -> None:
        """Show one conversation until the person goes to another, or leaves."""
        self._view = TurnView()
        self._is_open = False
        self._is_behind = False
        if conversation_id is None:
            await self._heed_lines()
            return
        try:
            async with self._sessions.watch(conversation_id, viewer="terminal") as watch:
                self._is_open = True
                await self._attend(watch, conversation_id)
        except (SagentsError, ValueError) as exc:
            if self._is_open:
                raise
            await self._line(f"error: {error_text(exc)}", "error")
            await self._line("/list shows the conversations, /open opens another one, /new begins one.")
            self._conversation_id = None

    async def _attend(self, watch: Watch, conversation_id: str) -> None:
        async with trio.open_nursery() as nursery:
            await self._screen.show(await self._rows(conversation_id, TAIL))
            begun = trio.Event()
            nursery.start_soon(self._follow, watch, conversation_id, begun)
            await begun.wait()  # what the agent is doing is known
            await self._heed_lines()
            nursery.cancel_scope.cancel()

    async def _follow(self, watch: Watch, conversation_id: str, begun: trio.Event) -> None:
        """Bring events to the screen: what has gathered, in one write."""
        async for batch in watch.batches():
            self._is_behind = True
            pieces: list[Piece] = []
            for envelope in batch:
                pieces += self._view.show(envelope.event)
                if self._view.has_gap:
                    pieces += await self._rows(conversation_id, 5 * TAIL)
                    self._view.has_gap = False
            await self._screen.show(pieces)
            self._is_behind = False
            self._progress.unpark_all()
            begun.set()

    async def _rows(self, conversation_id: str, limit: int) -> Iterable[Piece]:
        try:
            page = await self._sessions.history(conversation_id, limit=limit)
        except ConversationNotFound:
            return self._view.show_line(f"Conversation {conversation_id}, a new one.", "note")
        except SagentsError as exc:
            return self._view.show_line(f"error: {error_text(exc)}", "error")
        note = f"Conversation {conversation_id}{', from its last rows on' if page.before else ''}:"
        return (*(() if self._view.has_gap else self._view.show_line(note, "note")), *self._view.show_rows(page.rows))

    async def _heed_lines(self) -> None:
        """Take lines until the conversation is left."""
        while True:
            await self._settle()
            self._moment = "prompt"
            read = await self._keyboard.read()
            self._moment = "between"
            self._presses = 0
            match read:
                case Line(text=text):
                    self._was_interrupted = False
                    if text.startswith("/"):
                        if await self._command(*text.split(maxsplit=1)):
                            return
                    elif text.strip():
                        await self._say(text)
                case Signal.INTERRUPTED if not self._was_interrupted:
                    self._was_interrupted = True
                    await self._line("Ctrl-C once more leaves, as do Ctrl-D and /quit.")
                case _:
                    self._is_over = True
                    return

    async def _command(self, name: str, argument: str = "") -> bool:
        """Do a command, as far as the database lets; return whether it leaves the conversation."""
        try:
            return await self._do_command(name, argument)
        except SagentsError as exc:
            await self._line(f"error: {error_text(exc)}", "error")
            return False

    async def _do_command(self, name: str, argument: str) -> bool:
        target: str | None = None
        match name:
            case "/quit" | "/exit":
                self._is_over = True
                return True
            case "/list":
                await self._screen.show(self._view.show_line(await self._catalogue.listing(self._conversation_id), "note"))
            case "/new":
                target = new_conversation_id()
            case "/open" if argument:
                target = await self._catalogue.find(argument.strip())
                if target is None:
                    await self._line(f"There is no conversation {argument.strip()!r}; /list shows them.", "error")
            case "/open":
                await self._line("Which one? /open NUMBER or ID, as /list shows them.", "error")
            case "/help":
                await self._line(HELP)
            case _:
                await self._line(f"{name} is no command; /help lists them. To say it, begin the line with a space.", "error")
        if target is None:
            return False
        self._conversation_id = target
        return True

    async def _say(self, text: str) -> None:
        """Post a message and wait until its answer is on the screen."""
        if self._conversation_id is None or not self._is_open:
            await self._line("No conversation is open: /list, /open or /new.", "error")
            return
        message_id = secrets.token_hex(8)
        self._view.note_typed(message_id)
        try:
            with self._turn():
                receipt = await self._post(self._conversation_id, text, message_id)
                outcome = await receipt.wait()
                with trio.move_on_after(_LAG):
                    while not (self._view.has_taken(message_id) or isinstance(outcome, Unanswered)):
                        await self._progress.park()
        except (SagentsError, ValueError) as exc:
            await self._line(f"error: {error_text(exc)}", "error")
            return
        if isinstance(outcome, Unanswered):
            await self._line(outcome_text(outcome))

    async def _post(self, conversation_id: str, text: str, message_id: str) -> Receipt:
        try:
            return await self._sessions.post(conversation_id, text, message_id=message_id)
        except Conflict:  # another program wrote here meanwhile: once more, to the agent that starts from what it left
            return await self._sessions.post(conversation_id, text, message_id=message_id)

    async def _settle(self) -> None:
        """Wait until no turn runs, as far as the screen shows it."""
        if self._view.is_busy or self._is_behind:
            with self._turn():
                while self._view.is_busy or self._is_behind:
                    await self._progress.park()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """A turn runs, which Ctrl-C cancels."""
        self._moment = "turn"
        self._presses = 0
        try:
            yield
        finally:
            self._moment = "between"
            self._presses = 0

    async def _line(self, text: str, kind: Kind = "note") -> None:
        await self._screen.show(self._view.show_line(text, kind))
