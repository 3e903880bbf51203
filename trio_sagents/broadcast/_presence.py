"""Presence: who is where, for as long as they are.

An entry is on a topic, under a key, exactly while somebody holds it. A listener gets differences. Each listener has at most one difference
that it has not taken, and all later ones merge into it. So a slow listener costs nothing: what came and went before the listener looked
never was, and the difference is bounded by the entries that there were and are. Nobody waits for a listener.

Entries of this process are known at once. The entries of other presences on the same bus come and go as `_exchange` learns of them, and
look no different to whoever lists, listens or counts.

Everything but `list`, `run` and the listener's side is synchronous: no checkpoint, so an entry and the count of its topic never disagree.
"""

import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import attrs
import trio

from trio_sagents.broadcast._exchange import Exchange
from trio_sagents.broadcast._presence_wire import MAX_INTERVAL
from trio_sagents.broadcast._pubsub import PubSub
from trio_sagents.data.config import check_timeout
from trio_sagents.data.json import JSON, plain_json

LazyMeta: TypeAlias = Callable[[], JSON]
"""Called when somebody reads the entry, when the entry is sent to other processes, and once when it leaves while somebody listens. It must
not raise."""
CountChanged: TypeAlias = Callable[[int], None]
HEARTBEAT: Final = 5.0
"""Seconds between two messages to the other presences on a bus, by default."""


@attrs.frozen
class PresenceDiff:
    """What changed on a topic. An entry whose meta changed is in both."""

    joins: Mapping[str, Sequence[JSON]]
    """The metas of the entries that came, by key; each sequence in the order in which they came."""
    leaves: Mapping[str, Sequence[JSON]]
    """The metas of the entries that left, by key; each sequence in the order in which they left."""


class _Topic:
    """What is on a topic, and who listens to it. It exists only while there is something in it."""

    __slots__ = ("entries", "listeners", "name")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.entries: dict[Tracked, None] = {}
        self.listeners: tuple[_Listener, ...] = ()


class Tracked:
    """One entry, held by whoever made it: the runtime's own way to be present. Made by `Presence.enter`."""

    __slots__ = ("_meta", "_presence", "_topic", "is_remote", "key", "number")

    def __init__(self, presence: "Presence", topic: _Topic, key: str, meta: JSON | LazyMeta, number: int, *, is_remote: bool) -> None:
        self._presence = presence
        self._topic = topic
        self.key: str = key
        self._meta = meta
        self.number: int = number
        self.is_remote: bool = is_remote

    @property
    def topic(self) -> str:
        """The name of its topic."""
        return self._topic.name

    @property
    def is_present(self) -> bool:
        """Whether the entry has not left yet."""
        return self in self._topic.entries

    def read_meta(self) -> JSON:
        """Return what the entry says of itself now: a new object."""
        meta = self._meta
        return _plain(meta() if callable(meta) else meta)

    def update(self, meta: JSON | LazyMeta | None) -> None:
        """Change the meta. Listeners see the old meta leave and the new meta join, in one difference.

        Args:
            meta: as for `Presence.enter`. A lazy meta that is replaced is called once more, so it has to tell what was, not what is.

        Raises:
            TypeError, ValueError: `meta` is not a JSON object; nothing was changed.
        """
        new = _checked(meta)
        if not self.is_present:
            return
        for listener in self._topic.listeners:
            listener.note_leave(self)
        self._meta = new
        for listener in self._topic.listeners:
            listener.note_join(self)
        self._presence.note(self)

    def leave(self) -> None:
        """Take the entry away. A second call does nothing."""
        topic = self._topic
        if self not in topic.entries:
            return
        del topic.entries[self]
        for listener in topic.listeners:
            listener.note_leave(self)
        self._presence.note(self)
        self._presence.count_changed(topic)


class _Watcher:
    """One callback on the number of entries of a topic. There is one for each agent, whether its topic has an entry or not."""

    __slots__ = ("_watchers", "callback", "is_active", "topic")

    def __init__(self, watchers: "dict[str, tuple[_Watcher, ...]]", topic: str, callback: CountChanged) -> None:
        self._watchers = watchers
        self.topic = topic
        self.callback = callback
        self.is_active = True
        watchers[topic] = (*watchers.get(topic, ()), self)

    def __call__(self) -> None:
        """Call the callback no more. A second call does nothing."""
        if self.is_active:
            self.is_active = False
            left = tuple(other for other in self._watchers.pop(self.topic) if other is not self)
            if left:
                self._watchers[self.topic] = left


class _Listener:
    """An iterator of differences. It keeps the one that was not taken yet, as the entries that joined and the metas that left."""

    def __init__(self, topic: _Topic) -> None:
        self.topic = topic
        # Invariant: bounded by the topic. An entry is in `joined` only while it is present, and each entry that the reader knows of has
        # at most one meta in `left`.
        self.joined: dict[Tracked, None] = {}
        self.left: list[tuple[str, JSON]] = []
        self.woken = trio.Event()
        self.is_open = True

    def note_join(self, tracked: Tracked) -> None:
        """Add a join. It wakes the reader, who may find that the join was undone."""
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

        Cancellation: either the difference is returned, or it is still there for the next call.
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
    """Who is where: in this process, and in all processes whose presences share a bus and run.

    `open_sessions` runs the presence of its config while its block is open. For a presence without sessions, start `run` in a nursery.
    """

    def __init__(self, pubsub: PubSub | None = None, *, heartbeat_interval: float = HEARTBEAT) -> None:
        """Make a presence without entries.

        Args:
            pubsub: the bus to the presences of other blocks and processes, which use the same bus. None: there are no others.
            heartbeat_interval: seconds between two messages to the others, at most, while there are others; > 0 and at most 60. A
                presence that is not heard for three of its intervals has vanished, and its entries leave. A presence that is alone on
                a `LocalPubSub` sends nothing, and waits for no time.

        Raises:
            TypeError, ValueError: an argument has the wrong type or an invalid value.
        """
        if check_timeout("heartbeat_interval", heartbeat_interval) > MAX_INTERVAL:
            raise ValueError(f"heartbeat_interval must be at most {MAX_INTERVAL:g} seconds, not {heartbeat_interval!r}")
        self.pubsub = pubsub
        self._topics: dict[str, _Topic] = {}
        self._watchers: dict[str, tuple[_Watcher, ...]] = {}
        # Invariant: the active watchers, by topic, in the order in which they came; no topic without one.
        self._numbers = itertools.count(1)
        self._exchange = None if pubsub is None else Exchange.of(pubsub, self, float(heartbeat_interval))
        self._running = trio.Lock()

    @asynccontextmanager
    async def track(self, topic: str, key: str, meta: JSON | None = None) -> AsyncIterator[None]:
        """Be on a topic exactly while the context is open.

        Args:
            topic: not empty. On `conversation_topic(id)` an entry is a viewer.
            key: who is there; not empty. May be tracked several times at once: each time is an entry.
            meta: what others see of the entry: a JSON object, copied; None is {}.

        Raises:
            TypeError: an argument has the wrong type; nothing was done.
            ValueError: an argument is empty, or `meta` is not JSON; nothing was done.

        Cancellation: either the context was not entered and there is no entry, or the entry is gone when the context has ended.
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
        """Return who is on a topic: a new object, from each key to the metas of its entries, in the order in which they came.

        Cancellation: changes nothing.
        """
        await trio.lowlevel.checkpoint()
        found = self._topics.get(topic)
        return {} if found is None else _by_key((tracked.key, tracked.read_meta()) for tracked in found.entries)

    @asynccontextmanager
    async def changes(self, topic: str) -> AsyncIterator[AsyncIterator[PresenceDiff]]:
        """Listen to a topic while the context is open.

        Yields:
            An iterator of everything that changes from now on. What has changed since the last difference is one difference; what
            came and went in between is in none. The iterator ends with the context, also for a task that still waits.

        Ordering: `list` after entering, and then the differences, tell everything; an entry may be in both.

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
            entered.listeners = tuple(other for other in entered.listeners if other is not listener)
            listener.close()
            self._drop_if_empty(entered)

    async def run(self) -> None:
        """Exchange entries with the other presences on the bus, until cancelled. Returns at once if there is no bus.

        May be called several times at once, as blocks do that share a presence: one call does the work, and another one takes over when
        that call ends. When the last call ends, the entries of other processes leave, and the others are told that this presence is gone.

        Cancellation: the entries of other processes have left, unless another call takes over.
        """
        exchange = self._exchange
        if exchange is None:
            await trio.lowlevel.checkpoint()
            return
        async with self._running:
            try:
                await exchange.run()
            finally:
                if not self._running.statistics().tasks_waiting:
                    exchange.leave()

    # ── for the runtime: synchronous ──────────────────────────────────────────────────────────────────────────────────

    def enter(self, topic: str, key: str, meta: JSON | LazyMeta | None = None) -> Tracked:
        """Add an entry, and return what holds it: call its `leave` when it ends.

        Args:
            topic: not empty.
            key: not empty.
            meta: a JSON object, copied; or a function that returns one, called whenever somebody reads the entry, so that what
                changes often costs nothing; None is {}. Other processes see what the function returned when the entry was last
                updated.

        Raises:
            TypeError: an argument has the wrong type; nothing was done.
            ValueError: an argument is empty, or `meta` is not JSON; nothing was done.
        """
        _check_names(topic, key)
        return self._enter(topic, key, _checked(meta), is_remote=False)

    def count(self, topic: str) -> int:
        """Return how many entries are on a topic."""
        found = self._topics.get(topic)
        return 0 if found is None else len(found.entries)

    def watch_count(self, topic: str, callback: CountChanged) -> Callable[[], None]:
        """Call `callback` with the number of entries of a topic whenever that number has changed.

        Args:
            topic: not empty.
            callback: sync; called in the task that changed the number, after the change; must not raise. It may add and remove
                entries: the last number that it is given is always the true one.

        Returns:
            A function that ends this: `callback` is not called after that. A second call does nothing.
        """
        _check_names(topic, "-")
        return _Watcher(self._watchers, topic, callback)

    # ── for the modules of this package ───────────────────────────────────────────────────────────────────────────────

    def own_entries(self) -> Iterator[Tracked]:
        """Yield the entries of this process. For the exchange, if a peer asks for all of them."""
        for topic in self._topics.values():
            for tracked in topic.entries:
                if not tracked.is_remote:
                    yield tracked

    def enter_remote(self, topic: str, key: str, meta: JSON) -> Tracked:
        """Add an entry of a peer. For the exchange, which has checked the arguments."""
        return self._enter(topic, key, meta, is_remote=True)

    def note(self, tracked: Tracked) -> None:
        """Tell the exchange that an entry has come, has changed, or has left. For this module."""
        if self._exchange is not None and not tracked.is_remote:
            self._exchange.note(tracked)

    def count_changed(self, topic: _Topic) -> None:
        """Tell the watchers of a topic, and forget the topic if nothing is left of it. For this module."""
        for watcher in self._watchers.get(topic.name, ()):
            if watcher.is_active:
                watcher.callback(self.count(topic.name))
        self._drop_if_empty(topic)

    def _enter(self, topic: str, key: str, meta: JSON | LazyMeta, *, is_remote: bool) -> Tracked:
        entered = self._open_topic(topic)
        tracked = Tracked(self, entered, key, meta, next(self._numbers), is_remote=is_remote)
        entered.entries[tracked] = None
        for listener in entered.listeners:
            listener.note_join(tracked)
        self.note(tracked)
        if topic in self._watchers:
            self.count_changed(entered)
        return tracked

    def _open_topic(self, name: str) -> _Topic:
        found = self._topics.get(name)
        if found is None:
            found = self._topics[name] = _Topic(name)
        return found

    def _drop_if_empty(self, topic: _Topic) -> None:
        # A callback of `count_changed` may have dropped the topic already, and another topic may have its name by now.
        if not topic.entries and not topic.listeners and self._topics.get(topic.name) is topic:
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
