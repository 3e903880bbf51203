"""One mount of one scope: its files in memory, and the serial queue to its backend.

Everybody sees what is in memory. Memory changes in single steps without a checkpoint: for an edit at once; when files are added,
removed or moved, after the backend has done the change. Edits do not wait in the serial queue. So a slow backend does not delay
the edit of a file that is loaded, and no edit can happen between the reading and the writing of another edit.

Others may use the same storage, such as a second process. So each file remembers the digest of the content that was read, and a
backend that can compare (`ComparingFiles`) replaces or deletes no other content.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeVar

import attrs

from trio_sagents.files._backend import ComparingFiles, FileRecord
from trio_sagents.files._changes import FileChange, FileDeleted, FileUpdated
from trio_sagents.files._config import Mount
from trio_sagents.files._entry import Details, Entry, Services, Usage
from trio_sagents.files._errors import (
    FileConflict,
    FileError,
    FileExists,
    FileNotFound,
    FileNotStored,
    FileRefused,
    NotText,
    QuotaExceeded,
    UnsavedFile,
)
from trio_sagents.files._paths import DETAILS, ROOT, ScopeKey, below, is_path, join, parents
from trio_sagents.files._serial_queue import SerialQueue
from trio_sagents.files._text import digest_of

T = TypeVar("T")
log: Final = logging.getLogger("trio_sagents.files")


@attrs.define(eq=False)
class Volume:
    """The files of one scope in one mount."""

    scope: ScopeKey
    mount: Mount
    hides: Callable[[str], bool] = attrs.field(repr=False)
    """Whether a path of this backend is hidden, because another mount is in its place."""
    services: Services = attrs.field(repr=False)
    usage: Usage = attrs.field(repr=False)
    """Of the whole scope."""
    queue: SerialQueue = attrs.field(
        init=False, repr=False, default=attrs.Factory(lambda self: SerialQueue(self.services.nursery), takes_self=True)
    )
    entries: dict[str, Entry] = attrs.field(factory=dict, repr=False)
    """By path."""
    unsaved: dict[Entry, None] = attrs.field(factory=dict, repr=False)
    # Invariant: exactly those of `entries` with unsaved edits, ordered by their first unsaved edit.
    lost: dict[str, UnsavedFile] = attrs.field(factory=dict, repr=False)
    """By path: edits that were given up, and that nobody has been told of."""
    details: Details = attrs.field(factory=Details, repr=False)
    """Titles, types and notes of the files, as far as they are known."""
    _folders: dict[str, int] = attrs.field(factory=dict, repr=False)
    # Invariant: for each folder with files, how many files are below it.
    is_loaded: bool = False
    """Whether the index has been read."""
    is_doubtful: bool = False
    """Whether the backend may have other files than are known here, because a call failed or found something else."""

    # ── lookups ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, path: str) -> Entry:
        """Return the file; raise FileNotFound if there is none."""
        entry = self.entries.get(path)
        if entry is None:
            raise FileNotFound(path, is_folder=self.is_folder(path))
        return entry

    def is_folder(self, path: str) -> bool:
        """Return whether there are files below `path`."""
        return path in {ROOT, self.mount.prefix} or path in self._folders

    def check_free(self, path: str) -> None:
        """Raise FileExists if no file can be made at `path`."""
        if path in self.entries:
            raise FileExists(path)
        if self.is_folder(path):
            raise FileExists(path, "it is a folder; name a file in it, or use another path")
        for parent in parents(path):
            if parent in self.entries:
                raise FileExists(path, f"{parent!r} is a file, so there can be nothing below it")

    @property
    def is_at_rest(self) -> bool:
        """Whether the volume could be forgotten, and be read again when somebody needs it."""
        return self.queue.is_idle and not self.unsaved and not self.lost

    @property
    def is_shared(self) -> bool:
        """Whether others may change the same storage, and the backend compares before it replaces."""
        return isinstance(self.mount.backend, ComparingFiles)

    # ── the backend ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the index, if that is necessary. If the backend fails later on, what was known stays known.

        Cancellation: either the index is known, or it will be, or nothing was begun.
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
        self.details = Details(any(record.path == DETAILS for record in records))
        whole = ((join(self.mount.prefix, record.path), record) for record in records if is_path(record.path))
        self._learn({path: record for path, record in whole if is_path(path) and not self.hides(path)})

    def _learn(self, records: Mapping[str, FileRecord]) -> None:
        tell = self.is_loaded
        self.is_loaded, self.is_doubtful = True, False
        for path, entry in list(self.entries.items()):
            if entry.is_dirty:
                continue  # the edit in memory is newer, and will be saved
            record = records.get(path)
            if record is None:
                self.drop(entry)
                continue
            if record.size != entry.size:
                self.publish(FileUpdated(path))
            self.resize(entry, record.size)
            self.forget_content(entry)
        for path, record in records.items():
            if path not in self.entries:
                self.add(Entry(path, record.size))
                self.count(1, record.size)
                if tell:
                    self.publish(FileUpdated(path))

    async def read(self, entry: Entry, *, fresh: bool = False) -> str | None:
        """Return the content, read if necessary; None if the file is gone by then.

        Args:
            entry: the file; a caller that pins it finds the content there, too.
            fresh: read the file again although its content is known, unless it has an unsaved edit.

        Cancellation: either the content is known, or it will be, or nothing was begun.
        """
        if entry.content is None or (fresh and not entry.is_dirty):
            await self.run(partial(self._read, entry, fresh=fresh))
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

    async def _read(self, entry: Entry, *, fresh: bool) -> None:
        if entry.is_gone or entry.is_dirty or (entry.content is not None and not fresh):
            return
        most = self.services.config.max_file_bytes
        if entry.size > most and not fresh:
            raise QuotaExceeded("max_file_bytes", entry.size, most=most, path=entry.path)
        backend = self.mount.backend
        try:
            content = await self.ask("reading", entry.path, backend.read(self.scope, self.inner(entry.path), max_bytes=most))
        except FileNotFound:
            self.is_doubtful = True
            if entry.is_dirty:
                return  # edited meanwhile: the next save writes the file again, or tells that it is gone
            self.drop(entry)
            raise
        except FileNotStored:
            if entry.content is None:
                raise
            return  # what was known stays known
        except FileError:
            if not entry.is_dirty:
                self.forget_content(entry)
            raise
        if not entry.is_dirty:  # unless it was edited meanwhile
            if entry.content is not None and entry.content != content:
                self.publish(FileUpdated(entry.path))
            self.resize(entry, len(content.encode()))
            entry.content, entry.digests = content, (digest_of(content),)
            self.services.cache.used(entry)

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Call `work` in the serial queue, as `SerialQueue.run` does; raise FilesClosed if the files are closed."""
        self.services.check_open()
        return await self.queue.run(work)

    async def ask(self, doing: str, path: str, asking: Awaitable[T]) -> T:
        """Wait for the backend; errors name the whole path, and hide what a backend says about itself."""
        try:
            return await asking
        except FileNotFound:
            raise FileNotFound(path) from None
        except FileExists:
            raise FileExists(path) from None
        except FileConflict:
            raise FileConflict(path) from None
        except NotText as exc:
            raise NotText(path, exc.why) from None
        except FileRefused as exc:
            raise FileRefused(path, exc.why) from None
        except QuotaExceeded as exc:
            raise QuotaExceeded(exc.limit, exc.value, most=exc.most or 0, path=path) from None
        except Exception as exc:  # the boundary to the host's backend
            log.warning("the backend failed while %s %r of scope %r", doing, path, self.scope, exc_info=True)
            raise FileNotStored(path, doing) from exc

    async def replace_stored(self, entry: Entry, content: str) -> None:
        """Give a file this content in the backend, in the serial queue; FileConflict if the stored content is not one that is known."""
        backend, path = self.mount.backend, self.inner(entry.path)
        if isinstance(backend, ComparingFiles) and entry.digests:
            await self.ask("saving", entry.path, backend.write_if(self.scope, path, content, digests=entry.digests))
        else:
            await self.ask("saving", entry.path, backend.write(self.scope, path, content))

    async def delete_stored(self, entry: Entry) -> None:
        """Delete a file in the backend, in the serial queue; FileConflict if the stored content is not one that is known."""
        backend, path = self.mount.backend, self.inner(entry.path)
        if isinstance(backend, ComparingFiles) and entry.digests:
            await self.ask("deleting", entry.path, backend.delete_if(self.scope, path, digests=entry.digests))
        else:
            await self.ask("deleting", entry.path, backend.delete(self.scope, path))

    def inner(self, path: str) -> str:
        """Return `path` as the backend sees it."""
        return below(self.mount.prefix, path)

    # ── single steps ─────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, entry: Entry) -> None:
        """Add a file at its path; its size is counted separately."""
        self.entries[entry.path] = entry
        for folder in parents(entry.path):
            self._folders[folder] = self._folders.get(folder, 0) + 1

    def remove(self, entry: Entry) -> None:
        """Remove a file from its path; the opposite of `add`."""
        del self.entries[entry.path]
        for folder in parents(entry.path):
            self._folders[folder] -= 1
            if not self._folders[folder]:
                del self._folders[folder]

    def drop(self, entry: Entry) -> None:
        """Note that a file is gone, with its unsaved edits."""
        self.remove(entry)
        self.count(-1, -entry.size)
        entry.is_gone = True
        entry.content = None
        entry.saving.stop_timer()
        self.unsaved.pop(entry, None)
        self.services.cache.forget(entry)
        self.publish(FileDeleted(entry.path))

    def forget_content(self, entry: Entry) -> None:
        """Forget what is known of the content of a file without unsaved edits; the next use reads it again."""
        entry.content, entry.digests = None, ()
        self.services.cache.forget(entry)

    def count(self, files: int, size: int) -> None:
        """Count files that exist already; those of read-only mounts are not counted."""
        if not self.mount.read_only:
            self.usage.add(files, size)

    def resize(self, entry: Entry, size: int) -> None:
        """Note that a file has another size."""
        self.count(0, size - entry.size)
        entry.size = size

    def publish(self, change: FileChange) -> None:
        """Tell everybody who listens to this scope."""
        self.services.publisher.publish(self.scope, change)
