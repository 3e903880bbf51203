"""The files of one scope, for agents and hosts: the operations."""

import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from trio_sagents.files import _changing as changing
from trio_sagents.files._changes import FileChanges
from trio_sagents.files._entry import Entry
from trio_sagents.files._errors import FileNotFound, FileNotStored, FileRefused, FilesUnsaved, NotText, QuotaExceeded, UnsavedFile
from trio_sagents.files._paths import ROOT, ScopeKey, check_path, check_prefix, is_under
from trio_sagents.files._saving import edit, flush
from trio_sagents.files._text import FileMatch, FileText, cut_lines, encode, find_text, replace_text
from trio_sagents.files._tree import Tree
from trio_sagents.files._volume import Volume

if TYPE_CHECKING:
    from trio_sagents.files._system import FileSystem


@attrs.frozen
class FileInfo:
    """A line of a listing."""

    path: str
    size: int
    """Bytes of UTF-8."""
    is_read_only: bool
    is_saved: bool
    """Whether its storage has all that was done to it."""


@attrs.frozen
class FileMatches:
    """What a search found."""

    matches: Sequence[FileMatch]
    """By path, then by line."""
    skipped: Sequence[str]
    """Files below the folder that could not be searched: no text, too large, or no plain files."""
    is_complete: bool
    """Whether these are all; False where there are more than were asked for."""


def _check_count(name: str, value: object, minimum: int, *, finite: bool = False) -> None:
    if isinstance(value, bool) or not (isinstance(value, int) or (value == math.inf and not finite)):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if isinstance(value, int) and value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, not {value}")


@attrs.frozen(eq=False)
class FileArea:
    """The files of one scope. Any number of agents may share one; each method can be called by all of them at once.

    A file that is new, deleted or moved is stored when the call returns. An edit is seen by everybody when the call returns, and
    stored soon after: `flush()` waits for that.
    """

    scope: ScopeKey
    _system: "FileSystem" = attrs.field(repr=False)

    async def list(self, prefix: str = ROOT) -> Sequence[FileInfo]:
        """Return the files at `prefix` and below it, by path; none is read.

        Args:
            prefix: a file, or a folder; "/" for all.

        Raises:
            InvalidPath: there can be no such folder.
            FileNotStored: the index could not be read.
            FilesClosed: the `open_files` block was left.

        Cancellation: either it returns, or it was cancelled; nothing changes.
        """
        prefix = check_prefix(prefix)
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            return [
                FileInfo(entry.path, entry.size, is_read_only=volume.mount.read_only, is_saved=not entry.is_dirty)
                for volume, entry in await _under(tree, prefix)
            ]

    async def read(self, path: str, *, offset: int = 0, limit: float = math.inf) -> FileText:
        """Return the text of a file, or some lines of it.

        Args:
            path: of the file.
            offset: how many lines to leave out at the beginning.
            limit: most lines to return, at least 1.

        Raises:
            InvalidPath: there can be no such file.
            FileNotFound: there is none.
            NotText: it is no UTF-8.
            FileRefused: it is no plain file.
            QuotaExceeded: it is longer than `max_file_bytes`.
            FileNotStored: it could not be read.
            FilesClosed: the `open_files` block was left.
            TypeError: `offset` or `limit` is no int.
            ValueError: one of them is out of range.

        Cancellation: either it returns, or it was cancelled; nothing changes.
        """
        check_path(path)
        _check_count("offset", offset, 0, finite=True)
        _check_count("limit", limit, 1)
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            _, _, content = await _loaded(tree.volume_of(path), path)
        return cut_lines(path, content, offset, limit)

    async def create(self, path: str, content: str) -> None:
        """Make a file. It is stored when the call returns.

        Args:
            path: of the file; folders need not be made.
            content: kept as it is, the empty text and blanks too.

        Raises:
            InvalidPath: there can be no such file.
            FileExists: there is one, or a folder; nothing was changed.
            FileReadOnly: nothing can be made there.
            NotText: the content has lone surrogates.
            QuotaExceeded: there is no room for it; nothing was changed.
            FileNotStored: it could not be stored; it is not there.
            FilesClosed: the `open_files` block was left.

        Cancellation: either nothing was done, or it will be there, if it can be stored.
        """
        check_path(path)
        size = len(encode(path, content))
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            volume = await _growing(tree, path, size)
            await volume.run(partial(changing.create, volume, path, content, size))

    async def write(self, path: str, content: str) -> None:
        """Give a file this content, whatever it has, or make it: for hosts, who know what they do.

        Args:
            path: of the file.
            content: kept as it is.

        Raises:
            FileError: as of `create` where the file is new, as of `replace` where it is there.

        Cancellation: either nothing was done, or it will be done, if it can be stored.
        """
        check_path(path)
        size = len(encode(path, content))
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            volume = await _growing(tree, path, size)
            entry = volume.entries.get(path)
            if entry is not None:
                edit(volume, entry, content, size)
            else:
                await volume.run(partial(changing.write, volume, path, content, size))

    async def replace(self, path: str, old: str, new: str, *, all: bool = False) -> int:  # noqa: A002  # as a host would say it
        """Replace a text in a file, and return how often it was.

        Reading and writing is one step, so no edit of anybody is lost. It is seen at once, and stored after `debounce`.

        Args:
            path: of the file.
            old: must be in it exactly once; not empty.
            new: takes its place.
            all: replace it as often as it is there.

        Raises:
            InvalidPath: there can be no such file.
            FileNotFound: there is none.
            TextNotFound: it has no such text.
            TextNotUnique: it has it more than once.
            FileReadOnly: it cannot be changed.
            NotText: it is no UTF-8, or `new` has lone surrogates.
            QuotaExceeded: it would be too long; nothing was changed.
            FileNotStored: it could not be read.
            FilesClosed: the `open_files` block was left.
            ValueError: `old` is empty.

        Cancellation: either nothing was changed, or the change is in.
        """
        check_path(path)
        if not encode(path, old):
            raise ValueError("the text to replace must not be empty")
        encode(path, new)
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            volume, entry, content = await _loaded(await _growing(tree, path, is_new=False), path)
            # No checkpoint until it is edited: `content` is what the file has now.
            content, count = replace_text(path, content, old, new, all_of_them=all)
            edit(volume, entry, content, len(content.encode()))
            return count

    async def find(self, text: str, prefix: str = ROOT, *, limit: float = 200) -> FileMatches:
        """Return the lines in which a text begins.

        Args:
            text: looked for as it is, case and blanks included: no pattern. Not empty.
            prefix: a file, or a folder; "/" for all.
            limit: most lines to return, at least 1.

        Raises:
            InvalidPath: there can be no such file or folder.
            FileNotFound: there is nothing at `prefix` or below it.
            NotText: `prefix` is a file, and no UTF-8.
            FileRefused: it is no plain file.
            QuotaExceeded: it is longer than `max_file_bytes`.
            FileNotStored: something could not be read.
            FilesClosed: the `open_files` block was left.
            ValueError: `text` is empty, or `limit` is out of range.

        Cancellation: either it returns, or it was cancelled; nothing changes.
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
        """Delete a file. It is gone from the storage when the call returns.

        Args:
            path: of the file; a folder is gone with its last file.

        Raises:
            InvalidPath: there can be no such file.
            FileNotFound: there is none.
            FileReadOnly: it cannot be changed.
            FileNotStored: it could not be deleted; it is still there.
            FilesClosed: the `open_files` block was left.

        Cancellation: either nothing was done, or it will be gone, if that can be stored.
        """
        check_path(path)
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            volume = tree.writable(path, is_new=False)
            await volume.load()
            await volume.run(partial(changing.delete, volume, path))

    async def move(self, old: str, new: str) -> Sequence[str]:
        """Move a file, or all files of a folder, and return the new paths, sorted. It is stored when the call returns.

        An edit that is not stored yet goes along.

        Args:
            old: a file, or a folder.
            new: what it is to be called; nothing may be there.

        Raises:
            InvalidPath: there can be no such file; also one below the folder.
            FileNotFound: there is nothing at `old`.
            FileExists: there is something at `new`; nothing was changed.
            FileReadOnly: one of the two cannot be changed.
            MoveRefused: this cannot go there: to another storage, or into itself.
            FileNotStored: it could not be moved; nothing was changed.
            FilesClosed: the `open_files` block was left.

        Cancellation: either nothing was done, or all will be moved, if that can be stored.
        """
        check_path(old)
        check_path(new)
        await trio.lowlevel.checkpoint()
        with self._tree() as tree:
            volume = tree.movable(old, new)
            await volume.load()
            return await volume.run(partial(changing.move, volume, old, new))

    async def flush(self) -> None:
        """Store all edits of this scope now.

        Raises:
            FilesUnsaved: some could not be stored; they are kept, and tried again later.
            FilesClosed: the `open_files` block was left.

        Cancellation: either it returns, or it was cancelled; what is not stored is stored later.
        """
        await trio.lowlevel.checkpoint()
        left: list[UnsavedFile] = []
        with self._tree() as tree:
            for volume in tree.volumes:
                left += await flush(volume)
        if left:
            raise FilesUnsaved(left)

    async def refresh(self) -> None:
        """Look again at what the storages have, after somebody else has changed them. Edits that are not stored yet win.

        Raises:
            FileNotStored: an index could not be read; what was known of it stays.
            FilesClosed: the `open_files` block was left.

        Cancellation: either it returns, or it was cancelled; what was not looked at is looked at later.
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
        """Listen to this scope's changes: `FileSystem.changes`."""
        return self._system.changes(self.scope)

    def _tree(self) -> AbstractContextManager[Tree]:
        return self._system.tree(self.scope).used()


async def _under(tree: Tree, prefix: str) -> Sequence[tuple[Volume, Entry]]:
    volumes = tree.volumes_under(prefix)
    for volume in volumes:
        await volume.load()
    found = [(volume, entry) for volume in volumes for entry in volume.entries.values() if is_under(entry.path, prefix)]
    return sorted(found, key=lambda one: one[1].path)


async def _growing(tree: Tree, path: str, size: int = 0, *, is_new: bool = True) -> Volume:
    """Return the volume in which `path` may grow, when all is known that counts for the quota."""
    volume = tree.writable(path, is_new=is_new)
    volume.usage.check_file(path, size)
    await tree.load_writable()
    return volume


async def _loaded(volume: Volume, path: str) -> tuple[Volume, Entry, str]:
    """Return a file and its content, as it is now: no checkpoint since it was looked at."""
    await volume.load()
    while True:
        entry = volume.find(path)
        if entry.content is not None:
            volume.services.cache.used(entry)
            return volume, entry, entry.content
        with volume.pinned(entry):
            await volume.read(entry)
            if entry.content is not None and entry.path == path and not entry.is_gone:
                return volume, entry, entry.content


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
