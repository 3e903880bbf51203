"""A feed: the events of one agent on one channel, as a short log that all its subscriptions read, each at its own pace.

Publishing appends to the log and wakes the subscriptions that wait for an event. It does not look at the other subscriptions. So a
subscription that nobody reads costs nothing, and the batch that its reader has not taken is simply the part of the log behind its place.

Neighbouring deltas are joined in the log until a subscription has been given the place between them, and once more when a reader takes
them. So every cursor that was ever handed out stays a place in the log.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

import attrs

from trio_sagents.data.cursors import Channel, Cursor
from trio_sagents.data.events import AgentShutdown, Envelope, Event, Gap, Snapshot, StreamingMessage, TextDelta, ThinkingDelta
from trio_sagents.data.messages import TextPart, ThinkingPart

_DELTAS: Final = (TextDelta, ThinkingDelta)
JOIN_LIMIT: Final = 4096
"""Characters up to which deltas are joined in the log. Joining copies the text, so its cost must not grow with the message."""
Delta: TypeAlias = TextDelta | ThinkingDelta


class FeedReader(Protocol):
    """What a feed calls on the subscriptions that follow it."""

    def announce(self) -> None:
        """Note that there is an event to take."""
        ...

    def end(self) -> None:
        """Note that the agent has published its last event."""
        ...


@attrs.define(eq=False)
class Feed:
    """The events of one agent on one channel."""

    agent_id: str
    conversation_id: str
    incarnation: str
    channel: Channel
    kept: int
    """How many envelopes the log keeps at least."""
    snapshot: Callable[[Cursor, Cursor | None], Snapshot]
    """Renders the present state of the agent. The arguments are the place of the snapshot, and the place that it replaces."""
    seq: int = 0
    """The number of the last event."""
    subscriptions: dict[FeedReader, None] = attrs.field(factory=dict)
    """The subscriptions that follow this feed, in the order in which they were enrolled."""
    _log: list[Envelope] = attrs.field(factory=list)
    # Invariant: contiguous. Each envelope's first_seq is its predecessor's seq + 1. The seq of the last envelope is self.seq, unless the
    # log is empty.
    _sealed: int = 0
    # Invariant: every place that was handed out is <= _sealed, so no envelope ever spans such a place.
    last_delta: int = 0
    """The number of the last delta. A batch that begins behind it has nothing to join."""
    _waiting: dict[FeedReader, None] = attrs.field(factory=dict)
    # Invariant: exactly the enrolled subscriptions that have nothing to take.

    @property
    def place(self) -> Cursor:
        """The place behind the last event."""
        return Cursor(self.incarnation, self.channel, self.seq)

    def publish(self, event: Event) -> None:
        """Append an event, and wake the subscriptions that wait."""
        log = self._log
        seq = self.seq = self.seq + 1
        joined = None
        if isinstance(event, _DELTAS):
            self.last_delta = seq
            if log and log[-1].seq > self._sealed:
                joined = _join(log[-1].event, event)
        if joined is not None:
            log[-1] = self._envelope(log[-1].first_seq, seq, joined)
        else:
            log.append(self._envelope(seq, seq, event))
            if len(log) > self.kept + (self.kept >> 2):
                del log[: len(log) - self.kept]
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for subscription in waiting:
                subscription.announce()

    def publish_before_snapshot(self, event: Event) -> Envelope:
        """Publish an event that readers who have seen nothing yet get before their first snapshot, and return its envelope.

        The number behind the event belongs to that snapshot, so the place of the event is a place before the snapshot: a reader who
        comes back with it has no picture yet, and gets a snapshot.
        """
        self.publish(event)
        (told,) = self._log[-1:]
        self.seq += 1
        self._log.clear()
        return told

    def publish_lazily(self, make: Callable[[], Event]) -> None:
        """Publish an event that is costly to make, and make it only if there is a subscription.

        Otherwise the event is counted and not made: a reader that comes back with a cursor from before it gets a `Gap`.
        """
        if self.subscriptions:
            self.publish(make())
        else:
            self.seq += 1
            self._log.clear()

    def wait(self, subscription: FeedReader) -> None:
        """Announce the next event to this subscription."""
        self._waiting[subscription] = None

    def forget(self, subscription: FeedReader) -> None:
        """Let a subscription go."""
        self.subscriptions.pop(subscription, None)
        self._waiting.pop(subscription, None)

    def present(self, replaces: Cursor | None) -> Envelope:
        """Return an envelope with a snapshot that is rendered now."""
        self._sealed = self.seq
        return self._envelope(self.seq, self.seq, self.snapshot(self.place, replaces))

    def gap(self, first: int, last: int, replaces: Cursor | None = None) -> Envelope:
        """Return an envelope that says which events a reader has missed."""
        return self._envelope(first, last, Gap(first, last, replaces))

    def since(self, seq: int) -> Sequence[Envelope] | None:
        """Return the events behind number `seq`, or None if the log does not reach back that far. The present place is sealed."""
        self._sealed = self.seq
        if seq == self.seq:
            return ()
        log = self._log
        index = len(log) - (self.seq - seq)  # the index of the next event, unless deltas were joined behind it
        if index < 0 or log[index].first_seq != seq + 1:
            index = bisect_left(log, seq + 1, key=_first_seq)
            if index == len(log) or log[index].first_seq != seq + 1:
                return None
        return log[index:]

    def shutdown(self) -> Sequence[Envelope]:
        """Return the envelope of the agent's `AgentShutdown` alone, or nothing if the agent has not ended."""
        return shutdown_in(self._log)

    def _envelope(self, first_seq: int, seq: int, event: Event) -> Envelope:
        return Envelope(self.agent_id, self.conversation_id, self.channel, first_seq, seq, event, self.incarnation)


def _first_seq(envelope: Envelope) -> int:
    return envelope.first_seq


def _continues(earlier: Event, later: Delta) -> bool:
    return (
        type(earlier) is type(later)
        and isinstance(earlier, _DELTAS)
        and earlier.message_id == later.message_id
        and earlier.part == later.part
        and earlier.offset + len(earlier.text) == later.offset
    )


def _join(earlier: Event, later: Delta) -> Delta | None:
    if not _continues(earlier, later) or not isinstance(earlier, _DELTAS) or len(earlier.text) >= JOIN_LIMIT:
        return None
    return attrs.evolve(earlier, text=earlier.text + later.text)


def coalesce(envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
    """Return the same events, with each run of neighbouring deltas joined into one delta."""
    out: list[Envelope] = []
    run: list[Envelope] = []
    for envelope in envelopes:
        event = envelope.event
        if run and not (isinstance(event, _DELTAS) and _continues(run[-1].event, event)):
            out.append(_joined(run))
            run = []
        if isinstance(event, _DELTAS):
            run.append(envelope)
        else:
            out.append(envelope)
    if run:
        out.append(_joined(run))
    return out


def _joined(run: list[Envelope]) -> Envelope:
    if len(run) == 1:
        return run[0]
    event = run[0].event
    text = "".join(envelope.event.text for envelope in run if isinstance(envelope.event, _DELTAS))
    assert isinstance(event, _DELTAS)
    return attrs.evolve(run[0], seq=run[-1].seq, event=attrs.evolve(event, text=text))


def text_size(envelopes: Sequence[Envelope]) -> int:
    """Return how many characters of streamed text these events hold. The text in a snapshot counts, too."""
    size = 0
    for envelope in envelopes:
        event = envelope.event
        if isinstance(event, _DELTAS):
            size += len(event.text)
        elif isinstance(event, Snapshot) and event.streaming is not None:
            size += _streamed(event.streaming)
    return size


def _streamed(message: StreamingMessage) -> int:
    return sum(len(part.text) for part in message.parts if isinstance(part, TextPart | ThinkingPart))


def shutdown_in(envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
    """Return the last envelope alone if it is an `AgentShutdown`; otherwise nothing."""
    return envelopes[-1:] if envelopes and isinstance(envelopes[-1].event, AgentShutdown) else ()
