"""What a turn may ask of whoever runs it. A turn knows no session: it gets one of these, and returns an outcome."""

from collections.abc import Sequence
from typing import Protocol

import trio

from trio_sagents.abc import Scope
from trio_sagents.agent._progress import Progress
from trio_sagents.data.cursors import Channel
from trio_sagents.data.events import Event
from trio_sagents.data.messages import Message, ToolCall, ToolResult
from trio_sagents.data.outcomes import Completed, Usage
from trio_sagents.data.state import State


class TurnContext(Protocol):
    """One turn's view of its conversation. What is committed is durable when the call returns, and its events are out."""

    turn_id: str
    progress: Progress

    @property
    def conversation_id(self) -> str:
        """The conversation's id."""
        ...

    @property
    def scope(self) -> Scope:
        """The agent's."""
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

    def messages(self) -> Sequence[Message]:
        """Return the history so far, oldest first; a new sequence."""
        ...

    def state(self) -> State:
        """Return the last committed state."""
        ...

    def publish(self, event: Event, channel: Channel = "main") -> None:
        """Tell the subscribers."""
        ...

    def new_id(self) -> str:
        """Return an id that no message and no call of this conversation has."""
        ...

    def knows_call(self, call_id: str) -> bool:
        """Return whether a call of this conversation has that id."""
        ...

    def note_draft(self) -> None:
        """The message being spoken has grown: keep it, if the last time is long enough ago."""
        ...

    async def take_steered(self) -> None:
        """Take what people posted to steer the running turn into the history."""
        ...

    async def commit_answer(self, message: Message, usage: Usage) -> None:
        """Keep an answer that asks for tools; its calls are then open, and on record as begun."""
        ...

    async def commit_result(self, call: ToolCall, result: ToolResult) -> None:
        """Keep the outcome of one tool call."""
        ...

    async def complete(self, message: Message, usage: Usage) -> Completed:
        """Keep the last answer. From this call on the turn is completed, whatever else comes."""
        ...
