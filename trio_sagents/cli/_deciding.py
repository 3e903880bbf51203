"""The decisions of one conversation: which call the person is asked about next, and what is recorded of the answer."""

from collections.abc import Iterator, Sequence
from typing import Final

from trio_sagents import (
    CancelCause,
    Cancelled,
    Decision,
    Interrupt,
    InvalidDecision,
    LimitExceeded,
    SagentsError,
    Sessions,
    TurnOutcome,
)
from trio_sagents.cli._decide import Ask, Dialogue, Show, Verdict
from trio_sagents.cli._preview import asking
from trio_sagents.cli._words import Piece


def waiting_pieces(interrupt: Interrupt, command: str) -> Sequence[Piece]:
    """Return everything that waits for a person, and the command to decide it, for a chat that cannot ask anybody."""
    return tuple(_waiting(interrupt, command))


def _waiting(interrupt: Interrupt, command: str) -> Iterator[Piece]:
    total = len(interrupt.decided) + len(interrupt.calls)
    for number, call in enumerate(interrupt.calls, len(interrupt.decided) + 1):
        yield from asking(call, number, total, whole=True)
    yield Piece(f"[a person must decide: {command}; a new message continues without it]\n", "note")


class Deciding:
    """Asks about one call after the other; each answer is stored before the next question."""

    def __init__(self, sessions: Sessions, ask: Ask, show: Show, *, can_edit: bool) -> None:
        """Keep the parts of the chat that are needed."""
        self._sessions: Final = sessions
        self._show: Final = show
        self._dialogue: Final = Dialogue(ask, show, can_edit)
        self._aside: str | None = None
        """The id of the interrupt that the person does not want to be asked about now."""

    def wants(self, interrupt: Interrupt) -> bool:
        """Return whether the person is to be asked about an interrupt now."""
        return interrupt.interrupt_id != self._aside

    def put_aside(self, interrupt: Interrupt) -> None:
        """Do not ask about an interrupt until `take_up` is called."""
        self._aside = interrupt.interrupt_id

    def take_up(self) -> None:
        """Ask again about what was put aside."""
        self._aside = None

    async def ask(self, interrupt: Interrupt) -> Verdict:
        """Ask about the first call that waits; for a halt, about all calls that halted together.

        Cancellation: nothing was decided.
        """
        number, total = len(interrupt.decided) + 1, len(interrupt.decided) + len(interrupt.calls)
        if interrupt.kind != "halt":
            return await self._dialogue.about(interrupt.calls[0], number, total)
        *others, last = [call for call in interrupt.calls if call.kind == "halt"]
        for call in others:
            await self._show(asking(call, 1, 1))
        left = len(interrupt.calls) - len(others) - 1
        if left:
            await self._show([Piece(f"  {left} more call{'s' * (left > 1)} waited, and will not be run.\n", "ask")])
        return await self._dialogue.about(last, 1, 1)

    async def record(self, conversation_id: str, interrupt: Interrupt, verdict: Decision | str) -> TurnOutcome:
        """Record a decision, and wait for the outcome: `Interrupted` at once if other calls still wait.

        Raises:
            SagentsError: as `Sessions.resume` and `Sessions.dismiss`; nothing was recorded. After an error about the decision itself,
                the person is asked again.

        Cancellation: either nothing was submitted, or the decision is recorded.
        """
        try:
            if isinstance(verdict, str):
                await self._sessions.dismiss(conversation_id)
                return Cancelled(CancelCause.DISMISSED)
            receipt = await self._sessions.resume(conversation_id, [verdict])
        except (InvalidDecision, LimitExceeded):
            raise
        except SagentsError:
            self.put_aside(interrupt)  # the next attempt would fail, too
            raise
        return await receipt.wait()
