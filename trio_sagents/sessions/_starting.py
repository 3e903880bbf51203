"""Starting an agent exactly once, under any number of callers."""

import functools

import attrs
import trio

from trio_sagents._trio.tree import is_inside
from trio_sagents.broadcast import Subscription
from trio_sagents.data.json import Options
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import AgentBusy, AgentStopped, ConversationNotFound, PersistenceError, RunsElsewhere, SessionsClosed
from trio_sagents.sessions._boot import Booter, acquire_lease
from trio_sagents.supervisor import Entry, LiveAgent, Opening, Phase, Runtime, run_agent


@attrs.define(eq=False)
class Starter:
    """Single flight over the registry."""

    runtime: Runtime
    booter: Booter
    start_timeout: float
    is_closed: bool = False
    """Whether nothing may start any more."""

    async def ensure(
        self,
        agent_id: str,
        conversation_id: str,
        scope: Scope,
        request_opts: Options,
        opening: Opening | None = None,
    ) -> Entry:
        """Return the entry of a live agent; boot it where there is none.

        Args:
            agent_id: of the conversation.
            conversation_id: as in `Sessions.start`; checked.
            scope: the caller's.
            request_opts: the caller's.
            opening: is done before the agent goes live, where this call waits for its boot; else it is left to the caller.

        Raises:
            StartFailed: the boot failed; nothing of it is left.
            ConversationNotFound: the conversation is another scope's.
            SessionsClosed: nothing starts any more.
            LimitExceeded: there are too many agents.

        Cancellation: a boot that has begun goes on, for the other callers.
        """
        while True:
            # No checkpoint from the look to the reservation: of any number of callers, one finds no entry.
            entry = self.runtime.registry.find(agent_id, conversation_id)
            if entry is None:
                entry = self._reserve(agent_id, conversation_id, scope, request_opts)
            elif entry.phase is Phase.STOPPING:
                if is_inside(entry.task):
                    raise AgentStopped(conversation_id)  # the old agent cannot end while its own tool waits for the new one
                await entry.wait_ended()
                continue
            elif not self.runtime.access.owns(scope, entry.owner):
                if entry.phase is Phase.LIVE:
                    raise ConversationNotFound(conversation_id)
                await entry.wait_ready()  # who owns the conversation is known once it is loaded
                continue
            if entry.phase is Phase.BOOTING:
                if is_inside(entry.task):
                    raise AgentStopped(conversation_id)  # a boot cannot wait for itself
                await self._wait_ready(entry, opening)
                if not entry.has_booted or entry.failure is not None:
                    self._raise_failure(entry)
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()  # others get a turn; then the look holds, or is taken again
            if entry.phase is Phase.LIVE:
                return entry

    async def _wait_ready(self, entry: Entry, opening: Opening | None) -> None:
        """Wait for the end of a boot, and have something done before it."""
        if opening is None:
            await entry.wait_ready()
            return
        entry.openings = (*entry.openings, opening)
        try:
            await entry.wait_ready()
        finally:
            entry.openings = tuple(one for one in entry.openings if one is not opening)

    def _reserve(self, agent_id: str, conversation_id: str, scope: Scope, request_opts: Options) -> Entry:
        if self.is_closed:
            raise SessionsClosed
        runtime = self.runtime
        entry = Entry(agent_id, conversation_id, scope, runtime.access.owner_of(scope), request_opts)
        runtime.registry.reserve(entry)
        # In the context of open_sessions, not the first caller's: its variables are none of the agent's business.
        run = functools.partial(run_agent, runtime, entry, self.booter.boot, self.start_timeout)
        runtime.registry.context.run(functools.partial(runtime.nursery.start_soon, run, name=agent_id))
        return entry

    def _raise_failure(self, entry: Entry) -> None:
        failure = entry.failure
        if failure is not None and isinstance(failure.error, ConversationNotFound):
            raise ConversationNotFound(entry.conversation_id)  # a foreign row: as if it were not there
        error = entry.start_failed()
        raise error from error.__cause__

    async def delete(self, agent_id: str, conversation_id: str, scope: Scope) -> bool:
        """Delete a stored conversation; nothing starts meanwhile. AgentBusy where its agent is up."""
        runtime = self.runtime
        entry = runtime.registry.find(agent_id, conversation_id)
        if entry is not None:
            if not runtime.access.owns(scope, entry.owner):
                return False
            raise AgentBusy(conversation_id, "it is up; stop it first")
        # No checkpoint from the look to the reservation: a start from here on waits until the deletion has ended.
        entry = Entry(agent_id, conversation_id, scope, runtime.access.owner_of(scope), {}, Phase.STOPPING)
        runtime.registry.reserve(entry)
        try:
            with trio.move_on_after(self.start_timeout) as bound, entry.cancel_scope:
                return await self._delete(entry)
        finally:
            runtime.registry.release(entry)
        if entry.failure is not None:
            raise entry.failure.error  # its lease was lost meanwhile
        if not bound.cancelled_caught:
            raise SessionsClosed
        raise PersistenceError(
            f"the store did not answer within {self.start_timeout:g} seconds whether conversation {conversation_id!r} is deleted; "
            "call delete again once it works"
        )

    async def _delete(self, entry: Entry) -> bool:
        runtime, conversation_id = self.runtime, entry.conversation_id
        asker = runtime.access.asker(entry.scope)
        if runtime.leases is None:
            return await runtime.commits.delete(asker, conversation_id)
        try:
            await acquire_lease(runtime, runtime.leases, entry)
        except RunsElsewhere as exc:
            raise AgentBusy(conversation_id, "it is up in another process; stop it there first") from exc
        except ConversationNotFound:
            return False
        try:
            return await runtime.commits.delete(asker, conversation_id)
        finally:
            await runtime.leases.release(entry)  # noqa: ASYNC102  # it shields itself, for a bounded time

    def enrol(self, live: LiveAgent, subscriptions: "list[Subscription]") -> None:
        """Enrol subscriptions whose caller was allowed to see the agent, where its boot has not done it."""
        for subscription in subscriptions:
            if subscription.state == "pending" and not live.has_ended and self.runtime.access.sees(subscription.owner, live.entry.owner):
                subscription.enrol(live.feed(subscription.channel))
