"""The interactive chat: a prompt, an answer that streams, a prompt again.

Two tasks share one `TurnView`: one task shows the events of the conversation on the screen, the other reads lines. The reader waits
while a turn runs, so the two never write at the same time; what comes while a line is read, such as a title, is shown by the keyboard.
A third task, outside of the sessions, handles signals: what Ctrl-C means depends on the moment.
"""

import contextlib
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Final, Literal, TypeAlias

import trio

from trio_sagents import (
    Completed,
    Conflict,
    ConversationNotFound,
    Interrupt,
    Receipt,
    SagentsError,
    Sessions,
    TurnOutcome,
    Unanswered,
    Watch,
)
from trio_sagents.cli._catalogue import Catalogue
from trio_sagents.cli._commands import Commands, todos_text
from trio_sagents.cli._deciding import Deciding, waiting_pieces
from trio_sagents.cli._keyboard import open_keyboard
from trio_sagents.cli._lines import PROMPT, Keyboard, Line, Read, Signal
from trio_sagents.cli._render import TurnView
from trio_sagents.cli._screen import Screen
from trio_sagents.cli._setup import Opened, Options, Setup
from trio_sagents.cli._words import Kind, Piece, error_text, outcome_text

Moment: TypeAlias = Literal["between", "prompt", "turn"]
"""What Ctrl-C interrupts: the chat's own work, the keyboard, or an answer that is on its way."""
SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
TAIL: Final = 20
"""How many rows of the history are shown when a conversation is opened."""
NEEDS_PERSON: Final = 3
"""The exit status if a call waits for a person and there is no terminal."""
_LAG: Final = 2.0
"""How many seconds the screen may be behind an outcome that has no event."""
_TITLE_WAIT: Final = 10.0
"""How many seconds a script waits for the title of its conversation."""


async def run_chat(setup: Setup, options: Options, screen: Screen) -> int:
    """Hold conversations until the person leaves; return the exit status.

    Raises:
        SagentsError: the database or the conversation cannot be used, alone or in a group.

    Cancellation: the running turn is cut, and its text so far is saved.
    """
    chat = Chat(setup, screen)
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chat.heed, signals, nursery)
            async with (
                setup.open() as opened,
                open_keyboard(screen, is_plain=options.is_plain, label=f"{setup.choice.label} · /help") as keyboard,
            ):
                await chat.run(opened, keyboard, await Catalogue(opened.sessions).choose(options))
            nursery.cancel_scope.cancel()
    return chat.exit_status


class Chat:
    """One run of the chat."""

    def __init__(self, setup: Setup, screen: Screen) -> None:
        """Make the chat; call `run` to run it."""
        self.exit_status = 0
        self._setup: Final = setup
        self._screen: Final = screen
        self._view = TurnView()
        self._progress: Final = trio.lowlevel.ParkingLot()
        self._is_behind = False
        """Whether the view has text that is not on the screen yet."""
        self._held: list[Piece] = []
        """What came at the moment at which the keyboard began or ended reading."""
        self._moment: Moment = "between"
        self._presses = 1
        """How often Ctrl-C was pressed at this moment; one more while the chat opens and closes, when there is nothing else to stop."""
        self._was_interrupted = False
        self._has_spoken = False
        """Whether a message was sent since the conversation was opened."""
        self._conversation_id: str | None = None
        self._is_title_due = True
        """Whether a script waits for the title: not again after it has waited in vain."""
        self._is_open = False
        self._is_over = False
        self._sessions: Sessions
        self._opened: Opened
        self._keyboard: Keyboard
        self._commands: Commands
        self._deciding: Deciding

    async def run(self, opened: Opened, keyboard: Keyboard, conversation_id: str) -> None:
        """Hold conversations, beginning with this one, until the person leaves."""
        self._opened, self._sessions = opened, opened.sessions
        self._keyboard = keyboard
        self._commands = Commands(opened, self._setup)
        self._conversation_id = conversation_id
        await self._say_hello()
        while not self._is_over:
            await self._converse(self._conversation_id)
        self._presses = 1
        if self._conversation_id is not None:
            await self._line(f"Saved. To return: {self._setup.command_for(self._conversation_id)}")

    async def heed(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        """Handle signals until the chat ends; what a signal means depends on the moment."""
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
                await trio.sleep(0.05)  # Race: the message is accepted, and its turn has not begun yet
        except SagentsError as exc:
            await self._line(f"error: {error_text(exc)}", "error")

    async def _say_hello(self) -> None:
        choice = self._setup.choice
        await self._line(f"trio-sagents chat · {choice.label} · everything is stored in {self._setup.database}")
        if choice.notice:
            await self._line(choice.notice)
        if self._setup.folder is not None:
            await self._line(f"The agent reads the files of {self._setup.folder}; it asks you before it changes a file.")
        await self._line("/help lists the commands; Ctrl-C cancels an answer; Ctrl-D or /quit leaves.")

    # ── one conversation

    async def _converse(self, conversation_id: str | None) -> None:
        """Show one conversation until the person opens another one or leaves."""
        self._view = TurnView()
        self._view.progress.is_live = self._screen.can_redraw
        self._is_open = self._is_behind = self._has_spoken = False
        self._is_title_due = True
        self._deciding = Deciding(self._sessions, self._read, self._show, can_edit=self._keyboard.can_edit)
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
            await self._line("/list shows the conversations, /open opens another one, /new begins a new one.")
            self._conversation_id = None

    async def _attend(self, watch: Watch, conversation_id: str) -> None:
        state = await watch.info.agent.state()
        title = state.metadata.get("title")
        self._view.title = title if isinstance(title, str) else None
        await watch.subscribe(conversation_id, channel="debug")  # it says what sub-agents do
        async with trio.open_nursery() as nursery:
            await self._show(tuple(await self._rows(conversation_id, TAIL)))
            begun = trio.Event()
            nursery.start_soon(self._follow, watch, conversation_id, begun)
            await begun.wait()  # now it is known what the agent is doing
            if todos := todos_text(self._view.progress.todos):
                await self._line(todos, "tool")
            await self._heed_lines()
            nursery.cancel_scope.cancel()

    async def _follow(self, watch: Watch, conversation_id: str, begun: trio.Event) -> None:
        """Show events on the screen; all that have come meanwhile, in one write."""
        async for batch in watch.batches():
            self._is_behind = True
            pieces: list[Piece] = []
            for envelope in batch:
                if envelope.channel == "debug":
                    pieces += self._view.show_debug(envelope.event)
                    continue
                pieces += self._view.show(envelope.event)
                if self._view.has_gap:
                    pieces += await self._rows(conversation_id, 5 * TAIL)
                    self._view.has_gap = False
            await self._show(pieces)
            self._is_behind = False
            self._progress.unpark_all()
            if any(envelope.channel == "main" for envelope in batch):
                begun.set()

    async def _rows(self, conversation_id: str, limit: int) -> Iterable[Piece]:
        try:
            page = await self._sessions.history(conversation_id, limit=limit)
        except ConversationNotFound:
            return self._view.show_line(f"Conversation {conversation_id}, a new one.", "note")
        except SagentsError as exc:
            return self._view.show_line(f"error: {error_text(exc)}", "error")
        title = "" if self._view.title is None else f"\n[title: {self._view.title}]"
        note = f"Conversation {conversation_id}{', from its last rows' if page.before else ''}:{title}"
        return (*(() if self._view.has_gap else self._view.show_line(note, "note")), *self._view.show_rows(page.rows))

    # ── lines

    async def _heed_lines(self) -> None:
        """Handle lines until the person leaves the conversation."""
        while not self._is_over:
            await self._settle()
            interrupt = self._view.interrupt
            if self._is_open and interrupt is not None and self._deciding.wants(interrupt):
                await self._decide(interrupt)
                continue
            match await self._read(PROMPT, None):
                case Line(text=text):
                    self._was_interrupted = False
                    if text.startswith("/"):
                        if await self._command(*text.split(maxsplit=1)):
                            return
                    elif text.strip():
                        await self._say(text)
                case Signal.INTERRUPTED if not self._was_interrupted:
                    self._was_interrupted = True
                    await self._line("Ctrl-C once more leaves the chat, as do Ctrl-D and /quit.")
                case _:
                    self._leave()

    async def _read(self, prompt: str, text: str | None) -> Read:
        """Read a line, or the answer to a question if `text` is not None, as `Keyboard.read` does."""
        self._moment = "prompt"
        try:
            read = await self._keyboard.read(prompt, text)
        finally:
            self._moment = "between"
            self._presses = 0
        held, self._held = self._held, []
        await self._show(held)
        return read

    def _leave(self) -> None:
        self._is_over = True
        if self._view.interrupt is not None and not self._keyboard.is_interactive:
            self.exit_status = NEEDS_PERSON

    async def _command(self, name: str, argument: str = "") -> bool:
        """Execute a command; return whether the conversation is left."""
        try:
            conversation_id = self._conversation_id if self._is_open else None
            done = await self._commands.run(name, argument, conversation_id, self._view.progress.todos)
        except (SagentsError, ValueError) as exc:
            await self._line(f"error: {error_text(exc)}", "error")
            return False
        for text, kind in done.lines:
            await self._line(text, kind)
        if done.title is not None:
            with trio.move_on_after(_LAG):
                while self._view.title != done.title:
                    await self._progress.park()
        if done.decides and self._view.interrupt is None:
            await self._line("Nothing waits for you.")
        elif done.decides:
            self._deciding.take_up()
        if done.leaves:
            self._leave()
            return True
        if done.target is None:
            return False
        self._conversation_id = done.target
        return True

    async def _say(self, text: str) -> None:
        """Post a message and wait until its answer is on the screen."""
        if self._conversation_id is None or not self._is_open:
            await self._line("No conversation is open: /list, /open or /new.", "error")
            return
        message_id = secrets.token_hex(8)
        self._view.note_typed(message_id)
        self._has_spoken = True
        try:
            with self._turn():
                await self._opened.area.refresh()  # the person may have changed files meanwhile
                receipt = await self._post(self._conversation_id, text, message_id)
                outcome = await receipt.wait()
                await self._catch_up(lambda: self._view.has_taken(message_id), outcome)
                await self._wait_for_title(outcome)
        except (SagentsError, ValueError) as exc:
            await self._line(f"error: {error_text(exc)}", "error")

    async def _catch_up(self, has_it: Callable[[], bool], outcome: TurnOutcome) -> None:
        """Wait until the screen shows what the outcome is about."""
        with trio.move_on_after(_LAG):
            while not (has_it() or isinstance(outcome, Unanswered)):
                await self._progress.park()
        if isinstance(outcome, Unanswered):
            await self._line(outcome_text(outcome))

    async def _wait_for_title(self, outcome: TurnOutcome) -> None:
        """If lines come from a pipe, wait for the title, so that it is shown before the next line and before the end."""
        if not self._setup.has_titles or self._keyboard.is_interactive or not isinstance(outcome, Completed):
            return
        with trio.move_on_after(_TITLE_WAIT) as patience:
            while self._view.title is None and self._is_title_due:
                await self._progress.park()
        self._is_title_due = not patience.cancelled_caught

    async def _post(self, conversation_id: str, text: str, message_id: str) -> Receipt:
        try:
            return await self._sessions.post(conversation_id, text, message_id=message_id)
        except Conflict:  # another program has written to the conversation: post again, to an agent that starts from what is stored now
            return await self._sessions.post(conversation_id, text, message_id=message_id)

    async def _decide(self, interrupt: Interrupt) -> None:
        """Have the person decide one call of an interrupt; if there is no terminal, say what waits."""
        assert self._conversation_id is not None
        if not self._keyboard.is_interactive:
            await self._show(waiting_pieces(interrupt, self._setup.command_for(self._conversation_id)))
            self._deciding.put_aside(interrupt)
            if self._has_spoken:  # the next lines were written without knowing of the interrupt
                self._leave()
            return
        verdict = await self._deciding.ask(interrupt)
        if isinstance(verdict, Signal):
            self._deciding.put_aside(interrupt)
            if verdict is Signal.ENDED:
                self._leave()
            else:
                await self._line("It stays open: /decide asks again; a new message continues without it.")
            return
        try:
            with self._turn():
                await self._opened.area.refresh()
                outcome = await self._deciding.record(self._conversation_id, interrupt, verdict)
                await self._catch_up(lambda: self._view.interrupt != interrupt, outcome)
        except (SagentsError, ValueError) as exc:
            await self._line(f"error: {error_text(exc)}", "error")

    async def _settle(self) -> None:
        """Wait until no turn runs and the screen is up to date."""
        if self._view.is_busy or self._is_behind:
            with self._turn():
                while self._view.is_busy or self._is_behind:
                    await self._progress.park()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """While the block runs, a turn runs, and Ctrl-C cancels the turn."""
        self._moment = "turn"
        self._presses = 0
        try:
            yield
        finally:
            self._moment = "between"
            self._presses = 0

    # ── the screen

    async def _show(self, pieces: Sequence[Piece]) -> None:
        if self._moment != "prompt":
            await self._screen.show(pieces, self._view.live)
        elif pieces and not await self._keyboard.interject(pieces):
            self._held += pieces

    async def _line(self, text: str, kind: Kind = "note") -> None:
        await self._show(self._view.show_line(text, kind))
