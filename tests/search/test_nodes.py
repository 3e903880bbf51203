"""Three nodes, an unreliable engine, people who post and watch anywhere: nothing is lost, done twice, or told wrongly.

Each history is drawn from a seed. `python -m tests.search.test_nodes FIRST COUNT` runs more of them, and prints what fails.
"""

import random
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support.nodes import Killable, Nodes, Reader
from tests.support.scenarios import NEVER
from trio_sagents import (
    Agent,
    AgentBusy,
    MemoryStore,
    PersistenceError,
    RegistryUnavailable,
    SagentsError,
    Sessions,
    SessionsClosed,
    StartFailed,
)
from trio_sagents.testing import ScriptedModel

CONVERSATIONS = ("a", "b")
TTL = 8.0
"""Seconds of a node's lease."""
HISTORIES = 25
"""Histories of one run of the tests."""


def answer(request: Any) -> str:
    """Answer with the text and the number of all messages of people so far."""
    said = [message.text for message in request.messages if message.role == "user"]
    return f"[{said[-1]}] is number {len(said)}. " * 3


@attrs.define(eq=False)
class World:
    """One history."""

    seed: int
    draw: random.Random = attrs.field(init=False)
    nodes: Nodes = attrs.field(init=False)
    alive: list[Killable] = attrs.field(factory=list)
    sessions: dict[Killable, Sessions] = attrs.field(factory=dict)
    posted: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    """By conversation and text: how often its message was acknowledged."""
    readers: list[Reader] = attrs.field(factory=list)
    lives: list[Killable] = attrs.field(factory=list)
    errors: Counter[str] = attrs.field(factory=Counter)
    is_calm: bool = False
    """Whether viewers stay where they are."""

    def __attrs_post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        agent = Agent(model=ScriptedModel(answer, chunk_size=3, chunk_interval=self.draw.choice([0.0, 0.05, 0.4])))
        settings = {"inactivity_timeout": self.draw.choice([5.0, 30.0, NEVER]), "policy": {"lease_ttl": TTL, "settle_timeout": 2.0}}
        self.nodes = Nodes(MemoryStore(), router=agent, settings=settings)

    async def run(self) -> None:
        """Run the history, and check what is left."""
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                await self.open_node(nursery)
            async with trio.open_nursery() as people:
                for number in range(3):
                    people.start_soon(self.person, number)
                people.start_soon(self.trouble, nursery)
                viewers = await nursery.start(self.watchers)
            for killable in self.alive:
                killable.view.mend()
            self.is_calm = True
            await trio.sleep(4 * TTL)
            await self.settle()
            await self.check()
            viewers.cancel()
            nursery.cancel_scope.cancel()

    async def open_node(self, nursery: trio.Nursery) -> None:
        """Open a node with faults of its own."""
        draw = self.draw
        killable = Killable(self.nodes, draw.getrandbits(30))
        with trio.move_on_after(30):
            self.sessions[killable] = await nursery.start(killable.run)
            self.alive.append(killable)
            self.lives.append(killable)
            view = killable.view
            view.lost_mail = draw.choice([0.0, 0.0, 0.1, 0.3])
            view.doubled_mail = draw.choice([0.0, 0.2])
            view.lost_answers = draw.choice([0.0, 0.0, 0.05])
            view.delay = draw.choice([0.0, 0.02, 0.5])

    async def trouble(self, nursery: trio.Nursery) -> None:
        """Kill nodes, close nodes, and cut nodes off for a while."""
        for _ in range(self.draw.randint(0, 3)):
            await trio.sleep(self.draw.uniform(0, 10))
            victim = self.draw.choice(self.alive)
            match self.draw.choice(["kill", "close", "cut", "cut"]):
                case "kill":
                    self.alive.remove(victim)
                    victim.kill()
                    await self.open_node(nursery)
                case "close":
                    self.alive.remove(victim)
                    victim.scope.cancel()
                    await self.open_node(nursery)
                case _:
                    victim.view.is_cut = True
                    await trio.sleep(self.draw.choice([1.0, TTL / 2, 2 * TTL]))
                    victim.view.is_cut = False

    async def person(self, number: int) -> None:
        """Post some messages, each at any node until it is acknowledged; sometimes at two nodes at once."""
        for count in range(self.draw.randint(1, 4)):
            conversation = self.draw.choice(CONVERSATIONS)
            text, message_id = f"{number}/{count}", f"m-{number}-{count}"
            await trio.sleep(self.draw.uniform(0, 5))
            async with trio.open_nursery() as nursery:
                for _ in range(self.draw.choice([1, 1, 2])):
                    nursery.start_soon(self.post, conversation, text, message_id)

    async def post(self, conversation: str, text: str, message_id: str) -> None:
        """Post a message until it is acknowledged."""
        while True:
            sessions = self.sessions[self.draw.choice(self.alive)]
            overlap = self.draw.choice(["queue", "queue", "steer"])
            try:
                with trio.move_on_after(self.draw.choice([3.0, 60.0])):
                    receipt = await sessions.post(conversation, text, message_id=message_id, overlap=overlap)
                    self.posted[conversation, text] += 1
                    if self.draw.random() < 0.5:
                        with trio.move_on_after(20):
                            await receipt.wait()
                    return
            except (SessionsClosed, StartFailed, PersistenceError, RegistryUnavailable, AgentBusy) as exc:
                self.errors[type(exc).__name__] += 1
            await trio.sleep(0.5)

    async def watchers(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        """Watch both conversations from any node; move to another node when the own one has gone, with the last cursor."""
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                for conversation in CONVERSATIONS:
                    for _ in range(2):
                        nursery.start_soon(self.watch, conversation)
                task_status.started(scope)

    async def watch(self, conversation: str) -> None:
        reader = Reader(conversation)
        self.readers.append(reader)
        cursor = None
        while True:
            killable = self.draw.choice(self.alive)
            with trio.move_on_after(NEVER if self.is_calm else self.draw.choice([2.0, 20.0])):
                try:
                    async with self.sessions[killable].open_subscriber() as subscriber:
                        await subscriber.subscribe(conversation, after=cursor)
                        while killable in self.alive:
                            with trio.move_on_after(1.0):
                                envelope = await subscriber.__anext__()
                                reader.take(envelope)
                                cursor = envelope.cursor
                except SessionsClosed:
                    pass
            await trio.sleep(0.1)

    async def settle(self) -> None:
        """Wait until every conversation is at rest."""
        for conversation in CONVERSATIONS:
            for _ in range(20):
                try:
                    info = await self.sessions[self.alive[0]].start(conversation)
                    await info.agent.wait_idle()
                    break
                except SagentsError as exc:
                    self.errors[type(exc).__name__] += 1
                    await trio.sleep(2)
            else:
                raise AssertionError(f"conversation {conversation!r} does not come to rest")
        await trio.sleep(10)

    async def check(self) -> None:
        """Check the store, and what viewers were told."""
        for conversation in CONVERSATIONS:
            state = await (await self.sessions[self.alive[0]].start(conversation)).agent.state()
            users = Counter(message.text for message in state.messages if message.role == "user")
            wanted = {text for name, text in self.posted if name == conversation}
            assert users == Counter(wanted), (conversation, users, wanted)
            answers = {message.message_id: message.text for message in state.messages if message.role == "assistant"}
            for reader in self.readers:
                for message_id, text in reader.completed.items():
                    if message_id in answers:
                        assert answers[message_id] == text, (message_id, text, answers[message_id])
        stored = {
            message.message_id
            for conversation in CONVERSATIONS
            for message in (await (await self.sessions[self.alive[0]].start(conversation)).agent.state()).messages
        }
        for reader in self.readers:
            assert set(reader.completed) <= stored, "a viewer was told of an answer that is not stored"
        for conversation in CONVERSATIONS:
            await (await self.sessions[self.alive[0]].start(conversation)).agent.touch()
        await trio.sleep(4)
        self.check_places()
        self.check_writers()

    def check_places(self) -> None:
        """Check that every viewer has come as far as the agent: nothing is on its way any more."""
        for conversation in CONVERSATIONS:
            entries = [
                self.sessions[killable].runtime.registry.find(f"conversation-{conversation}", conversation) for killable in self.alive
            ]
            (live,) = [entry.live for entry in entries if entry is not None and entry.live is not None and not entry.live.is_remote]
            place = live.journal.feed("main").place  # type: ignore[attr-defined]  # a LiveAgent
            for reader in self.readers:
                if reader.conversation == conversation:
                    assert (place.incarnation, place.seq) == reader.place, (place, reader.place, reader.kinds()[-5:])

    def check_writers(self) -> None:
        """Check that each epoch of a conversation has one writer, and that all commits are one chain."""
        writers: dict[tuple[str, int], set[int]] = {}
        revisions: dict[tuple[str, int], int] = {}
        for life in self.lives:
            for commit in life.disk.written:
                if not isinstance(commit, str):
                    writers.setdefault((commit.conversation_id, commit.epoch), set()).add(id(life))
                    assert revisions.setdefault((commit.conversation_id, commit.revision), commit.epoch) == commit.epoch
        assert all(len(lives) == 1 for lives in writers.values()), writers


def run_history(seed: int) -> World:
    """Run one history in virtual time."""
    world = World(seed)

    async def main() -> None:
        with trio.fail_after(100_000):
            await world.run()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return world


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_history_of_three_nodes(seed: int) -> None:
    """No message is lost or accepted twice, no epoch has two writers, and no viewer is told a wrong text."""
    run_history(seed)


def main(arguments: Sequence[str]) -> int:
    """Run many histories; return 1 if one fails."""
    first, count = map(int, arguments)
    failed = 0
    for seed in range(first, first + count):
        try:
            run_history(seed)
        except BaseException as exc:  # reported
            failed += 1
            print(f"seed {seed}: {exc!r}"[:2000])
            if failed >= 5:
                break
        if not (seed + 1 - first) % 50:
            print(f"{seed + 1 - first} histories, {failed} failed", flush=True)
    print(f"{count} histories, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
