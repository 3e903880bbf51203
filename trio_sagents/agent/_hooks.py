"""What a host may implement for an agent: a model, and middleware around its turns."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from trio_sagents.data.decisions import Decision
from trio_sagents.data.interrupts import PendingCall
from trio_sagents.data.json import JSON, Opaque
from trio_sagents.data.messages import Message, ToolCall
from trio_sagents.data.messages import ToolResult as CallResult
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.data.records import DisplayMessage
from trio_sagents.data.requests import ModelChunk, ModelRequest

if TYPE_CHECKING:
    from trio_sagents.agent._agent import ToolLike as AnyTool
    from trio_sagents.agent._middleware import MiddlewareContext
    from trio_sagents.agent._model_call import Answer as ModelAnswer
    from trio_sagents.agent._tools import Tool


class Model(Protocol):
    """A language model behind some provider."""

    @property
    def name(self) -> str:
        """What it is called; an attribute will do."""
        ...

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ModelChunk]]:
        """Open one answer.

        The iterator yields chunks in order, the last one a `FinishChunk`. Leaving the context closes the connection.

        Raises:
            ModelFailed: the provider's fault; `retryable` says whether the same request may succeed later.
        """
        ...


class Middleware:
    """What goes around a turn: instructions, tools, and steps of its own. Give instances: `TodoList(max_items=50)`.

    Inherit and write only the methods that you need; an object that has some of them will do, too. All but `turn_ended`,
    `transform_row` and `debug_summary` are `async def`. One instance serves any number of conversations at once: what belongs to
    one of them stands in `context.memory` (gone with the agent) or in the conversation's metadata (`context.update`).

    Order: `before_*` and the outer halves of `around_*` run in the order of `Agent.middleware`, `after_*` in the reverse. What a
    hook raises ends the turn as `Failed(MiddlewareError)`, which names the middleware and the hook; at the start, the boot.

    Cancellation: every hook of a turn is cancelled with the turn; `context.start_soon` is for what is to outlive it.
    """

    @property
    def middleware_id(self) -> str:
        """How it is called: by default its class. Unique in an agent; two of a class need ids of their own."""
        return type(self).__name__

    async def system_prompt(self, context: "MiddlewareContext") -> str:
        """Return what is added to the agent's prompt; asked before each turn. Empty adds nothing."""
        return ""

    async def tools(self, context: "MiddlewareContext") -> "Sequence[AnyTool]":
        """Return its tools; asked at the start, and again before the turn after `context.refresh_tools()`."""
        return ()

    async def on_start(self, context: "MiddlewareContext") -> None:
        """The agent starts: its state is there, nobody sees it yet. What this raises ends the start."""

    async def before_turn(self, context: "MiddlewareContext") -> None:
        """A turn begins; its messages are in the history. Not called when a turn goes on after an interrupt."""

    async def after_turn(self, context: "MiddlewareContext", outcome: TurnOutcome) -> None:
        """A turn is about to end as `outcome`: completed, interrupted or failed. Not called for one that is cut."""

    def turn_ended(self, context: "MiddlewareContext", outcome: TurnOutcome) -> None:
        """A turn has ended, however it did, also where it was cut: once for each. Synchronous; what it raises is logged."""

    async def before_model(self, context: "MiddlewareContext", request: ModelRequest) -> ModelRequest:
        """A model is about to be asked: return the request, or another. The stored history is not changed by it."""
        return request

    async def after_model(self, context: "MiddlewareContext", message: Message) -> Message:
        """A model has answered: return the message, or one with other text and none but its own calls."""
        return message

    async def around_model(
        self, context: "MiddlewareContext", request: ModelRequest, call_next: "Callable[[ModelRequest], Awaitable[ModelAnswer]]"
    ) -> "ModelAnswer":
        """Ask the model, by `call_next(request)`."""
        return await call_next(request)

    async def around_tool(
        self, context: "MiddlewareContext", call: ToolCall, call_next: "Callable[[ToolCall], Awaitable[CallResult]]"
    ) -> CallResult:
        """Run a call, by `call_next(call)`, at most once, as it is; or return a result without running it."""
        return await call_next(call)

    async def claim(self, context: "MiddlewareContext", call: ToolCall, tool: "Tool") -> PendingCall | None:
        """Return what a person has to decide before this call is run (`data.interrupts.pending`), or None."""
        return None

    async def answer(self, context: "MiddlewareContext", call: PendingCall, decision: Decision) -> str | None:
        """Look at a decision about a call that this middleware claimed, before it is recorded.

        In a task of `SubAgents`, and wherever a sub-agent has it and its parent has not: before the call goes on. It runs only while
        its sub-agent does; a decision that it refuses is on record then, and the call is not run.

        Returns:
            What the model reads instead of a result, for a call that is not run; None is the default text.

        Raises:
            ValueError: it will not do; whoever decided gets `InvalidDecision`, and the call waits on.
        """
        return None

    async def on_message(self, context: "MiddlewareContext", message: Opaque) -> None:
        """Take what the host sent by `notify_middleware`."""

    def transform_row(self, row: DisplayMessage) -> DisplayMessage | None:
        """Return how a row of the transcript is to look, with the same id; None leaves it out. Synchronous.

        What a host keeps in a `DisplayMessagePersistence` of its own stays as that made it: there, viewers see the row transformed,
        and `Sessions.history`, which such a host does not need, renders the state as it is.
        """
        return row

    def debug_summary(self) -> JSON:
        """Return its settings, for people who debug; no secrets. Synchronous."""
        return {}
