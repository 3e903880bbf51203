"""What events say was spent, at the prices of the host."""

from typing import Any

import pytest

from trio_sagents import CancelCause, Cancelled, Envelope, Event, ModelAnswered, SubAgentEvent, TurnEnded, TurnStarted, Usage
from trio_sagents.web._prices import PriceList

TABLE = {"large": (2.0, 10.0), "small": (1, 5)}
SPENT = Usage(1_000_000, 100_000, 500_000, 500_000)


def told(event: Event) -> Envelope:
    return Envelope("a", "c", "main", 1, 1, event, "i")


def ended(**spent: Usage) -> Envelope:
    return told(TurnEnded("t", Cancelled(CancelCause.USER), usage_by_model=spent))


def answered(model: str) -> Envelope:
    return told(ModelAnswered(model, "m", SPENT, 1.0, "t"))


def test_cost_when_there_is_a_table() -> None:
    """A call, a call of a sub-agent and a turn cost what their tokens cost; tokens of a cache count as input."""
    prices = PriceList(TABLE)
    counts = {"type": "Usage", "input_tokens": 1_000_000, "output_tokens": 0, "cache_read_tokens": 0, "cache_write_tokens": 0}
    inner = told(SubAgentEvent("call-1", "worker", {"type": "ModelAnswered", "model": "small", "usage": counts}))

    assert (5.0, 1.0) == (prices.cost_of(answered("large")), prices.cost_of(inner))
    assert 5.0 + 2.5 == prices.cost_of(ended(large=SPENT, small=SPENT))
    assert 0 == prices.cost_of(ended())
    assert None is prices.cost_of(told(TurnStarted("t")))


def test_cost_when_a_price_is_unknown() -> None:
    """A sum that lacks a price would be too low, so there is none."""
    prices = PriceList(TABLE)

    assert None is prices.cost_of(answered("other"))
    assert None is prices.cost_of(ended(large=SPENT, other=SPENT))


def test_cost_when_there_are_no_prices() -> None:
    """Without prices nothing is told, and no currency."""
    assert (None, None) == (PriceList().cost_of(answered("large")), PriceList().shown)


def test_cost_when_a_function_says_it(caplog: pytest.LogCaptureFixture) -> None:
    """A function is asked for each model; if it raises, there is no cost, and the log has the error."""
    costs = {"large": 3.0, "unknown": None}
    prices = PriceList(lambda name, usage: costs[name], "EUR")

    assert (3.0, None, "EUR") == (prices.cost_of(answered("large")), prices.cost_of(answered("unknown")), prices.shown)
    assert None is prices.cost_of(answered("missing"))
    assert "the function of prices failed for the model 'missing'" in caplog.text
    caplog.clear()


@pytest.mark.parametrize(
    ("prices", "currency"),
    [(7, "USD"), ({"a": 3}, "USD"), ({"a": (1,)}, "USD"), ({"a": (-1, 2)}, "USD"), ({"a": (1, float("nan"))}, "USD"),
     ({"a": ("1", 2)}, "USD"), ({}, "dollars"), ({}, 7), ({}, "$$$")],
)  # fmt: skip
def test_prices_when_they_are_wrong(prices: Any, currency: Any) -> None:
    """Prices that are none are refused at once, with what they have to be."""
    with pytest.raises((TypeError, ValueError), match="prices|currency"):
        PriceList(prices, currency)
