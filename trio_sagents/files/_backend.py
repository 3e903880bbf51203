"""What keeps files: the protocol that a backend implements."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

import attrs

from trio_sagents.files._paths import ScopeKey


@attrs.frozen
class FileRecord:
    """A line of an index: a file without its content."""

    path: str
    size: int
    """Bytes of UTF-8."""


@runtime_checkable
class FileBackend(Protocol):
    """Keeps texts by scope and path. Paths begin with "/", seen from the mount, and are valid; contents are text without lone surrogates.

    For one scope it is called by one task at a time. What was done when a call returns is durable, whatever that means for this
    backend. A call that raises has changed nothing, or all of it: the index is read again afterwards. Anything that it raises is taken for
    its failure and hidden from agents, apart from the errors that are named below.

    Cancellation: only when the files close and `settle_timeout` is over; the change is in, or it is not.
    """

    async def index(self, scope: ScopeKey) -> Sequence[FileRecord]:
        """Return all files of `scope`, in any order, without reading them."""
        ...

    async def read(self, scope: ScopeKey, path: str, *, max_bytes: float) -> str:
        """Return the content.

        Raises:
            FileNotFound: there is none.
            NotText: it is no UTF-8.
            FileRefused: it is no plain file.
            QuotaExceeded: it has more than `max_bytes`; it need not have been read.
        """
        ...

    async def create(self, scope: ScopeKey, path: str, content: str) -> None:
        """Make a file; `FileExists` if the place is taken."""
        ...

    async def write(self, scope: ScopeKey, path: str, content: str) -> None:
        """Give a file this content, all at once; make it where it is gone."""
        ...

    async def delete(self, scope: ScopeKey, path: str) -> None:
        """Delete a file; fine where there is none."""
        ...

    async def move(self, scope: ScopeKey, old: str, new: str) -> None:
        """Move a file, or all files below a folder, all at once.

        Raises:
            FileNotFound: there is nothing at `old`.
            FileExists: there is something at `new`, or below it.
        """
        ...


@runtime_checkable
class OpenableFiles(Protocol):
    """A backend that holds something open: `open_files` opens it, and closes it after the last write."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Open it; PersistenceError where it cannot be used, saying what to do."""
        ...
