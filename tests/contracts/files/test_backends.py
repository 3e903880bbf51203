"""What every backend of files promises, and the whole file system on each of them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import assert_checkpoints

from tests.support.files import FaultyFiles
from trio_sagents.exceptions import PersistenceError
from trio_sagents.files import (
    DirectoryFiles,
    FileBackend,
    FileError,
    FileExists,
    FileNotFound,
    FilesConfig,
    MemoryFiles,
    Mount,
    OpenableFiles,
    QuotaExceeded,
    SqliteFiles,
    open_files,
)

S, T = ("s",), ("s", "t")
CONTENTS = [
    "",
    " ",
    "\n",
    "a",
    "ä\n日本\n",
    "a\r\nb\rc",
    "\0",
    "no end",
    "\ufeffwith a mark",
    "tab\t",
    "x" * 200_000,
    "\U0001f600",
    "'; DROP TABLE files; --",
]
Make = Callable[[], FileBackend]


@pytest.fixture(params=["memory", "faulty", "sqlite", "directory", "single"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Make a backend on a storage. If the storage is a disk, it outlives the backend."""
    memory = {"memory": MemoryFiles(), "faulty": FaultyFiles()}
    match request.param:
        case "sqlite":
            return lambda: SqliteFiles(tmp_path / "files.db")
        case "directory":
            return lambda: DirectoryFiles(tmp_path)
        case "single":
            return lambda: DirectoryFiles(tmp_path, single_scope=True)
        case kind:
            return lambda: memory[kind]


@asynccontextmanager
async def opened(backend: FileBackend) -> AsyncIterator[FileBackend]:
    async with AsyncExitStack() as stack:
        if isinstance(backend, OpenableFiles):
            await stack.enter_async_context(backend.open())
        yield backend


async def listed(backend: FileBackend, scope: tuple[str, ...] = S) -> dict[str, int]:
    return {record.path: record.size for record in await backend.index(scope)}


async def read(backend: FileBackend, path: str, scope: tuple[str, ...] = S) -> str:
    return await backend.read(scope, path, max_bytes=10_000_000)


async def test_backend_when_empty(make: Make) -> None:
    """A new backend is empty, and deleting a file that is not there is allowed."""
    async with opened(make()) as backend:
        assert {} == await listed(backend)
        with pytest.raises(FileNotFound):
            await read(backend, "/a")
        with pytest.raises(FileNotFound):
            await read(backend, "/a/b/c")
        with pytest.raises(FileNotFound):
            await backend.move(S, "/a", "/b")
        await backend.delete(S, "/a")
        await backend.delete(S, "/a/b")

        assert {} == await listed(backend)


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: ascii(content[:12]))
async def test_backend_when_content_is_odd(make: Make, content: str) -> None:
    """Content comes back unchanged, also from a backend that is opened later."""
    async with opened(make()) as backend:
        await backend.create(S, "/made", content)
        await backend.create(S, "/written", "before")
        await backend.write(S, "/written", content)
        await backend.write(S, "/folder/anew", content)
    async with opened(make()) as backend:
        size = len(content.encode())

        assert {"/made": size, "/written": size, "/folder/anew": size} == await listed(backend)
        assert [content] * 3 == [await read(backend, path) for path in ("/made", "/written", "/folder/anew")]


async def test_backend_when_the_place_is_taken(make: Make) -> None:
    """A file is never made over another file, nor in place of a folder. What was there stays."""
    async with opened(make()) as backend:
        await backend.create(S, "/a/b", "one")
        for path in ("/a/b", "/a", "/a/b/c"):
            with pytest.raises(FileError):
                await backend.create(S, path, "two")

        assert {"/a/b": 3} == await listed(backend)
        assert "one" == await read(backend, "/a/b")


async def test_backend_when_deleted(make: Make) -> None:
    """A deleted file is gone, its neighbour is not, and the name of an empty folder is free again."""
    async with opened(make()) as backend:
        await backend.create(S, "/a/b/c", "one")
        await backend.create(S, "/a/d", "two")
        await backend.delete(S, "/a/b/c")
        await backend.create(S, "/a/b", "three")

        assert {"/a/b": 5, "/a/d": 3} == await listed(backend)
        await backend.delete(S, "/a/b")
        await backend.delete(S, "/a/d")
        await backend.create(S, "/a", "four")

        assert {"/a": 4} == await listed(backend)


async def test_backend_when_moved(make: Make) -> None:
    """A file, or a whole folder, is moved with its content; a folder with a longer name stays."""
    async with opened(make()) as backend:
        for path in ("/a/x", "/a/y/z", "/a-b/x", "/a.txt", "/ab"):
            await backend.create(S, path, path)
        await backend.move(S, "/a", "/n/e/w")
        await backend.move(S, "/a.txt", "/a/b.txt")

        assert {"/n/e/w/x", "/n/e/w/y/z", "/a-b/x", "/ab", "/a/b.txt"} == set(await listed(backend))
        assert "/a/y/z" == await read(backend, "/n/e/w/y/z")
        assert "/a.txt" == await read(backend, "/a/b.txt")
        with pytest.raises(FileNotFound):
            await read(backend, "/a.txt")


async def test_backend_when_a_move_is_in_the_way(make: Make) -> None:
    """Nothing is moved onto a file or a folder, and what was there stays."""
    async with opened(make()) as backend:
        await backend.create(S, "/a", "a")
        await backend.create(S, "/b", "b")
        await backend.create(S, "/c/d", "d")
        for new in ("/b", "/c"):
            with pytest.raises(FileExists):
                await backend.move(S, "/a", new)
        with pytest.raises(FileExists):
            await backend.move(S, "/c", "/b")
        with pytest.raises(FileError):
            await backend.move(S, "/a", "/b/x")

        assert {"/a": 1, "/b": 1, "/c/d": 1} == await listed(backend)


async def test_backend_when_a_file_is_large(make: Make) -> None:
    """A file that is longer than the limit is refused; a file that is exactly as long is read."""
    async with opened(make()) as backend:
        await backend.create(S, "/a", "ää")
        with pytest.raises(QuotaExceeded):
            await backend.read(S, "/a", max_bytes=3)

        assert "ää" == await backend.read(S, "/a", max_bytes=4)
        assert "ää" == await backend.read(S, "/a", max_bytes=float("inf"))


async def test_backend_when_there_are_scopes(make: Make, request: pytest.FixtureRequest) -> None:
    """Each scope has its own files."""
    if "single" in request.node.name:
        return  # one tree for all scopes, as this backend says
    async with opened(make()) as backend:
        await backend.create(S, "/a", "one")
        await backend.create(T, "/a", "two")
        await backend.create(("s:t",), "/a", "three")
        await backend.delete(("S",), "/a")
        await backend.move(T, "/a", "/b")

        assert [["/a"], ["/b"]] == [list(await listed(backend, scope)) for scope in (S, T)]
        assert ["one", "two", "three"] == [await read(backend, "/a", S), await read(backend, "/b", T), await read(backend, "/a", ("s:t",))]


async def test_backend_when_called(make: Make) -> None:
    """Every method is a checkpoint."""
    async with opened(make()) as backend:
        for call in (
            lambda: backend.create(S, "/a", "x"),
            lambda: backend.write(S, "/a", "y"),
            lambda: backend.index(S),
            lambda: backend.read(S, "/a", max_bytes=9),
            lambda: backend.move(S, "/a", "/b"),
            lambda: backend.delete(S, "/b"),
        ):
            with assert_checkpoints():
                await call()


async def test_backend_when_cancelled(make: Make) -> None:
    """A call in a scope that is cancelled already does nothing."""
    async with opened(make()) as backend:
        await backend.create(S, "/a", "x")
        for call in (
            lambda: backend.create(S, "/b", "x"),
            lambda: backend.write(S, "/a", "y"),
            lambda: backend.move(S, "/a", "/b"),
            lambda: backend.delete(S, "/a"),
        ):
            with trio.CancelScope() as scope:
                scope.cancel()
                await call()

        assert {"/a": 1} == await listed(backend)
        assert "x" == await read(backend, "/a")


async def test_backend_when_not_open(make: Make) -> None:
    """A backend that holds something open says so when it is not."""
    backend = make()
    if not isinstance(backend, OpenableFiles):
        return
    with pytest.raises(PersistenceError, match="not open"):
        await backend.index(S)
    async with opened(backend):
        with pytest.raises(PersistenceError, match="open already"):
            async with opened(backend):
                pass
        await backend.create(S, "/a", "")
    with pytest.raises(PersistenceError, match="not open"):
        await backend.write(S, "/a", "x")
    async with opened(backend):
        assert {"/a": 0} == await listed(backend)


# --- the file system on each of them


async def test_files_when_used(make: Make) -> None:
    """All operations work on each backend, and what they did is there the next time."""
    async with open_files(FilesConfig(mounts=[Mount("/m", make())])) as files:
        area = files.area("s")
        await area.create("/m/notes/a.md", "one\ntwo\n")
        await area.create("/m/notes/b.md", "")
        assert 1 == await area.replace("/m/notes/a.md", "two", "three")
        assert ["/m/old/a.md", "/m/old/b.md"] == await area.move("/m/notes", "/m/old")
        await area.write("/m/old/b.md", "four")
        await area.delete("/m/old/a.md")
        await area.create("/m/notes", "a file now")
    async with open_files(FilesConfig(mounts=[Mount("/m", make())])) as files:
        area = files.area("s")

        assert [("/m/notes", 10), ("/m/old/b.md", 4)] == [(info.path, info.size) for info in await area.list()]
        assert "four" == (await area.read("/m/old/b.md")).text
        assert ["/m/notes"] == [match.path for match in (await area.find("now")).matches]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "write", "replace", "delete", "move", "read"]),
        st.sampled_from(["/a", "/a/b", "/b", "/c/d", "/c"]),
        st.sampled_from(["/a", "/a/b", "/b", "/c/d", "/c", "/e/f"]),
    ),
    max_size=12,
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "sqlite", "directory"])
@given(steps=STEPS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_files_when_compared_with_a_dict(kind: str, steps: list[tuple[str, str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """After any operations, each backend has the same files as a plain dictionary, even after it is opened again."""
    root = tmp_path_factory.mktemp("files")
    backend = {"memory": MemoryFiles(), "sqlite": SqliteFiles(root / "f.db"), "directory": DirectoryFiles(root)}[kind]
    model: dict[str, str] = {}
    trio.run(_run_steps, backend, steps, model)

    async def contents() -> dict[str, str]:
        async with open_files(FilesConfig(mounts=[Mount("/", backend)])) as files:
            area = files.area("s")
            return {info.path: (await area.read(info.path)).text for info in await area.list()}

    assert model == trio.run(contents)


async def _run_steps(backend: FileBackend, steps: list[tuple[str, str, str]], model: dict[str, str]) -> None:
    async with open_files(FilesConfig(mounts=[Mount("/", backend)])) as files:
        area = files.area("s")
        for number, (what, path, other) in enumerate(steps):
            expected = _model_step(model, what, path, other, f"{number} ")
            try:
                match what:
                    case "create":
                        await area.create(path, f"{number} ")
                    case "write":
                        await area.write(path, f"{number} ")
                    case "replace":
                        await area.replace(path, " ", "+ ")
                    case "delete":
                        await area.delete(path)
                    case "move":
                        await area.move(path, other)
                    case _:
                        await area.read(path)
            except FileError:
                assert not expected, (what, path, other)
            else:
                assert expected, (what, path, other)
        assert model == {info.path: (await area.read(info.path)).text for info in await area.list()}


def _model_step(model: dict[str, str], what: str, path: str, other: str, content: str) -> bool:
    """Do a step on a dictionary; return whether it can be done."""

    def free(path: str) -> bool:
        return not any(name == path or name.startswith(path + "/") or path.startswith(name + "/") for name in model)

    match what:
        case "create" | "write" if free(path) or (what == "write" and path in model):
            model[path] = content
        case "replace" if path in model:
            model[path] = model[path].replace(" ", "+ ")
        case "delete" if path in model:
            del model[path]
        case "move":
            moved = [name for name in model if name == path or name.startswith(path + "/")]
            if not moved or other == path or other.startswith(path + "/") or not free(other):
                return False
            for name in moved:
                model[other + name[len(path) :]] = model.pop(name)
        case "read" if path in model:
            pass
        case _:
            return False
    return True
