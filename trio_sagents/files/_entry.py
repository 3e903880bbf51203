"""One file as it is known in memory, and what all volumes share."""

from collections import OrderedDict
from typing import Final

import attrs
import trio

from trio_sagents._trio.timers import Timer, Timers
from trio_sagents.files._changes import Publisher
from trio_sagents.files._config import FilesConfig
from trio_sagents.files._errors import FilesClosed, QuotaExceeded


@attrs.define(eq=False)
class Entry:
    """A file. It stays the same object when it is moved, so what is pending for it moves with it."""

    path: str
    size: int
    content: str | None = None
    """None where only the index is known. Invariant: not None while it is dirty."""
    revision: int = 0
    """Counts the edits."""
    saved: int = 0
    """The revision that the backend has."""
    taken: int = 0
    """The revision that the last save has begun with, whatever came of it."""
    edited_at: float = 0.0
    """Trio time of the last edit."""
    unsaved_since: float = 0.0
    """Trio time of the first edit after `taken`."""
    failures: int = 0
    """How many saves have failed since the last that did not."""
    retry_at: float = 0.0
    error: Exception | None = None
    """Why the last save failed."""
    is_gone: bool = False
    timer: Timer | None = None
    # Invariant: at most one for each file, not later than `save_at`. It holds the file, never its path.
    is_queued: bool = False
    """Whether a save is in the lane, and has not begun."""
    pins: int = 0
    """How many tasks wait to use the content; it is not dropped meanwhile."""

    @property
    def is_dirty(self) -> bool:
        """Whether there is an edit that the backend does not have."""
        return self.revision != self.saved and not self.is_gone

    def save_at(self, config: FilesConfig) -> float:
        """Return the Trio time at which it is to be saved; it is dirty."""
        if self.failures:
            return self.retry_at
        return min(self.edited_at + config.debounce, self.unsaved_since + config.max_unsaved_period)


class Cache:
    """Contents that could be read again: the least recently used are dropped when they are too many bytes."""

    def __init__(self, most: float) -> None:
        self._most: Final = most
        self._clean: OrderedDict[Entry, int] = OrderedDict()
        # Invariant: files with a content that are not dirty, the least recently used first, and the size that each was counted with.
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._clean)

    def used(self, entry: Entry) -> None:
        """A file was read, or saved; what is dirty is not ours to drop."""
        self.forget(entry)
        if entry.content is None or entry.is_dirty or entry.is_gone:
            return
        self._clean[entry] = entry.size
        self._bytes += entry.size
        self._trim()

    def forget(self, entry: Entry) -> None:
        """A file is dirty now, or gone."""
        self._bytes -= self._clean.pop(entry, 0)

    def _trim(self) -> None:
        if self._bytes <= self._most:
            return
        for entry in [entry for entry in self._clean if not entry.pins]:
            entry.content = None
            self.forget(entry)
            if self._bytes <= self._most:
                return


@attrs.define(eq=False)
class Usage:
    """What the files of one scope take, apart from those in read-only mounts."""

    config: FilesConfig
    files: int = 0
    bytes: int = 0

    def check_file(self, path: str, size: int) -> None:
        """Raise QuotaExceeded where one file would have too many bytes."""
        if size > self.config.max_file_bytes:
            raise QuotaExceeded("max_file_bytes", size, most=self.config.max_file_bytes, path=path)

    def grow(self, path: str, *, files: int = 0, size: int = 0) -> None:
        """Take room; QuotaExceeded, with none taken, where there is not enough. Shrinking is never refused."""
        if files > 0 and self.files + files > self.config.max_scope_files:
            raise QuotaExceeded("max_scope_files", self.files + files, most=self.config.max_scope_files, path=path)
        if size > 0 and self.bytes + size > self.config.max_scope_bytes:
            raise QuotaExceeded("max_scope_bytes", self.bytes + size, most=self.config.max_scope_bytes, path=path)
        self.add(files, size)

    def add(self, files: int, size: int) -> None:
        """Count files that are there."""
        self.files += files
        self.bytes += size


@attrs.define(eq=False)
class Services:
    """What the trees of one `open_files` share."""

    config: FilesConfig
    nursery: trio.Nursery
    """Shielded: what ends here is ended by the closing alone."""
    timers: Timers
    publisher: Publisher
    cache: Cache
    is_closed: bool = False

    def check_open(self) -> None:
        """Raise FilesClosed where the block was left."""
        if self.is_closed:
            raise FilesClosed
