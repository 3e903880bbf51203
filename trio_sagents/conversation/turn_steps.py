"""What a turn commits: the messages that it takes, its answers, the results of its calls, what it waits for, and its end.

Each function gives one step from the committed state and the input of the turn. `TurnRecord` names the turn.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from trio_sagents.conversation.closing import Closing, close_after_crash, close_turn, closed_result
from trio_sagents.conversation.decided import as_run
from trio_sagents.conversation.expansions import expanded, with_expansion
from trio_sagents.conversation.failures import encode_error
from trio_sagents.conversation.history import with_gated
from trio_sagents.conversation.outcomes import Totals, TurnStatus, turn_record, with_record, with_usage, without_record
from trio_sagents.conversation.results import Answered, result_message, results_step
from trio_sagents.conversation.rows import call_row, call_row_id, rows_of
from trio_sagents.conversation.state import NOTHING, Moment, Step, Waiting, with_decisions
from trio_sagents.data.events import Event, MessageCompleted, TokenUsage, ToolExecutionUpdated
from trio_sagents.data.interrupts import PendingCall
from trio_sagents.data.messages import Message, StopReason, ToolCall, ToolResult, ToolStatus
from trio_sagents.data.outcomes import Cancelled, Failed, TurnOutcome, Usage
from trio_sagents.data.reading import REFUSED, unread
from trio_sagents.data.records import Lifecycle, ToolUpdate
from trio_sagents.data.scopes import Scope
from trio_sagents.data.status import CancelCause
from trio_sagents.exceptions import ModelFailed

SHUTDOWNS: Final = frozenset(
    {CancelCause.STOPPED, CancelCause.CLOSED, CancelCause.DRAINED, CancelCause.HOST_FAILED, CancelCause.HOST_CANCELLED, CancelCause.FENCED}
)
"""The causes with which a turn is cut because its agent ends."""


@attrs.frozen
class TurnRecord:
    """Which turn it is, and who caused it."""

    turn_id: str
    actor: Scope = attrs.field(repr=False)


def take(moment: Moment, messages: Sequence[Message], turn: TurnRecord, *, is_first: bool) -> Step:
    """Return the step that moves messages from the queue into the history.

    The first step of a turn also closes the history if a failed write cut it.
    """
    closing = close_after_crash(moment, was_unsaved=True) if is_first else None
    step = Step(lifecycle="on_step") if closing is None else attrs.evolve(closing, lifecycle="on_step")
    taken = tuple(attrs.evolve(message, turn_id=turn.turn_id) for message in messages)
    return attrs.evolve(
        step,
        actor=turn.actor,
        messages=(*step.messages, *taken),
        taken=[message.message_id for message in messages],
        events=(*step.events, *(MessageCompleted(message, message.turn_id) for message in taken)),
    )


def answer(moment: Moment, message: Message, usage: Usage, waiting: Mapping[str, PendingCall], turn: TurnRecord) -> Step:
    """Return the step that keeps an answer which asks for tools.

    Args:
        moment: the conversation.
        message: the answer.
        usage: what it cost.
        waiting: by call id, the calls that wait for people: they are on record as not begun.
        turn: which turn.
    """
    message = with_gated(with_usage(without_record(message), usage), waiting)
    updates = tuple(
        ToolUpdate("executing", {"call_id": call.call_id, "name": call.name, "arguments": call.arguments})
        for call in message.calls
        if call.call_id not in waiting
    )
    held = {call_row_id(call_id, turn.turn_id) for call_id in waiting}
    rows = rows_of(message, moment.now, "executing")
    return Step(
        lifecycle="on_step",
        actor=turn.actor,
        messages=(message,),
        draft=None,
        shown=(message,),
        rows=tuple(attrs.evolve(row, status="pending") if row.row_id in held else row for row in rows),
        tool_updates=updates,
        events=(MessageCompleted(message, turn.turn_id), *usage_events(message, usage, turn.turn_id)),
    )


def last_answer(message: Message, usage: Usage, totals: Totals) -> Message:
    """Return the last answer of a turn that is completed, as it is kept: with what it cost, and with the record of the turn."""
    return with_record(with_usage(message, usage), turn_record("completed", totals))


def complete(moment: Moment, message: Message, usage: Usage, totals: Totals, turn: TurnRecord) -> Step:
    """Return the step that keeps the last answer of a turn.

    Args:
        moment: the conversation.
        message: the answer.
        usage: what it cost.
        totals: what the turn did, with this answer.
        turn: which turn.
    """
    message = last_answer(message, usage, totals)
    return Step(
        lifecycle="on_completion",
        actor=turn.actor,
        messages=(message,),
        draft=None,
        shown=(message,),
        rows=rows_of(message, moment.now),
        open_decisions={} if moment.state.open_decisions else None,
        events=(MessageCompleted(message, turn.turn_id), *usage_events(message, usage, turn.turn_id)),
    )


def result(
    moment: Moment,
    call: ToolCall,
    output: ToolResult,
    asking: Message | None,
    turn: TurnRecord,
    *,
    inner: Mapping[str, ToolStatus] = NOTHING,
    expands: Sequence[Message] = (),
) -> Step:
    """Return the step that keeps the result of one call.

    Args:
        moment: the conversation.
        call: the call, with the text that people read of it.
        output: its result.
        asking: the answer that asked for the call.
        turn: which turn.
        inner: by call id, how the calls of its sub-agent have ended.
        expands: the messages that the result brings into the turn.
    """
    state = moment.state
    (message,) = with_decisions((result_message(output, turn.turn_id, moment.ids.source()),), state.open_decisions, inner)
    message = with_expansion(message, expands)
    ran = attrs.evolve(as_run(call, state.decisions.get(call.call_id)), display_text=call.display_text)
    return attrs.evolve(results_step((Answered(ran, message),), asking, "on_step", moment.now), actor=turn.actor)


def expand(moment: Moment, turn: TurnRecord) -> Step | None:
    """Return the step that takes the messages into the history which the last results bring; None if they bring none."""
    new_ids = moment.ids.source()
    messages = expanded(moment.state.messages, lambda: next(new_ids), turn.turn_id)
    if not messages:
        return None
    return Step(
        lifecycle="on_step",
        actor=turn.actor,
        messages=messages,
        shown=messages,
        rows=tuple(row for message in messages for row in rows_of(message, moment.now)),
        events=tuple(MessageCompleted(message, turn.turn_id) for message in messages),
    )


def wait(moment: Moment, waiting: Waiting, calls: Iterable[ToolCall], asking: Message | None, turn: TurnRecord) -> Step:
    """Return the step that keeps what a turn waits for; `calls` are the open calls that wait."""
    state = moment.state
    waits = [attrs.evolve(call, status="interrupted") for call in calls]
    open_ids = {call.call_id for call in waits}
    decisions = {call_id: records for call_id, records in state.open_decisions.items() if call_id in open_ids}
    return Step(
        lifecycle="on_interrupt",
        actor=turn.actor,
        draft=None,
        waiting=waiting,
        open_decisions=decisions if state.open_decisions else None,
        rows=() if asking is None else tuple(call_row(call, asking, "interrupted", moment.now) for call in waits),
        tool_updates=tuple(ToolUpdate("interrupted", {"call_id": call.call_id, "name": call.name}) for call in waits),
        events=tuple(ToolExecutionUpdated(call, "interrupted", turn.turn_id) for call in waits),
    )


@attrs.frozen
class CutTurn:
    """How far a turn had come when it was cut."""

    returned: Sequence[tuple[ToolCall, ToolResult]]
    """The calls that had returned, and whose results are not stored."""
    open: Sequence[tuple[ToolCall, ToolStatus]]
    """The calls that had not returned, each with what is known of it."""
    asking: Message | None
    """The answer that asked for the calls; its commit may be on its way."""
    partial: Message | None
    """The answer so far."""
    totals: Totals
    """What the turn did so far."""
    inner: Mapping[str, ToolStatus] = NOTHING
    """By call id, how calls of sub-agents have ended."""


def cut(moment: Moment, outcome: TurnOutcome, cut_turn: CutTurn, turn: TurnRecord) -> Step:
    """Return the one step that closes a turn which was cancelled or has failed."""
    is_cancelled = isinstance(outcome, Cancelled)
    stop_reason: StopReason = "cancelled" if is_cancelled else "stream_error"
    lifecycle: Lifecycle = "on_cancel" if is_cancelled else "on_error"
    cause = outcome.cause if isinstance(outcome, Cancelled) else None
    if cause in SHUTDOWNS:
        lifecycle = "on_shutdown"
    unsent = unread(moment.state.messages) if is_refusal(outcome) else ()
    error = encode_error(outcome.error) if isinstance(outcome, Failed) else None
    status: TurnStatus = "cancelled" if is_cancelled else "failed"
    totals = cut_turn.totals
    closing = Closing(
        turn.turn_id, stop_reason, lifecycle, cause, unsent=unsent, error=error, status=status, totals=totals, inner=cut_turn.inner
    )
    closed = [(call, closed_result(call, known)) for call, known in cut_turn.open]
    calls = (*cut_turn.returned, *closed)
    step = close_turn(moment, calls, cut_turn.partial, closing, asking=cut_turn.asking, usage=totals.usage)
    return attrs.evolve(step, actor=turn.actor)


def is_refusal(outcome: TurnOutcome) -> bool:
    """Return whether a turn failed because the provider refused the content of its request, and would refuse it again."""
    return isinstance(outcome, Failed) and isinstance(outcome.error, ModelFailed) and outcome.error.kind in REFUSED


def usage_events(message: Message, usage: Usage, turn_id: str) -> Sequence[Event]:
    """Return the event that tells what an answer cost; none if it cost nothing."""
    return () if usage == Usage() else (TokenUsage(usage, message.message_id, turn_id),)
