"""Turns that end with a tool: which result that is, as text for people and as the value that the host gets."""

import functools
import json
import operator
import types
import typing
from collections.abc import Mapping, Sequence

from trio_sagents.agent._agent import Agent
from trio_sagents.agent._schema import shape_of
from trio_sagents.agent._shapes import Misfit
from trio_sagents.agent._tool_text import Halt
from trio_sagents.agent._tools import Tool, ToolResult
from trio_sagents.data.json import Opaque
from trio_sagents.data.messages import Message
from trio_sagents.data.messages import ToolResult as CallResult


def final_result(
    agent: Agent, tools: Mapping[str, Tool], messages: Sequence[Message], values: Mapping[str, Opaque]
) -> tuple[str, Opaque] | None:
    """Return (text, value) of the first call that ends the turn; None if no call does.

    A call that did not run to its end does not end the turn: a person rejected it, or a middleware did not let it run.

    Args:
        agent: says which tools end a turn.
        tools: the registered tools.
        messages: the history; it ends with the results of the last answer's calls.
        values: by call id, what the functions returned that ran just now. A call that ran before an interrupt has no value: its value
            is read from its text again, as the class that the tool is declared to return.
    """
    wanted = (*agent.until_tool, *agent.until_tool_success)
    if not wanted:
        return None
    results: dict[str, CallResult] = {}
    for message in reversed(messages):
        if message.role == "assistant":
            for call in message.calls:
                result = results.get(call.call_id)
                if call.name not in wanted or result is None or result.status == "cancelled":
                    continue
                if call.name in agent.until_tool or not result.is_error:
                    value = None if result.is_error else _value_of(values.get(call.call_id, _MISSING), tools.get(call.name), result.content)
                    return result.content, value
            return None
        results.update({result.call_id: result for result in message.results})
    return None


_MISSING = object()


def _value_of(value: Opaque, tool: Tool | None, text: str) -> Opaque:
    if isinstance(value, ToolResult):
        return value.content if value.value is None else value.value
    if value is not _MISSING:
        return value
    try:
        declared = _declared(tool)
        # None is shown to the model as an empty text.
        return text if declared is str else shape_of(declared, "the result").read(json.loads(text or "null"))
    except (ValueError, Misfit, TypeError):
        return text


def _declared(tool: Tool | None) -> Opaque:
    """Return the type that a tool is declared to return; `str` if a text does not say which value it stands for."""
    try:
        hint: Opaque = None if tool is None else typing.get_type_hints(tool.function).get("return")
    except (NameError, TypeError):
        return str
    is_union = typing.get_origin(hint) in {typing.Union, types.UnionType}
    # A call that halted does not end a turn.
    members = [member for member in (typing.get_args(hint) if is_union else (hint,)) if member is not Halt]
    if not members or any(member in {str, None, typing.Any, object} for member in members):
        return str
    return functools.reduce(operator.or_, members)
