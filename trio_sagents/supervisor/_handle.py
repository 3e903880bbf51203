"""The handle: what a caller holds of a live agent. Bound to the scope that obtained it; every command asks the authorizer again."""

from collections.abc import Sequence

import attrs
import trio

from trio_sagents._trio.place import require_run
from trio_sagents.agent import checked_rows
from trio_sagents.conversation.messages_in import Posted
from trio_sagents.data.cursors import CHANNELS, Channel
from trio_sagents.data.decisions import Decision
from trio_sagents.data.events import MiddlewareEvent
from trio_sagents.data.json import Opaque, Options
from trio_sagents.data.messages import UserMessage
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.data.records import Row
from trio_sagents.data.scopes import Action, Overlap, Scope
from trio_sagents.data.state import State
from trio_sagents.data.status import ShutdownReason
from trio_sagents.exceptions import ConversationNotFound
from trio_sagents.supervisor._access import Access
from trio_sagents.supervisor._info import AgentInfo
from trio_sagents.supervisor._receipts import Receipt
from trio_sagents.supervisor._registry import Entry, RunningAgent, end_entry


async def stop_entry(entry: Entry, grace_period: float) -> None:
    """Ask an agent to leave and wait until it has, wherever it runs; from inside its own task tree, ask and pass one checkpoint."""
    if entry.live is not None:
        await entry.live.stop(grace_period)
    else:
        await end_entry(entry, grace_period)


@attrs.frozen(eq=False, init=False)
class AgentHandle:
    """A live agent, as one scope sees it. Two handles are equal if they are of the same agent.

    Use it in the run of Trio that its sessions belong to: every method raises RuntimeError in another thread or another run.

    Once the agent has ended, every command raises `AgentNotRunning`; `Sessions` wakes it again.
    """

    _entry: Entry = attrs.field(repr=False)
    _agent: RunningAgent = attrs.field(repr=False)
    _access: Access = attrs.field(repr=False)
    _scope: Scope = attrs.field(repr=False)
    _token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token, init=False, repr=False)

    def __init__(self) -> None:
        raise TypeError("handles are made by Sessions: start, ensure_running, get")

    @classmethod
    def _of(cls, entry: Entry, agent: RunningAgent, access: Access, scope: Scope) -> "AgentHandle":
        handle: AgentHandle = object.__new__(cls)
        handle.__attrs_init__(entry, agent, access, scope)  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it
        return handle

    def __eq__(self, other: object) -> bool:
        return self._agent is other._agent if isinstance(other, AgentHandle) else NotImplemented

    def __hash__(self) -> int:
        return hash(id(self._agent))

    @property
    def agent_id(self) -> str:
        """The agent's id."""
        return self._entry.agent_id

    @property
    def conversation_id(self) -> str:
        """The conversation's id."""
        return self._entry.conversation_id

    @property
    def options(self) -> Options:
        """The host's own options of this session: `SessionOpts.app_internal`."""
        return self._agent.options

    async def _ask(self, action: Action) -> RunningAgent:
        """Ask the authorizer, and return the agent if it takes commands."""
        entry = self._entry
        await self._require(action)
        await trio.lowlevel.checkpoint_if_cancelled()
        self._require_owner()
        if not entry.is_accepting and (action != "cancel" or entry.has_ended):
            raise entry.not_running()
        return self._agent

    def _check_place(self) -> None:
        require_run(self._token, "this handle and its sessions")

    async def _require(self, action: Action) -> None:
        self._check_place()
        await self._access.require(self._scope, self.conversation_id, action)

    def _require_owner(self) -> None:
        if not self._access.owns(self._scope, self._entry.owner):
            raise ConversationNotFound(self.conversation_id)

    async def post(
        self,
        message: str | UserMessage,
        *,
        message_id: str | None = None,
        overlap: Overlap = "queue",
        display: str | UserMessage | None = None,
        values: Options | None = None,
    ) -> Receipt:
        """Hand the agent a message; as `Sessions.post`, but a sleeping agent is not woken.

        Raises:
            AgentNotRunning: it takes no commands any more; nothing was done.
            AgentBusy, QueueFull, MessageConflict, LimitExceeded, ConversationNotFound: nothing was done.
            PersistenceError: it could not be stored, and is not acknowledged.

        Cancellation: either nothing was submitted, or the message is accepted and will be answered.
        """
        posted = Posted.of(message, message_id, overlap, display, values)
        agent = await self._ask("post")
        return await agent.post(posted, self._scope)

    async def resume(self, decisions: Sequence[Decision]) -> Receipt:
        """Decide what waits; as `Sessions.resume`, but a sleeping agent is not woken.

        Raises:
            AgentNotRunning: it takes no commands any more; nothing was done.
            AlreadyDecided, InvalidDecision, NotInterrupted, ConversationNotFound: nothing was done.
            LimitExceeded: what they say is too large to be kept; nothing was done.
            PersistenceError: they could not be stored; nothing runs.

        Cancellation: either nothing was submitted, or the decisions are recorded, and the turn goes on.
        """
        decided = check_decisions(decisions)
        agent = await self._ask("decide")
        return await agent.resume(decided, self._scope)

    async def dismiss(self, *, interrupt_id: str | None = None) -> None:
        """Acknowledge a halt; as `Sessions.dismiss`, but a sleeping agent is not woken.

        Args:
            interrupt_id: acknowledge only this halt; None acknowledges the one that waits.

        Raises:
            AgentNotRunning: it takes no commands any more; nothing was done.
            NotInterrupted, ConversationNotFound: nothing was done.
            PersistenceError: it could not be stored.

        Cancellation: either nothing was submitted, or it is acknowledged.
        """
        agent = await self._ask("decide")
        await agent.dismiss(self._scope, interrupt_id)

    async def add_rows(self, rows: Sequence[Row]) -> None:
        """Add rows to the transcript; as `Sessions.add_rows`, but a sleeping agent is not woken.

        Raises:
            AgentNotRunning: the agent takes no commands any more; nothing was done.
            ConversationNotFound: nothing was done.
            PersistenceError: the rows could not be stored.

        Cancellation: either nothing was submitted, or the rows are stored.
        """
        checked = checked_rows(rows)
        agent = await self._ask("post")
        await agent.add_rows(checked, self._scope)

    async def publish(self, event: MiddlewareEvent, *, channel: Channel = "main") -> None:
        """Send an event of the host's own to those who follow the conversation now. It is not stored.

        Args:
            event: of a class of your own that inherits `MiddlewareEvent`.
            channel: "main" or "debug".

        Raises:
            TypeError, ValueError: an argument has the wrong type or an invalid value; nothing was done.
            AgentNotRunning: the agent takes no commands any more; nothing was done.
            ConversationNotFound: nothing was done.

        Cancellation: either the event was sent, or nothing was done.
        """
        check_host_event(event, channel)
        agent = await self._ask("post")
        agent.publish(event, channel)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def notify_middleware(self, middleware_id: str, message: Opaque) -> None:
        """Hand a message to one middleware of the agent, and wait until it has taken it.

        Args:
            middleware_id: by default the name of its class.
            message: the host's own; handed over as it is.

        Raises:
            LookupError: the agent has no such middleware; nothing was done.
            MiddlewareError: it raised.
            AgentNotRunning: the agent takes no commands, or ended first.

        Cancellation: either nothing was done, or the middleware goes on with the message.
        """
        agent = await self._ask("post")
        await agent.notify(middleware_id, message)

    async def cancel_turn(self, *, turn_id: str | None = None) -> TurnOutcome | None:
        """Cut the running turn; what was said is kept. The agent goes on.

        Args:
            turn_id: only if this turn runs; None is whichever runs.

        Returns:
            The settled outcome; `Completed` where it had just finished; None where nothing ran.

        Cancellation: the turn is cut all the same.
        """
        return await (await self._ask("cancel")).cancel_turn(turn_id)

    async def touch(self) -> None:
        """Renew the idle clock. Cancellation: renewed, or not."""
        (await self._ask("view")).touch()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def info(self) -> AgentInfo:
        """Return a picture of the agent. Cancellation: either it returns, or nothing was done; it changes nothing."""
        agent = await self._ask("view")
        return await agent.look()

    async def state(self) -> State:
        """Return the last committed state, immutable. Cancellation: either it returns, or nothing was done; it changes nothing."""
        agent = await self._ask("view")
        return await agent.read_state()

    async def wait_idle(self) -> None:
        """Wait until nothing runs, nothing runnable is queued, and nothing is being accepted.

        Raises:
            AgentNotRunning: the agent ended first.

        Cancellation: either it returns, or nothing was done; the agent goes on.
        """
        agent = await self._ask("view")
        await agent.wait_idle()

    async def wait_ended(self) -> ShutdownReason:
        """Wait until the agent has ended, and return why. Fine where it has ended already.

        Cancellation: either it returns, or nothing was done; the agent goes on.
        """
        await self._require("view")
        self._require_owner()
        await self._entry.wait_ended()
        return self._entry.shutdown_reason

    async def stop(self, *, grace_period: float = 0.0) -> bool:
        """Stop the agent; as `Sessions.stop`, but never one that came after this.

        Returns:
            True if this agent was up or ending; False if it had ended, or the scope may not.

        Cancellation: either nothing was asked, or the agent is stopped all the same.
        """
        check_grace(grace_period)
        self._check_place()
        allowed = await self._access.allows(self._scope, self.conversation_id, "stop")
        if not allowed or self._entry.has_ended or not self._access.owns(self._scope, self._entry.owner):
            await trio.lowlevel.checkpoint()
            return False
        await stop_entry(self._entry, grace_period)
        return True


def check_decisions(decisions: Sequence[Decision]) -> Sequence[Decision]:
    """Return the decisions as a tuple; TypeError or ValueError if they have a wrong type or value."""
    if isinstance(decisions, str) or not isinstance(decisions, Sequence):
        raise TypeError(f"decisions must be a sequence of Approve, Edit, Reject, Answer; not {decisions!r}")
    for one in decisions:
        if not isinstance(one, Decision) or type(one) is Decision:
            raise TypeError(f"a decision is an Approve, Edit, Reject or Answer, not {one!r}")
    if not decisions:
        raise ValueError("decisions is empty; give one for each call that is decided")
    return tuple(decisions)


def check_host_event(event: object, channel: object) -> None:
    """Raise unless a host may send the event: the events of the library say what the library has done."""
    if not isinstance(event, MiddlewareEvent):
        raise TypeError(f"a host sends events of a class of its own that inherits MiddlewareEvent; not {event!r}"[:300])
    if channel not in CHANNELS:
        raise ValueError(f'channel must be "main" or "debug", not {channel!r}')


def check_grace(grace_period: float) -> None:
    """Raise unless `grace_period` is a non-negative number of seconds."""
    if isinstance(grace_period, bool) or not isinstance(grace_period, int | float):
        raise TypeError(f"grace_period must be seconds as a number, not {grace_period!r}")
    if not grace_period >= 0:
        raise ValueError(f"grace_period must be >= 0 seconds, not {grace_period!r}")


def handle_of(agent: RunningAgent, access: Access, scope: Scope) -> AgentHandle:
    """Return a handle of a live agent for one scope."""
    return AgentHandle._of(agent.entry, agent, access, scope)  # the one place where handles are made
