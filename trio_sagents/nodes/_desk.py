"""Calls of other nodes, carried out by the agents of this node.

Whether somebody may do something was asked where the request came in. Who it is travels as what is stored of whoever posts a message, and
becomes a scope here as it does when an agent starts again (`Access.scope_of`).
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, assert_never

import attrs

from trio_sagents.conversation.messages_in import Posted
from trio_sagents.data.events import MiddlewareEvent
from trio_sagents.data.json import JSON, Options, plain_json
from trio_sagents.data.messages import Poster
from trio_sagents.data.outcomes import Unanswered
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import AgentNotRunning
from trio_sagents.nodes._letters import (
    Accepted,
    Acknowledge,
    AddRows,
    Attach,
    Attached,
    CutTurn,
    Decide,
    Done,
    Follow,
    Look,
    Looked,
    Notify,
    PostMessage,
    Publish,
    ReadState,
    Reply,
    Request,
    Settled,
    StateRead,
    Stop,
    Touch,
    WaitIdle,
    WaitOutcome,
)
from trio_sagents.nodes._relay import Relay
from trio_sagents.supervisor._access import Access
from trio_sagents.supervisor._receipts import Receipt
from trio_sagents.supervisor._registry import Entry, Phase, Registry, RunningAgent

KEPT_RECEIPTS: Final = 10_000
"""Receipts for other nodes whose outcome may still be asked for."""


@attrs.define(eq=False)
class Desk:
    """Carries out what other nodes ask for."""

    registry: Registry
    access: Access
    relay: Relay
    agent_id_of: Callable[[str], str]
    _receipts: "OrderedDict[tuple[str, int], Receipt]" = attrs.field(factory=OrderedDict)
    """By node and number of the call: what was accepted."""

    async def carry_out(self, sender: str, call: int, request: Request) -> Reply:  # one for each answer
        """Carry out a call of another node.

        Raises:
            AgentNotRunning: the agent does not run on this node.
            Whatever the agent raises.

        Cancellation: as of the agent's methods.
        """
        if isinstance(request, WaitOutcome):
            return await self._wait_outcome(sender, request)
        entry, live = await self._find(request.conversation_id)
        match request:
            case PostMessage() | Decide() | Acknowledge() | AddRows():
                receipt = await self._command(entry, live, request)
                if receipt is None:
                    return Done()
                self._keep(sender, call, receipt)
                return Accepted(receipt.message_id, receipt.duplicate)
            case CutTurn(turn_id=turn_id):
                return Settled(await live.cancel_turn(turn_id))
            case WaitIdle():
                await live.wait_idle()
                return Done()
            case Look():
                return Looked(await live.look())
            case ReadState():
                return StateRead(await live.read_state())
            case Stop(grace_period=grace_period):
                await live.stop(grace_period)
                return Done()
            case Notify(middleware_id=middleware_id, message=message):
                await live.notify(middleware_id, message)
                return Done()
            case _:
                return self._at_once(sender, entry, live, request)

    def _at_once(self, sender: str, entry: Entry, live: RunningAgent, request: Attach | Follow | Publish | Touch) -> Reply:
        match request:
            case Attach():
                incarnation = live.incarnation
                self.relay.attach(sender, entry, incarnation)
                return Attached(entry.agent_id, incarnation, entry.owner, _plain(live.options), live.info())
            case Follow():
                return self.relay.follow(sender, live, request)
            case Publish(event=event, channel=channel):
                if isinstance(event, MiddlewareEvent):  # any other event says what the library has done
                    live.publish(event, channel)
                return Done()
            case Touch():
                live.touch()
                return Done()
            case _:
                assert_never(request)

    async def _find(self, conversation_id: str) -> tuple[Entry, RunningAgent]:
        """Return the agent of a conversation, once its start or its end is over.

        Raises:
            AgentNotRunning: it does not run here.
        """
        agent_id = self.agent_id_of(conversation_id)
        entry = self.registry.find(agent_id, conversation_id)
        if entry is not None and entry.phase is Phase.BOOTING:
            await entry.wait_ready()
        if entry is None or entry.live is None or entry.live.is_remote:
            raise AgentNotRunning(conversation_id)
        if entry.phase is Phase.STOPPING:
            await entry.wait_ended()
            raise AgentNotRunning(conversation_id)
        return entry, entry.live

    async def _command(self, entry: Entry, live: RunningAgent, request: PostMessage | Decide | Acknowledge | AddRows) -> Receipt | None:
        actor = await self._scope_of(request.actor, entry)
        match request:
            case PostMessage(message=message, message_id=message_id, overlap=overlap, display=display, values=values):
                posted = attrs.evolve(Posted.of(message, message_id, overlap, display, values), is_unattended=request.is_unattended)
                return await live.post(posted, actor)
            case Decide(decisions=decisions):
                return await live.resume(decisions, actor)
            case Acknowledge(interrupt_id=interrupt_id):
                await live.dismiss(actor, interrupt_id)
                return None
            case AddRows(rows=rows):
                await live.add_rows(rows, actor)
                return None
            case _:
                assert_never(request)

    async def _scope_of(self, actor: Poster | None, entry: Entry) -> Scope:
        return await self.access.scope_of(actor, entry.scope, entry.conversation_id)

    def _keep(self, sender: str, call: int, receipt: Receipt) -> None:
        self._receipts[sender, call] = receipt
        if len(self._receipts) > KEPT_RECEIPTS:
            self._receipts.popitem(last=False)

    async def _wait_outcome(self, sender: str, request: WaitOutcome) -> Settled:
        receipt = self._receipts.get((sender, request.call))
        if receipt is None:
            return Settled(Unanswered("the agent's node does not know the outcome any more; the history has it"))
        return Settled(await receipt.wait())


def _plain(options: Options) -> JSON:
    """Return the options of a session that are plain JSON."""
    plain = {}
    for name, value in options.items():
        try:
            plain[name] = plain_json(value)
        except (TypeError, ValueError, RecursionError):
            continue  # the host's own object: it stays where the agent runs
    return plain
