"""The storage of files: the protocols that a backend implements."""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

import attrs

from trio_sagents.files._paths import ScopeKey


@attrs.frozen
class FileRecord:
    """A line of an index: a file without its content."""

    path: str
    size: int
    """In bytes of UTF-8."""


@runtime_checkable
class FileBackend(Protocol):
    """Stores texts by scope and path. Paths are valid, and begin with "/" at the mount; contents are text without lone surrogates.

    For each scope, only one task at a time calls the backend. When a call returns, its change is durable, in the sense of this backend.
    A call that raises has changed nothing, or has made its whole change: the index is read again afterwards. Every exception counts
    as a failure of the backend and is hidden from agents, except the errors that are named below.

    Cancellation: a call is cancelled only when the files close and `settle_timeout` is over. Either the change is made, or nothing is.
    """

    async def index(self, scope: ScopeKey) -> Sequence[FileRecord]:
        """Return all files of `scope`, in any order, without reading their contents."""
        ...

    async def read(self, scope: ScopeKey, path: str, *, max_bytes: float) -> str:
        """Return the content of a file.

        Raises:
            FileNotFound: there is no such file.
            NotText: the content is not UTF-8.
            FileRefused: the storage has something else than a plain file there.
            QuotaExceeded: the file has more than `max_bytes`; it need not have been read.
        """
        ...

    async def create(self, scope: ScopeKey, path: str, content: str) -> None:
        """Make a file; raise `FileExists` if the path is taken."""
        ...

    async def write(self, scope: ScopeKey, path: str, content: str) -> None:
        """Replace the whole content of a file at once; make the file if there is none."""
        ...

    async def delete(self, scope: ScopeKey, path: str) -> None:
        """Delete a file; do nothing if there is none."""
        ...

    async def move(self, scope: ScopeKey, old: str, new: str) -> None:
        """Move a file, or all files below a folder, all at once.

        Raises:
            FileNotFound: there is nothing at `old`.
            FileExists: there is something at `new`, or below it.
        """
        ...


@runtime_checkable
class ComparingFiles(Protocol):
    """A backend whose files others may change, too, such as another process. It compares before it replaces or deletes.

    A backend that implements these methods besides those of `FileBackend` is asked by them, so that no edit of anybody is lost
    without a word. In both methods, the comparison and the change are a single step for everybody who uses the same storage.
    """

    async def write_if(self, scope: ScopeKey, path: str, content: str, *, digests: Collection[bytes]) -> None:
        """Replace the whole content of a file if its content has one of these SHA-256 digests.

        Raises:
            FileConflict: the file has another content, or is gone; nothing was changed.
        """
        ...

    async def delete_if(self, scope: ScopeKey, path: str, *, digests: Collection[bytes]) -> None:
        """Delete a file if its content has one of these SHA-256 digests; do nothing if there is no file.

        Raises:
            FileConflict: the file has another content; nothing was changed.
        """
        ...


@runtime_checkable
class OpenableFiles(Protocol):
    """A backend that has to be opened: `open_files` opens it, and closes it after the last write."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Open the backend; raise PersistenceError, which says what to do, if it cannot be used."""
        ...
