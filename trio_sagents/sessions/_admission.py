"""What every entry does before it does anything: check where it is called and with what, and ask who may do this."""

import types
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

import attrs
import trio

from trio_sagents._text import shown
from trio_sagents._trio.place import require_run
from trio_sagents.data.ids import check_id
from trio_sagents.data.json import Options
from trio_sagents.data.scopes import Action, Scope
from trio_sagents.exceptions import ConversationNotFound, SagentsError, SessionsClosed, StartFailed
from trio_sagents.storage import Asker
from trio_sagents.supervisor import Entry, Phase, RunningAgent, Services

Opts: TypeAlias = Options
NO_OPTS: Final[Opts] = types.MappingProxyType({})
MAX_PAGE: Final = 1000
"""Rows or conversations in one page."""


@attrs.define(eq=False)
class Admission:
    """Lets callers in. It starts nothing and changes nothing."""

    services: Services = attrs.field(repr=False)
    elsewhere: Callable[[str, str, Scope], Awaitable[Entry | None]] | None = attrs.field(default=None, repr=False)
    """Finds an agent on another node, by agent id, conversation id and scope; None without a cluster."""
    is_over: bool = False
    """Whether the block was left."""
    _token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token, repr=False)

    def check_place(self) -> None:
        """Raise RuntimeError in a thread, or in a run of Trio, that is not the block's own."""
        require_run(self._token, "these sessions")

    def check_open(self) -> None:
        """Raise SessionsClosed if the block was left; RuntimeError as `check_place`."""
        self.check_place()
        if self.is_over:
            raise SessionsClosed

    def agent_id(self, conversation_id: str, scope: Scope) -> str:
        """Return the agent id of a conversation; raise for an id or a scope that is not valid."""
        self.check_place()
        check_id("conversation_id", conversation_id)
        if self.is_over:
            raise SessionsClosed
        self.services.access.owner_of(scope)  # a scope without an owner key is refused before anything is done
        return self.services.agent_id_of(conversation_id)

    async def require_start(self, scope: Scope, conversation_id: str) -> None:
        """Ask whether `scope` may start an agent. ConversationNotFound if it may not; StartFailed if the authorizer fails."""
        await trio.lowlevel.checkpoint_if_cancelled()
        access = self.services.access
        if access.is_synchronous:
            return
        try:
            allowed = await access.allows(scope, conversation_id, "start")
        except SagentsError:
            raise
        except Exception as exc:
            raise StartFailed(conversation_id, "authorize") from exc
        if not allowed:
            raise ConversationNotFound(conversation_id)

    async def require_decision(self, agent_id: str, conversation_id: str, scope: Scope) -> None:
        """Ask whether `scope` may decide. ConversationNotFound if not, or if the conversation does not exist: an answer makes none."""
        await trio.lowlevel.checkpoint()
        access = self.services.access
        await access.require(scope, conversation_id, "decide")
        if await self.reach(agent_id, conversation_id, scope) is None:
            await require_stored(self.services, access.asker(scope), conversation_id)

    def entry_of(self, agent_id: str, conversation_id: str, scope: Scope) -> Entry | None:
        """Return the entry of a conversation as `scope` sees it. Synchronous: the owner is compared where the registry is read."""
        entry = self.services.registry.find(agent_id, conversation_id)
        return entry if entry is not None and self.services.access.owns(scope, entry.owner) else None

    async def reach(self, agent_id: str, conversation_id: str, scope: Scope) -> Entry | None:
        """Return the entry of a conversation, also of one whose agent runs on another node, and whoever's it is. Nothing is started.

        Raises:
            ConversationNotFound: its agent runs on another node, and is another scope's.
            RegistryUnavailable: it is unknown whether its agent runs on another node.
        """
        entry = self.services.registry.find(agent_id, conversation_id)
        if entry is None and self.elsewhere is not None:
            return await self.elsewhere(agent_id, conversation_id, scope)
        return entry

    async def find(self, conversation_id: str, scope: Scope, action: Action) -> RunningAgent | None:
        """Ask for `action`, and return the running agent; None if the conversation is only stored.

        Raises:
            ConversationNotFound: there is no such conversation for this scope.
        """
        agent_id = self.agent_id(conversation_id, scope)
        await trio.lowlevel.checkpoint()
        access = self.services.access
        await access.require(scope, conversation_id, action)
        entry = await self.reach(agent_id, conversation_id, scope)
        if entry is not None and access.owns(scope, entry.owner):
            return entry.live if entry.phase is Phase.LIVE or action == "cancel" else None
        if entry is not None and entry.phase is Phase.LIVE:
            raise ConversationNotFound(conversation_id)
        await require_stored(self.services, access.asker(scope), conversation_id)
        return None

    async def running(self, scope: Scope) -> Sequence[RunningAgent]:
        """Return the running agents of this block that `scope` may list, in the order of their starts."""
        self.check_open()
        await trio.lowlevel.checkpoint()
        access, registry = self.services.access, self.services.registry
        if access.is_synchronous:
            entries: Sequence[Entry] = registry.owned_by(access.owner_of(scope))
        else:
            entries = [
                entry for entry in registry if access.owns(scope, entry.owner) and await access.allows(scope, entry.conversation_id, "list")
            ]
        return [entry.live for entry in entries if entry.live is not None and entry.is_accepting and not entry.live.is_remote]


async def require_stored(services: Services, asker: Asker, conversation_id: str) -> None:
    """Raise ConversationNotFound unless the conversation is stored, and is the asker's if owners are compared."""
    if not await is_stored(services, asker, conversation_id):
        raise ConversationNotFound(conversation_id)


async def is_stored(services: Services, asker: Asker, conversation_id: str) -> bool:
    """Return whether the conversation is stored, and is the asker's if owners are compared."""
    return await services.commits.read(services.commits.store.exists(asker, conversation_id))


def check_opts(request_opts: Opts | None) -> Opts:
    """Return what a caller gave as `request_opts`; empty for None."""
    if request_opts is None:
        return NO_OPTS
    if not isinstance(request_opts, Mapping):
        raise TypeError(f"request_opts must be a mapping, not {type(request_opts).__name__}")
    return request_opts


def check_limit(limit: int) -> None:
    """Raise unless `limit` is a size of a page."""
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit must be an int, not {shown(limit)}")
    if not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"limit must be 1 to {MAX_PAGE}, not {limit}")
