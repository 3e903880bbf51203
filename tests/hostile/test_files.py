"""The files of agents, attacked through the front door: no path, link or scope leads out of a tree, whatever the disk does meanwhile."""

import os
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from trio_sagents.exceptions import SagentsError
from trio_sagents.files import DirectoryFiles, FileArea, FilesConfig, FileSystem, MemoryFiles, Mount, SqliteFiles, open_files

SWAPS: Final = int(os.environ.get("TRIO_SAGENTS_SWAPS", "2000"))
CANARY: Final = "canary-outside"
INSIDE: Final = "inside"
PIECES: Final = (
    "/", "/", "/", "..", ".", "...", "~", "a", "d", "link", "secret.txt", "\\", "%2e%2e", "%2f", "\u2024\u2024", "\uff0e\uff0e", "\u2215",
    "\0", "\n", "\u202e", "e\u0301", "\ud800", " ", "con", "C:", "//", "a" * 300, ".git", "-rf", "*", "$HOME", "file://", "|sh", ";", "'",
    "\x1b[2J",
)  # fmt: skip


def hostile_path(drawn: random.Random, outside: Path) -> str:
    """Return a path that somebody might try."""
    match drawn.randrange(6):
        case 0:
            return "/" + "../" * drawn.randrange(1, 12) + str(outside).lstrip("/") + "/secret.txt"
        case 1:
            return str(outside / "secret.txt")
        case 2:
            return f"/link/{drawn.choice(('secret.txt', '../secret.txt', 'new.txt'))}"
        case 3:
            return drawn.choice(("/file-link", "/hard-link", "/fifo", "/d/up/secret.txt", "/d/self/self/a.txt"))
        case _:
            return "".join(drawn.choice(PIECES) for _ in range(drawn.randrange(1, 8)))


def deeds(area: FileArea, drawn: random.Random, path: str, other: str) -> Sequence[Callable[[], Awaitable[Any]]]:
    """Return everything that can be done with a path."""
    return (
        lambda: area.read(path),
        lambda: area.write(path, INSIDE),
        lambda: area.create(path, INSIDE),
        lambda: area.replace(path, "a", "b"),
        lambda: area.find("can", path),
        lambda: area.list(path),
        lambda: area.move(path, other),
        lambda: area.move("/a.txt", path),
        lambda: area.delete(path),
        area.refresh,
    )


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a folder that nobody may reach."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_text(CANARY)
    return folder


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    """Return a tree full of traps."""
    root = tmp_path / "tree"
    (root / "d").mkdir(parents=True)
    (root / "a.txt").write_text(INSIDE)
    (root / "d" / "a.txt").write_text(INSIDE)
    (root / "link").symlink_to(outside)
    (root / "file-link").symlink_to(outside / "secret.txt")
    (root / "d" / "up").symlink_to("../../outside")
    (root / "d" / "self").symlink_to(".")
    os.link(outside / "secret.txt", root / "hard-link")
    os.mkfifo(root / "fifo")
    return root


def untouched(outside: Path) -> bool:
    """Return whether the outside is as it was."""
    return ["secret.txt"] == os.listdir(outside) and CANARY == (outside / "secret.txt").read_text()


@asynccontextmanager
async def opened(*mounts: Mount, **settings: Any) -> AsyncIterator[FileSystem]:
    """Open files that are saved at once."""
    async with open_files(FilesConfig(mounts=mounts, debounce=0.0, **settings)) as files:
        yield files


async def shown(deed: Callable[[], Awaitable[Any]]) -> str:
    """Do it; return all that it tells."""
    try:
        return repr(await deed())
    except (SagentsError, ValueError, TypeError) as exc:
        return f"{exc!s} {exc!r}"


async def test_hostile_paths(root: Path, outside: Path) -> None:
    """Paths that lead elsewhere, with everything that can be done: nothing outside is read, written, listed or taken away."""
    drawn = random.Random(3)
    async with opened(Mount("/", DirectoryFiles(root, single_scope=True))) as files:
        area = files.area("me")
        for _ in range(1500):
            path, other = hostile_path(drawn, outside), hostile_path(drawn, outside)
            deed = drawn.choice(deeds(area, drawn, path, other))
            with trio.fail_after(15):
                told = await shown(deed)
            assert CANARY not in told, path
        assert untouched(outside)
        await area.write("/fine.txt", "still here")

    assert "still here" == (root / "fine.txt").read_text()
    assert untouched(outside)


@pytest.mark.slow
async def test_links_that_come_and_go(root: Path, outside: Path) -> None:
    """While another program swaps folders and files with links to the outside, thousands of times, nothing outside is reached."""
    stop = threading.Event()
    swaps = [0]

    def swap() -> None:
        drawn = random.Random(4)
        while not stop.is_set():
            place = root / drawn.choice(("d", "x", "d/a.txt"))
            with suppress(OSError):
                place.rename(root / f"~old{swaps[0]}")
            with suppress(OSError):
                place.symlink_to(outside if drawn.random() < 0.5 else outside / "secret.txt")
                swaps[0] += 1
            with suppress(OSError):
                place.unlink()
            with suppress(OSError):
                (root / "d").mkdir()

    thread = threading.Thread(target=swap)
    thread.start()
    drawn = random.Random(5)
    paths = ("/d/a.txt", "/d/secret.txt", "/x/secret.txt", "/x", "/d/new/deep.txt", "/a.txt")
    done = 0
    try:
        async with opened(Mount("/", DirectoryFiles(root, single_scope=True)), retry_interval=0.01) as files:
            area = files.area("me")
            while swaps[0] < SWAPS or done < 300:
                done += 1
                path, other = drawn.choice(paths), drawn.choice(paths)
                told = await shown(drawn.choice(deeds(area, drawn, path, other)))
                assert CANARY not in told, path
            stop.set()
            await trio.to_thread.run_sync(thread.join)
    except SagentsError:
        pass  # what the swapping made impossible to save is named when the files are closed
    finally:
        stop.set()
        thread.join()

    assert swaps[0] >= SWAPS
    assert untouched(outside)


SCOPES: Final[Sequence[str | tuple[str, ...]]] = (
    "a", "A", "b", "a/b", ("a", "b"), "a+b", "a:b", ("a", "b", ""), ("a:b", "c"), ("a", "b:c"), "..", ".", "../b", "~", "%61", "a%2fb",
    "a\\b", "\u0430", "\uff41", "a ", "con", "null", "a;DROP TABLE files", "a'", "x" * 200,
)  # fmt: skip


@pytest.mark.parametrize("kind", ["memory", "sqlite", "directory"])
async def test_scopes_are_apart(kind: str, tmp_path: Path) -> None:
    """Scopes that look alike, or like paths, have a tree each, also after the files were closed and opened again."""
    (tmp_path / "tree").mkdir()
    accepted: list[Any] = []
    memory = MemoryFiles()

    def backend() -> Any:
        match kind:
            case "memory":
                return memory
            case "sqlite":
                return SqliteFiles(tmp_path / "files.db")
            case _:
                return DirectoryFiles(tmp_path / "tree")

    async with opened(Mount("/", backend())) as files:
        for number, scope in enumerate(SCOPES):
            try:
                area = files.area(scope)
            except ValueError:
                continue
            await area.create("/mine.txt", f"mine {number}")
            accepted.append((number, scope))
    async with opened(Mount("/", backend())) as files:
        for number, scope in accepted:
            area = files.area(scope)
            assert f"mine {number}" in repr(await area.read("/mine.txt"))
            assert ["/mine.txt"] == [info.path for info in await area.list()]
        for _, scope in accepted[::2]:
            await files.area(scope).delete("/mine.txt")
        for number, scope in accepted[1::2]:
            assert f"mine {number}" in repr(await files.area(scope).read("/mine.txt"))

    assert len(accepted) > 12
    assert {"tree", "files.db"} >= {path.name for path in tmp_path.iterdir()} - {"files.db-wal", "files.db-shm"}
