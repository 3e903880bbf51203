"""Recovery: after a block was opened, the agents of conversations that have work left are started, a few at a time.

The store has an index of these conversations (`UnfinishedLookup`), so nothing reads all conversations. Each conversation is looked at
once: one that cannot be started is logged and left to whoever opens it next. Those for which there is no room (`max_sessions`) are tried
again when others may have left. A node of a cluster looks again every minute, so the conversations of a node that has died continue on
another one. How often a turn is continued after a crash is bounded by `SessionPolicy.max_recoveries`, and counted in the conversation
itself, so no conversation can end process after process.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import attrs
import trio

from trio_sagents._text import shown
from trio_sagents._trio.failures import log_failure
from trio_sagents._trio.hosts import await_host
from trio_sagents.data.records import UNCHECKED, ConversationItem, Owner
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import (
    AgentStopped,
    LimitExceeded,
    PersistenceError,
    RegistryUnavailable,
    RunsElsewhere,
    SessionsClosed,
    StartFailed,
)
from trio_sagents.sessions._starting import Starter
from trio_sagents.storage import Asker, StoreAdapter
from trio_sagents.supervisor import SameScope, Services
from trio_sagents.supervisor._access import Authorizer

ScopeOf: TypeAlias = Callable[[str, Owner], Awaitable[Scope]]
"""Returns the scope in whose name the agent of a conversation starts: (conversation id, owner) -> scope."""
AT_ONCE: Final = 8
"""Agents that start at a time."""
PAGE: Final = 100
"""Conversations that are asked for at a time."""
FULL_PAUSE: Final = 1.0
"""Seconds until the next try of conversations for which there was no room."""
LOOK_INTERVAL: Final = 60.0
"""Seconds between two looks of a node at what other nodes may have left."""
MOST_DEFERRED: Final = 10_000
"""Conversations that are tried again."""
log: Final = logging.getLogger("trio_sagents")


def check_recovery(recover: bool | ScopeOf, store: StoreAdapter, authorizer: Authorizer) -> ScopeOf | None:  # noqa: FBT001  # or a function
    """Return how the scope of a stored conversation is found; None if nothing is recovered.

    Raises:
        TypeError: `recover` is neither a bool nor an async function; or it is True, and only the host knows the scopes.
        PersistenceError: the store cannot list the conversations that have work left.
    """
    if recover is False:
        return None
    if not isinstance(recover, bool) and not callable(recover):
        raise TypeError(f"recover must be a bool, or an async function (conversation_id, owner) -> scope; not {shown(recover)}")
    if not store.lists_unfinished:
        raise PersistenceError(
            f"{store.name} cannot list what is unfinished, so recover has nothing to go by; give the store a method `unfinished` "
            "(UnfinishedLookup), or open the sessions without recover"
        )
    if not isinstance(recover, bool):
        return recover
    if authorizer != SameScope():
        raise TypeError(
            f"with {type(authorizer).__name__} only you know the scope in whose name a stored conversation starts: "
            "give recover an async function (conversation_id, owner) -> scope"
        )
    return _same


async def _same(_conversation_id: str, owner: Owner) -> Scope:
    """Return the owner key, which is the scope itself where scopes are plain values."""
    await trio.lowlevel.checkpoint()
    return owner


@attrs.define(eq=False)
class Recovery:
    """Starts the agents of conversations that have work left; a task of the supervisor nursery."""

    services: Services
    starter: Starter
    scope_of: ScopeOf
    cancel_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Around all of it: cancelled when no agent starts any more."""
    _deferred: list[ConversationItem] = attrs.field(factory=list)
    """Conversations for which there was no room."""

    async def run(self) -> None:
        """Look at each conversation once; those for which there was no room are looked at again. A node of a cluster never stops looking.

        Cancellation: starts that have begun continue.
        """
        with self.cancel_scope:
            while True:
                await self._look()
                if self.services.neighbours is None:
                    return
                await trio.sleep(LOOK_INTERVAL)

    async def _look(self) -> None:
        try:
            await self._start_listed()
        except PersistenceError:  # logged where it was raised
            log.warning("what a crash has cut could not be listed; it continues when somebody opens it")
        while self._deferred:
            await trio.sleep(FULL_PAUSE)
            deferred, self._deferred = self._deferred, []
            await self._start_all(deferred)

    async def _start_listed(self) -> None:
        after: str | None = None
        commits = self.services.commits
        while True:
            page = await commits.read(commits.store.unfinished(Asker(None, UNCHECKED), after=after, limit=PAGE))
            await self._start_all(page.items)
            after = page.after
            if after is None:
                return

    async def _start_all(self, items: Sequence[ConversationItem]) -> None:
        neighbours = self.services.neighbours
        if neighbours is not None and items:
            try:
                held = await neighbours.held_elsewhere([item.conversation_id for item in items])
            except RegistryUnavailable as exc:
                log.warning("it is unknown which conversations other nodes have left; will look again: %s", exc)
                return
            items = [item for item in items if item.conversation_id not in held]
        for first in range(0, len(items), AT_ONCE):
            async with trio.open_nursery() as nursery:
                for item in items[first : first + AT_ONCE]:
                    nursery.start_soon(self._start, item)

    async def _start(self, item: ConversationItem) -> None:
        conversation_id = item.conversation_id
        try:
            agent_id = self.services.agent_id_of(conversation_id)
            if self.services.registry.is_taken(agent_id):
                return  # its turn runs, or somebody has just opened it
            scope: Scope = await await_host(self.scope_of, conversation_id, item.owner)
            await self.starter.ensure(agent_id, conversation_id, scope, {})
        except LimitExceeded:
            if len(self._deferred) < MOST_DEFERRED:
                self._deferred.append(item)
            else:
                log.warning("conversation %r has work left, and there is no room for its agent; it waits for its people", conversation_id)
        except (SessionsClosed, AgentStopped, RunsElsewhere):
            pass  # somebody else has it, or nobody is to start it now
        except StartFailed:
            pass  # the start itself has logged why
        except Exception as exc:  # noqa: BLE001  # logged: the boundary to the host's `recover` and `agent_id_fun`
            log_failure(logging.ERROR, exc, "conversation %r has work left, and could not be started", conversation_id)
        else:
            log.info("conversation %r has work left from an earlier process; its agent was started", conversation_id)
