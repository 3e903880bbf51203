"""Events out to other nodes: each node that follows an agent here gets the agent's events in batches, in order.

A node follows an agent by a subscription like any reader here, so a node that is too slow gets a `Gap` and a `Snapshot`. What has come is
sent at once, and then at most once in an interval. So neighbouring pieces of streamed text travel as one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs
import trio

from trio_sagents.broadcast import Feed, Mailbox, Subscription
from trio_sagents.data.cursors import Channel
from trio_sagents.data.events import Delta, Envelope, Snapshot
from trio_sagents.exceptions import AgentNotRunning
from trio_sagents.nodes._letters import Ended, Events, Follow, Followed, Letter
from trio_sagents.nodes._wire import Told
from trio_sagents.supervisor._registry import Entry, RunningAgent

MAX_PLACES: Final = 64
"""Places at which the text for one node is not joined."""
INTERVAL: Final = 0.05
"""Seconds between two batches for other nodes."""


@attrs.frozen
class _Key:
    node_id: str
    conversation_id: str
    channel: Channel


@attrs.define(eq=False)
class _Stream:
    """What one node follows."""

    key: _Key
    stream: int
    subscription: Subscription


@attrs.define(eq=False)
class Relay:
    """Sends the events of the agents of this node to the nodes that follow them."""

    _send: Callable[[str, Letter], bool]
    """Sends a letter to a node; False if too much waits."""
    _most_events: int
    _most_text: int
    _streams: dict[_Key, _Stream] = attrs.field(factory=dict)
    _of: dict[Subscription, _Stream] = attrs.field(factory=dict)
    # Invariant: the same streams, by subscription.
    _attached: dict[str, tuple[Entry, dict[str, None]]] = attrs.field(factory=dict)
    """By conversation: the agent, and the nodes that are told of its end."""
    _announced: dict[_Stream, None] = attrs.field(factory=dict)
    _ended: list[tuple[Entry, str, tuple[str, ...]]] = attrs.field(factory=list)
    """Agents that have ended, with their incarnations, and the nodes that are to be told."""
    _some: trio.Event = attrs.field(factory=trio.Event)

    def attach(self, node_id: str, entry: Entry, incarnation: str) -> None:
        """Tell a node when an agent has ended."""
        known = self._attached.get(entry.conversation_id)
        if known is None or known[0] is not entry:
            nodes: dict[str, None] = {}
            self._attached[entry.conversation_id] = entry, nodes
            entry.call_when_ended(lambda ended: self._note_end(ended, incarnation))
        else:
            nodes = known[1]
        nodes[node_id] = None

    def detach(self, node_id: str, conversation_id: str) -> None:
        """Tell a node nothing of a conversation any more."""
        if (known := self._attached.get(conversation_id)) is not None:
            known[1].pop(node_id, None)
        for key in [key for key in self._streams if (key.node_id, key.conversation_id) == (node_id, conversation_id)]:
            self._close(key)

    def _note_end(self, entry: Entry, incarnation: str) -> None:
        known = self._attached.get(entry.conversation_id)
        if known is not None and known[0] is entry:
            del self._attached[entry.conversation_id]
            self._ended.append((entry, incarnation, tuple(known[1])))
            self._some.set()

    def follow(self, node_id: str, live: RunningAgent, follow: Follow) -> Followed:
        """Send the events of an agent to a node from now on, and return the present. A second call begins again.

        Raises:
            AgentNotRunning: it is another agent than the node thinks.
        """
        key = _Key(node_id, follow.conversation_id, follow.channel)
        self._close(key)
        mailbox = Mailbox(self._announce)
        subscription = Subscription(
            follow.conversation_id, follow.channel, None, live.entry.owner, self._most_events, self._most_text, mailbox
        )
        live.enrol(subscription)
        feed = subscription.feed
        if feed is None or feed.incarnation != follow.incarnation:
            subscription.close()
            raise AgentNotRunning(follow.conversation_id)
        # No checkpoint until the return: what comes from here on is announced.
        seq = feed.seq
        known = None if follow.after is None else events_behind(feed, (follow.after, *follow.places[:MAX_PLACES]))
        (first,) = subscription.take()
        assert isinstance(first.event, Snapshot)
        stream = self._streams[key] = _Stream(key, follow.stream, subscription)
        self._of[subscription] = stream
        events = None
        if known is not None and len(known) <= self._most_events:
            events = tuple(Told(envelope.first_seq, envelope.seq, envelope.event) for envelope in known)
        return Followed(follow.stream, seq, events, first.event)

    def unfollow(self, node_id: str, conversation_id: str, channel: Channel, stream: int) -> None:
        """Send the events of a channel to a node no more, unless the node has asked again since."""
        key = _Key(node_id, conversation_id, channel)
        if (known := self._streams.get(key)) is not None and known.stream == stream:
            self._close(key)

    def drop(self, node_id: str) -> None:
        """Forget a node that does not get what is sent. If it is there, it finds out, and asks again."""
        for key in [key for key in self._streams if key.node_id == node_id]:
            self._close(key)

    def clear(self) -> None:
        """Forget all nodes: none of them gets what is sent from here."""
        for key in tuple(self._streams):
            self._close(key)
        self._attached.clear()

    def followers(self) -> Iterator[str]:
        """Return the nodes that follow an agent here, or are told of an end."""
        yield from dict.fromkeys(
            (*(key.node_id for key in self._streams), *(node for _, nodes in self._attached.values() for node in nodes))
        )

    def _close(self, key: _Key) -> None:
        stream = self._streams.pop(key, None)
        if stream is not None:
            self._announced.pop(stream, None)
            del self._of[stream.subscription]
            stream.subscription.close()

    def _announce(self, subscription: Subscription) -> None:
        stream = self._of.get(subscription)
        if stream is not None:  # else it is just being enrolled
            self._announced[stream] = None
            self._some.set()

    async def run(self) -> None:
        """Send what has come, until cancelled."""
        while True:
            await self._some.wait()
            self._some = trio.Event()
            self.flush()
            await trio.sleep(INTERVAL)

    def flush(self) -> None:
        """Send what has come."""
        announced, self._announced = self._announced, {}
        ended, self._ended = self._ended, []
        for stream in announced:
            key = stream.key
            events = tuple(Told(envelope.first_seq, envelope.seq, envelope.event) for envelope in stream.subscription.take())
            if stream.subscription.feed is None:
                self._close(key)  # the agent has ended, and this is the rest
            if events and not self._send(key.node_id, Events(key.conversation_id, key.channel, stream.stream, events)):
                self.drop(key.node_id)
        for entry, incarnation, nodes in ended:
            for node_id in nodes:
                self._send(node_id, Ended(entry.conversation_id, incarnation, entry.shutdown_reason))


def events_behind(feed: Feed, places: Sequence[int]) -> Sequence[Envelope] | None:
    """Return the events behind the first of some places, with text that is joined only between the places.

    Returns:
        None if the feed does not know the first place. Another place that the feed does not know is left out.
    """
    first, *others = places
    joined: Sequence[Envelope] | None = None
    last = feed.seq
    for place in (*sorted({place for place in others if first < place <= feed.seq}, reverse=True), first):
        batch = feed.since(place) if 0 <= place <= feed.seq else None
        if batch is None:
            if place == first:
                return None
            continue
        joined = batch if joined is None else (*_up_to(batch, last, joined), *joined)
        last = place
    return joined


def _up_to(batch: Sequence[Envelope], place: int, rest: Sequence[Envelope]) -> Iterator[Envelope]:
    """Return the events of a batch up to a place, of which a piece of text may have to be cut. `rest` is what comes behind the place."""
    for envelope in batch:
        if envelope.seq <= place:
            yield envelope
            continue
        event, after = envelope.event, rest[0].event
        if envelope.first_seq <= place and isinstance(event, Delta) and isinstance(after, Delta):
            text = event.text[: after.offset - event.offset]
            yield attrs.evolve(envelope, seq=place, event=attrs.evolve(event, text=text))
        return
