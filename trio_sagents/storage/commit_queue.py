"""The single order of each conversation's commits.

`submit` is synchronous, and first in, first out within a conversation; conversations do not wait for each other. What follows a
commit, in memory and to the outside, runs in the continuation, which the queue's own task calls. It does not run in the task of
the caller, because that task may be cancelled at any time. After a failed commit the commits that were submitted behind it fail
with it, because each builds on the one before.

This is not the group commit of SQLite (`persistence/_sqlite_group_commit.py`), which lets the commits of many conversations
share a transaction.
"""

import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Final, TypeVar

import attrs
import trio

from trio_sagents._trio.hosts import PlainFunction
from trio_sagents.data.json import Opaque
from trio_sagents.data.messages import Message
from trio_sagents.data.records import Check, Commit, Conversation, Saved
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import PersistenceError, SagentsError
from trio_sagents.storage.adapter import Asker, StoreAdapter

log: Final = logging.getLogger("trio_sagents")
T = TypeVar("T")
Continuation = Callable[[Saved | None, PersistenceError | None], None]


class StoreIsPlain(PersistenceError, TypeError):
    """A method of the host's store is not `async def`: nothing can be saved."""


def _nothing(_saved: Saved | None, _error: PersistenceError | None) -> None:
    """Stands for a continuation that was called."""


@attrs.define(eq=False)
class PendingCommit:
    """One submitted commit, and what follows it."""

    scope: Scope = attrs.field(repr=False)
    commit: Commit
    shown: Sequence[Message]
    _then: Continuation
    """Called once, synchronously, when the outcome is known: (what was saved, None) or (None, why not)."""
    error: PersistenceError | None = None
    _ended: trio.Event = attrs.field(factory=trio.Event)

    @property
    def has_ended(self) -> bool:
        """Whether the outcome is known."""
        return self._ended.is_set()

    def finish(self, saved: Saved | None, error: PersistenceError | None) -> None:
        """Record the outcome, and do what follows. No checkpoint from the store's answer to here."""
        self.error = error
        then, self._then = self._then, _nothing  # it holds whoever submitted this, and is called once
        try:
            then(saved, error)
        finally:
            self._ended.set()

    def give_up(self, error: PersistenceError) -> None:
        """Tell whoever waits that the outcome is unknown; what follows the store's answer is done when it comes."""
        if not self._ended.is_set():
            self.error = error
            self._ended.set()

    async def wait_ended(self) -> None:
        """Wait until the outcome is known, whatever it is."""
        await self._ended.wait()

    async def wait(self) -> None:
        """Wait until it is durable; raise the `PersistenceError` where it is not. Cancellation: the write goes on."""
        await self._ended.wait()
        if self.error is not None:
            raise self.error


@attrs.define(eq=False)
class CommitQueue:
    """A service: its tasks live in the services' nursery, so the last writes of ending agents land."""

    store: StoreAdapter
    nursery: trio.Nursery
    _queues: dict[str, deque[PendingCommit]] = attrs.field(factory=dict)
    # Invariant: a conversation is here exactly while a task works on its writes; the one at work is the first of its deque.
    _free: dict[str, trio.Event] = attrs.field(factory=dict)
    """Set when the queue of a conversation that somebody waits for is empty."""

    def submit(self, write: PendingCommit) -> PendingCommit:
        """Put a write behind the earlier ones of its conversation, and return it."""
        conversation_id = write.commit.conversation_id
        queue = self._queues.get(conversation_id)
        if queue is not None:
            queue.append(write)
            return write
        queue = self._queues[conversation_id] = deque([write])
        self.nursery.start_soon(self._work, conversation_id, queue, name="store writer")
        return write

    def __len__(self) -> int:
        return len(self._queues)

    async def read(self, reading: Coroutine[Opaque, Opaque, T]) -> T:
        """Wait for a read of the store; what a host's store raises becomes a `PersistenceError`."""
        try:
            return await reading
        except (SagentsError, ValueError, TypeError):
            raise
        except Exception as exc:  # the boundary to the host's store
            raise PersistenceError(f"reading failed: the store raised {type(exc).__name__}") from exc

    async def load(self, asker: Asker, conversation_id: str, agent_id: str, check: Check) -> Conversation | None:
        """Load, behind the conversation's pending writes. Cancellation: at most the epoch was raised."""
        await self._wait_free(conversation_id)
        return await self.store.load(asker, conversation_id, agent_id, check)

    async def delete(self, asker: Asker, conversation_id: str) -> bool:
        """Delete, behind the conversation's pending writes. Cancellation: deleted, or as before."""
        await self._wait_free(conversation_id)
        try:
            return await self.store.delete(asker, conversation_id)
        except (SagentsError, PlainFunction):
            raise
        except Exception as exc:  # the boundary to the host's store
            raise PersistenceError(f"deleting conversation {conversation_id!r} failed: the store raised {type(exc).__name__}") from exc

    def forget(self, conversation_id: str) -> None:
        """The agent of a conversation has ended: the store may drop what it keeps of it in memory, unless a commit is still at work."""
        if conversation_id not in self._queues:
            self.store.forget(conversation_id)

    async def _wait_free(self, conversation_id: str) -> None:
        while conversation_id in self._queues:
            await self._free.setdefault(conversation_id, trio.Event()).wait()

    async def _work(self, conversation_id: str, queue: deque[PendingCommit]) -> None:
        try:
            while queue:
                write = queue[0]
                saved, error = await self._save(write)
                queue.popleft()
                behind: tuple[PendingCommit, ...] = ()
                if error is not None:
                    behind = tuple(queue)
                    queue.clear()
                # Invariant: a continuation submits nothing, so what is submitted next builds on what is committed.
                write.finish(saved, error)
                for failed in behind:
                    failed.finish(None, error)
        except BaseException:
            # Cancellation: the services end, and the store has not answered in all the time that was given to settle.
            gone = PersistenceError(f"the store did not answer for conversation {conversation_id!r} before the sessions were closed")
            while queue:
                queue.popleft().finish(None, gone)
            raise
        finally:
            del self._queues[conversation_id]
            if (free := self._free.pop(conversation_id, None)) is not None:
                free.set()

    async def _save(self, write: PendingCommit) -> tuple[Saved | None, PersistenceError | None]:
        try:
            return await self.store.save(write.scope, write.commit, write.shown), None
        except PersistenceError as exc:
            return None, exc
        except PlainFunction as exc:
            return None, StoreIsPlain(str(exc))
        except Exception as exc:  # noqa: BLE001  # the boundary to the host's store: whatever it raises, the write did not succeed
            error = PersistenceError(
                f"saving conversation {write.commit.conversation_id!r} failed: the store raised {type(exc).__name__}; what was not saved "
                "is not acknowledged, post again once the store works"
            )
            error.__cause__ = exc
            return None, error
