"""The part of `Sessions` that takes what people decide."""

from collections.abc import Sequence

import attrs
import trio

from trio_sagents._trio.tree import is_inside
from trio_sagents.data.decisions import Decision
from trio_sagents.data.json import Opaque
from trio_sagents.data.scopes import Scope
from trio_sagents.exceptions import AgentNotRunning
from trio_sagents.sessions._asking import Opts, check_opts
from trio_sagents.sessions._looking import Looking
from trio_sagents.supervisor import LiveAgent, Opening, Phase, Receipt, check_decisions


@attrs.define(eq=False)
class Deciding(Looking):
    """Answers to interrupts."""

    async def resume(
        self, conversation_id: str, decisions: Sequence[Decision], *, scope: Scope = None, request_opts: Opts | None = None
    ) -> Receipt:
        """Decide calls that wait; wake the agent where it sleeps. Returns when the decisions are durable.

        The turn goes on when every call of the interrupt is decided; until then what was decided is kept. No call runs before
        its decision is on record, and it runs with the arguments that were shown, or with the edited ones.

        Args:
            conversation_id: the conversation.
            decisions: `Approve(call)`, `Edit(call, arguments)`, `Reject(call, reason)`, `Answer(call, value)`, for calls of the
                interrupt; one or more. All of them are recorded, or none.
            scope: the caller's.
            request_opts: as in `start`.

        Returns:
            The receipt; its `message_id` is the interrupt's id, `duplicate` says that all of it was on record already. Wait on it
            for the outcome of the turn; `Interrupted` at once where other calls still wait.

        Raises:
            ConversationNotFound, StartFailed, SessionsClosed: as `start`; nothing was done.
            AlreadyDecided: a call was decided otherwise before; nothing was done.
            InvalidDecision: a decision fits no call that waits; nothing was done.
            NotInterrupted: nothing waits; nothing was done.
            LimitExceeded: what they say is too large to be kept; nothing was done.
            PersistenceError: they could not be stored; nothing runs.

        A boot that is stopped meanwhile (`StartFailed`) may have recorded them: decide again, the same is a duplicate.

        Cancellation: either nothing was submitted, or the decisions are recorded, and the turn goes on.
        """
        decided = check_decisions(decisions)

        async def act(live: LiveAgent) -> Receipt:
            return await live.answering.resume(decided, scope)

        receipt: Receipt = await self._decide(conversation_id, scope, check_opts(request_opts), Opening(act))
        return receipt

    async def dismiss(self, conversation_id: str, *, scope: Scope = None, request_opts: Opts | None = None) -> None:
        """Acknowledge a halt; wake the agent where it sleeps. The halted turn is over, and waiting messages are answered.

        Args:
            conversation_id: the conversation.
            scope: the caller's.
            request_opts: as in `start`.

        Raises:
            ConversationNotFound, StartFailed, SessionsClosed: as `start`; nothing was done.
            NotInterrupted: it is not halted; nothing was done. What waits for an answer takes `resume`.
            PersistenceError: it could not be stored.

        Cancellation: either nothing was submitted, or it is acknowledged.
        """

        async def act(live: LiveAgent) -> None:
            await live.answering.dismiss(scope)

        await self._decide(conversation_id, scope, check_opts(request_opts), Opening(act))

    async def _decide(self, conversation_id: str, scope: Scope, opts: Opts, opening: Opening) -> Opaque:
        agent_id = self._agent_id(conversation_id, scope)
        await trio.lowlevel.checkpoint()
        await self._runtime.access.require(scope, conversation_id, "decide")
        if self._runtime.registry.find(agent_id, conversation_id) is None:
            # Nothing is made for an answer: a conversation that is not stored is not there.
            await self._require_stored(conversation_id, scope)
        while True:
            entry = await self._starter.ensure(agent_id, conversation_id, scope, opts, opening)
            if opening.is_done:
                return opening.outcome()
            assert entry.live is not None
            try:
                return await opening.act(entry.live)
            except AgentNotRunning:
                # Race: the agent closed between the look and the decision, with nothing done; the next one takes it.
                if entry.phase is Phase.LIVE or is_inside(entry.task):
                    raise
                await entry.wait_ended()
