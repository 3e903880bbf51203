"""The spans of one agent: its session, its turn, and how each span ends. Nothing here waits.

The parent of a span is always given explicitly, never taken from the current context: a turn runs in the context of the call that
posted its first message, which belongs to another trace. The span of that call becomes a link.
"""

from collections.abc import Mapping, Sequence
from typing import Final, assert_never

import attrs
import trio
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from trio_sagents.agent._progress import Suspended
from trio_sagents.data.outcomes import Cancelled, Completed, Failed, Interrupted, TurnOutcome, Unanswered, Usage
from trio_sagents.otel import _attributes as names

Attributes = Mapping[str, AttributeValue]
NO_PARENT: Final = Context()
"""Explicitly no parent: otherwise the current span would be the parent."""


def below(span: Span | None) -> Context:
    """Return the context of a new span that has `span` as its parent."""
    return NO_PARENT if span is None else trace.set_span_in_context(span, NO_PARENT)


def ambient_links() -> Sequence[Link]:
    """Return a link to the span in which the code runs, if there is one."""
    ambient = trace.get_current_span().get_span_context()
    return [Link(ambient)] if ambient.is_valid else []


def usage_of(usage: Usage) -> Attributes:
    """Return counts of tokens as attributes; those of the cache only if they are not zero."""
    found: dict[str, AttributeValue] = {names.INPUT_TOKENS: usage.input_tokens, names.OUTPUT_TOKENS: usage.output_tokens}
    if usage.cache_read_tokens:
        found[names.CACHE_READ_TOKENS] = usage.cache_read_tokens
    if usage.cache_write_tokens:
        found[names.CACHE_WRITE_TOKENS] = usage.cache_write_tokens
    return found


def mark_failed(span: Span, error_type: str) -> None:
    """Record a failure by its kind; the text of an error may have contents or a secret."""
    span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR, error_type))


def mark_cancelled(span: Span, cause: str | None = None) -> None:
    """Record that a call or a turn was cancelled."""
    span.set_attributes({names.CANCELLED: True})
    if cause is not None:
        span.set_attribute(names.CAUSE, cause)
    mark_failed(span, "cancelled")


def mark_raised(span: Span, error: BaseException) -> None:
    """Record the exception that came instead of a result."""
    if isinstance(error, BaseExceptionGroup):
        cancelled, other = error.split(trio.Cancelled)
        mark_cancelled(span) if cancelled is not None else mark_failed(span, type(other).__name__)
    elif isinstance(error, trio.Cancelled):
        mark_cancelled(span)
    elif not isinstance(error, Suspended):  # the sub-agent of the call waits for a person: nothing has failed
        mark_failed(span, type(error).__name__)


def mark_outcome(span: Span, outcome: TurnOutcome) -> None:
    """Record how a turn ended."""
    match outcome:
        case Completed(usage=usage):
            span.set_attribute(names.OUTCOME, "completed")
            span.set_attributes(usage_of(usage))
        case Interrupted():
            span.set_attribute(names.OUTCOME, "interrupted")
        case Failed(error=error):
            span.set_attribute(names.OUTCOME, "failed")
            mark_failed(span, type(error).__name__)
        case Cancelled(cause=cause):
            span.set_attribute(names.OUTCOME, "cancelled")
            mark_cancelled(span, str(getattr(cause, "value", cause)))
        case Unanswered(reason=reason):
            span.set_attribute(names.OUTCOME, "cancelled")
            mark_cancelled(span, str(getattr(reason, "value", reason)))
        case _:
            assert_never(outcome)


@attrs.frozen(eq=False)
class TurnSpan:
    """The span of a turn, or of a part of a turn that was interrupted."""

    span: Span
    turn_id: str


@attrs.define(eq=False)
class AgentSpans:
    """The open spans of one agent."""

    tracer: Tracer
    session: Span | None
    """None for a sub-agent, which runs inside of a tool call."""
    turn: TurnSpan | None = None
    is_over: bool = False
    """Whether the tasks of the agent have been told to end; a turn that is being settled still has its span."""

    def begin_turn(self, turn_id: str, name: str, attributes: Attributes, *, nested: bool) -> TurnSpan:
        """Start the span of a turn, or of the part of a turn after an interrupt."""
        # The turn of a sub-agent runs inside of its tool call: there, and only there, the current span is the right parent.
        parent, links = (None, ()) if nested else (below(self.session), ambient_links())
        span = self.tracer.start_span(name, context=parent, kind=SpanKind.INTERNAL, attributes=attributes, links=links)
        self.turn = TurnSpan(span, turn_id)
        return self.turn

    def end_turn(self, turn_id: str | None, outcome: TurnOutcome) -> None:
        """End the span of a turn, if there is one: a turn may be cut before its span has begun."""
        if self.turn is not None and self.turn.turn_id == turn_id:
            mark_outcome(self.turn.span, outcome)
            self.turn.span.end()
            self.turn = None
            self._finish()

    def close(self) -> None:
        """End the span of the session, because the agent ends. A turn that is cut with the agent ends before the session."""
        self.is_over = True
        self._finish()

    def _finish(self) -> None:
        if self.is_over and self.turn is None and self.session is not None:
            self.session.end()
