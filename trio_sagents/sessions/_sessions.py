"""The front door. Each method: check the arguments, ask the authorizer, decide in one step, then wait."""

import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import attrs
import trio

from trio_sagents._trio.tree import is_inside
from trio_sagents.broadcast import Presence, Subscriber, Subscription
from trio_sagents.data.cursors import Cursor
from trio_sagents.data.ids import check_id, conversation_topic
from trio_sagents.data.messages import UserMessage
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.data.scopes import Overlap, Scope
from trio_sagents.exceptions import AgentNotRunning
from trio_sagents.sessions._asking import Opts, check_limit, check_opts
from trio_sagents.sessions._closing import drain_agents
from trio_sagents.sessions._deciding import Deciding
from trio_sagents.sessions._page import Page, ReadHistory, open_page
from trio_sagents.sessions._reports import DrainReport, SessionInfo
from trio_sagents.sessions._watch import Watch
from trio_sagents.supervisor import Phase, Posted, Receipt, cancel_turn, check_grace, handle_of, stop_entry

S = TypeVar("S", bound=Subscriber)


@attrs.define(eq=False)
class Sessions(Deciding):
    """All conversations of one `open_sessions` block. Every entry takes the caller's scope, and asks who that is."""

    @property
    def presence(self) -> Presence:
        """Who watches what, and which agents are up."""
        return self._config.presence

    # ── lifecycle

    async def start(
        self,
        conversation_id: str,
        *,
        scope: Scope = None,
        request_opts: Opts | None = None,
        initial_subscribers: Sequence[Subscriber] = (),
    ) -> SessionInfo:
        """Have the agent of a conversation up. Any number of callers boot it once.

        Args:
            conversation_id: 1 to 256 bytes of UTF-8, normal form C, no control characters.
            scope: the caller's.
            request_opts: for the router, as they are; kept, not copied. Ignored where the agent is up.
            initial_subscribers: see all of it from the first event on: subscribed before the agent can do anything.

        Returns:
            The agent; `started` is True for exactly one call per boot: the first that returns.

        Raises:
            ConversationNotFound: it is not this scope's.
            StartFailed: router, factory or store failed, or the boot was aborted by a stop; nothing is left.
            LimitExceeded: there are too many agents.
            SessionsClosed: the block was left, or is draining.

        Cancellation: the boot goes on; the initial subscribers that were new are withdrawn.
        """
        agent_id = self._agent_id(conversation_id, scope)
        opts = check_opts(request_opts)
        for subscriber in initial_subscribers:
            if not isinstance(subscriber, Subscriber):
                raise TypeError(f"initial_subscribers must be Subscribers, from open_subscriber; not {subscriber!r}")
        await self._ask_to_start(scope, conversation_id)
        admitted: list[Subscriber] = []
        for subscriber in initial_subscribers:
            if await self._runtime.access.allows(subscriber.scope, conversation_id, "view"):
                admitted.append(subscriber)
            else:
                await subscriber.subscribe(conversation_id)  # stays pending, as a refused one does
        return await self._start(agent_id, conversation_id, scope, opts, tuple(admitted), None)

    async def _start(  # the one place where a start meets its subscribers
        self,
        agent_id: str,
        conversation_id: str,
        scope: Scope,
        opts: Opts,
        subscribers: tuple[Subscriber, ...],
        after: Cursor | str | None,
    ) -> SessionInfo:
        added: list[tuple[Subscriber, Subscription]] = []
        for subscriber in subscribers:
            subscription = subscriber.reserve(conversation_id, after=after)
            if subscription is not None:
                self._runtime.keep(subscription)
                added.append((subscriber, subscription))
        wanted = [subscriber.subscription(conversation_id) for subscriber in subscribers]
        for one in wanted:
            one.is_admitted = True
        try:
            entry = await self._starter.ensure(agent_id, conversation_id, scope, opts)
        except BaseException:
            for subscriber, subscription in added:
                subscriber.drop(subscription)
            raise
        # No checkpoint to the return: the first call that returns a boot is the one that started it.
        assert entry.live is not None
        for subscriber, one in zip(subscribers, wanted, strict=True):
            if one.is_closed and (again := subscriber.reserve(conversation_id, after=after)) is not None:
                self._runtime.keep(again)  # another call that shared it was cancelled, and took it away
        wanted = [subscriber.subscription(conversation_id) for subscriber in subscribers]
        self._starter.enrol(entry.live, wanted)
        started, entry.started_is_taken = not entry.started_is_taken, True
        return SessionInfo(entry.agent_id, conversation_id, handle_of(entry.live, scope), started)

    async def ensure_running(
        self, conversation_id: str, subscriber: Subscriber, *, request_opts: Opts | None = None, after: Cursor | str | None = None
    ) -> SessionInfo:
        """Have the agent up and the subscriber subscribed to it, in one step: no event falls in between. Twice is once.

        Args:
            conversation_id: the conversation.
            subscriber: from `open_subscriber`; its scope is the caller's.
            request_opts: as in `start`.
            after: the last place that was seen.

        Returns, raises: as `start`.

        Cancellation: the boot goes on; a subscription that this call made is withdrawn.
        """
        if not isinstance(subscriber, Subscriber):
            raise TypeError(f"subscriber must be a Subscriber, from open_subscriber; not {subscriber!r}")
        agent_id = self._agent_id(conversation_id, subscriber.scope)
        opts = check_opts(request_opts)
        place = Cursor.of(after)
        await self._ask_to_start(subscriber.scope, conversation_id)
        await self._runtime.access.require(subscriber.scope, conversation_id, "view")
        return await self._start(agent_id, conversation_id, subscriber.scope, opts, (subscriber,), place)

    async def stop(self, conversation_id: str, *, scope: Scope = None, grace_period: float = 0.0) -> bool:
        """Stop the agent of a conversation, and return when it has ended: its turn settled, its writes ended, its id free.

        From inside the agent's own task tree it only asks, and returns at once: the agent ends when its tool has.

        Args:
            conversation_id: the conversation; what is stored of it stays.
            scope: the caller's.
            grace_period: seconds that a running turn may take to finish first; 0 cuts it at once.

        Returns:
            True if there was an agent, or a boot that was aborted; False if there was none for this scope.

        Cancellation: the agent is stopped all the same.
        """
        agent_id = self._agent_id(conversation_id, scope)
        check_grace(grace_period)
        await trio.lowlevel.checkpoint_if_cancelled()
        allowed = await self._runtime.access.allows(scope, conversation_id, "stop")
        entry = self._entry(agent_id, conversation_id, scope) if allowed else None
        if entry is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return False
        await stop_entry(entry, grace_period)
        return True

    async def drain(self) -> DrainReport:
        """Accept no more starts, let running turns finish until `grace_period`, and settle the rest.

        Returns:
            What became of the agents. From inside an agent's own task tree, without waiting for that agent.

        Raises:
            SessionsClosed: the block was left.

        Cancellation: nothing starts any more all the same; the agents end in their own time.
        """
        self._check_open()
        return await drain_agents(self)

    # ── messages

    async def post(
        self,
        conversation_id: str,
        message: str | UserMessage,
        *,
        scope: Scope = None,
        message_id: str | None = None,
        overlap: Overlap = "queue",
        request_opts: Opts | None = None,
    ) -> Receipt:
        """Hand a conversation a message; wake its agent where it sleeps. Returns when the message is durable, not when answered.

        Args:
            conversation_id: the conversation.
            message: a text, or a `UserMessage`.
            scope: the caller's.
            message_id: unique in the conversation for ever; posting the same again gives the same receipt, `duplicate=True`.
            overlap: while a turn runs: "queue" answers in a turn after it, "steer" at its next model call, "interrupt" cuts it,
                "reject" raises `AgentBusy`.
            request_opts: as in `start`.

        Returns:
            The receipt; wait on it for the outcome of the turn that takes the message.

        Raises:
            ConversationNotFound, StartFailed, SessionsClosed: as `start`; nothing was done.
            AgentBusy, QueueFull, MessageConflict, LimitExceeded: as their names say; nothing was done.
            PersistenceError: it could not be stored; it is not acknowledged.

        Ordering: messages are answered in the order of their commits.

        Cancellation: either nothing was submitted, or the message is accepted and will be answered.
        """
        agent_id = self._agent_id(conversation_id, scope)
        opts = check_opts(request_opts)
        posted = Posted.of(message, message_id, overlap)
        self._check_open()
        await trio.lowlevel.checkpoint()
        await self._runtime.access.require(scope, conversation_id, "post")
        while True:
            entry = await self._starter.ensure(agent_id, conversation_id, scope, opts)
            assert entry.live is not None
            try:
                return await entry.live.intake.post(posted, scope)
            except AgentNotRunning:
                # Race: the agent closed between the look and the reservation, with nothing done; the next one takes it.
                if entry.phase is Phase.LIVE or is_inside(entry.task):
                    raise  # the host's preprocessor raised it; or the agent cannot end while its own tool waits for that
                await entry.wait_ended()

    async def cancel_turn(self, conversation_id: str, *, scope: Scope = None, turn_id: str | None = None) -> TurnOutcome | None:
        """Cut the running turn of a conversation; what was said is kept, and its agent stays up.

        Args:
            conversation_id: the conversation.
            scope: the caller's.
            turn_id: only if this turn runs; None is whichever runs.

        Returns:
            The settled outcome; `Completed` where it had just finished; None where nothing ran.

        Raises:
            ConversationNotFound: it is not there for this scope.

        Cancellation: the turn is cut all the same.
        """
        live = await self._find(conversation_id, scope, "cancel")
        return None if live is None else await cancel_turn(live, turn_id)

    # ── viewers

    @asynccontextmanager
    async def open_subscriber(self, *, scope: Scope = None) -> AsyncIterator[Subscriber]:
        """Open a mailbox of events for one task of the host; all its subscriptions end with the block.

        Cancellation: either the mailbox is open, or nothing was done; leaving the block ends all of it.
        """
        self._check_open()
        subscriber = self._new(Subscriber, scope)
        try:
            await trio.lowlevel.checkpoint()
            yield subscriber
        finally:
            self._close(subscriber)

    def watch(
        self,
        conversation_id: str,
        *,
        scope: Scope = None,
        viewer: str | None = None,
        after: Cursor | str | None = None,
        request_opts: Opts | None = None,
    ) -> AbstractAsyncContextManager[Watch]:
        """Watch a conversation: a subscriber, its agent up, and the viewer present while the block is open.

        Args:
            conversation_id: the conversation.
            scope: the caller's.
            viewer: who watches; None watches unseen: without a viewer the agent may leave.
            after: the last place that was seen.
            request_opts: as in `start`.

        Raises: as `start`.

        Cancellation: nothing is left but the agent, which goes on.
        """
        self._agent_id(conversation_id, scope)
        if viewer is not None:
            check_id("viewer", viewer)
        return self._watch(conversation_id, scope, viewer, Cursor.of(after), check_opts(request_opts))

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
        self, conversation_id: str, scope: Scope, viewer: str | None, after: Cursor | None, opts: Opts
    ) -> AsyncIterator[Watch]:
        self._check_open()
        watch = self._new(Watch, scope)
        try:
            watch.info = await self.ensure_running(conversation_id, watch, request_opts=opts, after=after)
            if viewer is None:
                yield watch
            else:
                async with self.presence.track(conversation_topic(conversation_id), viewer):
                    yield watch
        finally:
            self._close(watch)

    def _new(self, kind: type[S], scope: Scope) -> S:
        policy = self._config.policy
        owner = self._runtime.access.owner_of(scope)  # a scope without an owner key is refused here
        subscriber = kind(self._runtime, scope, owner, policy.subscriber_events, policy.subscriber_text)
        self._subscribers[subscriber] = None
        return subscriber

    def _close(self, subscriber: Subscriber) -> None:
        self._subscribers.pop(subscriber, None)
        subscriber.close()

    # ── closing, for the composition root

    def close(self) -> None:
        """Refuse every entry from now on."""
        self._is_over = True
        self._starter.is_closed = True

    def hang_up(self) -> None:
        """Tell whoever still reads that the last event is out."""
        for subscriber in self._subscribers:
            subscriber.hang_up()
