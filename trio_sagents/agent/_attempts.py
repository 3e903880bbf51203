"""One model call that does not give up immediately: the same model again, then the fallbacks, each with the same request.

An attempt that failed is void. No tool of it has run, viewers are told to forget its text, and what was kept of the attempt is dropped;
only its usage counts. Whatever the turn has done before is not done again, because one attempt asks for one answer. The last attempt
of all is not void: if no model answered, the turn ends with the text of that attempt.

An answer that says nothing and calls nothing is a failed attempt, too.
"""

import functools
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._middleware import Pipeline, around_calls
from trio_sagents.agent._model import Model, ModelAnswer, name_of
from trio_sagents.agent._model_call import call_model
from trio_sagents.data.config import TurnLimits
from trio_sagents.data.events import ModelAnswered, ModelCalled, ModelError, ModelFallback, ModelRetrying
from trio_sagents.data.requests import ModelRequest
from trio_sagents.data.retries import RetryPolicy
from trio_sagents.exceptions import MiddlewareError, ModelFailed

EMPTY_ATTEMPTS: Final = 2
"""How often one model is asked if it gives empty answers; a third one would be empty, too."""


@attrs.frozen
class _Attempt:
    """One attempt: which model is asked, how often it was asked before, and the wait before this attempt."""

    models: Sequence[Model]
    """All models that may be asked, in order; at least one."""
    place: int = 0
    """The place of this attempt's model in `models`."""
    number: int = 1
    """Attempts of one model count from 1."""
    delay: float = 0.0
    """Seconds before the attempt."""
    empty_answers: int = 0
    """Empty answers of this model so far."""

    @property
    def model(self) -> Model:
        return self.models[self.place]

    def after(self, failed: "_Failed", policy: RetryPolicy) -> "_Attempt | None":
        """Return the attempt that follows this failed one; None if there is no model left to ask."""
        empty_answers = self.empty_answers + failed.is_empty
        is_retried = failed.error.retryable and empty_answers < EMPTY_ATTEMPTS
        delay = policy.delay_after(self.number, failed.error.retry_after) if is_retried else None
        if delay is not None:
            return attrs.evolve(self, number=self.number + 1, delay=delay, empty_answers=empty_answers)
        if self.place + 1 < len(self.models):
            return _Attempt(self.models, self.place + 1)
        return None


@attrs.frozen
class _Failed:
    """An attempt that gave no answer."""

    error: ModelFailed
    is_empty: bool = False
    """Whether the model gave an answer without any content."""


async def ask_models(pipeline: Pipeline, request: ModelRequest, context: TurnContext) -> ModelAnswer:
    """Ask the agent's model for one answer; ask again if it failed for the moment, and then ask each fallback.

    The debug channel gets `ModelCalled` before each attempt, `ModelAnswered` with its usage and duration after one that succeeded, and
    `ModelError` after one that failed. Everybody gets `ModelRetrying` before a wait, or `ModelFallback` before another model
    is asked. Before another model is asked, `before_fallback` of the middleware may give that model another request.

    Returns:
        The first answer. Its usage is that of all attempts together. Its message may be cut (`Message.cut`), but not empty.

    Raises:
        ModelFailed: the failure of the last attempt of the last model; its notes name the attempts before. The text of the last
            attempt stays in `context.progress.draft`.
        LimitExceeded: an answer is too long, or asks for too many tools; no model is asked for a shorter answer.
        MiddlewareError: `before_fallback` failed.

    Cancellation: either an attempt is cut, and its text stays in `context.progress.draft`, or a wait is cut, and there is no draft;
    no model is asked after that.
    """
    agent = pipeline.agent
    began = context.progress.usage
    _forget(context)  # an earlier answer of this round that a middleware did not take
    attempt = _Attempt((agent.model, *agent.fallbacks))
    notes: list[str] = []
    while True:
        asked = functools.partial(ModelCalled, name_of(attempt.model), request, attempt.number, context.turn_id)
        context.publish_debug(asked)
        before, since = context.progress.usage, trio.current_time()
        heard = await _hear(attempt.model, request, agent.limits, context)
        if isinstance(heard, ModelAnswer):
            spent, seconds = context.progress.usage - before, trio.current_time() - since
            told = functools.partial(ModelAnswered, name_of(attempt.model), heard.message.message_id, spent, seconds, context.turn_id)
            context.publish_debug(told)
            return attrs.evolve(heard, usage=context.progress.usage - began, model=name_of(attempt.model))
        error = heard.error
        context.publish(ModelError(error, context.turn_id), "debug")
        following = attempt.after(heard, agent.retry)
        if following is None:
            _add_notes(error, notes)
            try:
                raise error
            finally:
                del error, heard  # they hold this frame, which holds them
        notes.append(f"before that, attempt {attempt.number} of model {name_of(attempt.model)!r} failed: {error}")
        _move_on(error, attempt, following, context)
        if following.place != attempt.place:
            request = await _before_fallback(pipeline, request, error, following.model, context)
        del error, heard
        await trio.sleep(following.delay)
        attempt = following


async def _hear(model: Model, request: ModelRequest, limits: TurnLimits, context: TurnContext) -> ModelAnswer | _Failed:
    # A failure is returned as a value: raised later, or while its handler waits, it would be the context of later errors.
    try:
        answer = await call_model(model, request, limits, context)
    except ModelFailed as exc:
        return _Failed(exc)
    message = answer.message
    if (message.stop_reason == "stop" and not message.text.strip()) or (message.stop_reason == "continued" and not message.parts):
        empty = ModelFailed(f"the model {name_of(model)!r} gave an empty answer", kind="protocol")
        empty.source = f"model {name_of(model)!r}"
        return _Failed(empty, is_empty=True)
    return answer


async def _before_fallback(
    pipeline: Pipeline, request: ModelRequest, error: ModelFailed, model: Model, context: TurnContext
) -> ModelRequest:
    """Return the request for the next model, as the middleware wants it."""
    for middleware, hook_context in around_calls(pipeline, "before_fallback", context, context.turn_id):
        found = await pipeline.call(middleware, "before_fallback", hook_context, request, error, model)
        if not isinstance(found, ModelRequest):
            raise MiddlewareError(hook_context.middleware_id, "before_fallback") from TypeError(
                f"before_fallback must return a ModelRequest, not {found!r}"
            )
        request = found
    return request


def _move_on(error: ModelFailed, failed: _Attempt, following: _Attempt, context: TurnContext) -> None:
    draft = context.progress.draft
    assert draft is not None  # each call of a model begins a draft
    model, message_id, turn_id = name_of(failed.model), draft.message_id, context.turn_id
    _forget(context)
    if following.place == failed.place:
        context.publish(ModelRetrying(error, model, following.number, following.delay, message_id, turn_id))
    else:
        context.publish(ModelFallback(error, model, name_of(following.model), message_id, turn_id))


def _forget(context: TurnContext) -> None:
    """Drop the message being spoken: no snapshot shows it, and no crash brings it back."""
    if context.progress.draft is not None:
        context.progress.draft = None
        context.note_draft()


def _add_notes(error: ModelFailed, notes: Sequence[str]) -> None:
    known = getattr(error, "__notes__", ())
    for note in notes:
        if note not in known:  # an adapter may raise the same object several times
            error.add_note(note)
