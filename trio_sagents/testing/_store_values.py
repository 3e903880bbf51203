"""The values that the conformance kit stores, and how it reads them again."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.records import (
    Check,
    Checkpoint,
    Commit,
    Conversation,
    ConversationPage,
    DisplayMessage,
    HistoryPage,
    OlderPage,
    Owner,
    Recalled,
    Unchecked,
    accept_all,
)
from trio_sagents.data.scopes import Scope
from trio_sagents.storage.ports import ConversationStore

EPOCH_START: Final = 1
AT: Final = datetime.datetime(2024, 2, 29, 23, 59, 58, 123456, tzinfo=datetime.UTC)
AWKWARD: Final = ("Ünïcode 🙂 \u202e \u2028", "quote ' \" ; DROP TABLE messages; --", "nul \x00 and \x1f", "%_\\", "")


class OwnedMethods(Protocol):
    """The methods of an `OwnedStore`, as the kit calls them."""

    async def load(
        self, scope: Scope, conversation_id: str, *, owner: Owner | Unchecked, check: Check = accept_all
    ) -> Conversation | None: ...
    async def commit(self, scope: Scope, commit: Commit, *, owner: Owner | Unchecked) -> int: ...
    async def history(
        self, scope: Scope, conversation_id: str, *, before: str | None, limit: int, owner: Owner | Unchecked
    ) -> HistoryPage: ...
    async def conversations(self, scope: Scope, *, after: str | None, limit: int, owner: Owner | Unchecked) -> ConversationPage: ...
    async def delete(self, scope: Scope, conversation_id: str, *, owner: Owner | Unchecked) -> bool: ...


class OwnedWindows(Protocol):
    """The methods of a `WindowedStore` that is an `OwnedStore`, as the kit calls them."""

    async def recall(
        self, scope: Scope, conversation_id: str, names: Sequence[str], *, owner: Owner | Unchecked
    ) -> Mapping[str, Recalled]: ...
    async def older_messages(
        self, scope: Scope, conversation_id: str, *, before: str | None, limit: int, owner: Owner | Unchecked
    ) -> OlderPage: ...


def message(message_id: str, text: str = "Hello") -> JSON:
    """Return a stored message."""
    return {"v": 1, "message_id": message_id, "role": "user", "parts": [{"type": "text", "text": text}]}


def row(row_id: str, text: str = "Hello") -> DisplayMessage:
    """Return a row of a transcript."""
    return DisplayMessage(row_id, f"message-of-{row_id}", "user", "text", {"text": text}, "completed", AT)


def change(  # as many parameters as a commit has fields
    conversation_id: str = "c",
    revision: int = 1,
    *,
    epoch: int = EPOCH_START,
    owner: Owner = None,
    messages: Sequence[JSON] = (),
    queued: Sequence[JSON] = (),
    taken: Sequence[str] = (),
    message_ids: Mapping[str, str] | None = None,
    state: JSON | None = None,
    rows: Sequence[DisplayMessage] = (),
    checkpoint: Checkpoint | None = None,
) -> Commit:
    """Return a commit that changes only what is given."""
    return Commit(
        conversation_id=conversation_id,
        agent_id=f"conversation-{conversation_id}",
        owner=owner,
        epoch=epoch,
        revision=revision,
        lifecycle="on_completion",
        messages=messages,
        queued=queued,
        taken=taken,
        message_ids=message_ids or {},
        state=state or {},
        rows=rows,
        checkpoint=checkpoint,
    )


async def loaded(store: ConversationStore, conversation_id: str = "c") -> Conversation:
    """Load a conversation that exists; this raises its epoch."""
    conversation = await store.load(None, conversation_id)
    assert conversation is not None
    return conversation


async def texts(store: ConversationStore, conversation_id: str = "c", limit: int = 1000) -> list[JSONValue]:
    """Return the texts of the whole transcript, read in pages."""
    pages: list[list[JSONValue]] = []
    before: str | None = None
    seen: set[str] = set()
    while True:
        page = await store.history(None, conversation_id, before=before, limit=limit)
        pages.insert(0, [entry.content["text"] for entry in page.rows])
        before = page.before
        if before is None:
            return [text for found in pages for text in found]
        assert before not in seen, f"history gave the cursor {before!r} twice: a reader that follows it never ends"
        seen.add(before)


async def listed(store: ConversationStore, limit: int = 1000) -> list[str]:
    """Return the ids of all conversations, read in pages."""
    found: list[str] = []
    after: str | None = None
    seen: set[str] = set()
    while True:
        page = await store.conversations(None, after=after, limit=limit)
        found += [item.conversation_id for item in page.items]
        after = page.after
        if after is None:
            return found
        assert after not in seen, f"conversations gave the cursor {after!r} twice: a reader that follows it never ends"
        seen.add(after)
