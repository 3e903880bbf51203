"""Files that exist as long as the object of their backend."""

from collections.abc import Sequence

import trio

from trio_sagents.files._backend import FileRecord
from trio_sagents.files._errors import FileExists, FileNotFound, QuotaExceeded
from trio_sagents.files._paths import ScopeKey, is_under, parents


class MemoryFiles:
    """A `FileBackend` in memory: for tests, and for files that need not outlive the process.

    Each method passes one checkpoint and then acts without another one, so a cancelled call has done nothing.
    """

    def __init__(self) -> None:
        self._scopes: dict[ScopeKey, dict[str, str]] = {}

    def __repr__(self) -> str:
        return f"<MemoryFiles, {len(self._scopes)} scopes>"

    async def index(self, scope: ScopeKey) -> Sequence[FileRecord]:
        """Return all files of `scope`, as a new list.

        Cancellation: nothing changes.
        """
        await trio.lowlevel.checkpoint()
        return [FileRecord(path, len(content.encode())) for path, content in self._scopes.get(scope, {}).items()]

    async def read(self, scope: ScopeKey, path: str, *, max_bytes: float) -> str:
        """Return the content; raise FileNotFound, or QuotaExceeded if the content has more than `max_bytes`.

        Cancellation: nothing changes.
        """
        await trio.lowlevel.checkpoint()
        content = self._scopes.get(scope, {}).get(path)
        if content is None:
            raise FileNotFound(path)
        size = len(content.encode())
        if size > max_bytes:
            raise QuotaExceeded("max_file_bytes", size, most=max_bytes, path=path)
        return content

    async def create(self, scope: ScopeKey, path: str, content: str) -> None:
        """Make a file; raise `FileExists` if the path is taken.

        Cancellation: nothing was done.
        """
        await trio.lowlevel.checkpoint()
        files = self._scopes.setdefault(scope, {})
        _check_free(files, path)
        files[path] = content

    async def write(self, scope: ScopeKey, path: str, content: str) -> None:
        """Replace the content of a file; make the file if there is none.

        Cancellation: nothing was done.
        """
        await trio.lowlevel.checkpoint()
        self._scopes.setdefault(scope, {})[path] = content

    async def delete(self, scope: ScopeKey, path: str) -> None:
        """Delete a file; do nothing if there is none.

        Cancellation: nothing was done.
        """
        await trio.lowlevel.checkpoint()
        files = self._scopes.get(scope, {})
        files.pop(path, None)
        if not files:
            self._scopes.pop(scope, None)

    async def move(self, scope: ScopeKey, old: str, new: str) -> None:
        """Move a file, or all files below a folder.

        Cancellation: nothing was done.
        """
        await trio.lowlevel.checkpoint()
        files = self._scopes.get(scope, {})
        moved = {path: new + path[len(old) :] for path in files if is_under(path, old)}
        if not moved:
            raise FileNotFound(old)
        _check_free({path: content for path, content in files.items() if path not in moved}, new)
        for path, there in moved.items():
            files[there] = files.pop(path)


def _check_free(files: dict[str, str], path: str) -> None:
    if any(is_under(other, path) for other in files) or any(parent in files for parent in parents(path)):
        raise FileExists(path)
