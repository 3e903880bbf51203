"""A `ConversationStore` as a `StoreAdapter`: commits as they are, and owners compared even if the store does not.

A load fences off whoever had loaded the conversation before, because it raises the epoch. So a store that does not compare owners
is asked who owns a conversation before anything else is asked of it: somebody who is refused must not have had an effect.

How the owner is found, if the store has no `get_owner`: the newest items of the store's list come first, and an agent that is up
in another process has written lately, so one short page is read each time. What was learnt before is trusted only if the
conversation is not on that page, and only in favour of the asker. The rest of the list is read only for a conversation that
exists and is neither on that page nor known. Nobody is refused for what was known once: the conversation may have been deleted
by another process, and made again by somebody else. A conversation that exists and is not listed for the asker is somebody
else's: a store may list by scope.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import trio

from trio_sagents._trio.hosts import await_host
from trio_sagents.data.json import Opaque
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
from trio_sagents.exceptions import ConversationNotFound, PersistenceError
from trio_sagents.storage.adapter import Asker, same_owner
from trio_sagents.storage.ports import ConversationStore, OwnedStore, OwnerLookup, UnfinishedLookup, WaitingLookup, WindowedStore
from trio_sagents.storage.returned import (
    checked_conversation,
    checked_deletion,
    checked_history,
    checked_list,
    checked_older,
    checked_owner,
    checked_recalled,
    checked_revision,
    checked_waiting,
)

log: Final = logging.getLogger("trio_sagents")
MAX_OWNERS: Final = 10_000
"""Owners of conversations that are remembered, for stores that neither compare owners nor have a `get_owner`."""
NEWEST: Final = 100
"""Items of the list that are read each time."""
PAGE: Final = 1000
"""Items of each further page of the list."""
MANY_PAGES: Final = 10
"""Pages that are read for one owner before a warning says that the store should have a `get_owner`."""


@attrs.frozen
class UnifiedStore:
    """A `ConversationStore` as it is."""

    store: ConversationStore
    _compares: bool = attrs.field(init=False)
    """Whether the store compares owners itself."""
    _owners: dict[str, Owner] = attrs.field(factory=dict)
    """What is known of owners; the one used last is at the end. At most `MAX_OWNERS`."""
    _warned: list[str] = attrs.field(factory=list)
    """The conversation that the warning about a long list was given for; empty before the warning."""

    @_compares.default  # pyright: ignore[reportAttributeAccessIssue]  # of the attrs field
    def _store_compares(self) -> bool:
        return isinstance(self.store, OwnedStore)

    @property
    def name(self) -> str:
        """The class of the store."""
        return type(self.store).__name__

    @property
    def keeps_windows(self) -> bool:
        """Whether the store is a `WindowedStore`."""
        return isinstance(self.store, WindowedStore)

    async def load(self, asker: Asker, conversation_id: str, agent_id: str, check: Check) -> Conversation | None:
        """Load the conversation; nothing is changed if another owner has it, or if `check` refuses it.

        A store that does not compare owners also has no `check` inside its transaction: what `check` refuses has a higher epoch
        then. If another process makes the conversation between the question and the load, its agent is fenced off.
        """
        if self._compares:
            return await self._load_compared(asker, conversation_id, check)
        if await self._is_foreign(asker, conversation_id):
            raise ConversationNotFound(conversation_id)
        returned: object = await await_host(self.store.load, asker.scope, conversation_id)
        if returned is None:
            return None
        found = checked_conversation(self.store, conversation_id, returned)
        self._remember(conversation_id, found.owner)
        if asker.owner is not UNCHECKED and not same_owner(found.owner, asker.owner):
            raise ConversationNotFound(conversation_id)
        check(found)
        return found

    async def _load_compared(self, asker: Asker, conversation_id: str, check: Check) -> Conversation | None:
        looked: list[Conversation] = []

        def look(conversation: Conversation) -> None:
            check(checked_conversation(self.store, conversation_id, conversation))
            looked.append(conversation)

        inside: Mapping[str, Opaque] = {"owner": asker.owner, "check": look}
        returned: object = await await_host(self.store.load, asker.scope, conversation_id, **inside)
        if returned is None:
            return None
        found = checked_conversation(self.store, conversation_id, returned)
        if not looked or looked[-1] is not found:  # the store has not called `check`, or not with this
            check(found)
        return found

    async def save(self, scope: Scope, commit: Commit, shown: Sequence[Message]) -> Saved:
        """Commit."""
        checked_revision(self.store, commit, await await_host(self.store.commit, scope, commit))
        if not self._compares:
            self._remember(commit.conversation_id, commit.owner)
        fresh = {message.message_id for message in shown}
        new = tuple(row for row in commit.rows if row.message_id in fresh)
        return Saved(new, tuple(row for row in commit.rows if row.message_id not in fresh))

    async def exists(self, asker: Asker, conversation_id: str) -> bool:
        """Ask for the owner, or for the newest row of the transcript: no epoch changes."""
        if self._must_compare(asker):
            return same_owner(await self._find_owner(asker, conversation_id), asker.owner)
        return await self._has(asker, conversation_id)

    async def history(self, asker: Asker, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage:
        """Return a page."""
        if self._must_compare(asker) and not same_owner(await self._find_owner(asker, conversation_id), asker.owner):
            raise ConversationNotFound(conversation_id)
        return await self._read(asker, conversation_id, before=before, limit=limit)

    async def recall(self, asker: Asker, conversation_id: str, names: Sequence[str]) -> Mapping[str, Recalled]:
        """Return what the index has."""
        if not isinstance(self.store, WindowedStore):
            await trio.lowlevel.checkpoint()
            return {}
        found: object = await await_host(self.store.recall, asker.scope, conversation_id, names, **self._inside(asker))
        return checked_recalled(self.store, names, found)

    async def older_messages(self, asker: Asker, conversation_id: str, *, before: str | None, limit: int) -> OlderPage:
        """Return a page; an empty one if the store has no windows."""
        if not isinstance(self.store, WindowedStore):
            await trio.lowlevel.checkpoint()
            return OlderPage(())
        page: object = await await_host(
            self.store.older_messages, asker.scope, conversation_id, before=before, limit=limit, **self._inside(asker)
        )
        return checked_older(self.store, page)

    async def conversations(self, asker: Asker, *, after: str | None, limit: int) -> ConversationPage:
        """Return a page; it has fewer items than asked for if the store gave conversations of other owners."""
        page = await self._list(asker, after=after, limit=limit)
        if not self._must_compare(asker):
            return page
        return attrs.evolve(page, items=tuple(item for item in page.items if same_owner(item.owner, asker.owner)))

    async def waiting(self, asker: Asker, *, after: str | None, limit: int) -> WaitingPage:
        """Return a page; it has fewer items than asked for if the store gave conversations of other owners."""
        if not isinstance(self.store, WaitingLookup):
            await trio.lowlevel.checkpoint()
            raise PersistenceError(f"{self.name} cannot list what waits for people; give it a method `waiting` (WaitingLookup)")
        returned: object = await await_host(self.store.waiting, asker.scope, after=after, limit=limit, **self._inside(asker))
        page = checked_waiting(self.store, returned)
        if not self._must_compare(asker):
            return page
        return attrs.evolve(page, items=tuple(item for item in page.items if same_owner(item.owner, asker.owner)))

    @property
    def lists_unfinished(self) -> bool:
        """Whether the store is an `UnfinishedLookup`."""
        return isinstance(self.store, UnfinishedLookup)

    async def unfinished(self, asker: Asker, *, after: str | None, limit: int) -> ConversationPage:
        """Return a page; it has fewer items than asked for if the store gave conversations of other owners."""
        if not isinstance(self.store, UnfinishedLookup):
            await trio.lowlevel.checkpoint()
            raise PersistenceError(f"{self.name} cannot list what is unfinished; give it a method `unfinished` (UnfinishedLookup)")
        returned: object = await await_host(self.store.unfinished, asker.scope, after=after, limit=limit, **self._inside(asker))
        page = checked_list(self.store, returned, "unfinished")
        if not self._must_compare(asker):
            return page
        return attrs.evolve(page, items=tuple(item for item in page.items if same_owner(item.owner, asker.owner)))

    async def delete(self, asker: Asker, conversation_id: str) -> bool:
        """Delete the conversation."""
        if self._must_compare(asker) and not same_owner(await self._find_owner(asker, conversation_id), asker.owner):
            return False
        returned: object = await await_host(self.store.delete, asker.scope, conversation_id, **self._inside(asker))
        self._owners.pop(conversation_id, None)
        return checked_deletion(self.store, returned)

    def forget(self, conversation_id: str) -> None:
        """Keep the owner: it is compared with the store's list when it is used."""

    # ── asking the store

    def _must_compare(self, asker: Asker) -> bool:
        return not self._compares and asker.owner is not UNCHECKED

    def _inside(self, asker: Asker) -> Mapping[str, Owner | Unchecked]:
        return {"owner": asker.owner} if self._compares else {}

    async def _read(self, asker: Asker, conversation_id: str, *, before: str | None, limit: int) -> HistoryPage:
        page: object = await await_host(self.store.history, asker.scope, conversation_id, before=before, limit=limit, **self._inside(asker))
        return checked_history(self.store, page)

    async def _list(self, asker: Asker, *, after: str | None, limit: int) -> ConversationPage:
        page: object = await await_host(self.store.conversations, asker.scope, after=after, limit=limit, **self._inside(asker))
        return checked_list(self.store, page)

    async def _has(self, asker: Asker, conversation_id: str) -> bool:
        try:
            await self._read(asker, conversation_id, before=None, limit=1)
        except ConversationNotFound:
            return False
        return True

    # ── owners, for a store that does not compare them

    async def _is_foreign(self, asker: Asker, conversation_id: str) -> bool:
        """Return whether another owner has the conversation, as far as can be said without loading it."""
        if asker.owner is UNCHECKED:
            return False
        try:
            owner = await self._find_owner(asker, conversation_id)
        except NotImplementedError:
            return False  # the store cannot list: its load alone can say it
        if owner is UNCHECKED:
            return await self._has(asker, conversation_id)
        return not same_owner(owner, asker.owner)

    async def _find_owner(self, asker: Asker, conversation_id: str) -> Owner | Unchecked:
        """Return who owns the conversation now; UNCHECKED if there is no such conversation, or none that this asker may see."""
        if isinstance(self.store, OwnerLookup):
            try:
                return checked_owner(self.store, await await_host(self.store.get_owner, asker.scope, conversation_id))
            except ConversationNotFound:
                return UNCHECKED
        page = await self._list(asker, after=None, limit=NEWEST)
        owner = _owner_on(page, conversation_id)
        known = self._owners.get(conversation_id, UNCHECKED)
        if owner is UNCHECKED and known is not UNCHECKED and page.after is not None and same_owner(known, asker.owner):
            return known
        if owner is UNCHECKED and page.after is not None and await self._has(asker, conversation_id):
            owner = await self._find_on_later_pages(asker, conversation_id, page.after)
        if owner is not UNCHECKED:
            self._remember(conversation_id, owner)
        return owner

    async def _find_on_later_pages(self, asker: Asker, conversation_id: str, after: str) -> Owner | Unchecked:
        cursors: dict[str, None] = {}
        while True:
            if after in cursors:
                raise PersistenceError(f"{type(self.store).__qualname__}.conversations returned the cursor {after[:40]!r} twice")
            cursors[after] = None
            page = await self._list(asker, after=after, limit=PAGE)
            if len(cursors) == MANY_PAGES and not self._warned:
                self._warned.append(conversation_id)
                log.warning(
                    "looking up the owner of conversation %r reads more than %d pages of %s.conversations; give the store a "
                    "get_owner (OwnerLookup), or let it compare owners itself (OwnedStore)",
                    conversation_id,
                    MANY_PAGES,
                    type(self.store).__qualname__,
                )
            owner = _owner_on(page, conversation_id)
            if owner is not UNCHECKED or page.after is None:
                return owner
            after = page.after

    def _remember(self, conversation_id: str, owner: Owner) -> None:
        self._owners.pop(conversation_id, None)
        self._owners[conversation_id] = owner
        if len(self._owners) > MAX_OWNERS:
            del self._owners[next(iter(self._owners))]


def _owner_on(page: ConversationPage, conversation_id: str) -> Owner | Unchecked:
    return next((item.owner for item in page.items if item.conversation_id == conversation_id), UNCHECKED)
