"""Leases, and a cluster, in dicts: for several `open_sessions` blocks of one process, and for tests."""

import datetime
import itertools
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from trio_sagents.cluster._rules import LONGEST_WAIT, MAX_BOX, MIN_MAIL, SWEPT_AFTER, check_bounds, check_limit, check_mails, check_ttl
from trio_sagents.exceptions import RegistryUnavailable
from trio_sagents.nodes import Claim, Mail, Node, NodeInfo, Received


@attrs.define(eq=False)
class MemoryLeases:
    """Leases of one process, by Trio's clock; hand the same object to each block."""

    _held: dict[str, tuple[str, float]] = attrs.field(factory=dict)
    """By conversation id: the holder, and the Trio time at which its lease ends."""

    async def acquire(self, conversation_id: str, holder: str, ttl: float) -> float | None:
        """Get a lease; as `Leases.acquire`. Cancellation: either nothing was done, or the lease is held and the call returns."""
        await trio.lowlevel.checkpoint()
        found = self._held.get(conversation_id)
        remaining = 0.0 if found is None or found[0] == holder else found[1] - trio.current_time()
        if remaining > 0:
            return remaining
        self._held[conversation_id] = (holder, trio.current_time() + ttl)
        return None

    async def renew(self, conversation_ids: Sequence[str], holder: str, ttl: float) -> Collection[str]:
        """Keep leases; as `Leases.renew`. Cancellation: as for `acquire`."""
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        held = {name: self._held[name] for name in conversation_ids if name in self._held}
        kept = {name for name, (holds, until) in held.items() if holds == holder and until > now}
        self._held.update(dict.fromkeys(kept, (holder, now + ttl)))
        return kept

    async def release(self, conversation_id: str, holder: str) -> None:
        """End a lease; as `Leases.release`. Cancellation: as for `acquire`."""
        await trio.lowlevel.checkpoint()
        if self._held.get(conversation_id, ("", 0.0))[0] == holder:
            del self._held[conversation_id]


@attrs.define(eq=False)
class _Member:
    """A node that joined."""

    node: Node
    ttl: float
    until: float
    """Trio time at which its lease ends."""
    joined_at: datetime.datetime
    is_draining: bool = False
    conversations: set[str] = attrs.field(factory=set)
    # Invariant: the conversation ids whose claim is this node's.
    box: dict[int, Received] = attrs.field(factory=dict)
    """By number, in the order of arrival."""
    news: trio.Event = attrs.field(factory=trio.Event)
    """Set when a mail arrives; another event for each `receive`."""


class MemoryCluster:
    """A cluster of one process, by Trio's clock: hand the same object to several `open_sessions` blocks, each of which is a node.

    Cancellation: either nothing was done, or the method returns.
    """

    def __init__(self, *, max_mail: int = MIN_MAIL, max_box: int = MAX_BOX) -> None:
        """Make a cluster that no node has joined.

        Args:
            max_mail: the most bytes of one mail; at least 64 KiB.
            max_box: the most mails that wait for one node, > 0. A node whose box has no place for all that one `send` brings gets nothing
                of it.

        Raises:
            TypeError, ValueError: an argument is out of range.
        """
        check_bounds(max_mail, max_box)
        self.max_mail = max_mail
        self.max_box = max_box
        self._members: dict[str, _Member] = {}
        self._claims: dict[str, _Member] = {}
        self._numbers: Iterator[int] = itertools.count(1)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Do nothing: there is nothing to open. Several blocks may have the cluster open at the same time."""
        await trio.lowlevel.checkpoint()
        yield

    # ── nodes

    async def join(self, node: Node, ttl: float) -> None:
        """Add a node; as `Cluster.join`."""
        check_ttl(ttl)
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        member = self._members.get(node.node_id)
        if member is None:
            self._members[node.node_id] = _Member(node, ttl, now + ttl, datetime.datetime.now(datetime.UTC))
        else:
            member.node, member.ttl, member.until, member.is_draining = node, ttl, now + ttl, False
        self._sweep()

    async def renew(self, node_id: str, ttl: float, *, is_draining: bool = False) -> bool:
        """Let the lease of a node last longer; as `Cluster.renew`."""
        check_ttl(ttl)
        await trio.lowlevel.checkpoint()
        member = self._members.get(node_id)
        if member is not None:
            member.ttl, member.until, member.is_draining = ttl, trio.current_time() + ttl, is_draining
        self._sweep()
        return member is not None

    async def leave(self, node_id: str) -> None:
        """Remove a node; as `Cluster.leave`."""
        await trio.lowlevel.checkpoint()
        self._remove(node_id)

    async def nodes(self) -> Sequence[NodeInfo]:
        """Return the nodes; as `Cluster.nodes`."""
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        return tuple(
            NodeInfo(member.node, member.is_draining, member.joined_at, member.until - now, len(member.conversations))
            for member in self._members.values()
        )

    # ── conversations

    async def claim(self, conversation_id: str, node_id: str) -> Claim | None:
        """Let a node run the agent of a conversation; as `Cluster.claim`."""
        await trio.lowlevel.checkpoint()
        member = self._live(node_id)
        if member is None:
            raise RegistryUnavailable("the lease of this node has ended, so it cannot take a conversation")
        if member.is_draining:
            raise RegistryUnavailable("this node is draining, so it takes no conversation")
        holder = self._claims.get(conversation_id)
        if holder is member:
            return None
        if holder is not None:
            remaining = holder.until - trio.current_time()
            if remaining > 0:
                return Claim(holder.node.node_id, remaining)
            holder.conversations.remove(conversation_id)
        self._claims[conversation_id] = member
        member.conversations.add(conversation_id)
        return None

    async def release(self, conversation_ids: Sequence[str], node_id: str) -> None:
        """End claims of a node; as `Cluster.release`."""
        await trio.lowlevel.checkpoint()
        member = self._members.get(node_id)
        for conversation_id in conversation_ids:
            if member is not None and self._claims.get(conversation_id) is member:
                del self._claims[conversation_id]
                member.conversations.remove(conversation_id)

    async def holders(self, conversation_ids: Collection[str]) -> Mapping[str, Claim]:
        """Return who has each of the conversations; as `Cluster.holders`."""
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        found = {conversation_id: self._claims.get(conversation_id) for conversation_id in conversation_ids}
        return {
            conversation_id: Claim(member.node.node_id, member.until - now)
            for conversation_id, member in found.items()
            if member is not None and member.until > now
        }

    # ── mail

    async def send(self, mails: Sequence[Mail]) -> Collection[str]:
        """Put mails into boxes; as `Cluster.send`.

        Raises:
            ValueError: a mail is too long, or its body is not JSON text; nothing was sent.
        """
        check_mails(mails, self.max_mail)
        await trio.lowlevel.checkpoint()
        refused: set[str] = set()
        for recipient in dict.fromkeys(mail.recipient for mail in mails):
            member = self._live(recipient)
            theirs = [mail for mail in mails if mail.recipient == recipient]
            if member is None or len(member.box) + len(theirs) > self.max_box:
                refused.add(recipient)
                continue
            for mail in theirs:
                number = next(self._numbers)
                member.box[number] = Received(number, mail.sender, mail.body)
            member.news.set()
        return refused

    async def receive(self, node_id: str, done: Sequence[int], limit: int) -> Sequence[Received]:
        """Return what is in the box of a node; as `Cluster.receive`."""
        check_limit(limit)
        await trio.lowlevel.checkpoint()
        member = self._members.get(node_id)
        if member is None:
            return ()
        for number in done:
            member.box.pop(number, None)
        member.news = trio.Event()
        return tuple(itertools.islice(member.box.values(), limit))

    async def wait(self, node_id: str) -> None:
        """Wait for mail; as `Cluster.wait`."""
        member = self._members.get(node_id)
        news = trio.Event() if member is None else member.news
        with trio.move_on_after(LONGEST_WAIT):
            await news.wait()
            return
        await trio.lowlevel.checkpoint()

    # ── inside

    def _live(self, node_id: str) -> _Member | None:
        member = self._members.get(node_id)
        return member if member is not None and member.until > trio.current_time() else None

    def _remove(self, node_id: str) -> None:
        member = self._members.pop(node_id, None)
        if member is not None:
            for conversation_id in member.conversations:
                del self._claims[conversation_id]
            member.news.set()

    def _sweep(self) -> None:
        now = trio.current_time()
        ended = [node_id for node_id, member in self._members.items() if member.until + SWEPT_AFTER * member.ttl <= now]
        for node_id in ended:
            self._remove(node_id)
