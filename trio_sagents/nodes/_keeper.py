"""The lease of this node: the right to run the agents of the conversations that the node has claimed.

One renewal keeps all of them, so its cost does not depend on their number. The lease is trusted for 0.9 of its duration, by Trio's clock,
from the moment *before* the call that renewed it: so the trust ends here before the lease ends at the engine, also if the two clocks drift
apart by up to 10 %.

    trusted ──the time is over──> held still ──a late renewal answers, and nobody took it──> trusted
       │                              └──no answer in a tenth of the lease's duration──> fenced
       └──the engine does not know the node──> fenced; the node joins again, under another id

*Held still*: no tool begins, and nobody claims; what runs already, runs on. Two other designs were considered.

- To fence all agents at once, when the trust ends. That cuts all turns of a node whose process was paused for longer than its lease
  (a debugger, a frozen virtual machine, a blocked event loop), though no other node asked for any of its conversations.
- To hold still until the engine answers. Then an agent could run for as long as the engine is away, though another node may have loaded
  the conversation long ago.

So a node holds still for the tenth of the lease's duration that is left when the trust ends, and no longer. An agent of a node that runs
all the time is cancelled before its lease has ended at the engine; an agent of a node that was paused is cancelled a tenth of the duration
after the node woke up. Saves are not held back meanwhile: the store alone decides, by the epoch, whether a save is too late, and nobody
loses what the store accepts.
"""

import logging
import math
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from trio_sagents._trio.hosts import await_host
from trio_sagents.data.ids import new_token
from trio_sagents.exceptions import RegistryUnavailable, RunsElsewhere
from trio_sagents.nodes._calls import CallFailed, Calls, any_answer, bool_answer, claim_answer, holders_answer
from trio_sagents.nodes._ports import Claim, Cluster, Node
from trio_sagents.nodes._releases import Releases
from trio_sagents.supervisor import Entry, fence
from trio_sagents.supervisor._leases import RENEWALS, TRUSTED

BATCH: Final = 1000
"""Conversations that are asked about by one call."""
RECONCILE: Final = 60.0
"""Seconds between two looks whether the engine still knows the claims of this node."""
log: Final = logging.getLogger("trio_sagents")


def new_node_id() -> str:
    """Return a name for one life of a node, which no other life of any node has."""
    return new_token() + new_token()


@attrs.define(eq=False)
class KeeperCounts:
    """What happened to the lease of a node since the node joined: for operators."""

    renewals: int = 0
    late_renewals: int = 0
    """Renewals that answered when the lease was not trusted any more."""
    fenced: int = 0
    """Agents that were cancelled because the right to run them was lost."""
    joins: int = 0
    latency: float = 0.0
    """Seconds that the last renewal took."""


@attrs.define(eq=False)
class NodeKeeper:
    """The node of one `open_sessions` block."""

    cluster: Cluster
    node: Node
    """Who this node is. The engine may forget it: then its id changes."""
    ttl: float
    settle_timeout: float
    """Seconds that a release may take: whoever ends an agent waits for it."""
    is_draining: bool = False
    """Whether the node takes nothing more."""
    counts: KeeperCounts = attrs.field(factory=KeeperCounts)
    _until: float = -math.inf
    """Trio time: until when the lease is trusted; `-math.inf` if the engine does not know this node, as far as is known here."""
    _lapses: int = 0
    """How many times claims may have been lost: an answer to a question of before that says nothing."""
    _held: dict[str, Entry] = attrs.field(factory=dict)
    # Invariant: by conversation id, those that this node believes to have claimed; an agent boots or lives for each.
    _lost: dict[Entry, str] = attrs.field(factory=dict)
    """Entries that were fenced and have not ended, with the id of the node that had claimed them."""
    _regained: trio.Event = attrs.field(factory=trio.Event)
    """Set when the lease is trusted again, or when nothing is held still any more; another one for each time."""
    _due: trio.Event = attrs.field(factory=trio.Event)
    """Set when the next renewal is due at once."""
    _reconcile_at: float = math.inf
    """Trio time of the next look whether the engine still knows the claims of this node."""
    calls: Calls = attrs.field(default=attrs.Factory(lambda self: Calls(self.patience), takes_self=True))
    _releases: Releases = attrs.field(default=attrs.Factory(lambda self: self._new_releases(), takes_self=True))

    def _new_releases(self) -> Releases:
        bound = min(self.patience, self.settle_timeout)
        return Releases(self.cluster, self.calls, bound, lambda: (self.node_id, self.node.name), self._held)

    @property
    def node_id(self) -> str:
        """The id under which this node is known now."""
        return self.node.node_id

    @property
    def is_trusted(self) -> bool:
        """Whether this node has its lease for certain."""
        return trio.current_time() < self._until

    @property
    def age(self) -> float:
        """Seconds since the last renewal that counts began; `math.inf` before the first, and after the engine has forgotten the node."""
        return trio.current_time() - (self._until - TRUSTED * self.ttl)

    @property
    def claims(self) -> int:
        """How many conversations this node has claimed."""
        return len(self._held)

    @property
    def patience(self) -> float:
        """Seconds that one call may take."""
        return self.ttl / RENEWALS

    @property
    def hold(self) -> float:
        """Seconds for which the agents are held still after the lease was not trusted any more."""
        return (1 - TRUSTED) * self.ttl

    # ── the life of the node

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[None]:
        """Join the cluster, and leave it with the block. `run` has to run meanwhile.

        Raises:
            RegistryUnavailable: the engine could not be reached.

        Cancellation: the node leaves, for a bounded time; if it cannot leave, its lease ends by itself.
        """
        try:
            try:
                await self._join(self.node)
            except CallFailed as exc:
                raise RegistryUnavailable("this node could not join its cluster: the engine did not answer, or failed") from exc.__cause__
            yield
        finally:
            # Cancellation: bounded; other nodes would wait for the end of the lease otherwise.
            with trio.move_on_after(min(self.patience, self.settle_timeout), shield=True):
                try:
                    await self.calls.ask(any_answer, self.cluster.leave, self.node_id)
                except CallFailed as exc:
                    self.calls.log(exc, "node %r could not leave its cluster; its lease ends by itself", self.node.name)

    def drain(self) -> None:
        """Take nothing more, and tell the engine so soon."""
        self.is_draining = True
        self._due.set()

    async def run(self) -> None:
        """Renew, fence and release, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._renew_often, name="node renewals")
            nursery.start_soon(self._watch_trust, name="node trust")
            nursery.start_soon(self._releases.run, name="node releases")

    # ── conversations

    async def acquire(self, entry: Entry) -> None:
        """Claim the conversation of an agent that boots.

        Raises:
            RunsElsewhere: another node has it.
            RegistryUnavailable: nobody could say, or this node takes nothing; what may have been claimed is released.

        Cancellation: what may have been claimed is released.
        """
        conversation_id = entry.conversation_id
        if not self.is_trusted:
            raise RegistryUnavailable(
                f"conversation {conversation_id!r} cannot start here: this node could not renew its lease; try again, or on another node"
            )
        if self.is_draining:
            raise RegistryUnavailable(f"conversation {conversation_id!r} cannot start here: this node is draining; try another node")
        try:
            with trio.fail_after(self.patience):
                await self._releases.wait_released(conversation_id)
                claim = await self._claim(conversation_id)
            if claim is None and not self.is_trusted:
                raise RegistryUnavailable("the lease of this node was not renewed in time")
        except Exception as exc:
            await self._releases.release(conversation_id)  # noqa: ASYNC120  # it shields itself, for a bounded time
            raise RegistryUnavailable(f"nobody could say whether conversation {conversation_id!r} runs on another node") from exc
        except BaseException:
            await self._releases.release(conversation_id)  # noqa: ASYNC102, ASYNC120  # likewise
            raise
        if claim is not None:
            raise RunsElsewhere(conversation_id, claim.expires_in)
        self._held[conversation_id] = entry

    async def _claim(self, conversation_id: str) -> Claim | None:
        while True:
            # Race: the lease may lapse while this asks, and be renewed late: then another node may have taken the conversation after the
            # answer was given, and the list for which the late renewal asks lacks it (test_acquire_during_a_lapse).
            lapses = self._lapses
            claim = claim_answer(await await_host(self.cluster.claim, conversation_id, self.node_id))
            if claim is not None or lapses == self._lapses:
                return claim

    async def release(self, entry: Entry) -> None:
        """Release the conversation of an agent that has ended, if this node has claimed it. What cannot be released is tried again later.

        Cancellation: it is released all the same.
        """
        conversation_id = entry.conversation_id
        if self._held.get(conversation_id) is entry:
            del self._held[conversation_id]
        elif self._lost.pop(entry, None) != self.node_id:
            return  # nothing was claimed, or by an id that the engine has forgotten
        await self._releases.release(conversation_id)

    def may_act(self, entry: Entry) -> bool:
        """Return whether an agent may begin something new.

        Race: the task that watches the trust and the agent's may have slept through the end of a lease together, in a program that blocked
        the event loop; then the agent may be the first to run. So the time is compared here, too (test_no_tool_begins_behind_the_end).
        """
        return self._held.get(entry.conversation_id) is entry and self.is_trusted

    async def wait_known(self, entry: Entry) -> None:
        """Wait while the agent is held still. Afterwards it may act, or it was fenced. Cancellation: nothing is changed."""
        await trio.lowlevel.checkpoint()
        while self._held.get(entry.conversation_id) is entry and not self.is_trusted:
            await self._regained.wait()

    # ── keeping

    async def _renew_often(self) -> None:
        renew_at = trio.current_time() + self.patience
        while True:
            with trio.move_on_at(renew_at):
                await self._due.wait()
            self._due = trio.Event()
            began = trio.current_time()
            try:
                await (self._renew(began) if self._until > -math.inf else self._join(attrs.evolve(self.node, node_id=new_node_id())))
                renew_at = began + self.patience if self._until > -math.inf else began
            except CallFailed as exc:
                self.calls.log(exc, "node %r could not renew its lease; trying again", self.node.name)
                renew_at = trio.current_time() + self.patience / RENEWALS

    async def _join(self, node: Node) -> None:
        """Join as a node that the engine does not know yet, or raise CallFailed."""
        began = trio.current_time()
        self.node = node
        await self.calls.ask(any_answer, self.cluster.join, node, self.ttl)
        self.counts.joins += 1
        self._reconcile_at = began + RECONCILE
        self._trust(began)
        if self.is_draining:
            self._due.set()  # the next renewal says so

    async def _renew(self, began: float) -> None:
        """Renew the lease, or find out that the engine has forgotten the node; raise CallFailed if nobody knows."""
        is_known = await self.calls.ask(bool_answer, self.cluster.renew, self.node_id, self.ttl, is_draining=self.is_draining)
        self.counts.renewals += 1
        self.counts.latency = trio.current_time() - began
        if not is_known:
            self._forgotten()
            return
        if not self.is_trusted:
            # The lease may have ended at the engine before this renewal, and then others may have taken what this node had.
            self.counts.late_renewals += 1
            self._lapses += 1
            await self._compare()
        elif began >= self._reconcile_at:
            await self._compare()
        self._trust(began)

    async def _compare(self) -> None:
        """Ask the engine who has what this node believes to have, and fence the agents of the conversations that it has not."""
        held = tuple(self._held.items())
        for start in range(0, len(held), BATCH):
            asked = held[start : start + BATCH]
            found = await self.calls.ask(holders_answer, self.cluster.holders, [conversation_id for conversation_id, _ in asked])
            lost = [
                entry
                for conversation_id, entry in asked
                # Race: it may have been released while this asked, and claimed again for the next agent.
                if self._held.get(conversation_id) is entry
                and (conversation_id not in found or found[conversation_id].node_id != self.node_id)
            ]
            self._fence(lost, "other nodes may have taken their conversations")
        self._reconcile_at = trio.current_time() + RECONCILE

    def _forgotten(self) -> None:
        """The engine does not know this node: nothing that it had is its own any more."""
        self._until = -math.inf
        self._lapses += 1
        log.warning("the cluster has forgotten node %r, which did not renew its lease for long; the node joins again", self.node.name)
        self._fence(tuple(self._held.values()), "the cluster has forgotten this node")

    def _trust(self, began: float) -> None:
        self._until = began + TRUSTED * self.ttl  # in the past if the answer took that long; then nothing is trusted
        if self.is_trusted:
            self._wake()

    def _wake(self) -> None:
        self._regained.set()
        self._regained = trio.Event()

    async def _watch_trust(self) -> None:
        """Fence all agents if the lease is not trusted for too long."""
        while True:
            regained = self._regained
            if self.is_trusted:
                await trio.sleep_until(self._until)
                continue
            self._due.set()  # a renewal that failed waits for a while; now it is urgent
            with trio.move_on_after(self.hold) as bound:
                await regained.wait()
            if bound.cancelled_caught and not self.is_trusted:
                self._fence(tuple(self._held.values()), "its lease could not be renewed in time")
                await regained.wait()

    def _fence(self, entries: Collection[Entry], why: str) -> None:
        if entries:
            log.warning("node %r lost %d conversations, whose agents end here: %s", self.node.name, len(entries), why)
        for entry in entries:
            del self._held[entry.conversation_id]
            self._lost[entry] = self.node_id
            self.counts.fenced += 1
            fence(entry)
        if entries:
            self._wake()
