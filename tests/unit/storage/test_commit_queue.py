"""The single order of each conversation's commits; whatever a host's store raises, no other conversation ends."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trio_sagents.data.records import Commit, Conversation, Saved
from trio_sagents.exceptions import Conflict, PersistenceError
from trio_sagents.storage import Asker, CommitQueue, PendingCommit


@attrs.define(eq=False)
class Store:
    """A store that does as it is told with the commits of "bad"."""

    does: Callable[[], Any]
    name: str = "Store"
    saved: list[str] = attrs.field(factory=list)

    async def save(self, scope: Any, commit: Commit, shown: Any) -> Saved:
        await trio.lowlevel.checkpoint()
        if commit.conversation_id == "bad":
            await self.does()
        self.saved.append(commit.conversation_id)
        return Saved()


def pending(conversation_id: str, heard: list[Any]) -> PendingCommit:
    commit = Commit(conversation_id=conversation_id, agent_id="a", owner=None, epoch=1, revision=1, lifecycle="on_step")
    return PendingCommit(None, commit, (), lambda saved, error: heard.append((conversation_id, error)))


class Strange(BaseException):
    """An error that is not an `Exception`."""


@pytest.mark.parametrize(
    "error",
    [
        OSError("down"),
        ExceptionGroup("some", [OSError("down")]),
        asyncio.CancelledError(),
        Strange(),
        BaseExceptionGroup("some", [Strange(), OSError("down")]),
    ],
    ids=repr,
)
async def test_save_when_the_store_raises(error: BaseException) -> None:
    """Whatever a host's store raises fails the commit of that conversation, with the error as the cause, and nothing else."""

    async def does() -> None:
        raise error

    heard: list[Any] = []
    async with trio.open_nursery() as nursery:
        queue = CommitQueue(Store(does), nursery)  # type: ignore[arg-type]  # a fake
        both = [queue.submit(pending(name, heard)) for name in ("bad", "good")]
        with pytest.raises(PersistenceError, match="could not save conversation 'bad'") as caught:
            await both[0].wait()
        await both[1].wait()

    assert error is caught.value.__cause__
    assert {"bad", "good"} == {name for name, _ in heard}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
async def test_save_when_the_process_is_to_end(error: BaseException) -> None:
    """What is to end the process does so, also from a store; whoever waits for the commit is told."""

    async def does() -> None:
        raise error

    heard: list[Any] = []
    with pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            queue = CommitQueue(Store(does), nursery)  # type: ignore[arg-type]  # a fake
            queue.submit(pending("bad", heard))

    assert (error,) == caught.value.exceptions
    assert ["bad"] == [name for name, _ in heard]


async def test_save_when_the_store_fails_while_it_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """A store whose nursery fails during the cancellation does not raise into the other services: the failure is logged."""

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("while it was closed")

    async def does() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)

    heard: list[Any] = []
    with caplog.at_level(logging.ERROR, "trio_sagents"):
        async with trio.open_nursery() as nursery:
            queue = CommitQueue(Store(does), nursery)  # type: ignore[arg-type]  # a fake
            queue.submit(pending("bad", heard))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    ((name, error),) = heard
    assert ("bad", "the store did not answer for conversation 'bad' before the sessions were closed") == (name, str(error))
    assert ["the store failed for conversation 'bad' while it was closed"] == [record.getMessage() for record in caplog.records]


# ── the order


def commit_of(conversation_id: str = "c", revision: int = 1, **parts: Any) -> Commit:
    first = Commit(conversation_id=conversation_id, agent_id="a", owner=None, epoch=1, revision=revision, lifecycle="on_step")
    return attrs.evolve(first, **parts)


def conversation_of(conversation_id: str) -> Conversation:
    return Conversation(conversation_id=conversation_id, owner=None, epoch=1, revision=1, messages=[], queue=[], message_ids={}, state={})


class Asked:
    """A store that notes what it is asked, and does as it is told with the commits of "c" and of "d"."""

    name = "Asked"

    def __init__(self, *does: Any, d: Any = ()) -> None:
        self.does = {"c": list(does), "d": list(d)}
        self.asked: list[Any] = []

    async def save(self, scope: Any, commit: Commit, shown: Any) -> Saved:
        self.asked.append(commit.revision)
        does = self.does[commit.conversation_id]
        done = does.pop(0) if does else Saved()
        if isinstance(done, trio.Event):
            await done.wait()
            return Saved()
        await trio.lowlevel.checkpoint()
        if isinstance(done, BaseException):
            raise done
        return done

    async def load(self, asker: Any, conversation_id: str, agent_id: str, check: Any) -> Conversation | None:
        self.asked.append("load")
        await trio.lowlevel.checkpoint()
        return None

    async def delete(self, asker: Any, conversation_id: str) -> bool:
        self.asked.append("delete")
        await trio.lowlevel.checkpoint()
        if self.does[conversation_id]:
            raise self.does[conversation_id].pop(0)
        return True

    def forget(self, conversation_id: str) -> None:
        self.asked.append("forget")


def numbered(log: list[Any], revision: int, conversation_id: str = "c") -> PendingCommit:
    return PendingCommit(
        None, commit_of(conversation_id, revision), (), lambda saved, error: log.append((revision, saved is not None, error))
    )


async def test_submit_when_a_commit_fails() -> None:
    """Commits behind a failed one fail with its error and are not tried; later ones are tried, and so are those of other conversations."""
    store, log = Asked(error := Conflict("c", expected=(1, 1), found=None)), []
    async with trio.open_nursery() as nursery:
        queue = CommitQueue(store, nursery)  # type: ignore[arg-type]  # a fake
        commits = [queue.submit(numbered(log, revision)) for revision in (1, 2, 3)]
        other = queue.submit(numbered(log, 7, "d"))
        assert 2 == len(queue)
        for commit in commits:
            with pytest.raises(Conflict):
                await commit.wait()
            assert commit.has_ended
        await other.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert 0 == len(queue)
        await queue.submit(numbered(log, 4)).wait()

    assert [1, 4] == [number for number in store.asked if number != 7]
    assert [(1, False, error), (2, False, error), (3, False, error), (4, True, None)] == [entry for entry in log if entry[0] != 7]


async def test_load_when_commits_are_pending() -> None:
    """A load and a deletion wait for all pending commits of their conversation, and of no other; forgetting waits for nothing."""
    gate, other = trio.Event(), trio.Event()
    store, log = Asked(gate, d=[other]), []
    async with trio.open_nursery() as nursery:
        queue = CommitQueue(store, nursery)  # type: ignore[arg-type]  # a fake
        queue.submit(numbered(log, 1))
        queue.submit(numbered(log, 9, "d"))
        queue.submit(numbered(log, 2))
        nursery.start_soon(queue.load, None, "c", "a", lambda _: None)
        nursery.start_soon(queue.delete, None, "c")
        await trio.testing.wait_all_tasks_blocked()
        queue.forget("c")
        queue.forget("e")
        assert ({1, 9}, "forget") == (set(store.asked[:2]), store.asked[2])
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert 2 == store.asked[3]
        assert {"load", "delete"} == set(store.asked[4:])
        other.set()
    assert [1, 2, 9] == [number for number, *_ in log]


async def test_submit_when_the_queue_is_ended_in_the_middle() -> None:
    """Whoever waits for a commit that the store did not answer in time, or for one behind it, learns that; then the queue is empty."""
    store, log = Asked(trio.Event()), []
    async with trio.open_nursery() as nursery:
        queue = CommitQueue(store, nursery)  # type: ignore[arg-type]  # a fake
        commits = [queue.submit(numbered(log, revision)) for revision in (1, 2)]
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert [1] == store.asked
    assert [(1, False), (2, False)] == [(number, saved) for number, saved, _ in log]
    assert all("before the sessions were closed" in str(commit.error) for commit in commits)
    assert 0 == len(queue)


async def test_pending_commit_when_it_was_given_up() -> None:
    """Whoever waits is told once that the outcome is unknown; the continuation is called once, when the store answers."""
    log: list[Any] = []
    commit = numbered(log, 1)
    commit.give_up(first := PersistenceError("nobody knows"))
    commit.give_up(PersistenceError("too late"))
    with pytest.raises(PersistenceError) as caught:
        await commit.wait()
    assert (first, []) == (caught.value, log)
    commit.finish(Saved(), None)
    commit.finish(Saved(), None)

    assert [(1, True, None)] == log
    assert commit.error is None
    commit.give_up(first)
    await commit.wait_ended()
    await commit.wait()


@pytest.mark.parametrize("error", [PersistenceError("ours"), OSError("the host's")])
async def test_read_and_delete_when_the_store_fails(error: Exception) -> None:
    """What the library raises is passed on as it is; the error of a host's store is named, with its cause."""
    store = Asked(error)

    async def reading() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    async with trio.open_nursery() as nursery:
        queue = CommitQueue(store, nursery)  # type: ignore[arg-type]  # a fake
        for call in (queue.read(reading()), queue.delete(Asker(None), "c")):
            with pytest.raises(PersistenceError) as caught:
                await call
            if isinstance(error, PersistenceError):
                assert error is caught.value
            else:
                assert error is caught.value.__cause__
                assert "OSError" in str(caught.value)


async def test_submit_when_the_store_raises_an_error_of_its_own() -> None:
    """Whatever a host's store raises, the commit has failed; the cause is kept."""
    store, log = Asked(error := OSError("the host's")), []
    async with trio.open_nursery() as nursery:
        queue = CommitQueue(store, nursery)  # type: ignore[arg-type]  # a fake
        with pytest.raises(PersistenceError, match="OSError") as caught:
            await queue.submit(numbered(log, 1)).wait()

    assert error is caught.value.__cause__


async def test_load_when_nothing_is_pending() -> None:
    """A load is handed on with the arguments that it was called with."""
    asked: list[Any] = []

    class Loading(Asked):
        async def load(self, *args: Any) -> Conversation | None:
            asked.extend(args)
            await trio.lowlevel.checkpoint()
            return conversation_of("c")

    asker, check = Asker(None), asked.append
    async with trio.open_nursery() as nursery:
        queue = CommitQueue(Loading(), nursery)  # type: ignore[arg-type]  # a fake
        assert conversation_of("c") == await queue.load(asker, "c", "agent", check)

    assert [asker, "c", "agent", check] == asked
