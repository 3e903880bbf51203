"""A node's view of a cluster whose engine is unreliable: it loses and doubles mail, is slow, loses answers, and is away for a time.

The engine itself does what `Cluster` promises: mail that arrives is in order for each pair of nodes. What the promise leaves open, happens.
"""

import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import attrs
import trio

from trio_sagents.exceptions import RegistryUnavailable
from trio_sagents.nodes import Claim, Cluster, Mail, Node, NodeInfo, Received

T = TypeVar("T")


@attrs.define(eq=False)
class FaultyCluster:
    """One node's view of an engine. Give each node a view of its own of the same engine.

    Cancellation of every method: as of the engine's; a lost answer leaves the change made.
    """

    inner: Cluster
    """The engine."""
    seed: int = attrs.field(default=0, on_setattr=attrs.setters.frozen)
    """Of the faults; it cannot be changed later."""
    lost_mail: float = 0.0
    """How likely it is that a mail is lost, 0 to 1."""
    doubled_mail: float = 0.0
    """How likely it is that a mail arrives twice, 0 to 1."""
    lost_answers: float = 0.0
    """How likely it is that a call has its effect and raises `RegistryUnavailable`, 0 to 1. Joining, leaving and waiting are spared."""
    delay: float = 0.0
    """Seconds that a call takes, at most; drawn anew for each call."""
    is_cut: bool = False
    """Whether the engine cannot be reached: every call raises `RegistryUnavailable`."""
    is_dead: bool = False
    """Whether the node's process was killed: no call has an effect any more, and none returns."""
    node_id: str = ""
    """Of the node that joined last by this view."""
    _random: random.Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(self.seed)  # faults that can be repeated

    @property
    def max_mail(self) -> int:
        """The most bytes of one mail."""
        return self.inner.max_mail

    def mend(self) -> None:
        """Have no faults from now on."""
        self.lost_mail = self.doubled_mail = self.lost_answers = self.delay = 0.0
        self.is_cut = False

    def _happens(self, likely: float) -> bool:
        return likely > 0 and self._random.random() < likely

    async def _call(self, function: Callable[[], Awaitable[T]], *, is_spared: bool = False) -> T:
        if self.is_dead:
            await trio.sleep_forever()
        if self.delay:
            await trio.sleep(self._random.uniform(0, self.delay))
        if self.is_cut:
            await trio.lowlevel.checkpoint()
            raise RegistryUnavailable("the engine cannot be reached")
        result = await function()
        if self.is_dead:
            await trio.sleep_forever()
        if not is_spared and self._happens(self.lost_answers):
            raise RegistryUnavailable("the answer of the engine was lost")
        return result

    def open(self) -> AbstractAsyncContextManager[None]:
        """Open the engine."""
        return self.inner.open()

    async def join(self, node: Node, ttl: float) -> None:
        """Add a node; as `Cluster.join`. Cancellation: as there."""
        self.node_id = node.node_id
        await self._call(lambda: self.inner.join(node, ttl), is_spared=True)

    async def renew(self, node_id: str, ttl: float, *, is_draining: bool = False) -> bool:
        """Let the lease of a node last longer; as `Cluster.renew`. Cancellation: as there."""
        return await self._call(lambda: self.inner.renew(node_id, ttl, is_draining=is_draining))

    async def leave(self, node_id: str) -> None:
        """Remove a node; as `Cluster.leave`. Cancellation: as there."""
        await self._call(lambda: self.inner.leave(node_id), is_spared=True)

    async def nodes(self) -> Sequence[NodeInfo]:
        """Return the nodes; as `Cluster.nodes`. Cancellation: as there."""
        return await self._call(self.inner.nodes)

    async def claim(self, conversation_id: str, node_id: str) -> Claim | None:
        """Let a node run the agent of a conversation; as `Cluster.claim`. Cancellation: as there."""
        return await self._call(lambda: self.inner.claim(conversation_id, node_id))

    async def release(self, conversation_ids: Sequence[str], node_id: str) -> None:
        """End claims of a node; as `Cluster.release`. Cancellation: as there."""
        await self._call(lambda: self.inner.release(conversation_ids, node_id))

    async def holders(self, conversation_ids: Collection[str]) -> Mapping[str, Claim]:
        """Return who has each of the conversations; as `Cluster.holders`. Cancellation: as there."""
        return await self._call(lambda: self.inner.holders(conversation_ids))

    async def send(self, mails: Sequence[Mail]) -> Collection[str]:
        """Put mails into boxes; as `Cluster.send`. Some are lost, and some arrive twice. Cancellation: as there."""
        sent: list[Mail] = []
        for mail in mails:
            if not self._happens(self.lost_mail):
                sent.append(mail)
                if self._happens(self.doubled_mail):
                    sent.append(mail)
        return await self._call(lambda: self.inner.send(sent))

    async def receive(self, node_id: str, done: Sequence[int], limit: int) -> Sequence[Received]:
        """Return what is in the box of a node; as `Cluster.receive`. Cancellation: as there."""
        return await self._call(lambda: self.inner.receive(node_id, done, limit))

    async def wait(self, node_id: str) -> None:
        """Wait for mail; as `Cluster.wait`. Cancellation: as there."""
        await self._call(lambda: self.inner.wait(node_id), is_spared=True)
