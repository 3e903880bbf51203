"""The handle: what a caller holds of a live agent. Bound to the scope that obtained it; every command asks the authorizer again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from trio_sagents._trio.tree import is_inside
from trio_sagents.data.decisions import Decision
from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.json import Opaque, Options
from trio_sagents.data.messages import UserMessage
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.data.scopes import Action, Overlap, Scope
from trio_sagents.data.state import State
from trio_sagents.data.status import CancelCause, ShutdownReason, Status
from trio_sagents.exceptions import ConversationNotFound
from trio_sagents.supervisor._intake import Posted
from trio_sagents.supervisor._receipt import Receipt
from trio_sagents.supervisor._registry import Entry

if TYPE_CHECKING:
    import datetime

    from trio_sagents.supervisor._live import LiveAgent


@attrs.frozen
class AgentInfo:
    """A picture of a running agent."""

    agent_id: str
    conversation_id: str
    status: Status
    message_count: int
    """Messages in the history."""
    queued: int
    """Accepted messages that wait for a turn."""
    viewers: int
    interrupt: Interrupt | None
    started_at: "datetime.datetime"
    last_activity_at: "datetime.datetime"


def info_of(live: "LiveAgent") -> AgentInfo:
    """Return a picture of an agent."""
    ledger = live.ledger
    return AgentInfo(
        live.entry.agent_id,
        live.entry.conversation_id,
        live.status,
        len(ledger.messages),
        len(ledger.queue),
        live.viewers,
        ledger.interrupt,
        live.started_at,
        live.last_activity_at,
    )


async def cancel_turn(live: "LiveAgent", turn_id: str | None) -> TurnOutcome | None:
    """Cut the running turn, wait until it is settled, and return its outcome; None where nothing (or another turn) runs."""
    live.touch()
    turn = live.turn
    if turn is None or (turn_id is not None and turn.turn_id != turn_id):
        await trio.lowlevel.checkpoint()
        return None
    turn.cancel(CancelCause.USER)
    if is_inside(live.entry.task):
        await trio.lowlevel.checkpoint()  # the turn cannot end before its own tool has
        return turn.outcome
    await turn.ended.wait()
    return turn.outcome


async def stop_entry(entry: Entry, grace_period: float) -> None:
    """Ask an agent to leave and wait until it has; from inside its own task tree, ask and pass one checkpoint."""
    entry.request_stop(ShutdownReason.STOPPED, CancelCause.STOPPED, deadline=trio.current_time() + grace_period)
    if is_inside(entry.task):
        await trio.lowlevel.checkpoint()
        return
    await entry.wait_ended()


@attrs.frozen(eq=False, init=False)
class AgentHandle:
    """A live agent, as one scope sees it. Two handles are equal if they are of the same agent.

    Once the agent has ended, every command raises `AgentNotRunning`; `Sessions` wakes it again.
    """

    _live: "LiveAgent" = attrs.field(repr=False)
    _scope: Scope = attrs.field(repr=False)

    def __init__(self) -> None:
        raise TypeError("handles are made by Sessions: start, ensure_running, get")

    @classmethod
    def _of(cls, live: "LiveAgent", scope: Scope) -> "AgentHandle":
        handle: AgentHandle = object.__new__(cls)
        handle.__attrs_init__(live, scope)  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it
        return handle

    def __eq__(self, other: object) -> bool:
        return self._live is other._live if isinstance(other, AgentHandle) else NotImplemented

    def __hash__(self) -> int:
        return hash(id(self._live))

    @property
    def agent_id(self) -> str:
        """The agent's id."""
        return self._live.entry.agent_id

    @property
    def conversation_id(self) -> str:
        """The conversation's id."""
        return self._live.entry.conversation_id

    @property
    def options(self) -> Options:
        """The host's own options of this session: `SessionOpts.app_internal`."""
        return self._live.blueprint.options

    async def _ask(self, action: Action) -> "LiveAgent":
        """Ask the authorizer, and return the agent if it takes commands."""
        live = self._live
        access = live.runtime.access
        await access.require(self._scope, live.entry.conversation_id, action)
        await trio.lowlevel.checkpoint_if_cancelled()
        if not access.owns(self._scope, live.entry.owner):
            raise ConversationNotFound(live.entry.conversation_id)
        if not live.is_accepting and (action != "cancel" or live.has_ended):
            raise live.entry.not_running()
        return live

    async def post(self, message: str | UserMessage, *, message_id: str | None = None, overlap: Overlap = "queue") -> Receipt:
        """Hand the agent a message; as `Sessions.post`, but a sleeping agent is not woken.

        Raises:
            AgentNotRunning: it takes no commands any more; nothing was done.
            AgentBusy, QueueFull, MessageConflict, LimitExceeded, ConversationNotFound: nothing was done.
            PersistenceError: it could not be stored, and is not acknowledged.

        Cancellation: either nothing was submitted, or the message is accepted and will be answered.
        """
        posted = Posted.of(message, message_id, overlap)
        live = await self._ask("post")
        return await live.intake.post(posted, self._scope)

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
        live = await self._ask("decide")
        return await live.answering.resume(decided, self._scope)

    async def dismiss(self) -> None:
        """Acknowledge a halt; as `Sessions.dismiss`, but a sleeping agent is not woken.

        Raises:
            AgentNotRunning: it takes no commands any more; nothing was done.
            NotInterrupted, ConversationNotFound: nothing was done.
            PersistenceError: it could not be stored.

        Cancellation: either nothing was submitted, or it is acknowledged.
        """
        live = await self._ask("decide")
        await live.answering.dismiss(self._scope)

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
        live = await self._ask("post")
        await live.home.notify(middleware_id, message)

    async def cancel_turn(self, *, turn_id: str | None = None) -> TurnOutcome | None:
        """Cut the running turn; what was said is kept. The agent goes on.

        Args:
            turn_id: only if this turn runs; None is whichever runs.

        Returns:
            The settled outcome; `Completed` where it had just finished; None where nothing ran.

        Cancellation: the turn is cut all the same.
        """
        return await cancel_turn(await self._ask("cancel"), turn_id)

    async def touch(self) -> None:
        """Renew the idle clock. Cancellation: renewed, or not."""
        (await self._ask("view")).touch()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def info(self) -> AgentInfo:
        """Return a picture of the agent. Cancellation: either it returns, or nothing was done; it changes nothing."""
        live = await self._ask("view")
        await trio.lowlevel.cancel_shielded_checkpoint()
        return info_of(live)

    async def state(self) -> State:
        """Return the last committed state, immutable. Cancellation: either it returns, or nothing was done; it changes nothing."""
        live = await self._ask("view")
        await trio.lowlevel.cancel_shielded_checkpoint()
        return live.ledger.state()

    async def wait_idle(self) -> None:
        """Wait until nothing runs, nothing runnable is queued, and nothing is being accepted.

        Raises:
            AgentNotRunning: the agent ended first.

        Cancellation: either it returns, or nothing was done; the agent goes on.
        """
        live = await self._ask("view")
        await live.wait_idle()

    async def wait_ended(self) -> ShutdownReason:
        """Wait until the agent has ended, and return why. Fine where it has ended already.

        Cancellation: either it returns, or nothing was done; the agent goes on.
        """
        live = self._live
        access = live.runtime.access
        await access.require(self._scope, live.entry.conversation_id, "view")
        if not access.owns(self._scope, live.entry.owner):
            raise ConversationNotFound(live.entry.conversation_id)
        await live.entry.wait_ended()
        return live.shutdown_reason

    async def stop(self, *, grace_period: float = 0.0) -> bool:
        """Stop the agent; as `Sessions.stop`, but never one that came after this.

        Returns:
            True if this agent was up or ending; False if it had ended, or the scope may not.

        Cancellation: either nothing was asked, or the agent is stopped all the same.
        """
        live = self._live
        access = live.runtime.access
        check_grace(grace_period)
        allowed = await access.allows(self._scope, live.entry.conversation_id, "stop")
        if not allowed or live.has_ended or not access.owns(self._scope, live.entry.owner):
            await trio.lowlevel.checkpoint()
            return False
        await stop_entry(live.entry, grace_period)
        return True


def check_decisions(decisions: Sequence[Decision]) -> Sequence[Decision]:
    """Return the decisions as a tuple; TypeError or ValueError where they cannot be meant."""
    if isinstance(decisions, str) or not isinstance(decisions, Sequence):
        raise TypeError(f"decisions must be a sequence of Approve, Edit, Reject, Answer; not {decisions!r}")
    for one in decisions:
        if not isinstance(one, Decision) or type(one) is Decision:
            raise TypeError(f"a decision is an Approve, Edit, Reject or Answer, not {one!r}")
    if not decisions:
        raise ValueError("decisions is empty; give one for each call that is decided")
    return tuple(decisions)


def check_grace(grace_period: float) -> None:
    """Raise where it is no duration."""
    if isinstance(grace_period, bool) or not isinstance(grace_period, int | float):
        raise TypeError(f"grace_period must be seconds as a number, not {grace_period!r}")
    if not grace_period >= 0:
        raise ValueError(f"grace_period must be >= 0 seconds, not {grace_period!r}")


def handle_of(live: "LiveAgent", scope: Scope) -> AgentHandle:
    """Return a handle of a live agent for one scope."""
    return AgentHandle._of(live, scope)  # the one place where handles are made
