"""One subscriber's place in the events of one conversation, across all the agents that come and go there.

A subscription is *pending* while it follows no agent. It is enrolled by itself when the next agent comes up. What the reader has not
taken of agents that have ended is kept in a bounded backlog until the reader takes it. Everything here is synchronous, so no event can
fall between two steps.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import attrs
import trio

from trio_sagents.broadcast._backlog import Backlog, bounded, missed
from trio_sagents.broadcast._feed import Feed, text_size
from trio_sagents.data.cursors import Channel, Cursor
from trio_sagents.data.events import Envelope, Gap, Snapshot, StateRestored
from trio_sagents.data.json import Opaque
from trio_sagents.data.records import Owner
from trio_sagents.data.scopes import Scope


def _recall_nothing(_: "Subscription") -> Sequence[Envelope]:
    return ()


@attrs.frozen(eq=False)
class Mailbox:
    """What a subscription needs of its subscriber."""

    announce: "Callable[[Subscription], None]"
    """Puts the subscription into the channel of the subscriber."""
    recall: "Callable[[Subscription], Sequence[Envelope]]" = _recall_nothing
    """Takes back what the subscriber has taken and not handed to the reader yet, in order."""


@attrs.define(eq=False)
class Subscription:
    """The subscription of one subscriber to one conversation on one channel."""

    conversation_id: str
    channel: Channel
    scope: Scope = attrs.field(repr=False)
    """The subscriber's scope. Whoever enrols the subscription asks whether this scope may see the agent."""
    owner: Owner
    """The owner key of the scope, as it was when the subscriber was opened."""
    most_events: int
    most_text: int
    _mailbox: Mailbox = attrs.field(repr=False)
    _place: Cursor | Feed | None = None
    """The last place that was given to the reader, or is about to be: of an earlier agent, or of `feed` at `_seen`. None at first."""
    feed: Feed | None = None
    """The feed of the live agent; None while the subscription is pending."""
    is_announced: bool = False
    # Invariant: true exactly while this subscription is in its subscriber's channel. It is there at most once, so the channel is bounded.
    is_closed: bool = False
    tag: Opaque = None
    """The reader's own; every envelope that is taken has it."""
    is_admitted: bool = False
    """Whether the call that starts the agent was allowed to see it. For the agent after that one the authorizer is asked again."""
    _seen: int = 0
    # Invariant: the number in `feed` up to which everything was given, or is contained in `_first`.
    _first: Sequence[Envelope] = ()
    """The snapshot of the enrolment, until it is taken, and before it what a new reader is told of the agent."""
    _backlog: Sequence[Backlog] = ()
    """What was not taken of agents that have ended, the earliest agent first; bounded."""

    @property
    def place(self) -> Cursor | None:
        """The last place that was given to the reader, or is about to be; None before the first."""
        return Cursor(self._place.incarnation, self._place.channel, self._seen) if isinstance(self._place, Feed) else self._place

    @property
    def state(self) -> Literal["pending", "subscribed"]:
        """Whether the subscription follows an agent now."""
        return "pending" if self.feed is None else "subscribed"

    @property
    def has_events(self) -> bool:
        """Whether there is, or can come, something for the reader to take: it follows an agent, or has a backlog."""
        return self.feed is not None or bool(self._backlog)

    def announce(self) -> None:
        """Tell the reader that there is something to take; once until the reader takes it."""
        if not self.is_announced and not self.is_closed:
            self.is_announced = True
            try:
                self._mailbox.announce(self)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                self.is_closed = True  # nobody reads any more

    def enrol(self, feed: Feed, told: Sequence[Envelope] = ()) -> None:
        """Follow an agent from now on: from the subscription's place if the agent still knows it, otherwise from a snapshot.

        Args:
            feed: the agent's.
            told: events of the agent, from its first one on, that a reader who has seen nothing yet gets before the snapshot; usually none.
        """
        if self.feed is feed or self.is_closed:
            return
        self.feed = feed
        feed.subscriptions[self] = None
        place = self.place
        known = self._place_in(feed)
        if known is not None:
            self._seen = known
        else:
            self._first = (*(told if place is None else ()), feed.present(replaces=place))
            self._seen = feed.seq
        if self._first or self._seen < feed.seq:
            self.announce()
        else:
            feed.wait(self)

    def picture(self) -> Envelope | None:
        """Return a snapshot that is rendered now, beside what there is to take; None while the subscription is pending."""
        return None if self.feed is None else self.feed.present(self.place)

    def end(self, last: Sequence[Envelope] = ()) -> None:
        """Keep what was not taken of an agent that has published its last event, and be pending again.

        Args:
            last: what the reader gets behind that, and what has no number in the feed; usually empty.
        """
        feed = self.feed
        if feed is None:
            return
        before, is_continued = self.place, not self._first
        first = self._seen + 1 if is_continued else 1
        events = self._collect(feed)
        if events is None:
            events = missed(feed, before, first, is_continued=is_continued)
            self._place, self._seen = feed, feed.seq
        self._keep(Backlog(before, first, is_continued, (*events, *last), is_numbered=not last))
        self._detach(feed)

    def miss(self, feed: Feed) -> None:
        """Note that an agent came and ended while the subscription could not be enrolled, although its reader may see the agent."""
        if self.feed is not None or self.is_closed:
            return  # the snapshot of a later agent has told it
        before, seen = self.place, self._place_in(feed)
        first = 1 if seen is None else seen + 1
        if first > feed.seq - len(feed.shutdown()):
            return  # the agent did nothing
        self._keep(Backlog(before, first, seen is not None, missed(feed, before, first, is_continued=seen is not None)))
        self._place = feed.place

    def suspend(self) -> None:
        """Be pending, because the reader may not see the conversation any more. What the reader has not been given is dropped.

        The place goes back to what the reader was given. So nothing is missed silently if the right comes back.
        """
        recalled = self._mailbox.recall(self)
        if recalled:
            place = _place_before(recalled[0])
        elif self._backlog:
            place = self._backlog[0].before
        else:
            place = self.place
        self._backlog = ()
        if self.feed is not None:
            self._detach(self.feed)
        self._place = place

    def close(self) -> None:
        """Give nothing any more."""
        self.is_closed = True
        self._backlog = ()
        if self.feed is not None:
            self._detach(self.feed)

    def take(self) -> Sequence[Envelope]:
        """Return everything that there is, in order, and wait for more. No checkpoint: what is returned has been given."""
        batch = self._take()
        return batch if self.tag is None else tuple(attrs.evolve(envelope, tag=self.tag) for envelope in batch)

    def _take(self) -> Sequence[Envelope]:
        self.is_announced = False
        feed = self.feed
        if self.is_closed or self._backlog or feed is None:
            return self._take_backlog()
        batch = self._collect(feed)
        if batch is None:
            batch = self._lagged(feed)
        feed.wait(self)
        return batch

    def _take_backlog(self) -> Sequence[Envelope]:
        """Return what was not taken of agents that have ended, and what there is of the agent that is up."""
        backlog, self._backlog = self._backlog, ()
        left = tuple(envelope for ended in backlog for envelope in ended.events)
        return left if self.is_closed or self.feed is None else (*left, *self._take())

    def _place_in(self, feed: Feed) -> int | None:
        """Return the subscription's place as a number in this feed; None if it is not a place there."""
        place = self.place
        if place is not None and place.incarnation == feed.incarnation and place.channel == feed.channel and place.seq <= feed.seq:
            return place.seq
        return None

    def _keep(self, backlog: Backlog) -> None:
        if backlog.events:
            self._backlog = bounded((*self._backlog, backlog), self.most_events, self.most_text)
            self.announce()

    def _detach(self, feed: Feed) -> None:
        feed.forget(self)
        self._place = self.place
        self.feed = None
        self.is_admitted = False
        self._first = ()

    def _collect(self, feed: Feed) -> Sequence[Envelope] | None:
        """Take what the feed has for this subscription; None if that is too much, or if the log does not reach back far enough."""
        events = feed.since(self._seen)
        if events is not None and self._seen < feed.last_delta and text_size(events) > self.most_text:
            events = None
        if events is None or len(events) > self.most_events:
            return None
        first, self._first = self._first, ()
        batch = (*first, *events) if first else events
        if batch:
            self._place = feed
        self._seen = feed.seq
        return batch

    def _lagged(self, feed: Feed) -> Sequence[Envelope]:
        """Return the present for a reader that was too slow, and before it a gap if the reader was given something of this agent."""
        first, self._first = self._first, ()
        gap = () if first else (feed.gap(self._seen + 1, feed.seq),)
        replaces = self.place if first else None
        self._place, self._seen = feed, feed.seq
        return (*gap, feed.present(replaces))


def _place_before(envelope: Envelope) -> Cursor | None:
    """Return the place that an event follows; None if nothing says which it is."""
    match envelope.event:
        case Snapshot(replaces=replaces):
            return replaces
        case Gap(replaces=replaces) if replaces is not None:
            return replaces
        case StateRestored():
            return None  # told to a reader who had seen nothing yet
        case _:
            return Cursor(envelope.incarnation, envelope.channel, envelope.first_seq - 1)
