"""RetryPolicy: when a model is asked again."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.data.retries import RetryPolicy

_SECONDS = st.floats(0, 1e9) | st.sampled_from([0.0, 5e-324, 1.7e308, math.inf])
_COUNTS = st.integers(1, 5000) | st.just(math.inf)


def test_delay_after_when_failures_go_on() -> None:
    """Each wait is twice the one before, up to `max_delay`; after the last attempt there is none."""
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
    """A wait without end is none: the next model is asked."""
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
    """What is no number is refused when the policy is made."""
    with pytest.raises(TypeError, match=next(iter(settings))):
        RetryPolicy(**settings)
