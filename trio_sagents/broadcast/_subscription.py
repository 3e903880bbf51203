"""One subscriber's place in one conversation's events, across all the agents that come and go there.

It is *pending* while no agent is enrolled, and heals by itself when the next one comes alive. What was not taken of an agent
that has ended is kept, bounded, until it is taken. Everything here is synchronous, so no event can fall between two steps.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import attrs
import trio

from trio_sagents.broadcast._feed import Feed, coalesce, shutdown_in, text_size
from trio_sagents.data.cursors import Channel, Cursor
from trio_sagents.data.events import Envelope, Snapshot
from trio_sagents.data.records import Owner
from trio_sagents.data.scopes import Scope


@attrs.define(eq=False)
class Subscription:
    """One (subscriber, conversation, channel)."""

    conversation_id: str
    channel: Channel
    scope: Scope = attrs.field(repr=False)
    """The subscriber's: whoever enrols it asks whether this scope may see the agent."""
    owner: Owner
    """The owner key of the scope, as it was when the subscriber was opened."""
    most_events: int
    most_text: int
    _announce: "Callable[[Subscription], None]" = attrs.field(repr=False)
    """Puts this subscription into its subscriber's channel."""
    _place: Cursor | Feed | None = None
    """The last place given to the reader, or about to be: of an earlier agent, or of `feed` at `_seen`; None before the first."""
    feed: Feed | None = None
    """The live agent's; None while pending."""
    is_announced: bool = False
    # Invariant: true exactly while this subscription is in its subscriber's channel: at most once, so the channel is bounded.
    is_closed: bool = False
    is_admitted: bool = False
    """Whether the call that is starting the agent was allowed to see it; asked again for the agent after that."""
    _seen: int = 0
    # Invariant: the number in `feed` up to which everything was given, or stands in `_first`.
    _first: Envelope | None = None
    """The snapshot of the enrolment, until it is taken."""
    _left: Sequence[Envelope] = ()
    """What was not taken of agents that have ended: at most `most_events` and their last word."""

    @property
    def place(self) -> Cursor | None:
        """The last place given to the reader, or about to be; None before the first."""
        return Cursor(self._place.incarnation, self._place.channel, self._seen) if isinstance(self._place, Feed) else self._place

    @property
    def state(self) -> Literal["pending", "subscribed"]:
        """Whether an agent is enrolled now."""
        return "pending" if self.feed is None else "subscribed"

    def announce(self) -> None:
        """Tell the reader that there is something to take; once until it is taken."""
        if not self.is_announced and not self.is_closed:
            self.is_announced = True
            try:
                self._announce(self)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                self.is_closed = True  # nobody reads any more

    def enrol(self, feed: Feed) -> None:
        """Follow this agent from now on: after its cursor where the agent still knows it, else from a snapshot."""
        if self.feed is feed or self.is_closed:
            return
        self.feed = feed
        feed.subscriptions[self] = None
        place = self.place
        if place is not None and place.incarnation == feed.incarnation and place.channel == feed.channel and place.seq <= feed.seq:
            self._seen = place.seq
        else:
            self._first = feed.present(replaces=place)
            self._seen = feed.seq
        if self._first is not None or self._seen < feed.seq:
            self.announce()
        else:
            feed.wait(self)

    def end(self) -> None:
        """The agent has published its last word: keep what was not taken, and be pending again."""
        feed = self.feed
        if feed is None:
            return
        untaken = self._collect(feed, ended=True)
        if self._left:
            # Bounded: of agents that came and went since, only the last one's last word is kept, in place of the one before it.
            kept = self._left[:-1] if len(shutdown_in(self._left[:-1])) else self._left
            self._left = (*kept, *shutdown_in(untaken))
        else:
            self._left = untaken
        self._detach(feed)
        if self._left:
            self.announce()

    def close(self) -> None:
        """Give nothing any more."""
        self.is_closed = True
        self._left = ()
        if self.feed is not None:
            self._detach(self.feed)

    def take(self) -> Sequence[Envelope]:
        """Return all there is, in order, and wait for more. No checkpoint: what is returned has been given."""
        self.is_announced = False
        if self.is_closed:
            return ()
        left, self._left = self._left, ()
        feed = self.feed
        if feed is None:
            return left
        batch = self._collect(feed, ended=False)
        feed.wait(self)
        return (*left, *batch) if left else batch

    def _detach(self, feed: Feed) -> None:
        feed.forget(self)
        self._place = self.place
        self.feed = None
        self.is_admitted = False
        self._first = None

    def _collect(self, feed: Feed, *, ended: bool) -> Sequence[Envelope]:
        """Take what the log has for us; where that is too much or too old, a gap and the present instead."""
        events = feed.since(self._seen)
        if events is not None and self._seen < feed.last_delta:
            events = coalesce(events)
            if text_size(events) > self.most_text:
                events = None
        first, self._first = self._first, None
        if events is None or len(events) > self.most_events:
            batch = self._lagged(feed, ended=ended, untaken=first)
        else:
            batch = events if first is None else (first, *events)
        if batch:
            self._place = feed
        self._seen = feed.seq
        return batch

    def _lagged(self, feed: Feed, *, ended: bool, untaken: Envelope | None) -> Sequence[Envelope]:
        last_word = shutdown_in(feed.since(feed.seq - 1) or ()) if ended else ()
        last = feed.seq - len(last_word)
        gap = (feed.gap(self._seen + 1, last),) if untaken is None and self._seen < last else ()
        if ended:
            return (*gap, *last_word)
        replaces = untaken.event.replaces if untaken is not None and isinstance(untaken.event, Snapshot) else None
        return (*gap, feed.present(replaces))
