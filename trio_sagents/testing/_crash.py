"""A process that dies, as its store sees it: after one write, nothing that it does counts; its next life begins with what is stored."""

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, NoReturn, TypeVar

import trio

from trio_sagents import MemoryStore
from trio_sagents.data.json import Opaque
from trio_sagents.data.records import Commit, Conversation, ConversationPage, HistoryPage, OlderPage, Recalled, WaitingPage
from trio_sagents.data.scopes import Scope
from trio_sagents.testing._plan import CrashAt

T = TypeVar("T")


class CrashStore:
    """A store on a disk that freezes: the writes of each life are counted, and the planned write is the last write of that life.

    A frozen disk answers nobody: the calls of the dying life wait until they are cancelled, so no `finally:` block can repair
    what the crash left. Loads raise the epoch, so they are writes, too. Between two lives, and after the last life, anybody may look
    at the disk.

        disk = CrashStore([CrashAt(3)])
        while await disk.live(program):   # the first life dies at its third write, the second life ends by itself
            pass

    Args:
        crashes: where each life dies, in order; all further lives end by themselves.
        inner: what is stored in the beginning; by default nothing.

    Cancellation: as for `MemoryStore`.
    """

    checks_owner: Literal[True] = True

    def __init__(self, crashes: Sequence[CrashAt] = (), inner: MemoryStore | None = None) -> None:
        self.inner: Opaque = MemoryStore() if inner is None else inner
        """The disk itself, to look at it between two lives."""
        self.crashes = crashes
        self.writes: list[int] = []
        """How many writes each life has begun."""
        self.written: list[Commit | str] = []
        """What is on the disk, in order, over all lives: commits, and the id of each conversation that was deleted."""
        self.told: list[Opaque] = []
        """What was given to `tell` while the process lived."""
        self.is_frozen: bool = False
        """Whether the last life died."""
        self._is_living = False
        self._scope = trio.CancelScope()

    async def live(self, life: Callable[[], Awaitable[object]]) -> bool:
        """Run one life of the process on this disk.

        Args:
            life: the program; it is cancelled when the disk freezes.

        Returns:
            Whether the life died. What a dying life raises is dropped; what a life raises that ends by itself is raised unchanged.

        Cancellation: the life is cancelled.
        """
        self.writes.append(0)
        self.is_frozen = False
        self._is_living = True
        try:
            with trio.CancelScope() as self._scope:
                await life()
        except Exception:
            if not self.is_frozen:
                raise
        finally:
            self._is_living = False
        return self.is_frozen

    def tell(self, what: Opaque) -> None:
        """Note what somebody outside of the process has been told. A dead process tells nobody anything."""
        if not self.is_frozen:
            self.told.append(what)

    async def _write(self, effect: Callable[[], Awaitable[T]]) -> T:
        await self._wait_if_frozen()
        if not self._is_living:
            return await effect()
        self.writes[-1] += 1
        life = len(self.writes) - 1
        crash = self.crashes[life] if life < len(self.crashes) else None
        if crash is None or crash.n != self.writes[-1]:
            return await effect()
        if crash.how == "after":
            # Cancellation: the last write is done; nobody is told of it.
            with trio.CancelScope(shield=True):
                await effect()
        self.is_frozen = True
        self._scope.cancel()
        return await _never()

    async def _wait_if_frozen(self) -> None:
        if self.is_frozen and self._is_living:
            await _never()

    async def load(self, scope: Scope, conversation_id: str, **inside: Opaque) -> Conversation | None:
        """Load, as `MemoryStore` does."""
        return await self._write(functools.partial(self.inner.load, scope, conversation_id, **inside))

    async def commit(self, scope: Scope, commit: Commit, **inside: Opaque) -> int:
        """Commit, as `MemoryStore` does."""

        async def effect() -> int:
            revision: int = await self.inner.commit(scope, commit, **inside)
            self.written.append(commit)
            return revision

        return await self._write(effect)

    async def delete(self, scope: Scope, conversation_id: str, **inside: Opaque) -> bool:
        """Delete, as `MemoryStore` does."""

        async def effect() -> bool:
            is_deleted: bool = await self.inner.delete(scope, conversation_id, **inside)
            if is_deleted:
                self.written.append(conversation_id)
            return is_deleted

        return await self._write(effect)

    async def history(self, scope: Scope, conversation_id: str, **inside: Opaque) -> HistoryPage:
        """Read, as `MemoryStore` does."""
        await self._wait_if_frozen()
        page: HistoryPage = await self.inner.history(scope, conversation_id, **inside)
        return page

    async def recall(self, scope: Scope, conversation_id: str, names: Sequence[str], **inside: Opaque) -> Mapping[str, Recalled]:
        """Read, as `MemoryStore` does."""
        await self._wait_if_frozen()
        found: Mapping[str, Recalled] = await self.inner.recall(scope, conversation_id, names, **inside)
        return found

    async def older_messages(self, scope: Scope, conversation_id: str, **inside: Opaque) -> OlderPage:
        """Read, as `MemoryStore` does."""
        await self._wait_if_frozen()
        page: OlderPage = await self.inner.older_messages(scope, conversation_id, **inside)
        return page

    async def conversations(self, scope: Scope, **inside: Opaque) -> ConversationPage:
        """Read, as `MemoryStore` does."""
        await self._wait_if_frozen()
        page: ConversationPage = await self.inner.conversations(scope, **inside)
        return page

    async def waiting(self, scope: Scope, **inside: Opaque) -> WaitingPage:
        """Read, as `MemoryStore` does."""
        await self._wait_if_frozen()
        page: WaitingPage = await self.inner.waiting(scope, **inside)
        return page

    async def unfinished(self, scope: Scope, **inside: Opaque) -> ConversationPage:
        """Read, as `MemoryStore` does."""
        await self._wait_if_frozen()
        page: ConversationPage = await self.inner.unfinished(scope, **inside)
        return page


async def _never() -> NoReturn:
    await trio.sleep_forever()
    raise AssertionError
