"""What you may implement. The library calls these; it never asks how they do it.

Whatever may wait is `async def`; a plain function in its place is a TypeError at first use, which names it. A scope is the
host's own object: handed through, never stored.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from trio_sagents.data.decisions import Decision
from trio_sagents.data.interrupts import PendingCall
from trio_sagents.data.json import JSON, Opaque, Options
from trio_sagents.data.messages import Message, ToolCall, UserMessage
from trio_sagents.data.messages import ToolResult as CallResult
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.data.records import (
    Commit,
    Conversation,
    ConversationPage,
    DisplayMessage,
    HistoryPage,
    Owner,
    PersistContext,
    StoredState,
)
from trio_sagents.data.requests import ModelChunk, ModelRequest

if TYPE_CHECKING:
    from trio_sagents.agent import Agent, MiddlewareContext, ModelAnswer, Tool
    from trio_sagents.agent import ToolLike as AnyTool
    from trio_sagents.data.config import SessionOpts

Scope: TypeAlias = Opaque
Action: TypeAlias = Literal["start", "view", "post", "decide", "cancel", "stop", "debug", "list", "delete"]
Overlap: TypeAlias = Literal["queue", "steer", "interrupt", "reject"]
MessagePreprocessor: TypeAlias = Callable[[UserMessage, Scope], Awaitable[UserMessage | tuple[UserMessage, UserMessage]]]
"""(message, scope) -> what the model sees, or (what the model sees, what people see). Raising refuses the message."""
Built: TypeAlias = "Agent | tuple[Agent, SessionOpts]"


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


class FactoryRouter(Protocol):
    """Says which factory builds the agent of a conversation. Asked once per boot, never while the agent runs.

    Cancellation: the boot is being aborted, by a stop or by `start_timeout`: leave nothing behind.
    """

    async def resolve(self, scope: Scope, conversation_id: str, request_opts: Options) -> "tuple[Factory, Opaque]":
        """Return the factory, and the config that goes to it as it is.

        Args:
            scope: of the caller whose call boots the agent.
            conversation_id: as the caller gave it.
            request_opts: the caller's, as they are.
        """
        ...


class Factory(Protocol):
    """Builds agents.

    Cancellation: the boot is being aborted, by a stop or by `start_timeout`: leave nothing behind.
    """

    async def create_agent(self, agent_id: str, config: Opaque) -> Built:
        """Return an agent, or an agent and the options of its session."""
        ...


class Authorizer(Protocol):
    """Says who may do what. Asked at every entry, warm or cold, and again at every command of a handle.

    Optional: `def actor_of(self, scope) -> str | int | None`, synchronous: who that is, for the record of a decision.

    Cancellation: the caller has gone; either it answers, or nothing was done.
    """

    async def authorize(self, scope: Scope, conversation_id: str, action: Action) -> bool:
        """Return whether `scope` may do `action`; a refused caller cannot tell the conversation from a missing one."""
        ...


@runtime_checkable
class ConversationStore(Protocol):
    """Keeps conversations: state and transcript as one unit.

    Owners are compared by the library: with what `load` and `commit` have told, or, for a conversation that was not touched since
    the process began, with the store's list. A store that compares them itself (`OwnedStore`) is spared that.

    Cancellation: either the whole change is durable, or nothing was changed. The library itself cancels a commit only when the
    sessions close and `settle_timeout` is over.
    """

    async def load(self, scope: Scope, conversation_id: str) -> Conversation | None:
        """Return the conversation, or None where there is none, and raise its epoch in the same transaction.

        From then on a commit with an older epoch is refused.
        """
        ...

    async def commit(self, scope: Scope, commit: Commit) -> int:
        """Make a commit durable, all of it or none, and return its revision.

        Raises:
            Conflict: the store is not at (commit.epoch, commit.revision - 1); nothing was changed.
            PersistenceError: it could not be done.
        """
        ...

    async def history(self, scope: Scope, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage:
        """Return a page of the transcript, the newest page where `before` is None; ConversationNotFound where there is none."""
        ...

    async def conversations(self, scope: Scope, *, after: str | None, limit: int) -> ConversationPage:
        """Return a page of the conversations that `scope` may list, the one changed last first."""
        ...

    async def delete(self, scope: Scope, conversation_id: str) -> bool:
        """Delete the conversation and its transcript; False where there is none."""
        ...


@runtime_checkable
class OwnedStore(Protocol):
    """A `ConversationStore` that compares the owner inside its own transactions: each method takes `owner`, too.

    A foreign conversation is like a missing one there, and is not touched. `load` takes `check`, too: a function that looks at
    the conversation inside the loading transaction, perhaps in a thread; what it raises undoes the transaction. The stores of
    this library are such.
    """

    checks_owner: Literal[True]


@runtime_checkable
class OpenableStore(Protocol):
    """A store that holds something open: `open_sessions` opens it, and closes it after the last write."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Open it; PersistenceError where it cannot be used, naming the file and what to do."""
        ...


class AgentPersistence(Protocol):
    """A host's own store of states, as whole snapshots: each write costs as much as the conversation is long.

    `state_data` is {"version", "messages", "queue" (accepted, not yet taken), "todos", "metadata", "interrupt"}: plain JSON.
    Optional: `async def set_interrupted(self, scope, context, interrupted: bool) -> None`, called when that changes.

    Cancellation: as of `ConversationStore`.
    """

    async def load_state(self, scope: Scope, context: PersistContext) -> StoredState | None:
        """Return the stored state, or None where there is none. Anything raised ends the start and leaves the row alone."""
        ...

    async def persist_state(self, scope: Scope, state_data: JSON, context: PersistContext) -> None:
        """Store the state, with `context.owner` beside it, if the store is at `context.revision - 1`; else raise `Conflict`."""
        ...


class DisplayMessagePersistence(Protocol):
    """A host's own store of the transcript. Idempotent by row id: a message may be offered again after a crash.

    Optional: `resolve_tool_result`, `save_synthetic_message`.

    Cancellation: as of `ConversationStore`; the rows are offered again.
    """

    async def save_message(self, scope: Scope, message: Message, context: PersistContext) -> Sequence[DisplayMessage]:
        """Store the rows that show `message`, and return them."""
        ...

    async def update_tool_status(self, scope: Scope, status: str, tool_info: JSON, context: PersistContext) -> DisplayMessage | None:
        """Store a step in the life of a tool call; return the changed row, or None where there is none."""
        ...


class Leases(Protocol):
    """Says which process may run the agent of a conversation, for a while; several processes ask the same one.

    A lease saves work, and proves nothing: a process may be paused while its lease ends. What keeps a conversation whole is the
    epoch of its store, which every load raises. Times here are durations, counted by a clock of the implementation's own.

    Cancellation: nobody knows whether it was done; the library gives back what it may have got.
    """

    async def acquire(self, conversation_id: str, holder: str, ttl: float) -> float | None:
        """Let `holder` have the lease for `ttl` seconds from now, unless another holder has it.

        Returns:
            None where it has it now, also where it had it before; else the seconds until the other's lease ends, > 0.
        """
        ...

    async def renew(self, conversation_ids: Sequence[str], holder: str, ttl: float) -> Collection[str]:
        """Let `holder` keep its leases for `ttl` seconds from now.

        Returns:
            Those of the ids whose lease it had, and has. One that has ended is not renewed, whoever had it: its holder acquires it.
        """
        ...

    async def release(self, conversation_id: str, holder: str) -> None:
        """End the lease of `holder`; nothing happens where it has none, or where it is another's by now."""
        ...


class PubSub(Protocol):
    """Carries bytes between processes. Lossy by contract: it may drop, double and reorder."""

    max_payload: int

    def publish(self, topic: str, payload: bytes) -> None:
        """Send, without waiting."""
        ...

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Listen while the context is open."""
        ...


__all__ = (
    "Action",
    "AgentPersistence",
    "Authorizer",
    "ConversationStore",
    "DisplayMessagePersistence",
    "Factory",
    "FactoryRouter",
    "Leases",
    "MessagePreprocessor",
    "Middleware",
    "Model",
    "OpenableStore",
    "Overlap",
    "OwnedStore",
    "Owner",
    "PubSub",
    "Scope",
)
