"""The single order of each conversation's commits in this process.

Which of two processes may write is decided by the store: a load raises the epoch of the conversation, and a commit with an older epoch
or another revision than the stored one is refused with `Conflict`. So the process that loaded the conversation last is its writer.

`submit` is synchronous, and first in, first out within a conversation; conversations do not wait for each other. What follows a
commit, in memory and to the outside, runs in the continuation, which the queue's own task calls. It does not run in the task of
the caller, because that task may be cancelled at any time: then a message could be durable and never be answered. After a failed
commit the commits that were submitted behind it fail with it, because each builds on the one before.

    submitted --the earlier ones have ended--> at work --> durable, or failed
        `--an earlier one failed--> failed

This is not the group commit of SQLite (`persistence/_sqlite_group_commit.py`), which lets the commits of many conversations
share a transaction.
"""

import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeVar

import attrs
import trio

from trio_sagents._trio.failures import log_failure, logged
from trio_sagents._trio.groups import split
from trio_sagents._trio.hosts import PlainFunction
from trio_sagents.data.json import Opaque
from trio_sagents.data.messages import Message
from trio_sagents.data.records import Check, Commit, Conversation, Saved
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import Conflict, PersistenceError, SagentsError
from trio_sagents.storage.adapter import Asker, StoreAdapter

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
    """The messages that are new in the transcript, oldest first."""
    _then: Continuation
    """Called once, synchronously, when the outcome is known: (what was saved, None), or (None, the error)."""
    error: PersistenceError | None = None
    _ended: trio.Event = attrs.field(factory=trio.Event)

    @property
    def has_ended(self) -> bool:
        """Whether the outcome is known, or was given up."""
        return self._ended.is_set()

    def finish(self, saved: Saved | None, error: PersistenceError | None) -> None:
        """Record the outcome, and call the continuation. There is no checkpoint between the store's answer and this call."""
        self.error = error
        then, self._then = self._then, _nothing  # it holds whoever submitted this commit, and is called once
        try:
            then(saved, error)
        finally:
            self._ended.set()

    def give_up(self, error: PersistenceError) -> None:
        """Tell whoever waits that the outcome is unknown. The continuation is still called when the store answers."""
        if not self._ended.is_set():
            self.error = error
            self._ended.set()

    async def wait_ended(self) -> None:
        """Wait until the outcome is known, or given up. Cancellation: the commit continues."""
        await self._ended.wait()

    async def wait(self) -> None:
        """Wait until the commit is durable; raise the `PersistenceError` if it failed. Cancellation: the commit continues."""
        await self._ended.wait()
        if self.error is not None:
            raise self.error


@attrs.define(eq=False)
class CommitQueue:
    """A service: its tasks live in the services' nursery, so that the last commits of ending agents are made."""

    store: StoreAdapter
    nursery: trio.Nursery
    _queues: dict[str, deque[PendingCommit]] = attrs.field(factory=dict)
    # Invariant: a conversation is here exactly while a task works on its commits; the commit at work is the first of its deque.
    _free: dict[str, trio.Event] = attrs.field(factory=dict)
    """By conversation: set when its queue is empty. Only for conversations that somebody waits for."""

    def submit(self, pending: PendingCommit) -> PendingCommit:
        """Put a commit behind the earlier ones of its conversation, and return it."""
        conversation_id = pending.commit.conversation_id
        queue = self._queues.get(conversation_id)
        if queue is not None:
            queue.append(pending)
            return pending
        queue = self._queues[conversation_id] = deque([pending])
        self.nursery.start_soon(self._work, conversation_id, queue, name="commit queue")
        return pending

    def __len__(self) -> int:
        """Return how many conversations have commits that have not ended."""
        return len(self._queues)

    async def read(self, reading: Coroutine[Opaque, Opaque, T]) -> T:
        """Wait for a read of the store, as long as the caller does.

        Raises:
            PersistenceError: the host's store raised anything else than the errors below.
            SagentsError, ValueError, TypeError: as the store raised it; the latter two are about the caller's arguments.

        Cancellation: nothing is changed.
        """
        try:
            return await reading
        except (SagentsError, ValueError, TypeError):
            raise
        except Exception as exc:  # the boundary to the host's store
            failed = self._named(PersistenceError(f"could not read from the store: it raised {type(exc).__name__}"))
            raise logged(failed, exc, "could not read from the store %s", self.store.name) from exc

    async def load(self, asker: Asker, conversation_id: str, agent_id: str, check: Check) -> Conversation | None:
        """Load, behind the conversation's pending commits. Cancellation: at most the epoch was raised."""
        await self._wait_free(conversation_id)
        return await self.store.load(asker, conversation_id, agent_id, check)

    async def delete(self, asker: Asker, conversation_id: str) -> bool:
        """Delete, behind the conversation's pending commits. Cancellation: deleted, or as before."""
        await self._wait_free(conversation_id)
        try:
            return await self.store.delete(asker, conversation_id)
        except (SagentsError, PlainFunction):
            raise
        except Exception as exc:  # the boundary to the host's store
            failed = self._named(
                PersistenceError(f"could not delete conversation {conversation_id!r}: the store raised {type(exc).__name__}")
            )
            raise logged(failed, exc, "the store %s could not delete conversation %r", self.store.name, conversation_id) from exc

    def forget(self, conversation_id: str) -> None:
        """Let the store drop what it keeps in memory of a conversation whose agent has ended, unless a commit of it is at work."""
        if conversation_id not in self._queues:
            self.store.forget(conversation_id)

    async def _wait_free(self, conversation_id: str) -> None:
        while conversation_id in self._queues:
            await self._free.setdefault(conversation_id, trio.Event()).wait()

    async def _work(self, conversation_id: str, queue: deque[PendingCommit]) -> None:
        try:
            while queue:
                pending = queue[0]
                saved, error = await self._save(pending)
                queue.popleft()
                behind: tuple[PendingCommit, ...] = ()
                if error is not None:
                    behind = tuple(queue)
                    queue.clear()
                # Invariant: the continuation of a failed commit submits nothing: what is submitted next builds on what is committed.
                pending.finish(saved, error)
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

    async def _save(self, pending: PendingCommit) -> tuple[Saved | None, PersistenceError | None]:
        conversation_id = pending.commit.conversation_id
        try:
            return await self.store.save(pending.scope, pending.commit, pending.shown), None
        except Conflict as exc:
            return None, self._named(exc)  # the agent is fenced off: nothing of the store's has failed
        except PersistenceError as exc:
            self._log(exc, pending.commit)
            return None, self._named(exc)
        except PlainFunction as exc:
            plain = StoreIsPlain(str(exc))
            self._log(plain, pending.commit)
            return None, self._named(plain)
        except BaseException as exc:  # noqa: ASYNC103, BLE001  # the boundary to the host's store: whatever it raises, the commit has failed
            raised = exc
        contained, onward = split(raised)
        if onward is not None:
            if contained is not None:  # beside a cancellation, in a group: it is not to end the other conversations
                log_failure(logging.ERROR, contained, "the store failed for conversation %r while it was closed", conversation_id)
            raise onward
        error = PersistenceError(
            f"could not save conversation {conversation_id!r}: the store raised {type(raised).__name__}; nothing of this was "
            "acknowledged, post again once the store works"
        )
        error.__cause__ = raised
        self._log(raised, pending.commit)
        error.is_logged = True
        return None, self._named(error)

    def _named(self, error: PersistenceError) -> PersistenceError:
        """Return the error, which says from now on which store has failed."""
        error.source = error.source or f"store {self.store.name}"
        return error

    def _log(self, error: BaseException, commit: Commit) -> None:
        message = "the store %s could not save conversation %r (%s, revision %d)"
        log_failure(logging.ERROR, error, message, self.store.name, commit.conversation_id, commit.lifecycle, commit.revision)
