"""The tools of one answer: run in parallel, each answered exactly once, whatever they do.

This is the first of the two places that contain exceptions: what a tool raises becomes a result that the model can read.
`Cancelled`, `KeyboardInterrupt` and `SystemExit` always pass.
"""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, get_args

import trio

from trio_sagents._trio.groups import split
from trio_sagents.agent._agent import Agent
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._progress import OpenCall
from trio_sagents.agent._tools import ArgumentsInvalid, Tool, ToolContext, render_output
from trio_sagents.agent._tools import ToolResult as ToolReturn
from trio_sagents.data.errors import describe
from trio_sagents.data.events import Event, ToolExecutionUpdated
from trio_sagents.data.messages import ToolCall, ToolResult, ToolStatus

ERROR_BYTES: Final = 4096
"""What the model reads of an error, at most."""
log: Final = logging.getLogger("trio_sagents")


async def run_tools(agent: Agent, calls: Sequence[ToolCall], invalid: Mapping[str, str], context: TurnContext) -> None:
    """Run the calls of one answer, at most `limits.max_parallel` at once, and commit each result when it is there.

    Args:
        agent: has the tools.
        calls: of one answer; each is open in `context.progress`.
        invalid: by call id, why its arguments cannot be used.
        context: the turn's.

    Cancellation: tools in tasks are cancelled with it and joined; tools in threads go on, unheeded. What had returned stays in
    `context.progress.open_calls`.
    """
    tools = {tool.name: tool for tool in agent.tools}
    limiter = trio.CapacityLimiter(agent.limits.max_parallel) if len(calls) > agent.limits.max_parallel else None
    async with trio.open_nursery() as nursery:
        for call in calls:
            opened = context.progress.open_calls[call.call_id]
            nursery.start_soon(_answer, agent, tools.get(call.name), opened, invalid.get(call.call_id), context, limiter)


async def _answer(
    agent: Agent, tool: Tool | None, opened: OpenCall, invalid: str | None, context: TurnContext, limiter: trio.CapacityLimiter | None
) -> None:
    call = opened.call
    if tool is None:
        names = ", ".join(sorted(one.name for one in agent.tools)) or "none"
        opened.result = _result(call, f"There is no tool {call.name!r}; there are: {names}.", "failed")
    elif invalid is not None:
        opened.result = _result(call, invalid, "failed")
    elif limiter is None:
        await _run(agent, tool, opened, context)
    else:
        async with limiter:
            await _run(agent, tool, opened, context)
    if opened.result is not None:
        await context.commit_result(call, opened.result)


async def _run(agent: Agent, tool: Tool, opened: OpenCall, context: TurnContext) -> None:
    call = opened.call
    key = f"{context.conversation_id}/{context.turn_id}/{call.call_id}"
    tool_context = ToolContext(context.conversation_id, context.scope, call.call_id, key, context.state(), _publisher(tool, context))
    try:
        arguments = tool.bind(call.arguments, tool_context)
    except ArgumentsInvalid as exc:
        opened.result = _result(call, str(exc), "failed")
        return
    # No checkpoint from here to the call: what is shown as executing has begun.
    opened.status = "executing"
    opened.in_thread = not tool.is_async
    context.publish(ToolExecutionUpdated(call, "executing", context.turn_id))
    try:
        with trio.move_on_after(agent.limits.tool_timeout) as timeout:
            value = await _call(tool, arguments, context.threads)
            opened.result = _rendered(call, value, context)
        if timeout.cancelled_caught:
            opened.result = _timed_out(call, agent.limits.tool_timeout, in_thread=opened.in_thread)
    except BaseException as error:  # noqa: ASYNC103  # the tool boundary: what is not contained is raised
        contained, onward = split(error)
        if onward is not None:
            if contained is not None:
                log.warning(
                    "tool %r of conversation %r raised while it was cancelled", tool.name, context.conversation_id, exc_info=contained
                )
            raise onward from None  # noqa: ASYNC104  # the Cancelled in it, without what came beside
        if not isinstance(contained, Exception):
            raise
        text, _ = render_output(describe(contained), min(ERROR_BYTES, context.max_tool_output_bytes))
        opened.result = _result(call, text, "failed")


def _publisher(tool: Tool, context: TurnContext) -> Callable[[Event], None]:
    """Return what the tool may call to publish: from a thread it goes through Trio, for events have one order."""

    def publish(event: Event) -> None:
        if not isinstance(event, get_args(Event)):
            raise TypeError(f"a tool publishes events of trio_sagents, not {type(event).__name__}")
        if tool.is_async:
            context.publish(event)
        else:
            trio.from_thread.run_sync(context.publish, event)

    return publish


async def _call(tool: Tool, arguments: Mapping[str, object], threads: trio.CapacityLimiter) -> object:
    if tool.is_async:
        return await tool.function(**arguments)
    # Cancellation: the thread is abandoned, for nobody can stop it; its result is dropped, and the call marked unknown.
    function = functools.partial(tool.function, **arguments)
    return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=threads)


def _rendered(call: ToolCall, value: object, context: TurnContext) -> ToolResult:
    is_error = isinstance(value, ToolReturn) and value.is_error
    text, _ = render_output(value.content if isinstance(value, ToolReturn) else value, context.max_tool_output_bytes)
    return _result(call, text, "failed" if is_error else "completed")


def _timed_out(call: ToolCall, seconds: float, *, in_thread: bool) -> ToolResult:
    if in_thread:
        return _result(call, f"No result after {seconds:g} seconds. It goes on, unheeded: its outcome is unknown.", "unknown")
    return _result(call, f"Cancelled after {seconds:g} seconds without a result.", "failed")


def _result(call: ToolCall, text: str, status: ToolStatus) -> ToolResult:
    return ToolResult(call.call_id, call.name, text, status)
