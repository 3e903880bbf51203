"""Changes of files, told to whoever listens. The publisher never waits: a listener that is slow is told how much it missed."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import attrs
import trio

from trio_sagents.files._paths import ScopeKey


@attrs.frozen
class FileUpdated:
    """A file is new, or has another content."""

    path: str


@attrs.frozen
class FileDeleted:
    """A file is gone."""

    path: str


@attrs.frozen
class FileMoved:
    """A file has another path. Where a folder was moved there is one of these for each file in it."""

    old: str
    new: str


@attrs.frozen
class FileSaved:
    """All that was done to a file is in its storage."""

    path: str


@attrs.frozen
class FileSaveFailed:
    """The storage did not take an edit. It is kept, and will be offered again."""

    path: str
    attempt: int
    """How many attempts have failed, since the last one that did not."""
    retry_in: float
    """Seconds until the next one."""


@attrs.frozen
class FileChangesLost:
    """So many changes were not kept for this listener, because it was too slow: list the files anew."""

    count: int


FileChange: TypeAlias = FileUpdated | FileDeleted | FileMoved | FileSaved | FileSaveFailed | FileChangesLost


class FileChanges:
    """The changes of one scope, in order, for one listener: iterate over it."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._untaken: deque[FileChange] = deque()
        # Invariant: at most `limit` changes, and a mark for those lost where it stands; the mark is last while they are being lost.
        self._marks = 0
        self._is_closed = False
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"<FileChanges, {len(self._untaken)} untaken>"

    def __aiter__(self) -> "FileChanges":
        return self

    async def __anext__(self) -> FileChange:
        """Return the next change; ends when the files are closed.

        Cancellation: either a change was taken and is returned, or none was taken.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._untaken:
            if self._is_closed:
                await trio.lowlevel.cancel_shielded_checkpoint()
                raise StopAsyncIteration
            self._changed = trio.Event()
            await self._changed.wait()
        # No checkpoint from here that could be cancelled: the change is taken.
        change = self._untaken.popleft()
        if isinstance(change, FileChangesLost):
            self._marks -= 1
        await trio.lowlevel.cancel_shielded_checkpoint()
        return change

    def put(self, change: FileChange) -> None:
        """Add a change; where there is no room, one more is lost."""
        if len(self._untaken) - self._marks < self._limit:
            self._untaken.append(change)
        elif isinstance(last := self._untaken[-1], FileChangesLost):
            self._untaken[-1] = FileChangesLost(last.count + 1)
        else:
            self._untaken.append(FileChangesLost(1))
            self._marks += 1
        self._changed.set()

    def close(self) -> None:
        """End it, after what is untaken."""
        self._is_closed = True
        self._changed.set()


@attrs.define(eq=False)
class Publisher:
    """Who listens to which scope."""

    limit: float
    _listeners: dict[ScopeKey, dict[FileChanges, None]] = attrs.field(factory=dict)
    _is_closed: bool = False

    def publish(self, scope: ScopeKey, change: FileChange) -> None:
        """Tell all who listen to `scope`; returns at once."""
        for listener in self._listeners.get(scope, ()):
            listener.put(change)

    @contextmanager
    def listen(self, scope: ScopeKey) -> Iterator[FileChanges]:
        """Keep the changes of `scope` from now on, until the block is left."""
        changes = FileChanges(self.limit)
        if self._is_closed:
            changes.close()
        self._listeners.setdefault(scope, {})[changes] = None
        try:
            yield changes
        finally:
            listeners = self._listeners[scope]
            del listeners[changes]
            if not listeners:
                del self._listeners[scope]

    def close(self) -> None:
        """End all listeners' iterations."""
        self._is_closed = True
        for listeners in self._listeners.values():
            for changes in listeners:
                changes.close()
