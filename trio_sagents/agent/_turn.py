"""One turn: its middleware, its loop, its limits. The turn knows no session: its `TurnContext` stores what must be stored."""

import trio

from trio_sagents._trio.groups import leaves
from trio_sagents.agent._agent import Ended, Mode
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._middleware import EXPECTED, Pipeline
from trio_sagents.agent._steps import Steps, converse
from trio_sagents.data.outcomes import Completed, Failed, Interrupted
from trio_sagents.exceptions import LimitExceeded


async def run_turn(pipeline: Pipeline, context: TurnContext) -> Ended:
    """Answer the message that ends the history, or continue after an interrupt that was answered.

    Returns:
        How the turn ended; that is committed.

    Raises:
        ModelFailed: the provider's fault.
        LimitExceeded: the turn used more than `agent.limits` allow, or an answer is too long.
        MiddlewareError: a middleware raised.
        ToolNotCalled: the turn was to end with a tool.
        PersistenceError: a step could not be stored.

    Cancellation: the model's stream and all tools in tasks have ended; the text and the results so far are in `context.progress`.
    """
    limits = pipeline.agent.limits
    with trio.move_on_after(limits.turn_timeout) as timeout:
        try:
            return await _run(pipeline, context)
        except Exception as exc:  # noqa: BLE001  # raised again below, after the middleware was told
            error = exc
        failed = next((leaf for leaf in leaves(error) if isinstance(leaf, EXPECTED)), None)
        try:
            if failed is not None:
                await pipeline.each("after_turn", context, Failed(failed), turn_id=context.turn_id, back=True)
            raise error
        finally:
            del error, failed  # they hold this frame, and this frame holds them
    assert timeout.cancelled_caught
    raise LimitExceeded("turn_timeout", limits.turn_timeout, most=limits.turn_timeout)


async def _run(pipeline: Pipeline, context: TurnContext) -> Ended:
    if pipeline.is_stale:
        await pipeline.collect_tools(context)
    if not context.goes_on:
        await pipeline.each("before_turn", context, turn_id=context.turn_id)
    turn = Steps(pipeline, context, run_turn, await pipeline.system_prompt(context, context.turn_id))
    if context.goes_on and (ended := await turn.go_on()) is not None:
        return ended
    mode = pipeline.agent.mode
    if mode is None:
        return await converse(turn)
    made: Ended = await pipeline.guard("mode", getattr(mode, "__name__", "mode"), _made_by, mode, turn, context)
    return made


async def _made_by(mode: Mode, turn: Steps, context: TurnContext) -> Ended:
    """Run a loop of the host."""
    ended = await mode(turn)
    if not context.has_ended or not isinstance(ended, Completed | Interrupted):
        raise TypeError(f"the loop returned {ended!r}; return what `complete` or `run_tools` returned when the turn had ended")
    return ended
