"""What the runtime asks of a store, whichever kind the host gave."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from trio_sagents.data.messages import Message
from trio_sagents.data.records import (
    UNCHECKED,
    Check,
    Commit,
    Conversation,
    ConversationPage,
    HistoryPage,
    OlderPage,
    Owner,
    Recalled,
    Saved,
    Unchecked,
    WaitingPage,
)
from trio_sagents.data.scopes import Scope


@attrs.frozen
class Asker:
    """Who asks a store: a scope, and its owner key if owners are compared."""

    scope: Scope = attrs.field(repr=False)
    """Handed to the store's methods as it is."""
    owner: Owner | Unchecked = UNCHECKED
    """Who must own the conversation; `UNCHECKED` means that anybody may."""


class StoreAdapter(Protocol):
    """A store as the runtime sees it. A conversation of another owner than the asker's is like a missing one.

    Cancellation: a write is either durable as a whole or changed nothing; a read changes nothing.
    """

    @property
    def name(self) -> str:
        """The class of the host's store, for errors and the log."""
        ...

    @property
    def keeps_windows(self) -> bool:
        """Whether a commit may have a checkpoint; see `WindowedStore`."""
        ...

    async def load(self, asker: Asker, conversation_id: str, agent_id: str, check: Check) -> Conversation | None:
        """Return the conversation with its epoch raised, or None if there is none.

        Raises:
            ConversationNotFound: another owner has the conversation; nothing was changed.
            StateError: the stored state is not usable; nothing was changed.
            PersistenceError: the store could not be read or written.

        Whatever `check` raises passes through, and the stored conversation stays as it was.
        """
        ...

    async def save(self, scope: Scope, commit: Commit, shown: Sequence[Message]) -> Saved:
        """Make a commit durable, and return the transcript rows that it added and changed.

        Args:
            scope: the agent's.
            commit: the change.
            shown: the messages that are new in the transcript, oldest first; may be empty.

        Raises:
            Conflict: another writer was faster; nothing was changed.
            PersistenceError: the commit could not be stored.
        """
        ...

    async def exists(self, asker: Asker, conversation_id: str) -> bool:
        """Return whether the conversation is stored. The epoch stays as it is.

        Raises:
            PersistenceError: the store could not be read.
        """
        ...

    async def history(self, asker: Asker, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage:
        """Return a page of the transcript, as `ConversationStore.history` does."""
        ...

    async def recall(self, asker: Asker, conversation_id: str, names: Sequence[str]) -> Mapping[str, Recalled]:
        """Return what the index of the messages before the window has under these names, as `WindowedStore.recall` does.

        Raises:
            PersistenceError: the store could not be read.
        """
        ...

    async def older_messages(self, asker: Asker, conversation_id: str, *, before: str | None, limit: int) -> OlderPage:
        """Return a page of the messages before the window, as `WindowedStore.older_messages` does.

        Raises:
            PersistenceError: the store could not be read.
        """
        ...

    async def conversations(self, asker: Asker, *, after: str | None, limit: int) -> ConversationPage:
        """Return a page of the asker's conversations, as `ConversationStore.conversations` does."""
        ...

    async def waiting(self, asker: Asker, *, after: str | None, limit: int) -> WaitingPage:
        """Return a page of the asker's conversations that wait for a person, as `WaitingLookup.waiting` does.

        Raises:
            PersistenceError: the store could not be read, or cannot list them.
        """
        ...

    @property
    def lists_unfinished(self) -> bool:
        """Whether the store can list the conversations that have work left."""
        ...

    async def unfinished(self, asker: Asker, *, after: str | None, limit: int) -> ConversationPage:
        """Return a page of the asker's conversations that have work left, as `UnfinishedLookup.unfinished` does.

        Raises:
            PersistenceError: the store could not be read, or cannot list them.
        """
        ...

    async def delete(self, asker: Asker, conversation_id: str) -> bool:
        """Delete the conversation; return False if there is none."""
        ...

    def forget(self, conversation_id: str) -> None:
        """Drop what is kept in memory of a conversation whose agent has ended."""
        ...


def place_of(name: str, cursor: str | None) -> int | None:
    """Return the place that the cursor of an earlier page names, or None for None.

    Args:
        name: what errors call the cursor.
        cursor: digits, as a page of this library's own has them.

    Raises:
        ValueError: it does not come from an earlier page.
    """
    if cursor is None:
        return None
    if not (isinstance(cursor, str) and cursor.isascii() and cursor.isdecimal() and len(cursor) < 20):
        raise ValueError(f"{name} must come from an earlier page, not {cursor!r}")
    return int(cursor)


def same_owner(left: object, right: object) -> bool:
    """Return whether two owner keys are the same: `1`, `"1"` and `None` are three different keys."""
    return type(left) is type(right) and left == right
