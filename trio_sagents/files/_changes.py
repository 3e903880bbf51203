"""Changes of files, told to listeners. The publisher never waits: a slow listener is told how many changes it missed."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import attrs
import trio

from trio_sagents.files._paths import ScopeKey


@attrs.frozen
class FileUpdated:
    """A file is new, or has another content or another title."""

    path: str


@attrs.frozen
class FileDeleted:
    """A file is gone."""

    path: str


@attrs.frozen
class FileMoved:
    """A file has another path. If a folder was moved, there is one such change for each file in it."""

    old: str
    new: str


@attrs.frozen
class FileSaved:
    """All changes of a file are in its storage."""

    path: str


@attrs.frozen
class FileSaveFailed:
    """The storage did not take an edit. The edit is kept, and saving is retried."""

    path: str
    attempt: int
    """How many attempts have failed in a row."""
    retry_in: float
    """Seconds until the next attempt."""


@attrs.frozen
class FileEditLost:
    """An edit was given up: the stored file was not the one that the edit was made of. The file has its stored content again.

    A caller that waits until the edit is stored gets a `FileConflict`; otherwise the text is in the next `FilesUnsaved`.
    """

    path: str


@attrs.frozen
class FileChangesLost:
    """The listener was too slow, and this many changes were not kept for it: list the files again."""

    count: int


FileChange: TypeAlias = FileUpdated | FileDeleted | FileMoved | FileSaved | FileSaveFailed | FileEditLost | FileChangesLost


class FileChanges:
    """The changes of one scope, in order, for one listener: iterate over it."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._untaken: deque[FileChange] = deque()
        # Invariant: at most `limit` changes, and a mark for each run of lost changes in its place; while changes are being lost,
        # the mark is the last element.
        self._marks = 0
        self._is_closed = False
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"<FileChanges, {len(self._untaken)} untaken>"

    def __aiter__(self) -> "FileChanges":
        return self

    async def __anext__(self) -> FileChange:
        """Return the next change; the iteration ends when the files are closed.

        Cancellation: either a change was taken and is returned, or no change was taken.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._untaken:
            if self._is_closed:
                await trio.lowlevel.cancel_shielded_checkpoint()
                raise StopAsyncIteration
            self._changed = trio.Event()
            await self._changed.wait()
        # No checkpoint that could be cancelled until the return: the change has been taken.
        change = self._untaken.popleft()
        if isinstance(change, FileChangesLost):
            self._marks -= 1
        await trio.lowlevel.cancel_shielded_checkpoint()
        return change

    def put(self, change: FileChange) -> None:
        """Add a change; if there is no room, count it as lost."""
        if len(self._untaken) - self._marks < self._limit:
            self._untaken.append(change)
        elif isinstance(last := self._untaken[-1], FileChangesLost):
            self._untaken[-1] = FileChangesLost(last.count + 1)
        else:
            self._untaken.append(FileChangesLost(1))
            self._marks += 1
        self._changed.set()

    def close(self) -> None:
        """End the iteration after the changes that are still untaken."""
        self._is_closed = True
        self._changed.set()


@attrs.define(eq=False)
class Publisher:
    """Knows who listens to which scope."""

    limit: float
    _listeners: dict[ScopeKey, dict[FileChanges, None]] = attrs.field(factory=dict)
    _is_closed: bool = False

    def publish(self, scope: ScopeKey, change: FileChange) -> None:
        """Tell everybody who listens to `scope`; return at once."""
        for listener in self._listeners.get(scope, ()):
            listener.put(change)

    @contextmanager
    def listen(self, scope: ScopeKey) -> Iterator[FileChanges]:
        """Collect the changes of `scope` from now on, until the block is left."""
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
        """End the iterations of all listeners."""
        self._is_closed = True
        for listeners in self._listeners.values():
            for changes in listeners:
                changes.close()
