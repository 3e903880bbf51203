"""The peers: what is known of the other presences on a bus, learned from what they say.

Each difference of a peer has a number. A difference counts only if it is the next one; a peer that has missed one needs
the whole state. So it does not matter what the bus drops, duplicates or reorders.
Everything here is synchronous, and nothing here sends anything.
"""

import math
from collections.abc import Mapping
from typing import Final, Protocol

import attrs

from trio_sagents.broadcast._presence_wire import Beat, Diff, Entry, StatePart
from trio_sagents.data.json import JSON

MAX_PEERS: Final = 64
MAX_ENTRIES: Final = 250_000
"""Entries of all peers together."""
MAX_BYTES: Final = 256 * 1024 * 1024
"""Bytes of the messages that the entries of all peers came in."""
MISSED_BEATS: Final = 3
"""A peer that says nothing for so many of its intervals has vanished."""


class TooMuch(Exception):
    """A bound is exceeded, so that something was not kept. The error says what."""


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


class RemoteRoster(Protocol):
    """Where the entries of peers are put."""

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
class Peers:
    """All peers, by id, with their entries."""

    roster: RemoteRoster
    _peers: dict[str, Peer] = attrs.field(factory=dict)

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, peer_id: str) -> Peer | None:
        """Return a peer, or None if it is not known."""
        return self._peers.get(peer_id)

    def meet(self, peer_id: str, now: float, every: float) -> Peer:
        """Add a peer, of which nothing is known yet, and return it.

        Raises:
            TooMuch: there are too many peers already.
        """
        if len(self._peers) >= MAX_PEERS:
            raise TooMuch(f"there are {MAX_PEERS} peers already")
        peer = self._peers[peer_id] = Peer(peer_id, now, every)
        return peer

    def forget(self, peer_id: str) -> bool:
        """Forget a peer, if it is known, and take its entries away; return whether it was known."""
        peer = self._peers.pop(peer_id, None)
        if peer is None:
            return False
        for entry in tuple(peer.entries.values()):
            entry.leave()
        return True

    def forget_all(self) -> None:
        """Forget all peers."""
        for peer_id in tuple(self._peers):
            self.forget(peer_id)

    def vanished(self, now: float) -> list[Peer]:
        """Return the peers that have said nothing for too long."""
        return [peer for peer in self._peers.values() if peer.expires_at <= now]

    def first_expiry(self) -> float:
        """Return when the first peer has vanished, unless it says something before; math.inf if there is no peer."""
        return min((peer.expires_at for peer in self._peers.values()), default=math.inf)

    def learn(self, peer: Peer, word: Beat | Diff | StatePart, size: int) -> bool:
        """Take what a peer says of its entries; return whether its whole state is needed.

        Raises:
            TooMuch: it has more entries than there is room for. From now on none of them is kept.
        """
        is_ahead = peer.seq is None or word.seq > peer.seq
        match word:
            case _ if peer.is_refused:
                return False
            case Beat() if word.seq != peer.seq:
                if not is_ahead:
                    peer.seq = None  # either this beat is late, or what was known is wrong: the next state decides
                return True
            case Diff() if peer.seq is not None and word.seq == peer.seq + 1:
                peer.seq = word.seq
                peer.size += size
                if self._has_room(peer, peer.size, len(peer.entries) + len(word.entries)):
                    self._apply(peer, word)
                    return False
                peer.seq = None  # it may have room in truth, for a state is not as large as all the differences
                return True
            case StatePart() if is_ahead:
                self._take_part(peer, word, size)
                return False
            case _:
                return isinstance(word, Diff) and is_ahead  # otherwise it is doubled, or late

    def _take_part(self, peer: Peer, part: StatePart, size: int) -> None:
        is_complete = peer.add(part, size)
        if not self._has_room(peer, peer.parts_size, sum(len(known.entries) for known in peer.parts.values())):
            peer.is_refused = True
            peer.drop_parts()
            self._replace(peer, {})
            raise TooMuch(f"peer {peer.peer_id} has more entries than there is room for; none of them is kept")
        if is_complete:
            peer.seq, peer.size = part.seq, peer.parts_size
            entries = {entry.number: entry for known in peer.parts.values() for entry in known.entries}
            peer.drop_parts()
            self._replace(peer, entries)

    def _has_room(self, peer: Peer, size: int, count: int) -> bool:
        others = [other for other in self._peers.values() if other is not peer]
        size += sum(other.size for other in others)
        return size <= MAX_BYTES and count + sum(len(other.entries) for other in others) <= MAX_ENTRIES

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
