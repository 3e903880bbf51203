"""Receipts: what `post` and `resume` return, and what the agent keeps until the outcome is known."""

import contextvars
from collections.abc import Iterable
from typing import Final

import attrs
import trio

from trio_sagents._trio.place import require_run
from trio_sagents.data.json import Options
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.data.scopes import Overlap, Scope

KEPT_OUTCOMES: Final = 64
"""Outcomes that an agent remembers; of an older turn, its history tells."""


@attrs.define(eq=False)
class PendingOutcome:
    """The outcome of a turn, once it is known. All receipts of one message share it."""

    outcome: TurnOutcome | None = None
    _known: trio.Event | None = None

    def settle(self, outcome: TurnOutcome) -> None:
        """Make the outcome known. Only the first call has an effect."""
        if self.outcome is None:
            self.outcome = outcome
            if self._known is not None:
                self._known.set()

    async def wait(self) -> TurnOutcome:
        """Wait for the outcome."""
        if self.outcome is None:
            if self._known is None:
                self._known = trio.Event()
            await self._known.wait()
            assert self.outcome is not None
            return self.outcome
        await trio.lowlevel.checkpoint()
        return self.outcome


@attrs.frozen(eq=False)
class Receipt:
    """The message, or the decision, is durable."""

    message_id: str
    duplicate: bool
    """Whether an earlier call had brought the same; this call did nothing then."""
    _pending: PendingOutcome = attrs.field(alias="pending", repr=False)
    _token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token, init=False, repr=False)

    async def wait(self) -> TurnOutcome:
        """Wait for the outcome of the turn that takes the message.

        Returns:
            The outcome; `Unanswered` if the agent ended first. The message is durable all the same, and the next start of the agent
            may answer it.

        Raises:
            RuntimeError: the caller is in another thread, or in another run of Trio, than the sessions.

        Cancellation: the turn continues; wait again whenever you like.
        """
        require_run(self._token, "this receipt and its sessions")
        return await self._pending.wait()


@attrs.define(eq=False)
class Accepted:
    """The facts about an accepted message, or about a decision that lets a turn continue, that are not stored."""

    actor: Scope = attrs.field(repr=False)
    overlap: Overlap
    context: contextvars.Context
    """Of the call that brought it."""
    is_unattended: bool = False
    """Whether no person posted the message, but a tool or a middleware."""
    values: Options = attrs.field(factory=dict, repr=False)
    """The host's own values for the tools of the turn."""
    may_decide: bool = False
    """Whether the poster of the message may also decide. If so, the message may replace a decision, and close the interrupt."""
    pending: PendingOutcome = attrs.field(factory=PendingOutcome)

    def for_next_agent(self) -> "Accepted":
        """Return the same for the next agent: callers that wait are told that this agent has ended."""
        return attrs.evolve(self, pending=PendingOutcome())


@attrs.define(eq=False)
class Receipts:
    """What was accepted and has no outcome yet, by message id or interrupt id; and the last outcomes."""

    accepted: dict[str, Accepted] = attrs.field(factory=dict)
    _settled: dict[str, TurnOutcome] | None = None
    """The latest outcomes, by message id: if the same message is posted again, its receipt has the same outcome. None while empty."""

    def settle(self, message_ids: Iterable[str], outcome: TurnOutcome) -> None:
        """Tell the outcome to the callers that wait for the answers to these messages."""
        for message_id in message_ids:
            accepted = self.accepted.pop(message_id, None)
            if accepted is not None:
                accepted.pending.settle(outcome)
            if self._settled is None:
                self._settled = {}
            self._settled[message_id] = outcome
            if len(self._settled) > KEPT_OUTCOMES:
                del self._settled[next(iter(self._settled))]

    def settle_all(self, outcome: TurnOutcome) -> None:
        """Tell everybody: the agent has ended."""
        for accepted in self.accepted.values():
            accepted.pending.settle(outcome)
        self.accepted.clear()
        self._settled = None

    def outcome_of(self, message_id: str) -> TurnOutcome | None:
        """Return the outcome that was told of a message; None if it is not among the last ones."""
        return None if self._settled is None else self._settled.get(message_id)
