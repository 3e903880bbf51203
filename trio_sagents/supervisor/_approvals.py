"""How decisions get in: a decision is checked, then recorded in one commit, and only then does anything run.

At any time at most one change to the waiting interrupt is being stored. A second decision that comes meanwhile waits for that write, and
is then checked against what is on record. So if two people decide at the same time, one decision is recorded, and the other person
learns whether both were the same.
"""

import contextvars
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs
import trio

from trio_sagents._trio.failures import logged
from trio_sagents._trio.timers import Timer
from trio_sagents.agent import EXPECTED, ArgumentsInvalid, Pipeline, id_of
from trio_sagents.conversation.checkpoints import Past, call_name, interrupt_name
from trio_sagents.conversation.decisions import (
    EXPIRED,
    REJECTED,
    Verdict,
    acknowledged,
    check_decision_size,
    close_waiting,
    decide,
    undecided,
    unknown_calls,
    was_dismissed,
)
from trio_sagents.conversation.expiry import due_calls
from trio_sagents.conversation.outcomes import outcome_of_past, outcome_of_turn, turn_of_decision
from trio_sagents.conversation.state import Step, Waiting
from trio_sagents.conversation.status import Happening
from trio_sagents.data.decisions import Answer, Decision, Edit, Reject, answer_text
from trio_sagents.data.interrupts import Interrupt, PendingCall
from trio_sagents.data.json import Opaque, check_text
from trio_sagents.data.outcomes import Interrupted, Unanswered
from trio_sagents.data.records import Owner
from trio_sagents.data.scopes import Scope
from trio_sagents.data.status import CancelCause
from trio_sagents.exceptions import InvalidDecision, LimitExceeded, MiddlewareError, NotInterrupted, PersistenceError
from trio_sagents.supervisor._host import HookCaller
from trio_sagents.supervisor._journal import wall_clock
from trio_sagents.supervisor._receipts import Accepted, PendingOutcome, Receipt
from trio_sagents.supervisor._turns import Turns

EXPIRY_RETRY: Final = 5.0
"""Seconds after which an expiry that could not be stored is tried again."""
log: Final = logging.getLogger("trio_sagents")


@attrs.define(eq=False)
class Approvals:
    """The way of decisions into one agent, and the expiry of calls that nobody decides."""

    turns: Turns
    pipeline: Pipeline
    hooks: HookCaller
    _timer: Timer | None = None
    """When the first call that nobody decides is rejected."""
    _armed: Waiting | None = None
    """What the timer is for."""

    async def resume(self, decisions: Sequence[Decision], actor: Scope) -> Receipt:
        """Record decisions; the turn continues when every call is decided.

        Args:
            decisions: at least one; all of them are recorded, or none.
            actor: the scope of the person who decides.

        Raises:
            AgentNotRunning: the agent accepts no more decisions; nothing was done.
            AlreadyDecided, InvalidDecision, NotInterrupted: as their names say; nothing was done.
            LimitExceeded: what the decisions say is too large to be kept; nothing was done.
            PersistenceError: they could not be stored, or the store could not say whether the calls were decided before; nothing runs.

        Cancellation: either nothing was submitted, or the decisions are recorded, and the turn continues.
        """
        host, journal = self.turns.host, self.turns.host.journal
        while True:
            await self._wait_for_others()
            self._require_accepting()
            past = await self._recall(decisions)
            older = journal.state.older
            fresh = undecided(host.conversation_id, journal.state, decisions, past)
            if not fresh:
                await trio.lowlevel.checkpoint()
                pending = self._pending_outcome(decisions[0], past.get(decisions[0].call_id))
                return Receipt(decisions[0].interrupt_id, duplicate=True, pending=pending)
            verdicts = [await self._verdict(call, decision) for call, decision in fresh]
            by = host.services.access.actor_of(actor)  # host code: called before anything is submitted
            # No checkpoint from this look to the submission: what the middleware was asked about is still what waits.
            if journal.state.older != older:
                continue
            if journal.pending_wait is None and undecided(host.conversation_id, journal.state, decisions, past) == fresh:
                self._require_accepting()
                break
        self._check_size(verdicts)
        return await self._record(verdicts, actor, by)

    async def expire(self, due: Interrupt) -> None:
        """The time of some calls is over: reject those that nobody has decided. If that cannot be stored, retry.

        Args:
            due: the interrupt, as it was when that time was over.

        Raises:
            PersistenceError: it could not be stored, and the agent is not live yet.

        Cancellation: either nothing was submitted, or the calls are rejected.
        """
        journal, entry = self.turns.host.journal, self.turns.host.entry
        await self._wait_for_others()
        interrupt = journal.state.interrupt
        if interrupt is None or journal.is_closed or journal.pending_wait is not None:
            return
        # Race: a person may have decided the calls that were due while this waited; the others have a time of their own, and the
        # continuation of that decision has set the timer for it (test_expiry_while_the_call_that_is_due_is_decided).
        if (interrupt.interrupt_id, interrupt.expires_at) != (due.interrupt_id, due.expires_at):
            return
        verdicts = [Verdict(call, "expired", {}, EXPIRED) for call in due_calls(interrupt, wall_clock())]
        if not verdicts:
            return
        try:
            await self._record(verdicts, self.turns.host.scope, None)
        except PersistenceError:
            if entry.live is None:
                raise
            log.warning(
                "could not store the expiry of pending calls in conversation %r; retrying in %g s",
                entry.conversation_id,
                EXPIRY_RETRY,
                exc_info=True,
            )
            self._expire_later(after=EXPIRY_RETRY)

    async def dismiss(self, actor: Scope, interrupt_id: str | None = None) -> None:
        """Acknowledge a halt: its turn is over, and the queue runs. Does nothing if `interrupt_id` was acknowledged before.

        Raises:
            AgentNotRunning: the agent accepts no more commands; nothing was done.
            NotInterrupted: the conversation is not halted, or not by `interrupt_id`; nothing was done.
            PersistenceError: it could not be stored.

        Cancellation: either nothing was submitted, or the halt is acknowledged.
        """
        host, journal = self.turns.host, self.turns.host.journal
        by = host.services.access.actor_of(actor)  # host code: called before anything is looked at
        await self._wait_for_others()
        self._require_accepting()
        if interrupt_id is not None and await self._was_dismissed(interrupt_id):
            return
        waiting, waits = journal.state.waiting, journal.pending_wait
        if interrupt_id is not None and (waiting is None or waiting.interrupt.interrupt_id != interrupt_id):
            raise NotInterrupted(host.conversation_id, f"it is not waiting in the interrupt {interrupt_id!r}")
        if waiting is None or waits is not None:
            raise NotInterrupted(host.conversation_id)
        if waiting.interrupt.kind != "halt":
            raise NotInterrupted(host.conversation_id, "it is not halted; what waits takes a decision: call `resume()`")
        step = close_waiting(journal.moment(), "dismissed", CancelCause.DISMISSED, by, acknowledged(waiting))
        await self._submit(attrs.evolve(step, actor=actor), self._let_go)

    async def _was_dismissed(self, interrupt_id: str) -> bool:
        """Return whether a halt was acknowledged before, however long ago. Race: as in `Inbox._recall`."""
        journal = self.turns.host.journal
        while True:
            state, older = journal.state, journal.state.older
            is_waiting = state.waiting is not None and state.waiting.interrupt.interrupt_id == interrupt_id
            if is_waiting or not older or was_dismissed(reversed(state.messages), interrupt_id):
                return not is_waiting and was_dismissed(reversed(state.messages), interrupt_id)
            name = interrupt_name(interrupt_id)
            found = await journal.recall((name,))
            if older == journal.state.older:
                return name in found and was_dismissed((found[name].message,), interrupt_id)

    # ── expiry

    def arm(self) -> None:
        """Have what waits expire in its time. The agent's task calls this whenever it looks."""
        waiting = self.turns.host.journal.state.waiting
        if self._armed is not waiting:
            self._armed = waiting
            self._expire_later()

    def _expire_later(self, after: float = 0.0) -> None:
        self.stop()
        host, interrupt = self.turns.host, self.turns.host.journal.state.interrupt
        if interrupt is None or interrupt.expires_at is None:
            return

        def expire() -> None:
            self._timer = None
            if host.entry.is_accepting:
                host.nursery.start_soon(self.expire, interrupt)

        seconds = max(after, (interrupt.expires_at - wall_clock()).total_seconds())
        self._timer = host.services.timers.call_at(trio.current_time() + seconds, expire)

    def stop(self) -> None:
        """Nothing expires any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ── checking

    async def _wait_for_others(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while (waits := self.turns.host.journal.pending_wait) is not None and waits.by != "turn":
            await waits.write.wait_ended()

    def _require_accepting(self) -> None:
        if self.turns.host.entry.is_leaving:
            raise self.turns.host.entry.not_running()

    def _check_size(self, verdicts: Sequence[Verdict]) -> None:
        """Raise LimitExceeded if decisions say too much, also if older messages leave the window for them."""
        journal, most = self.turns.host.journal, self.turns.host.blueprint.policy.max_message_bytes
        try:
            check_decision_size(journal.state, verdicts, most, journal.limits)
        except LimitExceeded:
            freeable = journal.freeable()  # measured only if it matters
            if not freeable:
                raise
            roomy = attrs.evolve(journal.limits, max_state_bytes=journal.limits.max_state_bytes + freeable)
            check_decision_size(journal.state, verdicts, most, roomy)

    async def _recall(self, decisions: Sequence[Decision]) -> Mapping[str, Past]:
        """Return what the store has of the calls that memory does not know, by call id. Race: as in `Inbox._recall`."""
        journal = self.turns.host.journal
        while unknown := unknown_calls(journal.state, decisions):
            older = journal.state.older
            found = await journal.recall([call_name(call_id) for call_id in unknown])
            if older == journal.state.older:
                return {call_id: found[name] for call_id in unknown if (name := call_name(call_id)) in found}
        return {}

    async def _verdict(self, call: PendingCall, decision: Decision) -> Verdict:
        """Return a decision as it will be recorded; InvalidDecision if it is refused."""
        try:
            text = await self._ask_middleware(call, decision)
            match decision:
                case Edit(arguments=arguments):
                    tool = None if call.path else self.pipeline.tools.get(call.name)
                    if tool is not None:
                        tool.check_arguments(arguments)
                case Reject(reason=reason):
                    text = text or f"{REJECTED}{': ' + reason if reason else '.'}"
                case Answer():
                    text = answer_text(call, decision) if text is None else text
                case _:
                    pass
        except (ValueError, ArgumentsInvalid) as exc:
            raise InvalidDecision(self.turns.host.conversation_id, str(exc)) from exc
        return Verdict(call, decision.kind, decision.content, text or "")

    async def _ask_middleware(self, call: PendingCall, decision: Decision) -> str | None:
        found: str | None = None
        for middleware in self.pipeline.having("answer"):
            if id_of(middleware) in call.claimed_by:
                self._require_accepting()  # the agent may have begun to leave while another middleware was asked
                text = await self.hooks.call(self._answer, middleware, call, decision)
                found = text if found is None else found
        return found

    async def _answer(self, middleware: Opaque, call: PendingCall, decision: Decision) -> str | None:
        """Ask one middleware. An error of the middleware names it; a ValueError refuses the decision."""
        try:
            with self.pipeline.labelled(f"middleware {id_of(middleware)!r} (answer)"):
                text: object = await middleware.answer(self.pipeline.context(middleware, self.turns.host), call, decision)
            if text is not None and not isinstance(text, str):
                raise TypeError(f"answer must return a str or None, not {type(text).__name__}")
            return None if text is None else check_text(text, "the answer")
        except (ValueError, *EXPECTED):
            raise
        except Exception as exc:
            where = (id_of(middleware), self.turns.host.conversation_id)
            failed = MiddlewareError(id_of(middleware), "answer")
            raise logged(failed, exc, "the middleware %r failed in answer, in conversation %r", *where) from exc

    # ── recording

    async def _record(self, verdicts: Sequence[Verdict], actor: Scope, by: Owner) -> Receipt:
        host, journal, turns = self.turns.host, self.turns.host.journal, self.turns
        moment, waiting = journal.moment(), journal.state.waiting
        assert waiting is not None
        interrupt_id = waiting.interrupt.interrupt_id
        step = decide(moment, [verdict.record(by, moment.now) for verdict in verdicts], actor)
        if isinstance(step.waiting, Waiting):
            await self._submit(step, self._wait_on)
            return Receipt(interrupt_id, duplicate=False, pending=PendingOutcome(Interrupted(step.waiting.interrupt)))
        accepted = Accepted(actor, "queue", contextvars.copy_context())
        await self._submit(step, lambda: turns.carry_on(waiting.interrupt, waiting.suspended, waiting.used, accepted))
        if host.entry.has_ended:  # nobody waited for the store any more: the next start closes what was let go
            accepted.pending.settle(Unanswered(host.entry.shutdown_reason))
        return Receipt(interrupt_id, duplicate=False, pending=accepted.pending)

    def _wait_on(self) -> None:
        """Some of the calls are decided."""
        self.turns.board.lifetime.touch()
        self.turns.board.tell(Happening.PARTLY_DECIDED)

    def _let_go(self) -> None:
        """The halt is acknowledged."""
        self.turns.board.lifetime.touch()
        self.turns.board.is_released = True
        self.turns.host.services.origins.pop(self.turns.host.conversation_id, None)
        self.turns.board.tell(Happening.LET_GO)

    async def _submit(self, step: Step, then: Callable[[], None]) -> None:
        host, lifetime = self.turns.host, self.turns.board.lifetime
        lifetime.holds += 1

        def stored(error: PersistenceError | None) -> None:
            """Runs in the continuation: the decisions are durable, or they are not."""
            lifetime.holds -= 1
            if error is None and not host.journal.is_closed:
                then()

        await host.journal.submit(step, stored).wait()

    # ── what became of a decision

    def _pending_outcome(self, decision: Decision, past: Past | None) -> PendingOutcome:
        """Return what a decision that is on record led to; `past` is its call, if it is before the window."""
        state, turns = self.turns.host.journal.state, self.turns
        interrupt = state.interrupt
        if interrupt is not None and interrupt.interrupt_id == decision.interrupt_id:
            return PendingOutcome(Interrupted(interrupt))
        accepted = turns.receipts.accepted.get(decision.interrupt_id)
        if accepted is not None:
            return accepted.pending
        # The receipt was settled, or has died with its agent.
        turn_id = turn_of_decision(state, decision.call_id)
        if turn_id is None:
            return PendingOutcome(Unanswered("cut") if past is None else outcome_of_past(past))
        if interrupt is not None and interrupt.turn_id == turn_id:
            return PendingOutcome(Interrupted(interrupt))  # it waits again
        if turns.turn is not None and turns.turn.continues and turns.turn.turn_id == turn_id:
            return turns.receipts.accepted[turns.turn.message_ids[0]].pending
        return PendingOutcome(turns.receipts.outcome_of(decision.interrupt_id) or outcome_of_turn(state.messages, turn_id))
