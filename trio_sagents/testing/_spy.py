"""What a viewer saw, and whether it may be so."""

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
    """One conversation and channel, as far as it was read."""

    incarnation: str = ""
    last: int = 0
    """Number of the last event that was seen, or told to be missing."""
    has_ended: bool = True
    gap: Gap | None = None
    """Until what follows it has come."""
    message_id: str | None = None
    """Of the message being spoken, where its text so far is known."""
    parts: dict[int, int] = attrs.field(factory=dict)
    """Characters so far of each of its parts."""
    ended: set[str] = attrs.field(factory=set)
    """Incarnations whose end was seen."""


@attrs.define(eq=False)
class EventSpy:
    """Records the events of one subscriber, and checks each as it comes.

    What is checked (I17 to I19): each agent's events begin with a snapshot, or with a `Gap` if the agent has ended before it was read;
    their numbers have no hole that no `Gap` tells of; behind a gap comes a snapshot, or the agent's end; streamed text continues where it
    was; an agent ends once, and is silent then.

        async with sessions.watch("c") as watch, EventSpy().reading(watch) as spy:
            ...
        assert spy.outcomes() == [...]

    Args:
        resumes: whether the subscriber was given a place to go on from, so that no snapshot need come first.
    """

    resumes: bool = False
    envelopes: list[Envelope] = attrs.field(factory=list)
    """All that came, in order."""
    _streams: dict[tuple[str, Channel], _Stream] = attrs.field(factory=dict)

    @asynccontextmanager
    async def reading(self, subscriber: Subscriber) -> "AsyncIterator[EventSpy]":
        """Read the subscriber in a task of its own, while the block is open; what is there at its end is read, too.

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
        """Record one envelope that came; `Violation` where it may not come now."""
        self.envelopes.append(envelope)
        stream = self._streams.setdefault((envelope.conversation_id, envelope.channel), _Stream())
        if envelope.incarnation != stream.incarnation:
            if isinstance(envelope.event, StateRestored):
                return  # told to a reader who has seen nothing yet, before the first snapshot
            self._begin(stream, envelope)
        self._follow(stream, envelope)
        _check_text(stream, envelope.event)

    def _begin(self, stream: _Stream, envelope: Envelope) -> None:
        if envelope.incarnation in stream.ended:
            raise Violation(f"I19: an agent speaks after its end: {envelope}")
        if not isinstance(envelope.event, Snapshot | Gap) and not (self.resumes and not stream.incarnation):
            raise Violation(f"I18: {envelope} came before any snapshot")
        stream.incarnation = envelope.incarnation
        stream.last = envelope.first_seq - 1
        stream.has_ended = False
        stream.gap = None
        stream.message_id = None

    def _follow(self, stream: _Stream, envelope: Envelope) -> None:
        # The words are put together where something is wrong: this is done for every event.
        event = envelope.event
        if stream.has_ended:
            raise Violation(f"I19: an agent speaks after its end: {envelope}")
        if isinstance(event, Snapshot) and envelope.first_seq == envelope.seq == event.cursor.seq:
            if envelope.seq < stream.last:
                raise Violation(f"I18: a snapshot from before what was seen: {envelope} after {stream.last}")
            stream.last = envelope.seq
            stream.gap = None
            return
        if stream.gap is not None and not isinstance(event, AgentShutdown):
            raise Violation(f"I17: {envelope} came right behind {stream.gap}")
        if envelope.first_seq != stream.last + 1 or envelope.seq < envelope.first_seq:
            raise Violation(f"I17: {stream.last} was the last before {envelope}")
        stream.last = envelope.seq
        stream.gap = event if isinstance(event, Gap) else None
        if isinstance(event, AgentShutdown):
            stream.has_ended = True
            stream.ended.add(envelope.incarnation)

    def check_complete(self) -> None:
        """See that every agent that was seen was seen to end: when the sessions are gone, and all was read."""
        for (conversation_id, channel), stream in self._streams.items():
            if not stream.has_ended:
                raise Violation(f"I19: no end of the agent of {conversation_id!r} on {channel!r}")

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
    """A delta begins where the text so far ends, as the snapshot and the deltas behind it have it."""
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
            raise Violation(f"I17: the text of {event.message_id} is {so_far} long, and goes on at {event.offset}")
        stream.parts[event.part] = so_far + len(event.text)
