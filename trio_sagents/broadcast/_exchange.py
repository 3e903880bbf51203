"""The exchange: how the presences that share a bus learn each other's entries.

Each presence is a *peer* of the others, with an id of its own. It numbers its differences, and says the number of the last one in every
message. Whoever has missed a difference sees this from the next number, and asks for the whole state. So the bus may drop, double and
reorder what it carries; everything is right again one beat after the bus is.

- **What it costs.** A change costs one entry in a message, and all changes of one pass of the event loop travel together. A beat, every
  `heartbeat_interval`, is a few bytes, however many entries there are: nothing is scanned for it. The whole state is read and sent only
  to a peer that asks for it, in parts, with a checkpoint between two parts.
- **Alone, it is silent.** While no other peer is known, nothing is published, no time is awaited, and no task but the listening one runs:
  a change sets one flag. On a `LocalPubSub` a peer that comes is heard in any case. On any other bus its first beat may be lost, so there
  a lone peer goes on saying beats.
- **A peer that vanished** is forgotten with all its entries after three of its intervals without a word. A peer that ends says so.
- **Nothing is trusted.** A message that is not one of ours is dropped, and so is what exceeds the bounds below. The log says so. But who
  can write to the bus can pretend to be a peer: a bus is for processes that trust each other.

Alternatives that were rejected: sending the whole state with each beat (a block has up to 50,000 agents), and a topic of the bus for each
topic of the presence (a task for each of them, in each process).
"""

import logging
import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Final, Protocol

import attrs
import trio

from trio_sagents._trio.groups import split
from trio_sagents.broadcast._presence_wire import (
    MAX_NAME,
    Ask,
    Beat,
    Bye,
    Diff,
    Entry,
    Malformed,
    StatePart,
    ask,
    beat,
    bye,
    diff,
    entry_text,
    parts,
    read,
    room,
    state,
)
from trio_sagents.broadcast._pubsub import LocalPubSub, PubSub
from trio_sagents.data.ids import new_token
from trio_sagents.data.json import JSON

log: Final = logging.getLogger("trio_sagents")
BUS_TOPIC: Final = "trio_sagents:presence"
"""The topic of the bus that all presences share."""
MAX_PEERS: Final = 64
MAX_ENTRIES: Final = 250_000
"""Entries of all peers together."""
MAX_BYTES: Final = 256 * 1024 * 1024
"""Bytes of the messages that the entries of all peers came in."""
MISSED_BEATS: Final = 3
"""A peer that says nothing for so many of its intervals has vanished."""
_BYTES_FOR_NUMBER: Final = 20


class OwnEntry(Protocol):
    """An entry of this process."""

    number: int
    """Names the entry among all that this presence ever had."""
    key: str

    @property
    def topic(self) -> str:
        """The name of its topic."""
        ...

    @property
    def is_present(self) -> bool:
        """Whether it has not left yet."""
        ...

    def read_meta(self) -> JSON:
        """Return its meta."""
        ...


class RemoteEntry(Protocol):
    """An entry of a peer, as the presence of this process holds it."""

    key: str

    @property
    def topic(self) -> str:
        """The name of its topic."""
        ...

    def read_meta(self) -> JSON:
        """Return its meta."""
        ...

    def update(self, meta: JSON) -> None:
        """Change its meta."""
        ...

    def leave(self) -> None:
        """Take it away."""
        ...


class Roster(Protocol):
    """What the exchange needs of the presence that it serves."""

    def own_entries(self) -> Iterator[OwnEntry]:
        """Yield the entries of this process."""
        ...

    def enter_remote(self, topic: str, key: str, meta: JSON) -> RemoteEntry:
        """Add an entry of a peer."""
        ...


@attrs.define(eq=False)
class Peer:
    """What is known of one other presence on the bus."""

    peer_id: str
    heard_at: float
    every: float
    """Seconds between two of its messages, at most; it says so itself."""
    seq: int | None = None
    """The difference up to which its entries are known; None if they are not known, or not for sure."""
    entries: dict[int, RemoteEntry] = attrs.field(factory=dict)
    """By number."""
    size: int = 0
    """Bytes of the messages that the entries came in, from the last state on."""
    asked_at: float = -math.inf
    """When its state was last asked for."""
    is_refused: bool = False
    """Whether it has more entries than may be kept, so that none of them is kept."""
    parts: dict[int, StatePart] = attrs.field(factory=dict)
    # Invariant: parts of one state, which is not complete.
    parts_size: int = 0

    @property
    def expires_at(self) -> float:
        """When the peer has vanished, unless it says something before."""
        return self.heard_at + MISSED_BEATS * self.every

    def add(self, part: StatePart, size: int) -> bool:
        """Keep a part of a state; return whether the state is complete now."""
        if self.parts:
            known = next(iter(self.parts.values())).seq
            if part.seq < known:
                return False
            if part.seq > known:
                self.drop_parts()
        if part.part not in self.parts:
            self.parts[part.part] = part
            self.parts_size += size
        last = [number for number, known_part in self.parts.items() if known_part.is_last]
        return bool(last) and len(self.parts) == last[0] + 1 and max(self.parts) == last[0]

    def drop_parts(self) -> None:
        """Forget the parts of a state."""
        self.parts = {}
        self.parts_size = 0


@attrs.define(eq=False)
class Exchange:
    """The part of one presence in the conversation of all presences on a bus."""

    bus: PubSub
    roster: Roster
    interval: float
    """Seconds between two messages to everybody, at most, if there are peers."""
    peer_id: str = attrs.field(factory=new_token)
    peers: dict[str, Peer] = attrs.field(factory=dict)
    _seq: int = 0
    _changed: dict[OwnEntry, None] = attrs.field(factory=dict)
    """The own entries that changed since the last difference. Empty if there is no peer."""
    _is_stale: bool = False
    """Whether own entries changed while there was no peer: then the next message has a new number."""
    _asking: dict[str, None] = attrs.field(factory=dict)
    """The peers that asked for our state."""
    _wants_beat: bool = False
    """Whether somebody has to hear of us now."""
    _spoke_at: float = -math.inf
    """When everybody was last addressed."""
    _nursery: trio.Nursery | None = None
    """While `run` listens."""
    _is_speaking: bool = False
    """Whether the task that speaks runs."""
    _woken: trio.Event | None = None
    """While that task waits."""
    _is_failing: bool = False
    """Whether the bus has refused the last message."""
    _logged_at: float = -math.inf
    """When a message that was dropped was last logged."""
    _too_large: set[int] = attrs.field(factory=set)
    """The numbers of own entries that do not fit into a message, which the log has named."""

    # ── called by the presence; synchronous

    def note(self, entry: OwnEntry) -> None:
        """Note that an entry of this process has come, has changed, or has left."""
        if self.peers:
            self._changed[entry] = None
            self._wake()
        else:
            self._is_stale = True

    def leave(self) -> None:
        """Say farewell, and forget all peers with their entries. Synchronous, so it also works in a cancelled task."""
        if self.peers:
            self._send_changes()
            self._publish(bye(self.peer_id))
        for peer in tuple(self.peers.values()):
            self._forget(peer)

    # ── the service

    async def run(self) -> None:
        """Listen and speak until cancelled. An error of the bus is logged, and the bus is tried again after an interval."""
        while True:
            error: BaseException | None = None
            onward: BaseException | None = None
            try:
                async with self.bus.subscribe(BUS_TOPIC) as payloads, trio.open_nursery() as nursery:
                    await self._listen(payloads, nursery)
                    nursery.cancel_scope.cancel()
            except BaseException as exc:  # noqa: ASYNC103, BLE001  # the boundary to the host's bus; what is not an error is raised below
                error, onward = split(exc)
            if error is not None:
                log.error("the bus of presence failed; trying it again in %g s", self.interval, exc_info=error)
            if onward is not None:
                raise onward
            await trio.sleep(self.interval)

    async def _listen(self, payloads: AsyncIterator[bytes], nursery: trio.Nursery) -> None:
        self._nursery = nursery
        try:
            self._say_beat()  # others may not know us, or may have said something while nobody listened here
            if self._beat_due() < math.inf:
                self._wake()
            async for payload in payloads:
                self.hear(payload)
        finally:
            self._nursery = None  # before it is closed: an entry may come or leave at any time

    async def _speak(self) -> None:
        """Say what has to be said, when it is due; a task of its own, which ends when there is nobody to speak to."""
        try:
            while True:
                self._expire()
                self._send_changes()
                await self._send_states()
                if self._wants_beat or trio.current_time() >= self._beat_due():
                    self._say_beat()
                # No checkpoint from the look at what is due to the wait, or to the end: what comes later wakes or starts this task.
                if not (self._changed or self._asking or self._wants_beat):
                    if self._beat_due() == math.inf:
                        return
                    self._woken = trio.Event()
                    with trio.move_on_at(min([self._beat_due(), *(peer.expires_at for peer in self.peers.values())])):
                        await self._woken.wait()
                    self._woken = None
        finally:
            self._woken = None
            self._is_speaking = False

    def _say_beat(self) -> None:
        self._wants_beat = False
        self._publish(beat(self.peer_id, self._number(), self.interval))
        self._spoke_at = trio.current_time()

    def _beat_due(self) -> float:
        """Return when the next beat is due. A peer that is alone on a bus of this process says none: who comes is heard in any case."""
        is_alone = not self.peers and type(self.bus) is LocalPubSub
        return math.inf if is_alone else self._spoke_at + self.interval

    def _number(self) -> int:
        """Return the number of the last difference."""
        if self._is_stale:
            self._is_stale = False
            self._seq += 1
        return self._seq

    def _wake(self) -> None:
        """Have the task look that speaks; start it if it does not run."""
        if self._woken is not None:
            self._woken.set()
        elif self._nursery is not None and not self._is_speaking:
            self._is_speaking = True
            self._nursery.start_soon(self._speak, name="presence speaks")

    # ── speaking

    def _send_changes(self) -> None:
        changed, self._changed = self._changed, {}
        if not changed:
            return
        most = room(self.bus.max_payload)
        texts: list[str] = []
        gone: list[int] = []
        for entry in changed:
            text = self._text(entry, most)
            if text is None:
                gone.append(entry.number)
            else:
                texts.append(text)
        # What has come is told before what has left, so that a viewer who changes places is never away.
        for group in parts(texts, most) if texts else ():
            self._send_diff(group, ())
        step = max(1, most // _BYTES_FOR_NUMBER)
        for start in range(0, len(gone), step):
            self._send_diff((), gone[start : start + step])

    def _send_diff(self, texts: Sequence[str], gone: Sequence[int]) -> None:
        self._seq = self._number() + 1
        self._publish(diff(self.peer_id, self._seq, self.interval, texts, gone))
        self._spoke_at = trio.current_time()

    async def _send_states(self) -> None:
        """Send the whole state to each peer that asked for it.

        Cancellation: the peer has a part of the state, and asks again.
        """
        while self._asking:
            addressee = next(iter(self._asking))
            del self._asking[addressee]
            most, number = room(self.bus.max_payload), self._number()
            # What changes while the parts are sent is in the state as it was or as it is, and in a later difference in any case.
            entries = list(self.roster.own_entries())
            texts = (text for entry in entries if (text := self._text(entry, most)) is not None)
            groups = parts(texts, most)
            group: Sequence[str] | None = next(groups)
            part = 0
            while group is not None:
                following = next(groups, None)
                self._publish(state(addressee, self.peer_id, number, self.interval, group, part, is_last=following is None))
                group, part = following, part + 1
                await trio.lowlevel.checkpoint()

    def _text(self, entry: OwnEntry, most: int) -> str | None:
        """Return an entry as it stands in a message; None if it has left, or does not fit into a message."""
        if not entry.is_present:
            self._too_large.discard(entry.number)
            return None
        text = entry_text(entry.number, entry.topic, entry.key, entry.read_meta())
        if len(text.encode()) < most and max(len(entry.topic), len(entry.key)) <= MAX_NAME:
            self._too_large.discard(entry.number)
            return text
        if entry.number not in self._too_large:
            self._too_large.add(entry.number)
            log.warning(
                "the entry %.80r on the presence topic %.80r does not fit into one message of the bus; other processes do not see it",
                entry.key,
                entry.topic,
            )
        return None

    def _publish(self, payload: bytes) -> None:
        try:
            self.bus.publish(BUS_TOPIC, payload)
        except Exception:  # the boundary to the host's bus: a message that is lost is asked for again
            if not self._is_failing:
                log.exception("the bus of presence took no message; other processes see old entries until it does")
            self._is_failing = True
        else:
            self._is_failing = False

    # ── hearing

    def hear(self, payload: bytes) -> None:
        """Take one payload of the bus."""
        try:
            word = read(payload, self.peer_id)
        except Malformed as exc:
            self._refuse(str(exc))
            return
        if word is None:
            return
        if isinstance(word, Bye):
            if (gone := self.peers.get(word.sender)) is not None:
                self._forget(gone)
            return
        peer = self.peers.get(word.sender)
        if peer is None:
            if len(self.peers) >= MAX_PEERS:
                self._refuse(f"there are {MAX_PEERS} peers already")
                return
            peer = self.peers[word.sender] = Peer(word.sender, trio.current_time(), self.interval)
            self._wants_beat = True
            self._wake()
        peer.heard_at = trio.current_time()
        if isinstance(word, Ask):
            self._asking[word.sender] = None
            self._wake()
        else:
            peer.every = word.every
            if not peer.is_refused:
                self._learn(peer, word, len(payload))

    def _learn(self, peer: Peer, word: Beat | Diff | StatePart, size: int) -> None:
        is_ahead = peer.seq is None or word.seq > peer.seq
        match word:
            case Beat() if word.seq != peer.seq:
                if not is_ahead:
                    peer.seq = None  # either this beat is late, or what was known is wrong: the next state decides
                self._ask(peer)
            case Diff() if peer.seq is not None and word.seq == peer.seq + 1:
                peer.seq = word.seq
                peer.size += size
                if self._has_room(peer, peer.size, len(peer.entries) + len(word.entries)):
                    self._apply(peer, word)
                else:  # in truth it may have room, for the state is not as large as all the differences
                    peer.seq = None
                    self._ask(peer)
            case Diff() if is_ahead:
                self._ask(peer)
            case StatePart() if is_ahead:
                is_complete = peer.add(word, size)
                count = sum(len(part.entries) for part in peer.parts.values())
                if not self._has_room(peer, peer.parts_size, count):
                    peer.is_refused = True
                    peer.drop_parts()
                    self._replace(peer, {})
                    self._refuse(f"peer {peer.peer_id} has more entries than there is room for; none of them is kept")
                elif is_complete:
                    peer.seq, peer.size = word.seq, peer.parts_size
                    entries = {entry.number: entry for part in peer.parts.values() for entry in part.entries}
                    peer.drop_parts()
                    self._replace(peer, entries)
            case _:
                pass  # doubled, or late

    def _has_room(self, peer: Peer, size: int, count: int) -> bool:
        others = [other for other in self.peers.values() if other is not peer]
        size += sum(other.size for other in others)
        return size <= MAX_BYTES and count + sum(len(other.entries) for other in others) <= MAX_ENTRIES

    def _ask(self, peer: Peer) -> None:
        now = trio.current_time()
        if now >= peer.asked_at + self.interval:
            peer.asked_at = now
            self._publish(ask(self.peer_id, peer.peer_id))

    def _apply(self, peer: Peer, word: Diff) -> None:
        for entry in word.entries:
            self._set(peer, entry)
        for number in word.gone:
            if (gone := peer.entries.pop(number, None)) is not None:
                gone.leave()

    def _replace(self, peer: Peer, entries: Mapping[int, Entry]) -> None:
        for entry in entries.values():
            self._set(peer, entry)
        for number in [number for number in peer.entries if number not in entries]:
            peer.entries.pop(number).leave()

    def _set(self, peer: Peer, entry: Entry) -> None:
        known = peer.entries.get(entry.number)
        if known is None or (known.topic, known.key) != (entry.topic, entry.key):
            peer.entries[entry.number] = self.roster.enter_remote(entry.topic, entry.key, entry.meta)
            if known is not None:
                known.leave()
        elif known.read_meta() != entry.meta:
            known.update(entry.meta)

    def _expire(self) -> None:
        now = trio.current_time()
        for peer in [peer for peer in self.peers.values() if peer.expires_at <= now]:
            log.info("presence peer %s has said nothing for %g s; its entries are gone", peer.peer_id, now - peer.heard_at)
            self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        del self.peers[peer.peer_id]
        self._asking.pop(peer.peer_id, None)
        if not self.peers:
            self._is_stale = self._is_stale or bool(self._changed)
            self._changed = {}
            self._wake()  # it need not wait for a time any more
        for entry in tuple(peer.entries.values()):
            entry.leave()

    def _refuse(self, why: str) -> None:
        """Log why a message was dropped; at most once in each interval, for anybody may send any number of them."""
        now = trio.current_time()
        if now >= self._logged_at + self.interval:
            self._logged_at = now
            log.warning("a message on the bus of presence was dropped: %.200s", why)
