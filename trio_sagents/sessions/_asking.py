"""What every entry does first: check the arguments, and ask who is asking."""

import types
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import attrs
import trio

from trio_sagents.broadcast import Subscriber
from trio_sagents.data.ids import check_id
from trio_sagents.data.json import Options
from trio_sagents.data.scopes import Action, Scope
from trio_sagents.exceptions import ConversationNotFound, SagentsError, SessionsClosed, StartFailed
from trio_sagents.sessions._config import SessionConfig
from trio_sagents.sessions._starting import Starter
from trio_sagents.supervisor import Entry, LiveAgent, Phase, Runtime

Opts: TypeAlias = Options
NO_OPTS: Final[Opts] = types.MappingProxyType({})
MAX_PAGE = 1000
"""Rows or conversations in one page."""


@attrs.define(eq=False)
class Asking:
    """The part of `Sessions` that lets callers in."""

    _config: SessionConfig = attrs.field(repr=False)
    _runtime: Runtime = attrs.field(repr=False)
    _starter: Starter = attrs.field(repr=False)
    _subscribers: dict[Subscriber, None] = attrs.field(factory=dict, repr=False)
    _is_over: bool = False
    """Whether the block was left."""

    @property
    def config(self) -> SessionConfig:
        """The settings."""
        return self._config

    @property
    def runtime(self) -> Runtime:
        """The shared services; for the library itself."""
        return self._runtime

    @property
    def starter(self) -> Starter:
        """Single flight; for the library itself."""
        return self._starter

    def _check_open(self) -> None:
        if self._is_over:
            raise SessionsClosed

    def _agent_id(self, conversation_id: str, scope: Scope = None) -> str:
        check_id("conversation_id", conversation_id)
        self._check_open()
        self._runtime.access.owner_of(scope)  # a scope without an owner key is refused before anything is done
        return self._runtime.agent_id_of(conversation_id)

    async def _ask_to_start(self, scope: Scope, conversation_id: str) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        access = self._runtime.access
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

    def _entry(self, agent_id: str, conversation_id: str, scope: Scope) -> Entry | None:
        """Look an entry up, as this scope sees it. Synchronous: the owner is compared where the registry is read."""
        entry = self._runtime.registry.find(agent_id, conversation_id)
        return entry if entry is not None and self._runtime.access.owns(scope, entry.owner) else None

    async def _find(self, conversation_id: str, scope: Scope, action: Action) -> LiveAgent | None:
        """Return the agent that is up; None where the conversation is stored only; ConversationNotFound where it is not there."""
        agent_id = self._agent_id(conversation_id, scope)
        await trio.lowlevel.checkpoint()
        await self._runtime.access.require(scope, conversation_id, action)
        entry = self._runtime.registry.find(agent_id, conversation_id)
        if entry is not None and self._runtime.access.owns(scope, entry.owner):
            return entry.live if entry.phase is Phase.LIVE or action == "cancel" else None
        if entry is not None and entry.phase is Phase.LIVE:
            raise ConversationNotFound(conversation_id)
        await self._require_stored(conversation_id, scope)
        return None

    async def _require_stored(self, conversation_id: str, scope: Scope) -> None:
        """Raise ConversationNotFound unless the store has the conversation, and its owner is this scope's."""
        commits = self._runtime.commits
        if not await commits.read(commits.store.exists(self._runtime.access.asker(scope), conversation_id)):
            raise ConversationNotFound(conversation_id)

    async def _mine(self, scope: Scope) -> Sequence[LiveAgent]:
        self._check_open()
        await trio.lowlevel.checkpoint()
        access = self._runtime.access
        registry = self._runtime.registry
        if access.is_synchronous:
            entries: Sequence[Entry] = registry.owned_by(access.owner_of(scope))
        else:
            entries = [one for one in registry if access.owns(scope, one.owner) and await access.allows(scope, one.conversation_id, "list")]
        return [entry.live for entry in entries if entry.live is not None and entry.live.is_accepting]


def check_opts(request_opts: Opts | None) -> Opts:
    if request_opts is None:
        return NO_OPTS
    if not isinstance(request_opts, Mapping):
        raise TypeError(f"request_opts must be a mapping, not {type(request_opts).__name__}")
    return request_opts


def check_limit(limit: int) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit must be an int, not {limit!r}")
    if not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"limit must be 1 to {MAX_PAGE}, not {limit}")
