"""`--once`: one message, one answer, an exit status. Only the answer goes to stdout."""

import signal
import sys
from collections.abc import AsyncIterator, Iterable
from typing import Final, assert_never

import trio

from trio_sagents import Cancelled, Completed, Failed, Interrupted, Sessions, TurnOutcome, Unanswered, Watch
from trio_sagents.cli._catalogue import Catalogue
from trio_sagents.cli._deciding import waiting_pieces
from trio_sagents.cli._models import UsageError
from trio_sagents.cli._render import TurnView
from trio_sagents.cli._screen import Screen
from trio_sagents.cli._setup import Options, Setup
from trio_sagents.cli._words import Piece, error_text, outcome_text

COMPLETED: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NEEDS_PERSON: Final = 3
CANCELLED: Final = 4
_LAG: Final = 1.0
"""How many seconds the notes on tools may come after the outcome."""
_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def status_of(outcome: TurnOutcome) -> int:
    """Return the exit status for an outcome."""
    match outcome:
        case Completed():
            return COMPLETED
        case Failed() | Unanswered():
            return FAILED
        case Interrupted():
            return NEEDS_PERSON
        case Cancelled():
            return CANCELLED
        case _:
            assert_never(outcome)


async def run_once(setup: Setup, options: Options, text: str, answers: Screen, notes: Screen) -> int:
    """Post `text`, print the answer, and return the exit status.

    Args:
        setup: what to run on.
        options: names the conversation; without a name, a new one is begun.
        text: the message.
        answers: gets the answer, and nothing else.
        notes: gets everything else.

    Raises:
        SagentsError: the database or the conversation cannot be used, alone or in a group.

    Cancellation: the turn is cut, and its text so far is saved.
    """
    once = _Once(text, answers, notes, setup)
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(once.heed, signals, nursery.cancel_scope)
            async with setup.open() as opened:
                conversation_id = await Catalogue(opened.sessions).choose(options)
                if setup.choice.notice:
                    await notes.show([Piece(f"{setup.choice.notice}\n", "note")])
                await notes.show([Piece(f"conversation {conversation_id} in {setup.database}\n", "note")])
                await once.run(opened.sessions, conversation_id)
            nursery.cancel_scope.cancel()
    return once.status


class _Once:
    """One message, and its answer."""

    def __init__(self, text: str, answers: Screen, notes: Screen, setup: Setup) -> None:
        self.status = FAILED
        self._setup: Final = setup
        self._text: Final = text
        self._answers: Final = answers
        self._notes: Final = notes
        self._view: Final = TurnView()
        self._progress: Final = trio.lowlevel.ParkingLot()
        self._cancel: trio.CancelScope | None = None
        self._signal = 0

    async def heed(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        """Handle signals: the first Ctrl-C cancels the turn, whose text is saved; a second one, and any other signal, ends the program."""
        async for number in signals:
            self.status = 128 + number
            if number != signal.SIGINT or self._cancel is None or self._signal:
                everything.cancel()
            elif self._cancel is not None:
                self._cancel.cancel()
            self._signal = number

    async def run(self, sessions: Sessions, conversation_id: str) -> None:
        """Post the message and wait for the answer."""
        async with sessions.watch(conversation_id, viewer="terminal") as watch, trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, watch)
            receipt = await sessions.post(conversation_id, self._text)
            outcome: TurnOutcome | None = None
            with trio.CancelScope() as self._cancel:
                outcome = await receipt.wait()
            self._cancel = None
            while outcome is None:
                outcome = await sessions.cancel_turn(conversation_id)
                if outcome is None:  # Race: the turn has not begun yet, or has just ended
                    with trio.move_on_after(0.05):
                        outcome = await receipt.wait()
            with trio.move_on_after(_LAG):
                while self._view.is_busy or not (self._view.has_taken(receipt.message_id) or isinstance(outcome, Unanswered)):
                    await self._progress.park()
            nursery.cancel_scope.cancel()
        await self._tell(outcome, conversation_id)

    async def _tell(self, outcome: TurnOutcome, conversation_id: str) -> None:
        if isinstance(outcome, Completed):
            await self._answers.show([Piece(f"{outcome.message.text}\n", "answer")])
        elif isinstance(outcome, Failed):
            await self._notes.show([Piece(f"error: {error_text(outcome.error)}\n", "error")])
        elif isinstance(outcome, Interrupted):
            await self._notes.show(waiting_pieces(outcome.interrupt, self._setup.command_for(conversation_id)))
        else:
            await self._notes.show([Piece(f"{outcome_text(outcome)}\n", "note")])
        if not self._signal:
            self.status = status_of(outcome)

    async def _follow(self, watch: Watch) -> None:
        async for batch in watch.batches():
            await self._notes.show(_tools_only(piece for envelope in batch for piece in self._view.show(envelope.event)))
            self._progress.unpark_all()


def _tools_only(pieces: Iterable[Piece]) -> Iterable[Piece]:
    """Return the pieces that are shown while the answer is on its way: those about tools."""
    return [piece for piece in pieces if piece.kind == "tool" and piece.text.strip()]


def read_text(given: str) -> str:
    """Return the message: the given text, or standard input if that is "-".

    Raises:
        UsageError: there is no standard input, or it is not text.
    """
    if given != "-":
        return given
    if sys.stdin is None:  # the descriptor was closed
        raise UsageError("--once -: there is no standard input")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as exc:
        raise UsageError(f"--once -: standard input is not {exc.encoding} text") from exc
