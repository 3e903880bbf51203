"""The single order of each conversation's commits: what a host's store raises, whatever it is, ends no other conversation."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trio_sagents.data.records import Commit, Saved
from trio_sagents.exceptions import PersistenceError
from trio_sagents.storage import CommitQueue, PendingCommit


@attrs.define(eq=False)
class Store:
    """A store that does as it is told with the commits of "bad"."""

    does: Callable[[], Any]
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
