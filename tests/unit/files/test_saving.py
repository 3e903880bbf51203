"""When edits are saved, what happens if a save fails, and what closing leaves, in virtual time."""

import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.files import Broken, FaultyFiles
from trio_sagents.exceptions import PersistenceError
from trio_sagents.files import (
    FileArea,
    FileChange,
    FileMoved,
    FileNotStored,
    FileSaved,
    FileSaveFailed,
    FilesClosed,
    FilesConfig,
    FilesUnsaved,
    FileSystem,
    FileUpdated,
    Mount,
    UnsavedFile,
    open_files,
)
from trio_sagents.files._walk import TEMPORARY

TICK = 1 / 16
S = ("s",)


@asynccontextmanager
async def opened(backend: FaultyFiles, **settings: float) -> AsyncIterator[tuple[FileSystem, FileArea]]:
    async with open_files(FilesConfig(mounts=[Mount("/", backend)], **settings)) as files:
        yield files, files.area("s")


@pytest.fixture
def backend() -> FaultyFiles:
    return FaultyFiles()


async def saved_at(backend: FaultyFiles, content: str, path: str = "/a") -> float:
    """Wait until `content` is stored, and return when that was."""
    for _ in range(10_000):
        if backend.stored(path) == content:
            break
        await trio.sleep(TICK)
    assert content == backend.stored(path)
    return trio.current_time()


# --- when


async def test_create_when_it_returns(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """A new file is stored at once, and not written again."""
    async with opened(backend) as (_, area):
        await area.create("/a", "one")

        assert "one" == backend.stored("/a")
        await trio.sleep(1000)
        assert [] == backend.of("write")


async def test_edit_when_left_alone(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """An edit is saved after `debounce`, once, and a listing says whether it is."""
    async with opened(backend, debounce=5) as (_, area):
        await area.create("/a", "one")
        start = trio.current_time()
        await area.write("/a", "two")
        await trio.sleep(4.9)

        assert [False] == [info.is_saved for info in await area.list()]
        assert "one" == backend.stored("/a")
        assert 5 <= await saved_at(backend, "two") - start <= 5 + 2 * TICK
        assert [True] == [info.is_saved for info in await area.list()]
        await trio.sleep(1000)
        assert ["/a"] == backend.of("write")


async def test_edit_when_edited_again(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """Each edit postpones the save: there is one save, with the last content."""
    async with opened(backend, debounce=5, max_unsaved_period=100) as (_, area):
        await area.create("/a", "0")
        for number in range(1, 6):
            await trio.sleep(3)
            await area.write("/a", f"{number}")
        start = trio.current_time()

        assert 5 <= await saved_at(backend, "5") - start <= 5 + 2 * TICK
        assert ["/a"] == backend.of("write")


async def test_edit_when_never_left_alone(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """A file that is edited without end is saved every `max_unsaved_period`."""
    async with opened(backend, debounce=5, max_unsaved_period=30) as (_, area):
        await area.create("/a", "0")
        start = trio.current_time()
        saves = []
        for number in range(1, 301):
            await area.write("/a", f"{number}")
            await trio.sleep(0.5)
            if len(backend.of("write")) > len(saves):
                saves.append(trio.current_time() - start)

        assert [30, 60, 90, 120] == [int(at) // 10 * 10 for at in saves[:4]]


async def test_edit_when_it_is_the_same(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """An edit that changes nothing is not saved."""
    async with opened(backend) as (_, area):
        await area.create("/a", "one")
        async with area.changes() as changes:
            await area.write("/a", "one")
            await area.replace("/a", "one", "one")
            assert [] == list(changes._untaken)
    assert [] == backend.of("write")


async def test_edit_when_a_save_is_at_work(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """An edit while the backend writes is saved by a later write, at its own time."""
    async with opened(backend, debounce=5) as (_, area):
        await area.create("/a", "one")
        backend.faults.hanging["write"] = trio.Event()
        await area.write("/a", "two")
        await trio.sleep(6)
        await area.write("/a", "three")
        start = trio.current_time()
        backend.faults.hanging["write"].set()
        await wait_all_tasks_blocked()

        assert "two" == backend.stored("/a")
        assert [False] == [info.is_saved for info in await area.list()]
        assert 5 <= await saved_at(backend, "three") - start <= 5 + 2 * TICK


async def test_edit_when_debounce_is_zero(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """With no debounce an edit is saved as soon as can be."""
    async with opened(backend, debounce=0) as (_, area):
        await area.create("/a", "one")
        await area.write("/a", "two")
        start = trio.current_time()

        assert await saved_at(backend, "two") - start <= 2 * TICK


async def test_edit_when_debounce_is_endless(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """With an endless debounce edits are saved at a flush, and at the end."""
    async with opened(backend, debounce=float("inf"), max_unsaved_period=float("inf")) as (_, area):
        await area.create("/a", "one")
        await area.write("/a", "two")
        await trio.sleep(80_000)
        assert "one" == backend.stored("/a")
        await area.flush()
        assert "two" == backend.stored("/a")
        await area.write("/a", "three")
    assert "three" == backend.stored("/a")


async def test_flush_when_called(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """A flush saves the unsaved edits of its scope, and nothing is written again later."""
    async with opened(backend) as (files, area):
        for path in ("/a", "/b", "/c"):
            await area.create(path, "one")
        for path in ("/a", "/b"):
            await area.write(path, "two")
        await files.area("t").create("/a", "one")
        await files.area("t").write("/a", "two")
        await area.flush()

        assert ["/a", "/b"] == backend.of("write")
        assert "one" == backend.stored("/a", "t")
        await trio.sleep(1000)
        assert ["/a", "/b", "/a"] == backend.of("write")


async def test_flush_when_it_fails(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """A flush names what could not be saved; that is kept, and tried again."""
    async with opened(backend, retry_interval=1) as (_, area):
        for path in ("/a", "/b"):
            await area.create(path, "one")
            await area.write(path, "two")
        backend.faults.failing["write"] = 1
        with pytest.raises(FilesUnsaved) as caught:
            await area.flush()

        assert [UnsavedFile(S, "/a", "two", caught.value.files[0].error)] == list(caught.value.files)
        assert isinstance(caught.value.files[0].error, FileNotStored)
        assert isinstance(caught.value, PersistenceError)
        assert "two" == backend.stored("/b")
        await trio.sleep(1.2)
        assert "two" == backend.stored("/a")


async def test_flush_when_the_caller_is_cancelled(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """A flush that nobody waits for any more loses nothing."""
    async with opened(backend) as (_, area):
        for path in ("/a", "/b"):
            await area.create(path, "one")
            await area.write(path, "two")
        backend.faults.hanging["write"] = trio.Event()
        with trio.move_on_after(1) as scope:
            await area.flush()
        assert scope.cancelled_caught
        backend.faults.hanging["write"].set()
        await trio.sleep(10)

        assert ("two", "two") == (backend.stored("/a"), backend.stored("/b"))


# --- moves and deletes


async def test_move_when_an_edit_is_unsaved(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """A moved file takes its unsaved edit along: it is saved under its new path, when it was due, and the old path is never written."""
    async with opened(backend, debounce=5) as (_, area):
        await area.create("/a/b", "one")
        start = trio.current_time()
        await area.write("/a/b", "two")
        await trio.sleep(2)
        await area.move("/a", "/c")
        await area.move("/c/b", "/d")

        assert 5 <= await saved_at(backend, "two", "/d") - start <= 5 + 2 * TICK
        await trio.sleep(1000)
        assert ["/d"] == backend.of("write")
        assert {"/d": "two"} == backend._scopes[S]


async def test_move_when_a_save_waits_behind_it(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """A save that becomes due while the file is being moved writes the new path."""
    async with opened(backend, debounce=5) as (_, area):
        await area.create("/a", "one")
        await area.write("/a", "two")
        backend.faults.hanging["move"] = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(area.move, "/a", "/b")
            await trio.sleep(20)
            assert [] == backend.of("write")
            backend.faults.hanging["move"].set()
        await wait_all_tasks_blocked()

        assert {"/b": "two"} == backend._scopes[S]


async def test_move_when_a_failed_edit_is_unsaved(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """An edit that waits to be tried again goes along, too."""
    async with opened(backend, debounce=1, retry_interval=10) as (_, area):
        await area.create("/a", "one")
        backend.faults.failing["write"] = 1
        await area.write("/a", "two")
        await trio.sleep(2)
        await area.move("/a", "/b")
        await trio.sleep(20)

        assert {"/b": "two"} == backend._scopes[S]
        assert ["/a", "/b"] == backend.of("write")


async def test_delete_when_an_edit_is_unsaved(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """A deleted file is not written again. A new file at its path has nothing of the old one."""
    async with opened(backend, debounce=5) as (_, area):
        await area.create("/a", "one")
        await area.write("/a", "two")
        await area.delete("/a")
        await area.create("/a", "new")
        await trio.sleep(1000)

        assert "new" == backend.stored("/a")
        assert [] == backend.of("write")


async def test_delete_when_a_save_is_at_work(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """A delete waits for the write that is at work, so the file does not come back."""
    async with opened(backend, debounce=1) as (_, area):
        await area.create("/a", "one")
        backend.faults.hanging["write"] = trio.Event()
        await area.write("/a", "two")
        await trio.sleep(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(area.delete, "/a")
            await wait_all_tasks_blocked()
            assert [] == backend.of("delete")
            backend.faults.hanging["write"].set()
        assert backend.stored("/a") is None


# --- failures


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_save_when_it_fails(backend: FaultyFiles, autojump_clock: MockClock, late: bool) -> None:
    """A failed save is tried again, each time after twice the interval up to the most, until it succeeds; listeners are told."""
    async with opened(backend, debounce=1, retry_interval=1, max_retry_interval=4) as (_, area), area.changes() as changes:
        await area.create("/a", "one")
        (backend.faults.failing_late if late else backend.faults.failing)["write"] = 5
        start = trio.current_time()
        await area.write("/a", "two")
        told = [await anext(changes) for _ in range(2)]
        times = []
        while not isinstance(told[-1], FileSaved) or len(told) < 3:
            told.append(await anext(changes))
            times.append(trio.current_time() - start)

        expected: list[FileChange] = [FileUpdated("/a"), FileSaved("/a"), FileUpdated("/a")]
        expected += [FileSaveFailed("/a", number + 1, wait) for number, wait in enumerate((1, 2, 4, 4, 4))]
        assert [*expected, FileSaved("/a")] == told
        assert [0, 1, 2, 4, 8, 12, 16] == [int(at) for at in times]
        assert "two" == backend.stored("/a")


async def test_save_when_edited_between_the_attempts(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """An edit does not hurry a backend that fails; the next attempt writes the newest content."""
    async with opened(backend, debounce=1, retry_interval=10) as (_, area):
        await area.create("/a", "one")
        backend.faults.failing["write"] = 1
        await area.write("/a", "two")
        await trio.sleep(2)
        await area.write("/a", "three")
        await trio.sleep(8)
        assert ["/a"] == backend.of("write")
        await trio.sleep(2)
        assert ["/a"] * 2 == backend.of("write")
        assert "three" == backend.stored("/a")
        await area.write("/a", "four")  # and from now on at the old pace
        await trio.sleep(1.5)
        assert "four" == backend.stored("/a")


async def test_save_when_it_hangs(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """A backend that hangs in one scope delays no other scope, and no edit."""
    async with opened(backend, debounce=1) as (files, area):
        other = files.area("t")
        await area.create("/a", "one")
        await other.create("/a", "one")
        backend.faults.hanging["write"] = gate = trio.Event()
        await area.write("/a", "two")
        await trio.sleep(2)
        del backend.faults.hanging["write"]
        await other.write("/a", "two")
        await trio.sleep(2)

        assert ("one", "two") == (backend.stored("/a"), backend.stored("/a", "t"))
        with trio.fail_after(0.5):
            await area.write("/a", "three")
            assert "three" == (await area.read("/a")).text
        gate.set()


async def test_save_when_its_failures_are_logged(backend: FaultyFiles, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """The log names the file and the cause, and has nothing of its content."""
    async with opened(backend, debounce=1) as (_, area):
        await area.create("/a", "SECRET one")
        backend.faults.failing["write"] = 1
        await area.write("/a", "SECRET two")
        await trio.sleep(2)
        with contextlib.suppress(FilesUnsaved):
            await area.flush()

    assert "'/a'" in caplog.text
    assert "canary" in caplog.text
    assert "SECRET" not in caplog.text


# --- the end


async def test_close_when_edits_are_unsaved(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """Leaving the block saves all edits, of all scopes, without waiting for the debounce."""
    async with opened(backend) as (files, _):
        for name in "st":
            await files.area(name).create("/a", "one")
            await files.area(name).write("/a", f"two {name}")
        start = trio.current_time()

    assert ["two s", "two t"] == [backend.stored("/a", name) for name in "st"]
    assert trio.current_time() - start < 1


async def test_close_when_a_save_fails_at_first(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """The closing tries again, as long as `settle_timeout` allows."""
    async with opened(backend, settle_timeout=10, retry_interval=1) as (_, area):
        await area.create("/a", "one")
        await area.write("/a", "two")
        backend.faults.failing["write"] = 3
        start = trio.current_time()

    assert "two" == backend.stored("/a")
    assert 7 == round(trio.current_time() - start)


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_close_when_nothing_helps(
    backend: FaultyFiles, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """What could not be saved is never lost silently: an error names it and has it, the log names it, and the block ends in time."""
    start = 0.0
    with pytest.raises(FilesUnsaved) as caught:
        async with opened(backend, settle_timeout=10) as (_, area):
            await area.create("/a", "one")
            await area.create("/b", "one")
            await area.write("/a", "two")
            if how == "hangs":
                backend.faults.hanging["write"] = trio.Event()
            else:
                backend.faults.failing["write"] = 10_000
            start = trio.current_time()

    (file,) = caught.value.files
    assert (S, "/a", "two") == (file.scope, file.path, file.content)
    assert (type(None) if how == "hangs" else FileNotStored) is type(file.error)
    assert "'/a' of 's'" in str(caught.value)
    assert ["'/a' of 's'" in record.message for record in caplog.records if record.levelno == logging.ERROR] == [True]
    assert 10 == trio.current_time() - start


async def test_close_when_the_block_raised(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """What the block raised leaves as it is, after the saves."""
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with opened(backend) as (_, area):
            await area.create("/a", "one")
            await area.write("/a", "two")
            raise error

    assert error is caught.value
    assert "two" == backend.stored("/a")


async def test_close_when_the_block_raised_and_saving_fails(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """Where both go wrong, both are told."""
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="mine"), FilesUnsaved):
        async with opened(backend) as (_, area):
            await area.create("/a", "one")
            await area.write("/a", "two")
            backend.faults.failing["write"] = 10_000
            raise ValueError("mine")


async def test_close_when_cancelled(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """A cancelled block still saves, however long the backend takes within `settle_timeout`, and is cancelled as a whole afterwards."""
    ready = trio.Event()

    async def make_ready() -> None:
        await trio.sleep(2)
        ready.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_ready)
        with trio.CancelScope() as scope:
            async with opened(backend) as (_, area):
                await area.create("/a", "one")
                await area.write("/a", "two")
                backend.faults.hanging["write"] = ready
                scope.cancel()
                await trio.sleep(1)

    assert scope.cancelled_caught
    assert "two" == backend.stored("/a")


async def test_close_when_cancelled_and_saving_fails(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """Also a cancelled block tells what it could not save."""
    with pytest.raises(FilesUnsaved):
        with trio.CancelScope() as scope:
            async with opened(backend) as (_, area):
                await area.create("/a", "one")
                await area.write("/a", "two")
                backend.faults.hanging["write"] = trio.Event()
                scope.cancel()
                await trio.sleep(1)


async def test_close_when_the_closing_is_cancelled(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """Cancelling the closing does not cut it short."""
    with trio.move_on_after(3) as scope:
        async with opened(backend, retry_interval=1) as (_, area):
            await area.create("/a", "one")
            await area.write("/a", "two")
            backend.faults.failing["write"] = 3

    assert "two" == backend.stored("/a")
    assert scope.cancel_called


async def test_close_when_calls_are_at_work(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """A save from before the close is written. A caller who waits for a backend that hangs is told that the files are closed."""
    told: list[object] = []

    async def call(name: str) -> None:
        try:
            await area.create(f"/{name}", "")
        except FilesClosed:
            told.append(name)

    async with trio.open_nursery() as nursery:
        async with opened(backend) as (_, area):
            backend.faults.hanging["create"] = gate = trio.Event()
            nursery.start_soon(call, "a")
            await wait_all_tasks_blocked()
            nursery.start_soon(call, "b")
            await wait_all_tasks_blocked()
            nursery.start_soon(_set_after, 3, gate)
        assert {"/a": "", "/b": ""} == backend._scopes[S]
        async with opened(backend) as (_, area):
            backend.faults.hanging["create"] = trio.Event()
            nursery.start_soon(call, "c")
            await wait_all_tasks_blocked()
            nursery.start_soon(call, "d")
            await wait_all_tasks_blocked()

    assert ["c", "d"] == sorted(map(str, told))


async def _set_after(seconds: float, event: trio.Event) -> None:
    await trio.sleep(seconds)
    event.set()


async def test_close_when_an_edit_waits_for_a_content(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """An edit that had to wait until the files were closed is refused, not acknowledged and lost."""
    await backend.create(S, "/a", "one")
    told: list[type[Exception]] = []

    async def edit() -> None:
        try:
            await area.replace("/a", "one", "two")
        except FilesClosed as exc:
            told.append(type(exc))

    async with trio.open_nursery() as nursery:
        async with opened(backend) as (_, area):
            await area.list()
            backend.faults.hanging["read"] = gate = trio.Event()
            nursery.start_soon(edit)
            await wait_all_tasks_blocked()
            nursery.start_soon(_set_after, 3, gate)

    assert [FilesClosed] == told
    assert "one" == backend.stored("/a")


async def test_close_when_opened_again(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """Files outlive the block that opened them: the next block continues from what is stored."""
    async with opened(backend) as (_, area):
        await area.create("/a", "one")
        await area.write("/a", "two")
    async with opened(backend) as (_, area):
        assert "two" == (await area.read("/a")).text


# --- changes


async def test_changes_when_told(backend: FaultyFiles, autojump_clock: MockClock) -> None:
    """Each change is told once, in order, to those who listen to the scope, and the end ends the listening."""
    async with opened(backend) as (files, area):
        await area.create("/x/a", "one")
        await area.create("/x/b", "one")
        listening = area.changes()
        changes = await listening.__aenter__()
        elsewhere = files.changes("t")
        other = await elsewhere.__aenter__()
        await area.write("/x/a", "two")
        await area.move("/x", "/y")
    told = [change async for change in changes]
    assert [] == [change async for change in other]
    for listener in (listening, elsewhere):  # both outlive the files, so that they get the last saves
        await listener.__aexit__(None, None, None)

    assert [FileUpdated("/x/a"), FileMoved("/x/a", "/y/a"), FileMoved("/x/b", "/y/b"), FileSaved("/y/a")] == told


def test_names_when_temporary() -> None:
    """The temporary name of a write is a name that no file can have."""
    assert TEMPORARY.startswith("~")
    assert isinstance(Broken(), Exception)
