"""What a viewer has seen, and whether a viewer may see that."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import attrs
import trio
import trio.testing

from trio_sagents import SessionsClosed, Subscriber
from trio_sagents.data.cursors import Channel
from trio_sagents.data.events import AgentShutdown, Envelope, Event, Gap, Snapshot, StateRestored, TextDelta, ThinkingDelta, TurnEnded
from trio_sagents.data.messages import Part, TextPart, ThinkingPart
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.testing.invariants import Violation

E = TypeVar("E")


@attrs.define(eq=False)
class _Stream:
    """One conversation and channel, as far as they were read."""

    incarnation: str = ""
    last: int = 0
    """The number of the last event that was seen, or was said to be missing."""
    has_ended: bool = True
    gap: Gap | None = None
    """The last gap, until the event after it has come."""
    message_id: str | None = None
    """The id of the message being spoken, if its text so far is known."""
    parts: dict[int, int] = attrs.field(factory=dict)
    """How many characters each of its parts has so far."""
    ended: set[str] = attrs.field(factory=set)
    """The incarnations whose end was seen."""


@attrs.define(eq=False)
class EventSpy:
    """Records the events of one subscriber, and checks each event when it comes.

    What is checked (I17 to I19): the events of each agent begin with a snapshot, or with a `Gap` if the agent had ended before it was
    read; no number is missing without a `Gap` that says so; after a gap comes a snapshot, or the end of the agent; streamed text continues
    where it stopped; an agent ends once, and no event comes after its end.

        async with sessions.watch("c") as watch, EventSpy().reading(watch) as spy:
            ...
        assert spy.outcomes() == [...]

    Args:
        resumes: whether the subscriber was given a place to continue from, so that no snapshot need come first.
    """

    resumes: bool = False
    envelopes: list[Envelope] = attrs.field(factory=list)
    """All envelopes that came, in order."""
    _streams: dict[tuple[str, Channel], _Stream] = attrs.field(factory=dict)

    @asynccontextmanager
    async def reading(self, subscriber: Subscriber) -> "AsyncIterator[EventSpy]":
        """Read the subscriber in a task while the block is open; what is there at its end is read, too.

        Cancellation: reading ends; what was read is kept.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.read, subscriber)
            yield self
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    async def read(self, subscriber: Subscriber) -> None:
        """Read until the sessions are gone. Cancellation: either an event was taken and is recorded, or it was not taken."""
        try:
            async for envelope in subscriber:
                self.add(envelope)
        except SessionsClosed:
            return

    def add(self, envelope: Envelope) -> None:
        """Record an envelope; raise `Violation` if it may not come now."""
        self.envelopes.append(envelope)
        stream = self._streams.setdefault((envelope.conversation_id, envelope.channel), _Stream())
        if envelope.incarnation != stream.incarnation:
            if isinstance(envelope.event, StateRestored):
                return  # a reader that has seen nothing yet is told this before the first snapshot
            self._begin(stream, envelope)
        self._follow(stream, envelope)
        _check_text(stream, envelope.event)

    def _begin(self, stream: _Stream, envelope: Envelope) -> None:
        if envelope.incarnation in stream.ended:
            raise Violation(f"I19: an event came after the end of its agent: {envelope}")
        if not isinstance(envelope.event, Snapshot | Gap) and not (self.resumes and not stream.incarnation):
            raise Violation(f"I18: {envelope} came before any snapshot")
        stream.incarnation = envelope.incarnation
        stream.last = envelope.first_seq - 1
        stream.has_ended = False
        stream.gap = None
        stream.message_id = None

    def _follow(self, stream: _Stream, envelope: Envelope) -> None:
        # The message is built only if something is wrong, because this code runs for every event.
        event = envelope.event
        if stream.has_ended:
            raise Violation(f"I19: an event came after the end of its agent: {envelope}")
        if isinstance(event, Snapshot) and envelope.first_seq == envelope.seq == event.cursor.seq:
            if envelope.seq < stream.last:
                raise Violation(f"I18: a snapshot is older than what was seen: {envelope} came after {stream.last}")
            stream.last = envelope.seq
            stream.gap = None
            return
        if stream.gap is not None and not isinstance(event, AgentShutdown):
            raise Violation(f"I17: {envelope} came right after {stream.gap}")
        if envelope.first_seq != stream.last + 1 or envelope.seq < envelope.first_seq:
            raise Violation(f"I17: {stream.last} was the last event before {envelope}")
        stream.last = envelope.seq
        stream.gap = event if isinstance(event, Gap) else None
        if isinstance(event, AgentShutdown):
            stream.has_ended = True
            stream.ended.add(envelope.incarnation)

    def check_complete(self) -> None:
        """Check that the end of every agent was seen; for the time when the sessions are gone and everything was read."""
        for (conversation_id, channel), stream in self._streams.items():
            if not stream.has_ended:
                raise Violation(f"I19: there was no end of the agent of {conversation_id!r} on {channel!r}")

    def of(self, *kinds: type[E]) -> Sequence[E]:
        """Return the events of these classes, in order."""
        return [envelope.event for envelope in self.envelopes if isinstance(envelope.event, kinds)]

    def outcomes(self) -> Sequence[TurnOutcome]:
        """Return how the turns ended."""
        return [event.outcome for event in self.of(TurnEnded)]

    def text(self) -> str:
        """Return the streamed text, all messages joined."""
        return "".join(event.text for event in self.of(TextDelta))


def _size(part: Part) -> int:
    return len(part.text) if isinstance(part, TextPart | ThinkingPart) else 0


def _check_text(stream: _Stream, event: Event) -> None:
    """Check that a delta begins where the text of the snapshot and of the deltas before it ends."""
    if isinstance(event, Snapshot):
        spoken = event.streaming
        stream.message_id = None if spoken is None else spoken.message_id
        stream.parts = {} if spoken is None else {index: _size(part) for index, part in enumerate(spoken.parts)}
    elif isinstance(event, Gap):
        stream.message_id = None
    elif isinstance(event, TextDelta | ThinkingDelta):
        if event.message_id != stream.message_id:
            stream.message_id, stream.parts = event.message_id, {}
        so_far = stream.parts.get(event.part, 0)
        if event.offset != so_far:
            raise Violation(f"I17: the text of {event.message_id} has {so_far} characters, and continues at {event.offset}")
        stream.parts[event.part] = so_far + len(event.text)
