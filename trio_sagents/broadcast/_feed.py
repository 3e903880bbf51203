"""One agent's events on one channel: a short log that all its subscriptions read, each at its own pace.

Publishing appends to the log and wakes the subscriptions that wait; it never looks at the others. So a subscription that is
not read costs nothing, and its untaken batch is simply "the log from where it stands". Neighbouring deltas are joined in the
log until somebody has been given the place between them, and once more when they are taken: every cursor that was ever
handed out stays a place in the log.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from trio_sagents.data.cursors import Channel, Cursor
from trio_sagents.data.events import AgentShutdown, Envelope, Event, Gap, Snapshot, TextDelta, ThinkingDelta

if TYPE_CHECKING:
    from trio_sagents.broadcast._subscription import Subscription

_DELTAS: Final = (TextDelta, ThinkingDelta)
JOIN_LIMIT: Final = 4096
"""Characters up to which deltas are joined in the log: joining copies, so it must not grow with the message."""
Delta: TypeAlias = TextDelta | ThinkingDelta


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
    """Renders the present: (place of the snapshot, what it replaces)."""
    seq: int = 0
    """Number of the last event published."""
    subscriptions: "dict[Subscription, None]" = attrs.field(factory=dict)
    """The subscriptions enrolled here, in order of enrolment."""
    _log: list[Envelope] = attrs.field(factory=list)
    # Invariant: contiguous; each envelope's first_seq is its predecessor's seq + 1, the last one's seq is self.seq.
    _sealed: int = 0
    # Invariant: every place that was handed out is <= _sealed, so no envelope ever spans one.
    last_delta: int = 0
    """Number of the last delta: a batch that begins after it has nothing to join."""
    _waiting: "dict[Subscription, None]" = attrs.field(factory=dict)
    # Invariant: exactly the enrolled subscriptions without an untaken batch.

    @property
    def place(self) -> Cursor:
        """The place after the last event."""
        return Cursor(self.incarnation, self.channel, self.seq)

    def publish(self, event: Event) -> None:
        """Append an event, and wake whoever waits for one."""
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

    def wait(self, subscription: "Subscription") -> None:
        """Wake this subscription at the next event."""
        self._waiting[subscription] = None

    def forget(self, subscription: "Subscription") -> None:
        """End its enrolment."""
        self.subscriptions.pop(subscription, None)
        self._waiting.pop(subscription, None)

    def present(self, replaces: Cursor | None) -> Envelope:
        """Return an envelope with a snapshot rendered now."""
        self._sealed = self.seq
        return self._envelope(self.seq, self.seq, self.snapshot(self.place, replaces))

    def gap(self, first: int, last: int) -> Envelope:
        """Return an envelope that tells of missed events."""
        return self._envelope(first, last, Gap(first, last))

    def since(self, seq: int) -> Sequence[Envelope] | None:
        """Return what came after number `seq`, or None where the log does not reach back that far. Seals the present place."""
        self._sealed = self.seq
        if seq == self.seq:
            return ()
        log = self._log
        index = len(log) - (self.seq - seq)  # where it is, if no deltas were joined behind it
        if index < 0 or log[index].first_seq != seq + 1:
            index = bisect_left(log, seq + 1, key=_first_seq)
            if index == len(log) or log[index].first_seq != seq + 1:
                return None
        return log[index:]

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
    """Return the same events with each run of neighbouring deltas as one."""
    out: list[Envelope] = []
    run: list[Envelope] = []
    for envelope in envelopes:
        event = envelope.event
        if run and not (isinstance(event, _DELTAS) and _continues(run[-1].event, event)):
            out.append(_as_one(run))
            run = []
        if isinstance(event, _DELTAS):
            run.append(envelope)
        else:
            out.append(envelope)
    if run:
        out.append(_as_one(run))
    return out


def _as_one(run: list[Envelope]) -> Envelope:
    if len(run) == 1:
        return run[0]
    event = run[0].event
    text = "".join(envelope.event.text for envelope in run if isinstance(envelope.event, _DELTAS))
    assert isinstance(event, _DELTAS)
    return attrs.evolve(run[0], seq=run[-1].seq, event=attrs.evolve(event, text=text))


def text_size(envelopes: Sequence[Envelope]) -> int:
    """Return how many characters of streamed text are in these events."""
    return sum(len(envelope.event.text) for envelope in envelopes if isinstance(envelope.event, _DELTAS))


def shutdown_in(envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
    """Return the agent's last word, where it is among these events."""
    return envelopes[-1:] if envelopes and isinstance(envelopes[-1].event, AgentShutdown) else ()
