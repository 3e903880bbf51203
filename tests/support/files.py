"""A backend in memory that does what a test tells it to: fail, hang, and say what it was asked."""

from collections.abc import Sequence

import attrs
import trio

from trio_sagents.exceptions import PersistenceError
from trio_sagents.files import FileRecord, MemoryFiles


class Broken(RuntimeError):
    """What a host's backend raises."""


@attrs.define(eq=False)
class Faults:
    """What goes wrong next, by method."""

    failing: dict[str, int] = attrs.field(factory=dict)
    """How many calls fail before they do anything."""
    failing_late: dict[str, int] = attrs.field(factory=dict)
    """How many calls fail after they have done all."""
    hanging: dict[str, trio.Event] = attrs.field(factory=dict)
    """What calls wait for before they do anything."""
    error: Exception = attrs.field(factory=lambda: Broken("the canary of the backend"))


class FaultyFiles(MemoryFiles):
    """`MemoryFiles`, with faults and a log of (method, path)."""

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


ERRORS = (Broken("x"), PersistenceError("x"), OSError("x"))
