"""Presences that share a bus: each sees the entries of all, whatever the bus drops, doubles and reorders, within bounds."""

import itertools
import logging
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sagents.broadcast import LocalPubSub, Presence, PresenceDiff, PubSub, Tracked, _exchange, _peers
from trio_sagents.broadcast._presence_wire import EVERYBODY, Beat, ask, beat, bye, diff, entry_text, read, state
from trio_sagents.data.json import canonical

TOPIC = "conversation:1"
BEAT = 5.0
GONE = 3 * BEAT + 1
YOU = "1" * 16


class Bus:
    """A bus whose every delivery is decided by `fate`: how often each subscriber gets a payload, now or behind the next one."""

    def __init__(self, fate: Callable[[], Sequence[str]] = lambda: ["now"], max_payload: int = 1024 * 1024) -> None:
        self.max_payload = max_payload
        self.fate = fate
        self.published: list[bytes] = []
        self.late: list[tuple[Any, bytes]] = []
        self.subscribers: list[trio.MemorySendChannel[bytes]] = []

    def publish(self, topic: str, payload: bytes) -> None:
        assert len(payload) <= self.max_payload
        self.published.append(payload)
        late, self.late = self.late, []
        for send in self.subscribers:
            for how in self.fate():
                if how == "now":
                    send.send_nowait(payload)
                else:
                    self.late.append((send, payload))
        for send, held in late:
            if send in self.subscribers:
                send.send_nowait(held)

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[bytes]]:
        send, receive = trio.open_memory_channel[bytes](math.inf)
        self.subscribers.append(send)
        try:
            yield receive
        finally:
            self.subscribers.remove(send)


@asynccontextmanager
async def running(*presences: Presence) -> AsyncIterator[None]:
    """Run presences while the block is open."""
    async with trio.open_nursery() as nursery:
        for presence in presences:
            nursery.start_soon(presence.run)
        await trio.testing.wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


async def settled() -> None:
    """Wait until everybody has heard what is there."""
    await trio.testing.wait_all_tasks_blocked()


def pair(bus: PubSub | None = None) -> tuple[Presence, Presence]:
    bus = bus or LocalPubSub()
    return Presence(bus), Presence(bus)


async def keys(presence: Presence, topic: str = TOPIC) -> list[str]:
    """Return the keys on a topic, one for each entry."""
    return sorted(key for key, metas in (await presence.list(topic)).items() for _ in metas)


def deadline() -> float:
    """Return in how many seconds somebody waits for the clock."""
    return trio.lowlevel.current_statistics().seconds_to_next_deadline


async def test_entries_when_two_share_a_bus(autojump_clock: Any) -> None:
    """Each sees the other's entries as if they were its own: listed, counted, listened to, and gone when they leave."""
    here, there = pair()
    counts: list[int] = []
    there.watch_count(TOPIC, counts.append)
    async with running(here, there), there.changes(TOPIC) as changes:
        mine = here.enter(TOPIC, "alice", {"n": 1})
        await settled()
        assert {"alice": [{"n": 1}]} == await there.list(TOPIC)
        assert PresenceDiff({"alice": [{"n": 1}]}, {}) == await anext(changes)
        mine.update({"n": 2})
        await settled()
        assert PresenceDiff({"alice": [{"n": 2}]}, {"alice": [{"n": 1}]}) == await anext(changes)
        yours = there.enter(TOPIC, "bob")
        await settled()
        assert ["alice", "bob"] == await keys(here) == await keys(there)
        assert 2 == here.count(TOPIC) == there.count(TOPIC)
        mine.leave()
        await settled()
        assert PresenceDiff({"bob": [{}]}, {"alice": [{"n": 2}]}) == await anext(changes)
        yours.leave()
        await settled()

        assert [1, 2, 1, 0] == counts
        assert ([], []) == (await keys(here), await keys(there))


async def test_entries_when_a_third_comes_later(autojump_clock: Any) -> None:
    """Who comes later learns of everything that is there, and the others learn of it, on every topic."""
    here, there = pair()
    late = Presence(here.pubsub)
    for number in range(10):
        here.enter(f"topic-{number}", "alice")
        there.enter(f"topic-{number}", "bob")
    late.enter(TOPIC, "carol")
    async with running(here, there):
        async with running(late):
            for number in range(10):
                assert ["alice", "bob"] == await keys(late, f"topic-{number}")
            assert ["carol"] == await keys(here) == await keys(there)
        await settled()

        assert [] == await keys(here) == await keys(there)
        assert ["carol"] == await keys(late)
        assert [] == await keys(late, "topic-1")


async def test_entries_when_a_viewer_changes_places(autojump_clock: Any) -> None:
    """What has come is told before what has left, so a count never falls to zero in between."""
    here, there = pair()
    counts: list[int] = []
    async with running(here, there):
        first = here.enter(TOPIC, "alice")
        await settled()
        there.watch_count(TOPIC, counts.append)
        first.leave()
        here.enter(TOPIC, "alice")
        await settled()

        assert [2, 1] == counts


async def test_presence_when_it_is_alone(autojump_clock: Any) -> None:
    """Alone on the bus of its process it publishes one beat, waits for no time, and what changes costs no message."""
    bus = LocalPubSub()
    presence = Presence(bus)
    heard: list[bytes] = []
    async with bus.subscribe(_exchange.BUS_TOPIC) as payloads, running(presence):
        for number in range(100):
            presence.enter(TOPIC, f"v{number}").leave()
        await trio.sleep(1000)
        await settled()
        assert math.inf == deadline()
        with trio.move_on_after(1):
            async for payload in payloads:
                heard.append(payload)

    assert 1 == len(heard)


async def test_presence_when_the_last_other_has_gone(autojump_clock: Any) -> None:
    """It is silent again, and who comes back learns of what changed meanwhile, although both were in step before."""
    here, there = pair()
    async with running(here):
        async with running(there):
            here.enter(TOPIC, "alice")
            await settled()
            assert ["alice"] == await keys(there)
        here.enter(TOPIC, "bob")
        await settled()
        assert math.inf == deadline()
        async with running(there):
            assert ["alice", "bob"] == await keys(there)


async def test_presence_when_it_is_alone_on_a_network(autojump_clock: Any) -> None:
    """On a bus that may lose its first beat it says one at each interval, so two that missed each other meet."""
    dropped = iter([[], []])
    bus = Bus(lambda: next(dropped, ["now"]))
    here, there = pair(bus)
    here.enter(TOPIC, "alice")
    async with running(here):
        await trio.sleep(10 * BEAT + 1)
        assert 11 == len(bus.published)
        dropped = iter([[]] * 4)
        async with running(there):
            assert [] == await keys(there)
            await trio.sleep(BEAT + 1)
            assert ["alice"] == await keys(there)


async def test_peer_when_it_vanishes(autojump_clock: Any) -> None:
    """Its entries leave after three intervals without a word, and come back with it."""
    bus = Bus()
    here, there = pair(bus)
    there.enter(TOPIC, "alice")
    async with running(here, there):
        await trio.sleep(10 * BEAT)
        assert ["alice"] == await keys(here)
        bus.fate = list
        await trio.sleep(2 * BEAT)
        assert ["alice"] == await keys(here)
        await trio.sleep(GONE)
        assert [] == await keys(here)
        there.enter(TOPIC, "bob")
        bus.fate = lambda: ["now"]
        await trio.sleep(2 * BEAT)

        assert ["alice", "bob"] == await keys(here)


async def test_peer_when_it_is_not_heard_and_hears(autojump_clock: Any) -> None:
    """What changes while nobody seems to be there is learned by a peer that has heard us all the time, and believes to be in step."""
    turns = itertools.count()
    bus = Bus()
    here, there = pair(bus)
    async with running(here), running(there):
        here.enter(TOPIC, "alice")
        await settled()
        assert ["alice"] == await keys(there)
        bus.fate = lambda: [] if next(turns) % 2 == 0 else ["now"]  # of the two subscribers the first one, which is here
        await trio.sleep(2 * GONE)
        here.enter(TOPIC, "bob")
        await trio.sleep(BEAT)
        assert ["alice"] == await keys(there)
        bus.fate = lambda: ["now"]
        await trio.sleep(2 * BEAT)

        assert ["alice", "bob"] == await keys(there)


async def test_peer_when_its_interval_is_another(autojump_clock: Any) -> None:
    """Each says how often it speaks: a slow one is not taken for vanished by a quick one."""
    bus = LocalPubSub()
    quick, slow = Presence(bus, heartbeat_interval=1.0), Presence(bus, heartbeat_interval=60.0)
    slow.enter(TOPIC, "alice")
    async with running(quick, slow):
        for _ in range(100):
            await trio.sleep(10)
            assert ["alice"] == await keys(quick)


async def test_state_when_it_is_large(autojump_clock: Any) -> None:
    """A state that does not fit into one payload comes in parts; no payload is larger than the bus takes."""
    bus = Bus(max_payload=1024)
    here, there = pair(bus)
    for number in range(200):
        here.enter(TOPIC, f"viewer-{number}", {"n": number})
    async with running(here), running(there):
        assert 200 == there.count(TOPIC)
        assert len([payload for payload in bus.published if b'"state"' in payload]) > 10
        entries = [here.enter("other", f"viewer-{number}") for number in range(200)]
        await settled()
        assert 200 == there.count("other")
        for entry in entries:
            entry.leave()
        await settled()

        assert 0 == there.count("other")


async def test_state_when_it_changes_while_it_is_sent(autojump_clock: Any) -> None:
    """What comes, changes and leaves between two parts is right at the end."""
    bus = Bus(max_payload=1024)
    here, there = pair(bus)
    entries = [here.enter(TOPIC, f"viewer-{number}") for number in range(200)]
    async with running(here):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(there.run)
            while not any(b'"state"' in payload for payload in bus.published):
                await trio.lowlevel.checkpoint()
            entries[199].leave()
            entries[0].update({"n": 1})
            here.enter(TOPIC, "late")
            await settled()
            assert canonical(dict(await here.list(TOPIC))) == canonical(dict(await there.list(TOPIC)))
            nursery.cancel_scope.cancel()

    assert 200 == here.count(TOPIC)


async def test_entry_when_it_is_too_large(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is named in the log, once, and stays unknown to the others, who do not see an old version of it either."""
    bus = Bus(max_payload=1024)
    here, there = pair(bus)
    async with running(here, there):
        entry = here.enter(TOPIC, "alice", {"small": 1})
        here.enter(TOPIC, "bob")
        here.enter("t" * 5000, "carol")
        await settled()
        assert ["alice", "bob"] == await keys(there)
        entry.update({"large": "x" * 2000})
        await settled()
        assert ["bob"] == await keys(there)
        entry.update({"large": "x" * 3000})
        await settled()
        entry.update({"small": 2})
        await settled()
        assert {"alice": [{"small": 2}], "bob": [{}]} == await there.list(TOPIC)
        entry.update({"large": "x" * 2000})
        entry.leave()
        await settled()

    assert [
        f"the entry 'carol' on the presence topic '{'t' * 79} does not fit into one message of the bus; other processes do not see it",
        "the entry 'alice' on the presence topic 'conversation:1' does not fit into one message of the bus; other processes do not see it",
    ] == caplog.messages


class Broken(Bus):
    """A bus that raises when it is told to."""

    is_broken = False

    def publish(self, topic: str, payload: bytes) -> None:
        if self.is_broken:
            raise OSError("the network is down")
        super().publish(topic, payload)

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[bytes]]:
        if self.is_broken:
            raise OSError("the network is down")
        async with super().subscribe(topic) as payloads:
            yield payloads


async def test_bus_when_it_takes_no_message(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The log says so once, nobody is harmed, and the others are right again when the bus is."""
    bus = Broken()
    here, there = pair(bus)
    async with running(here, there):
        bus.is_broken = True
        here.enter(TOPIC, "alice")
        await trio.sleep(2 * BEAT)
        assert [] == await keys(there)
        bus.is_broken = False
        await trio.sleep(2 * BEAT)

        assert ["alice"] == await keys(there)
    assert ["the bus of presence accepted no message; other processes see old entries until it accepts one"] * 2 == caplog.messages


@pytest.mark.parametrize("fault", [OSError("the network is down"), "much", None], ids=["raises", "a text", "None"])
async def test_bus_when_it_does_not_know_its_limit(autojump_clock: Any, caplog: pytest.LogCaptureFixture, fault: Any) -> None:
    """A bus whose `max_payload` fails harms nobody, not even when a presence leaves; the others are right again when it works."""

    class Odd(LocalPubSub):
        is_broken = False

        def __getattribute__(self, name: str) -> Any:
            if name == "max_payload" and type(self).is_broken:
                if isinstance(fault, Exception):
                    raise fault
                return fault
            return super().__getattribute__(name)

    here, there = pair(Odd())
    async with running(there):
        async with running(here):
            Odd.is_broken = True
            here.enter(TOPIC, "alice")
            await trio.sleep(2 * BEAT)
            Odd.is_broken = False
            await trio.sleep(4 * BEAT)
            assert ["alice"] == await keys(there)
            Odd.is_broken = True
            here.enter(TOPIC, "bob")
        Odd.is_broken = False
        await trio.sleep(4 * BEAT)

        assert [] == await keys(there)
    assert caplog.messages


async def test_bus_when_it_cannot_be_listened_to(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a bus that raises nor one that ends its iterator ends the presence: it is tried again."""
    bus = Broken()
    here, there = pair(bus)
    bus.is_broken = True
    here.enter(TOPIC, "alice")
    async with running(here, there):
        await trio.sleep(1)
        bus.is_broken = False
        await trio.sleep(BEAT)
        assert ["alice"] == await keys(there)
        assert ["the bus of presence failed; trying it again in 5 s"] * 2 == caplog.messages
        for send in tuple(bus.subscribers):
            send.close()
        bus.subscribers.clear()
        bus.subscribers.extend(trio.open_memory_channel[bytes](math.inf)[:1] * 2)  # for the two that end
        await trio.sleep(1)
        here.enter(TOPIC, "bob")
        await trio.sleep(2 * BEAT)

        assert ["alice", "bob"] == await keys(there)


async def test_message_when_it_is_malformed(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is dropped, the log says why, at most once for each interval, and everything goes on."""
    bus = LocalPubSub()
    here, there = pair(bus)
    async with running(here, there):
        for _ in range(10):
            bus.publish(_exchange.BUS_TOPIC, b"nonsense")
            await settled()
        await trio.sleep(BEAT)
        bus.publish(_exchange.BUS_TOPIC, b"nonsense")
        here.enter(TOPIC, "alice")
        await settled()
        assert ["alice"] == await keys(there)

    assert ["a message on the bus of presence was dropped: a payload without an addressee"] * 4 == caplog.messages


class Stranger:
    """Somebody who writes to the bus by hand, as the peer `YOU`."""

    def __init__(self, bus: LocalPubSub, presence: Presence) -> None:
        assert presence._exchange is not None
        self.bus = bus
        self.me = presence._exchange.own.peer_id

    async def say(self, payload: bytes) -> None:
        self.bus.publish(_exchange.BUS_TOPIC, payload)
        await settled()

    async def diff(self, seq: int, *keys: str, gone: Sequence[int] = ()) -> None:
        await self.say(diff(YOU, seq, BEAT, [entry_text(int(key[1:]), TOPIC, key, {}) for key in keys], gone))

    async def state(self, seq: int, *keys: str, part: int = 0, is_last: bool = True) -> None:
        await self.say(state(self.me, YOU, seq, BEAT, [entry_text(int(key[1:]), TOPIC, key, {}) for key in keys], part, is_last=is_last))


@asynccontextmanager
async def met() -> AsyncIterator[tuple[Presence, Stranger]]:
    """Run a presence that has just heard the first beat of a stranger."""
    bus = LocalPubSub()
    presence = Presence(bus)
    async with running(presence):
        stranger = Stranger(bus, presence)
        await stranger.say(beat(YOU, 5, BEAT))
        yield presence, stranger


async def test_diff_when_it_comes_twice_or_late(autojump_clock: Any) -> None:
    """Only the next difference counts; what is doubled, late or ahead changes nothing."""
    async with met() as (presence, stranger):
        await stranger.diff(6, "v0")
        assert [] == await keys(presence)  # its state is not known yet
        await stranger.state(6, "v1")
        await stranger.diff(7, "v2")
        await stranger.diff(7, "v3")
        await stranger.diff(6, gone=[1])
        await stranger.diff(9, "v4")
        assert ["v1", "v2"] == await keys(presence)
        await stranger.state(5, "v5")
        await stranger.state(7, "v5")
        assert ["v1", "v2"] == await keys(presence)
        await stranger.state(9, "v2", "v4")
        assert ["v2", "v4"] == await keys(presence)
        await stranger.diff(10, gone=[2, 99])

        assert ["v4"] == await keys(presence)


async def test_state_when_its_parts_are_mixed_up(autojump_clock: Any) -> None:
    """Parts may come in any order, and twice; parts of an older state are dropped, and so is an older state by a part of a newer one."""
    async with met() as (presence, stranger):
        await stranger.state(5, "v0", part=0, is_last=False)
        await stranger.state(6, "v3", part=2)
        await stranger.state(5, "v1", part=1)
        await stranger.state(6, "v1", part=0, is_last=False)
        await stranger.state(6, "v1", part=0, is_last=False)
        assert [] == await keys(presence)
        await stranger.state(6, "v2", part=1, is_last=False)

        assert ["v1", "v2", "v3"] == await keys(presence)


async def test_state_when_an_entry_is_another_now(autojump_clock: Any) -> None:
    """A number that names another key is another entry; one with the same meta is not told again."""
    async with met() as (presence, stranger):
        await stranger.state(5, "v1", "v2")
        async with presence.changes(TOPIC) as changes:
            texts = [entry_text(1, TOPIC, "x", {}), entry_text(2, TOPIC, "v2", {})]
            await stranger.say(state(stranger.me, YOU, 6, BEAT, texts, 0, is_last=True))

            assert PresenceDiff({"x": [{}]}, {"v1": [{}]}) == await anext(changes)


async def test_beat_when_its_number_is_another(autojump_clock: Any) -> None:
    """A peer with another number than what is known is asked for its state, at most once in an interval, also if the number is lower."""
    async with met() as (presence, stranger), stranger.bus.subscribe(_exchange.BUS_TOPIC) as payloads:
        await stranger.state(500, "v1")  # somebody pretended to be the peer
        await trio.sleep(BEAT)
        for _ in range(5):
            await stranger.say(beat(YOU, 6, BEAT))
        asked = 0
        with trio.move_on_after(0.1):
            async for payload in payloads:
                asked += payload.startswith(YOU.encode())
        assert 1 == asked
        await stranger.state(6, "v2")

        assert ["v2"] == await keys(presence)


async def test_bye_when_a_change_was_not_sent_yet(autojump_clock: Any) -> None:
    """The change counts: the next beat has another number, for somebody who has heard everything before it and missed the farewell."""
    numbers: list[int] = []
    async with met() as (presence, stranger), stranger.bus.subscribe(_exchange.BUS_TOPIC) as payloads:
        exchange = presence._exchange
        assert exchange is not None
        await stranger.say(beat("2" * 16, 0, BEAT))
        for sender in (YOU, "2" * 16):
            exchange.hear(bye(sender))
        await settled()
        await stranger.say(beat(YOU, 0, BEAT))
        presence.enter(TOPIC, "alice")
        exchange.hear(bye(YOU))
        await settled()
        await stranger.say(beat(YOU, 0, BEAT))
        with trio.move_on_after(0.1):
            async for payload in payloads:
                if isinstance(word := read(payload, YOU), Beat):
                    numbers.append(word.seq)

    assert [0, 0, 1] == numbers[-3:]


async def test_bye_when_nobody_knew_the_peer(autojump_clock: Any) -> None:
    """A farewell of somebody unknown changes nothing."""
    async with met() as (presence, stranger):
        await stranger.state(5, "v1")
        await stranger.say(bye("2" * 16))
        assert ["v1"] == await keys(presence)
        await stranger.say(bye(YOU))

        assert [] == await keys(presence)


async def test_ask_when_it_is_the_first_word(autojump_clock: Any) -> None:
    """Who asks is a peer, too, and gets the state."""
    bus = LocalPubSub()
    presence = Presence(bus)
    presence.enter(TOPIC, "alice")
    async with running(presence), bus.subscribe(_exchange.BUS_TOPIC) as payloads:
        stranger = Stranger(bus, presence)
        await stranger.say(ask(YOU, stranger.me))
        heard: list[bytes] = []
        with trio.move_on_after(0.1):
            async for payload in payloads:
                heard.append(payload)

        assert [YOU, EVERYBODY] == [payload[:16].decode() for payload in heard[1:]]
        assert b'"alice"' in heard[1]
        await trio.sleep(GONE)
        await settled()
        assert math.inf == deadline()


@pytest.mark.parametrize(("name", "most"), [("MAX_ENTRIES", 3), ("MAX_BYTES", 300)])
async def test_bounds_when_a_peer_has_too_much(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    """A peer whose state exceeds a bound is kept without entries, and the log says so; other peers are kept."""
    monkeypatch.setattr(_peers, name, most)
    async with met() as (presence, stranger):
        await stranger.state(5, "v1")
        await stranger.diff(6, "v2", "v3", "v4", "v5", "v6")
        assert ["v1"] == await keys(presence)
        await stranger.state(6, "v1", "v2")
        assert ["v1", "v2"] == await keys(presence)
        await stranger.state(7, "v1", "v2", part=0, is_last=False)
        await stranger.state(7, *(f"v{number}" for number in range(3, 20)), part=1)
        assert [] == await keys(presence)
        await stranger.diff(8, "v9")
        await stranger.state(9, "v1")

        assert [] == await keys(presence)
    (message,) = caplog.messages
    assert f"peer {YOU} has more entries than there is room for; none of them is kept" in message


async def test_bounds_when_there_are_too_many_peers(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """At most so many peers are known; those that vanish make room."""
    bus = LocalPubSub()
    presence = Presence(bus)
    async with running(presence):
        stranger = Stranger(bus, presence)
        for number in range(100):
            await stranger.say(beat(f"{number:016x}", 1, BEAT))
        assert presence._exchange is not None
        assert _peers.MAX_PEERS == len(presence._exchange.peers)
        await trio.sleep(GONE)
        assert 0 == len(presence._exchange.peers)
        await stranger.say(beat(YOU, 1, BEAT))

        assert [YOU] == list(presence._exchange.peers._peers)
    assert ["a message on the bus of presence was dropped: there are 64 peers already"] == caplog.messages


async def test_run_when_there_is_no_bus() -> None:
    """A presence without a bus has nothing to run."""
    with trio.testing.assert_checkpoints():
        await Presence().run()


async def test_run_when_it_is_called_twice(autojump_clock: Any) -> None:
    """One call does the work; when it ends another takes over, and nobody's entries leave meanwhile."""
    here, there = pair()
    counts: list[int] = []
    there.enter(TOPIC, "alice")
    async with running(there), running(here):
        undo = here.watch_count(TOPIC, counts.append)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.run)
            await settled()
            nursery.cancel_scope.cancel()
        await trio.sleep(10 * BEAT)
    undo()
    assert [0] == counts
    here.enter(TOPIC, "bob")
    async with running(there), trio.open_nursery() as nursery:
        counts.clear()
        there.watch_count(TOPIC, counts.append)
        scopes = [trio.CancelScope(), trio.CancelScope()]

        async def run(scope: trio.CancelScope) -> None:
            with scope:
                await here.run()

        for scope in scopes:
            nursery.start_soon(run, scope)
            await settled()
        for _ in range(10):
            await trio.sleep(BEAT)
            scopes[0].cancel()
        here.enter(TOPIC, "carol")
        await settled()
        assert [2, 3] == counts
        scopes[1].cancel()
        await settled()

        assert [2, 3, 2, 1] == counts


@pytest.mark.parametrize(
    ("interval", "error"),
    [(0, ValueError), (61, ValueError), (math.inf, ValueError), (math.nan, ValueError), ("5", TypeError), (True, TypeError)],
)
def test_interval_when_it_is_wrong(interval: Any, error: type[Exception]) -> None:
    """An interval that cannot be is refused."""
    with pytest.raises(error, match="heartbeat_interval"):
        Presence(heartbeat_interval=interval)


STEPS = st.lists(
    st.tuples(st.sampled_from(["enter", "leave", "update", "wait", "cut", "mend", "stop", "start"]), st.integers(0, 2), st.integers(0, 5)),
    max_size=40,
)


class Player:
    """One presence that comes and goes."""

    def __init__(self, bus: Bus) -> None:
        self.presence = Presence(bus)
        self.held: list[Tracked] = []
        self.scope: trio.CancelScope | None = None

    async def run(self) -> None:
        with trio.CancelScope() as self.scope:
            await self.presence.run()


async def play(steps: Sequence[tuple[str, int, int]], seed: int) -> None:
    """Have three presences do as the steps say on a bus that does what it likes, then let the bus be good, and compare."""
    rnd = random.Random(seed)
    bus = Bus(lambda: rnd.choice([["now"], ["now"], ["now"], [], ["late"], ["now", "now"], ["now", "late"]]), max_payload=1024)
    players = [Player(bus) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for what, which, number in [*steps, ("start", 0, 0), ("start", 1, 0), ("start", 2, 0)]:
            player = players[which]
            if what == "enter":
                player.held.append(player.presence.enter(f"topic-{number % 2}", f"key-{number}", {"n": number, "x": "x" * 100}))
            elif what == "leave" and player.held:
                player.held.pop(number % len(player.held)).leave()
            elif what == "update" and player.held:
                player.held[number % len(player.held)].update({"n": number})
            elif what == "wait":
                await trio.sleep(number)
            elif what in {"cut", "mend"}:
                good = bus.fate
                bus.fate = list if what == "cut" else good
                if what == "mend":
                    bus.fate = lambda: rnd.choice([["now"], ["late"], [], ["now", "late"]])
            elif what == "stop" and player.scope is not None:
                player.scope.cancel()
                player.scope = None
            elif what == "start" and player.scope is None:
                nursery.start_soon(player.run)
                await settled()
        bus.fate = lambda: ["now"]
        await trio.sleep(GONE + 3 * BEAT)
        everything = bag(tracked for player in players for tracked in player.held)
        for player in players:
            there: Counter[tuple[str, str, str]] = Counter()
            for topic in ("topic-0", "topic-1"):
                for key, metas in (await player.presence.list(topic)).items():
                    there.update((topic, key, canonical(meta)) for meta in metas)
            assert everything == there
            assert sum(everything.values()) == sum(player.presence.count(topic) for topic in ("topic-0", "topic-1"))
        nursery.cancel_scope.cancel()
    for player in players:
        assert len(player.held) == sum(player.presence.count(topic) for topic in ("topic-0", "topic-1"))


def bag(entries: Iterator[Tracked]) -> Counter[tuple[str, str, str]]:
    """Return each entry with how often it is there."""
    return Counter((tracked.topic, tracked.key, canonical(tracked.read_meta())) for tracked in entries)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(0, 2**32))
def test_entries_when_the_bus_drops_doubles_and_reorders(steps: Sequence[tuple[str, int, int]], seed: int) -> None:
    """Whatever the bus did, and whoever came and went: a few intervals after it is good again, everybody sees exactly what is there."""
    level = logging.getLogger("trio_sagents").level
    logging.getLogger("trio_sagents").setLevel(logging.CRITICAL)
    try:
        trio.run(play, steps, seed, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        logging.getLogger("trio_sagents").setLevel(level)
