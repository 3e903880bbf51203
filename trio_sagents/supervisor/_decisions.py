"""What decisions change in the books: values, from values. Nothing here waits, and nothing is sent."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from trio_sagents.agent import as_run
from trio_sagents.data.decisions import Decision
from trio_sagents.data.events import Event, MessageCompleted, ToolExecutionUpdated
from trio_sagents.data.history import closing_messages, open_calls
from trio_sagents.data.interrupt_wire import encode_interrupt, encode_record
from trio_sagents.data.interrupts import DecisionRecord, Interrupt, PendingCall, interrupt_kind, record_of
from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.messages import Message, ToolCall, ToolResult, ToolStatus
from trio_sagents.data.records import Owner, ToolUpdate
from trio_sagents.data.rows import call_row, closing_rows, closing_updates, rows_of
from trio_sagents.data.scopes import Scope
from trio_sagents.data.status import CancelCause
from trio_sagents.exceptions import AlreadyDecided, InvalidDecision, LimitExceeded, NotInterrupted
from trio_sagents.supervisor._change import Change, Taken
from trio_sagents.supervisor._expiry import expiry_of_rest
from trio_sagents.supervisor._ledger import Ledger
from trio_sagents.supervisor._ledger_checks import size_of
from trio_sagents.supervisor._runtime import wall_clock

EXPIRED: Final = "This call was not run: nobody decided in time."
CUT_IN_THE_MIDDLE: Final = "This was cut while it waited for a person: what it did before stands, and it does not go on."
HALTED: Final = "(This call has run, and halted the conversation here.)"


@attrs.frozen
class Verdict:
    """One decision about one call that waits, with what the model reads of it."""

    call: PendingCall
    kind: str
    content: JSON
    text: str = ""

    def record(self, by: Owner) -> DecisionRecord:
        """Return it as it is kept."""
        return record_of(self.call, self.kind, self.content, self.text, by, wall_clock().isoformat())


def check_size(ledger: Ledger, interrupt: Interrupt, verdicts: Sequence[Verdict], most: int) -> None:
    """Raise LimitExceeded where decisions say more than a message may, or more than can be loaded again with the rest."""
    said = [encode_record(one.record(None)) for one in verdicts]
    size = sum(map(size_of, said))
    if size > most:
        raise LimitExceeded("max_message_bytes", size, most=most)
    kept = size_of(encode_interrupt(interrupt, ledger.suspended))
    kept += sum(size_of(encode_record(one)) for some in ledger.taken.values() for one in some)
    # Twice: what is decided becomes what the model reads, beside the record.
    size = ledger.size + kept + 2 * size
    if size > ledger.max_bytes:
        raise LimitExceeded("max_state_bytes", size, most=ledger.max_bytes)


def new_ones(ledger: Ledger, decisions: Sequence[Decision]) -> Sequence[tuple[PendingCall, Decision]]:
    """Return the decisions that are not on record yet, each with the call that it is about.

    Raises:
        AlreadyDecided: one is on record, otherwise.
        InvalidDecision: one fits no call that waits, or two are about one call.
        NotInterrupted: nothing waits, and it was never decided.
    """
    conversation_id = ledger.conversation_id
    ids = [one.call_id for one in decisions]
    if len(set(ids)) != len(ids):
        raise InvalidDecision(conversation_id, "two decisions are about one call")
    found: list[tuple[PendingCall, Decision]] = []
    for one in decisions:
        known = ledger.decision_in(one.interrupt_id, one.call_id)
        if known is None and ledger.waits_again(one.interrupt_id, one.call_id):
            found.append((_waiting(ledger, one), one))
            continue
        known = known or ledger.decisions.get(one.call_id)
        if known is None:
            found.append((_waiting(ledger, one), one))
        elif known.interrupt_id != one.interrupt_id or known.digest != one.digest:
            raise InvalidDecision(conversation_id, f"the call {one.call_id!r} was in another interrupt, or had other arguments")
        elif not one.same_as(known):
            raise AlreadyDecided(conversation_id, one.call_id, known.kind)
    return found


def _waiting(ledger: Ledger, decision: Decision) -> PendingCall:
    conversation_id, interrupt = ledger.conversation_id, ledger.interrupt
    if interrupt is None:
        raise NotInterrupted(conversation_id)
    if decision.interrupt_id != interrupt.interrupt_id:
        raise InvalidDecision(conversation_id, f"it waits in the interrupt {interrupt.interrupt_id!r}, not in {decision.interrupt_id!r}")
    call = next((one for one in interrupt.calls if one.call_id == decision.call_id), None)
    if call is None:
        raise InvalidDecision(conversation_id, f"no call {decision.call_id!r} waits")
    if interrupt.kind == "halt":
        raise InvalidDecision(conversation_id, "it was halted, which is acknowledged by dismiss")
    if decision.digest != call.digest:
        raise InvalidDecision(conversation_id, f"the digest is not that of the arguments of the call {call.call_id!r}")
    if decision.kind not in call.allowed:
        raise InvalidDecision(
            conversation_id, f"the call {call.call_id!r} takes {', '.join(call.allowed) or 'no decision'}, not {decision.kind}"
        )
    return call


def roots_of(suspended: Mapping[str, JSONValue]) -> Mapping[str, str]:
    """Return, for each call that waits inside a sub-agent, the call of the agent itself that it runs in."""
    return {call_id: root for root, record in suspended.items() for call_id in _waiting_in(record)}


def _waiting_in(record: JSON) -> Iterator[str]:
    for requests in record["waiting"].values():
        yield from (one["call_id"] for one in requests)


def partial_change(ledger: Ledger, interrupt: Interrupt, records: Sequence[DecisionRecord], actor: Scope) -> Change:
    """Some calls are decided, others wait on."""
    decided = {record.call_id for record in records}
    calls = [call for call in interrupt.calls if call.call_id not in decided]
    fewer = attrs.evolve(
        interrupt,
        calls=calls,
        decided=(*interrupt.decided, *records),
        kind=interrupt_kind(calls),
        expires_at=expiry_of_rest(interrupt, calls),
    )
    return Change(lifecycle="on_interrupt", actor=actor, interrupt=fewer, suspended=ledger.suspended, used=ledger.used, decided=records)


def whole_change(ledger: Ledger, interrupt: Interrupt, records: Sequence[DecisionRecord], actor: Scope) -> tuple[Change, Sequence[Event]]:
    """The last call is decided: what is not run has its result in the same commit, what is to run is on record as taken."""
    roots = roots_of(ledger.suspended)
    every = (*interrupt.decided, *records)
    taken: dict[str, list[DecisionRecord]] = {call_id: list(some) for call_id, some in ledger.taken.items()}
    for record in every:
        taken.setdefault(roots.get(record.call_id, record.call_id), []).append(record)
    calls = {call.call_id: call for call in open_calls(ledger.messages)}
    results = [
        (
            calls[one.call_id],
            ToolResult(one.call_id, calls[one.call_id].name, one.text, "completed" if one.kind == "answer" else "cancelled"),
        )
        for one in every
        if one.call_id in calls and one.kind not in {"approve", "edit"}
    ]
    # No interrupt, live or stored, is without the answer whose calls wait.
    asking = next(one for one in reversed(ledger.messages) if one.role == "assistant")
    change, events = _results_change(ledger, asking, interrupt.turn_id, results, taken)
    running = [as_run(calls[one.call_id], one) for one in every if one.call_id in calls and one.kind in {"approve", "edit"}]
    now = wall_clock()
    change = attrs.evolve(
        change,
        rows=(*change.rows, *(call_row(call, asking, "executing", now) for call in running)),
        tool_updates=(
            *change.tool_updates,
            *(ToolUpdate("executing", {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}) for call in running),
        ),
    )
    left = {call_id: some for call_id, some in taken.items() if call_id not in {call.call_id for call, _ in results}}
    return attrs.evolve(change, actor=actor, interrupt=None, standing=left, decided=records), events


def _results_change(
    ledger: Ledger, asking: Message, turn_id: str, results: Sequence[tuple[ToolCall, ToolResult]], taken: Taken
) -> tuple[Change, Sequence[Event]]:
    now = wall_clock()
    answers = [Message(ledger.new_id(), "tool", (result,), None, turn_id) for _, result in results]
    messages = ledger.with_decisions(answers, taken)
    rows = [row for message in messages for row in rows_of(message, now)]
    events: list[Event] = []
    updates: list[ToolUpdate] = []
    for (call, result), message in zip(results, messages, strict=True):
        rows.append(call_row(call, asking, result.status, now))
        said = (None, result.content) if result.is_error else (result.content, None)
        info = {"call_id": call.call_id, "name": call.name, "error" if result.is_error else "result": result.content}
        updates.append(ToolUpdate(result.status, info))
        events.append(ToolExecutionUpdated(attrs.evolve(call, status=result.status), result.status, turn_id, *said))
        events.append(MessageCompleted(message, turn_id))
    return Change(lifecycle="on_step", messages=messages, shown=messages, rows=rows, tool_updates=updates), events


def closing_change(ledger: Ledger, kind: str, cause: CancelCause, by: Owner, texts: Mapping[str, str]) -> tuple[Change, Sequence[Event]]:
    """The interrupt is closed without an answer: its calls are answered with that, and the turn is over.

    Args:
        ledger: has the interrupt.
        kind: of the records: "superseded" or "dismissed".
        cause: of the end of the turn.
        by: the owner key of whoever closed it.
        texts: by call id, what the model reads instead of the usual text.
    """
    interrupt = ledger.interrupt
    assert interrupt is not None
    records = [Verdict(call, kind, {}).record(by) for call in interrupt.calls]
    roots = roots_of(ledger.suspended)
    taken: dict[str, list[DecisionRecord]] = {call_id: list(some) for call_id, some in ledger.taken.items()}
    for record in (*interrupt.decided, *records):
        taken.setdefault(roots.get(record.call_id, record.call_id), []).append(record)
    calls: list[tuple[ToolCall, ToolStatus]] = [(call, "interrupted") for call in open_calls(ledger.messages)]
    closing = closing_messages(calls, None, turn_id=interrupt.turn_id, stop_reason="cancelled", cause=cause, message_ids=ledger.id_source())
    texts = {**_had_begun(interrupt, ledger.suspended, roots), **texts}
    closing = ledger.with_decisions([_with_text(message, texts) for message in closing], taken)
    change = Change(
        lifecycle="on_message",
        messages=closing,
        shown=closing,
        rows=closing_rows(ledger.messages_as_run(), closing, wall_clock()),
        tool_updates=closing_updates(closing),
        interrupt=None,
        standing={} if ledger.taken else None,
        decided=records,
    )
    return change, tuple(MessageCompleted(message, message.turn_id) for message in closing)


def _had_begun(interrupt: Interrupt, suspended: JSON, roots: Mapping[str, str]) -> Mapping[str, str]:
    """Return what the model reads of the calls that had done something before they waited, by call id."""
    texts = dict.fromkeys(suspended, CUT_IN_THE_MIDDLE)
    for call in interrupt.calls:
        if call.kind == "halt":
            texts[roots.get(call.call_id, call.call_id)] = f"{call.text}\n{HALTED}"
    return texts


def _with_text(message: Message, texts: Mapping[str, str]) -> Message:
    parts = [
        attrs.evolve(part, content=texts[part.call_id]) if isinstance(part, ToolResult) and part.call_id in texts else part
        for part in message.parts
    ]
    return attrs.evolve(message, parts=parts)
