"""What all agents of one `open_sessions` block share."""

import contextvars
from collections.abc import Callable, Collection, Container, Mapping
from typing import Final, Protocol

import attrs
import trio

from trio_sagents._trio.timers import Timers
from trio_sagents._trio.watching import LoopWatch
from trio_sagents.broadcast import Flusher, Presence, Subscription
from trio_sagents.data.ids import check_id, default_agent_id, new_token
from trio_sagents.data.json import Options
from trio_sagents.data.scopes import Scope
from trio_sagents.storage import CommitQueue
from trio_sagents.supervisor._access import Access
from trio_sagents.supervisor._admission import ViewerAdmission
from trio_sagents.supervisor._leases import Keeper
from trio_sagents.supervisor._receipts import Accepted
from trio_sagents.supervisor._registry import Entry, OwnedAgent, Registry

MAX_ORIGINS: Final = 10_000


@attrs.frozen
class Origin:
    """The person who began a turn that waits for people. The turn continues for that person, even if another person decides."""

    turn_id: str
    scope: Scope = attrs.field(repr=False)
    """The agent's scope, in that turn."""
    actor: Scope = attrs.field(repr=False)
    """The scope of the call that brought the turn's first message."""
    context: contextvars.Context = attrs.field(repr=False)
    """The context variables of that call."""
    values: Options = attrs.field(factory=dict, repr=False)
    """The host's own values of that call."""


class Neighbours(Protocol):
    """The other nodes of a cluster, for starts."""

    async def join(self, entry: Entry) -> OwnedAgent | None:
        """Claim the conversation of an entry, and return None; or return a mirror of its agent, if that runs on another node."""
        ...

    async def runs_elsewhere(self, conversation_id: str) -> bool:
        """Return whether another node has a conversation; RegistryUnavailable if that is unknown."""
        ...

    async def held_elsewhere(self, conversation_ids: Collection[str]) -> Collection[str]:
        """Return those of some conversations that other nodes have; RegistryUnavailable if that is unknown."""
        ...

    async def farewell(self) -> None:
        """Return when the other nodes were told that the agents of this block have ended."""
        ...


@attrs.define(eq=False)
class Services:
    """The services that agents use, and the tables that do not belong to any one agent."""

    registry: Registry
    commits: CommitQueue
    timers: Timers
    presence: Presence
    access: Access
    nursery: trio.Nursery
    """The supervisor nursery: the parent of every agent."""
    agent_id_fun: Callable[[str], str]
    viewer_admission: ViewerAdmission
    flusher: Flusher | None = None
    """Wakes the readers of streamed text; None if each delta wakes them."""
    leases: Keeper | None = None
    """None if the block has no leases, because no other process runs agents of these conversations."""
    neighbours: "Neighbours | None" = None
    """The other nodes of the cluster; None without a cluster."""
    watch: LoopWatch | None = None
    """Names what blocks the event loop; None if nobody watches."""
    subscriptions: dict[str, dict[Subscription, None]] = attrs.field(factory=dict)
    # Invariant: every open subscription, by conversation, in the order of subscribing, whether an agent is up or not.
    origins: dict[str, Origin] = attrs.field(factory=dict)
    """By conversation: who began the turn that waits there, also while its agent sleeps; at most `MAX_ORIGINS`, the oldest first."""
    accepted: dict[str, Mapping[str, Accepted]] = attrs.field(factory=dict)
    """By conversation: what is not stored of the messages in its queue, while its agent sleeps; at most `MAX_ORIGINS`, the oldest first."""
    _token: str = attrs.field(factory=new_token)
    _boots: int = 0

    def new_incarnation(self) -> str:
        """Return a name for one agent that no other agent, in any process, has."""
        self._boots += 1
        return f"{self._token}-{self._boots}"

    def agent_id_of(self, conversation_id: str) -> str:
        """Return the agent id of a conversation; TypeError or ValueError if the host's function does not return a valid id."""
        if self.agent_id_fun is default_agent_id:
            return default_agent_id(conversation_id)
        return check_id("the result of agent_id_fun", self.agent_id_fun(conversation_id))

    def remember_origin(self, conversation_id: str, origin: Origin) -> None:
        """Keep who began a turn that begins to wait for people."""
        self.origins.pop(conversation_id, None)
        self.origins[conversation_id] = origin
        if len(self.origins) > MAX_ORIGINS:
            del self.origins[next(iter(self.origins))]

    def remember_accepted(self, conversation_id: str, accepted: Mapping[str, Accepted]) -> None:
        """An agent ends: remember what is not stored of the messages in its queue, for the next agent in this process."""
        if accepted:
            self.accepted[conversation_id] = {message_id: each.for_next_agent() for message_id, each in accepted.items()}
            if len(self.accepted) > MAX_ORIGINS:
                del self.accepted[next(iter(self.accepted))]

    def take_accepted(self, conversation_id: str, queue: Container[str]) -> Mapping[str, Accepted]:
        """Return what was remembered of the messages that are in the queue now, and forget it."""
        known = self.accepted.pop(conversation_id, {})
        return {message_id: each for message_id, each in known.items() if message_id in queue}

    def forget(self, conversation_id: str) -> None:
        """Forget what is remembered of a conversation: it is deleted."""
        self.origins.pop(conversation_id, None)
        self.accepted.pop(conversation_id, None)

    def scope_for_start(self, conversation_id: str, scope: Scope) -> Scope:
        """Return the scope with which an agent starts: the caller's; or that of the turn that waits, if the caller has the same owner.

        So an approved call runs for the person who asked for it, even if another person wakes the agent.
        """
        origin = self.origins.get(conversation_id)
        if origin is None or not self.access.owns(scope, self.access.owner_of(origin.scope)):
            return scope
        return origin.scope

    def keep(self, subscription: Subscription) -> None:
        """Remember a subscription."""
        self.subscriptions.setdefault(subscription.conversation_id, {})[subscription] = None
        self.viewer_admission.wake()

    def withdraw(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        table = self.subscriptions.get(subscription.conversation_id)
        if table is not None:
            table.pop(subscription, None)
            if not table:
                del self.subscriptions[subscription.conversation_id]

    async def admit(self, subscription: Subscription) -> None:
        """Keep a subscription, and enrol it where its scope may see the conversation and an agent is up."""
        allowed = await self.viewer_admission.may_see(subscription)
        await trio.lowlevel.checkpoint()
        if subscription.is_closed:
            return  # its mailbox was closed meanwhile
        # No checkpoint until it is enrolled: an agent that comes alive after this finds it in the table.
        self.keep(subscription)
        if allowed:
            self.enrol(subscription)

    def enrol(self, subscription: Subscription) -> None:
        """Enrol an admitted subscription with the agent that is up, if there is one, and if the owner is the same."""
        conversation_id = subscription.conversation_id
        entry = self.registry.find(self.agent_id_of(conversation_id), conversation_id)
        if entry is not None and entry.live is not None and self.access.sees(subscription.owner, entry.owner):
            entry.live.enrol(subscription)
