"""The working folder as files of an agent: what stands in it, without what is hidden and without the chat's own database."""

import math
import os
import stat
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from trio_sagents.files import DirectoryFiles, FileRecord, FileRefused, FilesConfig, Mount

SCOPE: Final = "folder"
"""There is one tree: the folder."""
MAX_FILES: Final = 5_000
"""Files that are known of a folder, the nearest first."""
MAX_FOLDERS: Final = 2_000
MAX_DEPTH: Final = 16


def files_config(folder: Path, database: Path) -> FilesConfig:
    """Return the settings for the files of one folder: a change is on the disk at once, and what is there takes no room.

    Args:
        folder: must exist.
        database: never opened, wherever it is; nor the files that SQLite has beside it.
    """
    private = [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
    mount = Mount("/", WorkingFolder(folder, private))
    return FilesConfig(mounts=[mount], debounce=0.0, max_scope_bytes=math.inf, max_scope_files=math.inf)


class WorkingFolder:
    """A `FileBackend`: `DirectoryFiles`, which nothing leads out of, behind a look at what is hidden or private."""

    def __init__(self, root: Path, private: Sequence[Path] = ()) -> None:
        """Keep the paths.

        Args:
            root: the folder; must exist.
            private: files that are never opened, under whatever name.
        """
        self._root = root.resolve(strict=True)
        self._private = tuple(private)
        self._files = DirectoryFiles(self._root, single_scope=True)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the folder; as `DirectoryFiles.open`.

        Cancellation: either it is open, or nothing stays open.
        """
        async with self._files.open():
            yield

    async def index(self, scope: tuple[str, ...]) -> Sequence[FileRecord]:
        """Return the files that are not hidden, the nearest first, at most `MAX_FILES`; a new list.

        Cancellation: it is left to itself; it changes nothing.
        """
        return await trio.to_thread.run_sync(lambda: list(self._walk()), abandon_on_cancel=True)

    async def read(self, scope: tuple[str, ...], path: str, *, max_bytes: float) -> str:
        """Return the content.

        Cancellation: it is left to itself; it only reads.
        """
        self._check(path)
        return await self._files.read(scope, path, max_bytes=max_bytes)

    async def create(self, scope: tuple[str, ...], path: str, content: str) -> None:
        """Make a file.

        Cancellation: it is left to itself: all is done, or nothing.
        """
        self._check(path)
        await self._files.create(scope, path, content)

    async def write(self, scope: tuple[str, ...], path: str, content: str) -> None:
        """Give a file this content.

        Cancellation: it is left to itself: all is done, or nothing.
        """
        self._check(path)
        await self._files.write(scope, path, content)

    async def delete(self, scope: tuple[str, ...], path: str) -> None:
        """Delete a file.

        Cancellation: it is left to itself: all is done, or nothing.
        """
        self._check(path)
        await self._files.delete(scope, path)

    async def move(self, scope: tuple[str, ...], old: str, new: str) -> None:
        """Move a file or a folder; not one in which the database is.

        Cancellation: it is left to itself: all is done, or nothing.
        """
        self._check(old)
        self._check(new)
        here = self._root / old[1:]
        if any(private.resolve().is_relative_to(here) for private in self._private):
            raise FileRefused(old, "this chat's own database is in it")
        await self._files.move(scope, old, new)

    def _check(self, path: str) -> None:
        if any(name.startswith(".") for name in path[1:].split("/")):
            raise FileRefused(path, "it is hidden; hidden files are not for agents")
        here = self._root / path[1:]
        if any(private.resolve() == here for private in self._private):
            raise FileRefused(path, "it is this chat's own database")
        with suppress(OSError):
            # Invariant: the database is never opened here. Closing a file drops every lock this process has on it, SQLite's included.
            if self._is_private(here.stat()):
                raise FileRefused(path, "it is this chat's own database")

    def _is_private(self, found: os.stat_result) -> bool:
        for private in self._private:
            with suppress(OSError):
                known = private.stat()
                if (known.st_dev, known.st_ino) == (found.st_dev, found.st_ino):
                    return True
        return False

    def _walk(self) -> Iterator[FileRecord]:
        """Yield the files, folder by folder, breadth first: only names and sizes, so whatever moves meanwhile does no harm."""
        waiting = deque([("", 0)])
        folders = files = 0
        while waiting and folders < MAX_FOLDERS:
            prefix, depth = waiting.popleft()
            folders += 1
            with suppress(OSError), os.scandir(self._root / prefix[1:]) as entries:
                for entry in sorted(entries, key=lambda one: one.name):
                    if entry.name.startswith(".") or entry.is_symlink():
                        continue
                    if entry.is_dir() and depth + 1 < MAX_DEPTH:
                        waiting.append((f"{prefix}/{entry.name}", depth + 1))
                    elif (record := self._record(f"{prefix}/{entry.name}", entry)) is not None:
                        yield record
                        files += 1
                        if files == MAX_FILES:
                            return

    def _record(self, path: str, entry: "os.DirEntry[str]") -> FileRecord | None:
        with suppress(OSError):
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and not self._is_private(found):
                return FileRecord(path, found.st_size)
        return None
