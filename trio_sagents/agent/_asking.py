"""Asking the model, with the middleware around it."""

from collections.abc import Awaitable, Callable

import attrs

from trio_sagents.agent._agent import id_of
from trio_sagents.agent._attempts import ask_models
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._middleware import Pipeline
from trio_sagents.agent._model import ModelAnswer
from trio_sagents.data.ids import is_id
from trio_sagents.data.json import Opaque, check_text
from trio_sagents.data.messages import Message, ToolCall
from trio_sagents.data.requests import ModelRequest
from trio_sagents.data.validity import check_answer
from trio_sagents.data.wire import decode_message, encode_message
from trio_sagents.exceptions import MiddlewareError, StateError

Ask = Callable[[ModelRequest], Awaitable[ModelAnswer]]


async def ask(pipeline: Pipeline, request: ModelRequest, context: TurnContext) -> ModelAnswer:
    """Ask the model: `before_model` outside-in, `around_model` around it, `after_model` inside-out.

    Cancellation: what was said stays in `context.progress.draft`.
    """
    for one in pipeline.having("before_model"):
        request = await pipeline.call(one, "before_model", pipeline.context(one, context, context.turn_id), request)
        if not isinstance(request, ModelRequest):
            raise MiddlewareError(id_of(one), "before_model") from TypeError(f"it returns a ModelRequest, not {request!r}")

    given: list[Message] = []

    async def innermost(request: ModelRequest) -> ModelAnswer:
        answer = await ask_models(pipeline.agent, request, context)
        given.append(answer.message)
        return answer

    step: Ask = innermost
    for one in reversed(pipeline.having("around_model")):
        step = _around(pipeline, one, step, context)
    answer = await step(request)
    for one in reversed(pipeline.having("after_model")):
        message = await pipeline.call(one, "after_model", pipeline.context(one, context, context.turn_id), answer.message)
        _check_message(one, answer.message, message)
        answer = attrs.evolve(answer, message=message)
    if not any(answer.message is one for one in given):
        answer = attrs.evolve(answer, message=_kept(pipeline, answer.message, context))
    return answer


def _kept(pipeline: Pipeline, message: Message, context: TurnContext) -> Message:
    """Return what middleware made of an answer, or made up, as it can be kept: what could not be loaded again is refused here.

    An answer out of a cache has the ids of the first time. Its calls are new ones all the same, so they pass the gate anew.
    """
    calls = {call.call_id: call for call in message.calls}
    if len(calls) != len(message.calls):
        raise MiddlewareError("around_model", "around_model") from ValueError("it gave one call id to two calls")
    fresh = {call_id: context.new_id() for call_id in calls if not is_id(call_id) or context.is_used(call_id)}
    parts = [
        attrs.evolve(part, call_id=fresh.get(part.call_id, part.call_id), status="pending") if isinstance(part, ToolCall) else part
        for part in message.parts
    ]
    message_id = context.new_id() if context.is_used(message.message_id) else message.message_id
    whole = attrs.evolve(message, message_id=message_id, parts=parts, turn_id=context.turn_id)
    names = ", ".join(id_of(one) for one in (*pipeline.having("around_model"), *pipeline.having("after_model")))
    try:
        check_answer(decode_message(context.conversation_id, encode_message(whole)))
    except (StateError, TypeError, ValueError, LookupError) as exc:
        raise MiddlewareError(names, "after_model") from exc
    return whole


def _around(pipeline: Pipeline, one: Opaque, call_next: Ask, context: TurnContext) -> Ask:
    async def step(request: ModelRequest) -> ModelAnswer:
        answer = await pipeline.call(one, "around_model", pipeline.context(one, context, context.turn_id), request, call_next)
        if not isinstance(answer, ModelAnswer):
            raise MiddlewareError(id_of(one), "around_model") from TypeError(f"it returns a ModelAnswer, not {answer!r}")
        try:
            check_answer(answer.message)
            for why in answer.invalid.values():
                check_text(why, "why the arguments of a call cannot be used")
        except (AttributeError, TypeError, ValueError) as exc:
            raise MiddlewareError(id_of(one), "around_model") from exc
        return answer

    return step


def _check_message(one: Opaque, before: Message, after: object) -> None:
    """What a middleware makes of an answer asks for no call that the model did not ask for, in another way."""
    if not isinstance(after, Message) or (after.message_id, after.role) != (before.message_id, before.role):
        raise MiddlewareError(id_of(one), "after_model") from TypeError(f"it returns the message, or a changed copy; not {after!r}")
    known = {call.call_id: call for call in before.calls}
    if any(known.get(call.call_id) != call for call in after.calls) or bool(after.calls) != bool(before.calls) or after.results:
        raise MiddlewareError(id_of(one), "after_model") from ValueError("it may drop calls, but not all, and change or add none")
