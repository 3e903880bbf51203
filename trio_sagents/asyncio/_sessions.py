"""`Sessions`, the front door, for asyncio: the methods of `trio_sagents.Sessions`, in the same order."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import attrs

import trio_sagents
from trio_sagents import (
    AgentInfo,
    Channel,
    ConversationPage,
    Cursor,
    Decision,
    DrainReport,
    HistoryPage,
    MiddlewareEvent,
    Overlap,
    Row,
    Scope,
    SessionsStatistics,
    TurnOutcome,
    UserMessage,
    WaitingPage,
)
from trio_sagents.asyncio._crossing import call_asyncio
from trio_sagents.asyncio._handles import AgentHandle, Receipt, SessionInfo, info_of
from trio_sagents.asyncio._job import Held
from trio_sagents.asyncio._presence import Presence
from trio_sagents.asyncio._readers import Entering, Page, Reading, Subscriber, Watch
from trio_sagents.asyncio._streams import Streams
from trio_sagents.data.json import Opaque, Options
from trio_sagents.sessions._page import ReadHistory


@attrs.define(eq=False)
class Sessions(Streams):
    """All conversations of one `open_sessions` block, for tasks of asyncio. As `trio_sagents.Sessions`, whose pages say the details.

    Use it in the loop that opened it: every method raises RuntimeError elsewhere.

    Cancellation: a cancelled task waits until its call has ended in Trio, so nothing continues behind its back. The call leaves what its
    namesake of `trio_sagents.Sessions` leaves when it is cancelled.
    """

    @property
    def trio(self) -> trio_sagents.Sessions:
        """The sessions in Trio: for tools, for applications of `asyncio_app`, and for all other code that runs in Trio."""
        return self._block.trio

    @property
    def presence(self) -> Presence:
        """Who watches what, and which agents are running."""
        return Presence(self._block, self.trio.presence)

    # ── lifecycle

    async def start(
        self,
        conversation_id: str,
        *,
        scope: Scope = None,
        request_opts: Options | None = None,
        initial_subscribers: Sequence[Subscriber] = (),
    ) -> SessionInfo:
        """Have the agent of a conversation running. As `trio_sagents.Sessions.start`."""
        subscribers = tuple(_in_trio(subscriber) for subscriber in initial_subscribers)
        info = await self._block.call(
            self.trio.start, conversation_id, scope=scope, request_opts=request_opts, initial_subscribers=subscribers
        )
        return info_of(self._block, info)

    async def ensure_running(
        self,
        conversation_id: str,
        subscriber: Subscriber,
        *,
        request_opts: Options | None = None,
        after: Cursor | str | None = None,
        tag: Opaque = None,
    ) -> SessionInfo:
        """Have the agent running and the subscriber subscribed to it. As `trio_sagents.Sessions.ensure_running`."""
        info = await self._block.call(
            self.trio.ensure_running, conversation_id, _in_trio(subscriber), request_opts=request_opts, after=after, tag=tag
        )
        return info_of(self._block, info)

    async def stop(self, conversation_id: str, *, scope: Scope = None, grace_period: float = 0.0) -> bool:
        """Stop the agent of a conversation, and return when it has ended. As `trio_sagents.Sessions.stop`."""
        return await self._block.call(self.trio.stop, conversation_id, scope=scope, grace_period=grace_period)

    async def drain(self) -> DrainReport:
        """Start no agent any more, and let running turns finish. As `trio_sagents.Sessions.drain`."""
        return await self._block.call(self.trio.drain)

    def ready(self) -> bool:
        """Return whether a load balancer may send requests here. As `trio_sagents.Sessions.ready`."""
        self._block.guest.check_here("ready")
        return self.trio.ready()

    # ── messages

    async def post(  # noqa: PLR0913  # as in Trio
        self,
        conversation_id: str,
        message: str | UserMessage,
        *,
        scope: Scope = None,
        message_id: str | None = None,
        overlap: Overlap = "queue",
        display: str | UserMessage | None = None,
        values: Options | None = None,
        request_opts: Options | None = None,
    ) -> Receipt:
        """Hand a conversation a message. Returns when the message is durable. As `trio_sagents.Sessions.post`."""
        receipt = await self._block.call(
            self.trio.post,
            conversation_id,
            message,
            scope=scope,
            message_id=message_id,
            overlap=overlap,
            display=display,
            values=values,
            request_opts=request_opts,
        )
        return Receipt(self._block, receipt)

    async def cancel_turn(self, conversation_id: str, *, scope: Scope = None, turn_id: str | None = None) -> TurnOutcome | None:
        """Cut the running turn of a conversation. As `trio_sagents.Sessions.cancel_turn`."""
        return await self._block.call(self.trio.cancel_turn, conversation_id, scope=scope, turn_id=turn_id)

    async def add_rows(
        self, conversation_id: str, rows: Sequence[Row], *, scope: Scope = None, request_opts: Options | None = None
    ) -> None:
        """Add rows of the host's own to the transcript. As `trio_sagents.Sessions.add_rows`."""
        await self._block.call(self.trio.add_rows, conversation_id, rows, scope=scope, request_opts=request_opts)

    async def publish(self, conversation_id: str, event: MiddlewareEvent, *, scope: Scope = None, channel: Channel = "main") -> bool:
        """Send an event of the host's own to those who follow a conversation now. As `trio_sagents.Sessions.publish`."""
        return await self._block.call(self.trio.publish, conversation_id, event, scope=scope, channel=channel)

    # ── decisions

    async def resume(
        self, conversation_id: str, decisions: Sequence[Decision], *, scope: Scope = None, request_opts: Options | None = None
    ) -> Receipt:
        """Decide calls that wait. Returns when the decisions are durable. As `trio_sagents.Sessions.resume`."""
        return Receipt(
            self._block, await self._block.call(self.trio.resume, conversation_id, decisions, scope=scope, request_opts=request_opts)
        )

    async def dismiss(
        self, conversation_id: str, *, scope: Scope = None, interrupt_id: str | None = None, request_opts: Options | None = None
    ) -> None:
        """Acknowledge a halt. As `trio_sagents.Sessions.dismiss`."""
        await self._block.call(self.trio.dismiss, conversation_id, scope=scope, interrupt_id=interrupt_id, request_opts=request_opts)

    # ── viewers

    def open_subscriber(self, *, scope: Scope = None) -> AbstractAsyncContextManager[Subscriber]:
        """Open a mailbox of events. As `trio_sagents.Sessions.open_subscriber`.

        Cancellation: either the mailbox is open, or nothing was done; leaving the block closes it.
        """
        block = self._block

        def reader(held: Held[trio_sagents.Subscriber], subscriber: trio_sagents.Subscriber) -> Subscriber:
            return Subscriber(Reading.of(block, held), subscriber)

        return Entering(block, self.trio.open_subscriber(scope=scope), reader)

    def watch(
        self,
        conversation_id: str,
        *,
        scope: Scope = None,
        viewer: str | None = None,
        after: Cursor | str | None = None,
        tag: Opaque = None,
        request_opts: Options | None = None,
    ) -> AbstractAsyncContextManager[Watch]:
        """Watch a conversation: its agent is running, and the viewer is present, while the block is open.

        As `trio_sagents.Sessions.watch`. Several tasks may hold watches of one conversation.
        """
        block = self._block

        def reader(held: Held[trio_sagents.Watch], watch: trio_sagents.Watch) -> Watch:
            return Watch(Reading.of(block, held), watch, info_of(block, watch.info))

        watching = self.trio.watch(conversation_id, scope=scope, viewer=viewer, after=after, tag=tag, request_opts=request_opts)
        return Entering(block, watching, reader)

    def page(
        self,
        conversation_id: str,
        *,
        scope: Scope = None,
        viewer: str | None = None,
        after: Cursor | str | None = None,
        limit: int = 100,
        history: ReadHistory | None = None,
        request_opts: Options | None = None,
    ) -> AbstractAsyncContextManager[Page]:
        """Open a page of a conversation: its transcript and its present, merged. As `trio_sagents.Sessions.page`.

        `history`, if it is given, is a function of asyncio.
        """
        block = self._block

        def reader(held: Held[trio_sagents.Page], page: trio_sagents.Page) -> Page:
            return Page(Reading.of(block, held), page)

        opening = self.trio.page(
            conversation_id,
            scope=scope,
            viewer=viewer,
            after=after,
            limit=limit,
            history=None if history is None else _in_asyncio(history),
            request_opts=request_opts,
        )
        return Entering(block, opening, reader)

    # ── looking at agents

    async def running(self, conversation_id: str, *, scope: Scope = None) -> bool:
        """Return whether the agent is running and accepts commands. As `trio_sagents.Sessions.running`."""
        return await self._block.call(self.trio.running, conversation_id, scope=scope)

    async def get(self, conversation_id: str, *, scope: Scope = None) -> AgentHandle:
        """Return a handle of the running agent. As `trio_sagents.Sessions.get`."""
        return AgentHandle(self._block, await self._block.call(self.trio.get, conversation_id, scope=scope))

    async def agent_info(self, conversation_id: str, *, scope: Scope = None) -> AgentInfo:
        """Return a picture of the running agent. As `trio_sagents.Sessions.agent_info`."""
        return await self._block.call(self.trio.agent_info, conversation_id, scope=scope)

    async def list_running(self, *, scope: Scope = None) -> Sequence[AgentInfo]:
        """Return the running agents that this scope may list. As `trio_sagents.Sessions.list_running`."""
        return await self._block.call(self.trio.list_running, scope=scope)

    async def list_matching(self, pattern: str, *, scope: Scope = None) -> Sequence[AgentInfo]:
        """Return the running agents whose agent id matches a glob pattern. As `trio_sagents.Sessions.list_matching`."""
        return await self._block.call(self.trio.list_matching, pattern, scope=scope)

    async def agent_count(self, *, scope: Scope = None) -> int:
        """Return how many running agents this scope may list. As `trio_sagents.Sessions.agent_count`."""
        return await self._block.call(self.trio.agent_count, scope=scope)

    def statistics(self) -> SessionsStatistics:
        """Return counts, over all scopes. As `trio_sagents.Sessions.statistics`."""
        self._block.guest.check_here("statistics")
        return self.trio.statistics()

    # ── what is stored

    async def history(self, conversation_id: str, *, scope: Scope = None, before: str | None = None, limit: int = 100) -> HistoryPage:
        """Return a page of the transcript. As `trio_sagents.Sessions.history`."""
        return await self._block.call(self.trio.history, conversation_id, scope=scope, before=before, limit=limit)

    async def conversations(self, *, scope: Scope = None, after: str | None = None, limit: int = 100) -> ConversationPage:
        """Return a page of the stored conversations. As `trio_sagents.Sessions.conversations`."""
        return await self._block.call(self.trio.conversations, scope=scope, after=after, limit=limit)

    async def waiting(self, *, scope: Scope = None, after: str | None = None, limit: int = 100) -> WaitingPage:
        """Return a page of the stored conversations that wait for a person. As `trio_sagents.Sessions.waiting`."""
        return await self._block.call(self.trio.waiting, scope=scope, after=after, limit=limit)

    async def delete(self, conversation_id: str, *, scope: Scope = None) -> bool:
        """Delete a conversation and its transcript. As `trio_sagents.Sessions.delete`."""
        return await self._block.call(self.trio.delete, conversation_id, scope=scope)


def _in_asyncio(history: ReadHistory) -> ReadHistory:
    """Return a function of Trio that calls a function of asyncio."""

    async def read(*, before: str | None, limit: int) -> HistoryPage:
        return await call_asyncio(lambda: history(before=before, limit=limit))

    return read


def _in_trio(subscriber: Subscriber) -> trio_sagents.Subscriber:
    if not isinstance(subscriber, Subscriber):
        raise TypeError(f"a subscriber must come from open_subscriber of these sessions, not be {subscriber!r}")
    return subscriber.trio
