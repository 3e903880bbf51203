"""The part of `Sessions` that looks and lists: it starts nothing."""

import fnmatch
import re
from collections.abc import Sequence

import attrs
import trio

from trio_sagents.data.records import ConversationPage, HistoryPage
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import AgentNotRunning
from trio_sagents.sessions._asking import Asking, check_limit
from trio_sagents.sessions._reports import SessionsStatistics
from trio_sagents.supervisor import AgentHandle, AgentInfo, Phase, handle_of, info_of


@attrs.define(eq=False)
class Looking(Asking):
    """Questions about agents, and about what is stored."""

    async def running(self, conversation_id: str, *, scope: Scope = None) -> bool:
        """Return whether the agent is up and accepts commands. False for a conversation that is not this scope's.

        Cancellation: either it returns, or nothing was done; it changes nothing.
        """
        agent_id = self._agent_id(conversation_id, scope)
        await trio.lowlevel.checkpoint()
        if not await self._runtime.access.allows(scope, conversation_id, "view"):
            return False
        entry = self._entry(agent_id, conversation_id, scope)
        return entry is not None and entry.phase is Phase.LIVE

    async def get(self, conversation_id: str, *, scope: Scope = None) -> AgentHandle:
        """Return a handle of the agent that is up.

        Raises:
            ConversationNotFound: there is no such conversation for this scope.
            AgentNotRunning: its agent is not up.

        Cancellation: either it returns, or nothing was done; it changes nothing.
        """
        live = await self._find(conversation_id, scope, "view")
        if live is None:
            raise AgentNotRunning(conversation_id)
        return handle_of(live, scope)

    async def agent_info(self, conversation_id: str, *, scope: Scope = None) -> AgentInfo:
        """Return a picture of the agent that is up; raises as `get`.

        Cancellation: either it returns, or nothing was done; it changes nothing.
        """
        live = await self._find(conversation_id, scope, "view")
        if live is None:
            raise AgentNotRunning(conversation_id)
        return info_of(live)

    async def list_running(self, *, scope: Scope = None) -> Sequence[AgentInfo]:
        """Return the agents that are up and that this scope may see, in the order of their starts; may be empty.

        Cancellation: either it returns, or nothing was done; it changes nothing.
        """
        return [info_of(live) for live in await self._mine(scope)]

    async def list_matching(self, pattern: str, *, scope: Scope = None) -> Sequence[AgentInfo]:
        """Return those of `list_running` whose agent id matches a glob pattern: `*`, `?` and `[...]`, case-sensitive, anchored.

        Cancellation: either it returns, or nothing was done; it changes nothing.
        """
        if not isinstance(pattern, str):
            raise TypeError(f"pattern must be a str, not {pattern!r}")
        match = re.compile(fnmatch.translate(pattern)).match
        return [info_of(live) for live in await self._mine(scope) if match(live.entry.agent_id)]

    async def agent_count(self, *, scope: Scope = None) -> int:
        """Return how many agents are up that this scope may see.

        Cancellation: either it returns, or nothing was done; it changes nothing.
        """
        return len(await self._mine(scope))

    def statistics(self) -> SessionsStatistics:
        """Return counts, over all scopes: for operators."""
        entries = tuple(self._runtime.registry)
        return SessionsStatistics(
            len(entries),
            sum(entry.phase is Phase.BOOTING for entry in entries),
            sum(entry.live is not None and entry.live.turn is not None for entry in entries),
            sum(entry.phase is Phase.STOPPING for entry in entries),
            sum(len(table) for table in self._runtime.subscriptions.values()),
            len(self._runtime.commits),
            len(self._runtime.timers),
        )

    async def history(self, conversation_id: str, *, scope: Scope = None, before: str | None = None, limit: int = 100) -> HistoryPage:
        """Return a page of the transcript: the newest where `before` is None, oldest row first.

        Args:
            conversation_id: the conversation; its agent need not be up.
            scope: the caller's.
            before: from an earlier page, for the next older one.
            limit: rows in the page, 1 to 1000.

        Raises:
            ConversationNotFound: there is no such conversation for this scope.
            PersistenceError: the store could not say.

        Cancellation: either it returns, or nothing was done; it changes nothing.
        """
        self._agent_id(conversation_id, scope)
        check_limit(limit)
        self._check_open()
        await trio.lowlevel.checkpoint()
        await self._runtime.access.require(scope, conversation_id, "view")
        commits = self._runtime.commits
        return await commits.read(commits.store.history(self._runtime.access.asker(scope), conversation_id, before=before, limit=limit))

    async def conversations(self, *, scope: Scope = None, after: str | None = None, limit: int = 100) -> ConversationPage:
        """Return a page of the stored conversations that this scope may list, the one changed last first.

        Args:
            scope: the caller's.
            after: from an earlier page, for the next one.
            limit: conversations in the page, 1 to 1000; with an `Authorizer` of the host's, a page may hold fewer.

        Cancellation: either it returns, or nothing was done; it changes nothing.
        """
        check_limit(limit)
        self._check_open()
        await trio.lowlevel.checkpoint()
        access = self._runtime.access
        commits = self._runtime.commits
        page: ConversationPage = await commits.read(commits.store.conversations(access.asker(scope), after=after, limit=limit))
        if access.is_synchronous:
            return page
        items = [item for item in page.items if access.owns(scope, item.owner) and await access.allows(scope, item.conversation_id, "list")]
        return ConversationPage(tuple(items), page.after)

    async def delete(self, conversation_id: str, *, scope: Scope = None) -> bool:
        """Delete a conversation and its transcript.

        Returns:
            False if there is none for this scope.

        Raises:
            AgentBusy: its agent is up, here or in another process; stop it first.
            RegistryUnavailable: nobody could say whether it is up in another process; nothing was deleted.

        Cancellation: deleted, or as before.
        """
        agent_id = self._agent_id(conversation_id, scope)
        self._check_open()
        await trio.lowlevel.checkpoint()
        if not await self._runtime.access.allows(scope, conversation_id, "delete"):
            return False
        return await self._starter.delete(agent_id, conversation_id, scope)
