"""A mirror: the agent of a conversation that runs on another node, as the registry and the handles of this node see it.

A mirror has feeds of its own, with the incarnation and the numbers of the agent's, so that a cursor is good on every node. Every command
goes to the agent's node, and its answer comes back with its type. A mirror decides nothing.

A mirror ends

- with the agent: its subscribers get the agent's own last event;
- when the node of the agent does not have the conversation any more: then its subscribers get an `AgentShutdown` with the reason FENCED.
  That event has no number of its own, for only the agent gives numbers; if the agent turns out to be there, everything goes on behind it;
- when nobody has needed it for a while: the agent does not notice.
"""

import contextlib
import functools
import logging
import math
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import attrs
import trio

from trio_sagents._trio.tree import is_within
from trio_sagents.broadcast import Feed, Subscription
from trio_sagents.conversation.messages_in import Posted
from trio_sagents.data.cursors import Channel
from trio_sagents.data.decisions import Decision
from trio_sagents.data.events import AgentShutdown, Event, Gap, MiddlewareEvent, Snapshot
from trio_sagents.data.ids import new_token
from trio_sagents.data.json import JSONValue, Opaque, Options, plain_json
from trio_sagents.data.messages import Poster
from trio_sagents.data.outcomes import TurnOutcome, Unanswered
from trio_sagents.data.records import Row
from trio_sagents.data.scopes import Scope
from trio_sagents.data.state import State
from trio_sagents.data.status import ShutdownReason, Status
from trio_sagents.exceptions import AgentNotRunning, RegistryUnavailable, SagentsError
from trio_sagents.nodes._letters import (
    Accepted,
    Acknowledge,
    AddRows,
    Attached,
    CutTurn,
    Decide,
    Detach,
    Done,
    Events,
    Follow,
    Followed,
    Look,
    Looked,
    Notify,
    PostMessage,
    Publish,
    ReadState,
    Reply,
    Request,
    Settled,
    StateRead,
    Stop,
    Touch,
    Unfollow,
    WaitIdle,
    WaitOutcome,
)
from trio_sagents.nodes._post_office import PostOffice
from trio_sagents.nodes._present import Present
from trio_sagents.nodes._wire import Told, check_event
from trio_sagents.supervisor._bell import Bell
from trio_sagents.supervisor._info import AgentInfo
from trio_sagents.supervisor._journal import wall_clock
from trio_sagents.supervisor._receipts import PendingOutcome, Receipt
from trio_sagents.supervisor._registry import Entry, Phase, end_entry
from trio_sagents.supervisor._services import Services

TOUCHES: Final = 1.0
"""Seconds between two touches."""
LINGER: Final = 1.0
"""Seconds for which a mirror waits for the last events of an agent that is known to have ended."""
log: Final = logging.getLogger("trio_sagents")
REFUSED: Final = (SagentsError, LookupError, TypeError, ValueError)
"""What the agent's node may answer instead of what was asked for."""
R = TypeVar("R", bound=Reply)


@attrs.define(eq=False)
class _OutcomeElsewhere(PendingOutcome):
    """The outcome of a turn of an agent on another node: asked for when somebody waits for it."""

    office: PostOffice | None = None
    node_id: str = ""
    request: WaitOutcome | None = None
    _is_asked: bool = False

    async def wait(self) -> TurnOutcome:
        """Wait for the outcome."""
        if not self._is_asked and self.outcome is None:
            self._is_asked = True
            assert self.office is not None
            self.office.ask(self._ask)
        return await super().wait()

    async def _ask(self) -> None:
        reason: ShutdownReason | str = ShutdownReason.CLOSED
        try:
            assert self.office is not None
            assert self.request is not None
            _, reply = await self.office.call(self.node_id, self.request)
            if isinstance(reply, Settled) and reply.outcome is not None:
                self.settle(reply.outcome)
            reason = "the agent's node gave no outcome"
        except AgentNotRunning:
            reason = ShutdownReason.FENCED
        except REFUSED as exc:
            reason = f"the agent's node gave no outcome: {exc}"
        finally:
            self.settle(Unanswered(reason))


@attrs.define(eq=False)
class _Stream:
    """The events of the agent on one channel."""

    channel: Channel
    number: int = 0
    """Of the last time that the agent's node was asked for them."""
    feed: Feed | None = None
    """None until its first answer has come."""
    last: int = 0
    """The number of the last event that has come. If it is greater than that of the feed, those between did not travel."""
    waiting: dict[Subscription, None] = attrs.field(factory=dict)
    """The subscriptions that are enrolled once the feed has come as far as their places."""
    is_asking: bool = False
    is_followed: bool = False
    """Whether the agent's node tells its events, or is asked to."""
    was_read: bool = True
    """Whether somebody followed it at the last look."""
    dropped: int = 0
    """The number of the last event that came while the agent's node was asked: the answer may be older than that event."""
    is_doubtful: bool = False
    """Whether mails of the agent's node were missing while it was asked: it may tell nothing any more, though its answer comes."""


@attrs.define(eq=False)
class Mirror:
    """The agent of a conversation on another node; implements `OwnedAgent`."""

    entry: Entry
    services: Services = attrs.field(repr=False)
    office: PostOffice = attrs.field(repr=False)
    node_id: str
    """Of the agent's node."""
    attached: Attached
    _replay_events: int
    _idle_timeout: float
    """Seconds without subscriptions and calls after which the mirror ends."""
    _present: Present = attrs.field(factory=Present)
    _streams: dict[Channel, _Stream] = attrs.field(factory=dict)
    _bell: Bell = attrs.field(factory=Bell)
    _calls: int = 0
    _over: ShutdownReason | None = None
    """Why the agent has ended, once that is known."""
    _over_at: float | None = None
    """Trio time: when a mirror ends that waits for the last events of its agent."""
    _touched: float = -math.inf
    """Trio time of the last touch."""

    # ── beginning

    def go_live(self) -> None:
        """Accept commands, and enrol whoever waits. No checkpoint: nobody sees half of it."""
        self.entry.live = self
        self.entry.has_booted = True
        self.entry.phase = Phase.LIVE
        self.entry.started_is_taken = True  # whoever started the agent was told so on its node
        access = self.services.access
        for subscription in tuple(self.services.subscriptions.get(self.entry.conversation_id, ())):
            if not access.sees(subscription.owner, self.entry.owner):
                continue
            if access.is_synchronous or subscription.is_admitted:
                self.enrol(subscription)
            else:
                self.services.viewer_admission.agent_came(subscription, None, self.services.enrol)
        self.entry.become_ready()

    async def serve(self) -> None:
        """Repeat the agent's events until it is time to leave."""
        while True:
            entry = self.entry
            if entry.is_leaving and self._over_at is None:
                return
            if self._over is not None:
                entry.phase = Phase.STOPPING
                entry.reason = self._over
                return
            deadline = self._over_at
            is_idle = deadline is None and self._is_unused()
            if is_idle:
                deadline = trio.current_time() + self._idle_timeout
            with trio.CancelScope(deadline=math.inf if deadline is None else deadline) as scope:
                await self._bell.wait()
            if not scope.cancelled_caught:
                continue
            # No checkpoint from the look to the close.
            if self._over_at is not None:
                self._over = ShutdownReason.FENCED
            elif is_idle and self._is_unused():
                entry.phase = Phase.STOPPING
                entry.reason = ShutdownReason.INACTIVITY
                return

    def _is_unused(self) -> bool:
        subscriptions = (stream.waiting or (stream.feed is not None and stream.feed.subscriptions) for stream in self._streams.values())
        return not self._calls and not self.entry.is_awaited and not any(subscriptions)

    # ── commands

    async def _ask(self, request: Request, kind: type[R]) -> tuple[int, R]:
        if self.entry.has_ended or self._over is not None:
            raise self.entry.not_running()
        self._calls += 1
        try:
            number, reply = await self.office.call(self.node_id, request)
        except AgentNotRunning as exc:
            if exc.conversation_id == self.entry.conversation_id:
                self._note_end()
            raise
        finally:
            self._calls -= 1
            self._bell.ring()
        if not isinstance(reply, kind):
            raise RegistryUnavailable(f"node {self.node_id} has answered {type(reply).__name__}, where {kind.__name__} is due")
        return number, reply

    def _note_end(self) -> None:
        """Note that the agent has ended: refuse commands, and wait a little for its last events."""
        if self.entry.phase is Phase.LIVE:
            self.entry.phase = Phase.STOPPING
            self._over_at = trio.current_time() + LINGER
            self._bell.ring()

    def _poster_of(self, actor: Scope) -> Poster | None:
        return self.services.access.poster_of(actor)

    def _receipt(self, call: int, accepted: Accepted) -> Receipt:
        request = WaitOutcome(self.entry.conversation_id, call)
        pending = _OutcomeElsewhere(office=self.office, node_id=self.node_id, request=request)
        return Receipt(accepted.message_id, duplicate=accepted.duplicate, pending=pending)

    async def post(self, posted: Posted, actor: Scope) -> Receipt:
        """Have the agent accept a message."""
        if not self.entry.is_accepting:
            raise self.entry.not_running()
        conversation_id, poster = self.entry.conversation_id, self._poster_of(actor)
        values = _travelling(posted.values, "the values of a post")
        assert isinstance(values, dict)
        call, accepted = await self._ask(
            PostMessage(
                conversation_id,
                posted.message,
                posted.message_id or f"{new_token()}{new_token()}",
                posted.overlap,
                posted.display,
                values,
                poster,
                posted.is_unattended or is_within(self.services.nursery),
            ),
            Accepted,
        )
        return self._receipt(call, accepted)

    async def resume(self, decisions: Sequence[Decision], actor: Scope) -> Receipt:
        """Have the agent record decisions."""
        if not self.entry.is_accepting:
            raise self.entry.not_running()
        poster = self._poster_of(actor)
        call, accepted = await self._ask(Decide(self.entry.conversation_id, decisions, poster), Accepted)
        return self._receipt(call, accepted)

    async def dismiss(self, actor: Scope, interrupt_id: str | None = None) -> None:
        """Have the agent acknowledge a halt."""
        if not self.entry.is_accepting:
            raise self.entry.not_running()
        poster = self._poster_of(actor)
        await self._ask(Acknowledge(self.entry.conversation_id, interrupt_id, poster), Done)

    async def add_rows(self, rows: Sequence[Row], actor: Scope) -> None:
        """Have the agent add rows to the transcript."""
        if not self.entry.is_accepting:
            raise self.entry.not_running()
        keyed = tuple(keyed_row(row) for row in rows)
        await self._ask(AddRows(self.entry.conversation_id, keyed, self._poster_of(actor)), Done)

    def publish(self, event: Event, channel: Channel) -> None:
        """Have the agent send an event of the host's to the subscribers.

        Raises:
            TypeError: the event cannot travel.
        """
        assert isinstance(event, MiddlewareEvent)
        check_event(event)
        self.office.ask(functools.partial(self._try, Publish(self.entry.conversation_id, event, channel)))

    async def _try(self, request: Request) -> None:
        """Ask for something whose answer nobody waits for."""
        try:
            await self._ask(request, Done)
        except AgentNotRunning:
            pass  # the agent has ended: there is nobody to tell
        except REFUSED as exc:
            log.warning("node %s refused %s for conversation %r: %s", self.node_id, type(request).__name__, request.conversation_id, exc)

    async def notify(self, middleware_id: str, message: Opaque) -> None:
        """Have the agent hand a message to a middleware."""
        plain = _travelling(message, "a message to a middleware")
        await self._ask(Notify(self.entry.conversation_id, middleware_id, plain), Done)

    async def cancel_turn(self, turn_id: str | None) -> TurnOutcome | None:
        """Have the agent cut the running turn, and return its outcome; None if nothing, or another turn, runs."""
        try:
            _, settled = await self._ask(CutTurn(self.entry.conversation_id, turn_id), Settled)
        except AgentNotRunning:
            return None
        return settled.outcome

    def touch(self) -> None:
        """Have the agent renew its idle clock."""
        now = trio.current_time()
        if now >= self._touched + TOUCHES:
            self._touched = now
            self.office.ask(functools.partial(self._try, Touch(self.entry.conversation_id)))

    async def stop(self, grace_period: float) -> None:
        """Have the agent stopped, and return when it has ended."""
        if self.entry.phase is not Phase.LIVE:
            await end_entry(self.entry, grace_period)
            return
        with contextlib.suppress(AgentNotRunning):  # it has ended already
            await self._ask(Stop(self.entry.conversation_id, grace_period), Done)
        self._note_end()
        await self.entry.wait_ended()

    # ── looking

    @property
    def incarnation(self) -> str:
        """Names the agent among all that ever ran for its conversation."""
        return self.attached.incarnation

    @property
    def options(self) -> Options:
        """Those of the host's own options of the session that are plain JSON."""
        return self.attached.options

    @property
    def is_remote(self) -> bool:
        """True: the agent runs on another node."""
        return True

    @property
    def grace_period(self) -> float:
        """Nothing runs here that could take time."""
        return 0.0

    @property
    def is_at_rest(self) -> bool:
        """Nothing runs here."""
        return True

    @property
    def is_running(self) -> bool:
        """No turn runs here."""
        return False

    @property
    def queued(self) -> int:
        """No message waits here."""
        return 0

    @property
    def was_cut(self) -> bool:
        """No turn of this node was cut."""
        return False

    def info(self, *, with_middleware: bool = False) -> AgentInfo:  # as of the protocol
        """Return the picture of the agent of the time when this mirror began."""
        return self.attached.info

    async def look(self) -> AgentInfo:
        """Return a picture of the agent, with the settings of its middleware."""
        _, looked = await self._ask(Look(self.entry.conversation_id), Looked)
        return looked.info

    async def read_state(self) -> State:
        """Return the last committed state."""
        _, read = await self._ask(ReadState(self.entry.conversation_id), StateRead)
        return read.state

    async def wait_idle(self) -> None:
        """Wait until the agent is at rest; raise AgentNotRunning if it ended first."""
        await self._ask(WaitIdle(self.entry.conversation_id), Done)

    # ── events

    def enrol(self, subscription: Subscription) -> None:
        """Let a subscription follow the agent: at once if its place is known here, otherwise when the agent's node has answered."""
        stream = self._stream(subscription.channel)
        feed, place = stream.feed, subscription.place
        # The place may come from another node, which has already told what this one has not heard of.
        is_ahead = feed is not None and place is not None and place.incarnation == feed.incarnation and place.seq > feed.seq
        if feed is not None and stream.is_followed and not is_ahead:
            subscription.enrol(feed)
        else:
            stream.waiting[subscription] = None
            self._follow(stream)
        self._bell.ring()

    def _stream(self, channel: Channel) -> _Stream:
        stream = self._streams.get(channel)
        if stream is None:
            stream = self._streams[channel] = _Stream(channel)
        if channel != "main" and not (main := self._stream("main")).is_followed:
            self._follow(main)  # only the main channel tells what a snapshot shows
        return stream

    def _follow(self, stream: _Stream) -> None:
        """Ask the agent's node for the events of a channel."""
        if not stream.is_asking:
            stream.is_asking = stream.is_followed = True
            stream.number = self.office.new_number()
            self.office.ask(functools.partial(self._try_follow, stream, stream.number))

    async def _try_follow(self, stream: _Stream, number: int) -> None:
        incarnation = self.attached.incarnation
        after = stream.last if stream.feed is not None else next(iter(_places(stream.waiting, incarnation)), None)
        places = () if after is None else _places(stream.waiting, incarnation)
        request = Follow(self.entry.conversation_id, incarnation, stream.channel, number, after, places)
        try:
            await self.office.call(self.node_id, request, functools.partial(self._begin, stream, after))
        except AgentNotRunning:
            self._note_end()
        except REFUSED as exc:
            log.warning("node %s does not tell the events of conversation %r: %s", self.node_id, self.entry.conversation_id, exc)
            self.end_with(ShutdownReason.FENCED)
        finally:
            if stream.number == number:
                stream.is_asking = False

    def _begin(self, stream: _Stream, after: int | None, reply: Reply) -> None:
        """Take the present of the agent. In the step in which the answer arrives, for what comes behind the answer continues it."""
        if not isinstance(reply, Followed) or reply.stream != stream.number or self.entry.has_ended:
            return
        stream.is_asking = False
        events = None if after is None else reply.events
        if stream.feed is None:
            attached, first = self.attached, reply.seq if events is None or after is None else after
            stream.last = first
            stream.feed = Feed(
                attached.agent_id,
                self.entry.conversation_id,
                attached.incarnation,
                stream.channel,
                self._replay_events,
                self._present.snapshot,
                seq=first,
            )
        feed = stream.feed
        for told in events or ():
            self._repeat(stream, feed, told)
        if stream.last != reply.seq:
            feed.skip_to(reply.seq)
            stream.last = reply.seq
        if stream.channel == "main" or self._stream("main").feed is None:
            self._present.apply(reply.snapshot)
        for subscription in tuple(stream.waiting):
            del stream.waiting[subscription]
            if not subscription.is_closed and subscription.state == "pending":
                subscription.enrol(feed)
        if stream.is_doubtful or stream.dropped > stream.last:
            stream.is_doubtful = False
            self._follow(stream)

    def receive(self, events: Events) -> None:
        """Repeat events of the agent, or ask for the present if some before them are missing."""
        stream = self._streams.get(events.channel)
        if stream is None or stream.number != events.stream:
            self.office.send(self.node_id, Unfollow(events.conversation_id, events.channel, events.stream))
            return
        feed = stream.feed
        if feed is None or stream.is_asking:
            # Race: the answer was lost, and comes again, or comes later: then it does not have these events
            # (test_viewer_when_mail_is_lost).
            stream.dropped = max((stream.dropped, *(told.seq for told in events.events)))
            return
        for told in events.events:
            if not self._repeat(stream, feed, told):
                self._follow(stream)
                return

    def _repeat(self, stream: _Stream, feed: Feed, told: Told) -> bool:
        """Append one event to the feed; return False if events before it are missing."""
        event, continues = told.event, told.first_seq == stream.last + 1
        if isinstance(event, Gap):
            # This node was too slow for its agent's node: the present follows.
            feed.skip_to(told.seq)
            stream.last = told.seq
            return True
        if isinstance(event, Snapshot) and not continues:  # it has no number of its own
            if told.seq == stream.last and stream.channel == "main":
                self._present.apply(event)
            return told.seq == stream.last
        if not continues:
            return False
        stream.last = told.seq
        if event is not None:
            if stream.channel == "main":
                self._present.apply(event)
            feed.republish(event, feed.seq + 1, told.seq)
        return True

    def missed(self) -> None:
        """Mails of the agent's node are missing: ask for the present."""
        for stream in tuple(self._streams.values()):
            stream.is_doubtful = stream.is_asking
            if stream.is_followed:
                self._follow(stream)

    def trim(self) -> None:
        """Have the agent's node tell nothing that nobody here has followed since the last look."""
        is_read = False
        for stream in sorted(self._streams.values(), key=lambda stream: stream.channel == "main"):
            # The main channel comes last: it is needed as long as another channel is followed.
            is_read = is_read or bool(stream.waiting) or (stream.feed is not None and bool(stream.feed.subscriptions))
            if not is_read and not stream.was_read and stream.is_followed and not stream.is_asking:
                stream.is_followed = False
                self.office.send(self.node_id, Unfollow(self.entry.conversation_id, stream.channel, stream.number))
                stream.number = 0
            stream.was_read = is_read

    # ── ending

    def end_with(self, reason: ShutdownReason) -> None:
        """The agent has ended, and all of its events have come; or it is lost."""
        if self._over is None:
            self._over = reason
            self._bell.ring()

    def wake(self) -> None:
        """Have the mirror's task look whether it may leave."""
        self._bell.ring()

    def finish_work(self) -> None:
        """Nothing runs here."""
        self._bell.ring()

    async def wait_settled(self) -> None:
        """Nothing is written here."""
        await trio.lowlevel.checkpoint()

    def end(self, reason: ShutdownReason) -> None:
        """Let the subscribers go, with the agent's last event; synchronous, and once."""
        self._over = reason
        for stream in self._streams.values():
            feed = stream.feed
            if feed is None:
                continue
            last = () if feed.shutdown() else (feed.lone(self._shutdown(reason)),)
            for subscription in tuple(feed.subscriptions):
                if isinstance(subscription, Subscription):
                    subscription.end(last)
        self._streams = {}
        self.entry.shutdown_reason = reason
        self.office.send(self.node_id, Detach(self.entry.conversation_id))

    def _shutdown(self, reason: ShutdownReason) -> AgentShutdown:
        present, now = self._present, wall_clock()
        interrupt = present.interrupt
        restorable = present.status is Status.INTERRUPTED and interrupt is not None and interrupt.restorable
        return AgentShutdown(reason, present.status, present.queued, restorable, self.attached.info.last_activity_at, now)


def _places(waiting: Iterable[Subscription], incarnation: str) -> Sequence[int]:
    """Return the places of some subscriptions in the events of an agent, in order."""
    places = [subscription.place for subscription in waiting]
    return tuple(sorted({place.seq for place in places if place is not None and place.incarnation == incarnation}))


def keyed_row(row: Row) -> Row:
    """Return a row with a key, so that it is there once, however often it is sent."""
    return row if row.key is not None else attrs.evolve(row, key=f"{new_token()}{new_token()}")


def _travelling(value: Opaque, what: str) -> JSONValue:
    """Return a value of the host's as plain JSON; TypeError if it has no such form."""
    try:
        return plain_json(value)
    except (TypeError, ValueError, RecursionError) as exc:
        raise TypeError(f"the agent runs on another node, so {what} must be plain JSON: {exc}") from exc
