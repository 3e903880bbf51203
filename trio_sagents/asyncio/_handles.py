"""Receipts and handles, for asyncio."""

from collections.abc import Sequence

import attrs

import trio_sagents
from trio_sagents import AgentInfo, Channel, Decision, MiddlewareEvent, Overlap, Row, ShutdownReason, State, TurnOutcome, UserMessage
from trio_sagents.asyncio._block import Block
from trio_sagents.data.json import Opaque, Options


@attrs.frozen(eq=False)
class Receipt:
    """The message, or the decision, is durable. As `trio_sagents.Receipt`."""

    _block: Block = attrs.field(repr=False)
    _trio: trio_sagents.Receipt = attrs.field(repr=False)

    @property
    def message_id(self) -> str:
        """The id of the message, or of the interrupt."""
        return self._trio.message_id

    @property
    def duplicate(self) -> bool:
        """Whether an earlier call had brought the same; this call did nothing then."""
        return self._trio.duplicate

    async def wait(self) -> TurnOutcome:
        """Wait for the outcome of the turn that takes the message. As `trio_sagents.Receipt.wait`.

        Cancellation: the turn continues; wait again whenever you like.
        """
        return await self._block.call(self._trio.wait)


@attrs.frozen(eq=False)
class AgentHandle:
    """A live agent, as one scope sees it. As `trio_sagents.AgentHandle`.

    Cancellation: the call is cancelled in Trio, and leaves what it leaves there.
    """

    _block: Block = attrs.field(repr=False)
    _trio: trio_sagents.AgentHandle = attrs.field(repr=False)

    def __eq__(self, other: object) -> bool:
        return self._trio == other._trio if isinstance(other, AgentHandle) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._trio)

    @property
    def agent_id(self) -> str:
        """The agent's id."""
        return self._trio.agent_id

    @property
    def conversation_id(self) -> str:
        """The conversation's id."""
        return self._trio.conversation_id

    @property
    def options(self) -> Options:
        """The host's own options of this session: `SessionOpts.app_internal`."""
        return self._trio.options

    async def post(
        self,
        message: str | UserMessage,
        *,
        message_id: str | None = None,
        overlap: Overlap = "queue",
        display: str | UserMessage | None = None,
        values: Options | None = None,
    ) -> Receipt:
        """Hand the agent a message. As `trio_sagents.AgentHandle.post`."""
        receipt = await self._block.call(self._trio.post, message, message_id=message_id, overlap=overlap, display=display, values=values)
        return Receipt(self._block, receipt)

    async def add_rows(self, rows: Sequence[Row]) -> None:
        """Add rows of the host's own to the transcript. As `trio_sagents.AgentHandle.add_rows`."""
        await self._block.call(self._trio.add_rows, rows)

    async def publish(self, event: MiddlewareEvent, *, channel: Channel = "main") -> None:
        """Send an event of the host's own to those who follow the conversation now. As `trio_sagents.AgentHandle.publish`."""
        await self._block.call(self._trio.publish, event, channel=channel)

    async def resume(self, decisions: Sequence[Decision]) -> Receipt:
        """Decide what waits. As `trio_sagents.AgentHandle.resume`."""
        return Receipt(self._block, await self._block.call(self._trio.resume, decisions))

    async def dismiss(self, *, interrupt_id: str | None = None) -> None:
        """Acknowledge a halt. As `trio_sagents.AgentHandle.dismiss`."""
        await self._block.call(self._trio.dismiss, interrupt_id=interrupt_id)

    async def notify_middleware(self, middleware_id: str, message: Opaque) -> None:
        """Hand a message to one middleware of the agent. As `trio_sagents.AgentHandle.notify_middleware`."""
        await self._block.call(self._trio.notify_middleware, middleware_id, message)

    async def cancel_turn(self, *, turn_id: str | None = None) -> TurnOutcome | None:
        """Cut the running turn. As `trio_sagents.AgentHandle.cancel_turn`."""
        return await self._block.call(self._trio.cancel_turn, turn_id=turn_id)

    async def touch(self) -> None:
        """Renew the idle clock. As `trio_sagents.AgentHandle.touch`."""
        await self._block.call(self._trio.touch)

    async def info(self) -> AgentInfo:
        """Return a picture of the agent. As `trio_sagents.AgentHandle.info`."""
        return await self._block.call(self._trio.info)

    async def state(self) -> State:
        """Return the last committed state. As `trio_sagents.AgentHandle.state`."""
        return await self._block.call(self._trio.state)

    async def wait_idle(self) -> None:
        """Wait until the agent has nothing to do. As `trio_sagents.AgentHandle.wait_idle`."""
        await self._block.call(self._trio.wait_idle)

    async def wait_ended(self) -> ShutdownReason:
        """Wait until the agent has ended, and return why. As `trio_sagents.AgentHandle.wait_ended`."""
        return await self._block.call(self._trio.wait_ended)

    async def stop(self, *, grace_period: float = 0.0) -> bool:
        """Stop the agent. As `trio_sagents.AgentHandle.stop`."""
        return await self._block.call(self._trio.stop, grace_period=grace_period)


@attrs.frozen
class SessionInfo:
    """A running agent. As `trio_sagents.SessionInfo`."""

    agent_id: str
    conversation_id: str
    agent: AgentHandle
    """Bound to the scope of the call."""
    started: bool
    """Whether this call started the agent. Exactly one call per start gets True."""


def info_of(block: Block, info: trio_sagents.SessionInfo) -> SessionInfo:
    """Return a `SessionInfo` for asyncio."""
    return SessionInfo(info.agent_id, info.conversation_id, AgentHandle(block, info.agent), info.started)
