"""Files in a directory: nothing leads out of it, whatever is in it before an operation or while it runs."""

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_sagents.exceptions import LimitExceeded, PersistenceError
from trio_sagents.files import (
    FileArea,
    FileError,
    FileExists,
    FileNotFound,
    FileNotStored,
    FileRefused,
    FilesConfig,
    FilesUnsaved,
    Mount,
    NotText,
    QuotaExceeded,
    open_files,
)
from trio_sagents.files import _walk as walk
from trio_sagents.files.directory import DirectoryFiles

S, T = ("s",), ("t",)
CANARY = "the canary"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the tree, with a file that must neither be read nor changed."""
    outside = tmp_path / "tree-outside"
    outside.mkdir()
    (outside / "secret").write_text(CANARY)
    return outside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    return root


@pytest.fixture(autouse=True)
def _canary(tmp_path: Path) -> Iterator[None]:
    """After each test: nothing outside was changed, no temporary file is left, no descriptor is open."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    outside = tmp_path / "tree-outside"
    if outside.exists():
        assert ["secret"] == os.listdir(outside)
        assert CANARY == (outside / "secret").read_text()
    assert [] == [path for path in tmp_path.rglob("*") if path.name.startswith(walk.TEMPORARY)]
    assert before == len(os.listdir("/proc/self/fd"))


def single(root: Path) -> DirectoryFiles:
    return DirectoryFiles(root, single_scope=True)


async def listed(backend: DirectoryFiles) -> set[str]:
    return {record.path for record in await backend.index(S)}


PLANTED: dict[str, Callable[[Path, Path], None]] = {
    "link to a file": lambda place, outside: place.symlink_to(outside / "secret"),
    "link to a folder": lambda place, outside: place.symlink_to(outside),
    "relative link": lambda place, outside: place.symlink_to("../tree-outside/secret"),
    "link to nothing": lambda place, outside: place.symlink_to(outside / "missing"),
    "link to itself": lambda place, outside: place.symlink_to(place),
    "link inside": lambda place, outside: place.symlink_to("plain"),
    "hard link": lambda place, outside: os.link(outside / "secret", place),
    "pipe": lambda place, outside: os.mkfifo(place),
    "socket": lambda place, outside: _bind(place),
}


def _bind(place: Path) -> None:
    here = os.getcwd()  # noqa: PTH109  # the path of a socket is short
    os.chdir(place.parent)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(place.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("kind", PLANTED)
async def test_place_when_no_plain_file_is_there(root: Path, outside: Path, kind: str) -> None:
    """Anything that is not a plain file is not listed, read, replaced, deleted or moved."""
    (root / "plain").write_text("plain")
    place = root / "x"
    PLANTED[kind](place, outside)
    before = os.lstat(place)
    backend = single(root)
    async with backend.open():
        assert {"/plain"} == await listed(backend)
        with pytest.raises(FileRefused):
            await backend.read(S, "/x", max_bytes=100)
        with pytest.raises(FileRefused):
            await backend.write(S, "/x", "mine")
        with pytest.raises(FileExists):
            await backend.create(S, "/x", "mine")
        with pytest.raises(FileRefused):
            await backend.delete(S, "/x")
        with pytest.raises(FileRefused):
            await backend.move(S, "/x", "/y")
        with pytest.raises(FileExists):
            await backend.move(S, "/plain", "/x")

    assert before.st_ino == os.lstat(place).st_ino
    assert "plain" == (root / "plain").read_text()
    place.unlink()


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("target", ["outside", "inside", "nothing", "file"])
async def test_folder_when_it_is_a_link(root: Path, outside: Path, depth: int, target: str) -> None:
    """A link in the place of a folder is not followed, at any level, even if it stays inside."""
    names = ["s", "a", "b", "c"]
    (root / "real").mkdir()
    (root / "real" / "secret").write_text("inside")
    parent = root.joinpath(*names[:depth])
    parent.mkdir(parents=True, exist_ok=True)
    goal = {"outside": outside, "inside": root / "real", "nothing": outside / "missing", "file": outside / "secret"}[target]
    (parent / names[depth]).symlink_to(goal)
    backend = DirectoryFiles(root)
    path = "/" + "/".join([*names[1:], "secret"])
    async with backend.open():
        if depth:
            assert set() == await listed(backend)
        for call in (
            lambda: backend.read(S, path, max_bytes=100),
            lambda: backend.write(S, path, "mine"),
            lambda: backend.create(S, path, "mine"),
            lambda: backend.delete(S, path),
            lambda: backend.move(S, path, "/y"),
        ):
            with pytest.raises(FileRefused):
                await call()
        if depth:
            await backend.create(S, "/x", "mine")
            with pytest.raises(FileRefused):
                await backend.move(S, "/x", path)

    assert "inside" == (root / "real" / "secret").read_text()
    assert ["secret"] == os.listdir(root / "real")


SWAPS: dict[str, Callable[[Path, Path], None]] = {
    "file to link": lambda root, outside: _swap(root / "d" / "f", lambda place: place.symlink_to(outside / "secret")),
    "file to hard link": lambda root, outside: _swap(root / "d" / "f", lambda place: os.link(outside / "secret", place)),
    "file to pipe": lambda root, outside: _swap(root / "d" / "f", os.mkfifo),
    "folder to link": lambda root, outside: _swap(root / "d", lambda place: place.symlink_to(outside)),
}


def _swap(place: Path, make: Callable[[Path], object]) -> None:
    place.rename(place.parent / "~away")
    make(place)


@pytest.mark.parametrize("swap", SWAPS)
@pytest.mark.parametrize("call", ["read", "write", "create", "delete", "move"])
async def test_operation_when_a_link_is_planted_meanwhile(
    root: Path, outside: Path, swap: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that is planted right after an operation has looked leads nowhere either; the fixture checks the canary."""
    (root / "d").mkdir()
    (root / "d" / "f").write_text("plain")
    look, looks = walk._look, []

    def look_and_swap(folder: int, name: str) -> os.stat_result | None:
        status = look(folder, name)
        looks.append(name)
        if len(looks) == 1:
            SWAPS[swap](root, outside)
        return status

    monkeypatch.setattr(walk, "_look", look_and_swap)
    backend = single(root)
    got = ""
    async with backend.open():
        with suppress(FileError, PersistenceError):
            match call:
                case "read":
                    got = await backend.read(S, "/d/f", max_bytes=100)
                case "write":
                    await backend.write(S, "/d/f", "mine")
                case "create":
                    await backend.create(S, "/d/g", "mine")
                case "delete":
                    await backend.delete(S, "/d/f")
                case _:
                    await backend.move(S, "/d/f", "/d/g")

    assert looks
    assert got in {"", "plain"}
    if (root / "d" / "f").exists() and swap == "file to hard link":
        (root / "d" / "f").unlink()  # the name alone is ours to take away


async def test_folder_when_swapped_all_the_time(root: Path, outside: Path) -> None:
    """While another program swaps a folder and a link to the outside, nothing outside is read or written."""
    stop = threading.Event()
    swaps = []

    def swap() -> None:
        while not stop.is_set():
            with suppress(OSError):
                (root / "d").rename(root / f"~d{len(swaps)}")
            with suppress(OSError):
                (root / "d").symlink_to(outside)
                swaps.append(None)
            with suppress(OSError):
                (root / "d").unlink()

    thread = threading.Thread(target=swap)
    thread.start()
    backend = single(root)
    seen: set[str] = set()
    try:
        async with backend.open():
            for number in range(100):
                with suppress(FileError, PersistenceError):
                    await backend.write(S, "/d/secret", f"{number}")
                with suppress(FileError, PersistenceError):
                    seen.add(await backend.read(S, "/d/secret", max_bytes=100))
                with suppress(FileError, PersistenceError):
                    await backend.delete(S, "/d/secret")
                with suppress(FileError, PersistenceError):
                    await backend.create(S, "/d/new", "x")
    finally:
        stop.set()
        thread.join()

    assert swaps
    assert CANARY not in seen


# --- scopes, names, rights


async def test_scopes_when_their_names_are_odd(root: Path, outside: Path) -> None:
    """No scope reaches the files of another, or leaves the directory, whatever it is called."""
    scopes = [
        ("..",),
        (".",),
        ("../tree-outside",),
        ("/etc",),
        ("a/b",),
        ("a", "b"),
        ("a+b",),
        ("A",),
        ("a",),
        ("%61",),
        ("~",),
        ("ä",),
        ("~" * 200,),
    ]
    backend = DirectoryFiles(root)
    async with backend.open():
        for number, scope in enumerate(scopes):
            await backend.create(scope, "/x", f"{number}")

        assert [f"{number}" for number in range(len(scopes))] == [await backend.read(scope, "/x", max_bytes=9) for scope in scopes]
    assert len(scopes) == len(os.listdir(root))


async def test_files_when_made(root: Path) -> None:
    """Files and folders are readable by their owner alone; a file that is replaced keeps its mode."""
    backend = single(root)
    async with backend.open():
        await backend.create(S, "/d/f", "x")
        assert (0o700, 0o600) == (stat.S_IMODE((root / "d").stat().st_mode), stat.S_IMODE((root / "d" / "f").stat().st_mode))
        (root / "d" / "f").chmod(0o644)
        await backend.write(S, "/d/f", "y")

    assert 0o644 == stat.S_IMODE((root / "d" / "f").stat().st_mode)


async def test_index_when_names_are_odd(root: Path) -> None:
    """Names that no path can have are left alone and not shown; what a cut write has left is taken away."""
    for name in (b"ok", b"\xff", b"a\n", b" a", b"~a", b"e\xcc\x81", b"back\\slash", b"x" * 220):
        Path(os.fsdecode(bytes(root) + b"/" + name)).write_text("x")
    for name in (f"{walk.TEMPORARY}0123", ".hidden"):
        (root / name).write_text("x")
    (root / "~folder").mkdir()
    (root / "~folder" / "f").write_text("x")
    deep = root.joinpath(*"abcdefghijklmnopqrst")
    deep.mkdir(parents=True)
    (deep / "f").write_text("x")
    backend = single(root)
    async with backend.open():
        assert {"/ok", "/.hidden"} == await listed(backend)

    assert not (root / f"{walk.TEMPORARY}0123").exists()
    assert (root / "~folder" / "f").exists()


async def test_index_when_a_write_was_cut_off(root: Path) -> None:
    """A file whose making was cut off between its two names is whole, and is there after the next listing."""
    (root / f"{walk.TEMPORARY}00").write_text("whole")
    os.link(root / f"{walk.TEMPORARY}00", root / "f")
    (root / "a").mkdir()
    os.link(root / "f", root / "a" / f"{walk.TEMPORARY}01")
    backend = single(root)
    async with backend.open():
        await backend.index(S)
        assert {"/f"} == await listed(backend)
        assert "whole" == await backend.read(S, "/f", max_bytes=9)


async def test_index_when_there_are_too_many(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree with too many files is refused by a named error, and not listed without end."""
    monkeypatch.setattr(walk, "MAX_ENTRIES", 2)
    for name in "abc":
        (root / name).write_text("")
    backend = single(root)
    async with backend.open():
        with pytest.raises(LimitExceeded, match="files in a directory"):
            await backend.index(S)


async def test_read_when_it_is_no_text(root: Path) -> None:
    """A file that is not text, or is too large, is named in the error, and is not read as a whole first."""
    (root / "binary").write_bytes(b"\xff\xfe")
    with (root / "huge").open("wb") as file:
        file.truncate(1 << 40)
    async with open_files(FilesConfig(mounts=[Mount("/m", single(root), read_only=True)])) as files:
        area = files.area("s")
        with pytest.raises(NotText, match="'/m/binary'"):
            await area.read("/m/binary")
        with pytest.raises(QuotaExceeded, match="'/m/huge'"):
            await area.read("/m/huge")
        assert {"/m/binary", "/m/huge"} == set((await area.find("x")).skipped)


async def test_read_when_the_file_grows(root: Path) -> None:
    """A file that has grown since it was listed is read no further than allowed."""
    (root / "f").write_text("x")
    async with open_files(FilesConfig(mounts=[Mount("/", single(root))], max_file_bytes=10)) as files:
        area = files.area("s")
        await area.list()
        (root / "f").write_text("x" * 11)
        with pytest.raises(QuotaExceeded):
            await area.read("/f")


# --- the backend as a whole


@pytest.mark.parametrize("place", ["missing", "file"])
async def test_open_when_there_is_no_directory(root: Path, place: str) -> None:
    """If there is no directory, the error says so and names it."""
    (root / "file").write_text("")
    with pytest.raises(PersistenceError, match=place):
        async with open_files(FilesConfig(mounts=[Mount("/", DirectoryFiles(root / place))])):
            pass


@pytest.mark.parametrize(("argument", "error"), [(None, TypeError), (b"x", TypeError), ("", ValueError), ("a\0b", ValueError)])
def test_backend_when_the_path_is_wrong(argument: object, error: type[Exception]) -> None:
    """A root is the path of a directory."""
    with pytest.raises(error):
        DirectoryFiles(argument)


async def test_open_when_the_root_is_a_link(root: Path, tmp_path: Path) -> None:
    """The root itself is the host's word, and may be a link; what it leads to is held fast while it is open."""
    (tmp_path / "link").symlink_to(root)
    other = tmp_path / "other"
    other.mkdir()
    backend = single(tmp_path / "link")
    async with backend.open():
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to(other)
        await backend.create(S, "/f", "x")

    assert (["f"], []) == (os.listdir(root), os.listdir(other))


async def test_single_scope_when_two_write(root: Path) -> None:
    """If the directory itself is the tree, every scope may read, and only the first scope that writes may write."""
    (root / "f").write_text("x")
    async with open_files(FilesConfig(mounts=[Mount("/", single(root))])) as files:
        await files.area("s").create("/a", "1")
        assert "x" == (await files.area("t").read("/f")).text
        with pytest.raises(FileRefused, match="another scope"):
            await files.area("t").create("/b", "2")


async def test_disk_when_it_cannot_be_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails gives a named error and leaves the old content; nothing half-written is seen, and nothing is lost."""

    def full(_fd: int, _data: object) -> int:
        raise OSError(28, "No space left on device")

    async with open_files(FilesConfig(mounts=[Mount("/", single(root))])) as files:
        area = files.area("s")
        await area.create("/d/f", "one")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(FileNotStored):
                await area.create("/e/g", "new")
            await area.write("/d/f", "two")
            with pytest.raises(FilesUnsaved):
                await area.flush()
        assert "one" == (root / "d" / "f").read_text()
        assert ["/d/f"] == [info.path for info in await area.list()]
        assert not (root / "e").exists()
        await area.create("/e/g", "new")

    assert ("two", "new") == ((root / "d" / "f").read_text(), (root / "e" / "g").read_text())


async def test_save_when_a_link_was_planted(root: Path, outside: Path) -> None:
    """An edit whose file became a link is not written through it: it is kept, and told as unsaved."""
    with pytest.raises(FilesUnsaved) as caught:
        async with open_files(FilesConfig(mounts=[Mount("/", single(root))], settle_timeout=0.1)) as files:
            area = files.area("s")
            await area.create("/f", "one")
            await area.write("/f", "two")
            (root / "f").unlink()
            (root / "f").symlink_to(outside / "secret")
            with pytest.raises(FilesUnsaved):
                await area.flush()

    assert [FileRefused] == [type(file.error) for file in caught.value.files]


async def test_close_when_the_disk_hangs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not answer does not hold up the closing; its thread keeps the directory for itself, and closes it at its end."""
    gate, at_work, done = threading.Event(), threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(fd: int) -> None:
        at_work.set()
        gate.wait()
        fsync(fd)

    work = DirectoryFiles._work

    def told(self: DirectoryFiles, *arguments: object) -> object:
        try:
            return work(self, *arguments)
        finally:
            done.set()

    with pytest.raises(FilesUnsaved):
        async with open_files(FilesConfig(mounts=[Mount("/", single(root))], debounce=0, settle_timeout=0.05)) as files:
            area = files.area("s")
            await area.create("/f", "one")
            monkeypatch.setattr(os, "fsync", slow)
            monkeypatch.setattr(DirectoryFiles, "_work", told)
            await area.write("/f", "two")
            await trio.to_thread.run_sync(at_work.wait)
            done.clear()  # the look at the file before the write has ended
    gate.set()
    await trio.to_thread.run_sync(done.wait)

    assert "two" == (root / "f").read_text()


@pytest.mark.parametrize("call", ["index", "read", "write"])
async def test_disk_when_it_refuses(root: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """An error of the disk that says nothing of links is the backend's error, with the place in it."""
    backend = DirectoryFiles(root)
    async with backend.open():
        await backend.create(S, "/d/f", "x")
        real = os.open

        def refuse(name: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if name == ("f" if call == "read" else "s"):
                raise PermissionError(13, "Permission denied", name)
            return real(name, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(PersistenceError, match="Permission denied"):
            match call:
                case "index":
                    await backend.index(S)
                case "read":
                    await backend.read(S, "/d/f", max_bytes=9)
                case _:
                    await backend.write(S, "/d/f", "y")


async def test_index_when_a_folder_goes_meanwhile(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gone, or closed to us, by the time it is looked at is left out."""
    for name in "abc":
        (root / name).mkdir()
        (root / name / "f").write_text("x")
    real = walk._open_folder

    def gone(folder: int, name: str, path: str) -> int:
        if name == "a":
            raise FileNotFound(path)
        if name == "b":
            raise PermissionError(13, "Permission denied", name)
        return real(folder, name, path)

    monkeypatch.setattr(walk, "_open_folder", gone)
    backend = single(root)
    async with backend.open():
        assert {"/c/f"} == await listed(backend)


async def test_open_when_the_system_cannot(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without safe opening is refused in words that help."""
    monkeypatch.setattr(os, "supports_dir_fd", set())
    with pytest.raises(PersistenceError, match="SqliteFiles"):
        async with single(root).open():
            pass


def test_backend_when_shown(root: Path) -> None:
    """A backend says which directory it is, and how it is used."""
    assert f"DirectoryFiles({str(root)!r})" == repr(DirectoryFiles(root))
    assert f"DirectoryFiles({str(root)!r}, single_scope=True)" == repr(single(root))


async def test_area_when_used_with_a_tree_of_the_host(root: Path) -> None:
    """A directory with files of the host is a tree: read, searched, changed after a refresh."""
    (root / "docs").mkdir()
    (root / "docs" / "a.md").write_text("Hello\n")
    async with open_files(FilesConfig(mounts=[Mount("/", single(root))])) as files:
        area: FileArea = files.area("s")
        assert ["/docs/a.md"] == [match.path for match in (await area.find("ell")).matches]
        (root / "docs" / "a.md").write_text("Hallo\n")
        (root / "b.md").write_text("")
        await area.refresh()
        assert "Hallo\n" == (await area.read("/docs/a.md")).text
        (root / "b.md").unlink()
        with pytest.raises(FileNotFound):
            await area.read("/b.md")
        (root / "empty").mkdir()
        await area.create("/empty", "in the place of an empty folder")


@pytest.mark.parametrize("doing", ["create", "write", "move", "delete"])
async def test_write_when_the_power_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doing: str) -> None:
    """A file's content is flushed before it takes its name, and the folder after it. So the disk has the old file or the new one, whole."""
    backend = DirectoryFiles(tmp_path)
    done: list[str] = []

    def noted(name: str, *, is_naming: bool) -> None:
        plain: Any = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            kind = "named" if is_naming else "folder" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else "content"
            if "unlink" not in name or not str(args[0]).startswith("~"):
                done.append(kind)
            return plain(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    async with backend.open():
        await backend.create(("alice",), "/a.txt", "old")
        for name in ("link", "rename", "unlink"):
            noted(name, is_naming=True)
        noted("fsync", is_naming=False)
        # `os.supports_dir_fd` was asked when it was opened.
        match doing:
            case "create":
                await backend.create(("alice",), "/b.txt", "new")
            case "write":
                await backend.write(("alice",), "/a.txt", "new")
            case "move":
                await backend.move(("alice",), "/a.txt", "/b.txt")
            case _:
                await backend.delete(("alice",), "/a.txt")
        await trio.lowlevel.checkpoint()

    moments = [kind for index, kind in enumerate(done) if not index or done[index - 1] != kind]
    assert {"create": ["content", "named", "folder"], "write": ["content", "named", "folder"]}.get(doing, ["named", "folder"]) == moments
