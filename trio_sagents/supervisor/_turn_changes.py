"""What the steps of a turn change in the books, and what they tell: values, from values."""

from collections.abc import Collection, Sequence

import attrs

from trio_sagents.agent import Progress, as_run
from trio_sagents.agent._progress import OpenCall
from trio_sagents.data.events import Event, MessageCompleted, TokenUsage, ToolExecutionUpdated
from trio_sagents.data.history import closing_messages
from trio_sagents.data.messages import Message, StopReason, ToolCall, ToolResult, ToolStatus
from trio_sagents.data.outcomes import Cancelled, TurnOutcome, Usage
from trio_sagents.data.records import DisplayMessage, Lifecycle, ToolUpdate
from trio_sagents.data.rows import call_row, call_row_id, rows_of
from trio_sagents.data.scopes import Scope
from trio_sagents.supervisor._change import Change
from trio_sagents.supervisor._ledger import Ledger
from trio_sagents.supervisor._runtime import wall_clock

Result = tuple[ToolCall, Message, ToolResult]


@attrs.frozen
class TurnBooks:
    """Makes the changes of one turn."""

    ledger: Ledger
    turn_id: str
    actor: Scope = attrs.field(repr=False)

    def answer(self, message: Message, usage: Usage, waiting: Collection[str]) -> tuple[Change, Sequence[Event]]:
        """An answer that asks for tools; calls that wait for people do not execute yet."""
        updates = tuple(
            ToolUpdate("executing", {"call_id": call.call_id, "name": call.name, "arguments": call.arguments})
            for call in message.calls
            if call.call_id not in waiting
        )
        held = {call_row_id(call_id, self.turn_id) for call_id in waiting}
        rows = rows_of(message, wall_clock(), "executing")
        change = Change(
            lifecycle="on_step",
            actor=self.actor,
            messages=(message,),
            draft=None,
            shown=(message,),
            rows=tuple(attrs.evolve(row, status="pending") if row.row_id in held else row for row in rows),
            tool_updates=updates,
        )
        return change, (MessageCompleted(message, self.turn_id), *usage_event(message, usage, self.turn_id))

    def completion(self, message: Message, usage: Usage) -> tuple[Change, Sequence[Event]]:
        """The last answer."""
        change = Change(
            lifecycle="on_completion",
            actor=self.actor,
            messages=(message,),
            draft=None,
            shown=(message,),
            rows=rows_of(message, wall_clock()),
            standing={} if self.ledger.taken else None,
        )
        return change, (MessageCompleted(message, self.turn_id), *usage_event(message, usage, self.turn_id))

    def result_message(self, result: ToolResult) -> Message:
        """Return the message that answers a call, with what was decided about it."""
        return self.ledger.with_decisions((Message(self.ledger.new_id(), "tool", (result,), None, self.turn_id),))[0]

    def results(self, results: Sequence[Result], asking: Message | None, lifecycle: Lifecycle) -> tuple[Change, Sequence[Event]]:
        """The outcomes of calls; `asking` is the answer that asked for them, None where there are none."""
        now = wall_clock()
        messages = tuple(message for _, message, _ in results)
        rows: list[DisplayMessage] = []
        updates: list[ToolUpdate] = []
        events: list[Event] = []
        for asked, message, result in results:
            call = as_run(asked, self.ledger.decisions.get(asked.call_id))  # people see what ran
            assert asking is not None
            rows.append(call_row(call, asking, result.status, now))
            rows.extend(rows_of(message, now))
            said = "error" if result.is_error else "result"
            updates.append(ToolUpdate(result.status, {"call_id": call.call_id, "name": call.name, said: result.content}))
            output, error = (None, result.content) if result.is_error else (result.content, None)
            ended = attrs.evolve(call, status=result.status)
            events.append(ToolExecutionUpdated(ended, result.status, self.turn_id, output, error))
            events.append(MessageCompleted(message, self.turn_id))
        change = Change(
            lifecycle=lifecycle, actor=self.actor, messages=messages, shown=messages, rows=tuple(rows), tool_updates=tuple(updates)
        )
        return change, events

    def waiting(self, opened: Sequence[OpenCall], asking: Message | None) -> tuple[Change, Sequence[Event]]:
        """Calls that wait for people; the interrupt itself is the caller's to add."""
        now = wall_clock()
        calls = [attrs.evolve(_as_asked(one), status="interrupted") for one in opened]
        rows = () if asking is None else tuple(call_row(call, asking, "interrupted", now) for call in calls)
        updates = tuple(ToolUpdate("interrupted", {"call_id": call.call_id, "name": call.name}) for call in calls)
        open_ids = {call.call_id for call in calls}
        taken = {call_id: records for call_id, records in self.ledger.taken.items() if call_id in open_ids}
        change = Change(
            lifecycle="on_interrupt",
            actor=self.actor,
            rows=rows,
            tool_updates=updates,
            standing=taken if self.ledger.taken else None,
        )
        return change, tuple(ToolExecutionUpdated(call, "interrupted", self.turn_id) for call in calls)

    def closing(self, outcome: TurnOutcome, progress: Progress, asking: Message | None) -> tuple[Change, Sequence[Event]]:
        """The one commit that closes a cut turn: returned results, open calls, the text so far with its mark."""
        stop_reason: StopReason = "cancelled" if isinstance(outcome, Cancelled) else "stream_error"
        lifecycle: Lifecycle = "on_cancel" if isinstance(outcome, Cancelled) else "on_error"
        opened = progress.open_calls
        returned = [(one.call, self.result_message(one.result), one.result) for one in opened.values() if one.result]
        cut: list[tuple[ToolCall, ToolStatus]] = [(one.call, one.known) for one in opened.values() if one.result is None]
        draft = progress.draft
        closing = closing_messages(
            cut,
            None if draft is None else draft.message(stop_reason),
            turn_id=self.turn_id,
            stop_reason=stop_reason,
            cause=outcome.cause if isinstance(outcome, Cancelled) else None,
            message_ids=self.ledger.id_source(),
        )
        closing = self.ledger.with_decisions(closing)
        fitted = self.ledger.fitted((*(message for _, message, _ in returned), *closing))
        returned = [(call, message, message.results[0]) for (call, _, _), message in zip(returned, fitted, strict=False)]
        closing = fitted[len(returned) :]
        calls = {one.call.call_id: one.call for one in opened.values()}
        closed = [(calls[message.results[0].call_id], message, message.results[0]) for message in closing[:-1]]
        change, events = self.results((*returned, *closed), asking, lifecycle)
        answer = with_usage(closing[-1], progress.usage)
        change = attrs.evolve(
            change,
            messages=(*change.messages, answer),
            draft=None,
            shown=(*change.shown, answer),
            rows=(*change.rows, *rows_of(answer, wall_clock())),
            standing={} if self.ledger.taken else None,
        )
        return change, (*events, MessageCompleted(answer, self.turn_id))


def _as_asked(opened: OpenCall) -> ToolCall:
    """Return a call with the arguments that people are asked about: after an edit, others than those of the model."""
    asked = next((one for one in opened.requests if one.call_id == opened.call.call_id), None)
    return opened.call if asked is None else attrs.evolve(opened.call, arguments=asked.arguments)


def with_usage(message: Message, usage: Usage) -> Message:
    """Return the message, what it cost in its metadata."""
    if usage == Usage():
        return message
    return attrs.evolve(message, metadata={**message.metadata, "usage": attrs.asdict(usage)})


def usage_event(message: Message, usage: Usage, turn_id: str) -> Sequence[Event]:
    """Return the event that tells of it; none where it cost nothing."""
    return () if usage == Usage() else (TokenUsage(usage, message.message_id, turn_id),)


def usage_of(message: Message) -> Usage:
    """Return what a stored answer cost; nothing where it does not say, or nothing that can be read."""
    stored = message.metadata.get("usage")
    names = [field.name for field in attrs.fields(Usage)]
    if not isinstance(stored, dict) or set(stored) != set(names) or any(type(count) is not int or count < 0 for count in stored.values()):
        return Usage()
    return Usage(**stored)
