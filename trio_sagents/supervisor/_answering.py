"""How decisions get in: checked, recorded in one commit, and only then does anything run.

One decision is on its way at a time; whoever comes meanwhile waits, and looks again at what is then on record. So of two people
who decide at once one is recorded, and the other learns whether it was the same.
"""

import contextvars
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import attrs
import trio

from trio_sagents.agent import EXPECTED, ArgumentsInvalid
from trio_sagents.agent._agent import id_of
from trio_sagents.data.decisions import Answer as AnswerDecision
from trio_sagents.data.decisions import Decision, Edit, Reject, answer_text
from trio_sagents.data.events import DisplayMessageSaved, DisplayMessageUpdated, Event
from trio_sagents.data.interrupts import Interrupt, PendingCall
from trio_sagents.data.json import Opaque, check_text
from trio_sagents.data.outcomes import Interrupted, Unanswered
from trio_sagents.data.records import Saved
from trio_sagents.data.scopes import Scope
from trio_sagents.data.status import CancelCause, Status
from trio_sagents.exceptions import InvalidDecision, MiddlewareError, NotInterrupted, PersistenceError
from trio_sagents.supervisor._change import Change
from trio_sagents.supervisor._decisions import EXPIRED, Verdict, check_size, closing_change, new_ones, partial_change, whole_change
from trio_sagents.supervisor._expiry import due_calls, expire_later
from trio_sagents.supervisor._intake import Accepted, outcome_of_turn
from trio_sagents.supervisor._receipt import Answer, Receipt
from trio_sagents.supervisor._runtime import wall_clock

if TYPE_CHECKING:
    from trio_sagents.supervisor._live import LiveAgent


Then = Callable[[], None]
EXPIRY_RETRY: Final = 5.0
"""Seconds after which what could not be rejected in time is tried again."""
log: Final = logging.getLogger("trio_sagents")


@attrs.define(eq=False)
class Answering:
    """The way of decisions into one agent."""

    live: "LiveAgent" = attrs.field(repr=False)

    async def resume(self, decisions: Sequence[Decision], actor: Scope) -> Receipt:
        """Record decisions; the turn goes on when every call is decided.

        Args:
            decisions: at least one; all of them are recorded, or none.
            actor: the scope of whoever decides.

        Raises:
            AgentNotRunning: the agent takes no more; nothing was done.
            AlreadyDecided, InvalidDecision, NotInterrupted: as their names say; nothing was done.
            LimitExceeded: what they say is too large to be kept; nothing was done.
            PersistenceError: they could not be stored; nothing runs.

        Cancellation: either nothing was submitted, or they are recorded, and the turn goes on.
        """
        live = self.live
        while True:
            await self._wait_for_others()
            self._require_accepting()
            fresh = new_ones(live.ledger, decisions)
            if not fresh:
                await trio.lowlevel.checkpoint()
                return Receipt(decisions[0].interrupt_id, duplicate=True, answer=self._answer_of(decisions[0]))
            verdicts = [await self._verdict(call, decision) for call, decision in fresh]
            # No checkpoint from this look to the submission: what the middleware was asked about is still what waits.
            if self.live.landing is None and not live.intake.is_superseding and new_ones(live.ledger, decisions) == fresh:
                self._require_accepting()
                break
        interrupt = live.ledger.interrupt
        assert interrupt is not None
        check_size(live.ledger, interrupt, verdicts, live.policy.max_message_bytes)
        return await self._record(interrupt, verdicts, actor)

    async def expire(self, due: Interrupt) -> None:
        """The time of some calls is over: those that nobody has decided are rejected. Where that cannot be stored it is tried again.

        Args:
            due: the interrupt, as it was when that time was over.

        Raises:
            PersistenceError: it could not be stored, and the agent is not live yet.

        Cancellation: either nothing was submitted, or it is rejected.
        """
        live = self.live
        await self._wait_for_others()
        interrupt = live.ledger.interrupt
        if interrupt is None or live.has_ended or self.live.landing is not None:
            return
        # Race: a person may have decided the calls that were due while this waited; the others have a time of their own, and the
        # continuation of that decision has set the timer for it (test_expiry_while_the_call_that_is_due_is_decided).
        if (interrupt.interrupt_id, interrupt.expires_at) != (due.interrupt_id, due.expires_at):
            return
        verdicts = [Verdict(call, "expired", {}, EXPIRED) for call in due_calls(interrupt, wall_clock())]
        if not verdicts or live.intake.is_superseding:
            return
        try:
            await self._record(interrupt, verdicts, live.blueprint.scope)
        except PersistenceError:
            if live.entry.live is None:
                raise
            log.warning("what nobody decided in conversation %r could not be rejected", live.ledger.conversation_id, exc_info=True)
            expire_later(live, after=EXPIRY_RETRY)

    async def dismiss(self, actor: Scope) -> None:
        """Acknowledge a halt: its turn is over, the queue goes on.

        Raises:
            AgentNotRunning: the agent takes no more; nothing was done.
            NotInterrupted: it is not halted; nothing was done.
            PersistenceError: it could not be stored.

        Cancellation: either nothing was submitted, or it is acknowledged.
        """
        live = self.live
        await self._wait_for_others()
        self._require_accepting()
        interrupt = live.ledger.interrupt
        if interrupt is None or live.intake.is_superseding:
            raise NotInterrupted(live.ledger.conversation_id)
        if interrupt.kind != "halt":
            raise NotInterrupted(live.ledger.conversation_id, "it is not halted; what waits is answered by resume")
        texts = {call.call_id: f"{call.text}\n(A person has acknowledged this.)" for call in interrupt.calls if call.kind == "halt"}
        by = live.runtime.access.actor_of(actor)
        change, events = closing_change(live.ledger, "dismissed", CancelCause.DISMISSED, by, texts)
        await self._submit(attrs.evolve(change, actor=actor), events, self._let_go)

    async def _wait_for_others(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.live.landing is not None or self.live.intake.is_superseding:
            if self.live.landing is not None:
                await self.live.landing.wait()
            else:
                await self.live.ledger.wait_at_rest()

    def _require_accepting(self) -> None:
        if self.live.is_leaving:
            raise self.live.entry.not_running()

    async def _verdict(self, call: PendingCall, decision: Decision) -> Verdict:
        """Return a decision as it will be recorded; InvalidDecision where it will not do."""
        live = self.live
        try:
            text = await self._ask_middleware(call, decision)
            match decision:
                case Edit(arguments=arguments):
                    tool = None if call.path else live.pipeline.tools.get(call.name)
                    if tool is not None:
                        tool.check_arguments(arguments)
                case Reject(reason=reason):
                    text = text or f"This call was not run: a person rejected it{': ' + reason if reason else '.'}"
                case AnswerDecision():
                    text = answer_text(call, decision) if text is None else text
                case _:
                    pass
        except (ValueError, ArgumentsInvalid) as exc:
            raise InvalidDecision(live.ledger.conversation_id, str(exc)) from exc
        return Verdict(call, decision.kind, decision.content, text or "")

    async def _ask_middleware(self, call: PendingCall, decision: Decision) -> str | None:
        pipeline = self.live.pipeline
        found: str | None = None
        for one in pipeline.having("answer"):
            if id_of(one) in call.claimed_by:
                self._require_accepting()  # it may have begun to leave while another one was asked
                text = await self.live.home.run(self._answer, one, call, decision)
                found = text if found is None else found
        return found

    async def _answer(self, one: Opaque, call: PendingCall, decision: Decision) -> str | None:
        """Ask one middleware; what it raises names it, but for a ValueError, which refuses the decision."""
        middleware_id = id_of(one)
        try:
            text: object = await one.answer(self.live.pipeline.context(one, self.live.home), call, decision)
            if text is not None and not isinstance(text, str):
                raise TypeError(f"answer returns a str or None, not {text!r}")
            return None if text is None else check_text(text, "the answer")
        except (ValueError, *EXPECTED):
            raise
        except Exception as exc:
            raise MiddlewareError(middleware_id, "answer") from exc

    async def _record(self, interrupt: Interrupt, verdicts: Sequence[Verdict], actor: Scope) -> Receipt:
        live = self.live
        by = live.runtime.access.actor_of(actor)
        records = [verdict.record(by) for verdict in verdicts]
        if len(records) < len(interrupt.calls):
            change = partial_change(live.ledger, interrupt, records, actor)
            assert isinstance(change.interrupt, Interrupt)
            await self._submit(change, (), self._wait_on)
            return Receipt(interrupt.interrupt_id, duplicate=False, answer=Answer(Interrupted(change.interrupt)))
        suspended, used = live.ledger.suspended, live.ledger.used
        change, events = whole_change(live.ledger, interrupt, records, actor)
        answer = Answer()
        accepted = Accepted(actor, "queue", contextvars.copy_context(), answer)

        def go_on() -> None:
            live.intake.accepted[interrupt.interrupt_id] = accepted
            live.go_on(interrupt, suspended, used)

        await self._submit(change, events, go_on)
        if live.has_ended:  # nobody waited for the store any more: the next start closes what was let go on
            answer.settle(Unanswered(live.shutdown_reason))
        return Receipt(interrupt.interrupt_id, duplicate=False, answer=answer)

    def _wait_on(self) -> None:
        """Some of the calls are decided."""
        self.live.touch()
        self.live._set_status(Status.INTERRUPTED, None, None)
        expire_later(self.live)

    def _let_go(self) -> None:
        """The halt is acknowledged."""
        self.live.touch()
        self.live.is_released = True
        self.live._set_status(Status.IDLE, None, None)

    async def _submit(self, change: Change, events: Sequence[Event], then: Then) -> None:
        live = self.live
        landing = live.landing = trio.Event()

        def landed(saved: Saved | None, error: PersistenceError | None) -> None:
            """Runs in the writer: the decisions are durable, or they are not."""
            live.landing = None
            landing.set()
            if saved is None:
                assert error is not None
                live.write_failed(error)
            elif not live.has_ended:
                for row in saved.new:
                    live.publish(DisplayMessageSaved(row))
                for row in saved.changed:
                    live.publish(DisplayMessageUpdated(row))
                for event in events:
                    live.publish(event)
                then()
            live.wake()

        await live.ledger.submit(change, landed).wait()

    def _answer_of(self, decision: Decision) -> Answer:
        """Return what a decision that is on record led to."""
        live = self.live
        interrupt = live.ledger.interrupt
        if interrupt is not None and interrupt.interrupt_id == decision.interrupt_id:
            return Answer(Interrupted(interrupt))
        accepted = live.intake.accepted.get(decision.interrupt_id)
        return accepted.answer if accepted is not None else self._past(decision)

    def _past(self, decision: Decision) -> Answer:
        """Return what became of the turn that a decision let go on, and whose receipt was settled, or has died with its agent."""
        live, ledger = self.live, self.live.ledger
        open_ids = {call_id for call_id, records in ledger.taken.items() if any(one.call_id == decision.call_id for one in records)}
        for message in reversed(ledger.messages):
            decided = {record["call_id"] for record in message.metadata.get("decisions", ())} if message.role == "tool" else set()
            if decision.call_id in decided or open_ids & {call.call_id for call in message.calls}:
                turn_id = message.turn_id
                if ledger.interrupt is not None and ledger.interrupt.turn_id == turn_id:
                    return Answer(Interrupted(ledger.interrupt))  # it waits again
                if live.turn is not None and live.turn.goes_on and live.turn.turn_id == turn_id:
                    return live.intake.accepted[live.turn.message_ids[0]].answer
                return Answer(outcome_of_turn(ledger.messages, turn_id))
        return Answer(Unanswered("cut"))
