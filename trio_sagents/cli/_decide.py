"""Asks a person about one call that waits: approve, edit or reject the call, answer its question, acknowledge its halt.

Nothing here decides by itself: an empty line approves nothing, and Ctrl-C leaves the call open.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, TypeAlias

import attrs

from trio_sagents import Approve, Decision, Edit, PendingCall, Reject
from trio_sagents.cli._lines import Line, Read, Signal
from trio_sagents.cli._preview import MAX_LINES, arguments_text, asking, call_lines, parse_answer, parse_arguments
from trio_sagents.cli._words import Piece

Ask: TypeAlias = Callable[[str, str], Awaitable[Read]]
"""Shows a prompt and waits for an answer: (prompt, text to edit)."""
Show: TypeAlias = Callable[[Sequence[Piece]], Awaitable[None]]
Verdict: TypeAlias = Decision | Literal["dismiss"] | Signal
"""A decision; or the halt is acknowledged; or the person pressed Ctrl-C or Ctrl-D, and the call stays open."""
_WORDS: Final = {"approve": ("a", "approve", "y", "yes"), "edit": ("e", "edit"), "reject": ("r", "reject", "n", "no")}
_LETTERS: Final = {"approve": "[a]pprove", "edit": "[e]dit", "reject": "[r]eject"}


@attrs.define(eq=False)
class Dialogue:
    """The prompts for one call."""

    _ask: Ask
    _show: Show
    _can_edit: bool
    """Whether the person can edit the text that is given to `_ask`."""
    _edited: dict[str, str] = attrs.field(factory=dict)
    """By call: the arguments that the person typed last, so that they need not be typed again because of one wrong comma."""

    async def about(self, call: PendingCall, number: int, total: int) -> Verdict:
        """Ask about a call until there is an answer.

        Args:
            call: the call that waits.
            number: the number of the call among `total`.
            total: how many calls wait or have waited.

        Cancellation: nothing was decided.
        """
        await self._show(asking(call, number, total))
        match call.kind:
            case "question":
                return await self._answer(call)
            case "halt":
                read = await self._ask("Enter acknowledges it: ", "")
                return "dismiss" if isinstance(read, Line) else read
            case _:
                return await self._approve(call, number, total)

    async def _approve(self, call: PendingCall, number: int, total: int) -> Verdict:
        letters = [_LETTERS[kind] for kind in call.allowed if kind in _LETTERS]
        if len(call_lines(call)) > MAX_LINES:
            letters.append("[v]iew all")
        prompt = f"{', '.join(letters)}: "
        while True:
            read = await self._ask(prompt, "")
            if isinstance(read, Signal):
                return read
            word = read.text.strip().lower()
            chosen = next((kind for kind in call.allowed if word in _WORDS.get(kind, ())), None)
            match chosen:
                case "approve":
                    return Approve(call)
                case "edit":
                    verdict = await self._edit(call)
                case "reject":
                    reason = await self._ask("why (Enter for no reason): ", "")
                    verdict = reason if isinstance(reason, Signal) else Reject(call, reason.text.strip())
                case _:
                    verdict = None
                    if word in {"v", "view"}:
                        await self._show(asking(call, number, total, whole=True))
                    else:
                        await self._complain(f"{word!r} is not a decision: {', '.join(letters)}, or Ctrl-C to leave the call open")
            if verdict is not None:
                return verdict

    async def _edit(self, call: PendingCall) -> Verdict | None:
        """Return the edited call; None if the person does not want to edit it after all."""
        text = self._edited.get(call.call_id, arguments_text(call))
        while True:
            known = "" if self._can_edit else f"  {text}\n"
            await self._show([Piece(f"  The arguments as JSON; an empty line goes back.\n{known}", "ask")])
            read = await self._ask("arguments: ", text)
            if isinstance(read, Signal):
                return read
            if not read.text.strip():
                return None
            text = self._edited[call.call_id] = read.text.strip()
            try:
                return Edit(call, parse_arguments(text))
            except (TypeError, ValueError) as exc:
                await self._complain(str(exc))

    async def _answer(self, call: PendingCall) -> Verdict:
        while True:
            read = await self._ask("answer: ", "")
            if isinstance(read, Signal):
                return read
            try:
                return parse_answer(call, read.text)
            except (TypeError, ValueError) as exc:
                await self._complain(str(exc))

    async def _complain(self, text: str) -> None:
        await self._show([Piece(f"{text}\n", "error")])
