"""The way to a `ConversationStore`: commits as they are, owners compared whatever the store does."""

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from trio_sagents._trio.hosts import await_host
from trio_sagents.data.json import Opaque
from trio_sagents.data.messages import Message
from trio_sagents.data.records import UNCHECKED, Check, Commit, Conversation, ConversationPage, HistoryPage, Owner, Saved, Unchecked
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import ConversationNotFound
from trio_sagents.storage.adapter import Asker, same_owner
from trio_sagents.storage.ports import ConversationStore, OwnedStore

MAX_OWNERS: Final = 10_000
"""Owners of conversations that are remembered, for stores that do not compare owners themselves."""
PAGE: Final = 1000


@attrs.frozen
class UnifiedStore:
    """A `ConversationStore` as it is.

    One that does not compare owners (`OwnedStore`) is compared here. Who owns a conversation is remembered from its loads and
    commits; of one that nobody has touched yet it is looked up in the store's list, for a load would fence whoever writes to it.
    """

    store: ConversationStore
    _compares: bool = attrs.field(init=False)
    """Whether the store compares owners itself."""
    _owners: dict[str, Owner] = attrs.field(factory=dict)
    """What is known of owners, the one used last at the end; at most `MAX_OWNERS`."""

    @_compares.default  # pyright: ignore[reportAttributeAccessIssue]  # of the attrs field
    def _store_compares(self) -> bool:
        return isinstance(self.store, OwnedStore)

    def _owner(self, asker: Asker) -> Mapping[str, Owner | Unchecked]:
        return {"owner": asker.owner} if self._compares else {}

    def _remember(self, conversation_id: str, owner: Owner) -> None:
        self._owners.pop(conversation_id, None)
        self._owners[conversation_id] = owner
        if len(self._owners) > MAX_OWNERS:
            del self._owners[next(iter(self._owners))]

    async def _require_owner(self, asker: Asker, conversation_id: str) -> None:
        """Raise ConversationNotFound for another owner's conversation."""
        if self._compares or isinstance(asker.owner, Unchecked):
            return
        after: str | None = None
        while conversation_id not in self._owners:
            page: ConversationPage = await await_host(self.store.conversations, asker.scope, after=after, limit=PAGE)
            if any(item.conversation_id == conversation_id for item in page.items):
                self._remember(conversation_id, next(item.owner for item in page.items if item.conversation_id == conversation_id))
            elif page.after is None:
                raise ConversationNotFound(conversation_id)
            after = page.after
        if not same_owner(self._owners[conversation_id], asker.owner):
            raise ConversationNotFound(conversation_id)

    async def load(self, asker: Asker, conversation_id: str, agent_id: str, check: Check) -> Conversation | None:
        """Load it; a store that does not compare owners, or look inside its transaction, is compared and looked at here."""
        if self._compares:
            inside: Mapping[str, Opaque] = {"owner": asker.owner, "check": check}
            return await await_host(self.store.load, asker.scope, conversation_id, **inside)
        found: Conversation | None = await await_host(self.store.load, asker.scope, conversation_id)
        if found is not None:
            self._remember(conversation_id, found.owner)
            if asker.owner is not UNCHECKED and not same_owner(found.owner, asker.owner):
                raise ConversationNotFound(conversation_id)
            check(found)
        return found

    async def save(self, scope: Scope, commit: Commit, shown: Sequence[Message]) -> Saved:
        """Commit it."""
        await await_host(self.store.commit, scope, commit)
        if not self._compares:
            self._remember(commit.conversation_id, commit.owner)
        fresh = {message.message_id for message in shown}
        new = tuple(row for row in commit.rows if row.message_id in fresh)
        return Saved(new, tuple(row for row in commit.rows if row.message_id not in fresh))

    async def exists(self, asker: Asker, conversation_id: str) -> bool:
        """Ask for the newest row of the transcript: every store has an answer to that, and no epoch changes."""
        try:
            await self.history(asker, conversation_id, before=None, limit=1)
        except ConversationNotFound:
            return False
        return True

    async def history(self, asker: Asker, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage:
        """Return a page."""
        await self._require_owner(asker, conversation_id)
        return await await_host(self.store.history, asker.scope, conversation_id, before=before, limit=limit, **self._owner(asker))

    async def conversations(self, asker: Asker, *, after: str | None, limit: int) -> ConversationPage:
        """Return a page; it may be short where the store gave other owners' conversations."""
        page: ConversationPage = await await_host(self.store.conversations, asker.scope, after=after, limit=limit, **self._owner(asker))
        if self._compares or isinstance(asker.owner, Unchecked):
            return page
        return attrs.evolve(page, items=tuple(item for item in page.items if same_owner(item.owner, asker.owner)))

    async def delete(self, asker: Asker, conversation_id: str) -> bool:
        """Delete it."""
        try:
            await self._require_owner(asker, conversation_id)
        except ConversationNotFound:
            return False
        deleted: bool = await await_host(self.store.delete, asker.scope, conversation_id, **self._owner(asker))
        self._owners.pop(conversation_id, None)
        return deleted

    def forget(self, conversation_id: str) -> None:
        """Who owns it is remembered on."""
