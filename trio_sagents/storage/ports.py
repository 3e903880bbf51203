"""What a host may implement to keep conversations."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol, runtime_checkable

from trio_sagents.data.json import JSON
from trio_sagents.data.messages import Message
from trio_sagents.data.records import Commit, Conversation, ConversationPage, DisplayMessage, HistoryPage, PersistContext, StoredState
from trio_sagents.data.scopes import Scope


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
