"""One model call that does not give up at once: the same model again, then the fallbacks, each with the same request.

An attempt that failed is void. It is over before any of its tools could run, viewers are told to forget its text, and what
was kept of it is dropped; only its usage counts. What the turn has done before is not done again, for this asks for one answer.
The last attempt of all is not void: where nobody answered, its words are what the turn ends with.
"""

from collections.abc import Sequence

import attrs
import trio

from trio_sagents.agent._agent import Agent
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._model import Model, ModelAnswer
from trio_sagents.agent._model_call import call_model, name_of
from trio_sagents.data.config import TurnLimits
from trio_sagents.data.events import ModelError, ModelFallback, ModelRetrying
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.requests import ModelRequest
from trio_sagents.data.retries import RetryPolicy
from trio_sagents.exceptions import ModelFailed


@attrs.frozen
class _Attempt:
    """One attempt: which model, for the how many-th time, after how long a wait."""

    models: Sequence[Model]
    """All that may be asked, in order; at least one."""
    place: int = 0
    """Of this attempt's model in `models`."""
    number: int = 1
    """Attempts of one model count from 1."""
    delay: float = 0.0
    """Seconds before it."""

    @property
    def model(self) -> Model:
        return self.models[self.place]

    def after(self, error: ModelFailed, policy: RetryPolicy) -> "_Attempt | None":
        """Return the attempt that follows this one, which failed; None where nobody is left to ask."""
        delay = policy.delay_after(self.number, error.retry_after) if error.retryable else None
        if delay is not None:
            return attrs.evolve(self, number=self.number + 1, delay=delay)
        if self.place + 1 < len(self.models):
            return _Attempt(self.models, self.place + 1)
        return None


async def ask_models(agent: Agent, request: ModelRequest, context: TurnContext) -> ModelAnswer:
    """Ask the agent's model for one answer; again where it failed for the moment, then each of its fallbacks.

    `ModelError` (debug) goes out for each failure, then `ModelRetrying` before a wait, or `ModelFallback` before another model
    is asked.

    Returns:
        The first whole answer. Its usage is that of all attempts together.

    Raises:
        ModelFailed: of the last attempt of the last model, its notes naming the attempts before it; what that one had said
            stays in `context.progress.draft`.
        LimitExceeded: an answer is too long, or asks for too many tools; nobody is asked for a shorter one.

    Cancellation: either an attempt is cut, and what it had said stays in `context.progress.draft`, or a wait is, and there is
    no draft; nobody is asked after it.
    """
    began = context.progress.usage
    _forget(context)  # an earlier answer of this round, where a middleware did not take it
    attempt = _Attempt((agent.model, *agent.fallbacks))
    notes: list[str] = []
    while True:
        heard = await _hear(attempt.model, request, agent.limits, context)
        if isinstance(heard, ModelAnswer):
            return attrs.evolve(heard, usage=_difference(context.progress.usage, began), model=name_of(attempt.model))
        context.publish(ModelError(heard, context.turn_id), "debug")
        following = attempt.after(heard, agent.retry)
        if following is None:
            _add_notes(heard, notes)
            try:
                raise heard
            finally:
                del heard  # it holds this frame, which holds it
        notes.append(f"before that, attempt {attempt.number} of model {name_of(attempt.model)!r} failed: {heard}")
        _move_on(heard, attempt, following, context)
        del heard
        await trio.sleep(following.delay)
        attempt = following


async def _hear(model: Model, request: ModelRequest, limits: TurnLimits, context: TurnContext) -> ModelAnswer | ModelFailed:
    # A failure is handed back as a value: raised later, or while its handler waits, it would be the context of what comes then.
    try:
        return await call_model(model, request, limits, context)
    except ModelFailed as exc:
        return exc


def _move_on(error: ModelFailed, failed: _Attempt, following: _Attempt, context: TurnContext) -> None:
    draft = context.progress.draft
    assert draft is not None  # each call of a model begins one
    model, message_id, turn_id = name_of(failed.model), draft.message_id, context.turn_id
    _forget(context)
    if following.place == failed.place:
        context.publish(ModelRetrying(error, model, following.number, following.delay, message_id, turn_id))
    else:
        context.publish(ModelFallback(error, model, name_of(following.model), message_id, turn_id))


def _forget(context: TurnContext) -> None:
    """Void the message being spoken: no snapshot shows it, and no crash brings it back."""
    if context.progress.draft is not None:
        context.progress.draft = None
        context.note_draft()


def _add_notes(error: ModelFailed, notes: Sequence[str]) -> None:
    known = getattr(error, "__notes__", ())
    for note in notes:
        if note not in known:  # an adapter may raise one object again and again
            error.add_note(note)


def _difference(now: Usage, then: Usage) -> Usage:
    return Usage(
        now.input_tokens - then.input_tokens,
        now.output_tokens - then.output_tokens,
        now.cache_read_tokens - then.cache_read_tokens,
        now.cache_write_tokens - then.cache_write_tokens,
    )
