"""The working folder as files of an agent: its files, without hidden files and without the chat's own database."""

import math
import os
import stat
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from trio_sagents.files import DirectoryFiles, FileRecord, FileRefused, FilesConfig, Mount

SCOPE: Final = "folder"
"""The only scope: the folder is the only tree."""
MAX_FILES: Final = 5_000
"""How many files of a folder are known, those nearest to the top first."""
MAX_FOLDERS: Final = 2_000
MAX_DEPTH: Final = 16


def files_config(folder: Path, database: Path) -> FilesConfig:
    """Return the settings for the files of one folder: changes are written at once, and there is no limit for all files together.

    Args:
        folder: the folder; it must exist.
        database: the database of the chat, which is never opened here, wherever it is; nor are the files that SQLite has beside it.
    """
    private = [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
    mount = Mount("/", WorkingFolder(folder, private))
    return FilesConfig(mounts=[mount], debounce=0.0, max_scope_bytes=math.inf, max_scope_files=math.inf)


class WorkingFolder:
    """A `FileBackend`: `DirectoryFiles`, with a check that keeps hidden and private files out."""

    def __init__(self, root: Path, private: Sequence[Path] = ()) -> None:
        """Keep the paths.

        Args:
            root: the folder; it must exist.
            private: files that are never opened, under any name.
        """
        self._root = root.resolve(strict=True)
        self._private = tuple(private)
        self._files = DirectoryFiles(self._root, single_scope=True)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the folder, as `DirectoryFiles.open` does.

        Cancellation: nothing stays open.
        """
        async with self._files.open():
            yield

    async def index(self, scope: tuple[str, ...]) -> Sequence[FileRecord]:
        """Return at most `MAX_FILES` files that are not hidden, those nearest to the top first, as a new list.

        Cancellation: the thread is abandoned; it only reads.
        """
        return await trio.to_thread.run_sync(lambda: list(self._walk()), abandon_on_cancel=True)

    async def read(self, scope: tuple[str, ...], path: str, *, max_bytes: float) -> str:
        """Return the content.

        Cancellation: the thread is abandoned; it only reads.
        """
        self._check(path)
        return await self._files.read(scope, path, max_bytes=max_bytes)

    async def create(self, scope: tuple[str, ...], path: str, content: str) -> None:
        """Make a file.

        Cancellation: the thread is abandoned; either the whole change is made, or nothing.
        """
        self._check(path)
        await self._files.create(scope, path, content)

    async def write(self, scope: tuple[str, ...], path: str, content: str) -> None:
        """Replace the content of a file.

        Cancellation: the thread is abandoned; either the whole change is made, or nothing.
        """
        self._check(path)
        await self._files.write(scope, path, content)

    async def write_if(self, scope: tuple[str, ...], path: str, content: str, *, digests: Collection[bytes]) -> None:
        """Replace the content of a file, if nobody else has changed it.

        Cancellation: the thread is abandoned; either the whole change is made, or nothing.
        """
        self._check(path)
        await self._files.write_if(scope, path, content, digests=digests)

    async def delete_if(self, scope: tuple[str, ...], path: str, *, digests: Collection[bytes]) -> None:
        """Delete a file, if nobody else has changed it.

        Cancellation: the thread is abandoned; either the whole change is made, or nothing.
        """
        self._check(path)
        await self._files.delete_if(scope, path, digests=digests)

    async def delete(self, scope: tuple[str, ...], path: str) -> None:
        """Delete a file.

        Cancellation: the thread is abandoned; either the whole change is made, or nothing.
        """
        self._check(path)
        await self._files.delete(scope, path)

    async def move(self, scope: tuple[str, ...], old: str, new: str) -> None:
        """Move a file or a folder, unless the database is in it.

        Cancellation: the thread is abandoned; either the whole change is made, or nothing.
        """
        self._check(old)
        self._check(new)
        here = self._root / old[1:]
        if any(private.resolve().is_relative_to(here) for private in self._private):
            raise FileRefused(old, "this chat's own database is in it")
        await self._files.move(scope, old, new)

    def _check(self, path: str) -> None:
        if any(name.startswith(".") for name in path[1:].split("/")):
            raise FileRefused(path, "it is hidden, and hidden files are not for agents")
        here = self._root / path[1:]
        if any(private.resolve() == here for private in self._private):
            raise FileRefused(path, "it is this chat's own database")
        with suppress(OSError):
            # Invariant: the database is never opened here. Closing a file drops all locks of this process on it, also those of SQLite.
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
        """Yield the files, breadth first. Only names and sizes are read, so it does no harm if something is moved meanwhile."""
        waiting = deque([("", 0)])
        folders = files = 0
        while waiting and folders < MAX_FOLDERS:
            prefix, depth = waiting.popleft()
            folders += 1
            with suppress(OSError), os.scandir(self._root / prefix[1:]) as entries:
                for entry in sorted(entries, key=lambda found: found.name):
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
