"""The exchange: how the presences that share a bus learn each other's entries.

Each presence is a *peer* of the others, with an id of its own. It numbers its differences, and says the number of the last one in every
message. Whoever has missed a difference sees this from the next number, and asks for the whole state. So the bus may drop, double and
reorder what it carries; everything is right again one beat after the bus is.

- **What it costs.** A change costs one entry in a message, and all changes of one pass of the event loop travel together. A beat, every
  `heartbeat_interval`, is a few bytes, however many entries there are: nothing is scanned for it. The whole state is read and sent only
  to a peer that asks for it, in parts, with a checkpoint between two parts.
- **Alone, it is silent.** While no other peer is known, nothing is published, no time is awaited, and no task but the listening one runs:
  a change sets one flag. On a `LocalPubSub` a peer that comes is heard in any case. On any other bus its first beat may be lost, so there
  a lone peer continues to send beats.
- **A peer that vanished** is forgotten with all its entries after three of its intervals without a word. A peer that ends says so.
- **Nothing is trusted.** A message that is not one of ours is dropped, and so is what exceeds the bounds in `_peers`. The log says so. But
  who can write to the bus can pretend to be a peer: a bus is for processes that trust each other.

Alternatives that were rejected: sending the whole state with each beat (a block has up to 50,000 agents), and a topic of the bus for each
topic of the presence (a task for each of them, in each process).
"""

import logging
import math
from collections.abc import AsyncIterator
from typing import Final, Protocol

import attrs
import trio

from trio_sagents._trio.groups import split
from trio_sagents.broadcast._differences import Differences, OwnEntry, OwnRoster
from trio_sagents.broadcast._peers import Peer, Peers, RemoteRoster, TooMuch
from trio_sagents.broadcast._presence_wire import Ask, Bye, Malformed, ask, bye, read, room
from trio_sagents.broadcast._pubsub import LocalPubSub, PubSub

log: Final = logging.getLogger("trio_sagents")
BUS_TOPIC: Final = "trio_sagents:presence"
"""The topic of the bus that all presences share."""


class Roster(OwnRoster, RemoteRoster, Protocol):
    """What the exchange needs of the presence that it serves."""


@attrs.define(eq=False)
class Exchange:
    """The part of one presence in the conversation of all presences on a bus."""

    bus: PubSub
    interval: float
    """Seconds between two messages to everybody, at most, if there are peers."""
    own: Differences
    peers: Peers
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

    @classmethod
    def of(cls, bus: PubSub, roster: Roster, interval: float) -> "Exchange":
        """Return the exchange of one presence."""
        return cls(bus, interval, Differences(roster, interval), Peers(roster))

    # ── called by the presence; synchronous

    def note(self, entry: OwnEntry) -> None:
        """Note that an entry of this process has come, has changed, or has left."""
        if len(self.peers):
            self.own.note(entry)
            self._wake()
        else:
            self.own.note_unheard()

    def leave(self) -> None:
        """Say farewell, and forget all peers with their entries. Synchronous, so it also works in a cancelled task."""
        if len(self.peers):
            try:
                self._send_changes()
            except Exception:  # the boundary to the host's bus, whose `max_payload` may fail: the block must still be left
                log.exception("the bus of presence failed; other processes see old entries until they miss this one")
            self._publish(bye(self.own.peer_id))
        self._asking.clear()
        self.peers.forget_all()

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
        """Send each message at its time. This runs as a task of its own, which ends when there are no peers."""
        try:
            while True:
                self._expire()
                self._send_changes()
                await self._send_states()
                if self._wants_beat or trio.current_time() >= self._beat_due():
                    self._say_beat()
                # No checkpoint from the look at what is due to the wait, or to the end: what comes later wakes or starts this task.
                if not (self.own.changed or self._asking or self._wants_beat):
                    if self._beat_due() == math.inf:
                        return
                    self._woken = trio.Event()
                    with trio.move_on_at(min(self._beat_due(), self.peers.first_expiry())):
                        await self._woken.wait()
                    self._woken = None
        finally:
            self._woken = None
            self._is_speaking = False

    def _beat_due(self) -> float:
        """Return when the next beat is due. A peer that is alone on a bus of this process says none: who comes is heard in any case."""
        is_alone = not len(self.peers) and type(self.bus) is LocalPubSub
        return math.inf if is_alone else self._spoke_at + self.interval

    def _wake(self) -> None:
        """Have the task look that speaks; start it if it does not run."""
        if self._woken is not None:
            self._woken.set()
        elif self._nursery is not None and not self._is_speaking:
            self._is_speaking = True
            self._nursery.start_soon(self._speak, name="presence speaks")

    # ── speaking

    def _say_beat(self) -> None:
        self._wants_beat = False
        self._publish(self.own.beat())
        self._spoke_at = trio.current_time()

    def _send_changes(self) -> None:
        if self.own.changed:
            for payload in self.own.differences(room(self.bus.max_payload)):
                self._publish(payload)
                self._spoke_at = trio.current_time()

    async def _send_states(self) -> None:
        """Send the whole state to each peer that asked for it.

        Cancellation: the peer has a part of the state, and asks again.
        """
        while self._asking:
            addressee = next(iter(self._asking))
            del self._asking[addressee]
            for payload in self.own.state(addressee, room(self.bus.max_payload)):
                self._publish(payload)
                await trio.lowlevel.checkpoint()

    def _publish(self, payload: bytes) -> None:
        try:
            self.bus.publish(BUS_TOPIC, payload)
        except Exception:  # the boundary to the host's bus: a message that is lost is asked for again
            if not self._is_failing:
                log.exception("the bus of presence accepted no message; other processes see old entries until it accepts one")
            self._is_failing = True
        else:
            self._is_failing = False

    # ── hearing

    def hear(self, payload: bytes) -> None:
        """Take one payload of the bus."""
        now = trio.current_time()
        try:
            word = read(payload, self.own.peer_id)
            if word is None:
                return
            if isinstance(word, Bye):
                self._forget(word.sender)
                return
            peer = self.peers.get(word.sender)
            if peer is None:
                peer = self.peers.meet(word.sender, now, self.interval)
                self._wants_beat = True
                self._wake()
            peer.heard_at = now
            if isinstance(word, Ask):
                self._asking[word.sender] = None
                self._wake()
                return
            peer.every = word.every
            if self.peers.learn(peer, word, len(payload)):
                self._ask(peer, now)
        except (Malformed, TooMuch) as exc:
            # At most once in each interval, for anybody may send any number of such messages.
            if now >= self._logged_at + self.interval:
                self._logged_at = now
                log.warning("a message on the bus of presence was dropped: %.200s", exc)

    def _ask(self, peer: Peer, now: float) -> None:
        if now >= peer.asked_at + self.interval:
            peer.asked_at = now
            self._publish(ask(self.own.peer_id, peer.peer_id))

    def _expire(self) -> None:
        now = trio.current_time()
        for peer in self.peers.vanished(now):
            log.info("presence peer %s has said nothing for %g s; its entries are gone", peer.peer_id, now - peer.heard_at)
            self._forget(peer.peer_id)

    def _forget(self, peer_id: str) -> None:
        self._asking.pop(peer_id, None)
        if self.peers.forget(peer_id) and not len(self.peers):
            self.own.drop_changed()
            self._wake()  # the task that speaks need not wait for a time any more
