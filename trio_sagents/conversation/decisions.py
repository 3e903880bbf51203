"""What people decide about calls that wait.

`undecided` checks decisions against what waits and what is on record. `decide` gives the step that records them: while other
calls of the interrupt still wait, the decisions are kept in the interrupt; with the last decision the interrupt is closed, and
what is not to run has its result in the same commit. `close_waiting` closes an interrupt without a decision: a message came
instead, or a person acknowledged a halt.
"""

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import attrs

from trio_sagents.conversation.checkpoints import Past
from trio_sagents.conversation.closing import Closing, close_turn, closed_result
from trio_sagents.conversation.codec import encode_waiting
from trio_sagents.conversation.decided import as_run, as_shown, runs
from trio_sagents.conversation.expiry import expiry_of_rest
from trio_sagents.conversation.history import open_calls
from trio_sagents.conversation.limits import Limits, size_of
from trio_sagents.conversation.outcomes import totals_of
from trio_sagents.conversation.results import Answered, asking_in, result_message, results_step
from trio_sagents.conversation.rows import answer_row, call_row
from trio_sagents.conversation.state import ConversationState, Moment, OpenDecisions, Step, Waiting, with_decisions
from trio_sagents.data.decisions import Decision
from trio_sagents.data.interrupt_wire import DECISIONS, encode_record
from trio_sagents.data.interrupts import DecisionRecord, PendingCall, interrupt_kind, record_of
from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import Message, ToolCall, ToolResult, ToolStatus
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.records import DisplayMessage, Owner, ToolUpdate
from trio_sagents.data.scopes import Scope
from trio_sagents.data.status import CancelCause
from trio_sagents.exceptions import AlreadyDecided, InvalidDecision, LimitExceeded, NotInterrupted

REJECTED: Final = "This call was not run: a person rejected it"
EXPIRED: Final = "This call was not run: nobody decided in time."
CUT_IN_THE_MIDDLE: Final = (
    "This call was cut while it waited for a person: what it did before that is done, and the call does not continue."
)
HALTED: Final = "(This call has run, and halted the conversation here.)"
ACKNOWLEDGED: Final = "(A person has acknowledged this.)"
NO_PAST: Final[Mapping[str, Past]] = MappingProxyType({})
_KEY_BYTES: Final = 64
"""Room for the owner key of whoever decides."""
_SOME_INSTANT: Final = datetime.datetime.max.replace(tzinfo=datetime.UTC)
"""As long as any instant is, as text."""


@attrs.frozen
class Verdict:
    """One decision about one call that waits, with what the model reads of the decision."""

    call: PendingCall
    kind: str
    """As `DecisionRecord.kind`."""
    content: JSON
    text: str = ""

    def record(self, by: Owner, at: datetime.datetime) -> DecisionRecord:
        """Return the record of a verdict: who decided, and when."""
        return record_of(self.call, self.kind, self.content, self.text, by, at.isoformat())


def undecided(
    conversation_id: str, state: ConversationState, decisions: Sequence[Decision], past: Mapping[str, Past] = NO_PAST
) -> Sequence[tuple[PendingCall, Decision]]:
    """Return the decisions that are not on record yet, each with the call that it is about.

    Args:
        conversation_id: for errors.
        state: the last commit.
        decisions: what people decide.
        past: by call id, what the store has of calls that are not in the window (`unknown_calls`).

    Raises:
        AlreadyDecided: a decision is on record, otherwise.
        InvalidDecision: a decision fits no call that waits, or two decisions are about the same call.
        NotInterrupted: nothing waits, and the call was never decided.
    """
    ids = [decision.call_id for decision in decisions]
    if len(set(ids)) != len(ids):
        raise InvalidDecision(conversation_id, "two decisions for the same call")
    found: list[tuple[PendingCall, Decision]] = []
    for decision in decisions:
        known = state.decision_in(decision.interrupt_id, decision.call_id)
        if known is None and not _waits_in(state, decision):
            known = state.decisions.get(decision.call_id)
            if known is None and decision.call_id in past:
                known = _decision_in(past[decision.call_id], decision)
        if known is None:
            found.append((_waiting_call(conversation_id, state, decision), decision))
        elif known.interrupt_id != decision.interrupt_id or known.digest != decision.digest:
            raise InvalidDecision(conversation_id, f"the call {decision.call_id!r} was in another interrupt, or had other arguments")
        elif not decision.same_as(known):
            raise AlreadyDecided(conversation_id, decision.call_id, known.kind)
    return found


def unknown_calls(state: ConversationState, decisions: Sequence[Decision]) -> Sequence[str]:
    """Return the ids of the calls of which the store is to be asked: there are older messages, and nothing is known in memory."""
    if not state.older:
        return ()
    return [decision.call_id for decision in decisions if decision.call_id not in state.decisions and not _waits_in(state, decision)]


def _decision_in(past: Past, decision: Decision) -> DecisionRecord | None:
    """Return what was decided about a call that has left the window: in the interrupt that a decision names, or else at last."""
    then = ConversationState()
    then.note_decisions(past.decisions)
    return then.decision_in(decision.interrupt_id, decision.call_id) or then.decisions.get(decision.call_id)


def _waits_in(state: ConversationState, decision: Decision) -> bool:
    """Return whether people are asked about the call in the interrupt that a decision names, perhaps again."""
    if state.waiting is None or state.waiting.interrupt.interrupt_id != decision.interrupt_id:
        return False
    return any(call.call_id == decision.call_id for call in state.waiting.interrupt.calls)


def _waiting_call(conversation_id: str, state: ConversationState, decision: Decision) -> PendingCall:
    interrupt = state.interrupt
    if interrupt is None:
        raise NotInterrupted(conversation_id)
    if decision.interrupt_id != interrupt.interrupt_id:
        why = f"the conversation waits in the interrupt {interrupt.interrupt_id!r}, not in {decision.interrupt_id!r}"
        raise InvalidDecision(conversation_id, why)
    call = next((call for call in interrupt.calls if call.call_id == decision.call_id), None)
    if call is None:
        raise InvalidDecision(conversation_id, f"no call {decision.call_id!r} waits")
    if interrupt.kind == "halt":
        raise InvalidDecision(conversation_id, "the turn was halted; call `dismiss()` instead")
    if decision.digest != call.digest:
        raise InvalidDecision(conversation_id, f"the digest is not that of the arguments of the call {call.call_id!r}")
    if decision.kind not in call.allowed:
        allowed = ", ".join(call.allowed) or "no decision"
        raise InvalidDecision(conversation_id, f"the call {call.call_id!r} takes {allowed}, not {decision.kind}")
    return call


def check_decision_size(state: ConversationState, verdicts: Sequence[Verdict], max_message_bytes: int, limits: Limits) -> None:
    """Raise LimitExceeded if decisions say more than a message may, or more than can be loaded again with the rest.

    A plain rejection is never refused: its room was reserved when the interrupt was stored (`waiting_size`).
    """
    assert state.waiting is not None
    said = _decisions_size(verdicts)
    plain = _decisions_size([_plain_rejection(verdict.call) for verdict in verdicts])
    if said <= plain:
        return
    if said > max_message_bytes:
        raise LimitExceeded("max_message_bytes", said, most=max_message_bytes)
    decided = {verdict.call.call_id for verdict in verdicts}
    rest = [_plain_rejection(call) for call in state.waiting.interrupt.calls if call.call_id not in decided]
    limits.check(state.size + _kept_size(state, state.waiting) + 2 * (said + _decisions_size(rest)))


def waiting_size(state: ConversationState, waiting: Waiting) -> int:
    """Return the bytes that an interrupt takes, with the room that is reserved for rejecting all of its calls."""
    return _kept_size(state, waiting) + 2 * _decisions_size([_plain_rejection(call) for call in waiting.interrupt.calls])


def _kept_size(state: ConversationState, waiting: Waiting) -> int:
    decisions = sum(size_of(encode_record(record)) for records in state.open_decisions.values() for record in records)
    return size_of(encode_waiting(waiting)) + decisions


def _decisions_size(verdicts: Sequence[Verdict]) -> int:
    # `by` is a key of the host's, so its size is a guess. What is decided is kept twice: as the record, and as what the model reads.
    return sum(size_of(encode_record(verdict.record("x" * _KEY_BYTES, _SOME_INSTANT))) for verdict in verdicts)


def _plain_rejection(call: PendingCall) -> Verdict:
    return Verdict(call, "reject", {"reason": ""}, REJECTED + ".")


def decide(moment: Moment, records: Sequence[DecisionRecord], actor: Scope) -> Step:
    """Return the step that records decisions about some calls of the interrupt, or about all that still wait.

    Args:
        moment: the conversation; its interrupt has the calls.
        records: at least one, each about another call of the interrupt.
        actor: the scope of the person who decided.
    """
    waiting = moment.state.waiting
    assert waiting is not None
    if len(records) < len(waiting.interrupt.calls):
        return _decide_some(moment, waiting, records, actor)
    return _decide_last(moment, waiting, records, actor)


def _answer_rows(moment: Moment, waiting: Waiting, records: Sequence[DecisionRecord]) -> Sequence[DisplayMessage]:
    """Return the rows that show what people answered."""
    calls = {call.call_id: call for call in waiting.interrupt.calls}
    asking, turn_id = asking_in(moment.state.messages), waiting.interrupt.turn_id
    assert asking is not None  # no interrupt, live or stored, is without the answer whose calls wait
    shown = (answer_row(calls[record.call_id], record, asking.message_id, turn_id, moment.now) for record in records)
    return tuple(row for row in shown if row is not None)


def _decide_some(moment: Moment, waiting: Waiting, records: Sequence[DecisionRecord], actor: Scope) -> Step:
    """Some calls are decided, and others still wait."""
    interrupt = waiting.interrupt
    decided = {record.call_id for record in records}
    calls = [call for call in interrupt.calls if call.call_id not in decided]
    fewer = attrs.evolve(
        interrupt,
        calls=calls,
        decided=(*interrupt.decided, *records),
        kind=interrupt_kind(calls),
        expires_at=expiry_of_rest(interrupt, calls),
    )
    rows = _answer_rows(moment, waiting, records)
    new_rows = [row.row_id for row in rows]
    return Step(
        lifecycle="on_interrupt", actor=actor, rows=rows, new_rows=new_rows, waiting=attrs.evolve(waiting, interrupt=fewer), decided=records
    )


def _decide_last(moment: Moment, waiting: Waiting, records: Sequence[DecisionRecord], actor: Scope) -> Step:
    """The last call is decided: what is not run has its result in the same step, what is to run is on record as decided."""
    state, now = moment.state, moment.now
    every = (*waiting.interrupt.decided, *records)
    decided = _by_open_call(state, waiting, records)
    calls = {call.call_id: call for call in open_calls(state.messages)}
    turn_id, new_ids = waiting.interrupt.turn_id, moment.ids.source()
    refused = [record for record in every if record.call_id in calls and not runs(record)]
    results = [_result_of(calls[record.call_id], record) for record in refused]
    messages = with_decisions([result_message(result, turn_id, new_ids) for result in results], decided)
    shown = [as_shown(calls[record.call_id], record) for record in refused]
    answered = [Answered(call, message) for call, message in zip(shown, messages, strict=True)]
    asking = asking_in(state.messages)
    assert asking is not None  # no interrupt, live or stored, is without the answer whose calls wait
    step = results_step(answered, asking, "on_step", now)
    running = [as_run(calls[record.call_id], record) for record in every if record.call_id in calls and runs(record)]
    begun = [ToolUpdate("executing", {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}) for call in running]
    answers = _answer_rows(moment, waiting, records)
    return attrs.evolve(
        step,
        actor=actor,
        rows=(*answers, *step.rows, *(call_row(call, asking, "executing", now) for call in running)),
        new_rows=[row.row_id for row in answers],
        tool_updates=(*step.tool_updates, *begun),
        waiting=None,
        open_decisions={call_id: some for call_id, some in decided.items() if call_id not in {record.call_id for record in refused}},
        decided=records,
    )


def _result_of(call: ToolCall, record: DecisionRecord) -> ToolResult:
    return ToolResult(call.call_id, call.name, record.text, "completed" if record.kind == "answer" else "cancelled")


def _by_open_call(state: ConversationState, waiting: Waiting, records: Sequence[DecisionRecord]) -> OpenDecisions:
    """Return all decisions about open calls, by the call of the agent itself: those of a sub-agent by the call that it runs in."""
    roots = roots_of(waiting.suspended)
    found: dict[str, list[DecisionRecord]] = {call_id: list(some) for call_id, some in state.open_decisions.items()}
    for record in (*waiting.interrupt.decided, *records):
        found.setdefault(roots.get(record.call_id, record.call_id), []).append(record)
    return found


def roots_of(suspended: Mapping[str, JSONValue]) -> Mapping[str, str]:
    """Return, for each call that waits inside a sub-agent, the call of the agent itself that the sub-agent runs in."""
    return {call_id: root for root, record in suspended.items() for call_id in _waiting_in(record)}


def _waiting_in(record: JSON) -> Iterator[str]:
    for requests in record["waiting"].values():
        yield from (request["call_id"] for request in requests)


def acknowledged(waiting: Waiting) -> Mapping[str, str]:
    """Return what the model reads of halted calls that a person has acknowledged, by call id."""
    calls = waiting.interrupt.calls
    return {call.call_id: f"{call.text}\n{ACKNOWLEDGED}" for call in calls if call.kind == "halt"}


def was_dismissed(messages: Iterable[Message], interrupt_id: str) -> bool:
    """Return whether a person has acknowledged this halt before: its records are in these messages, with the results of its calls."""
    for message in messages:
        records = message.metadata.get(DECISIONS, ()) if message.role == "tool" else ()
        if any(record["interrupt_id"] == interrupt_id and record["kind"] == "dismissed" for record in records):
            return True
    return False


def close_waiting(
    moment: Moment,
    kind: str,
    cause: CancelCause,
    by: Owner,
    texts: Mapping[str, str] | None = None,
) -> Step:
    """Return the step that closes the interrupt without a decision: its calls are answered with that, and the turn is over.

    Args:
        moment: the conversation; it has an interrupt.
        kind: of the records: "superseded" or "dismissed".
        cause: of the end of the turn.
        by: the owner key of the person who closed the interrupt.
        texts: by call id, what the model reads instead of the usual text.
    """
    state, waiting = moment.state, moment.state.waiting
    assert waiting is not None
    interrupt = waiting.interrupt
    records = [Verdict(call, kind, {}).record(by, moment.now) for call in interrupt.calls]
    said = {**_had_begun(waiting), **(texts or {})}
    known: ToolStatus = "interrupted"
    closed = [(call, closed_result(call, known, said.get(call.call_id))) for call in open_calls(state.messages)]
    totals = totals_of(state.messages, interrupt.turn_id, waiting.used if waiting.used != Usage() else None)
    closing = Closing(interrupt.turn_id, "cancelled", "on_message", cause, totals=totals)
    step = close_turn(moment, closed, None, closing, decided=_by_open_call(state, waiting, records))
    return attrs.evolve(step, waiting=None, decided=records)


def _had_begun(waiting: Waiting) -> Mapping[str, str]:
    """Return what the model reads of the calls that had done something before they waited, by call id."""
    roots = roots_of(waiting.suspended)
    texts = dict.fromkeys(waiting.suspended, CUT_IN_THE_MIDDLE)
    for call in waiting.interrupt.calls:
        if call.kind == "halt":
            texts[roots.get(call.call_id, call.call_id)] = f"{call.text}\n{HALTED}"
    return texts
