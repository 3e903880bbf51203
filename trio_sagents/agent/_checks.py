"""Checks of a call by its tool, before the call runs: the schema of the tool may refuse the arguments, and so may its `check`.

Both are asked before a person is asked about a call, because nobody should decide about a call that cannot run, and once more
right before the call runs, because the world may have changed while the call waited.
"""

import functools
import inspect
import logging
from collections.abc import Mapping
from typing import Final

import trio

from trio_sagents._trio.groups import split
from trio_sagents.agent._agent import check_event
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._tools import ArgumentsInvalid, Tool, ToolContext, ToolHost, render_output
from trio_sagents.data.errors import describe
from trio_sagents.data.events import Event
from trio_sagents.data.json import Opaque
from trio_sagents.data.messages import ToolCall

ERROR_BYTES: Final = 4096
"""Bytes that the model reads of an error, at most."""
log: Final = logging.getLogger("trio_sagents")


def context_of(call: ToolCall, context: TurnContext, host: ToolHost | None, *, in_thread: bool, agent_name: str = "") -> ToolContext:
    """Return what a function of a tool is given as its context.

    Args:
        call: the call.
        context: the turn's.
        host: what the function may ask of the turn; None for a check, which may only look.
        in_thread: whether the function runs in a thread.
        agent_name: the name of the agent that makes the call.
    """

    def publish(event: Event) -> None:
        check_event(event)
        if in_thread:  # events have one order, so the event goes through Trio
            trio.from_thread.run_sync(context.publish, event)
        else:
            context.publish(event)

    key = f"{context.conversation_id}/{context.turn_id}/{call.call_id}"
    return ToolContext(
        context.conversation_id,
        context.scope,
        call.call_id,
        key,
        context.state(),
        publish,
        context.agent_id,
        agent_name,
        context.options,
        context.values,
        host,
    )


def misfit_of(tool: Tool, call: ToolCall) -> str | None:
    """Return why the arguments of a call do not fit the schema of a tool, for the model to read; None if they fit."""
    try:
        tool.check_arguments(call.arguments)
    except ArgumentsInvalid as exc:
        return str(exc)
    return None


async def refusal_of(tool: Tool, call: ToolCall, context: TurnContext, seconds: float, agent_name: str = "") -> str | None:
    """Return why a tool refuses a call, for the model to read; None if the tool accepts the call.

    Args:
        tool: the tool.
        call: with the arguments that the call is to run with.
        context: the turn's.
        seconds: how long the check of the tool may take.
        agent_name: the name of the agent that makes the call.

    Cancellation: the check is cancelled if it is async; a thread is abandoned.
    """
    check = tool.check
    in_thread = check is not None and not _is_async(check)
    tool_context = context_of(call, context, None, in_thread=in_thread, agent_name=agent_name)
    try:
        bound = tool.bind(call.arguments, tool_context)
    except ArgumentsInvalid as exc:
        return str(exc)
    if check is None:
        return None
    arguments = {name: value for name, value in bound.items() if value is not tool_context}
    try:
        with trio.move_on_after(seconds):
            await _run(functools.partial(check, tool_context), arguments, context.threads, in_thread=in_thread)
            return None
    except BaseException as error:  # noqa: ASYNC103, BLE001  # the tool boundary: what is not contained is raised
        return _refusal(error, tool, context)  # noqa: ASYNC104  # it raises what must go on
    return f"The call was not run: its check gave no result within {seconds:g} seconds."


async def _run(check: Opaque, arguments: Mapping[str, object], threads: trio.CapacityLimiter, *, in_thread: bool) -> None:
    if in_thread:
        await trio.to_thread.run_sync(functools.partial(check, **arguments), abandon_on_cancel=True, limiter=threads)
    else:
        outcome = check(**arguments)
        assert inspect.isawaitable(outcome)
        await outcome


def _is_async(check: object) -> bool:
    return inspect.iscoroutinefunction(check) or inspect.iscoroutinefunction(getattr(check, "__call__", None))  # noqa: B004  # not whether


def _refusal(error: BaseException, tool: Tool, context: TurnContext) -> str:
    """Return what the model reads of what a check raised; raise what must not be contained."""
    contained, onward = split(error)
    if onward is not None:
        raise onward from None
    if not isinstance(contained, Exception):
        raise error
    if isinstance(contained, ValueError):
        text = describe(contained).partition(": ")[2] or "The call was refused."
    else:
        log.warning("the check of tool %r failed in conversation %r", tool.name, context.conversation_id, exc_info=contained)
        text = describe(contained)
    cut, _ = render_output(text, min(ERROR_BYTES, context.max_tool_output_bytes))
    return cut
