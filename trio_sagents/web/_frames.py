"""What both encoders write: server-sent events with JSON inside, and our values as plain JSON."""

from collections.abc import Iterable
from typing import Final

from trio_sagents import JSON, Cancelled, Failed, PendingCall, SagentsError, ShutdownReason, Todo, TurnOutcome, Unanswered, Usage
from trio_sagents.web._answers import CallName
from trio_sagents.web._json import dumps

PING: Final = b": ping\n\n"
"""A comment, which clients skip: a connection without any traffic is closed by proxies."""
_QUIET: Final = frozenset(
    {
        ShutdownReason.INACTIVITY,
        ShutdownReason.NO_VIEWERS,
        ShutdownReason.STOPPED,
        ShutdownReason.CLOSED,
        ShutdownReason.HOST_CANCELLED,
        ShutdownReason.DRAINED,
    }
)
"""Why an agent may end without anything having failed."""


def frames(objects: Iterable[JSON]) -> bytes:
    """Return JSON objects as server-sent events, one event each."""
    return "".join(f"data: {dumps(each)}\n\n" for each in objects).encode()


def todos_json(todos: Iterable[Todo]) -> list[JSON]:
    """Return a todo list as JSON."""
    return [{"id": todo.id, "content": todo.content, "status": todo.status} for todo in todos]


def usage_json(usage: Usage) -> JSON:
    """Return token counts as JSON, by the names that both protocols use."""
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        "cachedInputTokens": usage.cache_read_tokens,
        "cacheWriteInputTokens": usage.cache_write_tokens,
    }


def call_json(call: PendingCall, expires_at: str | None) -> JSON:
    """Return what people need to know about a call that waits. The text of its arguments is exact; JavaScript rounds large numbers."""
    shown: dict[str, object] = {
        "id": str(CallName.of(call)),
        "interruptId": call.interrupt_id,
        "callId": call.call_id,
        "name": call.name,
        "argumentText": dumps(call.arguments),
        "digest": call.digest,
        "kind": call.kind,
        "allowed": list(call.allowed),
        "text": call.text,
        "path": list(call.path),
        "expiresAt": expires_at,
    }
    if call.question is not None:
        question = call.question
        shown["question"] = {
            "text": question.text,
            "kind": question.kind,
            "options": [{"value": option.value, "label": option.label or option.value} for option in question.options],
            "allowOther": question.allow_other,
            "allowCancel": question.allow_cancel,
        }
    return shown


def error_text(outcome: TurnOutcome) -> str:
    """Return what anybody may read of an outcome that is not a success."""
    match outcome:
        case Failed(error=SagentsError() as error):
            return error.public_text
        case Failed():
            return "internal error"
        case Cancelled(cause=cause):
            return cause.value
        case Unanswered(reason=reason):
            return f"the agent ended before it answered ({getattr(reason, 'value', reason)}); the message is stored"
        case _:
            return ""


def is_quiet(outcome: TurnOutcome) -> bool:
    """Return whether a turn without an end ended because somebody wanted that, and not because something failed."""
    return isinstance(outcome, Cancelled) or (isinstance(outcome, Unanswered) and outcome.reason in _QUIET)
