"""RetryPolicy decides when a model is asked again; ask_models decides which model is asked, and what is left of a failed attempt."""

import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.agent import Agent, Pipeline, Progress
from trio_sagents.agent._attempts import ask_models
from trio_sagents.data.events import Event, ModelError, ModelFallback, ModelRetrying, TextDelta
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.requests import FinishChunk, ModelRequest, TextChunk, UsageChunk
from trio_sagents.data.retries import RetryPolicy
from trio_sagents.exceptions import ModelFailed

_SECONDS = st.floats(0, 1e9) | st.sampled_from([0.0, 5e-324, 1.7e308, math.inf])
_COUNTS = st.integers(1, 5000) | st.just(math.inf)


def test_delay_after_when_failures_go_on() -> None:
    """Each wait is twice the wait before, up to `max_delay`. After the last attempt there is no wait."""
    policy = RetryPolicy(attempts=7, first_delay=0.5, max_delay=5)

    assert [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, None, None] == [policy.delay_after(failures) for failures in range(1, 9)]


def test_delay_after_when_the_policy_is_the_default() -> None:
    """A model is asked three times, after one and two seconds."""
    assert [1.0, 2.0, None] == [RetryPolicy().delay_after(failures) for failures in (1, 2, 3)]


def test_delay_after_when_there_is_one_attempt() -> None:
    """One attempt is never again, whatever the provider proposes."""
    assert RetryPolicy(attempts=1).delay_after(1) is None
    assert RetryPolicy(attempts=1).delay_after(1, 0.0) is None


@pytest.mark.parametrize(
    ("retry_after", "delay"),
    [(0.0, 0.0), (0.25, 0.25), (10.0, 10.0), (10.001, None), (1e9, None), (math.inf, None), (-3.0, 0.0), (math.nan, 1.0), (None, 1.0)],
)
def test_delay_after_when_the_provider_names_one(retry_after: float | None, delay: float | None) -> None:
    """What the provider asks for is waited for exactly; more than `max_delay` is not waited for at all."""
    assert delay == RetryPolicy(max_delay=10).delay_after(1, retry_after)


@pytest.mark.parametrize("settings", [{"first_delay": math.inf, "max_delay": math.inf}, {"max_delay": math.inf}], ids=str)
def test_delay_after_when_a_wait_would_have_no_end(settings: dict[str, float]) -> None:
    """A wait without an end is not waited: the next model is asked."""
    assert RetryPolicy(**settings).delay_after(1, math.inf) is None
    assert (RetryPolicy(**settings).delay_after(1) is None) == ("first_delay" in settings)


@given(_COUNTS, _SECONDS, _SECONDS, st.integers(1, 10_000))
def test_delay_after_when_compared_with_its_neighbour(attempts: Any, first: float, most: float, failures: int) -> None:
    """Waits never shrink, never exceed `max_delay`, are finite, and end with the attempts; no policy breaks the arithmetic."""
    policy = RetryPolicy(attempts=attempts, first_delay=first, max_delay=most)
    delay, following = policy.delay_after(failures), policy.delay_after(failures + 1)

    if failures >= attempts or math.isinf(min(first, most)):
        assert delay is None
    elif delay is not None:
        assert 0 <= delay <= most
        assert math.isfinite(delay)
        assert following is None or following >= delay


@pytest.mark.parametrize(
    "settings",
    [{"attempts": 0}, {"attempts": -1}, {"first_delay": -1}, {"first_delay": math.nan}, {"max_delay": -0.1}, {"max_delay": math.nan}],
    ids=str,
)
def test_policy_when_out_of_range(settings: dict[str, Any]) -> None:
    """A policy that makes no sense is refused when it is made, and the field is named."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        RetryPolicy(**settings)


@pytest.mark.parametrize("settings", [{"attempts": True}, {"attempts": 1.5}, {"first_delay": "1"}, {"max_delay": None}], ids=str)
def test_policy_when_of_the_wrong_type(settings: dict[str, Any]) -> None:
    """A value that is not a number is refused when the policy is made."""
    with pytest.raises(TypeError, match=next(iter(settings))):
        RetryPolicy(**settings)


# ── ask_models


@attrs.define(eq=False)
class Context:
    """What `ask_models` needs of a `TurnContext`."""

    turn_id: str = "t"
    progress: Progress = attrs.field(factory=Progress)
    max_message_bytes: float = math.inf
    events: list[Event] = attrs.field(factory=list)
    debugged: list[Event] = attrs.field(factory=list)
    forgotten: int = 0
    """How often a draft was voided."""
    _ids: Iterator[int] = attrs.field(factory=itertools.count)

    def publish(self, event: Event, channel: str = "main") -> None:
        assert (channel == "debug") == isinstance(event, ModelError)
        self.events.append(event)

    def publish_delta(self, kind: Any, text: str, message_id: str, part: int, offset: int) -> None:
        self.publish(kind(text, message_id, part, offset, self.turn_id))

    def publish_debug(self, make: Callable[[], Event]) -> None:
        self.debugged.append(make())

    def note_draft(self) -> None:
        self.forgotten += self.progress.draft is None

    def new_id(self) -> str:
        return f"id-{next(self._ids)}"

    def knows_call(self, call_id: str) -> bool:
        return False


@attrs.define(eq=False)
class Planned:
    """A model whose answers are planned: "ok", or a `ModelFailed` after some words."""

    name: Any
    plan: Sequence[Any]
    times: list[float] = attrs.field(factory=list)

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Any]]:
        async def say() -> AsyncIterator[Any]:
            await trio.lowlevel.checkpoint()
            yield UsageChunk(Usage(1, 1))
            yield TextChunk(f"{self.name} {len(self.times)}")
            if isinstance(planned, ModelFailed):
                raise planned
            yield FinishChunk("stop")

        planned = self.plan[len(self.times)]
        self.times.append(trio.current_time())
        yield say()


_FAILURES = st.builds(
    lambda retryable, retry_after: ModelFailed("no", retryable=retryable, retry_after=retry_after),
    st.booleans(),
    st.none() | st.sampled_from([0.0, 3.0, 8.0, 9.0]),
)
_PLANS = st.lists(st.lists(_FAILURES | st.just("ok"), min_size=3, max_size=3), min_size=1, max_size=3)


@given(_PLANS, st.integers(1, 3))
def test_ask_models_when_compared_with_its_rules(plans: list[list[Any]], attempts: int) -> None:
    """Whatever fails: the models, times, waits, events and usage are those of the rules, written again as a plain loop."""
    policy = RetryPolicy(attempts=attempts, first_delay=2, max_delay=8)
    models = [Planned(f"m{place}", plan) for place, plan in enumerate(plans)]
    expected: list[list[float]] = [[] for _ in plans]
    told: list[type[Event]] = []
    clock, answered = 0.0, None
    for place, plan in enumerate(plans):
        for number, attempt in enumerate(plan[:attempts], 1):
            expected[place].append(clock)
            if attempt == "ok":
                answered = f"m{place} {number}"
                break
            delay = 2.0**number if attempt.retry_after is None else attempt.retry_after
            if not attempt.retryable or delay > 8 or number == attempts:
                break
            told += [ModelError, ModelRetrying]
            clock += delay
        if answered:
            break
        told += [ModelError, *([ModelFallback] if place + 1 < len(plans) else [])]
    context = Context()

    async def run() -> Any:
        agent = Agent(model=models[0], fallbacks=models[1:], retry=policy)
        try:
            return await ask_models(Pipeline(agent), ModelRequest("", ()), context)  # type: ignore[arg-type]  # all that is used of it
        except ModelFailed as exc:
            return exc

    outcome = trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    asked = sum(map(len, expected))

    assert expected == [model.times for model in models]
    assert told == [type(event) for event in context.events if not isinstance(event, TextDelta)]
    assert Usage(asked, asked) == context.progress.usage
    assert asked - 1 == context.forgotten
    assert context.progress.draft is not None
    if answered is None:
        assert isinstance(outcome, ModelFailed)
        assert asked - 1 == len(outcome.__notes__ if asked > 1 else [])
    else:
        assert (answered, Usage(asked, asked)) == (outcome.message.text, outcome.usage)
        assert context.progress.draft.message_id == outcome.message.message_id
    ids = [event.message_id for event in context.events if isinstance(event, TextDelta)]
    assert ids[: asked - 1] == [event.message_id for event in context.events if isinstance(event, ModelRetrying | ModelFallback)]
    assert len(set(ids)) == asked


async def test_ask_models_when_an_earlier_answer_was_not_taken(autojump_clock: Any) -> None:
    """Asked twice in a round, as a middleware may do, the answer that was not taken is forgotten; each usage is its own."""
    context = Context()
    agent = Agent(model=Planned("m", ["ok", "ok"]))
    first, second = [await ask_models(Pipeline(agent), ModelRequest("", ()), context) for _ in range(2)]  # type: ignore[arg-type]  # as above

    assert 1 == context.forgotten
    assert (Usage(1, 1), Usage(1, 1), Usage(2, 2)) == (first.usage, second.usage, context.progress.usage)


@pytest.mark.parametrize("name", [None, 7, b"m"])
async def test_ask_models_when_a_model_has_no_name(autojump_clock: Any, name: Any) -> None:
    """A model without a name is called by its class."""
    context = Context()
    agent = Agent(model=Planned(name, [ModelFailed("no", retryable=True), "ok"]))
    await ask_models(Pipeline(agent), ModelRequest("", ()), context)  # type: ignore[arg-type]  # as above

    assert ["Planned"] == [event.model for event in context.events if isinstance(event, ModelRetrying)]
