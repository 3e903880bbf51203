"""The working folder: which files an agent sees, and which it cannot touch."""

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from trio_sagents.cli import _folder
from trio_sagents.cli._folder import SCOPE, WorkingFolder, files_config
from trio_sagents.files import FileArea, FileError, FileNotFound, FileRefused, open_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with files, hidden things, links, the database, and something outside."""
    root = tmp_path / "work"
    (root / "docs").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("secret")
    (root / ".env").write_text("SECRET=1")
    (root / "README.md").write_text("# Hello\n")
    (root / "docs" / "index.md").write_text("index")
    (root / "docs" / ".hidden").write_text("secret")
    (root / "docs" / "chat.db").write_bytes(b"a database")
    (tmp_path / "outside.txt").write_text("outside")
    (root / "link").symlink_to("../outside.txt")
    (root / "up").symlink_to("..")
    os.mkfifo(root / "pipe")
    return root


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[FileArea]:
    """Open the files of a folder."""
    async with open_files(files_config(folder, folder / "docs" / "chat.db")) as files:
        yield files.area(SCOPE)


async def test_files_are_listed_and_read(folder: Path) -> None:
    """What is hidden, linked, no file, or the chat's own is not there."""
    async with opened(folder) as area:
        assert ["/README.md", "/docs/index.md"] == [info.path for info in await area.list()]
        assert (await area.read("/README.md")).text == "# Hello\n"
        for path in ("/.env", "/.git/config", "/docs/.hidden", "/docs/chat.db", "/link", "/up/outside.txt", "/pipe", "/none"):
            with pytest.raises(FileNotFound):
                await area.read(path)


@pytest.mark.parametrize(
    "path", ["/.env", "/.bashrc", "/docs/.x/y", "/docs/chat.db", "/docs/chat.db-wal", "/docs/chat.db-journal", "/up/x", "/link"]
)
async def test_what_is_not_for_agents_is_not_written(folder: Path, path: str) -> None:
    """A protected file is neither written nor made, and nothing is moved to its place."""
    async with opened(folder) as area:
        for change in (area.create(path, "x"), area.write(path, "x"), area.move("/README.md", path)):
            with pytest.raises(FileError):
                await change

    assert (folder / ".env").read_text() == "SECRET=1"
    assert (folder / "docs" / "chat.db").read_bytes() == b"a database"
    assert sorted(path.name for path in (folder / "docs").iterdir()) == [".hidden", "chat.db", "index.md"]
    assert ["outside.txt", "work"] == sorted(path.name for path in folder.parent.iterdir())


async def test_the_folder_of_the_database_stays(folder: Path) -> None:
    """To move it would take the database from under the chat."""
    async with opened(folder) as area:
        with pytest.raises(FileRefused, match="database"):
            await area.move("/docs", "/papers")


async def test_the_database_is_never_opened_under_another_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing it would drop the locks that SQLite holds on it."""
    (folder / "copy").hardlink_to(folder / "docs" / "chat.db")
    backend = WorkingFolder(folder, [folder / "docs" / "chat.db"])
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("it was opened"))
    for path in ("/copy", "/docs/chat.db"):
        with pytest.raises(FileRefused, match="database"):
            await backend.read((SCOPE,), path, max_bytes=math.inf)


async def test_changes_are_on_the_disk(folder: Path) -> None:
    """At once, and also those that somebody else made are seen."""
    async with opened(folder) as area:
        await area.create("/new/a.txt", "one")
        assert (folder / "new" / "a.txt").read_text() == "one"
        await area.replace("/new/a.txt", "one", "two")
        await area.flush()
        assert (folder / "new" / "a.txt").read_text() == "two"
        (folder / "new" / "a.txt").write_text("three, from outside")
        (folder / "b.txt").write_text("b")
        await area.refresh()
        assert (await area.read("/new/a.txt")).text == "three, from outside"
        await area.move("/new/a.txt", "/b/c.txt")
        await area.delete("/b.txt")
    assert not (folder / "new").exists()
    assert not (folder / "b.txt").exists()
    assert (folder / "b" / "c.txt").read_text() == "three, from outside"


async def test_a_huge_folder_is_known_in_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest files first, and no walk without an end."""
    monkeypatch.setattr(_folder, "MAX_FILES", 1)
    async with opened(folder) as area:
        assert ["/README.md"] == [info.path for info in await area.list()]
    monkeypatch.setattr(_folder, "MAX_FILES", 10)
    monkeypatch.setattr(_folder, "MAX_FOLDERS", 1)
    async with opened(folder) as area:
        assert ["/README.md"] == [info.path for info in await area.list()]


async def test_a_folder_with_more_than_an_agent_may_fill_takes_files(folder: Path) -> None:
    """Files that are there already take no room."""
    with (folder / "film.bin").open("wb") as file:
        file.truncate(10**9)
    async with opened(folder) as area:
        await area.create("/a.txt", "x")

    assert (folder / "a.txt").read_text() == "x"
