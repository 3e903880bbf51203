"""What all agents of one `open_sessions` block share."""

from collections.abc import Callable

import attrs
import trio

from trio_sagents._trio.timers import Timers
from trio_sagents._trio.watching import LoopWatch
from trio_sagents.broadcast import Presence, Subscription
from trio_sagents.data.ids import check_id, default_agent_id, new_token
from trio_sagents.storage import CommitQueue
from trio_sagents.supervisor._access import Access
from trio_sagents.supervisor._admission import ViewerAdmission
from trio_sagents.supervisor._leases import LeaseKeeper
from trio_sagents.supervisor._registry import Registry


@attrs.define(eq=False)
class Services:
    """The services, and the tables that are not any agent's own."""

    registry: Registry
    commits: CommitQueue
    timers: Timers
    presence: Presence
    access: Access
    nursery: trio.Nursery
    """The supervisor nursery: the parent of every agent."""
    agent_id_fun: Callable[[str], str]
    viewer_admission: ViewerAdmission
    leases: LeaseKeeper | None = None
    """None where no other process is heeded."""
    watch: LoopWatch | None = None
    """Names what blocks the event loop; None if nobody watches."""
    subscriptions: dict[str, dict[Subscription, None]] = attrs.field(factory=dict)
    # Invariant: every open subscription, by conversation, in the order of subscribing, whether an agent is up or not.
    _token: str = attrs.field(factory=new_token)
    _boots: int = 0

    def new_incarnation(self) -> str:
        """Return a name for one agent that no other agent, in any process, has."""
        self._boots += 1
        return f"{self._token}-{self._boots}"

    def agent_id_of(self, conversation_id: str) -> str:
        """Return the agent id of a conversation; TypeError or ValueError where the host's function gives none."""
        if self.agent_id_fun is default_agent_id:
            return default_agent_id(conversation_id)
        return check_id("the result of agent_id_fun", self.agent_id_fun(conversation_id))

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
