"""Files in a directory of the disk; nothing leads out of the directory."""

import hashlib
import json
import os
import string
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import trio

from trio_sagents.exceptions import PersistenceError
from trio_sagents.files import _walk as walk
from trio_sagents.files._backend import FileRecord
from trio_sagents.files._errors import FileRefused
from trio_sagents.files._paths import ScopeKey, names_of
from trio_sagents.files._text import decode

T = TypeVar("T")
_PLAIN: Final = frozenset(string.ascii_lowercase + string.digits + "-_")
"""The characters that are not escaped in the name of a scope's directory. No capitals, which some disks do not tell from small letters."""
_MAX_NAME: Final = 200


class _Root:
    """An open directory. It is closed when nobody uses it any more; an abandoned thread may use it longer than its caller."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._users = 1
        # Invariant: 1 for the block that opened the directory, and 1 for each thread at work; at 0 the directory is closed for good.
        self._lock = threading.Lock()

    @contextmanager
    def used(self) -> Iterator[int]:
        with self._lock:
            if not self._users:
                raise PersistenceError("the directory has been closed")
            self._users += 1
        try:
            yield self._fd
        finally:
            self.release()

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                os.close(self._fd)


class DirectoryFiles:
    """A `FileBackend` in a directory: each file of the tree is a file of the disk with the same name.

    No link is followed, at any level. Links, devices, pipes and files with a second name are not listed, not read and not replaced.
    Files are made readable by their owner only, and replaced as a whole. Names that no path can have are not listed.

    Other processes may use the same directory, each with its own `DirectoryFiles`: a file is compared with what was read before it
    is replaced or deleted. Listings show the changes of others after `FileArea.refresh`.

    Args:
        root: the directory, on a local disk that supports hard links and file locks; it must exist when it is opened.
        single_scope: False: each scope has its own directory in `root`. True: `root` itself is the tree, the same tree for all
            scopes; then only one scope may write, the first that does.

    Raises:
        TypeError: `root` is not a path.
        ValueError: `root` is empty or has a null character.
    """

    def __init__(self, root: str | os.PathLike[str], *, single_scope: bool = False) -> None:
        name = os.fspath(root) if isinstance(root, os.PathLike) else root
        if not isinstance(name, str):
            raise TypeError(f"root must be str or PathLike, not {type(root).__name__}")
        if not name or "\0" in name:
            raise ValueError(f"root must name a directory, not {name!r}")
        self._path = str(Path(name).absolute())
        self._single_scope = single_scope
        self._writer: ScopeKey | None = None
        """The scope that writes, if there may be only one."""
        self._root: _Root | None = None
        self._threads = trio.CapacityLimiter(8)

    def __repr__(self) -> str:
        return f"DirectoryFiles({self._path!r}{', single_scope=True' if self._single_scope else ''})"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the directory; close it when the block is left.

        Raises:
            PersistenceError: there is no such directory, or it cannot be used; nothing stays open.

        Cancellation: nothing stays open.
        """
        if self._root is not None:
            raise PersistenceError(f"the directory {self._path!r} is open already; a DirectoryFiles serves one open_files block at a time")
        self._root = root = await trio.to_thread.run_sync(self._open)
        try:
            yield
        finally:
            self._root = None
            root.release()

    def _open(self) -> _Root:
        if not {os.open, os.stat, os.mkdir, os.rename, os.unlink, os.rmdir, os.link} <= os.supports_dir_fd:
            raise PersistenceError("this system cannot open files safely below a directory; use SqliteFiles")
        try:
            return _Root(os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as exc:
            raise PersistenceError(f"the directory {self._path!r}: {exc.strerror}; make the directory, or correct its permissions") from exc

    async def index(self, scope: ScopeKey) -> Sequence[FileRecord]:
        """Return all plain files of `scope`, as a new list; remove what a write that was cut off has left.

        Cancellation: the thread is abandoned; it only reads.
        """
        return await self._run(partial(walk.index, names=self._names(scope, "/")))

    async def read(self, scope: ScopeKey, path: str, *, max_bytes: float) -> str:
        """Return the content, as `FileBackend.read` does.

        Cancellation: the thread is abandoned; it only reads.
        """
        return decode(path, await self._run(partial(walk.read, names=self._names(scope, path), path=path, max_bytes=max_bytes)))

    async def create(self, scope: ScopeKey, path: str, content: str) -> None:
        """Make a file; raise `FileExists` if the path is taken.

        Cancellation: the thread is abandoned; either the whole change is made, or nothing.
        """
        self._check_writer(scope, path)
        await self._run(partial(walk.create, names=self._names(scope, path), path=path, data=content.encode()))

    async def write(self, scope: ScopeKey, path: str, content: str) -> None:
        """Replace the content of a file; make the file if there is none.

        Cancellation: the thread is abandoned; either the whole change is made, or nothing.
        """
        self._check_writer(scope, path)
        await self._run(partial(walk.write, names=self._names(scope, path), path=path, data=content.encode()))

    async def write_if(self, scope: ScopeKey, path: str, content: str, *, digests: Collection[bytes]) -> None:
        """Replace the content of a file if it has one of these digests; raise `FileConflict` otherwise.

        Cancellation: the thread is abandoned; either the whole change is made, or nothing.
        """
        self._check_writer(scope, path)
        names, data = self._names(scope, path), content.encode()
        await self._run(partial(walk.write_if, names=names, path=path, data=data, digests=digests))

    async def delete_if(self, scope: ScopeKey, path: str, *, digests: Collection[bytes]) -> None:
        """Delete a file, and the directories that are empty without it, if it has one of these digests; raise `FileConflict` otherwise.

        Cancellation: the thread is abandoned; either the whole change is made, or nothing.
        """
        self._check_writer(scope, path)
        await self._run(partial(walk.delete_if, names=self._names(scope, path), path=path, digests=digests))

    async def delete(self, scope: ScopeKey, path: str) -> None:
        """Delete a file, and the directories that are empty without it; do nothing if there is no file.

        Cancellation: the thread is abandoned; either the whole change is made, or nothing.
        """
        self._check_writer(scope, path)
        await self._run(partial(walk.delete, names=self._names(scope, path), path=path))

    async def move(self, scope: ScopeKey, old: str, new: str) -> None:
        """Move a file, or a directory with all that is in it.

        Cancellation: the thread is abandoned; either the whole change is made, or nothing.
        """
        self._check_writer(scope, old)
        await self._run(partial(walk.move, old=self._names(scope, old), new=self._names(scope, new), path=old, there=new))

    def _names(self, scope: ScopeKey, path: str) -> Sequence[str]:
        return names_of(path) if self._single_scope else (directory_name(scope), *names_of(path))

    def _check_writer(self, scope: ScopeKey, path: str) -> None:
        if not self._single_scope:
            return
        if self._writer is None:
            self._writer = scope
        elif self._writer != scope:
            raise FileRefused(path, "another scope writes in this directory; mount it read-only, or without single_scope")

    async def _run(self, work: Callable[[int], T]) -> T:
        root = self._root
        if root is None:
            raise PersistenceError(f"the directory {self._path!r} is not open; use it inside of open_files")
        # Cancellation: only if the files close and the disk does not answer. The thread keeps the directory open for itself.
        return await trio.to_thread.run_sync(self._work, root, work, abandon_on_cancel=True, limiter=self._threads)

    def _work(self, root: _Root, work: Callable[[int], T]) -> T:
        try:
            with root.used() as fd:
                return work(fd)
        except OSError as exc:
            raise PersistenceError(f"the directory {self._path!r}: {exc}; check its permissions and its disk") from exc


def directory_name(scope: ScopeKey) -> str:
    """Return the name of a scope's directory: a different one for each scope, on any disk, and never one with a special meaning.

    The name is readable, unless it would be too long; then it is a digest.
    """
    name = "+".join("".join(_escaped(byte) for byte in part.encode()) for part in scope)
    if len(name) <= _MAX_NAME:
        return name
    text = json.dumps(scope, ensure_ascii=False, separators=(",", ":"))
    return f"={hashlib.sha256(text.encode()).hexdigest()}"


def _escaped(byte: int) -> str:
    return chr(byte) if chr(byte) in _PLAIN else f"%{byte:02x}"
