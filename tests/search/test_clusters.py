"""Engines of a cluster beside a plain model: any sequence of calls, with time between them, has the answers that the model has."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sagents import RegistryUnavailable
from trio_sagents.cluster import MemoryCluster, SqliteCluster
from trio_sagents.cluster._rules import SWEPT_AFTER
from trio_sagents.nodes import Cluster, Mail, Node

NODES: Final = ("a", "b", "c")
CONVERSATIONS: Final = ("x", "y", "z")
MAX_BOX: Final = 4


@attrs.define
class Model:
    """What the port says, in the plainest way: everything is looked up in lists, and nothing is kept that can be computed."""

    now: float = 0.0
    leases: dict[str, tuple[float, float, bool]] = attrs.field(factory=dict)
    """By node: when its lease was given, for how long, and whether it drains."""
    claims: dict[str, str] = attrs.field(factory=dict)
    mail: list[tuple[str, int]] = attrs.field(factory=list)
    """In the order of arrival: the recipient, and the number that the body has."""

    def left(self, node: str) -> float:
        given_at, ttl, _ = self.leases.get(node, (0.0, 0.0, False))
        return given_at + ttl - self.now if node in self.leases else 0.0

    def gone(self, node: str) -> None:
        self.leases.pop(node, None)
        self.claims = {name: holder for name, holder in self.claims.items() if holder != node}
        self.mail = [(recipient, number) for recipient, number in self.mail if recipient != node]

    def sweep(self) -> None:
        for node, (_, ttl, _) in tuple(self.leases.items()):
            if -self.left(node) >= SWEPT_AFTER * ttl:
                self.gone(node)

    def join(self, node: str, ttl: float) -> Any:
        self.leases[node] = (self.now, ttl, False)
        self.sweep()

    def renew(self, node: str, ttl: float, draining: bool) -> Any:
        known = node in self.leases
        if known:
            self.leases[node] = (self.now, ttl, draining)
        self.sweep()
        return known

    def leave(self, node: str) -> Any:
        self.gone(node)

    def claim(self, conversation: str, node: str) -> Any:
        if self.left(node) <= 0 or self.leases[node][2]:
            return "unavailable"
        holder = self.claims.get(conversation, node)
        if holder != node and self.left(holder) > 0:
            return (holder, self.left(holder))
        self.claims[conversation] = node
        return None

    def release(self, conversations: Sequence[str], node: str) -> Any:
        for conversation in conversations:
            if self.claims.get(conversation) == node:
                del self.claims[conversation]

    def holders(self) -> Any:
        return {name: (node, self.left(node)) for name, node in self.claims.items() if self.left(node) > 0}

    def nodes(self) -> Any:
        held = list(self.claims.values())
        return {node: (self.left(node), lease[2], held.count(node)) for node, lease in self.leases.items()}

    def send(self, recipients: Sequence[str], number: int) -> Any:
        refused: set[str] = set()
        for recipient in set(recipients):
            waiting = sum(each == recipient for each, _ in self.mail)
            if self.left(recipient) <= 0 or waiting + recipients.count(recipient) > MAX_BOX:
                refused.add(recipient)
        self.mail += [(each, number + index) for index, each in enumerate(recipients) if each not in refused]
        return refused

    def receive(self, node: str, done: Sequence[int], limit: int) -> Any:
        self.mail = [(each, number) for each, number in self.mail if each != node or number not in done]
        return [number for each, number in self.mail if each == node][:limit]


@attrs.define(eq=False)
class Real:
    """An engine, whose answers are made as plain as the model's."""

    cluster: Cluster
    numbers: dict[int, int] = attrs.field(factory=dict)
    """By the number in a body: the engine's."""

    async def join(self, node: str, ttl: float) -> Any:
        await self.cluster.join(Node(node, node, "1", 1), ttl)

    async def renew(self, node: str, ttl: float, draining: bool) -> Any:
        return await self.cluster.renew(node, ttl, is_draining=draining)

    async def leave(self, node: str) -> Any:
        await self.cluster.leave(node)

    async def claim(self, conversation: str, node: str) -> Any:
        try:
            claim = await self.cluster.claim(conversation, node)
        except RegistryUnavailable:
            return "unavailable"
        return None if claim is None else (claim.node_id, round(claim.expires_in, 6))

    async def release(self, conversations: Sequence[str], node: str) -> Any:
        await self.cluster.release(conversations, node)

    async def holders(self) -> Any:
        found = await self.cluster.holders(CONVERSATIONS)
        return {name: (claim.node_id, round(claim.expires_in, 6)) for name, claim in found.items()}

    async def nodes(self) -> Any:
        return {info.node.node_id: (round(info.expires_in, 6), info.is_draining, info.conversations) for info in await self.cluster.nodes()}

    async def send(self, recipients: Sequence[str], number: int) -> Any:
        return set(await self.cluster.send([Mail(each, "s", str(number + index)) for index, each in enumerate(recipients)]))

    async def receive(self, node: str, done: Sequence[int], limit: int) -> Any:
        found = await self.cluster.receive(node, [self.numbers[number] for number in done if number in self.numbers], limit)
        self.numbers.update({int(one.body): one.number for one in found})
        return [int(one.body) for one in found]


nodes = st.sampled_from(NODES)
ttls = st.sampled_from((1.0, 3.0, 20.0))
calls = st.one_of(
    st.tuples(st.just("join"), nodes, ttls),
    st.tuples(st.just("renew"), nodes, ttls, st.booleans()),
    st.tuples(st.just("leave"), nodes),
    st.tuples(st.just("claim"), st.sampled_from(CONVERSATIONS), nodes),
    st.tuples(st.just("claim"), st.sampled_from(CONVERSATIONS), nodes),
    st.tuples(st.just("release"), st.lists(st.sampled_from(CONVERSATIONS), max_size=2), nodes),
    st.tuples(st.just("send"), st.lists(nodes, max_size=3)),
    st.tuples(st.just("receive"), nodes, st.lists(st.integers(0, 9), max_size=3), st.integers(1, 4)),
    st.tuples(st.just("pass"), st.sampled_from((0.5, 1.0, 2.0, 15.0, 40.0))),
)
histories = st.lists(calls, max_size=30)


async def compare(real: Real, history: Sequence[tuple[Any, ...]], jump: Any) -> None:
    """Make the calls, on the engine and on the model, and compare each answer, and what there is afterwards."""
    model = Model()
    sent: list[int] = []
    for name in NODES:
        await real.join(name, 3.0)
        model.join(name, 3.0)
    for call, *given_to in history:
        arguments: list[Any] = given_to
        if call == "pass":
            jump(arguments[0])
            model.now += arguments[0]
            continue
        if call == "send":
            arguments.append(1000 * (1 + len(sent)))
            sent.append(arguments[1])
        elif call == "receive":
            arguments[1] = [number for number in real.numbers if number % 10 in arguments[1]]  # only what was received is ever done
        expected, actual = getattr(model, call)(*arguments), await getattr(real, call)(*arguments)
        assert expected == actual, (call, arguments)
        assert (model.holders(), model.nodes()) == (await real.holders(), await real.nodes()), (call, arguments)


@settings(max_examples=150, deadline=None)
@given(histories)
def test_memory_against_the_model(history: Sequence[tuple[Any, ...]]) -> None:
    """The engine in memory answers as the model does."""
    clock = trio.testing.MockClock()
    trio.run(compare, Real(MemoryCluster(max_box=MAX_BOX)), history, clock.jump, clock=clock)


@settings(max_examples=12, deadline=None)
@given(histories)
def test_sqlite_against_the_model(history: Sequence[tuple[Any, ...]]) -> None:
    """The engine in SQLite answers as the model does."""
    now = [1e9]

    def jump(seconds: float) -> None:
        now[0] += seconds

    with tempfile.TemporaryDirectory() as folder:
        cluster = SqliteCluster(Path(folder) / "nodes.db", clock=lambda: now[0], max_box=MAX_BOX)
        trio.run(compare, Real(cluster), history, jump)
