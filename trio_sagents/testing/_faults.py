"""Dependencies that fail as planned: the n-th call of a run goes wrong before or after its effect, or never returns."""

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeAlias, TypeVar, cast

import attrs
import trio

from trio_sagents.agent import Model
from trio_sagents.data.json import Opaque
from trio_sagents.data.records import Commit, Conversation, ConversationPage, HistoryPage, OlderPage, Owner, Recalled, WaitingPage
from trio_sagents.data.requests import ModelChunk, ModelRequest
from trio_sagents.data.scopes import Scope
from trio_sagents.storage.ports import (
    ConversationStore,
    OpenableStore,
    OwnedStore,
    OwnerLookup,
    UnfinishedLookup,
    WaitingLookup,
    WindowedStore,
)
from trio_sagents.supervisor._leases import Leases
from trio_sagents.testing._habits import Habit, check_habits, with_habits
from trio_sagents.testing._plan import FaultAt

T = TypeVar("T")
_Unfinished: TypeAlias = Callable[..., Awaitable[ConversationPage]]  # type: ignore[explicit-any] # likewise
_Waiting: TypeAlias = Callable[..., Awaitable[WaitingPage]]  # type: ignore[explicit-any] # the keywords are those of the store behind
SLOW: Final = 30.0
"""How many seconds a slow call takes."""


class InjectedFault(OSError):
    """What a call raises that goes wrong as planned."""


@attrs.define(eq=False)
class Faults:
    """Counts the calls of everything that a program depends on, and lets the planned calls go wrong.

    `Simulation.faults` is made from the plan. A program gives it to `FaultyStore`, `FaultyModel` and `faulty_tool`, or passes its
    own calls through `call`.
    """

    planned: Sequence[FaultAt] = ()
    latency: float = 0.0
    """Seconds that each call takes before its effect; 0 gives other tasks a turn."""
    calls: list[str] = attrs.field(factory=list)
    """The names of the calls, in order; the n-th call is `calls[n - 1]`."""
    struck: list[str] = attrs.field(factory=list)
    """The calls that went wrong."""
    is_over: bool = False
    """Whether nothing goes wrong any more, and nothing is counted. Set this when a program begins to check whether it recovers."""

    async def call(self, name: str, effect: Callable[[], Awaitable[T]]) -> T:
        """Call `effect` once, or not at all, as planned for this call.

        Args:
            name: what is called, for `calls`.
            effect: an async function without arguments.

        Raises:
            InjectedFault: as planned. What `effect` raises is raised unchanged.

        Cancellation: either nothing was done, or whatever `effect` leaves.
        """
        if self.is_over:
            await trio.sleep(self.latency)
            return await effect()
        self.calls.append(name)
        number = len(self.calls)
        how = next((fault.how for fault in self.planned if fault.n == number), None) if self.planned else None
        if how is not None:
            self.struck.append(f"{name} ({number}:{how})")
        await trio.sleep(self.latency + (SLOW if how == "slow" else 0.0))
        if how == "hang":
            await trio.sleep_forever()
        if how == "before":
            raise InjectedFault(f"call {number}, {name}: it failed, and nothing was done")
        if how == "group":
            raise ExceptionGroup(f"call {number}, {name}", [InjectedFault("it failed, and nothing was done"), InjectedFault("twice")])
        result = await effect()
        if how == "after":
            raise InjectedFault(f"call {number}, {name}: it was done, and its answer was lost")
        return cast("T", object()) if how == "wrong" else result


class FaultyStore:
    """A `ConversationStore` whose calls go through `Faults`, in front of any other store.

    It compares owners, and has to be opened, if the store behind it does so. Each method is that of the store behind it.

    Args:
        faults: decides about each call, "store.load" and so on.
        inner: the store behind it.

    Cancellation: as for the store behind it.
    """

    def __init__(self, faults: Faults, inner: ConversationStore) -> None:
        self.faults = faults
        self.inner = inner
        self.written: list[Commit | str] = []
        """What had its effect, in order: commits, and the id of each conversation that was deleted."""
        # These are set only if the store behind it has them, because the library asks whether they are there.
        if isinstance(inner, OwnedStore):
            self.checks_owner: bool = True
        if isinstance(inner, OwnerLookup):
            self.get_owner: Callable[[Scope, str], Awaitable[Owner]] = self._get_owner
        if isinstance(inner, WaitingLookup):
            self.waiting: _Waiting = self._waiting
        if isinstance(inner, UnfinishedLookup):
            self.unfinished: _Unfinished = self._unfinished
        if isinstance(inner, WindowedStore):
            self.recall: Callable[..., Awaitable[Mapping[str, Recalled]]] = self._recall  # type: ignore[explicit-any]  # as of the store
            self.older_messages: Callable[..., Awaitable[OlderPage]] = self._older_messages  # type: ignore[explicit-any]  # as of the store
        if isinstance(inner, OpenableStore):
            self.open: Callable[[], AbstractAsyncContextManager[None]] = inner.open

    async def load(self, scope: Scope, conversation_id: str, **inside: Opaque) -> Conversation | None:
        """Load, or fail."""
        return await self.faults.call("store.load", functools.partial(self._inner.load, scope, conversation_id, **inside))

    async def commit(self, scope: Scope, commit: Commit, **inside: Opaque) -> int:
        """Commit, or fail."""

        async def effect() -> int:
            revision: int = await self._inner.commit(scope, commit, **inside)
            self.written.append(commit)
            return revision

        return await self.faults.call("store.commit", effect)

    async def history(self, scope: Scope, conversation_id: str, **inside: Opaque) -> HistoryPage:
        """Read, or fail."""
        return await self.faults.call("store.history", functools.partial(self._inner.history, scope, conversation_id, **inside))

    async def conversations(self, scope: Scope, **inside: Opaque) -> ConversationPage:
        """Read, or fail."""
        return await self.faults.call("store.conversations", functools.partial(self._inner.conversations, scope, **inside))

    async def delete(self, scope: Scope, conversation_id: str, **inside: Opaque) -> bool:
        """Delete, or fail."""

        async def effect() -> bool:
            is_deleted: bool = await self._inner.delete(scope, conversation_id, **inside)
            if is_deleted:
                self.written.append(conversation_id)
            return is_deleted

        return await self.faults.call("store.delete", effect)

    async def _waiting(self, scope: Scope, **inside: Opaque) -> WaitingPage:
        return await self.faults.call("store.waiting", functools.partial(self._inner.waiting, scope, **inside))

    async def _unfinished(self, scope: Scope, **inside: Opaque) -> ConversationPage:
        return await self.faults.call("store.unfinished", functools.partial(self._inner.unfinished, scope, **inside))

    async def _recall(self, scope: Scope, conversation_id: str, names: Sequence[str], **inside: Opaque) -> Mapping[str, Recalled]:
        return await self.faults.call("store.recall", functools.partial(self._inner.recall, scope, conversation_id, names, **inside))

    async def _older_messages(self, scope: Scope, conversation_id: str, **inside: Opaque) -> OlderPage:
        return await self.faults.call(
            "store.older_messages", functools.partial(self._inner.older_messages, scope, conversation_id, **inside)
        )

    async def _get_owner(self, scope: Scope, conversation_id: str) -> Owner:
        return await self.faults.call("store.get_owner", functools.partial(self._inner.get_owner, scope, conversation_id))

    @property
    def _inner(self) -> Opaque:
        return self.inner  # it takes `owner` and `check` if the library passes them


@attrs.define(eq=False)
class FaultyLeases:
    """`Leases` whose calls go through `Faults`: "leases.acquire", "leases.renew", "leases.release"; in front of any other leases.

    Cancellation: as for the leases behind it.
    """

    faults: Faults
    inner: Leases

    async def acquire(self, conversation_id: str, holder: str, ttl: float) -> float | None:
        """Acquire, or fail."""
        return await self.faults.call("leases.acquire", functools.partial(self.inner.acquire, conversation_id, holder, ttl))

    async def renew(self, conversation_ids: Sequence[str], holder: str, ttl: float) -> Collection[str]:
        """Renew, or fail."""
        return await self.faults.call("leases.renew", functools.partial(self.inner.renew, conversation_ids, holder, ttl))

    async def release(self, conversation_id: str, holder: str) -> None:
        """Release, or fail."""
        await self.faults.call("leases.release", functools.partial(self.inner.release, conversation_id, holder))


@attrs.define(eq=False)
class FaultyModel:
    """A `Model` whose calls go through `Faults`: "model.stream" opens an answer, and each "model.chunk" gives a piece of the answer.

    Bad habits are what a provider gets wrong in every answer; see `Habit`.
    """

    inner: Model
    faults: Faults = attrs.field(factory=Faults)
    habits: Sequence[Habit] = attrs.field(default=(), validator=lambda _model, _field, habits: check_habits(habits))

    @property
    def name(self) -> str:
        """The name of the model behind it."""
        return self.inner.name

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[ModelChunk]]:
        """Open an answer, or fail. Cancellation: as for the model behind it."""
        await self.faults.call("model.stream", trio.lowlevel.checkpoint)
        async with self.inner.stream(request) as chunks:
            yield with_habits(_FaultyChunks(chunks, self.faults), self.habits)


@attrs.define(eq=False)
class _FaultyChunks:
    _chunks: AsyncIterator[ModelChunk]
    _faults: Faults

    def __aiter__(self) -> AsyncIterator[ModelChunk]:
        return self

    async def __anext__(self) -> ModelChunk:
        return await self._faults.call("model.chunk", self._chunks.__anext__)


def faulty_tool(function: Callable[..., Opaque], faults: Faults) -> Callable[..., Awaitable[Opaque]]:  # type: ignore[explicit-any]  # any function
    """Return a tool like `function`, whose calls go through `Faults` as "tool.<name>".

    Args:
        function: sync or async; the model is still told its signature and docstring. A sync function then runs in the event loop.
        faults: decides about each call.
    """

    @functools.wraps(function)
    async def call(*args: Opaque, **kwargs: Opaque) -> Opaque:
        async def effect() -> Opaque:
            result = function(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return await faults.call(f"tool.{function.__name__}", effect)

    return call


def deaf_tool(seconds: float) -> Callable[[], Awaitable[str]]:
    """Return a tool named "deaf", which does not react to a cancellation for this many seconds."""

    async def deaf() -> str:
        """Wait, whatever happens."""
        # Cancellation: ignored on purpose; the sleep bounds the wait.
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
        return "heard nothing"

    return deaf
