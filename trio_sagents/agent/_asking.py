"""Asking the model, with the middleware around it."""

from collections.abc import Awaitable, Callable

import attrs

from trio_sagents.agent._attempts import ask_models
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._middleware import Pipeline, id_of
from trio_sagents.agent._model_call import Answer as ModelAnswer
from trio_sagents.data.json import Opaque
from trio_sagents.data.messages import Message
from trio_sagents.data.requests import ModelRequest
from trio_sagents.exceptions import MiddlewareError

Ask = Callable[[ModelRequest], Awaitable[ModelAnswer]]


async def ask(pipeline: Pipeline, request: ModelRequest, context: TurnContext) -> ModelAnswer:
    """Ask the model: `before_model` outside-in, `around_model` around it, `after_model` inside-out.

    Cancellation: what was said stays in `context.progress.draft`.
    """
    for one in pipeline.having("before_model"):
        request = await pipeline.call(one, "before_model", pipeline.context(one, context, context.turn_id), request)
        if not isinstance(request, ModelRequest):
            raise MiddlewareError(id_of(one), "before_model") from TypeError(f"it returns a ModelRequest, not {request!r}")

    async def innermost(request: ModelRequest) -> ModelAnswer:
        return await ask_models(pipeline.agent, request, context)

    step: Ask = innermost
    for one in reversed(pipeline.having("around_model")):
        step = _around(pipeline, one, step, context)
    answer = await step(request)
    for one in reversed(pipeline.having("after_model")):
        message = await pipeline.call(one, "after_model", pipeline.context(one, context, context.turn_id), answer.message)
        _check_message(one, answer.message, message)
        answer = attrs.evolve(answer, message=message)
    return answer


def _around(pipeline: Pipeline, one: Opaque, call_next: Ask, context: TurnContext) -> Ask:
    async def step(request: ModelRequest) -> ModelAnswer:
        answer = await pipeline.call(one, "around_model", pipeline.context(one, context, context.turn_id), request, call_next)
        if not isinstance(answer, ModelAnswer):
            raise MiddlewareError(id_of(one), "around_model") from TypeError(f"it returns a ModelAnswer, not {answer!r}")
        return answer

    return step


def _check_message(one: Opaque, before: Message, after: object) -> None:
    """What a middleware makes of an answer asks for no call that the model did not ask for, in another way."""
    if not isinstance(after, Message) or (after.message_id, after.role) != (before.message_id, before.role):
        raise MiddlewareError(id_of(one), "after_model") from TypeError(f"it returns the message, or a changed copy; not {after!r}")
    known = {call.call_id: call for call in before.calls}
    if any(known.get(call.call_id) != call for call in after.calls) or bool(after.calls) != bool(before.calls) or after.results:
        raise MiddlewareError(id_of(one), "after_model") from ValueError("it may drop calls, but not all, and change or add none")
