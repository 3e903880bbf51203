"""Asks the model, with the middleware around the call."""

from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet

import attrs

from trio_sagents.agent._agent import MiddlewareContext, id_of
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._middleware import Pipeline, around_calls
from trio_sagents.agent._model import ModelAnswer
from trio_sagents.agent._shortening import ask_fitting
from trio_sagents.agent._tools import Tool
from trio_sagents.conversation.validity import check_answer
from trio_sagents.data.ids import is_id
from trio_sagents.data.json import Opaque, canonical, check_text
from trio_sagents.data.messages import Message, ToolCall
from trio_sagents.data.requests import ModelRequest
from trio_sagents.data.wire import decode_message, encode_message
from trio_sagents.exceptions import MiddlewareError, StateError

Ask = Callable[[ModelRequest], Awaitable[ModelAnswer]]


async def ask(pipeline: Pipeline, request: ModelRequest, context: TurnContext) -> ModelAnswer:
    """Ask the model: `before_model` outside-in, `around_model` around it, `after_model` inside-out.

    Cancellation: the text so far stays in `context.progress.draft`.
    """
    for middleware, hook_context in around_calls(pipeline, "before_model", context, context.turn_id):
        request = await pipeline.call(middleware, "before_model", hook_context, request)
        if not isinstance(request, ModelRequest):
            raise MiddlewareError(id_of(middleware), "before_model") from TypeError(
                f"before_model must return a ModelRequest, not {request!r}"
            )

    given: list[Message] = []

    async def innermost(request: ModelRequest) -> ModelAnswer:
        answer = await ask_fitting(pipeline, request, context)
        given.append(answer.message)
        return answer

    step: Ask = innermost
    for middleware, hook_context in reversed(around_calls(pipeline, "around_model", context, context.turn_id)):
        step = _around(pipeline, middleware, step, hook_context)
    answer = await step(request)
    for middleware in reversed(pipeline.having("after_model")):
        message = await pipeline.call(middleware, "after_model", pipeline.context(middleware, context, context.turn_id), answer.message)
        _check_message(middleware, answer.message, message)
        answer = attrs.evolve(answer, message=message)
    if not any(answer.message is message for message in given):
        ids = [answer.message.message_id, *(call.call_id for call in answer.message.calls)]
        older = await context.find_used(ids) if context.has_older else frozenset[str]()
        answer = attrs.evolve(answer, message=_kept(pipeline, answer.message, context, older))
    return attrs.evolve(answer, message=with_display_texts(tidied(answer.message, pipeline.tools), pipeline.tools))


def with_display_texts(message: Message, tools: Mapping[str, Tool]) -> Message:
    """Return an answer whose calls have the texts that people read of them."""
    texts = {call.call_id: tools[call.name].displayed(call.arguments) for call in message.calls if call.name in tools}
    if not any(text is not None for text in texts.values()):
        return message
    parts = [attrs.evolve(part, display_text=texts.get(part.call_id)) if isinstance(part, ToolCall) else part for part in message.parts]
    return attrs.evolve(message, parts=parts)


def tidied(message: Message, tools: Mapping[str, Tool]) -> Message:
    """Return an answer whose calls have their arguments in the form of the schema, if only one meaning is possible.

    A gate, a person and the function see the same: a gate for amounts above 1000 is not passed by the text "5000".
    """
    changed: dict[str, ToolCall] = {}
    for call in message.calls:
        tool = tools.get(call.name)
        if tool is not None and canonical(arguments := tool.tidied(call.arguments)) != canonical(call.arguments):
            changed[call.call_id] = attrs.evolve(call, arguments=arguments)
    if not changed:
        return message
    return attrs.evolve(message, parts=[changed.get(part.call_id, part) if isinstance(part, ToolCall) else part for part in message.parts])


def _kept(pipeline: Pipeline, message: Message, context: TurnContext, older: AbstractSet[str]) -> Message:
    """Return an answer that middleware made or changed, as it can be kept; refuse an answer that could not be loaded again.

    `older` has those of its ids that are in use before the window.

    An answer from a cache has the ids of the first time. Its calls are new calls all the same, so they get new ids and pass the gate.
    """
    calls = {call.call_id: call for call in message.calls}
    if len(calls) != len(message.calls):
        raise MiddlewareError("around_model", "around_model") from ValueError("two calls of the answer have the same call id")
    fresh = {call_id: context.new_id() for call_id in calls if not is_id(call_id) or context.is_used(call_id) or call_id in older}
    parts = [
        attrs.evolve(part, call_id=fresh.get(part.call_id, part.call_id), status="pending") if isinstance(part, ToolCall) else part
        for part in message.parts
    ]
    is_used = context.is_used(message.message_id) or message.message_id in older
    message_id = context.new_id() if is_used else message.message_id
    whole = attrs.evolve(message, message_id=message_id, parts=parts, turn_id=context.turn_id)
    names = ", ".join(id_of(middleware) for middleware in (*pipeline.having("around_model"), *pipeline.having("after_model")))
    try:
        check_answer(decode_message(context.conversation_id, encode_message(whole)))
    except (StateError, TypeError, ValueError, LookupError) as exc:
        raise MiddlewareError(names, "after_model") from exc
    return whole


def _around(pipeline: Pipeline, middleware: Opaque, call_next: Ask, context: MiddlewareContext) -> Ask:
    async def step(request: ModelRequest) -> ModelAnswer:
        answer = await pipeline.call(middleware, "around_model", context, request, call_next)
        if not isinstance(answer, ModelAnswer):
            raise MiddlewareError(id_of(middleware), "around_model") from TypeError(
                f"around_model must return a ModelAnswer, not {answer!r}"
            )
        try:
            check_answer(answer.message)
            for why in answer.invalid.values():
                check_text(why, "the reason in ModelAnswer.invalid")
        except (AttributeError, TypeError, ValueError) as exc:
            raise MiddlewareError(id_of(middleware), "around_model") from exc
        return answer

    return step


def _check_message(middleware: Opaque, before: Message, after: object) -> None:
    """Raise unless `after` is `before`, perhaps with other text and fewer calls: middleware may not invent or change a call."""
    if not isinstance(after, Message) or (after.message_id, after.role) != (before.message_id, before.role):
        raise MiddlewareError(id_of(middleware), "after_model") from TypeError(
            f"after_model must return the message or a changed copy, not {after!r}"
        )
    known = {call.call_id: call for call in before.calls}
    if any(known.get(call.call_id) != call for call in after.calls) or bool(after.calls) != bool(before.calls) or after.results:
        raise MiddlewareError(id_of(middleware), "after_model") from ValueError(
            "after_model may drop some of the calls, but not all, and must not change or add a call"
        )
