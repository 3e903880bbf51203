"""States in memory, for a host that has a `DisplayMessagePersistence` and no `AgentPersistence`."""

import datetime
from bisect import bisect_left

import attrs
import trio

from trio_sagents.data.json import JSON
from trio_sagents.data.records import UNCHECKED, ConversationItem, ConversationPage, Owner, PersistContext, StoredState, Unchecked
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import Conflict
from trio_sagents.storage.adapter import place_of, same_owner


@attrs.define(eq=False)
class MemoryStates:
    """An `AgentPersistence` that lives as long as its object. Unlike other ones it can list conversations, and delete them."""

    _states: dict[str, StoredState] = attrs.field(factory=dict)
    # Invariant: in the order of the last change, the newest one at the end; `_changes` has the same keys in the same order.
    _changes: dict[str, tuple[int, datetime.datetime]] = attrs.field(factory=dict)
    """The number of the last change, and when it was made."""
    _last: int = 0

    async def load_state(self, scope: Scope, context: PersistContext) -> StoredState | None:
        """Return the state."""
        await trio.lowlevel.checkpoint()
        return self._states.get(context.conversation_id)

    async def persist_state(self, scope: Scope, state_data: JSON, context: PersistContext) -> None:
        """Keep the state, if it is at the revision before this one."""
        await trio.lowlevel.checkpoint()
        name = context.conversation_id
        found = self._states.get(name)
        if (found is not None and found.epoch > context.epoch) or (found.revision if found else 0) != context.revision - 1:
            at = None if found is None else (found.epoch, found.revision)
            raise Conflict(name, expected=(context.epoch, context.revision - 1), found=at)
        self._drop(name)
        self._last += 1
        self._states[name] = StoredState(state_data, context.owner, context.epoch, context.revision)
        self._changes[name] = (self._last, datetime.datetime.now(datetime.UTC))

    def page(self, owner: Owner | Unchecked, after: str | None, limit: int) -> ConversationPage:
        """Return a page of an owner's conversations, the one that changed last first.

        Raises:
            ValueError: `after` does not come from an earlier page.
        """
        names = list(self._states)
        place = place_of("after", after)
        end = len(names) if place is None else bisect_left(names, place, key=lambda name: self._changes[name][0])
        found: list[ConversationItem] = []
        for name in reversed(names[:end]):
            state = self._states[name]
            if owner is UNCHECKED or same_owner(owner, state.owner):
                if len(found) == limit:
                    return ConversationPage(tuple(found), str(self._changes[found[-1].conversation_id][0]))
                found.append(self._item(name, state))
        return ConversationPage(tuple(found))

    def delete(self, conversation_id: str) -> bool:
        """Delete a state; return False if there is none."""
        is_there = conversation_id in self._states
        self._drop(conversation_id)
        return is_there

    def _drop(self, conversation_id: str) -> None:
        self._states.pop(conversation_id, None)
        self._changes.pop(conversation_id, None)

    def _item(self, name: str, state: StoredState) -> ConversationItem:
        title = state.data["metadata"].get("title")
        return ConversationItem(
            name, state.owner, title if isinstance(title, str) else None, len(state.data["messages"]), self._changes[name][1]
        )
