"""What a node has to do with the other nodes: mirrors of their agents, and its own agents for them.

One look at the engine every few seconds asks who has the conversations of all mirrors, of all calls that wait, and of all viewers here
whose agent is not up: one query, however many there are. So a mirror whose agent's node is lost ends, and viewers that wait find the next
agent wherever it is started.
"""

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, TypeAlias

import attrs
import trio

from trio_sagents.broadcast import Subscription
from trio_sagents.data.config import SessionPolicy
from trio_sagents.data.records import Owner
from trio_sagents.data.scopes import Scope
from trio_sagents.data.status import ShutdownReason
from trio_sagents.exceptions import AgentNotRunning, ConversationNotFound, RegistryUnavailable, RunsElsewhere, SagentsError
from trio_sagents.nodes._bus import NodeBus
from trio_sagents.nodes._calls import Engine
from trio_sagents.nodes._desk import Desk
from trio_sagents.nodes._keeper import NodeKeeper
from trio_sagents.nodes._letters import Attach, Attached, Detach, Ended, Events, Letter, Payload, Reply, Request, Unfollow
from trio_sagents.nodes._mirror import Mirror
from trio_sagents.nodes._ports import Claim
from trio_sagents.nodes._post_office import PostOffice
from trio_sagents.nodes._relay import Relay
from trio_sagents.supervisor._registry import Entry
from trio_sagents.supervisor._services import Services

OwnerKey: TypeAlias = tuple[type, Owner]
log: Final = logging.getLogger("trio_sagents")
PAUSE: Final = 0.05
"""Seconds until the agent of a conversation is looked for again that another node starts, or ends, at first; then twice as many."""
PAUSE_MOST: Final = 1.0
LONGEST_INTERVAL: Final = 2.0
"""Seconds between two looks at the engine, at most."""
LOOK_TIMEOUT: Final = 5.0
"""Seconds that another node has to say whether it runs an agent, if that is all that is asked."""


@attrs.define(eq=False)
class Neighbours:
    """The other nodes, as the parts of this node see them."""

    services: Services = attrs.field(repr=False)
    keeper: NodeKeeper
    cluster: Engine
    office: PostOffice
    desk: Desk
    relay: Relay
    _interval: float
    """Seconds between two looks at the engine."""
    _replay_events: int
    _idle_timeout: float
    look: Callable[[str, Scope], None] | None = None
    """Has an entry look for the agent of a conversation on another node, for somebody's scope. Must not raise."""
    bus: NodeBus | None = None
    """Carries presence between the nodes; None if the host has a bus of its own."""
    _nodes: Collection[str] = ()
    """The other nodes, as far as this one has heard of them."""
    _mirrors: dict[str, Mirror] = attrs.field(factory=dict)
    # Invariant: by conversation, the mirrors whose entries have not ended.
    _invisible: dict[str, tuple[str, frozenset[OwnerKey]]] = attrs.field(factory=dict)
    """By conversation: a node, and the owner keys of viewers who may not see its agent."""

    # ── for starts

    async def join(self, entry: Entry) -> Mirror | None:
        """Claim a conversation for this node; or return a mirror of its agent, if that runs on another node.

        Args:
            entry: the reservation. If it only looks, nothing is claimed.

        Returns:
            None if this node has the conversation now.

        Raises:
            ConversationNotFound: the agent is another scope's.
            AgentNotRunning: the entry only looks, and no other node runs the agent.
            RegistryUnavailable: the engine cannot be reached; or the entry only looks, and the other node does not answer.

        Cancellation: a claim that may have been made is given back.
        """
        pause = PAUSE
        while True:
            if not entry.is_look:
                try:
                    await self.keeper.acquire(entry)
                except RunsElsewhere:
                    pass
                else:
                    return None
            claim = await self._holder(entry.conversation_id)
            if claim is not None and (mirror := await self._mirror_of(entry, claim.node_id)) is not None:
                return mirror
            if entry.is_look:
                raise AgentNotRunning(entry.conversation_id)
            await trio.sleep(pause)  # the agent there is ending, or its start has failed
            pause = min(2 * pause, PAUSE_MOST)

    async def runs_elsewhere(self, conversation_id: str) -> bool:
        """Return whether another node has a conversation; RegistryUnavailable if that is unknown. Cancellation: nothing was done."""
        return await self._holder(conversation_id) is not None

    async def held_elsewhere(self, conversation_ids: Collection[str]) -> Collection[str]:
        """Return those of some conversations that other nodes have, in one call of the engine.

        Raises:
            RegistryUnavailable: that is unknown.

        Cancellation: nothing was done.
        """
        claims = await self.cluster.holders(conversation_ids)
        return {conversation_id for conversation_id, claim in claims.items() if claim.node_id != self.office.node_id}

    async def _holder(self, conversation_id: str) -> Claim | None:
        claim = (await self.cluster.holders((conversation_id,))).get(conversation_id)
        return None if claim is None or claim.node_id == self.office.node_id else claim

    async def _mirror_of(self, entry: Entry, node_id: str) -> Mirror | None:
        """Return a mirror of the agent that a node runs; None if it does not run the agent."""
        conversation_id = entry.conversation_id
        attached = await self.attach(conversation_id, node_id, LOOK_TIMEOUT if entry.is_look else None)
        if attached is None:
            return None
        if not self.services.access.sees(entry.owner, attached.owner):
            self.office.send(node_id, Detach(conversation_id))
            raise ConversationNotFound(conversation_id)
        mirror = Mirror(entry, self.services, self.office, node_id, attached, self._replay_events, self._idle_timeout)
        self._mirrors[conversation_id] = mirror
        entry.call_when_ended(self._forget)
        return mirror

    def _forget(self, entry: Entry) -> None:
        mirror = self._mirrors.get(entry.conversation_id)
        if mirror is not None and mirror.entry is entry:
            del self._mirrors[entry.conversation_id]

    async def attach(self, conversation_id: str, node_id: str, timeout: float | None) -> Attached | None:  # noqa: ASYNC109
        """Ask a node about an agent; None if it does not run there. RegistryUnavailable if there is no answer in time."""
        with trio.CancelScope() as scope:
            if timeout is not None:
                scope.deadline = trio.current_time() + timeout
            try:
                _, reply = await self.office.call(node_id, Attach(conversation_id))
            except AgentNotRunning:
                return None
            if not isinstance(reply, Attached):
                raise RegistryUnavailable(f"node {node_id} has answered {type(reply).__name__} for conversation {conversation_id!r}")
            return reply
        raise RegistryUnavailable(f"the node that has conversation {conversation_id!r} did not answer within {timeout:g} seconds")

    # ── the addressee of the post office

    async def carry_out(self, sender: str, call: int, request: Request) -> Reply:
        """Carry out a call of another node; see `Desk.carry_out`."""
        return await self.desk.carry_out(sender, call, request)

    def read(self, sender: str, letter: Letter) -> None:
        """Read a notice of another node."""
        match letter:
            case Events(conversation_id=conversation_id, channel=channel, stream=stream):
                mirror = self._mirrors.get(conversation_id)
                if mirror is not None and mirror.node_id == sender:
                    mirror.receive(letter)
                else:
                    self.office.send(sender, Unfollow(conversation_id, channel, stream))
            case Ended(conversation_id=conversation_id, incarnation=incarnation, reason=reason):
                mirror = self._mirrors.get(conversation_id)
                if mirror is not None and mirror.node_id == sender and mirror.incarnation == incarnation:
                    mirror.end_with(reason)
            case Unfollow(conversation_id=conversation_id, channel=channel, stream=stream):
                self.relay.unfollow(sender, conversation_id, channel, stream)
            case Detach(conversation_id=conversation_id):
                self.relay.detach(sender, conversation_id)
            case Payload(topic=topic, text=text) if self.bus is not None:
                if sender not in self._nodes:
                    self._nodes = (*self._nodes, sender)
                self.bus.deliver(topic, text)

    def missed(self, sender: str) -> None:
        """Mails of a node are missing: its mirrors ask for the present."""
        for mirror in self._mirrors.values():
            if mirror.node_id == sender:
                mirror.missed()

    def renamed(self) -> None:
        """This node has another id: the agents' nodes do not know their mirrors here any more."""
        for mirror in self._mirrors.values():
            mirror.end_with(ShutdownReason.FENCED)
        self.relay.clear()

    def unreachable(self, recipient: str) -> None:
        """A node does not get what is sent: tell it nothing until it asks."""
        self.relay.drop(recipient)

    # ── the bus

    def publish(self, topic: str, text: str) -> None:
        """Send what is published on the bus to the other nodes. What does not get there is lost, as the bus may lose it."""
        for node_id in self._nodes:
            self.office.send(node_id, Payload(topic, text))

    async def _meet(self) -> None:
        """Find out which other nodes there are."""
        with contextlib.suppress(RegistryUnavailable):
            found = await self.cluster.nodes()
            self._nodes = tuple(known.node.node_id for known in found if known.expires_in > 0 and known.node.node_id != self.office.node_id)

    # ── its own tasks

    async def run(self) -> None:
        """Exchange mail, and look at the engine now and then, until cancelled."""
        if self.bus is not None:
            await self._meet()
            self.bus.connect(self.publish)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.office.run, name="the post office of the node")
                nursery.start_soon(self.relay.run, name="events for other nodes")
                while True:
                    await trio.sleep(self._interval)
                    self.office.ping(self.relay.followers())
                    await self._look_round()
                    if self.bus is not None:
                        await self._meet()
        finally:
            if self.bus is not None:
                self.bus.disconnect(self.publish)

    async def farewell(self) -> None:
        """Return when the other nodes were told everything that there is to tell, such as the ends of agents.

        Cancellation: the others find out by themselves, later.
        """
        self.relay.flush()
        await self.office.wait_sent()

    async def _look_round(self) -> None:
        mirrors = tuple(self._mirrors.values())
        calls = self.office.pending()
        waiting = self._waiting()
        asked = {mirror.entry.conversation_id for mirror in mirrors} | {call.conversation_id for call in calls} | set(waiting)
        if not asked:
            return
        try:
            claims = await self.cluster.holders(asked)
        except RegistryUnavailable as exc:
            log.debug("it is unknown which nodes run %d conversations; will look again: %s", len(asked), exc)
            return
        for mirror in mirrors:
            claim = claims.get(mirror.entry.conversation_id)
            mirror.trim()
            if claim is None or claim.node_id != mirror.node_id:
                mirror.end_with(ShutdownReason.FENCED)
        for call in calls:
            claim = claims.get(call.conversation_id)
            if claim is None or claim.node_id != call.recipient:
                call.settle(None, AgentNotRunning(call.conversation_id))
        self._look_for(waiting, claims)

    def _waiting(self) -> Mapping[str, frozenset[OwnerKey]]:
        """Return the conversations whose viewers here wait for an agent, with the owner keys of those viewers."""
        services = self.services
        found: dict[str, frozenset[OwnerKey]] = {}
        for conversation_id, table in services.subscriptions.items():
            owners = owners_of(subscription for subscription in table if subscription.state == "pending")
            if not owners:
                continue
            try:
                agent_id = services.agent_id_of(conversation_id)
            except Exception:  # the boundary to the host's `agent_id_fun`
                log.exception("agent_id_fun failed for viewers of conversation %r; the viewers wait", conversation_id)
                continue
            if not services.registry.is_taken(agent_id):
                found[conversation_id] = owners
        return found

    def _look_for(self, waiting: Mapping[str, frozenset[OwnerKey]], claims: Mapping[str, Claim]) -> None:
        self._invisible = {name: known for name, known in self._invisible.items() if name in waiting}
        for conversation_id, owners in waiting.items():
            claim = claims.get(conversation_id)
            if claim is None or claim.node_id == self.office.node_id:
                continue
            node_id, unseeing = self._invisible.get(conversation_id, ("", frozenset()))
            if node_id != claim.node_id or not owners <= unseeing:
                self.office.ask(_Visit(self, conversation_id, claim.node_id).run)

    def note_invisible(self, conversation_id: str, node_id: str, owners: frozenset[OwnerKey]) -> None:
        """Ask a node no more about an agent that viewers with these owner keys may not see, and be told nothing of it."""
        self._invisible[conversation_id] = node_id, owners
        if conversation_id not in self._mirrors:
            self.office.send(node_id, Detach(conversation_id))


def owners_of(subscriptions: Iterable[Subscription]) -> frozenset[OwnerKey]:
    """Return the owner keys of some subscriptions; `1`, `"1"` and `None` are three."""
    return frozenset((type(subscription.owner), subscription.owner) for subscription in subscriptions)


@attrs.frozen(eq=False)
class _Visit:
    """A look whether the agent of a conversation runs on another node, for viewers that wait here."""

    neighbours: Neighbours
    conversation_id: str
    node_id: str

    async def run(self) -> None:
        """Ask the node, and have an entry become a mirror if somebody who waits may see the agent."""
        neighbours, conversation_id = self.neighbours, self.conversation_id
        try:
            attached = await neighbours.attach(conversation_id, self.node_id, LOOK_TIMEOUT)
        except SagentsError:
            return  # the next look asks again
        if attached is None:
            return
        access = neighbours.services.access
        pending = [each for each in neighbours.services.subscriptions.get(conversation_id, ()) if each.state == "pending"]
        seeing = [each for each in pending if access.sees(each.owner, attached.owner)]
        if seeing and neighbours.look is not None:
            neighbours.look(conversation_id, seeing[0].scope)
        else:
            neighbours.note_invisible(conversation_id, self.node_id, owners_of(pending))


def open_neighbours(
    services: Services,
    keeper: NodeKeeper,
    nursery: trio.Nursery,
    policy: SessionPolicy,
    *,
    idle_timeout: float,
    look: Callable[[str, Scope], None],
    bus: NodeBus | None,
) -> Neighbours:
    """Put together what a node has to do with the others; `run` has to run then.

    Args:
        services: the shared services.
        keeper: the membership of this node.
        nursery: of the services.
        policy: of the block.
        idle_timeout: seconds without subscriptions and calls after which a mirror ends.
        look: has an entry look for an agent on another node; see `Neighbours.look`.
        bus: carries presence between the nodes; None if the host has a bus of its own.
    """
    engine = Engine(keeper.cluster, keeper.calls)
    office = PostOffice(engine, lambda: keeper.node_id, nursery)
    relay = Relay(office.send, policy.subscriber_events, policy.subscriber_text)
    desk = Desk(services.registry, services.access, relay, services.agent_id_of)
    interval = min(LONGEST_INTERVAL, policy.lease_ttl / 6)
    neighbours = Neighbours(services, keeper, engine, office, desk, relay, interval, policy.replay_events, idle_timeout, look, bus)
    office.addressee = neighbours
    return neighbours
