"""Presence: who is where, for as long as they are.

An entry is on a topic, under a key, exactly while somebody holds it. Whoever listens gets differences; each listener has at
most one that it has not taken, into which all later ones merge. So a slow listener costs nothing: what came and went before
it looked never was, and the difference is bounded by the entries there were and are. Nobody waits for a listener.

Everything but `list` and the listener's side is synchronous: no checkpoint, so an entry and the count of its topic never disagree.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import attrs
import trio

from trio_sagents.broadcast._pubsub import PubSub
from trio_sagents.data.json import JSON, plain_json

LazyMeta: TypeAlias = Callable[[], JSON]
"""Called when somebody reads the entry, and once when the entry leaves while somebody listens. Must not raise."""
CountChanged: TypeAlias = Callable[[int], None]


@attrs.frozen
class PresenceDiff:
    """What changed on a topic. An entry whose meta changed is in both."""

    joins: Mapping[str, Sequence[JSON]]
    """The metas of the entries that came, by key; each sequence in the order they came."""
    leaves: Mapping[str, Sequence[JSON]]
    """The metas of the entries that went, by key; each sequence in the order they went."""


class _Topic:
    """What is on a topic, and who looks at it. Exists only while there is something in it."""

    __slots__ = ("entries", "listeners", "name", "watchers")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.entries: dict[Tracked, None] = {}
        self.listeners: tuple[_Listener, ...] = ()
        self.watchers: tuple[_Watcher, ...] = ()


class Tracked:
    """One entry, held by whoever made it: the runtime's own way to be present. Made by `Presence.enter`."""

    __slots__ = ("_meta", "_presence", "_topic", "key")

    def __init__(self, presence: "Presence", topic: _Topic, key: str, meta: JSON | LazyMeta) -> None:
        self._presence = presence
        self._topic = topic
        self.key: str = key
        self._meta = meta

    @property
    def is_present(self) -> bool:
        """Whether it has not left yet."""
        return self in self._topic.entries

    def read_meta(self) -> JSON:
        """Return what it says of itself now: a new object."""
        meta = self._meta
        return _plain(meta() if callable(meta) else meta)

    def update(self, meta: JSON | LazyMeta | None) -> None:
        """Say something else of itself: listeners see the old meta leave and the new one join, in one difference.

        Args:
            meta: as for `Presence.enter`. A lazy meta that is replaced is called once more: let it tell what was, not what is.

        Raises:
            TypeError: it is no JSON; nothing was changed.
            ValueError: likewise.
        """
        new = _checked(meta)
        if not self.is_present:
            return
        for listener in self._topic.listeners:
            listener.note_leave(self)
        self._meta = new
        for listener in self._topic.listeners:
            listener.note_join(self)

    def leave(self) -> None:
        """Be gone; a second call does nothing."""
        topic = self._topic
        if self not in topic.entries:
            return
        del topic.entries[self]
        for listener in topic.listeners:
            listener.note_leave(self)
        self._presence.count_changed(topic)


class _Watcher:
    """One callback on the number of entries of a topic."""

    __slots__ = ("callback", "is_active")

    def __init__(self, callback: CountChanged) -> None:
        self.callback = callback
        self.is_active = True


class _Listener:
    """An iterator of differences: the one that was not taken yet, as the entries that joined and the metas that left."""

    def __init__(self, topic: _Topic) -> None:
        self.topic = topic
        # Invariant: bounded by the topic. An entry is in `joined` only while it is present, and each one that the reader
        # knows of has at most one meta in `left`.
        self.joined: dict[Tracked, None] = {}
        self.left: list[tuple[str, JSON]] = []
        self.woken = trio.Event()
        self.is_open = True

    def note_join(self, tracked: Tracked) -> None:
        """Add a join. It wakes the reader, who may find that it was undone."""
        self.joined[tracked] = None
        self.woken.set()

    def note_leave(self, tracked: Tracked) -> None:
        """Add a leave, or take back the join that the reader has not seen."""
        if tracked in self.joined:
            del self.joined[tracked]
        else:
            self.left.append((tracked.key, tracked.read_meta()))
            self.woken.set()

    def close(self) -> None:
        """End the iterator, also for a task that waits on it."""
        self.is_open = False
        self.woken.set()

    def __aiter__(self) -> "_Listener":
        return self

    async def __anext__(self) -> PresenceDiff:
        """Return the next difference.

        Cancellation: either it is returned, or it is still there for the next call.
        """
        await trio.lowlevel.checkpoint()
        while self.is_open and not self.joined and not self.left:
            if self.woken.is_set():
                self.woken = trio.Event()
            await self.woken.wait()
        # No checkpoint until the return: what is taken is handed over.
        if not self.is_open:
            raise StopAsyncIteration
        joined, left = self.joined, self.left
        self.joined, self.left = {}, []
        return PresenceDiff(_by_key((tracked.key, tracked.read_meta()) for tracked in joined), _by_key(left))


class Presence:
    """Who is where. Entries are those of this process: another `Presence`, here or elsewhere, has its own."""

    def __init__(self, pubsub: PubSub | None = None) -> None:
        """Make one with no entries.

        Args:
            pubsub: kept for the entries of other processes, which this version does not exchange; None: there is none.
        """
        self.pubsub = pubsub
        self._topics: dict[str, _Topic] = {}

    @asynccontextmanager
    async def track(self, topic: str, key: str, meta: JSON | None = None) -> AsyncIterator[None]:
        """Be on a topic exactly while the context is open.

        Args:
            topic: not empty. On `conversation_topic(id)` an entry is a viewer.
            key: who it is; not empty. May be tracked several times at once: each is an entry.
            meta: what others see of it: a JSON object, copied; None is {}.

        Raises:
            TypeError: an argument is of the wrong type; nothing was done.
            ValueError: an argument is empty, or `meta` no JSON; nothing was done.

        Cancellation: either the context was not entered and there is no entry, or the entry is gone when it has ended.
        """
        _check_names(topic, key)
        plain = _checked(meta)
        await trio.lowlevel.checkpoint()
        tracked = self.enter(topic, key, plain)
        try:
            yield
        finally:
            tracked.leave()

    async def list(self, topic: str) -> Mapping[str, Sequence[JSON]]:
        """Return who is on a topic: a new object, from each key to its metas, one for each entry, the first first.

        Cancellation: changes nothing.
        """
        await trio.lowlevel.checkpoint()
        found = self._topics.get(topic)
        return {} if found is None else _by_key((tracked.key, tracked.read_meta()) for tracked in found.entries)

    @asynccontextmanager
    async def changes(self, topic: str) -> AsyncIterator[AsyncIterator[PresenceDiff]]:
        """Listen to a topic while the context is open.

        Yields:
            An iterator of all that changes from now on. What has changed since the last difference is one difference; what
            came and went in between is in none. It ends with the context, for a task that still waits, too.

        Ordering: `list` after entering, and the differences then, tell all; one entry may be in both.

        Cancellation: either the context was not entered, or nothing is left of it when it has ended.
        """
        _check_names(topic, "-")
        await trio.lowlevel.checkpoint()
        entered = self._open_topic(topic)
        listener = _Listener(entered)
        entered.listeners = (*entered.listeners, listener)
        try:
            yield listener
        finally:
            entered.listeners = tuple(one for one in entered.listeners if one is not listener)
            listener.close()
            self._drop_if_empty(entered)

    # ── for the runtime: synchronous ──────────────────────────────────────────────────────────────────────────────────

    def enter(self, topic: str, key: str, meta: JSON | LazyMeta | None = None) -> Tracked:
        """Add an entry, and return what holds it: call its `leave` when it ends.

        Args:
            topic: not empty.
            key: not empty.
            meta: a JSON object, copied; or a function that returns one, called whenever somebody reads the entry, so that what
                changes often costs nothing; None is {}.

        Raises:
            TypeError: an argument is of the wrong type; nothing was done.
            ValueError: an argument is empty, or `meta` no JSON; nothing was done.
        """
        _check_names(topic, key)
        plain = _checked(meta)
        entered = self._open_topic(topic)
        tracked = Tracked(self, entered, key, plain)
        entered.entries[tracked] = None
        for listener in entered.listeners:
            listener.note_join(tracked)
        if entered.watchers:
            self.count_changed(entered)
        return tracked

    def count(self, topic: str) -> int:
        """Return how many entries are on a topic."""
        found = self._topics.get(topic)
        return 0 if found is None else len(found.entries)

    def watch_count(self, topic: str, callback: CountChanged) -> Callable[[], None]:
        """Call `callback` with the number of entries of a topic whenever that has changed.

        Args:
            topic: not empty.
            callback: sync; called in the task that changed it, after the change; must not raise. It may add and remove entries:
                the last number that it is given is always the true one.

        Returns:
            What undoes it: no call comes after that. A second call does nothing.
        """
        _check_names(topic, "-")
        watched = self._open_topic(topic)
        watcher = _Watcher(callback)
        watched.watchers = (*watched.watchers, watcher)

        def undo() -> None:
            if watcher.is_active:
                watcher.is_active = False
                watched.watchers = tuple(one for one in watched.watchers if one is not watcher)
                self._drop_if_empty(watched)

        return undo

    def count_changed(self, topic: _Topic) -> None:
        """Tell the watchers of a topic, and forget it if nothing is left: for this module."""
        for watcher in topic.watchers:
            if watcher.is_active:
                watcher.callback(len(topic.entries))
        self._drop_if_empty(topic)

    def _open_topic(self, name: str) -> _Topic:
        found = self._topics.get(name)
        if found is None:
            found = self._topics[name] = _Topic(name)
        return found

    def _drop_if_empty(self, topic: _Topic) -> None:
        # A callback of `count_changed` may have dropped it already, and another may stand under its name by now.
        if not topic.entries and not topic.listeners and not topic.watchers and self._topics.get(topic.name) is topic:
            del self._topics[topic.name]


def _check_names(topic: object, key: object) -> None:
    for name, value in (("topic", topic), ("key", key)):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a str, not {type(value).__name__}: {value!r}")
        if not value:
            raise ValueError(f"{name} must not be empty")


def _checked(meta: JSON | LazyMeta | None) -> JSON | LazyMeta:
    if meta is None:
        return {}
    return meta if callable(meta) else _plain(meta)


def _plain(meta: JSON) -> JSON:
    plain = plain_json(meta, "meta")
    if not isinstance(plain, dict):
        raise TypeError(f"meta must be a JSON object, not {type(meta).__name__}: {meta!r}")
    return plain


def _by_key(metas: Iterable[tuple[str, JSON]]) -> Mapping[str, Sequence[JSON]]:
    found: dict[str, list[JSON]] = {}
    for key, meta in metas:
        found.setdefault(key, []).append(meta)
    return found
