"""The front door, from top to bottom: lifecycle, messages, decisions, viewers, looking, what is stored.

Each method checks its arguments, asks the authorizer, decides in one step, and only then waits. It is short: what it does is in the
modules above it. `Admission` lets callers in, `Starter` has an agent running exactly once, and the agent itself does the rest.
"""

import contextlib
import fnmatch
import functools
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from trio_sagents._text import shown
from trio_sagents._trio.opening import opening
from trio_sagents.agent import checked_rows
from trio_sagents.broadcast import Presence, Subscriber
from trio_sagents.data.cursors import Channel, Cursor
from trio_sagents.data.decisions import Decision
from trio_sagents.data.events import MiddlewareEvent
from trio_sagents.data.ids import check_id
from trio_sagents.data.json import Opaque, Options
from trio_sagents.data.messages import UserMessage
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.data.records import ConversationPage, HistoryPage, Row, WaitingConversation, WaitingPage
from trio_sagents.data.scopes import Overlap, Scope
from trio_sagents.exceptions import AgentNotRunning, ConversationNotFound
from trio_sagents.sessions._admission import Admission, Opts, check_limit, check_opts
from trio_sagents.sessions._closing import drain_agents
from trio_sagents.sessions._commands import AddRows, Dismiss, Post, Resume
from trio_sagents.sessions._config import SessionConfig
from trio_sagents.sessions._deleting import delete_conversation
from trio_sagents.sessions._mailboxes import Mailboxes
from trio_sagents.sessions._page import Page, ReadHistory, open_page
from trio_sagents.sessions._reports import DrainReport, SessionInfo, SessionsStatistics
from trio_sagents.sessions._starting import Starter
from trio_sagents.sessions._watch import Watch, present
from trio_sagents.supervisor import (
    AgentHandle,
    AgentInfo,
    Entry,
    Phase,
    Posted,
    Receipt,
    Services,
    check_decisions,
    check_grace,
    check_host_event,
    handle_of,
    stop_entry,
)


@attrs.define(eq=False)
class Sessions:
    """All conversations of one `open_sessions` block. Every entry takes the caller's scope, and asks the authorizer about it.

    Use it in the run of Trio that opened it: every method raises RuntimeError in another thread or another run.

    Cancellation: a method that only looks changes nothing. The others say what they leave behind.
    """

    _config: SessionConfig = attrs.field(repr=False)
    _admission: Admission = attrs.field(repr=False)
    _starter: Starter = attrs.field(repr=False)
    _mailboxes: Mailboxes = attrs.field(repr=False)

    @property
    def presence(self) -> Presence:
        """Who watches what, and which agents are running."""
        return self._config.presence

    @property
    def runtime(self) -> Services:
        """The shared services; for the library itself."""
        return self._admission.services

    # ── lifecycle

    async def start(
        self,
        conversation_id: str,
        *,
        scope: Scope = None,
        request_opts: Opts | None = None,
        initial_subscribers: Sequence[Subscriber] = (),
    ) -> SessionInfo:
        """Have the agent of a conversation running. Any number of callers start it once.

        Args:
            conversation_id: 1 to 256 bytes of UTF-8, normal form C, no control characters.
            scope: the caller's.
            request_opts: for the router, as they are; kept, not copied. Ignored if the agent is running.
            initial_subscribers: get every event from the first one on: they are subscribed before the agent can do anything.

        Returns:
            The agent; `started` is True for exactly one call per start: the first that returns.

        Raises:
            ConversationNotFound: the conversation is not this scope's.
            StartFailed: the router, the factory or the store failed, or a stop aborted the start; nothing is left.
            LimitExceeded: there are too many agents.
            SessionsClosed: the block was left, or is draining.
            ValueError: `agent_id_fun` gives the conversation the agent id of another running one.

        Cancellation: the start continues; the initial subscriptions that this call made are withdrawn.
        """
        agent_id = self._admission.agent_id(conversation_id, scope)
        opts = check_opts(request_opts)
        subscribers = tuple(initial_subscribers)
        for subscriber in subscribers:
            if not isinstance(subscriber, Subscriber):
                raise TypeError(f"initial_subscribers must be Subscribers, from open_subscriber; not {shown(subscriber)}")
        await self._admission.require_start(scope, conversation_id)
        admitted: list[Subscriber] = []
        for subscriber in subscribers:
            if await self._admission.services.access.allows(subscriber.scope, conversation_id, "view"):
                admitted.append(subscriber)
            else:
                await subscriber.subscribe(conversation_id)  # stays pending, as for a conversation that does not exist
        return await self._starter.start(agent_id, conversation_id, scope, opts, admitted)

    async def ensure_running(
        self,
        conversation_id: str,
        subscriber: Subscriber,
        *,
        request_opts: Opts | None = None,
        after: Cursor | str | None = None,
        tag: Opaque = None,
    ) -> SessionInfo:
        """Have the agent running and the subscriber subscribed to it, in one step: no event is lost in between. Twice is once.

        Args:
            conversation_id: the conversation.
            subscriber: from `open_subscriber`; its scope is the caller's.
            request_opts: as in `start`.
            after: the last place that was seen.
            tag: as of `Subscriber.subscribe`.

        Returns, raises: as `start`.

        Cancellation: the start continues; a subscription that this call made is withdrawn.
        """
        if not isinstance(subscriber, Subscriber):
            raise TypeError(f"subscriber must be a Subscriber, from open_subscriber; not {shown(subscriber)}")
        agent_id = self._admission.agent_id(conversation_id, subscriber.scope)
        opts = check_opts(request_opts)
        place = Cursor.of(after)
        await self._admission.require_start(subscriber.scope, conversation_id)
        await self._admission.services.access.require(subscriber.scope, conversation_id, "view")
        return await self._starter.start(agent_id, conversation_id, subscriber.scope, opts, (subscriber,), place, tag=tag)

    async def stop(self, conversation_id: str, *, scope: Scope = None, grace_period: float = 0.0) -> bool:
        """Stop the agent of a conversation, and return when it has ended: its turn settled, its writes ended, its id free.

        From inside the agent's own task tree it only asks, and returns at once: the agent ends when its tool has ended.

        Args:
            conversation_id: the conversation; what is stored of it stays.
            scope: the caller's.
            grace_period: seconds that a running turn may take to finish first; 0 cuts it at once.

        Returns:
            True if there was an agent, or a start that was aborted; False if there was none for this scope.

        Cancellation: the agent is stopped all the same.
        """
        agent_id = self._admission.agent_id(conversation_id, scope)
        check_grace(grace_period)
        await trio.lowlevel.checkpoint_if_cancelled()
        allowed = await self._admission.services.access.allows(scope, conversation_id, "stop")
        entry = await self._own(agent_id, conversation_id, scope) if allowed else None
        if entry is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return False
        await stop_entry(entry, grace_period)
        return True

    async def drain(self) -> DrainReport:
        """Start no agent any more, let running turns finish until their `grace_period` is over, and settle the others.

        A node of a cluster tells the other nodes that it takes nothing more. Idle agents end at once, so that other nodes can run them.

        Returns:
            What became of the agents. From inside an agent's own task tree, without waiting for that agent.

        Raises:
            SessionsClosed: the block was left.

        Cancellation: no agent starts any more all the same; the agents end in their own time.
        """
        self._admission.check_open()
        self._starter.is_closed = True
        if self._admission.services.leases is not None:
            self._admission.services.leases.drain()
        return await drain_agents(tuple(self._admission.services.registry))

    def ready(self) -> bool:
        """Return whether a load balancer may send requests here.

        False if the block was left or drains, or while this node of a cluster has no lease for certain. It says nothing about whether the
        process has to be restarted: a node that is not ready may become ready by itself.
        """
        self._admission.check_place()
        leases = self._admission.services.leases
        return not self._admission.is_over and not self._starter.is_closed and (leases is None or leases.is_trusted)

    # ── messages

    async def post(  # noqa: PLR0913  # each is a choice of its own, and most callers make one or two
        self,
        conversation_id: str,
        message: str | UserMessage,
        *,
        scope: Scope = None,
        message_id: str | None = None,
        overlap: Overlap = "queue",
        display: str | UserMessage | None = None,
        values: Options | None = None,
        request_opts: Opts | None = None,
    ) -> Receipt:
        """Hand a conversation a message; start its agent if it is not running. Returns when the message is durable, not when answered.

        Args:
            conversation_id: the conversation.
            message: a text, or a `UserMessage`.
            scope: the caller's.
            message_id: unique in the conversation for ever; posting the same again gives the same receipt, `duplicate=True`.
            overlap: while a turn is running: "queue" answers the message in a turn after it, "steer" at the running turn's next model
                call, "interrupt" cuts the running turn, "reject" raises `AgentBusy`.
            display: what people see of the message, in its row; None: the message itself. The model always gets the message.
            values: values of the host's own for the tools and the middleware of the turn that this message begins
                (`ToolContext.values`); kept as they are, and never stored: a turn that a restart has cut does not have them.
            request_opts: as in `start`.

        Returns:
            The receipt; wait on it for the outcome of the turn that takes the message.

        Raises:
            ConversationNotFound, StartFailed, SessionsClosed: as `start`; nothing was done.
            AgentBusy, QueueFull, MessageConflict, LimitExceeded: as their names say; nothing was done.
            PersistenceError: the message could not be stored; it is not acknowledged.

        Ordering: messages are answered in the order of their commits.

        Cancellation: either nothing was submitted, or the message is accepted and will be answered.
        """
        agent_id = self._admission.agent_id(conversation_id, scope)
        opts = check_opts(request_opts)
        posted = Posted.of(message, message_id, overlap, display, values)
        await trio.lowlevel.checkpoint()
        await self._admission.services.access.require(scope, conversation_id, "post")
        receipt = await self._starter.carry_out(agent_id, conversation_id, scope, opts, Post(posted, scope))
        assert receipt is not None
        return receipt

    async def add_rows(self, conversation_id: str, rows: Sequence[Row], *, scope: Scope = None, request_opts: Opts | None = None) -> None:
        """Add rows of the host's own to the transcript; start the agent if it is not running. People see them, and no model does.

        Args:
            conversation_id: the conversation.
            rows: the rows, in order. A row whose key is known replaces the row of that key, in its place.
            scope: the caller's; it has to be allowed to post.
            request_opts: as in `start`.

        Raises:
            ConversationNotFound, StartFailed, SessionsClosed: as `start`; nothing was done.
            PersistenceError: the rows could not be stored.

        Ordering: each row is an event, `DisplayMessageSaved` or `DisplayMessageUpdated`, once it is stored.

        Cancellation: either nothing was submitted, or the rows are stored.
        """
        checked = checked_rows(rows)
        agent_id = self._admission.agent_id(conversation_id, scope)
        opts = check_opts(request_opts)
        await trio.lowlevel.checkpoint()
        await self._admission.services.access.require(scope, conversation_id, "post")
        await self._starter.carry_out(agent_id, conversation_id, scope, opts, AddRows(checked, scope))

    async def publish(self, conversation_id: str, event: MiddlewareEvent, *, scope: Scope = None, channel: Channel = "main") -> bool:
        """Send an event of the host's own to those who follow the conversation now. It is not stored, and starts no agent.

        Args:
            conversation_id: the conversation.
            event: of a class of your own that inherits `MiddlewareEvent`.
            scope: the caller's; it has to be allowed to post.
            channel: "main" or "debug".

        Returns:
            Whether the agent runs; if it does not, nobody follows it, and nothing was sent.

        Raises:
            TypeError, ValueError: an argument has the wrong type or an invalid value; nothing was done.
            ConversationNotFound: there is no such conversation for this scope.

        Cancellation: either the event was sent, or nothing was done.
        """
        check_host_event(event, channel)
        live = await self._admission.find(conversation_id, scope, "post")
        if live is None:
            return False
        live.publish(event, channel)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return True

    async def cancel_turn(self, conversation_id: str, *, scope: Scope = None, turn_id: str | None = None) -> TurnOutcome | None:
        """Cut the running turn of a conversation; what was said is kept, and its agent keeps running.

        Args:
            conversation_id: the conversation.
            scope: the caller's.
            turn_id: cut only this turn; None cuts whichever is running.

        Returns:
            The settled outcome; `Completed` if the turn had just finished; None if no such turn was running.

        Raises:
            ConversationNotFound: there is no such conversation for this scope.

        Cancellation: the turn is cut all the same.
        """
        live = await self._admission.find(conversation_id, scope, "cancel")
        return None if live is None else await live.cancel_turn(turn_id)

    # ── decisions

    async def resume(
        self, conversation_id: str, decisions: Sequence[Decision], *, scope: Scope = None, request_opts: Opts | None = None
    ) -> Receipt:
        """Decide calls that wait; start the agent if it is not running. Returns when the decisions are durable.

        The turn continues when every call of the interrupt is decided; until then the decisions are kept. No call runs before its
        decision is on record, and it runs with the arguments that were shown, or with the edited ones.

        Args:
            conversation_id: the conversation.
            decisions: `Approve(call)`, `Edit(call, arguments)`, `Reject(call, reason)`, `Answer(call, value)`, for calls of the
                interrupt; one or more. All of them are recorded, or none.
            scope: the caller's.
            request_opts: as in `start`.

        Returns:
            The receipt; its `message_id` is the interrupt's id, `duplicate` says that all decisions were on record already. Wait on
            it for the outcome of the turn; `Interrupted` at once if other calls still wait.

        Raises:
            ConversationNotFound, StartFailed, SessionsClosed: as `start`; nothing was done.
            AlreadyDecided: a call has another decision on record; nothing was done.
            InvalidDecision: a decision does not fit any call that waits; nothing was done.
            NotInterrupted: nothing waits; nothing was done.
            LimitExceeded: what the decisions say is too large to be kept; nothing was done.
            PersistenceError: the decisions could not be stored; nothing runs.

        If a stop aborts the start (`StartFailed`), the decisions may be on record: decide again, the same decision is a duplicate.

        Cancellation: either nothing was submitted, or the decisions are recorded, and the turn continues.
        """
        decided = check_decisions(decisions)
        agent_id = self._admission.agent_id(conversation_id, scope)
        opts = check_opts(request_opts)
        await self._admission.require_decision(agent_id, conversation_id, scope)
        receipt = await self._starter.carry_out(agent_id, conversation_id, scope, opts, Resume(decided, scope))
        assert receipt is not None
        return receipt

    async def dismiss(
        self, conversation_id: str, *, scope: Scope = None, interrupt_id: str | None = None, request_opts: Opts | None = None
    ) -> None:
        """Acknowledge a halt; start the agent if it is not running. The halted turn is over, and waiting messages are answered.

        Args:
            conversation_id: the conversation.
            scope: the caller's.
            interrupt_id: acknowledge only this halt. A second call does nothing then. None acknowledges the one that waits.
            request_opts: as in `start`.

        Raises:
            ConversationNotFound, StartFailed, SessionsClosed: as `start`; nothing was done.
            NotInterrupted: the turn is not halted, or not by `interrupt_id`; nothing was done. Use `resume` to answer a call that waits.
            PersistenceError: the acknowledgement could not be stored.

        Cancellation: either nothing was submitted, or the halt is acknowledged.
        """
        agent_id = self._admission.agent_id(conversation_id, scope)
        opts = check_opts(request_opts)
        if interrupt_id is not None:
            check_id("interrupt_id", interrupt_id)
        await self._admission.require_decision(agent_id, conversation_id, scope)
        await self._starter.carry_out(agent_id, conversation_id, scope, opts, Dismiss(scope, interrupt_id))

    # ── viewers

    @opening
    @asynccontextmanager
    async def open_subscriber(self, *, scope: Scope = None) -> AsyncIterator[Subscriber]:
        """Open a mailbox of events for one task of the host; all its subscriptions end with the block.

        Cancellation: either the mailbox is open, or nothing was done; leaving the block closes it.
        """
        self._admission.check_open()
        subscriber = self._mailboxes.open(Subscriber, scope)
        try:
            await trio.lowlevel.checkpoint()
            yield subscriber
        finally:
            self._mailboxes.close(subscriber)

    def watch(
        self,
        conversation_id: str,
        *,
        scope: Scope = None,
        viewer: str | None = None,
        after: Cursor | str | None = None,
        tag: Opaque = None,
        request_opts: Opts | None = None,
    ) -> AbstractAsyncContextManager[Watch]:
        """Watch a conversation: a subscriber, its agent running, and the viewer present while the block is open.

        Args:
            conversation_id: the conversation.
            scope: the caller's.
            viewer: who watches; None watches unseen: without a viewer the agent may leave.
            after: the last place that was seen.
            tag: as of `Subscriber.subscribe`.
            request_opts: as in `start`.

        Raises: as `start`.

        Cancellation: the agent keeps running; nothing else is left.
        """
        self._admission.agent_id(conversation_id, scope)
        if viewer is not None:
            check_id("viewer", viewer)
        return self._watch(conversation_id, scope, viewer, Cursor.of(after), check_opts(request_opts), tag)

    def page(
        self,
        conversation_id: str,
        *,
        scope: Scope = None,
        viewer: str | None = None,
        after: Cursor | str | None = None,
        limit: int = 100,
        history: ReadHistory | None = None,
        request_opts: Opts | None = None,
    ) -> AbstractAsyncContextManager[Page]:
        """Open a page of a conversation: its transcript and its present, merged, while the block is open. The agent is started.

        Args:
            conversation_id: the conversation.
            scope: the caller's.
            viewer: who watches, as in `watch`.
            after: the last place that whoever draws the page has seen. `PageChange.events` then go on from there. The page itself is
                complete in any case.
            limit: how many of the newest rows to read, 1 to 1000.
            history: reads the transcript: an async function `(*, before, limit)` that returns a `HistoryPage`. Only for a host with a
                `display_message_persistence` of its own, whose rows `Sessions.history` does not know.
            request_opts: as in `start`.

        Raises:
            PersistenceError: the history could not be read; nothing is left but the agent.
            TypeError, ValueError, ConversationNotFound, StartFailed, SessionsClosed: as `watch`.

        Cancellation: nothing is left but the agent, which goes on.
        """
        check_limit(limit)
        watching = self.watch(conversation_id, scope=scope, viewer=viewer, after=after, request_opts=request_opts)
        return open_page(watching, conversation_id, history or functools.partial(self.history, conversation_id, scope=scope), limit)

    @asynccontextmanager
    async def _watch(
        self, conversation_id: str, scope: Scope, viewer: str | None, after: Cursor | None, opts: Opts, tag: Opaque
    ) -> AsyncIterator[Watch]:
        self._admission.check_open()
        watch = self._mailboxes.open(Watch, scope)
        try:
            watch.info = await self.ensure_running(conversation_id, watch, request_opts=opts, after=after, tag=tag)
            if viewer is None:
                yield watch
            else:
                with present(self.presence, self._admission.services.viewer_admission, watch.subscription(conversation_id), viewer):
                    yield watch
        finally:
            self._mailboxes.close(watch)

    # ── looking at agents

    async def running(self, conversation_id: str, *, scope: Scope = None) -> bool:
        """Return whether the agent is running and accepts commands. False for a conversation that is not this scope's."""
        agent_id = self._admission.agent_id(conversation_id, scope)
        await trio.lowlevel.checkpoint()
        if not await self._admission.services.access.allows(scope, conversation_id, "view"):
            return False
        entry = await self._own(agent_id, conversation_id, scope)
        return entry is not None and entry.phase is Phase.LIVE

    async def _own(self, agent_id: str, conversation_id: str, scope: Scope) -> Entry | None:
        """Return the entry of a conversation as `scope` sees it, wherever its agent runs."""
        with contextlib.suppress(ConversationNotFound):
            entry = await self._admission.reach(agent_id, conversation_id, scope)
            if entry is not None and self._admission.services.access.owns(scope, entry.owner):
                return entry
        return None

    async def get(self, conversation_id: str, *, scope: Scope = None) -> AgentHandle:
        """Return a handle of the running agent.

        Raises:
            ConversationNotFound: there is no such conversation for this scope.
            AgentNotRunning: its agent is not running.
        """
        live = await self._admission.find(conversation_id, scope, "view")
        if live is None:
            raise AgentNotRunning(conversation_id)
        return handle_of(live, self._admission.services.access, scope)

    async def agent_info(self, conversation_id: str, *, scope: Scope = None) -> AgentInfo:
        """Return a picture of the running agent; raises as `get`."""
        live = await self._admission.find(conversation_id, scope, "view")
        if live is None:
            raise AgentNotRunning(conversation_id)
        return await live.look()

    async def list_running(self, *, scope: Scope = None) -> Sequence[AgentInfo]:
        """Return the running agents of this block that this scope may list, in the order of their starts; may be empty.

        Agents that run on other nodes of a cluster are not among them: ask each node.
        """
        return [live.info() for live in await self._admission.running(scope)]

    async def list_matching(self, pattern: str, *, scope: Scope = None) -> Sequence[AgentInfo]:
        """Return those of `list_running` whose agent id matches a glob pattern: `*`, `?` and `[...]`, case-sensitive, anchored."""
        if not isinstance(pattern, str):
            raise TypeError(f"pattern must be a str, not {shown(pattern)}")
        match = re.compile(fnmatch.translate(pattern)).match
        return [info for info in await self.list_running(scope=scope) if match(info.agent_id)]

    async def agent_count(self, *, scope: Scope = None) -> int:
        """Return how many running agents of this block this scope may list; without those of other nodes."""
        return len(await self._admission.running(scope))

    def statistics(self) -> SessionsStatistics:
        """Return counts, over all scopes: for operators."""
        self._admission.check_place()
        services = self._admission.services
        entries = tuple(services.registry)
        return SessionsStatistics(
            len(entries),
            sum(entry.phase is Phase.BOOTING for entry in entries),
            sum(entry.live is not None and entry.live.is_running for entry in entries),
            sum(entry.phase is Phase.STOPPING for entry in entries),
            sum(len(table) for table in services.subscriptions.values()),
            len(services.commits),
            len(services.timers),
        )

    # ── what is stored

    async def history(self, conversation_id: str, *, scope: Scope = None, before: str | None = None, limit: int = 100) -> HistoryPage:
        """Return a page of the transcript, oldest row first; the newest page if `before` is None.

        Args:
            conversation_id: the conversation; its agent need not be running.
            scope: the caller's.
            before: from an earlier page, for the next older one.
            limit: rows in the page, 1 to 1000.

        Raises:
            ConversationNotFound: there is no such conversation for this scope.
            PersistenceError: the store failed.
        """
        self._admission.agent_id(conversation_id, scope)
        check_limit(limit)
        await trio.lowlevel.checkpoint()
        access, commits = self._admission.services.access, self._admission.services.commits
        await access.require(scope, conversation_id, "view")
        return await commits.read(commits.store.history(access.asker(scope), conversation_id, before=before, limit=limit))

    async def conversations(self, *, scope: Scope = None, after: str | None = None, limit: int = 100) -> ConversationPage:
        """Return a page of the stored conversations that this scope may list; the one that changed last comes first.

        Args:
            scope: the caller's.
            after: from an earlier page, for the next one.
            limit: conversations in the page, 1 to 1000; with an `Authorizer` of the host's, a page may hold fewer.
        """
        check_limit(limit)
        self._admission.check_open()
        await trio.lowlevel.checkpoint()
        access, commits = self._admission.services.access, self._admission.services.commits
        page: ConversationPage = await commits.read(commits.store.conversations(access.asker(scope), after=after, limit=limit))
        if access.is_synchronous:
            return page
        items = [item for item in page.items if access.owns(scope, item.owner) and await access.allows(scope, item.conversation_id, "list")]
        return ConversationPage(tuple(items), page.after)

    async def waiting(self, *, scope: Scope = None, after: str | None = None, limit: int = 100) -> WaitingPage:
        """Return a page of the stored conversations that wait for a person, which this scope may list and view; no agent is started.

        The one that has waited longest comes first. An item has what the conversation waits for, for whom, since when, and until when.

        Args:
            scope: the caller's.
            after: from an earlier page, for the next one.
            limit: conversations in the page, 1 to 1000; with an `Authorizer` of the host's, a page may hold fewer.

        Raises:
            PersistenceError: the store failed, or cannot list them (it is no `WaitingLookup`).

        Cancellation: nothing is changed.
        """
        check_limit(limit)
        self._admission.check_open()
        await trio.lowlevel.checkpoint()
        access, commits = self._admission.services.access, self._admission.services.commits
        page: WaitingPage = await commits.read(commits.store.waiting(access.asker(scope), after=after, limit=limit))
        if access.is_synchronous:
            return page
        allowed: list[WaitingConversation] = []
        for item in page.items:
            if not access.owns(scope, item.owner) or not await access.allows(scope, item.conversation_id, "list"):
                continue
            if await access.allows(scope, item.conversation_id, "view"):
                allowed.append(item)
        return WaitingPage(tuple(allowed), page.after)

    async def delete(self, conversation_id: str, *, scope: Scope = None) -> bool:
        """Delete a conversation and its transcript.

        Returns:
            False if there is none for this scope.

        Raises:
            AgentBusy: its agent is running, here or in another process; stop it first.
            RegistryUnavailable: it is unknown whether its agent is running in another process; nothing was deleted.
            PersistenceError: the store failed, or did not answer within `start_timeout`.

        Cancellation: the conversation is deleted, or as before.
        """
        agent_id = self._admission.agent_id(conversation_id, scope)
        await trio.lowlevel.checkpoint()
        if not await self._admission.services.access.allows(scope, conversation_id, "delete"):
            return False
        return await delete_conversation(self._admission.services, self._config.policy.start_timeout, agent_id, conversation_id, scope)
