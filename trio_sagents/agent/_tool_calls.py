"""The calls of one answer: they run in parallel, and each is answered exactly once, even if its tool fails.

This is the first of the two places that contain exceptions: an exception of a tool becomes a result that the model can read.
`Cancelled`, `KeyboardInterrupt` and `SystemExit` always pass. It is also the only place from which a tool's function is called.

A halt stops the whole turn. Once a call has returned `Halt`, no other call of the turn begins, in sub-agents neither, whether it
was approved or not: it is answered as not run. Calls that run are cancelled, as if the turn were cut: a call in a task is on
record as cancelled, and a call in a thread as unknown, because nobody can stop a thread. The turn then waits for a person immediately.

An error that ends the turn because of one call, such as that of an `around_tool`, does not cut the siblings of the call in the middle
of their work: those that run end first, and their results are kept. No other call begins.
"""

import functools
import logging
from collections.abc import Mapping
from typing import Final

import attrs
import trio

from trio_sagents._trio.failures import log_failure
from trio_sagents._trio.groups import leaves, split
from trio_sagents._trio.tree import thread_of_task
from trio_sagents.agent._checks import ERROR_BYTES, context_of, refusal_of
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._gate import NotRun, ask_inner_gates, claim, pass_decided
from trio_sagents.agent._json_forms import is_awaitable
from trio_sagents.agent._middleware import Pipeline
from trio_sagents.agent._nested import CallHost, RunTurn
from trio_sagents.agent._progress import OpenCall, Suspended
from trio_sagents.agent._tool_chain import run_around
from trio_sagents.agent._tool_text import Halt, read_return
from trio_sagents.agent._tools import ArgumentsInvalid, Tool, render_output
from trio_sagents.conversation.closing import CLOSING_TEXT
from trio_sagents.conversation.decided import decided_call, runs
from trio_sagents.data.errors import describe
from trio_sagents.data.events import ToolExecutionUpdated
from trio_sagents.data.interrupts import DecisionRecord, PendingCall, pending
from trio_sagents.data.json import Opaque
from trio_sagents.data.messages import ToolCall, ToolResult, ToolStatus
from trio_sagents.exceptions import LimitExceeded, MiddlewareError, ModelFailed

FAILED_BEFORE: Final = "This call was not run: the turn failed before this call began."
HALTED_BEFORE: Final = "This call was not run: another call halted the conversation before this call began."
_ABOUT_ONE_CALL: Final = (LimitExceeded, MiddlewareError, ModelFailed)
"""The errors of hooks and limits. If a step cannot be stored, the turn is cut immediately, because nothing that follows can be stored."""
log: Final = logging.getLogger("trio_sagents")


@attrs.define(eq=False)
class ToolRun:
    """The calls of one answer while they run."""

    pipeline: Pipeline
    context: TurnContext
    run_turn: RunTurn
    """Runs the turn of a sub-agent."""
    values: dict[str, Opaque] = attrs.field(factory=dict)
    """By call id: what the functions returned."""
    failed: Exception | None = None
    """Why the turn ends once the calls that run have ended: the first error about one call."""

    async def answer_or_fail(self, opened: OpenCall, invalid: str | None, limiter: trio.CapacityLimiter | None) -> None:
        """Answer one call, or find out what it waits for, or why the turn fails."""
        try:
            await self.answer(opened, invalid, limiter)
        except _ABOUT_ONE_CALL as exc:
            self.failed = self.failed or exc

    async def answer(self, opened: OpenCall, invalid: str | None, limiter: trio.CapacityLimiter | None) -> None:
        """Answer one call, or find out what it waits for."""
        call = opened.call
        waited = bool(opened.requests)
        tool = self.pipeline.tools.get(call.name)
        if tool is None:
            names = ", ".join(sorted(self.pipeline.tools)) or "none"
            opened.result = _result(call, f"There is no tool {call.name!r}; there are: {names}.", "failed")
        elif invalid is not None:
            opened.result = _result(call, invalid, "failed")
        else:
            allowed = await self._pass_gate(opened, tool)
            if allowed is not None and allowed.display_text is None:
                allowed = attrs.evolve(allowed, display_text=tool.displayed(allowed.arguments))
            opened.shown = allowed or opened.shown
            if allowed is not None and limiter is None:
                await self._run(allowed, tool, opened)
            elif allowed is not None and limiter is not None:
                async with limiter:
                    await self._run(allowed, tool, opened)
        if opened.result is not None:
            shown = call if opened.shown is None else attrs.evolve(call, display_text=opened.shown.display_text)
            await self.context.commit_result(shown, opened.result, opened.expands)
        elif opened.requests and not waited:
            self.tell_waiting()

    def tell_waiting(self) -> None:
        """Have people see what waits for them, if other calls still run; otherwise the interrupt comes immediately."""
        opened = self.context.progress.open_calls.values()
        if any(each.requests for each in opened) and not all(each.requests for each in opened):
            self.context.note_waiting()

    async def _pass_gate(self, opened: OpenCall, tool: Tool) -> ToolCall | None:
        """Return the call as it may run now; None if it has a result already, or waits."""
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
            refusal = await refusal_of(tool, call, self.context, self.pipeline.agent.limits.tool_timeout, self.pipeline.agent_name)
            if refusal is None:
                _wait(opened, wanted)
            else:
                opened.result = _result(call, refusal, "failed")
            return None
        said: str | None = None
        if opened.claim is not None:
            try:
                said = await ask_inner_gates(self.pipeline, self.context, self.context.turn_id, opened.claim, decision)
            except ValueError as exc:
                text, _ = render_output(f"Not run: the decision was rejected: {exc}", ERROR_BYTES)
                opened.result = _result(call, text, "failed")
                return None
        if not runs(decision):
            opened.result = _result(
                call, decision.text if said is None else said, "completed" if decision.kind == "answer" else "cancelled"
            )
            return None
        return await self._pass_decided(opened, tool, decision)

    async def _pass_decided(self, opened: OpenCall, tool: Tool, decision: DecisionRecord) -> ToolCall | None:
        """As `_pass_gate`, for a call that a person lets run."""
        call = opened.call
        # A call whose sub-agent waited has passed the gate already, and runs.
        begun = None if opened.record is None else decided_call(call, decision)
        passed = begun or await pass_decided(self.pipeline, self.context, call, tool, decision)
        match passed:
            case NotRun(text=text):
                opened.result = _result(call, text, "failed")
                return None
            case PendingCall():
                _wait(opened, passed)
                return None
            case _:
                return passed

    async def _run(self, call: ToolCall, tool: Tool, opened: OpenCall) -> None:
        """Run a call that may run, unless the turn is halted; a halt also cancels it while it runs."""
        halt = self.context.progress.halt
        if halt.is_set:
            opened.result = self._halted_before(opened)
            return
        with halt.watch() as scope:
            try:
                invoke = functools.partial(self._invoke, tool, opened, scope)
                opened.result = await run_around(self.pipeline, self.context, call, invoke)
            except Suspended as suspended:
                opened.requests, opened.record, opened.status = suspended.requests, suspended.record, "interrupted"
        if opened.requests:
            opened.result = None
        elif scope.cancelled_caught:
            opened.result = self._cut(opened)
        elif opened.result is not None and opened.result.status == "interrupted":
            raise MiddlewareError("around_tool", "around_tool") from ValueError("a result is final; only a tool that halts interrupts")

    def _halted_before(self, opened: OpenCall) -> ToolResult:
        return _result(opened.call, HALTED_BEFORE if opened.record is None else CLOSING_TEXT["cancelled"], "cancelled")

    def _cut(self, opened: OpenCall) -> ToolResult:
        """Return the result of a call that another call cancelled by halting the turn: what is known of a call that is cut."""
        if opened.status in {"pending", "interrupted"}:
            return self._halted_before(opened)
        return _result(opened.call, CLOSING_TEXT[opened.known], "unknown" if opened.known == "unknown" else "cancelled")

    async def _invoke(self, tool: Tool, opened: OpenCall, scope: trio.CancelScope, call: ToolCall) -> ToolResult:
        """Call the tool's function: the only place that does."""
        context = self.context
        host = CallHost(self.pipeline, context, opened, scope, self.run_turn)
        tool_context = context_of(call, context, host, in_thread=not tool.is_async, agent_name=self.pipeline.agent_name)
        limits = self.pipeline.agent.limits
        if tool.check is not None:
            refusal = await refusal_of(tool, call, context, limits.tool_timeout, self.pipeline.agent_name)
            if refusal is not None:
                return _result(call, refusal, "failed")
        try:
            arguments = tool.bind(call.arguments, tool_context)
        except ArgumentsInvalid as exc:
            return _result(call, str(exc), "failed")
        if not await context.may_act():  # the turn is cancelled, unless a middleware shields it
            return _result(call, "This call was not run: another process may have the conversation by now.", "cancelled")
        if context.progress.halt.is_set:
            return self._halted_before(opened)
        if self.failed is not None:
            await trio.lowlevel.checkpoint()
            return _result(call, FAILED_BEFORE, "cancelled")
        # No checkpoint from here to the call: a call that is shown as executing has begun.
        opened.status = "executing"
        opened.in_thread = not tool.is_async
        context.publish(ToolExecutionUpdated(call, "executing", context.turn_id))
        try:
            with self.pipeline.labelled(f"tool {tool.name!r}"), trio.move_on_after(limits.tool_timeout) as timeout:
                value = await _call(tool, arguments, context.threads)
                if is_awaitable(value):
                    opened.in_thread = False
                    value = await value  # such as the coroutine of an async function behind a decorator or a lambda
                return self._returned(opened, tool, call, value, scope)
            assert timeout.cancelled_caught
            return _timed_out(call, limits.tool_timeout, in_thread=opened.in_thread)
        except BaseException as error:  # noqa: ASYNC103, BLE001  # the tool boundary: what is not contained is raised
            return _contained(error, tool, call, context)  # noqa: ASYNC104  # it raises what must go on

    def _returned(self, opened: OpenCall, tool: Tool, call: ToolCall, value: Opaque, scope: trio.CancelScope) -> ToolResult:
        self.values[call.call_id] = value
        progress = self.context.progress
        if issubclass(type(value), Halt):  # `isinstance` raises for a proxy of an object that is gone
            said, _ = render_output(value.message, min(ERROR_BYTES, self.context.max_tool_output_bytes))
            opened.requests = (pending(call, kind="halt", text=said, allowed=(), path=tuple(self.pipeline.path), origin=tool.origin),)
            opened.status = "interrupted"
            progress.halt.set((*progress.scopes, scope))
            return _result(call, said, "interrupted")
        context = self.context
        read = read_return(value, context.max_tool_output_bytes, max(context.max_tool_output_bytes, context.max_message_bytes))
        if read.problem:
            log.warning("the tool %r, in conversation %r: %s", call.name, self.context.conversation_id, read.problem)
        opened.expands = () if read.is_error else read.messages
        return ToolResult(call.call_id, call.name, read.text, "failed" if read.is_error else "completed", read.media)


async def run_open_calls(pipeline: Pipeline, invalid: Mapping[str, str], context: TurnContext, run_turn: RunTurn) -> Mapping[str, Opaque]:
    """Run the open calls, at most `limits.max_parallel` at the same time, and commit each result when it is there.

    A call that waits for people stays open: its `requests` say for what.

    Args:
        pipeline: has the tools, and the gate.
        invalid: by call id, why its arguments cannot be used.
        context: the turn's; the calls are those open in its `progress`.
        run_turn: runs the turn of a sub-agent.

    Returns:
        What the functions returned, by call id.

    Raises:
        LimitExceeded, MiddlewareError, ModelFailed: the turn cannot continue after one of the calls; the others have ended.

    Cancellation: tools in tasks are cancelled and joined. Tools in threads continue; their results are discarded. Results that were
    there stay in `context.progress.open_calls`.
    """
    opened = tuple(context.progress.open_calls.values())
    most = pipeline.agent.limits.max_parallel
    limiter = trio.CapacityLimiter(most) if len(opened) > most else None
    run = ToolRun(pipeline, context, run_turn)
    run.tell_waiting()
    async with trio.open_nursery() as nursery:
        for each in opened:
            nursery.start_soon(run.answer_or_fail, each, invalid.get(each.call.call_id), limiter)
    if run.failed is not None:
        raise run.failed
    return run.values


def _wait(opened: OpenCall, wanted: PendingCall) -> None:
    """The call waits for people, who are shown it with the arguments that it would run with."""
    opened.requests = (wanted,)
    opened.shown = attrs.evolve(opened.call, arguments=wanted.arguments)
    opened.status = "interrupted"


def _contained(error: BaseException, tool: Tool, call: ToolCall, context: TurnContext) -> ToolResult:
    """Return what a model reads of what a tool raised; raise what must not be contained."""
    suspended = next((leaf for leaf in leaves(error) if isinstance(leaf, Suspended)), None)
    if suspended is not None:
        raise suspended from None
    contained, onward = split(error)
    where = (tool.name, call.call_id, context.turn_id, context.conversation_id)
    if onward is not None:
        if contained is not None:
            message = "tool %r raised while it was cancelled, in call %r of turn %r of conversation %r"
            log_failure(logging.WARNING, contained, message, *where)
        raise onward from None  # the Cancelled in it, without the errors beside it
    if not isinstance(contained, Exception):
        context.progress.culprit = f"tool {tool.name!r}"  # it crashes the agent, which is logged there
        raise error
    log_failure(logging.WARNING, contained, "tool %r raised, in call %r of turn %r of conversation %r", *where)
    text, _ = render_output(describe(contained), min(ERROR_BYTES, context.max_tool_output_bytes))
    return _result(call, text, "failed")


async def _call(tool: Tool, arguments: Mapping[str, object], threads: trio.CapacityLimiter) -> object:
    if tool.is_async:
        return await tool.function(**arguments)
    # Cancellation: the thread is abandoned, for nobody can stop it; its result is discarded, and the call is marked as unknown.
    # In a list: Trio refuses a function that returns a coroutine, after the function has run.
    with thread_of_task():
        [value] = await trio.to_thread.run_sync(lambda: [tool.function(**arguments)], abandon_on_cancel=True, limiter=threads)
    return value


def _timed_out(call: ToolCall, seconds: float, *, in_thread: bool) -> ToolResult:
    if in_thread:
        return _result(call, f"Timed out after {seconds:g} s. The thread is still running; its outcome is unknown.", "unknown")
    return _result(call, f"Cancelled after {seconds:g} seconds without a result.", "failed")


def _result(call: ToolCall, text: str, status: ToolStatus) -> ToolResult:
    return ToolResult(call.call_id, call.name, text, status)
