"""One file as it is known in memory, and what all volumes share."""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Final

import attrs
import trio

from trio_sagents._trio.timers import Timer, Timers
from trio_sagents.data.json import JSON, Opaque, check_text, plain_json
from trio_sagents.files._changes import Publisher
from trio_sagents.files._config import FilesConfig
from trio_sagents.files._errors import FilesClosed, QuotaExceeded


@attrs.define(eq=False)
class AwaitedEdit:
    """An edit whose saving a task waits for."""

    revision: int
    is_stored: bool = False
    is_lost: bool = False
    """Whether the edit was given up, because the stored file is another one."""


@attrs.define(eq=False)
class Saving:
    """The edits of one file that its backend does not have yet: how many there are, and when they are saved."""

    revision: int = 0
    """How many edits were made."""
    saved: int = 0
    """The last edit that the backend has, or that was given up."""
    taken: int = 0
    """The last edit that was part of an attempt to save, successful or not."""
    edited_at: float = 0.0
    """The Trio time of the last edit."""
    unsaved_since: float = 0.0
    """The Trio time of the first edit after `taken`."""
    failures: int = 0
    """How many attempts have failed in a row."""
    retry_at: float = 0.0
    error: Exception | None = None
    """Why the last attempt failed."""
    timer: Timer | None = None
    # Invariant: at most one timer for each file, not later than `due_at`. It refers to the file, never to its path.
    is_queued: bool = False
    """Whether a save is in the serial queue and has not begun."""
    awaited: list[AwaitedEdit] = attrs.field(factory=list)
    """The edits that tasks wait for, oldest first."""
    is_unwatched: bool = False
    """Whether nobody waits for some unsaved edit, so that its loss has to be told in another way."""

    def due_at(self, config: FilesConfig) -> float:
        """Return the Trio time at which the file is to be saved; there is an unsaved edit."""
        if self.failures:
            return self.retry_at
        return min(self.edited_at + config.debounce, self.unsaved_since + config.max_unsaved_period)

    def stored(self, revision: int) -> None:
        """Note that the backend has all edits up to this one."""
        self.saved = revision
        self.failures, self.error = 0, None
        self.is_unwatched = self.is_unwatched and revision != self.revision
        for edit in [edit for edit in self.awaited if edit.revision <= revision]:
            edit.is_stored = True
            self.awaited.remove(edit)

    def give_up(self) -> None:
        """Note that all unsaved edits are given up, and tell those who wait for them."""
        self.saved = self.revision
        self.failures, self.error = 0, None
        self.is_unwatched = False
        for edit in self.awaited:
            edit.is_lost = True
        self.awaited.clear()
        self.stop_timer()

    def stop_timer(self) -> None:
        """Cancel the timer, if there is one."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@attrs.define(eq=False)
class Entry:
    """A file. It stays the same object when it is moved, so its unsaved edits move with it."""

    path: str
    size: int
    content: str | None = None
    """None if only the index is known. Invariant: not None while there is an unsaved edit."""
    digests: Collection[bytes] = ()
    """The digests of the contents that the backend may have, as far as is known here: usually one. Empty if the file was not read."""
    # Invariant: an edit is made of a content with one of these digests; so a save replaces nothing else.
    is_gone: bool = False
    pins: int = 0
    """How many tasks wait to use the content; the content is not dropped meanwhile."""
    saving: Saving = attrs.field(factory=Saving)

    @property
    def is_dirty(self) -> bool:
        """Whether there is an edit that the backend does not have."""
        return self.saving.revision != self.saving.saved and not self.is_gone


def _checked_text(_details: object, field: "attrs.Attribute[Opaque]", value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"FileDetails.{field.name} must be a str or None, not {value!r}")
    if value is not None:
        check_text(value, f"FileDetails.{field.name}")


def _plain_metadata(value: JSON) -> JSON:
    plain = plain_json(value, "FileDetails.metadata")
    if not isinstance(plain, dict):
        raise TypeError(f"FileDetails.metadata must be a JSON object, not {value!r}")
    return plain


@attrs.frozen
class FileDetails:
    """What is known of a file besides its content. All of it is optional."""

    title: str | None = attrs.field(default=None, validator=_checked_text)
    """A title for people and models."""
    media_type: str | None = attrs.field(default=None, validator=_checked_text)
    """The type of the content, such as "text/markdown"; None is the type that the end of the name says."""
    metadata: JSON = attrs.field(factory=dict, converter=_plain_metadata)
    """The host's own notes: a JSON object; copied. Models do not see it."""


@attrs.define(eq=False)
class Details:
    """What is known of the stored details of the files of one volume."""

    has_file: bool = False
    """Whether the backend has the file in which details are stored, as far as is known."""
    known: Mapping[str, FileDetails] | None = None
    """By path; None if the file was not read since the last look at the index."""
    text: str | None = None
    """The content of the file as it was read."""


class Cache:
    """Contents that could be read again: if they have too many bytes together, the least recently used are dropped."""

    def __init__(self, most: float) -> None:
        self._most: Final = most
        self._clean: OrderedDict[Entry, int] = OrderedDict()
        # Invariant: the files with a content and without unsaved edits, the least recently used first; and the size of each when it
        # was counted.
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._clean)

    def used(self, entry: Entry) -> None:
        """Note that a file was read or saved. The content of a file with unsaved edits is never dropped."""
        self.forget(entry)
        if entry.content is None or entry.is_dirty or entry.is_gone:
            return
        self._clean[entry] = entry.size
        self._bytes += entry.size
        self._trim()

    def forget(self, entry: Entry) -> None:
        """Note that a file has unsaved edits now, or is gone."""
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
    """The number and the size of the files of one scope, without those in read-only mounts."""

    config: FilesConfig
    files: int = 0
    bytes: int = 0

    def check_file(self, path: str, size: int) -> None:
        """Raise QuotaExceeded if one file would have too many bytes."""
        if size > self.config.max_file_bytes:
            raise QuotaExceeded("max_file_bytes", size, most=self.config.max_file_bytes, path=path)

    def grow(self, path: str, *, files: int = 0, size: int = 0) -> None:
        """Count more files or bytes; raise QuotaExceeded, and count nothing, if there is no room. Shrinking is never refused."""
        if files > 0 and self.files + files > self.config.max_scope_files:
            raise QuotaExceeded("max_scope_files", self.files + files, most=self.config.max_scope_files, path=path)
        if size > 0 and self.bytes + size > self.config.max_scope_bytes:
            raise QuotaExceeded("max_scope_bytes", self.bytes + size, most=self.config.max_scope_bytes, path=path)
        self.add(files, size)

    def add(self, files: int, size: int) -> None:
        """Count files that exist already."""
        self.files += files
        self.bytes += size


@attrs.define(eq=False)
class Services:
    """What the trees of one `open_files` block share."""

    config: FilesConfig
    nursery: trio.Nursery
    """Shielded: only the closing ends what runs in it."""
    timers: Timers
    publisher: Publisher
    cache: Cache
    is_closed: bool = False

    def check_open(self) -> None:
        """Raise FilesClosed if the block has been left."""
        if self.is_closed:
            raise FilesClosed
