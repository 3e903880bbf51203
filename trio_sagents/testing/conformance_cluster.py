"""What every `Cluster` must do, as tests: subclass `ClusterConformance`, say how it is opened and how time passes, and run pytest.

    class TestMyCluster(ClusterConformance):
        @asynccontextmanager
        async def open_clusters(self):
            async with MyCluster(place).open() as here, MyCluster(place).open() as there:
                yield here, there

Needs pytest and pytest-trio. An engine that counts by a clock of a server's own takes the real time that `pass_time` sleeps: make `ttl`
small there.
"""

import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar

import pytest
import trio

from trio_sagents.exceptions import RegistryUnavailable
from trio_sagents.nodes import Cluster, Mail, Node, NodeInfo, Received


def node(node_id: str, *, name: str = "host:1", state_version: int = 3) -> Node:
    """Return a node that says this about itself."""
    return Node(node_id, name, "1.2.3", state_version)


def mail(recipient: str, number: int, sender: str = "a") -> Mail:
    """Return a mail that can be told from others by its number."""
    return Mail(recipient, sender, json.dumps({"number": number}))


def numbers(received: Sequence[Received]) -> Sequence[int]:
    """Return the numbers that `mail` gave to what was received."""
    return [json.loads(one.body)["number"] for one in received]


class _Engine:
    """How an engine is opened, and how its time passes."""

    pytestmark: ClassVar[pytest.MarkDecorator] = pytest.mark.trio
    ttl: ClassVar[float] = 1.0
    """Seconds that the lease of a node lasts in these tests."""
    swept_after: ClassVar[float] = 11.0
    """After how many durations of a lease a node that does not renew must have been swept away by another one's renewal."""
    patience: ClassVar[float] = 10.0
    """Seconds of real or virtual time that `wait` may take at most."""

    def open_clusters(self) -> AbstractAsyncContextManager[tuple[Cluster, Cluster]]:
        """Open an engine that no node has joined, twice, as two processes do. The same object twice if blocks can share it."""
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        """Let time pass by the clock of the engine."""
        await trio.sleep(seconds)

    async def _info(self, cluster: Cluster, node_id: str) -> NodeInfo:
        (found,) = [info for info in await cluster.nodes() if info.node.node_id == node_id]
        return found


class _MailTests(_Engine):
    """The tests that are about mail."""

    async def test_send_is_received_in_order(self) -> None:
        """Mail from one node to another arrives whole, in order, and again until it is done; other nodes get nothing of it."""
        async with self.open_clusters() as (here, there):
            for one in ("a", "b", "c"):
                await here.join(node(one), 60 * self.ttl)
            assert [] == list(await here.send([]))
            assert [] == list(await here.send([mail("b", 1), mail("c", 2), mail("b", 3)]))
            assert [] == list(await here.send([mail("b", 4)]))
            assert [] == list(await here.receive("a", (), 10))
            found = await there.receive("b", (), 10)
            assert [1, 3, 4] == numbers(found)
            assert {"a"} == {one.sender for one in found}
            assert found == await there.receive("b", (), 10)
            assert [1, 3] == numbers(await there.receive("b", (), 2))
            assert [3] == numbers(await there.receive("b", [found[0].number, found[2].number], 10))
            assert [] == list(await there.receive("b", [found[1].number], 10))
            assert [2] == numbers(await there.receive("c", (), 10))

    async def test_receive_when_it_is_done_out_of_order(self) -> None:
        """What is done is removed by its number alone: an earlier mail that is not done comes again."""
        async with self.open_clusters() as (here, there):
            for one in ("a", "b"):
                await here.join(node(one), 60 * self.ttl)
            await here.send([mail("b", number) for number in range(4)])
            found = await there.receive("b", (), 10)
            await here.send([mail("b", 4)])
            assert [0, 1, 2, 4] == numbers(await there.receive("b", [found[3].number, 10**9], 10))

    async def test_receive_when_the_number_is_of_another_box(self) -> None:
        """Nobody removes another node's mail."""
        async with self.open_clusters() as (here, there):
            for one in ("a", "b"):
                await here.join(node(one), 60 * self.ttl)
            await here.send([mail("b", 1)])
            (found,) = await there.receive("b", (), 10)
            await there.receive("a", [found.number], 10)
            assert [found] == list(await there.receive("b", (), 10))

    async def test_send_of_texts(self) -> None:
        """A body arrives as it was sent, up to `max_mail` bytes; one that is longer is refused, with all of its send."""
        async with self.open_clusters() as (here, there):
            assert here.max_mail >= 64 * 1024
            for one in ("a", "b"):
                await here.join(node(one), 60 * self.ttl)
            texts = ['"größe 漢字 😀 \u2028 \\u0000 \\ud800 \'; --"', "0", '"' + "é" * (here.max_mail // 2 - 1) + '"']
            assert [] == list(await here.send([Mail("b", "a", text) for text in texts]))
            assert texts == [one.body for one in await there.receive("b", (), 10)]
            with pytest.raises(ValueError, match="max_mail"):
                await here.send([mail("b", 1), Mail("b", "a", '"' + "é" * (here.max_mail // 2) + '"')])
            assert 3 == len(await there.receive("b", (), 10))

    async def test_send_when_the_recipient_is_gone(self) -> None:
        """Who is not there, or whose lease has ended, gets nothing; the others get theirs; a late renewal lets mail in again."""
        async with self.open_clusters() as (here, there):
            await here.join(node("a"), 60 * self.ttl)
            await there.join(node("b"), self.ttl)
            await self.pass_time(1.2 * self.ttl)
            assert {"b", "never"} == set(await here.send([mail("b", 1), mail("never", 2), mail("a", 3)]))
            assert [3] == numbers(await here.receive("a", (), 10))
            assert await there.renew("b", 60 * self.ttl) is True
            assert [] == list(await here.send([mail("b", 4)]))
            assert [4] == numbers(await there.receive("b", (), 10))

    async def test_wait_when_mail_arrives(self) -> None:
        """Whoever waits is told of mail that arrived since the last `receive` began, also if it arrived before the wait."""
        async with self.open_clusters() as (here, there):
            for one in ("a", "b"):
                await here.join(node(one), 600 * self.ttl)
            assert [] == list(await there.receive("b", (), 10))
            await here.send([mail("b", 1)])
            with trio.fail_after(self.patience):
                while not await there.receive("b", (), 10):
                    await there.wait("b")
            (found,) = await there.receive("b", (), 10)
            assert [] == list(await there.receive("b", [found.number], 10))

            async def wait() -> None:
                with trio.fail_after(self.patience):
                    while not await there.receive("b", (), 10):
                        await there.wait("b")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.sleep(0.01)
                await here.send([mail("b", 2)])

    async def test_wait_when_nothing_arrives(self) -> None:
        """A wait ends after a few seconds though nothing arrived, also for a node that is not there; and it can be cancelled."""
        async with self.open_clusters() as (here, _there):
            await here.join(node("a"), 600 * self.ttl)
            for node_id in ("a", "never"):
                with trio.fail_after(self.patience):
                    await here.wait(node_id)
            with trio.CancelScope() as scope:
                scope.cancel()
                await here.wait("a")
            assert scope.cancelled_caught


class ClusterConformance(_MailTests):
    """The tests. A subclass overrides `open_clusters`; each test opens an engine that is empty."""

    # ── nodes

    async def test_join_tells_of_the_node(self) -> None:
        """A node that joined is told of as it is, with its lease, and without conversations; the oldest comes first."""
        async with self.open_clusters() as (here, there):
            assert [] == list(await here.nodes())
            first, second = node("a", name="größe:1", state_version=7), node("b")
            await here.join(first, 8 * self.ttl)
            await there.join(second, 16 * self.ttl)
            found = list(await there.nodes())
            assert [first, second] == [info.node for info in found]
            assert [False, False] == [info.is_draining for info in found]
            assert [0, 0] == [info.conversations for info in found]
            assert 7 * self.ttl < found[0].expires_in <= 8 * self.ttl < found[1].expires_in <= 16 * self.ttl
            assert found[0].joined_at <= found[1].joined_at
            assert found[0].joined_at.utcoffset() is not None

    async def test_join_when_it_has_joined(self) -> None:
        """A node that joins twice is one node, whose lease lasts from then on; it keeps what it has claimed."""
        async with self.open_clusters() as (here, there):
            await here.join(node("a"), self.ttl)
            await here.claim("c", "a")
            await here.join(node("a"), 20 * self.ttl)
            (found,) = await there.nodes()
            assert found.expires_in > 10 * self.ttl
            assert 1 == found.conversations

    async def test_renew_keeps(self) -> None:
        """A lease that is renewed lasts from then on, and all claims of the node with it."""
        async with self.open_clusters() as (here, there):
            await here.join(node("a"), self.ttl)
            await there.join(node("b"), 60 * self.ttl)
            for one in ("c", "d"):
                assert await here.claim(one, "a") is None
            for _ in range(3):
                await self.pass_time(0.6 * self.ttl)
                assert await here.renew("a", self.ttl) is True
            for one in ("c", "d"):
                claim = await there.claim(one, "b")
                assert claim is not None
                assert "a" == claim.node_id
                assert 0 < claim.expires_in <= self.ttl

    async def test_renew_when_the_lease_has_ended(self) -> None:
        """A late renewal counts: the node has again what nobody took, and not what somebody took."""
        async with self.open_clusters() as (here, there):
            await here.join(node("a"), self.ttl)
            await there.join(node("b"), 60 * self.ttl)
            for one in ("kept", "taken"):
                await here.claim(one, "a")
            await self.pass_time(1.2 * self.ttl)
            assert await there.claim("taken", "b") is None
            assert await here.renew("a", 60 * self.ttl) is True
            found = await here.holders(["kept", "taken"])
            assert {"kept": "a", "taken": "b"} == {name: claim.node_id for name, claim in found.items()}
            assert [1, 1] == [(await self._info(here, node_id)).conversations for node_id in ("a", "b")]

    async def test_renew_when_it_is_not_there(self) -> None:
        """The lease of a node that never joined, or left, is not renewed, and it does not come back."""
        async with self.open_clusters() as (here, there):
            assert await here.renew("a", self.ttl) is False
            await here.join(node("a"), self.ttl)
            await here.leave("a")
            assert await here.renew("a", self.ttl) is False
            assert [] == list(await there.nodes())

    async def test_renew_when_it_was_swept_away(self) -> None:
        """A node whose lease ended long ago is swept away by another one's renewal, with its claims and its mail."""
        async with self.open_clusters() as (here, there):
            await here.join(node("a"), self.ttl)
            await there.join(node("b"), 60 * self.ttl)
            await here.claim("c", "a")
            assert [] == list(await there.send([mail("a", 1, "b")]))
            await self.pass_time(2 * self.ttl)
            assert await there.renew("b", 60 * self.ttl) is True
            assert ["a", "b"] == [info.node.node_id for info in await there.nodes()]
            assert (await self._info(there, "a")).expires_in <= 0
            await self.pass_time(self.swept_after * self.ttl)
            assert await there.renew("b", 60 * self.ttl) is True
            assert ["b"] == [info.node.node_id for info in await there.nodes()]
            assert await here.renew("a", 60 * self.ttl) is False
            await here.join(node("a"), 60 * self.ttl)
            assert 0 == (await self._info(here, "a")).conversations
            assert [] == list(await here.receive("a", (), 10))

    async def test_renew_says_that_it_drains(self) -> None:
        """A node that drains is told of so, keeps what it has, and gets nothing more, until it says otherwise."""
        async with self.open_clusters() as (here, there):
            await here.join(node("a"), 60 * self.ttl)
            await there.join(node("b"), 60 * self.ttl)
            await here.claim("c", "a")
            assert await here.renew("a", 60 * self.ttl, is_draining=True) is True
            assert (await self._info(there, "a")).is_draining
            assert not (await self._info(there, "b")).is_draining
            with pytest.raises(RegistryUnavailable):
                await here.claim("d", "a")
            claim = await there.claim("c", "b")
            assert claim is not None
            assert "a" == claim.node_id
            assert await there.claim("d", "b") is None
            assert await here.renew("a", 60 * self.ttl) is True
            assert await here.claim("e", "a") is None

    async def test_leave_frees_all(self) -> None:
        """Who leaves has nothing any more; leaving twice does nothing, and others keep what they have."""
        async with self.open_clusters() as (here, there):
            await here.join(node("a"), 60 * self.ttl)
            await there.join(node("b"), 60 * self.ttl)
            await here.claim("c", "a")
            await there.claim("d", "b")
            for _ in range(2):
                await here.leave("a")
            assert ["b"] == [info.node.node_id for info in await there.nodes()]
            assert await there.claim("c", "b") is None
            assert {"c", "d"} == set(await there.holders(["c", "d"]))
            assert ["a"] == list(await there.send([mail("a", 1, "b")]))

    # ── conversations

    async def test_claim_when_it_is_free(self) -> None:
        """One node has it, also if it claims twice; another node is told who has it, and for how long at most."""
        async with self.open_clusters() as (here, there):
            await here.join(node("a"), 8 * self.ttl)
            await there.join(node("b"), 60 * self.ttl)
            for _ in range(2):
                assert await here.claim("c", "a") is None
            for _ in range(2):
                claim = await there.claim("c", "b")
                assert claim is not None
                assert "a" == claim.node_id
                assert 0 < claim.expires_in <= 8 * self.ttl
            assert {"c": "a"} == {name: claim.node_id for name, claim in (await there.holders(["c", "never"])).items()}
            assert [1, 0] == [(await self._info(here, node_id)).conversations for node_id in ("a", "b")]

    async def test_claim_when_the_lease_of_its_node_has_ended(self) -> None:
        """A claim is worth something as long as the lease of its node lasts, and not longer; no instant is free before."""
        async with self.open_clusters() as (here, there):
            await here.join(node("a"), 4 * self.ttl)
            await there.join(node("b"), 60 * self.ttl)
            await here.claim("c", "a")
            await self.pass_time(3.2 * self.ttl)
            claim = await there.claim("c", "b")
            assert claim is not None
            assert 0 < claim.expires_in <= 0.8 * self.ttl
            await self.pass_time(self.ttl)
            assert {} == dict(await there.holders(["c"]))
            assert await there.claim("c", "b") is None
            assert "b" == (await here.holders(["c"]))["c"].node_id

    async def test_claim_by_a_node_without_a_lease(self) -> None:
        """A node whose lease has ended, or that is not there, gets nothing: not what is free, nor what it had."""
        async with self.open_clusters() as (here, there):
            await here.join(node("a"), self.ttl)
            await there.join(node("b"), 60 * self.ttl)
            await here.claim("had", "a")
            await self.pass_time(1.2 * self.ttl)
            for conversation_id, node_id in (("free", "a"), ("had", "a"), ("free", "never")):
                with pytest.raises(RegistryUnavailable):
                    await here.claim(conversation_id, node_id)
            assert {} == dict(await here.holders(["free", "had"]))
            assert await there.claim("free", "b") is None

    async def test_claims_are_apart(self) -> None:
        """One conversation's claim is not another's, whatever their ids look like, and however long they are."""
        long = "c" * 255
        ids = ("c", "C", "c ", "c/d", "c%", "c_", "c'; --", "ç", "漢字", long, f"{long}1", f"{long}2")
        async with self.open_clusters() as (here, there):
            for index, one in enumerate(ids):
                await here.join(node(f"node-{index}"), 60 * self.ttl)
                assert await here.claim(one, f"node-{index}") is None
            found = await there.holders(ids)
            assert {one: f"node-{index}" for index, one in enumerate(ids)} == {one: claim.node_id for one, claim in found.items()}

    async def test_claim_when_many_ask_at_once(self) -> None:
        """Of many nodes that claim at once, one gets it, and the others are told that it has it."""
        async with self.open_clusters() as (here, there):
            got: list[str] = []
            told: set[str] = set()

            async def ask(cluster: Cluster, node_id: str) -> None:
                claim = await cluster.claim("c", node_id)
                if claim is None:
                    got.append(node_id)
                else:
                    told.add(claim.node_id)

            for number in range(16):
                await here.join(node(f"node-{number}"), 60 * self.ttl)
            async with trio.open_nursery() as nursery:
                for number in range(16):
                    nursery.start_soon(ask, (here, there)[number % 2], f"node-{number}")
            assert 1 == len(got)
            assert {*got} == told

    async def test_release_frees(self) -> None:
        """What was released is free at once; releasing twice, or nothing, or what one never had, does nothing."""
        async with self.open_clusters() as (here, there):
            await here.join(node("a"), 60 * self.ttl)
            await there.join(node("b"), 60 * self.ttl)
            for one in ("c", "d", "kept"):
                await here.claim(one, "a")
            await here.release([], "a")
            for _ in range(2):
                await here.release(["c", "d", "never"], "a")
            assert await there.claim("c", "b") is None
            assert {"c": "b", "kept": "a"} == {name: claim.node_id for name, claim in (await here.holders(["c", "d", "kept"])).items()}
            assert [1, 1] == [(await self._info(here, node_id)).conversations for node_id in ("a", "b")]

    async def test_release_when_another_has_it(self) -> None:
        """Whoever releases too late, or what another node has, changes nothing."""
        async with self.open_clusters() as (here, there):
            await here.join(node("a"), self.ttl)
            await there.join(node("b"), 60 * self.ttl)
            for one in ("c", "d"):
                await here.claim(one, "a")
            await self.pass_time(1.2 * self.ttl)
            await there.claim("c", "b")
            await here.release(["c", "d"], "a")
            assert await here.renew("a", 60 * self.ttl) is True
            assert {"c": "b"} == {name: claim.node_id for name, claim in (await here.holders(["c", "d"])).items()}

    async def test_holders_of_many(self) -> None:
        """One call tells of many conversations, and of none."""
        async with self.open_clusters() as (here, there):
            await here.join(node("a"), 60 * self.ttl)
            await here.claim("c", "a")
            assert {} == dict(await there.holders([]))
            found = await there.holders({"c", *(f"free-{number}" for number in range(500))})
            assert ["c"] == list(found)
            assert 0 < found["c"].expires_in <= 60 * self.ttl
