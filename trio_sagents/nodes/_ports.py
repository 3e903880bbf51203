"""What an engine does for a cluster: leases of nodes, claims of conversations, and mail between nodes.

Safety is in the store, liveness is in the lease. A node may be paused while its lease ends, so a lease proves nothing: what keeps a
conversation whole is the epoch of its store, which every load raises. The lease only says when another node may load the conversation.

There is one lease for each node, not one for each conversation. So the cost of a renewal does not depend on the number of conversations. A
*claim* says which node runs the agent of a conversation. A claim is worth nothing when the lease of its node has ended: then any node may
claim the conversation. Claims are made on demand, so a dead node sets off no stampede.

*Mail* is what one node says to another: commands, their answers, and events for viewers. Mail is at least once and in order for each pair
of nodes; an engine may lose mail when it crashes. So whoever sends a command sends it again until the answer is there, and each command has
an id by which the receiver knows a duplicate.

Every duration is counted by the engine's own clock; no instant of one machine is compared with an instant of another one.
"""

import datetime
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs


@attrs.frozen
class Node:
    """What a node says about itself when it joins."""

    node_id: str
    """A random name of this one life of the node, 128 bits or more: a node that starts again has another one."""
    name: str
    """For people: where the node runs. It need not be unique."""
    code_version: str
    """The version of the library."""
    state_version: int
    """The newest version of a stored conversation that the node can read."""


@attrs.frozen
class NodeInfo:
    """A node, as the engine knows it."""

    node: Node
    is_draining: bool
    """Whether the node takes no more conversations, because it is about to leave."""
    joined_at: datetime.datetime
    """By the engine's clock."""
    expires_in: float
    """Seconds until the node's lease ends unless it is renewed; 0 or less if it has ended."""
    conversations: int
    """How many conversations the node has claimed."""


@attrs.frozen
class Claim:
    """Which node runs the agent of a conversation."""

    node_id: str
    expires_in: float
    """Seconds until the lease of that node ends unless it is renewed; > 0."""


@attrs.frozen
class Mail:
    """What one node says to another."""

    recipient: str
    """The id of the node that gets it."""
    sender: str
    """The id of the node that sends it."""
    body: str
    """JSON, at most `Cluster.max_mail` bytes of UTF-8."""


@attrs.frozen
class Received:
    """A mail that was received, and that the engine keeps until the next `receive` names its number as done."""

    number: int
    sender: str
    body: str


class Cluster(Protocol):
    """The engine that the nodes of a cluster share. Every method raises `RegistryUnavailable` if the engine cannot be reached.

    Cancellation: nobody knows whether the change was made. The library repeats it, or takes it back.
    """

    max_mail: int
    """The most bytes of one mail; at least 64 KiB."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Open the engine: `open_sessions` does this before anything else, and closes the engine after everything else.

        Raises:
            PersistenceError: the engine cannot be used; the message says why.
        """
        ...

    # ── nodes

    async def join(self, node: Node, ttl: float) -> None:
        """Add a node, whose lease lasts for `ttl` seconds from now. A node that joins twice is one node."""
        ...

    async def renew(self, node_id: str, ttl: float, *, is_draining: bool = False) -> bool:
        """Let the lease of a node last for `ttl` seconds from now, also if it had ended.

        Returns:
            False if the node is not there: it left, or was swept away. It has to join again, under another id.
        """
        ...

    async def leave(self, node_id: str) -> None:
        """Remove a node with its claims and its mail. Nothing happens if the node is not there."""
        ...

    async def nodes(self) -> Sequence[NodeInfo]:
        """Return all nodes whose lease lasts, and those whose lease has ended and that were not swept away; the oldest first."""
        ...

    # ── conversations

    async def claim(self, conversation_id: str, node_id: str) -> Claim | None:
        """Let a node run the agent of a conversation, unless another node does whose lease lasts.

        Returns:
            None if the node has the conversation now, also if it had it before; otherwise who has it.

        Raises:
            RegistryUnavailable: the lease of `node_id` itself has ended, or it is draining; it gets nothing.
        """
        ...

    async def release(self, conversation_ids: Sequence[str], node_id: str) -> None:
        """End the claims of a node on conversations. A conversation that another node has is left as it is."""
        ...

    async def holders(self, conversation_ids: Collection[str]) -> Mapping[str, Claim]:
        """Return who has each of the conversations; without those that nobody has whose lease lasts."""
        ...

    # ── mail

    async def send(self, mails: Sequence[Mail]) -> Collection[str]:
        """Put mails into the boxes of their recipients, in order, and let the recipients know.

        Returns:
            The ids of the recipients that got nothing, because their lease has ended or their box is full (`max_box` mails).
        """
        ...

    async def receive(self, node_id: str, done: Sequence[int], limit: int) -> Sequence[Received]:
        """Return what is in the box of a node, in the order of arrival, and remove what the node has done.

        Args:
            node_id: of the node.
            done: the numbers of mails that were returned before and are removed now.
            limit: the most mails that are returned, > 0.

        Returns:
            The mails that are left in the box. Mails that were returned before and are not `done` are returned again.
        """
        ...

    async def wait(self, node_id: str) -> None:
        """Return when there may be mail for a node that arrived since the last `receive` began; at the latest after a few seconds.

        Cancellation: nothing is changed.
        """
        ...
