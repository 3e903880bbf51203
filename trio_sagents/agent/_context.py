"""What a turn may ask of whoever runs it. A turn knows no session: it gets one of these, and returns an outcome."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import trio

from trio_sagents.agent._host import MiddlewareHost
from trio_sagents.agent._progress import OpenCall, Progress
from trio_sagents.data.interrupts import DecisionRecord, PendingCall
from trio_sagents.data.messages import Message, ToolCall, ToolResult
from trio_sagents.data.outcomes import Completed, Interrupted, Usage


class TurnContext(MiddlewareHost, Protocol):
    """One turn's view of its conversation. What is committed is durable when the call returns, and its events are out."""

    progress: Progress

    @property
    def turn_id(self) -> str:
        """The turn's id; a sub-agent has that of the turn that it is a part of."""
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
        """Whether the turn goes on behind an interrupt that was answered."""
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

    def decision_of(self, call_id: str) -> DecisionRecord | None:
        """Return what was decided about an open call; None where nothing was."""
        ...

    def note_draft(self) -> None:
        """The message being spoken has grown, or is void (`progress.draft` is None): keep or forget it."""
        ...

    async def take_steered(self) -> None:
        """Take what people posted to steer the running turn into the history."""
        ...

    async def commit_answer(self, message: Message, usage: Usage, waiting: Mapping[str, PendingCall]) -> None:
        """Keep an answer that asks for tools; its calls are then open, and on record as begun but for those that wait, by call id."""
        ...

    async def commit_result(self, call: ToolCall, result: ToolResult) -> None:
        """Keep the outcome of one tool call."""
        ...

    def may_act(self) -> bool:
        """Return whether a tool may begin. False where this process lost the right to it: then the turn is cancelled already."""
        ...

    def interrupt_of(self, waiting: Sequence[OpenCall]) -> Interrupted:
        """Return how the turn ends where these calls wait for people."""
        ...

    async def interrupt(self, outcome: Interrupted, waiting: Sequence[OpenCall]) -> None:
        """Keep what the turn waits for. From this call on the turn is interrupted, whatever else comes."""
        ...

    async def complete(self, message: Message, usage: Usage, value: object) -> Completed:
        """Keep the last answer. From this call on the turn is completed, whatever else comes."""
        ...
