"""A model call whose request may be too long, or may have content that the provider refuses.

How large the window of a model is, nobody knows for sure; only the provider does. So its refusal is taken as a signal
(`ModelFailed.kind == "context_overflow"`): the request is made shorter, and the model is asked again. A middleware may shorten the
request first (`shorten_request`, as `Summarization` does by a summary); what is missing then is cut by `data.reading.shortened`. A
refused request costs nothing, so it is made shorter in steps, and as much of the conversation stays as fits. The size that the model
took is kept in the metadata of the conversation, and the next requests are shortened before they are sent.

If the provider refuses a request for its content, and messages of earlier turns have images or files, it is asked once more without
those: the address of an image that was fetched once may be gone. If that helps, they are not sent any more.

The stored history is not changed by any of this.
"""

from collections.abc import Sequence
from typing import Final

import attrs

from trio_sagents.agent._attempts import ask_models
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._middleware import Pipeline
from trio_sagents.agent._model import ModelAnswer, name_of
from trio_sagents.data.estimates import estimate_tokens
from trio_sagents.data.events import MiddlewareEvent
from trio_sagents.data.json import JSON
from trio_sagents.data.reading import LIMITS, UNSENT_MEDIA, has_media, known_limit, shortened, unread, without_media_of
from trio_sagents.data.requests import ModelRequest
from trio_sagents.exceptions import MiddlewareError, ModelFailed

SHARES: Final = (0.7, 0.35, 0.15, 0.05)
"""Which share of a refused request the next ones may have, one after the other."""
REFUSED: Final = frozenset({"refused_content", "invalid_request"})
"""Kinds of failures that the content of the request may have caused."""


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
    """Ask the models; once more without the media of earlier turns if the provider refuses the content of the request."""
    try:
        return await ask_models(pipeline.agent, request, context)
    except ModelFailed as exc:
        read = _with_old_media(request)
        if exc.kind not in REFUSED or not read:
            raise
        failed = exc
    messages = tuple(without_media_of(message) if message.message_id in read else message for message in request.messages)
    try:
        answer = await ask_models(pipeline.agent, attrs.evolve(request, messages=messages), context)
    except ModelFailed as exc:
        if exc.kind in REFUSED:
            raise failed from exc
        raise
    message = attrs.evolve(answer.message, metadata={**answer.message.metadata, UNSENT_MEDIA: list(read)})
    return attrs.evolve(answer, message=message)


def _with_old_media(request: ModelRequest) -> Sequence[str]:
    """Return the ids of the messages with images or files that an earlier answer has read."""
    fresh = set(unread(request.messages))
    return tuple(message.message_id for message in request.messages if message.message_id not in fresh and has_media(message))


async def _shorter(
    pipeline: Pipeline, request: ModelRequest, most: float, context: TurnContext, *, asks_middleware: bool = True
) -> ModelRequest:
    """Return a request of at most about this many tokens, as far as that is possible."""
    if asks_middleware:
        for middleware, hook_context in pipeline.around_calls("shorten_request", context, context.turn_id):
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
