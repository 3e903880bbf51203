"""A feed: the events of one agent on one channel, as a bounded log that all its subscriptions read, each at its own pace.

The agent never waits for a slow viewer. A viewer who falls further behind than the log reaches gets a `Gap`, which says what was missed,
or a `Snapshot` of the present (see `_subscription`).

Publishing appends to the log and wakes the subscriptions that wait for an event. It does not look at the other subscriptions. So a
subscription that nobody reads costs nothing, and the batch that its reader has not taken is simply the part of the log behind its place.

Neighbouring deltas of one part of a message are one *run*: a mutable entry of the log that only gathers the pieces of text. The events
and envelopes of a run are made when a reader takes them, so a token that the log keeps costs one string, which the garbage collector
does not track. A reader's batch has one delta for all the pieces of a run behind the reader's place. Readers that take the same batch
share its envelopes.

Each number inside a run is a place, because the run has one piece for each number: replay may begin there. Only pieces between which no
reader has a place are ever joined into one piece, which then spans several numbers.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

import attrs

from trio_sagents.data.cursors import Channel, Cursor
from trio_sagents.data.events import (
    AgentShutdown,
    DeltaMaker,
    Envelope,
    Event,
    Gap,
    Snapshot,
    StreamingMessage,
    TextDelta,
    ThinkingDelta,
    narration_delta,
)
from trio_sagents.data.messages import TextPart, ThinkingPart

_DELTAS: Final = (TextDelta, ThinkingDelta)
JOIN_LIMIT: Final = 4096
"""Characters up to which the pieces of a run are joined. Joining copies the text, so its cost must not grow with the message."""
PIECES: Final = 64
"""Pieces after which the pieces of a run are joined, or the next run begins. The log forgets whole runs, so runs are short."""


class FeedReader(Protocol):
    """What a feed calls on the subscriptions that follow it."""

    def announce(self) -> None:
        """Note that there is an event to take."""
        ...

    def end(self) -> None:
        """Note that the agent has published its last event."""
        ...


@attrs.define(eq=False)
class _Run:
    """Neighbouring deltas of one part of a message."""

    kind: DeltaMaker
    message_id: str
    part: int
    turn_id: str
    first_seq: int
    """The number of the first delta."""
    offset: int
    """Where the run begins in the part of the message, in characters."""
    pieces: list[str]
    size: int
    """Characters of all pieces."""
    joined: int = 1
    # Invariant: the first piece has the text of that many numbers, each other piece that of one number.

    @property
    def seq(self) -> int:
        """The number of the last delta."""
        return self.first_seq + self.joined + len(self.pieces) - 2

    def continues(self, earlier: "_Run") -> bool:
        """Return whether this run begins where an earlier run ends."""
        return (
            self.kind is earlier.kind
            and self.message_id == earlier.message_id
            and self.part == earlier.part
            and self.offset == earlier.offset + earlier.size
        )

    def behind(self, seq: int) -> Sequence[str] | None:
        """Return the pieces behind a number; None if the number is no place, because it was joined with its neighbours."""
        if seq < self.first_seq:
            return self.pieces
        index = seq - self.first_seq - self.joined + 2
        return self.pieces[index:] if index > 0 else None


_Entry: TypeAlias = Envelope | _Run


@attrs.define(eq=False)
class Feed:
    """The events of one agent on one channel."""

    agent_id: str
    conversation_id: str
    incarnation: str
    channel: Channel
    kept: int
    """How many events the log keeps at least. Pieces that were joined count as one event."""
    snapshot: Callable[[Cursor, Cursor | None], Snapshot]
    """Renders the present state of the agent. The arguments are the place of the snapshot, and the place that it replaces."""
    defer: "Callable[[Feed], None] | None" = None
    """Called instead of `wake` for a delta that continues its predecessor: the callable calls `wake` soon. None wakes immediately."""
    seq: int = 0
    """The number of the last event."""
    subscriptions: dict[FeedReader, None] = attrs.field(factory=dict)
    """The subscriptions that follow this feed, in the order in which they were enrolled."""
    _log: list[_Entry] = attrs.field(factory=list)
    # Invariant: contiguous. The first_seq of each entry is its predecessor's seq + 1. The seq of the last entry is self.seq, unless the
    # log is empty.
    _weight: int = 0
    # Invariant: the number of envelopes and pieces in the log.
    _sealed: int = 0
    # Invariant: every place that was handed out is <= _sealed, so no joined piece ever spans such a place.
    last_delta: int = 0
    """The number of the last delta. A batch that begins behind it has no streamed text."""
    _waiting: dict[FeedReader, None] = attrs.field(factory=dict)
    # Invariant: exactly the enrolled subscriptions that have nothing to take.
    _shared: tuple[int, Sequence[Envelope]] | None = None
    """The place behind which a reader took a batch that reaches to the present, and the batch: the other readers get the same batch."""

    @property
    def place(self) -> Cursor:
        """The place behind the last event."""
        return Cursor(self.incarnation, self.channel, self.seq)

    def publish(self, event: Event) -> None:
        """Append an event, and wake the subscriptions that wait."""
        if type(event) is TextDelta or type(event) is ThinkingDelta:
            kind = narration_delta if type(event) is TextDelta and event.kind == "narration" else type(event)
            self.publish_delta(kind, event.text, event.message_id, event.part, event.offset, event.turn_id)
            return
        seq = self.seq = self.seq + 1
        if isinstance(event, _DELTAS):
            self.last_delta = seq  # of a subclass, which is kept unchanged
        self._append(self._envelope(seq, seq, event))
        self.wake()

    def publish_delta(self, kind: DeltaMaker, text: str, message_id: str, part: int, offset: int, turn_id: str) -> None:
        """Append a delta, and wake the subscriptions that wait, or have them woken soon. The event is made when a reader takes it."""
        seq = self.seq = self.last_delta = self.seq + 1
        run = self._log[-1] if self._log else None
        continues = (
            type(run) is _Run and run.offset + run.size == offset and run.message_id == message_id and run.part == part and run.kind is kind
        )
        if continues and type(run) is _Run and (len(run.pieces) < PIECES or self._join(run)):
            run.pieces.append(text)
            run.size += len(text)
            self._weight += 1
            self._shared = None
        else:
            self._append(_Run(kind, message_id, part, turn_id, seq, offset, [text], len(text)))
        if self._waiting:
            if continues and self.defer is not None:
                self.defer(self)
            else:
                self.wake()

    def republish(self, event: Event, first_seq: int, seq: int) -> None:
        """Append an event of a feed that this one repeats, under the numbers that it has there, and wake the subscriptions that wait.

        Args:
            event: of the other feed.
            first_seq: the number behind the last one here.
            seq: the last number of the event; greater where several events of the other feed are one event here.
        """
        self.seq = seq
        if type(event) is TextDelta or type(event) is ThinkingDelta:
            self.last_delta = seq
            kind = narration_delta if type(event) is TextDelta and event.kind == "narration" else type(event)
            joined = seq - first_seq + 1
            pieces = [event.text]
            self._append(_Run(kind, event.message_id, event.part, event.turn_id, first_seq, event.offset, pieces, len(event.text), joined))
        else:
            self._append(self._envelope(first_seq, seq, event))
        self.wake()

    def skip_to(self, seq: int) -> None:
        """Go on behind another number: the events up to there are not known here. Whoever has not read them gets a `Gap` and a snapshot."""
        self.seq = seq
        self._log.clear()
        self._weight = 0
        self._shared = None
        self.wake()

    def lone(self, event: Event) -> Envelope:
        """Return an envelope of an event that has no number of its own, behind the last event: the events are another feed's."""
        return self._envelope(self.seq, self.seq, event)

    def _join(self, run: _Run) -> bool:
        """Join the pieces of a run into one, unless a reader may have a place between them; return whether the run may grow."""
        if self._sealed >= run.first_seq + run.joined - 1:
            return False
        self._weight -= len(run.pieces) - 1
        run.joined += len(run.pieces) - 1
        run.pieces = ["".join(run.pieces)]
        return run.size < JOIN_LIMIT

    def _append(self, entry: _Entry) -> None:
        log = self._log
        log.append(entry)
        self._shared = None
        self._weight += 1
        if self._weight > self.kept + (self.kept >> 2):
            excess, count = self._weight - self.kept, 0
            while (weight := _weight_of(log[count])) <= excess:
                excess -= weight
                count += 1
            self._weight = self.kept + excess
            del log[:count]

    def wake(self) -> None:
        """Wake the subscriptions that wait."""
        if waiting := self._waiting:
            self._waiting = {}
            for subscription in waiting:
                subscription.announce()

    def publish_before_snapshot(self, event: Event) -> Envelope:
        """Publish an event that readers who have seen nothing yet get before their first snapshot, and return its envelope.

        The number behind the event belongs to that snapshot, so the place of the event is a place before the snapshot: a reader who
        comes back with it has no picture yet, and gets a snapshot.
        """
        self.seq += 1
        told = self._envelope(self.seq, self.seq, event)
        self._skip()
        return told

    def publish_lazily(self, make: Callable[[], Event]) -> None:
        """Publish an event that is costly to make, and make it only if there is a subscription.

        Otherwise the event is counted and not made: a reader that comes back with a cursor from before it gets a `Gap`.
        """
        if self.subscriptions:
            self.publish(make())
        else:
            self._skip()

    def _skip(self) -> None:
        """Count an event that the log does not have, so that no reader continues from a place before the event."""
        self.seq += 1
        self._log.clear()
        self._weight = 0
        self._shared = None

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
        """Return the events behind number `seq`, with neighbouring deltas as one delta. The present place is sealed.

        Returns:
            None if the log does not reach back that far, or if the number is no place.
        """
        self._sealed = self.seq
        if seq == self.seq:
            return ()
        if self._shared is not None and self._shared[0] == seq:
            return self._shared[1]
        log = self._log
        last = log[-1] if log else None
        batch: tuple[Envelope, ...] | None
        if type(last) is _Run and last.first_seq <= seq + 1:
            pieces = last.behind(seq)
            batch = None if pieces is None else (self._delta(last, seq + 1, "".join(pieces)),)
        else:
            index = len(log) - (self.seq - seq)  # the index of the next event, unless there are runs behind it
            if index < 0 or log[index].first_seq != seq + 1:
                index = bisect_right(log, seq, key=_seq)
                if index == len(log) or log[index].first_seq > seq + 1:
                    return None
            batch = self._batch(log[index:], seq)
        if batch is not None and len(self.subscriptions) > 1:
            self._shared = (seq, batch)
        return batch

    def _batch(self, entries: Sequence[_Entry], seq: int) -> tuple[Envelope, ...] | None:
        """Return the envelopes of what entries have behind number `seq`; None if that number is inside a joined piece."""
        out: list[Envelope] = []
        texts: list[str] = []  # of the runs up to `last`, which continue each other
        first_seq, last = seq + 1, None
        for entry in entries:
            run = entry if isinstance(entry, _Run) else None
            if last is not None and (run is None or not run.continues(last)):
                out.append(self._delta(last, first_seq, "".join(texts)))
                texts, first_seq = [], entry.first_seq
            if run is not None:
                pieces = run.behind(seq)
                if pieces is None:
                    return None
                texts.append("".join(pieces))
            elif isinstance(entry, Envelope):
                out.append(entry)
                first_seq = entry.seq + 1
            last = run
        if last is not None:
            out.append(self._delta(last, first_seq, "".join(texts)))
        return tuple(out)

    def _delta(self, last: _Run, first_seq: int, text: str) -> Envelope:
        """Return the delta with a text that ends where a run ends."""
        event = last.kind(text, last.message_id, last.part, last.offset + last.size - len(text), last.turn_id)
        return self._envelope(first_seq, last.seq, event)

    def shutdown(self) -> Sequence[Envelope]:
        """Return the envelope of the agent's `AgentShutdown` alone, or nothing if the agent has not ended."""
        last = self._log[-1] if self._log else None
        return shutdown_in((last,)) if isinstance(last, Envelope) else ()

    def _envelope(self, first_seq: int, seq: int, event: Event) -> Envelope:
        return Envelope(self.agent_id, self.conversation_id, self.channel, first_seq, seq, event, self.incarnation)


def _seq(entry: _Entry) -> int:
    return entry.seq


def _weight_of(entry: _Entry) -> int:
    return len(entry.pieces) if isinstance(entry, _Run) else 1


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
