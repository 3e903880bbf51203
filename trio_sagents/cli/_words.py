"""Pieces of text for a terminal, and the words for errors, calls and outcomes: pure functions on plain data."""

import json
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, assert_never

import attrs

from trio_sagents import Cancelled, Completed, Failed, Interrupted, MiddlewareError, StartFailed, TurnOutcome, Unanswered

Kind: TypeAlias = Literal["answer", "thinking", "user", "tool", "note", "error", "ask"]
MAX_SHOWN: Final = 200
"""How many characters of a tool's arguments or output a line shows."""


@attrs.frozen
class Piece:
    """A text, and what kind of text it is."""

    text: str
    kind: Kind


def error_text(error: BaseException) -> str:
    """Return an error as one line for people; for a failed start, with its causes."""
    if isinstance(error, StartFailed) and error.__cause__ is not None:
        cause, inner = error.__cause__, error.__cause__.__cause__
        because = f": {inner}" if inner is not None and str(inner) not in str(cause) else ""
        where = "; run the command again with --verbose to see the log" if "the debug log of" in because else ""
        return f"{cause}{because}{where} (while opening conversation {error.conversation_id!r})"
    if isinstance(error, MiddlewareError) and error.__cause__ is not None:
        return f"{error}: {error.__cause__}"
    return str(error) or type(error).__name__


def one_line(text: str, limit: int = MAX_SHOWN) -> str:
    """Return `text` on one line, cut to `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def call_text(name: str, arguments: Mapping[str, object]) -> str:
    """Return a call as people write calls."""
    inside = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    return f"{name}({one_line(inside)})"


def outcome_text(outcome: TurnOutcome) -> str:
    """Return what to say about a turn that did not end as completed; an empty text for a completed turn."""
    match outcome:
        case Completed():
            return ""
        case Cancelled(cause=cause):
            said = {"user": "[cancelled]", "superseded": "[replaced by a new message]", "dismissed": "[acknowledged]"}
            return said.get(cause, f"[cancelled: {cause}]")
        case Failed(error=error):
            return f"error: {error_text(error)}"
        case Interrupted(interrupt=interrupt):
            waiting = ", ".join(call_text(call.name, call.arguments) for call in interrupt.calls) or interrupt.kind
            return f"[waits for a person's decision: {waiting}; a new message continues without it]"
        case Unanswered(reason=reason):
            return f"[not answered yet: {reason}; the message is saved]"
        case _:
            assert_never(outcome)
