"""A model call whose request may be too long, or may have content that the provider refuses.

How large the window of a model is, nobody knows for sure; only the provider does. So its refusal is taken as a signal
(`ModelFailed.kind == "context_overflow"`): the request is made shorter, and the model is asked again. A middleware may shorten the
request first (`shorten_request`, as `Summarization` does by a summary); what is missing then is cut by `data.reading.shortened`. A
refused request costs nothing, so it is made shorter in steps, and as much of the conversation stays as fits. The size that the model
took is kept in the metadata of the conversation, and the next requests are shortened before they are sent.

If the provider refuses a request for its content, something in the earlier turns may be the reason: the address of an image that was
fetched once may be gone, or a rule of the provider may be new. So the provider is asked again without the images and files of earlier
turns, and then without those turns. If it helps to leave out images and files, they are not sent any more. If nothing helps, what is
new was refused: the turn fails, and its messages are not sent any more (`conversation.turn_steps.cut`).

The stored history is not changed by any of this.
"""

from typing import Final

import attrs

from trio_sagents.agent._attempts import ask_models
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._middleware import Pipeline, around_calls
from trio_sagents.agent._model import ModelAnswer, name_of
from trio_sagents.data.estimates import estimate_tokens
from trio_sagents.data.events import MiddlewareEvent
from trio_sagents.data.json import JSON
from trio_sagents.data.reading import (
    LIMITS,
    REFUSED,
    UNSENT_MEDIA,
    has_media,
    known_limit,
    shortened,
    unread,
    without_history,
    without_media_of,
)
from trio_sagents.data.requests import ModelRequest
from trio_sagents.exceptions import MiddlewareError, ModelFailed

SHARES: Final = (0.7, 0.35, 0.15, 0.05)
"""Which share of a refused request the next ones may have, one after the other."""


@attrs.frozen
class RequestShortened(MiddlewareEvent):
    """A request was too long for the model, so that the model reads less of the conversation. The stored history is not changed."""

    turn_id: str
    tokens_before: int
    """Of the request that was too long, as estimated."""
    tokens: int
    """Of the request that is sent now."""


async def ask_fitting(pipeline: Pipeline, request: ModelRequest, context: TurnContext) -> ModelAnswer:
    """Ask the model as `ask_models` does; with a shorter request, if the provider says that the request is too long.

    Raises:
        ModelFailed: as `ask_models`; if the request is too long and cannot be made shorter, the error says what to do.
        LimitExceeded: as `ask_models`.

    Cancellation: as `ask_models`.
    """
    name = name_of(pipeline.agent.model)
    limit = known_limit(context.state().metadata, name)
    if limit is not None and estimate_tokens(request) > limit:
        request = await _shorter(pipeline, request, limit, context)
    try:
        return await _ask(pipeline, request, context)
    except ModelFailed as exc:
        if exc.kind != "context_overflow":
            raise
        failed = exc
    full = size = estimate_tokens(request)
    for number, share in enumerate(SHARES):
        smaller = await _shorter(pipeline, request, full * share, context, asks_middleware=number == 0)
        if estimate_tokens(smaller) >= size:
            continue
        request, size = smaller, estimate_tokens(smaller)
        context.publish(RequestShortened(context.turn_id, full, size))
        try:
            answer = await _ask(pipeline, request, context)
        except ModelFailed as exc:
            if exc.kind != "context_overflow":
                raise
            failed = exc
        else:
            await context.update(None, _with_limit(context.state().metadata, name, size))
            return answer
    raise _hopeless(failed, size) from failed


async def _ask(pipeline: Pipeline, request: ModelRequest, context: TurnContext) -> ModelAnswer:
    """Ask the models; if the provider refuses the content, ask once more without the media of earlier turns, then without those turns.

    A refusal of all these requests is about what is new; the error is that of the first request.
    """
    try:
        return await ask_models(pipeline, request, context)
    except ModelFailed as exc:
        if exc.kind not in REFUSED:
            raise
        failed = exc
    answer: ModelAnswer | None = None
    fresh = set(unread(request.messages))
    shown = tuple(message.message_id for message in request.messages if message.message_id not in fresh and has_media(message))
    if shown:
        messages = tuple(without_media_of(message) if message.message_id in shown else message for message in request.messages)
        answer = await _ask_again(pipeline, attrs.evolve(request, messages=messages), context)
        if answer is not None:
            message = attrs.evolve(answer.message, metadata={**answer.message.metadata, UNSENT_MEDIA: list(shown)})
            return attrs.evolve(answer, message=message)
    alone = without_history(request)
    if alone is not request:
        answer = await _ask_again(pipeline, alone, context)
    if answer is None:
        raise failed
    context.publish(RequestShortened(context.turn_id, estimate_tokens(request), estimate_tokens(alone)))
    return answer


async def _ask_again(pipeline: Pipeline, request: ModelRequest, context: TurnContext) -> ModelAnswer | None:
    """Return an answer to a request with less content; None if the provider refuses its content, too."""
    try:
        return await ask_models(pipeline, request, context)
    except ModelFailed as exc:
        if exc.kind in REFUSED:
            return None
        raise


async def _shorter(
    pipeline: Pipeline, request: ModelRequest, most: float, context: TurnContext, *, asks_middleware: bool = True
) -> ModelRequest:
    """Return a request of at most about this many tokens, as far as that is possible."""
    if asks_middleware:
        for middleware, hook_context in around_calls(pipeline, "shorten_request", context, context.turn_id):
            if estimate_tokens(request) <= most:
                break
            found = await pipeline.call(middleware, "shorten_request", hook_context, request, most)
            if not isinstance(found, ModelRequest):
                raise MiddlewareError(hook_context.middleware_id, "shorten_request") from TypeError(
                    f"shorten_request must return a ModelRequest, not {found!r}"
                )
            request = found
    return request if estimate_tokens(request) <= most else shortened(request, most)


def _with_limit(metadata: JSON, name: str, size: int) -> JSON:
    """Return the change of the metadata that keeps which size the model takes."""
    known = metadata.get(LIMITS)
    return {LIMITS: {**known, name: size} if isinstance(known, dict) else {name: size}}


def _hopeless(failed: ModelFailed, size: int) -> ModelFailed:
    return ModelFailed(
        f"{failed}. The request is still too long (about {size} tokens) after large results and earlier messages were left out; post a "
        "shorter message, give the agent fewer or shorter instructions and tools, or use a model with a larger context window",
        retryable=False,
        kind="context_overflow",
    )
