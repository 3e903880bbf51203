"""The operations on the files of one scope, for agents and hosts."""

import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from functools import partial
from typing import Protocol

import attrs
import trio

from trio_sagents.data.json import JSON
from trio_sagents.files import _changing as changing
from trio_sagents.files._changes import FileChanges, FileUpdated
from trio_sagents.files._details import PLAIN, describe, known_details, type_of
from trio_sagents.files._entry import Entry, FileDetails
from trio_sagents.files._errors import (
    FileError,
    FileNotFound,
    FileNotStored,
    FileRefused,
    FilesUnsaved,
    NotText,
    QuotaExceeded,
    UnsavedFile,
)
from trio_sagents.files._paths import ROOT, ScopeKey, check_path, check_prefix, is_under
from trio_sagents.files._saving import edit, flush, wait_stored
from trio_sagents.files._text import FileMatch, FileText, cut_lines, encode, find_text, replace_text
from trio_sagents.files._tree import Tree
from trio_sagents.files._volume import Volume


class Trees(Protocol):
    """What an area needs of the file system that it belongs to."""

    def tree(self, key: ScopeKey) -> Tree:
        """Return the tree of a scope."""
        ...

    def changes(self, scope: ScopeKey) -> AbstractAsyncContextManager[FileChanges]:
        """Listen to the changes of a scope."""
        ...


@attrs.frozen
class FileInfo:
    """A line of a listing."""

    path: str
    size: int
    """In bytes of UTF-8."""
    is_read_only: bool
    is_saved: bool
    """Whether the storage has all edits of the file."""
    title: str | None = None
    """The title that `describe` gave to the file."""
    media_type: str = PLAIN
    """The type of the content: as `describe` said, else by the end of the name."""
    metadata: JSON = attrs.field(factory=dict)
    """The notes that `describe` gave to the file."""


@attrs.frozen
class FileMatches:
    """The result of a search."""

    matches: Sequence[FileMatch]
    """Ordered by path, then by line."""
    skipped: Sequence[str]
    """Files below the folder that could not be searched, because they are not text, too large, or not plain files."""
    is_complete: bool
    """Whether these are all matches; False if there are more than the limit."""


def _check_count(name: str, value: object, minimum: int, *, finite: bool = False) -> None:
    if isinstance(value, bool) or not (isinstance(value, int) or (value == math.inf and not finite)):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if isinstance(value, int) and value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, not {value}")


@attrs.frozen(eq=False)
class FileArea:
    """The files of one scope. Any number of agents may share an area, and all of them may call each method at the same time.

    A file that is new, deleted or moved is stored when the call returns. When a call that edits a file returns, everybody sees the
    edit. It is stored soon after; with `durable=True`, the call returns when the edit is stored.
    """

    scope: ScopeKey
    _system: Trees = attrs.field(repr=False)

    async def list(self, prefix: str = ROOT) -> Sequence[FileInfo]:
        """Return the files at `prefix` and below it, ordered by path; none of them is read.

        Args:
            prefix: a file or a folder; "/" for all files.

        Raises:
            InvalidPath: there can be no such folder.
            FileNotStored: the index could not be read.
            FilesClosed: the `open_files` block has been left.

        Cancellation: nothing changes.
        """
        prefix = check_prefix(prefix)
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            entries = await _under(tree, prefix)
            known = {path: own for volume in {volume: None for volume, _ in entries} for path, own in (await known_details(volume)).items()}
            # No checkpoint until the return: what is listed is what there is now.
            return [_info(volume, entry, known.get(entry.path, FileDetails())) for volume, entry in entries if not entry.is_gone]

    async def read(self, path: str, *, offset: int = 0, limit: float = math.inf, fresh: bool = False) -> FileText:
        """Return the text of a file, or some of its lines.

        Args:
            path: the path of the file.
            offset: how many lines to leave out at the beginning.
            limit: how many lines to return at most; at least 1.
            fresh: read the file from its storage although it is known here, because others may have changed it; an edit that is not
                stored yet is kept. If the storage cannot be read, the text is what is known here.

        Raises:
            InvalidPath: there can be no such file.
            FileNotFound: there is no such file.
            NotText: the file is not UTF-8.
            FileRefused: the storage has something else than a plain file there.
            QuotaExceeded: the file is longer than `max_file_bytes`.
            FileNotStored: the file could not be read.
            FilesClosed: the `open_files` block has been left.
            TypeError: `offset` or `limit` is not an int.
            ValueError: one of them is out of range.

        Cancellation: nothing changes.
        """
        check_path(path)
        _check_count("offset", offset, 0, finite=True)
        _check_count("limit", limit, 1)
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            _, content = await _loaded(tree.volume_of(path), path, fresh=fresh)
        return cut_lines(path, content, offset, limit)

    async def create(self, path: str, content: str) -> None:
        """Make a file. It is stored when the call returns.

        Args:
            path: the path of the file; folders need not be made.
            content: the text; kept exactly, also if it is empty.

        Raises:
            InvalidPath: there can be no such file.
            FileExists: there is already a file or a folder; nothing was changed.
            FileReadOnly: the path is in a read-only mount.
            NotText: the content has lone surrogates.
            QuotaExceeded: there is no room for the file; nothing was changed.
            FileNotStored: the file could not be stored; it does not exist.
            FilesClosed: the `open_files` block has been left.

        Cancellation: either nothing was done, or the file will be made, if it can be stored.
        """
        check_path(path)
        size = len(encode(path, content))
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            volume = await _growing(tree, path, size)
            await volume.run(partial(changing.create, volume, path, content, size))

    async def write(self, path: str, content: str, *, durable: bool = False) -> None:
        """Replace the whole content of a file without comparing it, or make the file. For hosts; the tools of agents use `replace`.

        Args:
            path: the path of the file.
            content: the text; kept exactly.
            durable: return when the content is stored, instead of soon before.

        Raises:
            FileError: as `create` if the file is new, as `replace` if it exists. FileConflict: somebody else has changed the stored
                file between this call and the save.

        Cancellation: either nothing was done, or the content will be stored, if it can be.
        """
        check_path(path)
        size = len(encode(path, content))
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            volume = await _growing(tree, path, size)
            await _look_again(volume, path)
            entry = volume.entries.get(path)
            if entry is None:
                await volume.run(partial(changing.write, volume, path, content, size))
            else:
                edit(volume, entry, content, size, is_awaited=durable)
            if durable and (entry := volume.entries.get(path)) is not None:
                await wait_stored(volume, entry)

    async def replace(self, path: str, old: str, new: str, *, all: bool = False, durable: bool = False) -> int:  # noqa: A002  # as a host would say it
        """Replace a text in a file, and return how often it was replaced.

        Reading and writing are a single step, so no edit of anybody in this process is lost. If another process changes the stored
        file before the edit is stored, the edit is given up: `durable` calls get FileConflict; otherwise the next `flush` tells it.

        Args:
            path: the path of the file.
            old: the text to replace; it must be in the file exactly once, and must not be empty.
            new: the text that takes its place.
            all: replace the text as often as it is in the file.
            durable: return when the edit is stored, instead of soon before.

        Raises:
            InvalidPath: there can be no such file.
            FileNotFound: there is no such file.
            TextNotFound: the file does not contain `old`.
            TextNotUnique: the file contains `old` more than once.
            FileReadOnly: the path is in a read-only mount.
            NotText: the file is not UTF-8, or `new` has lone surrogates.
            QuotaExceeded: the file would be too long; nothing was changed.
            FileNotStored: the file could not be read.
            FileConflict: `durable`: another process has changed the stored file since it was read; nothing was changed.
            FilesUnsaved: `durable`: the storage failed, or has not answered within `store_timeout`; the edit is kept, and saving is
                retried.
            FilesClosed: the `open_files` block has been left.
            ValueError: `old` is empty.

        Cancellation: either nothing was changed, or the edit was made, and will be stored if it can be.
        """
        check_path(path)
        if not encode(path, old):
            raise ValueError("the text to replace must not be empty")
        encode(path, new)
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            volume = await _growing(tree, path, is_new=False)
            entry, content = await _loaded(volume, path, fresh=volume.is_shared)
            # No checkpoint until the edit is made: `content` is what the file has now.
            content, count = replace_text(path, content, old, new, all_of_them=all)
            edit(volume, entry, content, len(content.encode()), is_awaited=durable)
            if durable:
                await wait_stored(volume, entry)
            return count

    async def find(self, text: str, prefix: str = ROOT, *, limit: float = 200) -> FileMatches:
        """Return the lines in which an occurrence of a text begins.

        Args:
            text: the text to look for, exactly, case and spaces included; it is not a pattern, and must not be empty.
            prefix: a file or a folder; "/" for all files.
            limit: how many lines to return at most; at least 1.

        Raises:
            InvalidPath: there can be no such file or folder.
            FileNotFound: there is nothing at `prefix` or below it.
            NotText: `prefix` is a file that is not UTF-8.
            FileRefused: `prefix` is not a plain file in its storage.
            QuotaExceeded: `prefix` is a file that is longer than `max_file_bytes`.
            FileNotStored: an index or a file could not be read.
            FilesClosed: the `open_files` block has been left.
            ValueError: `text` is empty, or `limit` is out of range.

        Cancellation: nothing changes.
        """
        prefix = check_prefix(prefix)
        _check_count("limit", limit, 1)
        if not encode(prefix, text):
            raise ValueError("the text to look for must not be empty")
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            entries = await _under(tree, prefix)
            if not entries and prefix != ROOT:
                raise FileNotFound(prefix)
            return await _search(entries, text, prefix, limit)

    async def delete(self, path: str) -> None:
        """Delete a file. It is deleted from the storage when the call returns.

        Args:
            path: the path of the file; a folder is gone with its last file.

        Raises:
            InvalidPath: there can be no such file.
            FileNotFound: there is no such file.
            FileReadOnly: the path is in a read-only mount.
            FileConflict: the stored file has changed since it was read here; it was not deleted.
            FileNotStored: the file could not be deleted; it still exists.
            FilesClosed: the `open_files` block has been left.

        Cancellation: either nothing was done, or the file will be deleted, if the storage can do it.
        """
        check_path(path)
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            volume = tree.writable(path, is_new=False)
            await volume.load()
            await volume.run(partial(changing.delete, volume, path))

    async def move(self, old: str, new: str) -> Sequence[str]:
        """Move a file, or all files of a folder, and return the new paths, sorted. The move is stored when the call returns.

        An edit that is not stored yet moves with its file.

        Args:
            old: a file or a folder.
            new: its new path; there must be nothing at this path.

        Raises:
            InvalidPath: there can be no such file, or a file below the folder cannot have its new path.
            FileNotFound: there is nothing at `old`.
            FileExists: there is something at `new`; nothing was changed.
            FileReadOnly: one of the two paths is in a read-only mount.
            MoveRefused: `new` is in another storage, or inside of `old`.
            FileNotStored: the move failed; nothing was changed.
            FilesClosed: the `open_files` block has been left.

        Cancellation: either nothing was done, or everything will be moved, if the storage can do it.
        """
        check_path(old)
        check_path(new)
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            volume = tree.movable(old, new)
            await volume.load()
            return await volume.run(partial(changing.move, volume, old, new))

    async def describe(self, path: str, details: FileDetails) -> None:
        """Give a file a title, a type or notes. They are stored when the call returns, and move with the file.

        Args:
            path: the path of the file.
            details: all details of the file, in the place of those that it has; `FileDetails()` removes them.

        Raises:
            InvalidPath: there can be no such file.
            FileNotFound: there is no such file.
            FileReadOnly: the path is in a read-only mount.
            QuotaExceeded: the details of all files would be too large; nothing was changed.
            FileConflict: other processes change the details all the time; nothing was changed.
            FileNotStored: the details could not be stored; they are unchanged.
            FilesClosed: the `open_files` block has been left.

        Cancellation: either nothing was done, or the details will be stored, if they can be.
        """
        check_path(path)
        if not isinstance(details, FileDetails):
            raise TypeError(f"describe takes FileDetails, not {details!r}")
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            volume = tree.writable(path, is_new=False)
            await volume.load()
            await volume.run(partial(describe, volume, path, details))
            volume.publish(FileUpdated(path))

    async def flush(self) -> None:
        """Store all edits of this scope now.

        Raises:
            FilesUnsaved: some edits could not be stored; they are kept, and saving is retried. Or some edits were given up since the
                last flush, because somebody else had changed the stored file: their error is a `FileConflict`.
            FilesClosed: the `open_files` block has been left.

        Cancellation: edits that are not stored are stored later.
        """
        await trio.lowlevel.checkpoint()
        left: list[UnsavedFile] = []
        with self._tree() as tree:
            for volume in tree.volumes:
                left += await flush(volume)
        if left:
            raise FilesUnsaved(left)

    async def refresh(self) -> None:
        """Read the indexes of the storages again, after somebody else has changed files. Edits that are not stored yet are kept.

        Raises:
            FileNotStored: an index could not be read; what was known of it stays.
            FilesClosed: the `open_files` block has been left.

        Cancellation: an index that was not read is read later.
        """
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            for volume in tree.volumes:
                volume.is_doubtful = True
            for volume in tree.volumes:
                await volume.load()
                if volume.is_doubtful:
                    raise FileNotStored(volume.mount.prefix, "listing")

    def changes(self) -> AbstractAsyncContextManager[FileChanges]:
        """Listen to the changes of this scope, as `FileSystem.changes` does."""
        return self._system.changes(self.scope)

    def _tree(self) -> AbstractContextManager[Tree]:
        return self._system.tree(self.scope).used()


def _info(volume: Volume, entry: Entry, own: FileDetails) -> FileInfo:
    return FileInfo(
        entry.path,
        entry.size,
        is_read_only=volume.mount.read_only,
        is_saved=not entry.is_dirty,
        title=own.title,
        media_type=own.media_type or type_of(entry.path),
        metadata=own.metadata,
    )


async def _under(tree: Tree, prefix: str) -> Sequence[tuple[Volume, Entry]]:
    volumes = tree.volumes_under(prefix)
    for volume in volumes:
        await volume.load()
    found = [(volume, entry) for volume in volumes for entry in volume.entries.values() if is_under(entry.path, prefix)]
    return sorted(found, key=lambda pair: pair[1].path)


async def _growing(tree: Tree, path: str, size: int = 0, *, is_new: bool = True) -> Volume:
    """Return the volume in which `path` may grow, once everything is known that counts for the quota."""
    volume = tree.writable(path, is_new=is_new)
    volume.usage.check_file(path, size)
    await tree.load_writable()
    return volume


async def _loaded(volume: Volume, path: str, *, fresh: bool = False) -> tuple[Entry, str]:
    """Return a file and its content as it is now: there is no checkpoint between the last look at the content and the return."""
    await volume.load()
    if path not in volume.entries and volume.is_shared:
        volume.is_doubtful = True  # somebody else may have made the file since
        await volume.load()
    while True:
        entry = volume.find(path)
        if entry.content is not None and not fresh:
            volume.services.cache.used(entry)
            return entry, entry.content
        with volume.pinned(entry):
            await volume.read(entry, fresh=fresh)
            fresh = False
            if entry.content is not None and entry.path == path and not entry.is_gone:
                return entry, entry.content


async def _look_again(volume: Volume, path: str) -> None:
    """Read a file that others may have changed, so that what is written now replaces what is stored now, and nothing later."""
    entry = volume.entries.get(path)
    if entry is None or not volume.is_shared or entry.is_dirty:
        return
    with suppress(FileError), volume.pinned(entry):  # a file that cannot be read can be written all the same
        await volume.read(entry, fresh=True)


async def _search(entries: Sequence[tuple[Volume, Entry]], text: str, prefix: str, limit: float) -> FileMatches:
    matches: list[FileMatch] = []
    skipped: list[str] = []
    for volume, entry in entries:
        path = entry.path
        try:
            with volume.pinned(entry):
                content = await volume.read(entry)
        except (NotText, FileRefused, QuotaExceeded, FileNotFound):
            if path == prefix:
                raise
            skipped.append(path)
            continue
        await trio.lowlevel.checkpoint()
        for match in find_text(entry.path, content or "", text):
            if len(matches) == limit:
                return FileMatches(matches, skipped, is_complete=False)
            matches.append(match)
    return FileMatches(matches, skipped, is_complete=True)
