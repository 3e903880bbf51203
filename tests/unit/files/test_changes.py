"""Listening to changes: order, slow listeners, and listeners that go."""

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_sagents.files import FileChange, FileChangesLost, FilesConfig, FileUpdated, open_files
from trio_sagents.files._changes import FileChanges, Publisher

S, T = ("s",), ("t",)


def updated(*numbers: int) -> list[FileChange]:
    return [FileUpdated(f"/{number}") for number in numbers]


async def take(changes: FileChanges) -> list[FileChange]:
    """Return all that is there now."""
    return [await anext(changes) for _ in range(len(changes._untaken))]


async def test_listener_when_slow() -> None:
    """A slow listener gets the first changes, then how many were lost, then those after it made room; nobody waits for it."""
    publisher = Publisher(2)
    with publisher.listen(S) as changes:
        for number in range(5):
            publisher.publish(S, FileUpdated(f"/{number}"))
        first = await anext(changes)
        for number in range(5, 8):
            publisher.publish(S, FileUpdated(f"/{number}"))

        assert updated(0) == [first]
        assert [*updated(1), FileChangesLost(3), *updated(5), FileChangesLost(2)] == await take(changes)
        publisher.publish(S, FileUpdated("/8"))
        assert updated(8) == await take(changes)


def test_listener_when_it_never_reads() -> None:
    """The memory for a listener is bounded, whatever happens."""
    publisher = Publisher(3)
    with publisher.listen(S) as changes:
        for number in range(1000):
            publisher.publish(S, FileUpdated(f"/{number}"))

        assert 4 == len(changes._untaken)
        assert FileChangesLost(997) == changes._untaken[-1]


async def test_listener_when_others_listen() -> None:
    """Each listener has its own position, and hears only of its own scope."""
    publisher = Publisher(9)
    with publisher.listen(S) as first, publisher.listen(S) as second, publisher.listen(T) as third:
        publisher.publish(S, FileUpdated("/1"))

        assert [updated(1), updated(1), []] == [await take(listener) for listener in (first, second, third)]
    assert {} == publisher._listeners
    publisher.publish(S, FileUpdated("/2"))


async def test_listener_when_it_waits(autojump_clock: object) -> None:
    """A waiting listener is woken; a cancelled listener has taken nothing."""
    publisher = Publisher(9)
    told: list[FileChange] = []

    async def listen() -> None:
        told.append(await anext(changes))

    with publisher.listen(S) as changes:
        with trio.move_on_after(1):
            await anext(changes)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await wait_all_tasks_blocked()
            publisher.publish(S, FileUpdated("/1"))
        with trio.CancelScope() as scope:
            publisher.publish(S, FileUpdated("/2"))
            scope.cancel()
            await anext(changes)

        assert updated(1) == told
        assert updated(2) == await take(changes)


async def test_listener_when_called() -> None:
    """Taking a change is a checkpoint, whether there is one or an end."""
    publisher = Publisher(9)
    with publisher.listen(S) as changes:
        publisher.publish(S, FileUpdated("/1"))
        with assert_checkpoints():
            await anext(changes)
        publisher.close()
        for _ in range(2):
            with assert_checkpoints(), pytest.raises(StopAsyncIteration):
                await anext(changes)
    with publisher.listen(S) as late, pytest.raises(StopAsyncIteration):
        await anext(late)


async def test_changes_when_there_are_too_many(autojump_clock: object) -> None:
    """The setting bounds the memory for a listener of a scope."""
    async with open_files(FilesConfig(max_changes=2)) as files:
        area = files.area("s")
        with assert_checkpoints():
            async with area.changes() as changes:
                for number in range(3):
                    await area.create(f"/{number}", "")
                told = await take(changes)

    assert FileChangesLost(4) == told[-1]
    assert repr(changes).startswith("<FileChanges")


async def test_changes_when_the_scope_is_wrong() -> None:
    """An invalid scope is refused."""
    async with open_files() as files:
        with pytest.raises(TypeError, match="scope"):
            async with files.changes(None):
                pass
