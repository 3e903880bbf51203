"""The results of calls: the messages that answer them, and the rows, updates and events that tell of them.

There is one builder, for every way on which a call is answered: it returned, it was rejected, its turn was cut, its process
crashed, a message came instead. So no way can forget to tell somebody.
"""

import datetime
from collections.abc import Iterable, Iterator, Sequence

import attrs

from trio_sagents.conversation.rows import call_row, rows_of
from trio_sagents.conversation.state import Step
from trio_sagents.data.events import Event, MessageCompleted, ToolExecutionUpdated
from trio_sagents.data.messages import Message, ToolCall, ToolResult
from trio_sagents.data.records import DisplayMessage, Lifecycle, ToolUpdate


@attrs.frozen
class Answered:
    """A call, and the tool message that answers it."""

    call: ToolCall
    """As it ran: after an edit with the edited arguments, for people see what ran."""
    message: Message

    @property
    def result(self) -> ToolResult:
        """The result in the message."""
        return self.message.results[0]


def result_message(result: ToolResult, turn_id: str | None, new_ids: Iterator[str]) -> Message:
    """Return the message that answers a call."""
    return Message(next(new_ids), "tool", (result,), None, turn_id)


def asking_in(history: Sequence[Message]) -> Message | None:
    """Return the last answer of the history: the one whose calls may be open."""
    return next((message for message in reversed(history) if message.role == "assistant"), None)


def results_step(answered: Iterable[Answered], asking: Message | None, lifecycle: Lifecycle, now: datetime.datetime) -> Step:
    """Return the step that keeps the results of calls.

    Args:
        answered: the calls with their results, in the order of the history.
        asking: the answer that asked for the calls; None if there are no calls.
        lifecycle: what the step is called to a store.
        now: the instant of the rows.
    """
    messages: list[Message] = []
    rows: list[DisplayMessage] = []
    updates: list[ToolUpdate] = []
    events: list[Event] = []
    for item in answered:
        result, turn_id = item.result, item.message.turn_id
        assert asking is not None
        messages.append(item.message)
        rows.append(call_row(item.call, asking, result.status, now))
        rows.extend(rows_of(item.message, now))
        said = "error" if result.is_error else "result"
        updates.append(ToolUpdate(result.status, {"call_id": item.call.call_id, "name": item.call.name, said: result.content}))
        output, error = (None, result.content) if result.is_error else (result.content, None)
        ended = attrs.evolve(item.call, status=result.status)
        events.append(ToolExecutionUpdated(ended, result.status, turn_id or "", output, error))
        events.append(MessageCompleted(item.message, turn_id))
    return Step(lifecycle=lifecycle, messages=messages, shown=messages, rows=rows, tool_updates=updates, events=events)


def with_message(step: Step, message: Message, now: datetime.datetime) -> Step:
    """Return the step with one more message behind the others, told of like them."""
    return attrs.evolve(
        step,
        messages=(*step.messages, message),
        shown=(*step.shown, message),
        rows=(*step.rows, *rows_of(message, now)),
        events=(*step.events, MessageCompleted(message, message.turn_id)),
    )
