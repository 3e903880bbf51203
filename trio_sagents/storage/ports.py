"""What a host may implement to keep conversations.

The library checks what each method returns. A value of another type than the one that is declared here is treated as if the
method had raised: a `PersistenceError` that names the class and the method. A method that declares None may return anything.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol, runtime_checkable

from trio_sagents.data.json import JSON
from trio_sagents.data.messages import Message
from trio_sagents.data.records import (
    Commit,
    Conversation,
    ConversationPage,
    DisplayMessage,
    HistoryPage,
    OlderPage,
    Owner,
    PersistContext,
    Recalled,
    StoredState,
    WaitingPage,
)
from trio_sagents.data.scopes import Scope


@runtime_checkable
class ConversationStore(Protocol):
    """Keeps conversations: state and transcript as one unit.

    The library compares owners, unless the store does (`OwnedStore`). Before it loads, reads or deletes a conversation it asks
    who owns that conversation: by `get_owner` if the store has it (`OwnerLookup`), otherwise by reading the store's list, newest
    first, until the conversation appears. A store of many conversations should have one of the two.

    The library does not bound these calls. A public method of `Sessions` waits for them as long as its caller does; a start is
    bounded by `start_timeout`, and the end of an agent by `settle_timeout`.

    Cancellation: either the whole change is durable, or nothing was changed. The library itself cancels a commit only when the
    sessions close and `settle_timeout` is over.
    """

    async def load(self, scope: Scope, conversation_id: str) -> Conversation | None:
        """Return the conversation, or None if there is none, and raise its epoch in the same transaction.

        From then on a commit with an older epoch is refused.
        """
        ...

    async def commit(self, scope: Scope, commit: Commit) -> int:
        """Make a commit durable, all of it or none, and return `commit.revision`.

        Raises:
            Conflict: the store is not at (commit.epoch, commit.revision - 1); nothing was changed.
            PersistenceError: the commit could not be stored; nothing was changed.
        """
        ...

    async def history(self, scope: Scope, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage:
        """Return a page of the transcript.

        Args:
            scope: who asks.
            conversation_id: of the conversation.
            before: `HistoryPage.before` of a page, for the next older page; None for the newest page.
            limit: the most rows on the page, > 0.

        Raises:
            ConversationNotFound: there is no such conversation.
            ValueError: `before` does not come from a page of this store.
        """
        ...

    async def conversations(self, scope: Scope, *, after: str | None, limit: int) -> ConversationPage:
        """Return a page of the conversations that `scope` may list; the one that changed last comes first.

        What changes during a turn may leave the list as it is: see `Commit.comes_first`.

        Unless the store is an `OwnedStore` or an `OwnerLookup`, all conversations of an owner have to be listed for the scopes of
        that owner: one that is not listed is taken for another owner's. A store that cannot list raises NotImplementedError; then
        the owner is compared only after a load.

        Args:
            scope: who asks.
            after: `ConversationPage.after` of a page, for the next page; None for the first page.
            limit: the most items on the page, > 0.

        Raises:
            ValueError: `after` does not come from a page of this store.
        """
        ...

    async def delete(self, scope: Scope, conversation_id: str) -> bool:
        """Delete the conversation and its transcript; return False if there is none."""
        ...


@runtime_checkable
class OwnedStore(Protocol):
    """A `ConversationStore` that compares the owner inside its own transactions: each of its methods takes `owner`, too.

    In such a store a conversation of another owner is like a missing one, and is not touched. `load` takes `check`, too: a
    function that looks at the conversation inside the loading transaction, perhaps in a thread. What `check` raises undoes the
    transaction. The stores of this library are such stores.
    """

    checks_owner: Literal[True]


@runtime_checkable
class OwnerLookup(Protocol):
    """A `ConversationStore` that can say who owns a conversation, without loading it.

    Cancellation: nothing is changed.
    """

    async def get_owner(self, scope: Scope, conversation_id: str) -> Owner:
        """Return the owner that the first commit of the conversation had; nothing is changed.

        Raises:
            ConversationNotFound: there is no such conversation.
        """
        ...


@runtime_checkable
class WaitingLookup(Protocol):
    """A `ConversationStore` that can list the conversations that wait for a person, without loading them.

    A conversation waits as long as the "interrupt" in its stored state is not None; `trio_sagents.read_interrupt` reads it. The store
    keeps an index of these conversations: the list must not read all conversations. An `OwnedStore` takes `owner` here, too.

    Cancellation: nothing is changed.
    """

    async def waiting(self, scope: Scope, *, after: str | None, limit: int) -> WaitingPage:
        """Return a page of the waiting conversations that `scope` may list; the one that has waited longest comes first.

        Args:
            scope: who asks.
            after: `WaitingPage.after` of a page, for the next page; None for the first page.
            limit: the most items on the page, > 0.

        Raises:
            ValueError: `after` does not come from a page of this store.
        """
        ...


@runtime_checkable
class UnfinishedLookup(Protocol):
    """A `ConversationStore` that can list the conversations that have work left, without loading them: `open_sessions(recover=True)` asks.

    A conversation has work left as long as "unfinished" in its stored state is not None. The store keeps an index of these conversations:
    the list must not read all conversations. An `OwnedStore` takes `owner` here, too.

    Cancellation: nothing is changed.
    """

    async def unfinished(self, scope: Scope, *, after: str | None, limit: int) -> ConversationPage:
        """Return a page of the conversations that have work left, in an order in which a conversation keeps its place.

        Args:
            scope: who asks.
            after: `ConversationPage.after` of a page, for the next page; None for the first page.
            limit: the most items on the page, > 0.

        Raises:
            ValueError: `after` does not come from a page of this store.
        """
        ...


@runtime_checkable
class WindowedStore(Protocol):
    """A `ConversationStore` that can leave the older part of a conversation out of what it loads.

    A commit may have a `Checkpoint`. From then on `load` returns the window alone, with `Conversation.older`: the first
    `checkpoint.lead` messages, and those from the place `checkpoint.lead + checkpoint.older` on; and of the message ids those that are
    in the window or in the queue. Nothing is deleted: the store still refuses a message id that was ever used, and its two methods
    here read what is not loaded. The names of `checkpoint.known` go into an index, in the same transaction.

    A store without these methods is never given a checkpoint: it loads whole histories, and `SessionPolicy.max_state_bytes` bounds them.
    An `OwnedStore` takes `owner` here, too.

    Cancellation: nothing is changed.
    """

    async def recall(self, scope: Scope, conversation_id: str, names: Sequence[str]) -> Mapping[str, Recalled]:
        """Return what the index has under these names: for each name the messages at its two places. Unknown names are left out."""
        ...

    async def older_messages(self, scope: Scope, conversation_id: str, *, before: str | None, limit: int) -> OlderPage:
        """Return a page of the messages that are not in the window, oldest first.

        Args:
            scope: who asks.
            conversation_id: of the conversation.
            before: `OlderPage.before` of a page, for the next older page; None for the page right before the window.
            limit: the most messages on the page, > 0.

        Raises:
            ConversationNotFound: there is no such conversation.
            ValueError: `before` does not come from a page of this store.
        """
        ...


@runtime_checkable
class OpenableStore(Protocol):
    """A store that holds something open: `open_sessions` opens it first, and closes it after the last write."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Open the store; raise a PersistenceError that says what to do if the store cannot be used."""
        ...


class AgentPersistence(Protocol):
    """A host's own store of states, as whole snapshots: each write costs as much as the conversation is long.

    `state_data` is a JSON object:

    - "version": the schema version, an int.
    - "messages": the history, a list of records, oldest first.
    - "queue": accepted messages that no turn has taken yet, a list of records, oldest first.
    - "todos": a list of records.
    - "metadata": an object. Keys that begin with "trio_sagents." are the library's own.
    - "interrupt": what waits for people, an object, or None.

    A new object comes with each write, and the library does not change it afterwards.

    Optional: `async def set_interrupted(self, scope, context, interrupted: bool) -> None` is called after a write with which
    the conversation began or ceased to wait for people. A call that fails, or takes longer than half of
    `SessionPolicy.settle_timeout`, is made again with the next write, and with each load.

    Cancellation: as for `ConversationStore`.
    """

    async def load_state(self, scope: Scope, context: PersistContext) -> StoredState | None:
        """Return the stored state, or None if there is none. An error ends the start and leaves the stored state as it is."""
        ...

    async def persist_state(self, scope: Scope, state_data: JSON, context: PersistContext) -> None:
        """Store the state, with `context.owner`, `context.epoch` and `context.revision` beside it.

        Raises:
            Conflict: the store is not at `context.revision - 1`, or it is at a later epoch; nothing was changed.
        """
        ...


class RowPersistence(Protocol):
    """What a `DisplayMessagePersistence` may have, too: it keeps rows that show no message.

    Such rows are those that tools, middleware and the host add (`Row`), and those of answers to questions. Without this method only
    viewers who follow the conversation at that moment see them. A call that fails is logged, and not made again.

    Cancellation: as for `ConversationStore`.
    """

    async def save_row(self, scope: Scope, row: DisplayMessage, context: PersistContext) -> None:
        """Store a row, or replace the row with the same id, in its place.

        Cancellation: either the row is stored, or nothing was done.
        """
        ...


class DisplayMessagePersistence(Protocol):
    """A host's own store of the transcript. It may also be a `RowPersistence`.

    A call that fails never stops the conversation: the error is logged, and the call is made again. It fails if it raises, if it
    returns something else than rows, or if the calls of one write have not returned within half of `SessionPolicy.settle_timeout`.
    Failed calls are made again after each later write, the oldest one first, until one fails again; when the conversation is next
    loaded all of them are made again. So both methods have to be idempotent: by row id, and by call id and status.

    Cancellation: as for `ConversationStore`; a cancelled call is made again.
    """

    async def save_message(self, scope: Scope, message: Message, context: PersistContext) -> Sequence[DisplayMessage]:
        """Store the rows that show `message`, and return them: a list or another sequence, in order; may be empty."""
        ...

    async def update_tool_status(self, scope: Scope, status: str, tool_info: JSON, context: PersistContext) -> DisplayMessage | None:
        """Store a step in the life of a tool call; return the changed row, or None if there is no such row.

        Args:
            scope: the agent's.
            status: a `ToolStatus`. For one call the statuses come in order; one that failed is left out if a later one was stored.
            tool_info: {"call_id", "name"}, and "arguments", "result" or "error", depending on the status.
            context: which write this is.
        """
        ...
