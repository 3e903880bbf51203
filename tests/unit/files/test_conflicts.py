"""Several processes on one tree: no edit is lost without a word, and what a tool has told is stored."""

import fcntl
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.files import FaultyFiles, SharedFiles
from trio_sagents import Agent, SessionConfig, SingleFactoryRouter, SqliteStore, open_sessions
from trio_sagents.files import (
    ComparingFiles,
    DirectoryFiles,
    FileArea,
    FileBackend,
    FileConflict,
    FileDeleted,
    FileEditLost,
    FilesConfig,
    FilesUnsaved,
    FileUpdated,
    Mount,
    SqliteFiles,
    TextNotFound,
    UnsavedFile,
    open_files,
)
from trio_sagents.files._walk import TEMPORARY
from trio_sagents.middleware import Files
from trio_sagents.testing import Call, ScriptedModel

S = ("s",)
KINDS = ("sqlite", "directory", "single")


def backend_of(kind: str, folder: Path) -> FileBackend:
    """Return a backend on a storage in this folder."""
    match kind:
        case "sqlite":
            return SqliteFiles(folder / "files.db")
        case "directory":
            return DirectoryFiles(folder)
        case _:
            return DirectoryFiles(folder, single_scope=True)


def put(kind: str, folder: Path, path: str, content: str | None) -> None:
    """Be another process: store a content of a file of the scope "s", or delete the file."""
    if kind == "sqlite":
        with closing(sqlite3.connect(folder / "files.db", isolation_level=None)) as connection:
            if content is None:
                connection.execute("DELETE FROM files WHERE path = ?", (path,))
            else:
                data = content.encode()
                connection.execute("UPDATE files SET size = ?, content = ? WHERE path = ?", (len(data), data, path))
        return
    file = folder / (path[1:] if kind == "single" else f"s{path}")
    if content is None:
        file.unlink()
    else:
        file.write_text(content)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", ["one and more", None])
async def test_edit_when_the_stored_file_changes_before_the_save(kind: str, content: str | None, tmp_path: Path) -> None:
    """An edit is made only of what is stored: if that has changed, a flush tells of the edit, with its text, and the change stays."""
    async with open_files(FilesConfig(mounts=[Mount("/", backend_of(kind, tmp_path))])) as files:
        area = files.area("s")
        await area.create("/a", "one")
        await area.replace("/a", "one", "two")
        put(kind, tmp_path, "/a", content)
        with pytest.raises(FilesUnsaved) as caught:
            await area.flush()

        assert [UnsavedFile(S, "/a", "two", caught.value.files[0].error)] == list(caught.value.files)
        assert isinstance(caught.value.files[0].error, FileConflict)
        await area.flush()  # an edit is told once, and is not tried again
        if content is None:
            assert [] == await area.list()
        else:
            assert content == (await area.read("/a")).text
            assert [len(content)] == [info.size for info in await area.list()]


@pytest.mark.parametrize("kind", KINDS)
async def test_edit_when_the_stored_file_has_changed_before(kind: str, tmp_path: Path) -> None:
    """An edit is made of what is stored at that time, so an earlier edit of another process stays."""
    async with open_files(FilesConfig(mounts=[Mount("/", backend_of(kind, tmp_path))])) as files:
        area = files.area("s")
        await area.create("/a", "one two")
        put(kind, tmp_path, "/a", "1 two")
        await area.replace("/a", "two", "2", durable=True)

        assert "1 2" == (await area.read("/a", fresh=True)).text
        put(kind, tmp_path, "/a", "other")
        await area.write("/a", "mine")  # whatever the file is
        await area.flush()
        assert "mine" == (await area.read("/a", fresh=True)).text


@pytest.mark.parametrize("kind", KINDS)
async def test_delete_when_the_stored_file_has_changed(kind: str, tmp_path: Path) -> None:
    """A file is not deleted if its content is not the one that was read."""
    async with open_files(FilesConfig(mounts=[Mount("/", backend_of(kind, tmp_path))])) as files:
        area = files.area("s")
        await area.create("/d/a", "one")
        await area.create("/d/b", "one")
        put(kind, tmp_path, "/d/a", "two")
        put(kind, tmp_path, "/d/b", None)
        with pytest.raises(FileConflict, match="read it again"):
            await area.delete("/d/a")

        assert "two" == (await area.read("/d/a")).text
        await area.delete("/d/a")
        assert [] == await area.list()


@pytest.mark.parametrize("kind", KINDS)
async def test_backend_when_it_compares(kind: str, tmp_path: Path) -> None:
    """A backend replaces and deletes nothing but one of the contents that the caller knows."""
    backend = backend_of(kind, tmp_path)
    assert isinstance(backend, ComparingFiles)
    async with backend.open():  # type: ignore[attr-defined]  # each of these can be opened
        one, two, three = (bytes.fromhex(digest) for digest in DIGESTS)
        await backend.create(S, "/d/a", "one")
        with pytest.raises(FileConflict):
            await backend.write_if(S, "/d/a", "three", digests=[two])
        with pytest.raises(FileConflict):
            await backend.write_if(S, "/d/gone", "three", digests=[two])
        with pytest.raises(FileConflict):
            await backend.write_if(S, "/gone/a", "three", digests=[two])
        assert "one" == await backend.read(S, "/d/a", max_bytes=100)

        await backend.write_if(S, "/d/a", "three", digests=[two, one])
        assert "three" == await backend.read(S, "/d/a", max_bytes=100)
        with pytest.raises(FileConflict):  # not even if somebody else has stored the same content
            await backend.write_if(S, "/d/a", "three", digests=[one])
        with pytest.raises(FileConflict):
            await backend.delete_if(S, "/d/a", digests=[one, two])
        await backend.delete_if(S, "/d/a", digests=[three])
        await backend.delete_if(S, "/d/a", digests=[three])
        await backend.delete_if(S, "/gone/a", digests=[three])
        assert [] == await backend.index(S)


DIGESTS = (
    "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
    "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3",
    "8b5b9db0c13db24256c829aa364aa90c6d2eba318b9232a4ab9313b954d3555f",
)
"""Of "one", "two" and "three"."""


# --- what is told, in virtual time


@pytest.fixture
def backend() -> SharedFiles:
    return SharedFiles()


def opened(backend: FaultyFiles, **settings: float):  # type: ignore[no-untyped-def]  # as `open_files`
    return open_files(FilesConfig(mounts=[Mount("/", backend)], **settings))


async def test_edit_when_it_is_lost(backend: SharedFiles, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """An edit that nobody waits for is told to listeners and to the log when it is given up, and raised at the end of the block."""
    with caplog.at_level(logging.WARNING), pytest.raises(FilesUnsaved) as caught:
        async with opened(backend) as files:
            area = files.area("s")
            await area.create("/a", "one")
            async with area.changes() as changes:
                await area.replace("/a", "one", "two")
                backend.put("/a", "other")
                await trio.sleep(100)
                assert [FileUpdated("/a"), FileEditLost("/a")] == list(changes._untaken)
            assert "other" == (await area.read("/a")).text
            assert [True] == [info.is_saved for info in await area.list()]

    assert ["two"] == [file.content for file in caught.value.files]
    assert "somebody else has changed the stored file" in caplog.text
    assert "other" == backend.stored("/a")


async def test_edit_when_the_caller_waits(backend: SharedFiles, autojump_clock: MockClock) -> None:
    """Whoever waits for an edit is told that it was given up; nobody else is."""
    async with opened(backend) as files:
        area = files.area("s")
        await area.create("/a", "one")
        backend.meanwhile = lambda: backend.put("/a", "other")
        with pytest.raises(FileConflict, match="'/a' has changed"):
            await area.replace("/a", "one", "two", durable=True)
        await area.flush()
    assert "other" == backend.stored("/a")


async def test_edit_when_the_caller_waits_no_more(backend: SharedFiles, autojump_clock: MockClock) -> None:
    """If the caller is cancelled while it waits, a lost edit is told as any other."""
    async with opened(backend) as files:
        area = files.area("s")
        await area.create("/a", "one")
        backend.faults.hanging["write"] = trio.Event()
        backend.meanwhile = lambda: backend.put("/a", "other")
        with trio.move_on_after(1):
            await area.replace("/a", "one", "two", durable=True)
        backend.faults.hanging.pop("write").set()
        with pytest.raises(FilesUnsaved):
            await area.flush()


async def test_edits_when_several_wait(backend: SharedFiles, autojump_clock: MockClock) -> None:
    """Of several edits at once, each caller learns of its own: those before the conflict are stored, those with it are not."""
    told: list[str] = []

    async def replace(area: FileArea, old: str, new: str) -> None:
        try:
            await area.replace("/a", old, new, durable=True)
            told.append(f"{new} stored")
        except FileConflict:
            told.append(f"{new} lost")

    async with opened(backend) as files, trio.open_nursery() as nursery:
        area = files.area("s")
        await area.create("/a", "1 2 3")
        first, second = trio.Event(), trio.Event()
        backend.faults.hanging["write"] = first
        nursery.start_soon(replace, area, "1", "one")
        await wait_all_tasks_blocked()
        backend.faults.hanging["write"] = second
        nursery.start_soon(replace, area, "2", "two")
        nursery.start_soon(replace, area, "3", "three")
        await wait_all_tasks_blocked()
        first.set()
        await wait_all_tasks_blocked()
        assert ["one stored"] == told
        backend.put("/a", "one 2 3 and more")
        second.set()

    assert {"one stored", "two lost", "three lost"} == set(told)
    assert "one 2 3 and more" == backend.stored("/a")


@pytest.mark.parametrize("is_late", [False, True])
async def test_save_when_it_fails_before(backend: SharedFiles, autojump_clock: MockClock, is_late: bool) -> None:
    """A save that failed, whether it was done or not, is no change by somebody else: the next one is made, with further edits."""
    async with opened(backend, debounce=0) as files:
        area = files.area("s")
        await area.create("/a", "one")
        faults = backend.faults.failing_late if is_late else backend.faults.failing
        faults["write"] = 1
        await area.replace("/a", "one", "two")
        await trio.sleep(0.5)
        await area.replace("/a", "two", "three")
        await trio.sleep(10)

        assert "three" == backend.stored("/a")
        await area.flush()


async def test_write_when_the_file_cannot_be_read(backend: SharedFiles, autojump_clock: MockClock) -> None:
    """A host may replace a file that nobody can read, such as one that has become too large."""
    async with opened(backend, max_file_bytes=100) as files:
        area = files.area("s")
        await area.create("/a", "one")
        backend.put("/a", "x" * 200)
        await area.write("/a", "two", durable=True)

        assert "two" == backend.stored("/a")


async def test_write_when_the_file_is_gone(backend: SharedFiles, autojump_clock: MockClock) -> None:
    """A host that gives a file its content makes the file again if another process has deleted it."""
    async with opened(backend) as files:
        area = files.area("s")
        await area.create("/a", "one")
        backend.put("/a", None)
        await area.write("/a", "two", durable=True)

        assert "two" == backend.stored("/a")


async def test_read_when_it_is_fresh(backend: SharedFiles, autojump_clock: MockClock) -> None:
    """A fresh read shows what others have stored, keeps edits that are not stored yet, and shows what is known if the storage fails."""
    async with opened(backend) as files:
        area = files.area("s")
        await area.create("/a", "one")
        backend.put("/a", "other")
        assert "one" == (await area.read("/a")).text
        backend.faults.failing["read"] = 1
        assert "one" == (await area.read("/a", fresh=True)).text
        assert "other" == (await area.read("/a", fresh=True)).text
        assert "other" == (await area.read("/a")).text
        assert [5] == [info.size for info in await area.list()]
        await area.write("/a", "mine")
        assert "mine" == (await area.read("/a", fresh=True)).text
        await area.flush()
        backend.put("/a", None)
        async with area.changes() as changes:
            with pytest.raises(LookupError):
                await area.read("/a", fresh=True)
            assert [FileDeleted("/a")] == list(changes._untaken)


async def test_edit_when_the_backend_does_not_compare(autojump_clock: MockClock) -> None:
    """A backend of a host that knows only the six methods is asked by these; its files are its own."""
    backend = FaultyFiles()
    async with opened(backend) as files:
        area = files.area("s")
        await area.create("/a", "one")
        await area.replace("/a", "one", "two", durable=True)
        await area.delete("/a")

    assert [("index", "/"), ("create", "/a"), ("write", "/a"), ("delete", "/a")] == backend.calls


@pytest.mark.parametrize("kind", ["directory", "single"])
async def test_index_when_another_process_writes(kind: str, tmp_path: Path) -> None:
    """What a write has left that was cut off is removed by a listing; the file of a write that is at work is not."""
    (tmp_path / "s").mkdir()
    folder = tmp_path if kind == "single" else tmp_path / "s"
    file = folder / f"{TEMPORARY}1"
    file.write_text("half")
    backend = backend_of(kind, tmp_path)
    async with backend.open():  # type: ignore[attr-defined]  # each of these can be opened
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        await backend.index(S)
        assert file.exists()
        os.close(lock)
        await backend.index(S)
        assert not file.exists()


# --- real processes


def start(*arguments: str) -> "subprocess.Popen[str]":
    """Start this file as a program."""
    return subprocess.Popen([sys.executable, "-m", __name__, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


COUNTS = 15


@pytest.mark.parametrize("kind", KINDS)
def test_processes_when_they_edit_one_file(kind: str, tmp_path: Path) -> None:
    """Three processes count in one file, and repeat what was refused: no count is lost."""
    trio.run(count, kind, str(tmp_path), "0")
    processes = [start("count", kind, str(tmp_path), str(COUNTS)) for _ in range(3)]
    ended = [(process.communicate(timeout=60), process.returncode) for process in processes]
    assert [0, 0, 0] == [code for _, code in ended], ended

    async def read() -> str:
        async with open_files(FilesConfig(mounts=[Mount("/", backend_of(kind, tmp_path))])) as files:
            return (await files.area("s").read("/count")).text

    assert f"[{3 * COUNTS}]" == trio.run(read)


async def count(kind: str, folder: str, times: str) -> None:
    """Count in a file, as one of several processes."""
    async with open_files(FilesConfig(mounts=[Mount("/", backend_of(kind, Path(folder)))])) as files:
        area = files.area("s")
        if times == "0":
            await area.create("/count", "[0]")
        for _ in range(int(times)):
            while True:
                text = (await area.read("/count", fresh=True)).text
                try:
                    await area.replace("/count", text, f"[{int(text[1:-1]) + 1}]", durable=True)
                    break
                except (FileConflict, TextNotFound):
                    continue


@pytest.mark.parametrize("kind", KINDS)
def test_process_when_it_is_killed_after_a_tool(kind: str, tmp_path: Path) -> None:
    """A process that is killed as soon as the results of its tools are stored leaves what they told: the edits are in the files."""
    process = start("edit", kind, str(tmp_path))
    said = process.communicate(timeout=60)
    assert -signal.SIGKILL == process.returncode, said

    async def look() -> tuple[Sequence[str], str]:
        store = SqliteStore(tmp_path / "chat.db")
        async with open_files(FilesConfig(mounts=[Mount("/", backend_of(kind, tmp_path))])) as files, store.open():
            found = await store.load(None, "c")
            assert found is not None
            text = json.dumps(found.messages)
            results = [word for word in ("Created /a.", "Replaced the text in /a.") if word in text]
            return results, (await files.area("s").read("/a")).text

    assert (["Created /a.", "Replaced the text in /a."], "two") == trio.run(look)


async def edit(kind: str, folder: str) -> None:
    """Be a process whose model kills it when it reads the result of its second tool."""

    def reply(request: object) -> object:
        replies.append(request)
        match len(replies):
            case 1:
                return Call("create_file", path="/a", content="one")
            case 2:
                return Call("replace_file_text", path="/a", old_text="one", new_text="two")
            case _:
                signal.raise_signal(signal.SIGKILL)
                return "done"

    replies: list[object] = []
    mounts = [Mount("/", backend_of(kind, Path(folder)))]
    store = SqliteStore(Path(folder) / "chat.db")
    async with open_files(FilesConfig(mounts=mounts)) as files:
        agent = Agent(model=ScriptedModel(reply), middleware=[Files(files, scope="s")])  # type: ignore[arg-type]  # a reply is an object here
        config = SessionConfig(factory_router=SingleFactoryRouter(agent), store=store)
        async with open_sessions(config) as sessions:
            await (await sessions.post("c", "go")).wait()


PROGRAMS: dict[str, Callable[..., object]] = {"count": count, "edit": edit}

if __name__ == "__main__":
    trio.run(PROGRAMS[sys.argv[1]], *sys.argv[2:])
