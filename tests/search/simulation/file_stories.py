"""Stories of files: each backend alone, an area over a backend that fails as planned, and an agent with file tools."""

import functools
import hashlib
from contextlib import suppress
from typing import Any

import attrs
import trio

from tests.search.simulation.world import ALICE, World, new_folder, story
from trio_sagents import Agent, Files
from trio_sagents.files import (
    ComparingFiles,
    DirectoryFiles,
    FileDetails,
    FileError,
    FilesConfig,
    FilesUnsaved,
    MemoryFiles,
    Mount,
    SqliteFiles,
    open_files,
)
from trio_sagents.testing import Faults
from trio_sagents.testing._tally import leaves
from trio_sagents.testing.invariants import check, check_closed

SCOPE = ("tenant", "user")
BACKEND = ("create", "delete", "index", "move", "read", "write")
COMPARING = (*BACKEND, "delete_if", "write_if")


def _digests(content: str) -> list[bytes]:
    return [hashlib.sha256(content.encode()).digest()]


async def _use_backend(world: World, backend: Any) -> None:
    done: dict[str, str] = {}
    doing: dict[str, str] = {}

    async def change(name: str, path: str, content: str, **more: Any) -> None:
        doing[path] = content
        await getattr(backend, name)(SCOPE, path, content, **more)
        done[path] = content

    async def call() -> None:
        await change("create", "/a.md", "one")
        await change("write", "/a.md", "two")
        await change("create", "/b/c.md", "three")
        await backend.index(SCOPE)
        await backend.read(SCOPE, "/a.md", max_bytes=100)
        if isinstance(backend, ComparingFiles):
            await change("write_if", "/a.md", "four", digests=_digests("two"))
            await change("create", "/e.md", "five")
            del done["/e.md"]
            await backend.delete_if(SCOPE, "/e.md", digests=_digests("five"))

    await world.strike(call)
    found = {record.path: await backend.read(SCOPE, record.path, max_bytes=100) for record in await backend.index(SCOPE)}
    for path, content in done.items():
        check(found.get(path) in {content, doing[path]}, "I13", f"{path!r} was to be {content!r}, and is {found.get(path)!r}")
    for path in found:
        check(path in doing, "I12", f"{path!r} is there, and nobody made it")

    async def leave() -> None:
        await backend.move(SCOPE, "/b", "/d")
        await backend.delete(SCOPE, "/a.md")

    with suppress(FileError):
        await world.strike(leave, name="leaver")
    after = [record.path for record in await backend.index(SCOPE)]
    check(not {"/b/c.md", "/d/c.md"} <= set(after), "I12", f"a move was done by half: {after}")


@story(
    "MemoryFiles.index",
    "MemoryFiles.read",
    "MemoryFiles.create",
    "MemoryFiles.write",
    "MemoryFiles.delete",
    "MemoryFiles.move",
    kind="bare",
)
async def memory_files(world: World) -> None:
    """Each method, called alone."""
    await _use_backend(world, MemoryFiles())


async def _use_opened(world: World, make: Any) -> None:
    async def call() -> None:
        async with make("first").open():
            await trio.lowlevel.checkpoint()

    await world.strike(call, name="opener")
    backend = make("second")
    async with backend.open():
        await _use_backend(world, backend)


@story("SqliteFiles.open", *(f"SqliteFiles.{name}" for name in COMPARING), kind="bare")
async def sqlite_files(world: World) -> None:
    """Each method, called alone, and opening the backend."""
    with new_folder() as folder:
        await _use_opened(world, lambda name: SqliteFiles(folder / f"{name}.db"))


@story("DirectoryFiles.open", *(f"DirectoryFiles.{name}" for name in COMPARING), kind="bare")
async def directory_files(world: World) -> None:
    """Each method, called alone, and opening the backend."""
    with new_folder() as folder:
        for name in ("first", "second"):
            (folder / name).mkdir()
        await _use_opened(world, lambda name: DirectoryFiles(folder / name))


@attrs.define(eq=False)
class FaultyFiles:
    """A backend whose calls fail on plan."""

    faults: Faults
    inner: MemoryFiles = attrs.field(factory=MemoryFiles)

    async def _call(self, name: str, *args: Any, **more: Any) -> Any:
        return await self.faults.call(f"files.{name}", functools.partial(getattr(self.inner, name), *args, **more))

    async def index(self, scope: Any) -> Any:
        """Or fail."""
        return await self._call("index", scope)

    async def read(self, scope: Any, path: str, *, max_bytes: float) -> Any:
        """Or fail."""
        return await self._call("read", scope, path, max_bytes=max_bytes)

    async def create(self, scope: Any, path: str, content: str) -> None:
        """Or fail."""
        await self._call("create", scope, path, content)

    async def write(self, scope: Any, path: str, content: str) -> None:
        """Or fail."""
        await self._call("write", scope, path, content)

    async def delete(self, scope: Any, path: str) -> None:
        """Or fail."""
        await self._call("delete", scope, path)

    async def move(self, scope: Any, old: str, new: str) -> None:
        """Or fail."""
        await self._call("move", scope, old, new)


AREA = ("changes", "create", "delete", "describe", "find", "flush", "list", "move", "read", "refresh", "replace", "write")


@story(
    "open_files",
    "FileSystem.changes",
    "FileSystem.close",
    "FileChanges.__anext__",
    *(f"FileArea.{name}" for name in AREA),
    kind="bare",
    without=("wrong",),
)
async def filing(world: World) -> None:
    """Two callers use the files of one scope. Acknowledged edits are in the backend once the files are closed."""
    backend = FaultyFiles(world.simulation.faults)
    created: list[str] = []

    async def edit(area: Any, name: str) -> None:
        with suppress(FileError):
            await area.create(f"/{name}.md", "one two")
            created.append(f"/{name}.md")
            await area.replace(f"/{name}.md", "one", "three")
            await area.describe(f"/{name}.md", FileDetails(title=name))
            await area.read(f"/{name}.md")
            await area.find("two")
            await area.list()
            await area.flush()
            await area.write("/both.md", name)
            await area.refresh()
            await area.create(f"/{name}-2.md", "x")
            await area.move(f"/{name}-2.md", f"/moved/{name}.md")
            await area.delete(f"/moved/{name}.md")

    async def call() -> None:
        async with open_files(FilesConfig(mounts=[Mount("/", backend)])) as files, files.changes("s") as changes:
            area = files.area("s")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(edit, area, "a")
                nursery.start_soon(edit, area, "b")
            async for _ in changes:
                break
            async with area.changes() as more:
                await area.write("/last.md", "last")
                await more.__anext__()

    try:
        await world.strike(call)
    except Exception as exc:
        if not all(isinstance(leaf, FilesUnsaved | FileError) for leaf in leaves(exc)):
            raise
    world.simulation.calm()
    async with open_files(FilesConfig(mounts=[Mount("/", backend)])) as files:
        there = [info.path for info in await files.area("s").list()]
    for path in created:
        check(path in there, "I13", f"{path!r} was made, and is not there: {there}")


@story("Files.on_start", "Files.tools", "Files.system_prompt", kind="bare", follows=True)
async def file_tools(world: World) -> None:
    """An agent with file tools, in sessions inside of the files."""
    world.cut = trio.Event()
    async with open_files() as files:
        world.make_agent = lambda model, tools: Agent(model=model, tools=tools, middleware=[Files(files, scope="s")])
        async with world.opened():
            await world.strike(world.ask, "files please", "m1")
            await world.strike(lambda: world.sessions.stop("c", scope=ALICE), name="stopper")
            world.simulation.calm()
            await world.check_liveness("other" if world.hangs else "c")
    check_closed(world.sessions)
    await world.check_stored(is_whole=False)
