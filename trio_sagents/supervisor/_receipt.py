"""What `post` gives back: the message is durable, and its answer can be waited for."""

import attrs
import trio

from trio_sagents.data.outcomes import TurnOutcome


@attrs.define(eq=False)
class Answer:
    """The outcome of the turn that takes a message, once it is known. Shared by all receipts of that message."""

    outcome: TurnOutcome | None = None
    _known: trio.Event | None = None

    def settle(self, outcome: TurnOutcome) -> None:
        """Make it known; the first one stands."""
        if self.outcome is None:
            self.outcome = outcome
            if self._known is not None:
                self._known.set()

    async def wait(self) -> TurnOutcome:
        """Wait for it."""
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
    """The message is durable."""

    message_id: str
    duplicate: bool
    """Whether an earlier post had brought the same message; nothing was done then."""
    _answer: Answer = attrs.field(alias="answer", repr=False)

    async def wait(self) -> TurnOutcome:
        """Wait for the outcome of the turn that takes the message.

        Returns:
            The outcome; `Unanswered` where the agent ended first. The message is durable all the same, and the next start of
            the agent may answer it.

        Cancellation: the turn goes on; wait again whenever you like.
        """
        return await self._answer.wait()
