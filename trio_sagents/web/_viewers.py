"""Presence: one entry per person and conversation, however many pages they have, and a short grace when the last one has gone.

The grace is waited for by the connection that left last, in its own task. So there is no task beside the connections, and at most one of
them waits for each person and conversation: a page that comes takes the entry over, and whoever waited for it goes.
"""

from collections.abc import Iterable
from typing import Protocol, TypeAlias

import attrs
import trio

from trio_sagents import Presence, conversation_topic

Key: TypeAlias = tuple[str, str]
"""(viewer, conversation id)."""


@attrs.define(eq=False)
class _Wait:
    """A connection that has gone, and what it holds until the grace is over."""

    keys: set[Key]
    is_over: trio.Event = attrs.field(factory=trio.Event)


class Entry(Protocol):
    """An entry of a presence."""

    def leave(self) -> None:
        """Take the entry away."""
        ...


@attrs.define(eq=False)
class _Held:
    entry: Entry
    pages: int = 0
    wait: _Wait | None = None
    # Invariant: either `pages` is not 0, or `wait` is who removes the entry.


@attrs.define(eq=False)
class Viewers:
    """Who of this bridge watches what."""

    _presence: Presence
    _grace: float
    _held: dict[Key, _Held] = attrs.field(factory=dict)
    _waits: set[_Wait] = attrs.field(factory=set)
    _is_closed: bool = False

    def __len__(self) -> int:
        return len(self._held)

    def enter(self, viewer: str, conversation_id: str) -> None:
        """A visible page of somebody shows a conversation. Each call is undone by one of the others."""
        key = (viewer, conversation_id)
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = _Held(self._presence.enter(conversation_topic(conversation_id), viewer))
        held.pages += 1
        if held.wait is not None:
            held.wait.keys.discard(key)
            if not held.wait.keys:
                held.wait.is_over.set()
            held.wait = None

    def leave(self, viewer: str, conversation_id: str) -> None:
        """The page is hidden, or does not show the conversation any more: there is no grace."""
        if self._release((viewer, conversation_id)):
            self._remove((viewer, conversation_id))

    async def linger(self, viewer: str, conversation_ids: Iterable[str]) -> None:
        """The connection of the page has ended: stay for the grace, unless another page of the person comes before.

        Cancellation: the entries are gone.
        """
        keys = [(viewer, conversation_id) for conversation_id in conversation_ids]
        wait = _Wait({key for key in keys if self._release(key)})
        for key in wait.keys:
            self._held[key].wait = wait
        self._waits.add(wait)
        try:
            with trio.move_on_after(self._grace if wait.keys and not self._is_closed else 0):
                await wait.is_over.wait()
        finally:
            self._waits.discard(wait)
            for key in wait.keys:
                self._remove(key)

    def close(self) -> None:
        """End every grace."""
        self._is_closed = True
        for wait in self._waits:
            wait.is_over.set()

    def _release(self, key: Key) -> bool:
        """Take one page away; return whether it was the last one."""
        held = self._held[key]
        held.pages -= 1
        return held.pages == 0

    def _remove(self, key: Key) -> None:
        self._held.pop(key).entry.leave()
