"""Properties of a history: which calls are open, whether a turn was cut, and which answer ends a turn.

In a whole history every tool call is answered exactly once, and every turn ends with an assistant message without calls. A history
is cut when its process died, when a write failed, or when a turn was cancelled; `closing` says what closes it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from trio_sagents.data.messages import FINISH_REASONS, Message, ToolCall

GATED: Final = "gated"
"""In the metadata of a stored answer: the ids of its calls that wait for a person, and had not begun when it was stored."""


def with_gated(message: Message, waiting: Iterable[str]) -> Message:
    """Return an answer that says which of its calls wait for a person; what the model's answer said about that itself is dropped."""
    gated = list(waiting)
    if not gated and GATED not in message.metadata:
        return message
    others = {key: value for key, value in message.metadata.items() if key != GATED}
    return attrs.evolve(message, metadata={**others, GATED: gated} if gated else others)


def is_gated(message: Message, call_id: str) -> bool:
    """Return whether a stored answer says that this call had not begun."""
    gated = message.metadata.get(GATED)
    return isinstance(gated, list | tuple) and call_id in gated


def is_cut(messages: Sequence[Message]) -> bool:
    """Return whether the history ends inside a turn: with a user message, a tool result, an open tool call, or a model that is not done."""
    if not messages:
        return False
    last = messages[-1]
    return last.role in {"user", "tool"} or bool(last.calls) or last.stop_reason == "continued"


def open_calls(messages: Sequence[Message]) -> Sequence[ToolCall]:
    """Return the tool calls of the last turn that have no result yet, in the order the model asked for them."""
    answered: set[str] = set()
    for message in reversed(messages):
        if message.role == "tool":
            answered.update(result.call_id for result in message.results)
            continue
        if message.role == "assistant":
            return tuple(call for call in message.calls if call.call_id not in answered)
        break
    return ()


def finishes_turn(message: Message) -> bool:
    """Return whether this answer ends its turn: the provider finished the answer, and it asks for no tool."""
    return message.stop_reason in FINISH_REASONS and message.stop_reason != "continued" and not message.calls
