"""A tool call with the middleware around it."""

from collections.abc import Awaitable, Callable

import attrs

from trio_sagents.agent._agent import MiddlewareContext, id_of
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._middleware import Pipeline, around_calls
from trio_sagents.conversation.decided import digest_now
from trio_sagents.conversation.validity import FINAL
from trio_sagents.data.json import Opaque, check_text
from trio_sagents.data.messages import ToolCall, ToolResult
from trio_sagents.exceptions import MiddlewareError

Run = Callable[[ToolCall], Awaitable[ToolResult]]


@attrs.define(eq=False)
class _Once:
    """The callable that a hook gets: it passes the call on once, and only unchanged."""

    allowed: ToolCall
    run: Run
    has_run: bool = False

    async def __call__(self, call: ToolCall) -> ToolResult:
        _check_same(call, self.allowed)
        if self.has_run:
            raise ValueError("around_tool runs a call at most once")
        self.has_run = True
        return await self.run(self.allowed)


async def run_around(pipeline: Pipeline, context: TurnContext, call: ToolCall, run: Run) -> ToolResult:
    """Run an allowed call, with `around_tool` of each middleware around it, outermost first.

    Raises:
        MiddlewareError: a hook raised, changed the call, or ran the call twice.

    Cancellation: a tool in a task has ended.
    """
    step = run
    for middleware, hook_context in reversed(around_calls(pipeline, "around_tool", context, context.turn_id)):
        step = _around(pipeline, middleware, step, hook_context)
    return await step(attrs.evolve(call))


def _check_same(given: ToolCall, allowed: ToolCall) -> None:
    if (given.call_id, digest_now(given)) != (allowed.call_id, digest_now(allowed)):
        raise ValueError("around_tool must pass on the call that it was given, unchanged")


def _around(pipeline: Pipeline, middleware: Opaque, call_next: Run, context: MiddlewareContext) -> Run:
    async def step(call: ToolCall) -> ToolResult:
        # A copy: its arguments are a dict, and what a hook does to this dict reaches neither the tool nor the next hook.
        own = attrs.evolve(call)
        result = await pipeline.call(middleware, "around_tool", context, own, _Once(call, call_next))
        try:
            _check_result(result, call)
        except (TypeError, ValueError) as exc:
            raise MiddlewareError(id_of(middleware), "around_tool") from exc
        checked: ToolResult = result
        return checked

    return step


def _check_result(result: object, call: ToolCall) -> None:
    if not isinstance(result, ToolResult) or (result.call_id, result.name) != (call.call_id, call.name):
        raise TypeError(
            f"around_tool returns the result of the call, or ToolResultPart({call.call_id!r}, {call.name!r}, text, status); not {result!r}"
        )
    if result.status not in FINAL and result.status != "interrupted":
        raise ValueError(f"the status of a result is final, not {result.status!r}")
    check_text(result.content, "the result")
