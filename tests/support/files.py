"""A backend of files in memory that does what a test tells it to: it fails, hangs, and records what it was asked."""

import hashlib
from collections.abc import Callable, Collection, Sequence

import attrs
import trio

from trio_sagents.exceptions import PersistenceError
from trio_sagents.files import FileConflict, FileRecord, MemoryFiles


class Broken(RuntimeError):
    """The error that a host's backend raises."""


@attrs.define(eq=False)
class Faults:
    """What goes wrong next, by method."""

    failing: dict[str, int] = attrs.field(factory=dict)
    """How many calls fail before they have any effect."""
    failing_late: dict[str, int] = attrs.field(factory=dict)
    """How many calls fail after they have had their effect."""
    hanging: dict[str, trio.Event] = attrs.field(factory=dict)
    """What calls wait for before they have any effect."""
    error: Exception = attrs.field(factory=lambda: Broken("the canary of the backend"))


class FaultyFiles(MemoryFiles):
    """`MemoryFiles` with planned faults and a log of (method, path)."""

    def __init__(self) -> None:
        super().__init__()
        self.faults = Faults()
        self.calls: list[tuple[str, str]] = []

    async def _begin(self, method: str, path: str) -> None:
        self.calls.append((method, path))
        if (event := self.faults.hanging.get(method)) is not None:
            await event.wait()
        self._fail(self.faults.failing, method)

    def _end(self, method: str) -> None:
        self._fail(self.faults.failing_late, method)

    def _fail(self, counts: dict[str, int], method: str) -> None:
        if counts.get(method, 0) > 0:
            counts[method] -= 1
            raise self.faults.error

    def of(self, method: str) -> list[str]:
        return [path for name, path in self.calls if name == method]

    async def index(self, scope: tuple[str, ...]) -> Sequence[FileRecord]:
        await self._begin("index", "/")
        return await super().index(scope)

    async def read(self, scope: tuple[str, ...], path: str, *, max_bytes: float) -> str:
        await self._begin("read", path)
        return await super().read(scope, path, max_bytes=max_bytes)

    async def create(self, scope: tuple[str, ...], path: str, content: str) -> None:
        await self._begin("create", path)
        await super().create(scope, path, content)
        self._end("create")

    async def write(self, scope: tuple[str, ...], path: str, content: str) -> None:
        await self._begin("write", path)
        await super().write(scope, path, content)
        self._end("write")

    async def delete(self, scope: tuple[str, ...], path: str) -> None:
        await self._begin("delete", path)
        await super().delete(scope, path)
        self._end("delete")

    async def move(self, scope: tuple[str, ...], old: str, new: str) -> None:
        await self._begin("move", old)
        await super().move(scope, old, new)
        self._end("move")

    def stored(self, path: str, *scope: str) -> str | None:
        return self._scopes.get(scope or ("s",), {}).get(path)


class SharedFiles(FaultyFiles):
    """`FaultyFiles` that others change as well. It compares before it replaces or deletes, as `ComparingFiles` says."""

    meanwhile: Callable[[], None] | None = None
    """What somebody else does just before the next comparison, once."""

    def put(self, path: str, content: str | None, *scope: str) -> None:
        """Act as somebody else: store a content, or delete the file."""
        files = self._scopes.setdefault(scope or ("s",), {})
        if content is None:
            del files[path]
        else:
            files[path] = content

    def _compare(self, scope: tuple[str, ...], path: str) -> bytes | None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        content = self._scopes.get(scope, {}).get(path)
        return None if content is None else hashlib.sha256(content.encode()).digest()

    async def write_if(self, scope: tuple[str, ...], path: str, content: str, *, digests: Collection[bytes]) -> None:
        await self._begin("write", path)
        if self._compare(scope, path) not in digests:
            raise FileConflict(path)
        await MemoryFiles.write(self, scope, path, content)
        self._end("write")

    async def delete_if(self, scope: tuple[str, ...], path: str, *, digests: Collection[bytes]) -> None:
        await self._begin("delete", path)
        found = self._compare(scope, path)
        if found is not None and found not in digests:
            raise FileConflict(path)
        await MemoryFiles.delete(self, scope, path)
        self._end("delete")


ERRORS = (Broken("x"), PersistenceError("x"), OSError("x"))
