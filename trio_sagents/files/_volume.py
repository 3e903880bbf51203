"""One mount of one scope: its files in memory, and the lane to its backend.

Memory is what everybody sees. It changes in single steps without a checkpoint: an edit at once, and whatever adds, removes or
moves files when the backend has done it. Edits need no turn in the lane, so a slow backend delays no edit of what is loaded, and no
edit can fall between the reading and the writing of another.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeVar

import attrs

from trio_sagents.files._backend import FileRecord
from trio_sagents.files._changes import FileChange, FileDeleted, FileUpdated
from trio_sagents.files._config import Mount
from trio_sagents.files._entry import Entry, Services, Usage
from trio_sagents.files._errors import (
    FileExists,
    FileNotFound,
    FileNotStored,
    FileRefused,
    NotText,
    QuotaExceeded,
)
from trio_sagents.files._lane import Lane
from trio_sagents.files._paths import ROOT, ScopeKey, below, is_path, join, parents

T = TypeVar("T")
log: Final = logging.getLogger("trio_sagents.files")


@attrs.define(eq=False)
class Volume:
    """The files of one scope in one mount."""

    scope: ScopeKey
    mount: Mount
    hides: Callable[[str], bool] = attrs.field(repr=False)
    """Whether a path of this backend is hidden, because another mount has its place."""
    services: Services = attrs.field(repr=False)
    usage: Usage = attrs.field(repr=False)
    """Of the whole scope."""
    lane: Lane = attrs.field(init=False, repr=False, default=attrs.Factory(lambda self: Lane(self.services.nursery), takes_self=True))
    entries: dict[str, Entry] = attrs.field(factory=dict, repr=False)
    """By path."""
    unsaved: dict[Entry, None] = attrs.field(factory=dict, repr=False)
    # Invariant: exactly the dirty ones of `entries`, by their first unsaved edit.
    _folders: dict[str, int] = attrs.field(factory=dict, repr=False)
    # Invariant: how many files there are below each folder that has some.
    is_loaded: bool = False
    """Whether the index was read once."""
    is_doubtful: bool = False
    """Whether the backend may have other files than are known here, because a call failed or found it otherwise."""

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, path: str) -> Entry:
        """Return the file; FileNotFound where there is none."""
        entry = self.entries.get(path)
        if entry is None:
            raise FileNotFound(path, is_folder=self.is_folder(path))
        return entry

    def is_folder(self, path: str) -> bool:
        """Whether there are files below `path`."""
        return path in {ROOT, self.mount.prefix} or path in self._folders

    def check_free(self, path: str) -> None:
        """Raise FileExists where no file can be made at `path`."""
        if path in self.entries:
            raise FileExists(path)
        if self.is_folder(path):
            raise FileExists(path, "it is a folder; name a file in it, or use another path")
        for parent in parents(path):
            if parent in self.entries:
                raise FileExists(path, f"{parent!r} is a file, so there can be nothing below it")

    @property
    def is_at_rest(self) -> bool:
        """Whether it could be forgotten, and read again when it is wanted."""
        return self.lane.is_idle and not self.unsaved

    # ── what the backend has ─────────────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Know the index. Where the backend fails later on, what was known stays known.

        Cancellation: either it is known, or it will be, or nothing was begun.
        """
        if not self.is_loaded or self.is_doubtful:
            await self.run(self._load)

    async def _load(self) -> None:
        if self.is_loaded and not self.is_doubtful:
            return
        try:
            records = await self.ask("listing", self.mount.prefix, self.mount.backend.index(self.scope))
        except FileNotStored:
            if not self.is_loaded:
                raise
            return
        whole = ((join(self.mount.prefix, record.path), record) for record in records if is_path(record.path))
        self._learn({path: record for path, record in whole if is_path(path) and not self.hides(path)})

    def _learn(self, records: Mapping[str, FileRecord]) -> None:
        tell = self.is_loaded
        self.is_loaded, self.is_doubtful = True, False
        for path, entry in list(self.entries.items()):
            if entry.is_dirty:
                continue  # what is in memory is newer, and will be written
            record = records.get(path)
            if record is None:
                self.drop(entry)
                continue
            if record.size != entry.size:
                self.publish(FileUpdated(path))
            self.resize(entry, record.size)
            entry.content = None
            self.services.cache.forget(entry)
        for path, record in records.items():
            if path not in self.entries:
                self.add(Entry(path, record.size))
                self.count(1, record.size)
                if tell:
                    self.publish(FileUpdated(path))

    async def read(self, entry: Entry) -> str | None:
        """Return the content, read if need be; None where the file was gone by then. A caller that pins it finds it in `entry`, too.

        Cancellation: either it is known, or will be, or nothing was begun.
        """
        if entry.content is None:
            await self.run(partial(self._read, entry))
        return entry.content

    @contextmanager
    def pinned(self, entry: Entry) -> Iterator[None]:
        """Keep the content in memory while the block runs."""
        entry.pins += 1
        try:
            yield
        finally:
            entry.pins -= 1
            self.services.cache.used(entry)

    async def _read(self, entry: Entry) -> None:
        if entry.content is not None or entry.is_gone:
            return
        most = self.services.config.max_file_bytes
        if entry.size > most:
            raise QuotaExceeded("max_file_bytes", entry.size, most=most, path=entry.path)
        backend = self.mount.backend
        try:
            content = await self.ask("reading", entry.path, backend.read(self.scope, self.inner(entry.path), max_bytes=most))
        except FileNotFound:
            self.is_doubtful = True
            if entry.content is not None:
                return  # written meanwhile: it is there again with the next save
            self.drop(entry)
            raise
        if entry.content is None:
            self.resize(entry, len(content.encode()))
            entry.content = content
            self.services.cache.used(entry)

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` in the lane: `Lane.run`; FilesClosed where nothing is done any more."""
        self.services.check_open()
        return await self.lane.run(work)

    async def ask(self, doing: str, path: str, asking: Awaitable[T]) -> T:
        """Wait for the backend; errors name the whole path, and hide what a backend says of itself."""
        try:
            return await asking
        except FileNotFound:
            raise FileNotFound(path) from None
        except FileExists:
            raise FileExists(path) from None
        except NotText as exc:
            raise NotText(path, exc.why) from None
        except FileRefused as exc:
            raise FileRefused(path, exc.why) from None
        except QuotaExceeded as exc:
            raise QuotaExceeded(exc.limit, exc.value, most=exc.most or 0, path=path) from None
        except Exception as exc:  # the boundary to the host's backend
            log.warning("the backend failed while %s %r of scope %r", doing, path, self.scope, exc_info=True)
            raise FileNotStored(path, doing) from exc

    def inner(self, path: str) -> str:
        """Return `path` as the backend sees it."""
        return below(self.mount.prefix, path)

    # ── single steps ─────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, entry: Entry) -> None:
        """Put a file in its place; its room is counted apart."""
        self.entries[entry.path] = entry
        for folder in parents(entry.path):
            self._folders[folder] = self._folders.get(folder, 0) + 1

    def remove(self, entry: Entry) -> None:
        """Take a file from its place; the opposite of `add`."""
        del self.entries[entry.path]
        for folder in parents(entry.path):
            self._folders[folder] -= 1
            if not self._folders[folder]:
                del self._folders[folder]

    def drop(self, entry: Entry) -> None:
        """A file is gone, with all that was pending for it."""
        self.remove(entry)
        self.count(-1, -entry.size)
        entry.is_gone = True
        entry.content = None
        if entry.timer is not None:
            entry.timer.cancel()
        self.unsaved.pop(entry, None)
        self.services.cache.forget(entry)
        self.publish(FileDeleted(entry.path))

    def count(self, files: int, size: int) -> None:
        """Count what is there; read-only mounts take no room."""
        if not self.mount.read_only:
            self.usage.add(files, size)

    def resize(self, entry: Entry, size: int) -> None:
        """A file has another size."""
        self.count(0, size - entry.size)
        entry.size = size

    def publish(self, change: FileChange) -> None:
        """Tell whoever listens to this scope."""
        self.services.publisher.publish(self.scope, change)
