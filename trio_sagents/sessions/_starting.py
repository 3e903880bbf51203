"""Starting an agent exactly once, under any number of callers; and doing something by an agent that may have to be started for it."""

import functools
import logging
from collections.abc import Sequence
from typing import Final, NoReturn

import attrs
import trio

from trio_sagents._trio.tree import is_inside
from trio_sagents.broadcast import Subscriber, Subscription
from trio_sagents.data.cursors import Cursor
from trio_sagents.data.json import Opaque, Options
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import AgentNotRunning, AgentStopped, ConversationNotFound, RegistryUnavailable, SessionsClosed
from trio_sagents.sessions._admission import NO_OPTS
from trio_sagents.sessions._commands import AddRows, BootAction, Command, Post, carry_out, fixed
from trio_sagents.sessions._reports import SessionInfo
from trio_sagents.sessions._task import Setup, run_agent
from trio_sagents.supervisor import Entry, Phase, Receipt, RunningAgent, Services, handle_of

log: Final = logging.getLogger("trio_sagents")


@attrs.define(eq=False)
class Starter:
    """Single flight over the registry."""

    setup: Setup
    is_closed: bool = False
    """Whether no agent may start any more."""

    @property
    def services(self) -> Services:
        """The shared services."""
        return self.setup.services

    async def ensure(
        self,
        agent_id: str,
        conversation_id: str,
        scope: Scope,
        request_opts: Options,
        action: BootAction | None = None,
        *,
        is_look: bool = False,
    ) -> Entry:
        """Return the entry of a live agent; start the agent if it is not running.

        Args:
            agent_id: of the conversation.
            conversation_id: as in `Sessions.start`; checked.
            scope: the caller's.
            request_opts: the caller's.
            action: is carried out before the agent goes live, if this call waits for its start; otherwise it is left to the caller.
                An action that was carried out has its outcome, whether the agent is still live or not.
            is_look: start nothing: the agent has to run already, here or on another node.

        Raises:
            StartFailed: the start failed; nothing of it is left.
            AgentNotRunning: this only looks, and the agent does not run.
            RegistryUnavailable: this only looks, and it is unknown whether another node runs the agent.
            ConversationNotFound: the conversation is another scope's.
            SessionsClosed: no agent starts any more.
            LimitExceeded: there are too many agents.
            ValueError: another conversation has this agent id.

        Cancellation: a start that has begun continues, for the other callers.
        """
        while True:
            # No checkpoint from the look to the reservation: of any number of callers, exactly one finds no entry.
            entry = self.services.registry.find(agent_id, conversation_id)
            if entry is None:
                entry = self._reserve(agent_id, conversation_id, scope, request_opts, is_look=is_look)
            elif entry.phase is Phase.STOPPING:
                if is_inside(entry.task):
                    raise AgentStopped(conversation_id)  # the old agent cannot end while its own tool waits for the new one
                await entry.wait_ended()
                continue
            elif not self.services.access.owns(scope, entry.owner):
                if entry.phase is Phase.LIVE:
                    raise ConversationNotFound(conversation_id)
                await entry.wait_ready()  # who owns the conversation is known once it is loaded
                continue
            if entry.phase is Phase.BOOTING:
                if is_inside(entry.task):
                    raise AgentStopped(conversation_id)  # a start cannot wait for itself
                await self._wait_ready(entry, action)
                if not entry.has_booted or entry.failure is not None:
                    await _pass_look(entry, is_look=is_look)
                    continue
                if action is not None and action.is_done:
                    return entry
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()  # others get a turn; then the look holds, or is taken again
            if entry.phase is Phase.LIVE:
                return entry

    async def _wait_ready(self, entry: Entry, action: BootAction | None) -> None:
        """Wait for the end of a start, and have an action carried out before it."""
        if action is None:
            await entry.wait_ready()
            return
        self.setup.actions.add(entry, action)
        try:
            await entry.wait_ready()
        finally:
            self.setup.actions.remove(entry, action)

    async def find_elsewhere(self, agent_id: str, conversation_id: str, scope: Scope) -> Entry | None:
        """Return the entry of an agent that runs on another node; None if no other node runs it. Nothing is started.

        Raises:
            ConversationNotFound: the agent is another scope's.
            RegistryUnavailable: it is unknown whether another node runs the agent.

        Cancellation: nothing is changed.
        """
        neighbours = self.services.neighbours
        if neighbours is None or self.is_closed or not await neighbours.runs_elsewhere(conversation_id):
            return None
        try:
            return await self.ensure(agent_id, conversation_id, scope, NO_OPTS, is_look=True)
        except (AgentNotRunning, SessionsClosed):
            return None

    def look(self, conversation_id: str, scope: Scope) -> None:
        """Have viewers who wait follow an agent that runs on another node. What fails is tried again later."""
        try:
            agent_id = self.services.agent_id_of(conversation_id)
            if not self.is_closed and not self.services.registry.is_taken(agent_id):
                self._reserve(agent_id, conversation_id, scope, NO_OPTS, is_look=True)
        except Exception:  # the boundary to the host's `agent_id_fun` and `SameScope.key`
            log.exception("could not follow the agent of conversation %r on another node; the viewers wait", conversation_id)

    def _reserve(self, agent_id: str, conversation_id: str, scope: Scope, request_opts: Options, *, is_look: bool) -> Entry:
        if self.is_closed:
            raise SessionsClosed
        registry = self.services.registry
        scope = self.services.scope_for_start(conversation_id, scope)
        entry = Entry(agent_id, conversation_id, scope, self.services.access.owner_of(scope), request_opts, is_look=is_look)
        registry.reserve(entry)
        # In the context of open_sessions, not of the first caller: the caller's context variables are not meant for the agent.
        run = functools.partial(run_agent, self.setup, entry)
        registry.context.run(functools.partial(self.services.nursery.start_soon, run, name=agent_id))
        return entry

    async def start(
        self,
        agent_id: str,
        conversation_id: str,
        scope: Scope,
        request_opts: Options,
        subscribers: Sequence[Subscriber] = (),
        after: Cursor | None = None,
        *,
        tag: Opaque = None,
    ) -> SessionInfo:
        """Have an agent running, with subscribers that were allowed to see it. The one place where a start meets its subscribers.

        Raises: as `ensure`; SessionsClosed also if a subscriber was closed. The subscriptions that this call made are withdrawn.

        Cancellation: as `ensure`; the subscriptions that this call made are withdrawn.
        """
        added: list[tuple[Subscriber, Subscription]] = []
        try:
            for subscriber in subscribers:
                if (subscription := subscriber.reserve(conversation_id, after=after, tag=tag)) is not None:
                    added.append((subscriber, subscription))
                    self.services.keep(subscription)
            for subscriber in subscribers:
                subscriber.subscription(conversation_id).is_admitted = True
            wanted = [subscriber.subscription(conversation_id) for subscriber in subscribers]
            entry = await self.ensure(agent_id, conversation_id, scope, request_opts)
        except BaseException:
            for subscriber, subscription in added:
                subscriber.drop(subscription)
            raise
        # No checkpoint to the return: the first call that returns a start is the one that started the agent.
        assert entry.live is not None
        for subscriber, subscription in zip(subscribers, wanted, strict=True):
            if subscription.is_closed and (again := subscriber.reserve(conversation_id, after=after, tag=tag)) is not None:
                self.services.keep(again)  # another call that shared it was cancelled, and took it away
        self._enrol(entry.live, [subscriber.subscription(conversation_id) for subscriber in subscribers])
        started, entry.started_is_taken = not entry.started_is_taken, True
        return SessionInfo(entry.agent_id, conversation_id, handle_of(entry.live, self.services.access, scope), started)

    def _enrol(self, live: RunningAgent, subscriptions: Sequence[Subscription]) -> None:
        """Enrol subscriptions whose caller was allowed to see the agent, unless its start has enrolled them."""
        for subscription in subscriptions:
            if subscription.state == "pending" and self.services.access.sees(subscription.owner, live.entry.owner):
                live.enrol(subscription)

    async def carry_out(self, agent_id: str, conversation_id: str, scope: Scope, request_opts: Options, command: Command) -> Receipt | None:
        """Have an agent do what a command says, and start the agent if it is not running. Decisions are recorded before it goes live.

        Raises: as `ensure`, and what the agent raises.

        Cancellation: either nothing was submitted, or the command is carried out.
        """
        action = None if isinstance(command, Post | AddRows) else BootAction(command)
        while True:
            entry = await self.ensure(agent_id, conversation_id, scope, request_opts, action)
            if action is not None and action.is_done:
                return action.outcome()
            assert entry.live is not None
            try:
                if entry.live.is_remote:
                    command = await fixed(command, entry.live)
                return await carry_out(command, entry.live)
            except AgentNotRunning:
                # Race: the agent closed between the look and the command, with nothing done; the next agent does it.
                if entry.phase is Phase.LIVE or is_inside(entry.task):
                    raise  # host code raised it; or the agent cannot end while its own tool waits for that
                await entry.wait_ended()


async def _pass_look(entry: Entry, *, is_look: bool) -> None:
    """Raise why a start failed; or return if somebody has only looked for the agent: a caller who does more starts it now."""
    if not entry.is_look or entry.has_booted:
        _raise_failure(entry)
    elif not is_look:
        await entry.wait_ended()
        return
    error = None if entry.failure is None else entry.failure.error
    if isinstance(error, AgentNotRunning | ConversationNotFound):
        raise type(error)(entry.conversation_id)
    raise RegistryUnavailable(f"it is unknown whether another node runs the agent of conversation {entry.conversation_id!r}") from error


def _raise_failure(entry: Entry) -> NoReturn:
    """Raise a new error for one caller of a start that failed."""
    failure = entry.failure
    if failure is not None and isinstance(failure.error, ConversationNotFound):
        raise ConversationNotFound(entry.conversation_id)  # the stored conversation is another scope's: as if it did not exist
    error = entry.start_failed()
    raise error from error.__cause__
