"""Operations on the files of a scope: what they do, what they refuse, two agents at once, and callers that go."""

import errno
import math
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from tests.support.files import ERRORS, Broken, FaultyFiles
from trio_sagents.exceptions import LimitExceeded, PersistenceError, SagentsError
from trio_sagents.files import (
    FileArea,
    FileDeleted,
    FileError,
    FileExists,
    FileNotFound,
    FileNotStored,
    FileReadOnly,
    FilesClosed,
    FilesConfig,
    FileSystem,
    FileUpdated,
    InvalidPath,
    MemoryFiles,
    Mount,
    MoveRefused,
    NotText,
    QuotaExceeded,
    TextNotFound,
    TextNotUnique,
    open_files,
)
from trio_sagents.testing import Simulation, simulate

Call = Callable[[FileArea], Awaitable[object]]


@pytest.fixture
def backend() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
async def files(backend: FaultyFiles, autojump_clock: object) -> AsyncIterator[FileSystem]:
    """A tree with two backends, one of them read-only, and the rest in memory."""
    docs = MemoryFiles()
    await docs.create(("s",), "/guide.md", "Read me.\nRead all.\n")
    await docs.create(("s",), "/deep/er.md", "deep")
    mounts = [Mount("/m", backend), Mount("/m/docs", docs, read_only=True)]
    async with open_files(FilesConfig(mounts=mounts)) as files:
        yield files


@pytest.fixture
def area(files: FileSystem) -> FileArea:
    return files.area("s")


async def paths(area: FileArea, prefix: str = "/") -> list[str]:
    return [info.path for info in await area.list(prefix)]


async def text(area: FileArea, path: str) -> str:
    return (await area.read(path)).text


DOCS = ["/m/docs/deep/er.md", "/m/docs/guide.md"]


# --- operations


async def test_change_when_the_path_is_the_folder_of_a_mount(autojump_clock: object) -> None:
    """A change of a mount's folder fails as for any folder: the file to change is missing, and a new file finds its place taken."""
    async with open_files(FilesConfig(mounts=[Mount("/a/b", MemoryFiles())])) as files:
        area = files.area("x")
        for path in ("/a/b", "/a"):
            for change in (area.delete(path), area.replace(path, "old", "new")):
                with pytest.raises(FileNotFound, match="it is a folder") as caught:
                    await change
                assert caught.value.is_folder
            for change in (area.create(path, "text"), area.write(path, "text")):
                with pytest.raises(FileExists, match="it is a folder"):
                    await change


async def test_list_when_there_are_mounts(area: FileArea, autojump_clock: object) -> None:
    """A listing shows all mounts, sorted, and any part of them."""
    await area.create("/m/docs-private", "x")
    await area.create("/m/a", "ä")
    await area.create("/free", "")

    assert ["/free", "/m/a", "/m/docs-private", *DOCS] == sorted(await paths(area))
    assert ["/m/a", "/m/docs-private", *DOCS] == sorted(await paths(area, "/m"))
    assert DOCS == await paths(area, "/m/docs/")
    assert ["/m/docs/deep/er.md"] == await paths(area, "/m/docs/deep")
    assert ["/m/a"] == await paths(area, "/m/a")
    assert [] == await paths(area, "/nothing")
    assert [2] == [info.size for info in await area.list("/m/a")]
    assert [False, False, False, True, True] == [info.is_read_only for info in sorted(await area.list(), key=lambda info: info.path)]


async def test_list_when_nothing_was_read(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """A listing reads no content, and the index is read once."""
    await backend.create(("s",), "/a", "x")
    await area.list()
    await area.list()

    assert ([], 1) == (backend.of("read"), len(backend.of("index")))
    assert "x" == await text(area, "/m/a") == await text(area, "/m/a")
    assert ["/a"] == backend.of("read")


async def test_read_when_lines_are_wanted(area: FileArea, autojump_clock: object) -> None:
    """A part of a file comes with its line numbers."""
    await area.create("/m/a", "1\n2\n3\n")
    cut = await area.read("/m/a", offset=1, limit=1)

    assert ("2\n", 1, 3, False) == (cut.text, cut.offset, cut.line_count, cut.is_whole)
    assert (await area.read("/m/a")).is_whole
    beyond = await area.read("/m/a", offset=9)
    assert ("", 3, 3, False) == (beyond.text, beyond.offset, beyond.line_count, beyond.is_whole)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda area: area.read("/m/a", offset=-1), ValueError),
        (lambda area: area.read("/m/a", limit=0), ValueError),
        (lambda area: area.read("/m/a", limit=1.5), TypeError),
        (lambda area: area.read("/m/a", offset=True), TypeError),
        (lambda area: area.read("/m/a", offset=math.inf), TypeError),
        (lambda area: area.find(""), ValueError),
        (lambda area: area.find("x", limit=0), ValueError),
        (lambda area: area.find(3), TypeError),
        (lambda area: area.replace("/m/a", "", "x"), ValueError),
        (lambda area: area.replace("/m/a", 3, "x"), TypeError),
        (lambda area: area.replace("/m/a", "x", "\ud800"), NotText),
        (lambda area: area.create("/m/b", b"x"), TypeError),
        (lambda area: area.create("/m/b", "\ud800"), NotText),
        (lambda area: area.create("m/b", ""), InvalidPath),
        (lambda area: area.write("/m/../b", ""), InvalidPath),
        (lambda area: area.read("/"), InvalidPath),
        (lambda area: area.delete("/m/b/"), InvalidPath),
        (lambda area: area.move("/m/a", "/"), InvalidPath),
        (lambda area: area.list("m"), InvalidPath),
        (lambda area: area.replace("/m/a", "y", "x"), TextNotFound),
        (lambda area: area.replace("/m/a", "x", "y"), TextNotUnique),
        (lambda area: area.read("/m/b"), FileNotFound),
        (lambda area: area.replace("/m/b", "x", "y"), FileNotFound),
        (lambda area: area.delete("/m/b"), FileNotFound),
        (lambda area: area.move("/m/b", "/m/c"), FileNotFound),
        (lambda area: area.find("x", "/m/b"), FileNotFound),
        (lambda area: area.create("/m/a", ""), FileExists),
        (lambda area: area.create("/m/a/b", ""), FileExists),
        (lambda area: area.create("/m/f", ""), FileExists),
        (lambda area: area.write("/m/f", ""), FileExists),
        (lambda area: area.create("/m", ""), FileExists),
        (lambda area: area.create("/m/docs", ""), FileReadOnly),
        (lambda area: area.create("/m/docs/x", ""), FileReadOnly),
        (lambda area: area.write("/m/docs/guide.md", ""), FileReadOnly),
        (lambda area: area.replace("/m/docs/guide.md", "me", "it"), FileReadOnly),
        (lambda area: area.delete("/m/docs/guide.md"), FileReadOnly),
        (lambda area: area.move("/m/docs/guide.md", "/m/g"), FileReadOnly),
        (lambda area: area.move("/m/a", "/m/docs/a"), FileReadOnly),
        (lambda area: area.move("/m/docs", "/m/d"), FileReadOnly),
        (lambda area: area.move("/m", "/n"), MoveRefused),
        (lambda area: area.move("/m/a", "/n"), MoveRefused),
        (lambda area: area.move("/n", "/m/a"), MoveRefused),
        (lambda area: area.move("/m/a", "/m/a"), MoveRefused),
        (lambda area: area.move("/m/f", "/m/f/g"), MoveRefused),
        (lambda area: area.move("/m/a", "/m/f"), FileExists),
        (lambda area: area.move("/m/f", "/m/a"), FileExists),
        (lambda area: area.move("/m/f", "/m/a/f"), FileExists),
        (lambda area: area.move("/m/f", "/m" + "/d" * 15), InvalidPath),
    ],
)
async def test_operation_when_refused(
    area: FileArea, backend: FaultyFiles, call: Call, error: type[Exception], autojump_clock: object
) -> None:
    """What cannot be done is refused by a named error, before any effect."""
    await area.create("/m/a", "x x")
    await area.create("/m/f/b", "x")
    backend.calls.clear()
    with pytest.raises(error) as caught:
        await call(area)

    assert error is caught.type
    assert str(caught.value)
    assert ["/m/a", *DOCS, "/m/f/b"] == await paths(area)
    assert {"read", "index"} >= {method for method, _ in backend.calls}
    assert "x x" == await text(area, "/m/a")


async def test_operation_when_a_folder_is_meant(area: FileArea, autojump_clock: object) -> None:
    """A caller who takes a folder for a file is told that it is a folder."""
    await area.create("/m/f/b", "x")
    for call in (lambda: area.read("/m/f"), lambda: area.delete("/m/f"), lambda: area.replace("/m/f", "x", "y")):
        with pytest.raises(FileNotFound, match="it is a folder"):
            await call()


async def test_find_when_there_are_many(area: FileArea, autojump_clock: object) -> None:
    """A search gives lines with numbers, of all mounts, and says whether these are all."""
    await area.create("/m/a", "x\nRead\n")
    await area.create("/other", "Read")
    found = await area.find("Read")

    assert [("/m/a", 2), ("/m/docs/guide.md", 1), ("/m/docs/guide.md", 2), ("/other", 1)] == [
        (match.path, match.line) for match in found.matches
    ]
    assert found.is_complete
    cut = await area.find("Read", limit=3)
    assert (3, False) == (len(cut.matches), cut.is_complete)
    assert (await area.find("Read", limit=4)).is_complete
    assert ["Read all."] == [match.text for match in (await area.find("all", "/m/docs")).matches]
    assert [] == (await area.find("r[e]ad")).matches


async def test_find_when_some_cannot_be_read(backend: FaultyFiles, autojump_clock: object) -> None:
    """A file in a folder that cannot be searched is named and left out. A file that is asked for by its path is refused."""
    await backend.create(("s",), "/big", "x" * 11)
    await backend.create(("s",), "/small", "x")
    async with open_files(FilesConfig(mounts=[Mount("/", backend)], max_file_bytes=10)) as files:
        area = files.area("s")
        found = await area.find("x")

        assert (["/small"], ["/big"]) == ([match.path for match in found.matches], found.skipped)
        with pytest.raises(QuotaExceeded):
            await area.find("x", "/big")
        with pytest.raises(QuotaExceeded):
            await area.read("/big")

    assert ["/small"] == backend.of("read")  # what is too large is not even asked for


async def test_write_when_new_and_when_there(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """A host's write makes a new file at once, and edits an existing file without reading it."""
    await backend.create(("s",), "/old", "before")
    await area.write("/m/old", "after")
    await area.write("/m/new", "x")

    assert ("before", "x") == (backend.stored("/old"), backend.stored("/new"))
    assert "after" == await text(area, "/m/old")
    assert [] == backend.of("read")


async def test_scopes_when_two(files: FileSystem, autojump_clock: object) -> None:
    """Two scopes share nothing; the same scope always has the same files."""
    await files.area("a").create("/m/x", "1")
    await files.area(("a", "b")).create("/m/x", "2")

    assert "1" == await text(files.area(("a",)), "/m/x")
    assert [] == await paths(files.area("a:b"))
    assert files.area("a").scope == ("a",)


async def test_operation_when_the_files_are_closed(autojump_clock: object) -> None:
    """After the block nothing is done any more, by a named error."""
    async with open_files() as files:
        area = files.area("s")
        await area.create("/a", "x")
    for call in (area.list, area.flush, area.refresh, lambda: area.read("/a"), lambda: area.write("/a", ""), lambda: area.delete("/a")):
        with pytest.raises(FilesClosed):
            await call()


OPERATIONS: dict[str, Call] = {
    "list": lambda area: area.list(),
    "read": lambda area: area.read("/m/a"),
    "find": lambda area: area.find("x"),
    "create": lambda area: area.create("/m/b", "x"),
    "write": lambda area: area.write("/m/c", "x"),
    "edit": lambda area: area.write("/m/a", "y"),
    "replace": lambda area: area.replace("/m/a", "y", "z"),
    "move": lambda area: area.move("/m/a", "/m/d"),
    "delete": lambda area: area.delete("/m/d"),
    "flush": lambda area: area.flush(),
    "refresh": lambda area: area.refresh(),
}


async def test_operations_when_called(area: FileArea, autojump_clock: object) -> None:
    """Every operation is a checkpoint, also where all is in memory."""
    await area.create("/m/a", "x")
    for call in OPERATIONS.values():
        with assert_checkpoints():
            await call(area)


@pytest.mark.parametrize("what", [what for what in OPERATIONS if what != "delete"])
async def test_operations_when_cancelled_before(area: FileArea, backend: FaultyFiles, what: str, autojump_clock: object) -> None:
    """A call in a scope that is cancelled already does nothing."""
    await area.create("/m/a", "y")
    backend.calls.clear()
    with trio.CancelScope() as scope:
        scope.cancel()
        await OPERATIONS[what](area)

    assert scope.cancelled_caught
    assert [] == backend.calls
    assert ["/m/a", *DOCS] == await paths(area)


# --- quotas


@pytest.mark.parametrize(
    ("limits", "call", "limit"),
    [
        ({"max_file_bytes": 4}, lambda area: area.create("/m/b", "äää"), "max_file_bytes"),
        ({"max_file_bytes": 4}, lambda area: area.write("/m/a", "12345"), "max_file_bytes"),
        ({"max_file_bytes": 4}, lambda area: area.replace("/m/a", "12", "äää"), "max_file_bytes"),
        ({"max_scope_bytes": 4}, lambda area: area.create("/m/b", "123"), "max_scope_bytes"),
        ({"max_scope_bytes": 4}, lambda area: area.create("/elsewhere", "123"), "max_scope_bytes"),
        ({"max_scope_bytes": 4}, lambda area: area.write("/m/a", "12345"), "max_scope_bytes"),
        ({"max_scope_bytes": 4}, lambda area: area.replace("/m/a", "12", "12345"), "max_scope_bytes"),
        ({"max_scope_files": 1}, lambda area: area.create("/elsewhere", ""), "max_scope_files"),
    ],
)
async def test_quota_when_exceeded(backend: FaultyFiles, autojump_clock: object, limits: dict[str, int], call: Call, limit: str) -> None:
    """Over a quota nothing is done, by an error that names it; files that an earlier run left count, too."""
    await backend.create(("s",), "/a", "12")
    async with open_files(FilesConfig(mounts=[Mount("/m", backend)], **limits)) as files:
        area = files.area("s")
        with pytest.raises(QuotaExceeded) as caught:
            await call(area)

        assert (limit, limits[limit]) == (caught.value.limit, caught.value.most)
        assert isinstance(caught.value, LimitExceeded)
        assert [("/m/a", 2)] == [(info.path, info.size) for info in await area.list()]
        assert "12" == await text(area, "/m/a")


async def test_quota_when_room_is_made(autojump_clock: object) -> None:
    """A file that was deleted or shortened, or that could not be made, takes no room. Moving takes none."""
    backend = FaultyFiles()
    async with open_files(FilesConfig(mounts=[Mount("/", backend)], max_scope_bytes=4, max_scope_files=2)) as files:
        area = files.area("s")
        await area.create("/a", "12")
        backend.faults.failing["create"] = 3
        for _ in range(3):
            with pytest.raises(FileNotStored):
                await area.create("/b", "34")
        await area.create("/b", "34")
        await area.move("/a", "/c")
        with pytest.raises(QuotaExceeded):
            await area.create("/d", "")
        await area.delete("/c")
        await area.replace("/b", "34", "3")
        await area.create("/e", "123")
        with pytest.raises(QuotaExceeded):
            await area.replace("/b", "3", "34")


async def test_quota_when_there_is_too_much_already(backend: FaultyFiles, autojump_clock: object) -> None:
    """A scope that is over its quota can be read, and made smaller."""
    await backend.create(("s",), "/a", "12345678")
    async with open_files(FilesConfig(mounts=[Mount("/", backend)], max_scope_bytes=4)) as files:
        area = files.area("s")
        assert 1 == await area.replace("/a", "78", "7")
        with pytest.raises(QuotaExceeded):
            await area.replace("/a", "7", "78")
        await area.delete("/a")
        await area.create("/b", "1234")


async def test_quota_when_two_make_files_at_once(autojump_clock: object) -> None:
    """Two calls that wait for two backends cannot both take the last room."""
    backends = FaultyFiles(), FaultyFiles()
    for backend in backends:
        backend.faults.hanging["create"] = trio.Event()
    config = FilesConfig(mounts=[Mount("/a", backends[0]), Mount("/b", backends[1])], max_scope_files=1)
    done: list[object] = []

    async def create(path: str) -> None:
        try:
            await area.create(path, "")
        except QuotaExceeded as exc:
            done.append(type(exc))
        else:
            done.append(path)

    async with open_files(config) as files, trio.open_nursery() as nursery:
        area = files.area("s")
        nursery.start_soon(create, "/a/x")
        await wait_all_tasks_blocked()
        nursery.start_soon(create, "/b/x")
        await wait_all_tasks_blocked()
        assert [QuotaExceeded] == done
        for backend in backends:
            backend.faults.hanging["create"].set()

    assert [QuotaExceeded, "/a/x"] == done


async def test_quota_when_read_only(autojump_clock: object) -> None:
    """What is in a read-only mount takes no room."""
    docs = MemoryFiles()
    await docs.create(("s",), "/a", "x" * 100)
    async with open_files(FilesConfig(mounts=[Mount("/docs", docs, read_only=True)], max_scope_bytes=1, max_scope_files=1)) as files:
        area = files.area("s")
        await area.list()
        await area.create("/b", "x")


# --- two agents


async def test_replace_when_many_agents_edit_one_file(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """No edit is lost, also when the file has to be read first, by all at once."""
    await backend.create(("s",), "/a", "".join(f"[{number}]" for number in range(50)))

    async def edit(number: int) -> None:
        await area.replace("/m/a", f"[{number}]", f"<{number}>")

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(edit, number)
    await area.flush()

    assert "".join(f"<{number}>" for number in range(50)) == backend.stored("/a")
    assert ["/a"] == backend.of("read")


async def test_create_when_two_make_one_file(area: FileArea, autojump_clock: object) -> None:
    """If two callers make the same file, one succeeds, and the other gets an error."""
    made: list[str] = []

    async def create(name: str) -> None:
        try:
            await area.create("/m/a", name)
        except FileExists:
            return
        made.append(name)

    async with trio.open_nursery() as nursery:
        for name in "abcdef":
            nursery.start_soon(create, name)

    assert made == [await text(area, "/m/a")]


async def test_edit_when_the_file_is_being_moved(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """An edit that comes while the backend moves the file goes along with it."""
    await area.create("/m/a", "one")
    backend.faults.hanging["move"] = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(area.move, "/m/a", "/m/b")
        await wait_all_tasks_blocked()
        await area.replace("/m/a", "one", "two")
        backend.faults.hanging["move"].set()
    await area.flush()

    assert "two" == await text(area, "/m/b") == backend.stored("/b")
    assert backend.stored("/a") is None
    assert ["/b"] == backend.of("write")


async def test_edit_when_the_file_is_being_deleted(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """A file that is deleted stays so, whatever was edited before; it is not written again."""
    await area.create("/m/a", "one")
    backend.faults.hanging["delete"] = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(area.delete, "/m/a")
        await wait_all_tasks_blocked()
        await area.replace("/m/a", "one", "two")
        backend.faults.hanging["delete"].set()
    await trio.sleep(100)
    await area.flush()

    assert DOCS == await paths(area)
    assert [] == backend.of("write")


async def test_edit_when_the_delete_fails(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """An edit of a file that could not be deleted after all is kept and saved."""
    await area.create("/m/a", "one")
    backend.faults.hanging["delete"] = trio.Event()
    backend.faults.failing["delete"] = 1
    with pytest.RaisesGroup(FileNotStored):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(area.delete, "/m/a")
            await wait_all_tasks_blocked()
            await area.replace("/m/a", "one", "two")
            backend.faults.hanging["delete"].set()
    await area.flush()

    assert "two" == await text(area, "/m/a") == backend.stored("/a")


async def test_edit_when_the_backend_is_slow(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """What is in memory can be read and edited while the backend hangs with something else."""
    await area.create("/m/a", "one")
    backend.faults.hanging["create"] = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(area.create, "/m/b", "")
        await wait_all_tasks_blocked()
        with trio.fail_after(1):
            await area.replace("/m/a", "one", "two")
            assert "two" == await text(area, "/m/a")
            assert ["/m/a", *DOCS] == await paths(area)
            await area.create("/free", "in another backend")
        backend.faults.hanging["create"].set()


async def test_read_when_the_file_is_moved_meanwhile(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """A reader who waits for the content of a file that is moved away is told that the file is gone."""
    await backend.create(("s",), "/a", "one")
    await area.list()
    backend.faults.hanging["move"] = trio.Event()
    missing: list[str] = []

    async def read() -> None:
        try:
            await area.read("/m/a")
        except FileNotFound as exc:
            missing.append(exc.path)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(area.move, "/m/a", "/m/b")
        await wait_all_tasks_blocked()
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        backend.faults.hanging["move"].set()

    assert ["/m/a"] == missing
    assert "one" == await text(area, "/m/b")


async def test_write_when_two_make_one_file(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """If two hosts write the same new file, one write makes it and the other edits it. The later content stays."""
    async with trio.open_nursery() as nursery:
        backend.faults.hanging["create"] = trio.Event()
        nursery.start_soon(area.write, "/m/a", "one")
        await wait_all_tasks_blocked()
        nursery.start_soon(area.write, "/m/a", "two")
        await wait_all_tasks_blocked()
        backend.faults.hanging["create"].set()
    await area.flush()

    assert "two" == await text(area, "/m/a") == backend.stored("/a")
    assert [("create", "/a"), ("write", "/a")] == [call for call in backend.calls if call[0] != "index"]


@pytest.mark.parametrize("is_gone", [False, True])
async def test_write_when_the_file_is_being_read(area: FileArea, backend: FaultyFiles, autojump_clock: object, is_gone: bool) -> None:
    """A write while the old content is being read is not overwritten by that content, even if the file is gone in the meantime."""
    await backend.create(("s",), "/a", "old")
    await area.list()
    backend.faults.hanging["read"] = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(area.read, "/m/a")
        await wait_all_tasks_blocked()
        await area.write("/m/a", "new")
        if is_gone:
            await backend.delete(("s",), "/a")
        backend.faults.hanging["read"].set()

    assert "new" == await text(area, "/m/a")
    await area.flush()
    assert "new" == backend.stored("/a")


# --- callers that go


@pytest.mark.parametrize(
    ("method", "call", "after"),
    [
        ("create", lambda area: area.create("/m/n", "new"), {"/a": "one", "/n": "new"}),
        ("create", lambda area: area.write("/m/n", "new"), {"/a": "one", "/n": "new"}),
        ("delete", lambda area: area.delete("/m/a"), {}),
        ("move", lambda area: area.move("/m/a", "/m/b"), {"/b": "one"}),
    ],
)
@pytest.mark.parametrize("has_begun", [True, False], ids=["begun", "queued"])
async def test_change_when_the_caller_is_cancelled(
    area: FileArea, backend: FaultyFiles, method: str, call: Call, after: dict[str, str], has_begun: bool, autojump_clock: object
) -> None:
    """A cancelled caller goes at once. What had begun goes in as a whole, in storage and in memory; what had not is withdrawn."""
    await area.create("/m/a", "one")
    backend.faults.hanging["read" if not has_begun else method] = gate = trio.Event()
    async with trio.open_nursery() as nursery:
        if not has_begun:
            backend.faults.hanging[method] = gate
            backend.faults.hanging["index"] = gate
            nursery.start_soon(area.refresh)
            await wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await call(area)
        assert scope.cancelled_caught
        gate.set()
    await wait_all_tasks_blocked()
    expected = after if has_begun else {"/a": "one"}

    assert expected == backend._scopes.get(("s",), {})
    assert [f"/m{path}" for path in expected] == [path for path in await paths(area, "/m") if path not in DOCS]
    assert list(expected.values()) == [await text(area, f"/m{path}") for path in expected]


async def test_read_when_the_caller_is_cancelled(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """A reader who leaves takes nothing along: the next reader gets the content."""
    await backend.create(("s",), "/a", "one")
    backend.faults.hanging["read"] = trio.Event()
    for call in (lambda: area.read("/m/a"), lambda: area.replace("/m/a", "one", "two"), lambda: area.find("one")):
        with trio.move_on_after(1) as scope:
            await call()
        assert scope.cancelled_caught
    backend.faults.hanging["read"].set()

    assert "one" == await text(area, "/m/a")


# --- backends that fail


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("what", ["list", "read", "create", "move", "delete"])
async def test_backend_when_it_raises(area: FileArea, backend: FaultyFiles, what: str, error: Exception, autojump_clock: object) -> None:
    """Whatever a backend raises, the caller gets a named error, the cause inside; the text does not repeat what the host's error says."""
    await backend.create(("s",), "/a", "one")
    backend.faults.error = error
    method = "index" if what == "list" else what
    if what != "list":
        await area.list()
    backend.faults.failing[method] = 1
    call: Call = {**OPERATIONS, "delete": lambda area: area.delete("/m/a")}[what]
    with pytest.raises(FileNotStored) as caught:
        await call(area)

    assert error is caught.value.__cause__
    assert "canary" not in str(caught.value)
    assert isinstance(caught.value, SagentsError)
    assert ["/m/a", *DOCS] == await paths(area)
    assert "one" == await text(area, "/m/a")


@pytest.mark.parametrize(
    ("method", "call", "after"),
    [
        ("create", lambda area: area.create("/m/n", "new"), ["/m/a", *DOCS, "/m/n"]),
        ("delete", lambda area: area.delete("/m/a"), DOCS),
        ("move", lambda area: area.move("/m/a", "/m/b"), ["/m/b", *DOCS]),
    ],
)
async def test_backend_when_it_fails_too_late(
    area: FileArea, backend: FaultyFiles, method: str, call: Call, after: list[str], autojump_clock: object
) -> None:
    """A backend that did it and failed then is asked again what it has, so memory and storage never stay apart."""
    await area.create("/m/a", "one")
    backend.faults.failing_late[method] = 1
    with pytest.raises(FileNotStored):
        await call(area)

    assert after == await paths(area)
    assert [f"/m{path}" for path in backend._scopes.get(("s",), {})] == [path for path in after if path not in DOCS]


async def test_backend_when_the_index_fails_again(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """While the backend cannot be asked, the files that were known stay."""
    await area.create("/m/a", "one")
    backend.faults.failing.update(delete=1, index=2)
    with pytest.raises(FileNotStored):
        await area.delete("/m/a")

    assert "one" == await text(area, "/m/a")
    with pytest.raises(FileNotStored, match="listing"):
        await area.refresh()
    await area.refresh()
    assert "one" == await text(area, "/m/a")


async def test_backend_when_somebody_else_changed_it(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """A refresh shows and announces what somebody else has done, and keeps edits that are not stored yet."""
    for path in ("/gone", "/longer", "/edited", "/deleted-and-edited"):
        await area.create(f"/m{path}", "one")
    await area.write("/m/edited", "mine")
    await area.write("/m/deleted-and-edited", "mine")
    await backend.delete(("s",), "/gone")
    await backend.delete(("s",), "/deleted-and-edited")
    await backend.write(("s",), "/longer", "longer")
    await backend.write(("s",), "/edited", "theirs, and longer")
    await backend.create(("s",), "/new", "new")
    async with area.changes() as changes:
        await area.refresh()
        told = list(changes._untaken)

    assert [FileDeleted("/m/gone"), FileUpdated("/m/longer"), FileUpdated("/m/new")] == sorted(told, key=lambda change: change.path)
    assert ["longer", "mine", "mine", "new"] == [
        await text(area, f"/m/{name}") for name in ("longer", "edited", "deleted-and-edited", "new")
    ]
    await area.flush()
    assert ("mine", "mine") == (backend.stored("/edited"), backend.stored("/deleted-and-edited"))


async def test_backend_when_it_lists_nonsense(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """A file whose path none can have is not shown, whatever a backend says."""
    for path in ("/../a", "b", "/c/", "/~", "/" + "d/" * 20 + "e", "/fine"):
        await backend.create(("s",), path, "")

    assert [*DOCS, "/m/fine"] == await paths(area)


async def test_read_when_the_file_is_gone_from_the_storage(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """A file that somebody else deleted is not found, and is not listed any more."""
    await backend.create(("s",), "/a", "one")
    await area.list()
    await backend.delete(("s",), "/a")
    with pytest.raises(FileNotFound) as caught:
        await area.read("/m/a")

    assert "/m/a" == caught.value.path
    assert DOCS == await paths(area)


async def test_create_when_somebody_else_was_first(area: FileArea, backend: FaultyFiles, autojump_clock: object) -> None:
    """A file that somebody else made meanwhile is not replaced, and is seen from then on."""
    await area.list()
    await backend.create(("s",), "/a", "theirs")
    with pytest.raises(FileExists, match="'/m/a'"):
        await area.create("/m/a", "mine")

    assert "theirs" == await text(area, "/m/a")
    await backend.create(("s",), "/b", "theirs")
    with pytest.raises(FileExists, match="'/m/b'"):
        await area.move("/m/a", "/m/b")
    assert "theirs" == await text(area, "/m/b")


# --- memory


async def test_memory_when_contents_are_many(backend: FaultyFiles, autojump_clock: object) -> None:
    """Contents that can be read again are dropped, the least recently used first; edits that are not stored are not."""
    async with open_files(FilesConfig(mounts=[Mount("/", backend)], cache_bytes=20)) as files:
        area = files.area("s")
        for name in "abcd":
            await area.create(f"/{name}", name * 8)
        await area.write("/edited", "x")
        await area.write("/edited", "y" * 100)

        assert {"c", "d", "edited"} == {entry.path[1:] for entry in files.tree(("s",)).volumes[0].entries.values() if entry.content}
        assert ["a" * 8, "d" * 8, "y" * 100] == [await text(area, path) for path in ("/a", "/d", "/edited")]
        assert ["/a"] == backend.of("read")
        assert 1 == await area.replace("/b", "b" * 8, "b")
        await area.flush()
    assert "b" == backend.stored("/b")


async def test_memory_when_nothing_fits(backend: FaultyFiles, autojump_clock: object) -> None:
    """With no room for contents everything still works, also for many at once."""
    async with open_files(FilesConfig(mounts=[Mount("/", backend)], cache_bytes=0, cached_scopes=0, debounce=0)) as files:
        for name in "abc":
            await files.area(name).create("/x", "[]" * 10)

        async def edit(name: str, number: int) -> None:
            await files.area(name).replace("/x", "[]" * (10 - number), f"{number}" + "[]" * (9 - number))

        for number in range(10):
            async with trio.open_nursery() as nursery:
                for name in "abc":
                    nursery.start_soon(edit, name, number)
            await trio.sleep(1)
    assert ["0123456789"] * 3 == [backend.stored("/x", name) for name in "abc"]


async def test_memory_when_scopes_are_many(backend: FaultyFiles, autojump_clock: object) -> None:
    """Scopes at rest are forgotten, and read again when they are wanted; those with unsaved edits are kept."""
    async with open_files(FilesConfig(mounts=[Mount("/", backend)], cached_scopes=2)) as files:
        for number in range(20):
            await files.area(f"s{number}").create("/x", f"{number}")
        await files.area("s0").write("/x", "edited")
        for number in range(20):
            await files.area(f"s{number}").list()

        assert 3 >= len(files._trees)
        assert "edited" == await text(files.area("s0"), "/x")
        assert "7" == await text(files.area("s7"), "/x")
        await trio.sleep(10)
        assert "edited" == backend.stored("/x", "s0")


async def test_memory_when_a_scope_is_in_use(backend: FaultyFiles, autojump_clock: object) -> None:
    """A scope in which somebody is about to edit is not forgotten, though nothing is at work in it at that moment."""
    async with open_files(FilesConfig(mounts=[Mount("/", backend)], cached_scopes=1)) as files:
        await files.area("s").create("/x", "one")
        with files.tree(("s",)).used():
            for number in range(20):
                await files.area(f"s{number}").list()
            assert ("s",) in files._trees
        await files.area("t").list()
        await files.area("u").list()

        assert ("s",) not in files._trees


# --- settings


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"debounce": -1}, ValueError),
        ({"debounce": "5"}, TypeError),
        ({"settle_timeout": 0}, ValueError),
        ({"max_file_bytes": 0}, ValueError),
        ({"max_scope_files": 1.5}, TypeError),
        ({"mounts": ["/a"]}, TypeError),
        ({"mounts": [Mount("/a", MemoryFiles()), Mount("/a/", MemoryFiles())]}, ValueError),
        ({"mount": ()}, TypeError),
    ],
)
def test_config_when_wrong(settings: dict[str, object], error: type[Exception]) -> None:
    """A setting that makes no sense is refused when it is made."""
    with pytest.raises(error):
        FilesConfig(**settings)


def test_config_when_one_backend_is_mounted_twice() -> None:
    """The same backend at two mounts is refused, because their files would mix."""
    backend = MemoryFiles()
    with pytest.raises(ValueError, match="its own backend"):
        FilesConfig(mounts=[Mount("/a", backend), Mount("/b", backend)])


def test_mount_when_wrong() -> None:
    """A mount takes a folder and a backend, whose methods wait."""

    class Plain(MemoryFiles):
        def delete(self, scope: object, path: object) -> None:  # type: ignore[override]
            pass

    for arguments in (("/a", "files.db"), ("/a", None), ("/a", MemoryFiles)):
        with pytest.raises(TypeError, match="FileBackend"):
            Mount(*arguments)
    with pytest.raises(TypeError, match="Plain.delete must be"):
        Mount("/a", Plain())
    with pytest.raises(InvalidPath):
        Mount("a", MemoryFiles())
    with pytest.raises(TypeError):
        Mount("/a", MemoryFiles(), read_only="yes")


async def test_open_when_it_is_no_config() -> None:
    """A value that is not a config is refused, and the error says what is wanted."""
    with pytest.raises(TypeError, match="FilesConfig"):
        async with open_files("files.db"):
            pass


async def test_open_when_one_mount_is_inside_another(autojump_clock: object) -> None:
    """What a longer prefix hides stays hidden, and a file is never made in the place of a mount."""
    outer, inner = MemoryFiles(), MemoryFiles()
    for path in ("/a/b/hidden", "/a/shown"):
        await outer.create(("s",), path, "x")
    await outer.create(("t",), "/a", "a file where a folder has to be")
    await inner.create(("s",), "/c", "x")
    async with open_files(FilesConfig(mounts=[Mount("/", outer), Mount("/a/b", inner)])) as files:
        assert ["/a/b/c", "/a/shown"] == await paths(files.area("s"))
        assert [] == await paths(files.area("t"))
        for path in ("/a", "/a/b"):
            with pytest.raises(FileExists):
                await files.area("t").create(path, "")
        with pytest.raises(MoveRefused):
            await files.area("s").move("/a", "/b")
        with pytest.raises(MoveRefused):
            await files.area("s").move("/a/shown", "/a/b/shown")


async def test_errors_when_they_are_shown(files: FileSystem, autojump_clock: object) -> None:
    """Every error of files has a text, and they share one base class."""
    area = files.area("s")
    with pytest.raises(FileError):
        await area.read("/x")

    assert "FileArea(scope=('s',))" == repr(area)
    assert repr(files).startswith("<FileSystem")
    assert attrs.has(type(area))
    assert "Broken" not in str(Broken())


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (OSError(errno.EACCES, "secret", "/a/secret/place"), "Permission denied; nothing was changed"),
        (OSError(errno.ENOSPC, "secret"), "No space left on device; nothing was changed"),
        (OSError("secret"), "try again later"),
        (RuntimeError("secret"), "try again later"),
    ],
    ids=repr,
)
def test_error_of_a_storage(cause: Exception, words: str) -> None:
    """The error quotes the system, which people can act on, and nothing that the storage says about itself."""
    between = PersistenceError("secret")
    between.__cause__ = cause
    error = FileNotStored("/a", "creating")
    error.__cause__ = between

    assert "creating '/a' failed: " in str(error)
    assert words in str(error)
    assert "secret" not in str(error)


def test_open_files_when_it_is_cancelled_already() -> None:
    """Opening files in a cancelled scope ends; nothing hangs in a shield."""

    async def main(simulation: Simulation) -> bool:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with open_files():
                raise AssertionError("they were opened")
        return scope.cancelled_caught

    assert simulate(main, 0)[1]
