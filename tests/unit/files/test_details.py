"""Titles, types and notes of files: stored by every backend, moved and deleted with their files, and kept by several processes."""

import logging
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from tests.support.files import FaultyFiles, SharedFiles
from trio_sagents.files import (
    DirectoryFiles,
    FileBackend,
    FileConflict,
    FileDetails,
    FileNotFound,
    FileNotStored,
    FileReadOnly,
    FilesConfig,
    FileUpdated,
    MemoryFiles,
    Mount,
    QuotaExceeded,
    SqliteFiles,
    open_files,
)
from trio_sagents.files import _details as module
from trio_sagents.files._paths import DETAILS

NOTES = FileDetails(title="The plan", media_type="text/x-plan", metadata={"by": "alice", "tags": ["a", 1]})


@pytest.fixture(params=["memory", "sqlite", "directory", "single"])
def backends(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Return a function that makes a backend on one storage."""
    memory = MemoryFiles()

    def make() -> FileBackend:
        match request.param:
            case "sqlite":
                return SqliteFiles(tmp_path / "files.db")
            case "directory":
                return DirectoryFiles(tmp_path)
            case "single":
                return DirectoryFiles(tmp_path, single_scope=True)
            case _:
                return memory

    return make


async def shown(area: Any) -> dict[str, tuple[str | None, str, Any]]:
    """Return by path the details that a listing shows."""
    return {info.path: (info.title, info.media_type, info.metadata) for info in await area.list()}


async def test_details_when_given(backends: Any) -> None:
    """Details are stored when the call returns, are there again in the next life, and go along with their file."""
    async with open_files(FilesConfig(mounts=[Mount("/", backends())])) as files:
        area = files.area("s")
        await area.create("/a.md", "one")
        await area.create("/b", "two")
        assert {"/a.md": (None, "text/markdown", {}), "/b": (None, "text/plain", {})} == await shown(area)
        await area.describe("/a.md", NOTES)
        await area.describe("/b", FileDetails(title="B"))
        assert {"/a.md": ("The plan", "text/x-plan", NOTES.metadata), "/b": ("B", "text/plain", {})} == await shown(area)
        assert await shown(files.area("t")) in ({}, await shown(area))  # of another scope, or of a tree that all scopes share
    async with open_files(FilesConfig(mounts=[Mount("/", backends())])) as files:
        area = files.area("s")
        assert ("The plan", "text/x-plan", NOTES.metadata) == (await shown(area))["/a.md"]
        await area.move("/a.md", "/d/c.md")
        await area.move("/d", "/e")
        await area.delete("/b")
        await area.create("/b", "another file")
        await area.write("/e/c.md", "edited", durable=True)
    async with open_files(FilesConfig(mounts=[Mount("/", backends())])) as files:
        area = files.area("s")
        assert {"/b": (None, "text/plain", {}), "/e/c.md": ("The plan", "text/x-plan", NOTES.metadata)} == await shown(area)
        await area.describe("/e/c.md", FileDetails())
        assert (None, "text/markdown", {}) == (await shown(area))["/e/c.md"]
        assert ["/b", "/e/c.md"] == [info.path for info in await area.list()]


async def test_details_when_refused(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be described is refused, and nothing is stored."""
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    backend = MemoryFiles()
    async with open_files(FilesConfig(mounts=[Mount("/", backend), Mount("/docs", MemoryFiles(), read_only=True)])) as files:
        area = files.area("s")
        with pytest.raises(FileNotFound):
            await area.describe("/a", NOTES)
        with pytest.raises(FileReadOnly):
            await area.describe("/docs/a", NOTES)
        await area.create("/a", "")
        with pytest.raises(QuotaExceeded):
            await area.describe("/a", FileDetails(title="x" * 100))
        with pytest.raises(TypeError):
            await area.describe("/a", {"title": "A"})  # type: ignore[arg-type]  # on purpose
        assert ["/a"] == [record.path for record in await backend.index(("s",))]
    for wrong in ({"title": 5}, {"media_type": 5}, {"metadata": 5}, {"metadata": {1: 2}}, {"title": "\ud800"}):
        with pytest.raises((TypeError, ValueError)):
            FileDetails(**wrong)  # type: ignore[arg-type]  # on purpose


async def test_details_when_another_process_describes(autojump_clock: MockClock) -> None:
    """Two processes that describe different files do not undo each other; a storage that always changes is a conflict."""
    backend = SharedFiles()
    async with open_files(FilesConfig(mounts=[Mount("/", backend)])) as files:
        area = files.area("s")
        await area.create("/a", "")
        await area.describe("/a", FileDetails(title="A"))
        other = '{"/a": {"title": "A"}, "/other": {"title": "theirs"}}'
        backend.meanwhile = lambda: backend.put(DETAILS, other)
        await area.describe("/a", FileDetails(title="A2"))

        assert '"theirs"' in str(backend.stored(DETAILS))
        assert '"A2"' in str(backend.stored(DETAILS))
        count = iter(range(100))

        def again() -> None:
            backend.put(DETAILS, f'{{"/x": {{"title": "{next(count)}"}}}}')
            backend.meanwhile = again

        backend.meanwhile = again
        with pytest.raises(FileConflict):
            await area.describe("/a", FileDetails(title="A3"))


@pytest.mark.parametrize("stored", ["not json", "[]", '{"/a": 5}', '{"/a": {"title": 5}}', '{"/a": {"other": 1}}'])
async def test_details_when_what_is_stored_is_wrong(autojump_clock: MockClock, stored: str) -> None:
    """Details that cannot be read are none; the files are there all the same."""
    backend = FaultyFiles()
    await backend.create(("s",), "/a", "")
    await backend.create(("s",), DETAILS, stored)
    async with open_files(FilesConfig(mounts=[Mount("/", backend)])) as files:
        assert {"/a": (None, "text/plain", {})} == await shown(files.area("s"))


async def test_details_when_the_storage_fails(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A storage that fails is an error for who describes; a move is done all the same, and the log says that the title stayed behind."""
    backend = FaultyFiles()
    async with open_files(FilesConfig(mounts=[Mount("/", backend)])) as files:
        area = files.area("s")
        await area.create("/a", "")
        backend.faults.failing["create"] = 1
        with pytest.raises(FileNotStored):
            await area.describe("/a", NOTES)
        async with area.changes() as changes:
            await area.describe("/a", NOTES)
            assert [FileUpdated("/a")] == list(changes._untaken)
        await area.refresh()
        backend.faults.failing["read"] = 1
        assert {"/a": (None, "text/plain", {})} == await shown(area)
        backend.faults.failing["write"] = 1
        with caplog.at_level(logging.WARNING):
            await area.move("/a", "/b")
        assert ["/b"] == [info.path for info in await area.list()]
        assert "moved files" in caplog.text


async def test_backend_when_nobody_describes(autojump_clock: MockClock) -> None:
    """A tree without details is not asked for any."""
    backend = FaultyFiles()
    async with open_files(FilesConfig(mounts=[Mount("/", backend)])) as files:
        area = files.area("s")
        await area.create("/a", "")
        await area.list()
        await area.move("/a", "/b")
        await area.delete("/b")

    assert [] == backend.of("read")
