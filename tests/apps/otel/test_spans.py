"""How a span is marked, and when the spans of an agent end."""

import pytest
import trio

from tests.apps.otel._kit import Spans, status, told
from trio_sagents import CancelCause, Cancelled, Completed, Failed, Interrupted, Unanswered
from trio_sagents.data.interrupts import Interrupt
from trio_sagents.data.messages import Message, TextPart
from trio_sagents.otel._spans import AgentSpans, mark_raised

DONE = Completed(Message("m-1", "assistant", (TextPart("x"),), "stop", "t-1"))


def make(spans: Spans) -> AgentSpans:
    tracer = spans.provider.get_tracer("test")
    return AgentSpans(tracer, tracer.start_span("session"))


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (DONE, ("UNSET", None, "completed", None)),
        (Interrupted(Interrupt("i-1", "t-1")), ("UNSET", None, "interrupted", None)),
        (Failed(ValueError("secret")), ("ERROR", "ValueError", "failed", None)),
        (Cancelled(CancelCause.STOPPED), ("ERROR", "cancelled", "cancelled", "stopped")),
        (Unanswered("closed"), ("ERROR", "cancelled", "cancelled", "closed")),
    ],
)
def test_turn_when_ended(spans: Spans, outcome: object, said: tuple[object, ...]) -> None:
    """Each outcome has its words."""
    agent = make(spans)
    agent.begin_turn("t-1", "turn", {}, nested=False)
    agent.end_turn("t-1", outcome)  # type: ignore[arg-type]
    span = spans.one("turn")

    assert said == (*status(span), told(span)["trio_sagents.turn.outcome"], told(span).get("trio_sagents.cancel.cause"))


def test_turn_when_another_ends(spans: Spans) -> None:
    """A turn that was cut before it began has no span, and ends nobody else's."""
    agent = make(spans)
    agent.begin_turn("t-1", "turn", {}, nested=False)
    agent.end_turn("t-2", DONE)

    assert [] == list(spans.ended)


def test_session_when_closed_before_its_turn(spans: Spans) -> None:
    """A session ends after the turn that is still being settled."""
    agent = make(spans)
    agent.begin_turn("t-1", "turn", {}, nested=False)
    agent.close()

    assert [] == list(spans.ended)
    agent.end_turn("t-1", DONE)
    assert ["turn", "session"] == [span.name for span in spans.ended]


async def test_call_when_it_raises_several(spans: Spans) -> None:
    """A group that contains a cancellation counts as one. Any other group has the name of its class."""
    tracer = spans.provider.get_tracer("test")
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as exc:
            mark_raised(span := tracer.start_span("cancelled"), BaseExceptionGroup("both", [exc, ValueError("secret")]))
            span.end()
            raise
    mark_raised(span := tracer.start_span("other"), ExceptionGroup("one", [ValueError("secret")]))
    span.end()

    assert [("ERROR", "cancelled"), ("ERROR", "ExceptionGroup")] == [status(span) for span in spans.ended]
