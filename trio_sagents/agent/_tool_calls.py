"""The tools of one answer: run in parallel, each answered exactly once, whatever they do.

This is the first of the two places that contain exceptions: what a tool raises becomes a result that the model can read.
`Cancelled`, `KeyboardInterrupt` and `SystemExit` always pass. It is also the only place from which a tool's function is called.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Final

import attrs
import trio

from trio_sagents._trio.failures import log_failure
from trio_sagents._trio.groups import leaves, split
from trio_sagents.agent._agent import check_event
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._gate import ask_inner_gates, claim, is_claimed_tool
from trio_sagents.agent._json_forms import is_awaitable
from trio_sagents.agent._middleware import Pipeline
from trio_sagents.agent._nested import CallHost, RunTurn
from trio_sagents.agent._progress import OpenCall, Suspended
from trio_sagents.agent._tool_chain import run_around
from trio_sagents.agent._tool_text import Halt, read_return
from trio_sagents.agent._tools import ArgumentsInvalid, Tool, ToolContext, render_output
from trio_sagents.conversation.decided import decided_call, runs
from trio_sagents.data.errors import describe
from trio_sagents.data.events import Event, ToolExecutionUpdated
from trio_sagents.data.interrupts import pending
from trio_sagents.data.json import Opaque
from trio_sagents.data.messages import ToolCall, ToolResult, ToolStatus
from trio_sagents.exceptions import MiddlewareError

ERROR_BYTES: Final = 4096
"""What the model reads of an error, at most."""
log: Final = logging.getLogger("trio_sagents")


@attrs.define(eq=False)
class ToolRun:
    """The calls of one answer, at work."""

    pipeline: Pipeline
    context: TurnContext
    run_turn: RunTurn
    """Runs the turn of a sub-agent."""
    values: dict[str, Opaque] = attrs.field(factory=dict)
    """By call id: what the functions returned."""

    async def answer(self, opened: OpenCall, invalid: str | None, limiter: trio.CapacityLimiter | None) -> None:
        """Answer one call, or find out what it waits for."""
        call = opened.call
        tool = self.pipeline.tools.get(call.name)
        if tool is None:
            names = ", ".join(sorted(self.pipeline.tools)) or "none"
            opened.result = _result(call, f"There is no tool {call.name!r}; there are: {names}.", "failed")
        elif invalid is not None:
            opened.result = _result(call, invalid, "failed")
        else:
            allowed = await self._pass_gate(opened, tool)
            opened.shown = allowed
            if allowed is not None and limiter is None:
                await self._run(allowed, tool, opened)
            elif allowed is not None and limiter is not None:
                async with limiter:
                    await self._run(allowed, tool, opened)
        if opened.result is not None:
            await self.context.commit_result(call, opened.result)

    async def _pass_gate(self, opened: OpenCall, tool: Tool) -> ToolCall | None:
        """Return the call as it may run now; None where it has a result already, or waits."""
        call = opened.call
        decision = self.context.decision_of(call.call_id)
        if decision is None:
            if opened.requests:
                return None
            if opened.has_passed or opened.record is not None:
                return call  # it may run, or it runs already: its sub-agent waited
            wanted = await claim(self.pipeline, self.context, self.context.turn_id, call, tool)
            if wanted is None:
                return call
            opened.requests = (wanted,)
            opened.status = "interrupted"
            return None
        said: str | None = None
        if opened.claim is not None:
            try:
                said = await ask_inner_gates(self.pipeline, self.context, self.context.turn_id, opened.claim, decision)
            except ValueError as exc:
                text, _ = render_output(f"This call was not run: what was decided will not do: {exc}", ERROR_BYTES)
                opened.result = _result(call, text, "failed")
                return None
        if not runs(decision):
            opened.result = _result(
                call, decision.text if said is None else said, "completed" if decision.kind == "answer" else "cancelled"
            )
            return None
        if not is_claimed_tool(self.pipeline, call, tool):
            opened.result = _result(call, f"This call was not run: {call.name!r} is another tool now than when it was decided.", "failed")
            return None
        allowed = decided_call(call, decision)
        if allowed is None:
            opened.result = _result(call, "This call was not run: what was decided is about other arguments.", "failed")
        return allowed

    async def _run(self, call: ToolCall, tool: Tool, opened: OpenCall) -> None:
        try:
            opened.result = await run_around(self.pipeline, self.context, call, functools.partial(self._invoke, tool, opened))
        except Suspended as suspended:
            opened.requests, opened.record, opened.status = suspended.requests, suspended.record, "interrupted"
        if opened.requests:
            opened.result = None
        elif opened.result is not None and opened.result.status == "interrupted":
            raise MiddlewareError("around_tool", "around_tool") from ValueError("a result is final; only a tool that halts interrupts")

    async def _invoke(self, tool: Tool, opened: OpenCall, call: ToolCall) -> ToolResult:
        """Call the tool's function: the only place that does."""
        context = self.context
        key = f"{context.conversation_id}/{context.turn_id}/{call.call_id}"
        host = CallHost(self.pipeline, context, opened, self.run_turn)
        tool_context = ToolContext(
            context.conversation_id, context.scope, call.call_id, key, context.state(), _publisher(tool, context), host
        )
        try:
            arguments = tool.bind(call.arguments, tool_context)
        except ArgumentsInvalid as exc:
            return _result(call, str(exc), "failed")
        if not context.may_act():
            await trio.lowlevel.checkpoint()  # it is cancelled, unless a middleware shields it
            return _result(call, "This call was not run: another process may have the conversation by now.", "cancelled")
        # No checkpoint from here to the call: what is shown as executing has begun.
        opened.status = "executing"
        opened.in_thread = not tool.is_async
        context.publish(ToolExecutionUpdated(call, "executing", context.turn_id))
        limits = self.pipeline.agent.limits
        try:
            with self.pipeline.labelled(f"tool {tool.name!r}"), trio.move_on_after(limits.tool_timeout) as timeout:
                value = await _call(tool, arguments, context.threads)
                if is_awaitable(value):
                    opened.in_thread = False
                    value = await value  # such as the coroutine of an async function behind a decorator or a lambda
                return self._returned(opened, call, value)
            assert timeout.cancelled_caught
            return _timed_out(call, limits.tool_timeout, in_thread=opened.in_thread)
        except BaseException as error:  # noqa: ASYNC103, BLE001  # the tool boundary: what is not contained is raised
            return _contained(error, tool, call, context)  # noqa: ASYNC104  # it raises what must go on

    def _returned(self, opened: OpenCall, call: ToolCall, value: Opaque) -> ToolResult:
        self.values[call.call_id] = value
        if issubclass(type(value), Halt):  # `isinstance` raises for a proxy of an object that is gone
            said, _ = render_output(value.message, min(ERROR_BYTES, self.context.max_tool_output_bytes))
            opened.requests = (pending(call, kind="halt", text=said, allowed=(), path=tuple(self.pipeline.path)),)
            opened.status = "interrupted"
            return _result(call, said, "interrupted")
        read = read_return(value, self.context.max_tool_output_bytes)
        if read.problem:
            log.warning("the tool %r, in conversation %r: %s", call.name, self.context.conversation_id, read.problem)
        return ToolResult(call.call_id, call.name, read.text, "failed" if read.is_error else "completed", read.media)


async def run_open_calls(pipeline: Pipeline, invalid: Mapping[str, str], context: TurnContext, run_turn: RunTurn) -> Mapping[str, Opaque]:
    """Run the open calls, at most `limits.max_parallel` at once, and commit each result when it is there.

    A call that waits for people stays open: its `requests` say for what.

    Args:
        pipeline: has the tools, and the gate.
        invalid: by call id, why its arguments cannot be used.
        context: the turn's; the calls are those open in its `progress`.
        run_turn: runs the turn of a sub-agent.

    Returns:
        What the functions returned, by call id.

    Cancellation: tools in tasks are cancelled with it and joined; tools in threads go on, unheeded. What had returned stays in
    `context.progress.open_calls`.
    """
    opened = tuple(context.progress.open_calls.values())
    most = pipeline.agent.limits.max_parallel
    limiter = trio.CapacityLimiter(most) if len(opened) > most else None
    run = ToolRun(pipeline, context, run_turn)
    async with trio.open_nursery() as nursery:
        for one in opened:
            nursery.start_soon(run.answer, one, invalid.get(one.call.call_id), limiter)
    return run.values


def _contained(error: BaseException, tool: Tool, call: ToolCall, context: TurnContext) -> ToolResult:
    """Return what a model reads of what a tool raised; raise what is not to be contained."""
    suspended = next((leaf for leaf in leaves(error) if isinstance(leaf, Suspended)), None)
    if suspended is not None:
        raise suspended from None
    contained, onward = split(error)
    where = (tool.name, call.call_id, context.turn_id, context.conversation_id)
    if onward is not None:
        if contained is not None:
            message = "tool %r raised while it was cancelled, in call %r of turn %r of conversation %r"
            log_failure(logging.WARNING, contained, message, *where)
        raise onward from None  # the Cancelled in it, without what came beside
    if not isinstance(contained, Exception):
        context.progress.culprit = f"tool {tool.name!r}"  # it crashes the agent, which is logged there
        raise error
    log_failure(logging.WARNING, contained, "tool %r raised, in call %r of turn %r of conversation %r", *where)
    text, _ = render_output(describe(contained), min(ERROR_BYTES, context.max_tool_output_bytes))
    return _result(call, text, "failed")


def _publisher(tool: Tool, context: TurnContext) -> Callable[[Event], None]:
    """Return what the tool may call to publish: from a thread it goes through Trio, for events have one order."""

    def publish(event: Event) -> None:
        check_event(event)
        if tool.is_async:
            context.publish(event)
        else:
            trio.from_thread.run_sync(context.publish, event)

    return publish


async def _call(tool: Tool, arguments: Mapping[str, object], threads: trio.CapacityLimiter) -> object:
    if tool.is_async:
        return await tool.function(**arguments)
    # Cancellation: the thread is abandoned, for nobody can stop it; its result is dropped, and the call marked unknown.
    # In a list: Trio refuses a function that returns a coroutine, after the function has run.
    [value] = await trio.to_thread.run_sync(lambda: [tool.function(**arguments)], abandon_on_cancel=True, limiter=threads)
    return value


def _timed_out(call: ToolCall, seconds: float, *, in_thread: bool) -> ToolResult:
    if in_thread:
        return _result(call, f"No result after {seconds:g} seconds. It goes on, unheeded: its outcome is unknown.", "unknown")
    return _result(call, f"Cancelled after {seconds:g} seconds without a result.", "failed")


def _result(call: ToolCall, text: str, status: ToolStatus) -> ToolResult:
    return ToolResult(call.call_id, call.name, text, status)
