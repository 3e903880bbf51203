"""What a turn may ask of the code that runs the turn. A turn knows no session: it gets a `TurnContext`, and returns an outcome."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

import trio

from trio_sagents.agent._host import MiddlewareHost
from trio_sagents.agent._progress import OpenCall, Progress
from trio_sagents.data.events import DeltaMaker, Event
from trio_sagents.data.interrupts import DecisionRecord, PendingCall
from trio_sagents.data.messages import Message, ToolCall, ToolResult
from trio_sagents.data.outcomes import Completed, Interrupted, Usage


class TurnContext(MiddlewareHost, Protocol):
    """One turn's view of its conversation. What is committed is durable when the call returns, and its events are published."""

    progress: Progress

    @property
    def turn_id(self) -> str:
        """The turn's id; the turn of a sub-agent has the id of the turn that it is a part of."""
        ...

    @property
    def max_message_bytes(self) -> int:
        """Bytes that an answer may have."""
        ...

    @property
    def max_tool_output_bytes(self) -> int:
        """Bytes that the model reads of one tool call."""
        ...

    @property
    def threads(self) -> trio.CapacityLimiter:
        """For tools that are plain functions."""
        ...

    @property
    def goes_on(self) -> bool:
        """Whether the turn continues after an interrupt that was answered."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether the turn has an outcome."""
        ...

    def messages(self) -> Sequence[Message]:
        """Return the history so far, oldest first, as the model is to read it; a new sequence."""
        ...

    def new_id(self) -> str:
        """Return an id that no message and no call of this conversation has."""
        ...

    def is_used(self, made: str) -> bool:
        """Return whether a message or a call of this conversation has that id already."""
        ...

    def knows_call(self, call_id: str) -> bool:
        """Return whether a call of this conversation has that id."""
        ...

    @property
    def has_older(self) -> bool:
        """Whether the conversation has messages before its window: then `is_used` and `knows_call` do not know all ids."""
        ...

    async def find_used(self, ids: Sequence[str]) -> AbstractSet[str]:
        """Return which of these ids a message or a call before the window has.

        Raises:
            PersistenceError: the store could not say.

        Cancellation: nothing was done.
        """
        ...

    def decision_of(self, call_id: str) -> DecisionRecord | None:
        """Return the decision that holds for an open call; None if nobody decided about it.

        If people were asked about the call more than once, the last decision holds (`data.interrupts.replaces`).
        """
        ...

    def publish_delta(self, kind: DeltaMaker, text: str, message_id: str, part: int, offset: int) -> None:
        """Send a delta of the turn to the subscribers; the event itself is made only if a subscriber takes it."""
        ...

    def note_draft(self) -> None:
        """The message that is streaming has grown to `Draft.note_at`, or is void (`progress.draft` is None): keep or forget it."""
        ...

    def note_waiting(self) -> None:
        """The calls that wait for people have changed while other calls run: show them. Synchronous.

        `progress.waiting()` has the calls. They cannot be decided yet: the interrupt that takes decisions is stored by `interrupt`
        when the other calls have ended. Whoever shows them says so, for example by an interrupt without an id. This is called each
        time another call begins to wait, also for a call of a sub-agent, and when a call has halted the turn.
        """
        ...

    async def take_steered(self) -> None:
        """Take into the history what people posted to steer the running turn."""
        ...

    async def commit_answer(self, message: Message, usage: Usage, waiting: Mapping[str, PendingCall]) -> None:
        """Keep an answer that asks for tools. Its calls are open then.

        The calls are on record as begun, except those that wait for people: `waiting` has them by call id.
        """
        ...

    async def commit_result(self, call: ToolCall, result: ToolResult, expands: Sequence[Message] = ()) -> None:
        """Keep the outcome of one tool call; `expands` are the messages that its result brings into the turn, once all calls are done."""
        ...

    async def expand(self) -> None:
        """Take into the history the messages that the results of the last answer's calls bring."""
        ...

    def publish_debug(self, make: Callable[[], Event]) -> None:
        """Tell those who follow the debug channel an event that is costly to make; it is made only if somebody does."""
        ...

    async def may_act(self) -> bool:
        """Return whether a tool may begin. False if this process lost the right to it; then the turn is cancelled already.

        Waits while that is not known, for a bounded time; otherwise there is no checkpoint, so that the answer holds for the next step.
        """
        ...

    def interrupt_of(self, waiting: Sequence[OpenCall]) -> Interrupted:
        """Return how the turn ends if these calls wait for people."""
        ...

    async def interrupt(self, outcome: Interrupted, waiting: Sequence[OpenCall]) -> None:
        """Keep what the turn waits for. From this call on the turn is interrupted, even if it is cancelled."""
        ...

    async def complete(self, message: Message, usage: Usage, value: object) -> Completed:
        """Keep the last answer. From this call on the turn is completed, even if it is cancelled."""
        ...
