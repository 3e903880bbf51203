"""What model calls cost, at the prices of the host. Nothing is known here of any provider's prices."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias, cast

import attrs

from trio_sagents import Envelope, ModelAnswered, SubAgentEvent, TurnEnded, Usage

log: Final = logging.getLogger("trio_sagents.web")
MILLION: Final = 1_000_000
Prices: TypeAlias = Mapping[str, tuple[float, float]] | Callable[[str, Usage], float | None]
"""By the name of a model, (input, output) per million tokens; or a function from a model's name and a `Usage` to the cost, or to None if it
does not know the model. As `Budget.prices`."""


def _table(given: object) -> Prices:
    if callable(given):
        return cast("Callable[[str, Usage], float | None]", given)
    if not isinstance(given, Mapping):
        raise TypeError(f"prices must be a mapping by model name, or a function of a name and a Usage, not {type(given).__name__}")
    for name, price in given.items():
        is_pair = isinstance(price, tuple | list) and len(price) == 2
        if not is_pair or not all(isinstance(part, int | float) and 0 <= part < math.inf for part in price):
            raise ValueError(f"prices[{name!r}] must be (input, output) per million tokens, not {price!r}")
    return {str(name): (float(price[0]), float(price[1])) for name, price in given.items()}


def _currency(_list: object, _attribute: object, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"currency must be a str, not {type(value).__name__}")
    if len(value) != 3 or not value.isascii() or not value.isalpha():
        raise ValueError(f'currency must be three letters of ISO 4217, such as "USD", not {value!r}')


@attrs.frozen
class PriceList:
    """The prices of a host. Without any, nothing costs anything that is shown."""

    prices: Prices = attrs.field(factory=dict, converter=_table, repr=False)
    currency: str = attrs.field(default="USD", validator=_currency)

    @property
    def shown(self) -> str | None:
        """The currency, for a page; None if there are no prices."""
        return self.currency if callable(self.prices) or self.prices else None

    def cost_of(self, envelope: Envelope) -> float | None:
        """Return what an event says was spent; None if it says nothing of that, or if a price is not known."""
        if self.shown is None:
            return None
        match envelope.event:
            case TurnEnded(usage_by_model=spent):
                return self._sum(spent.items())
            case ModelAnswered(model=model, usage=usage):
                return self._sum([(model, usage)])
            case SubAgentEvent(data={"type": "ModelAnswered", "model": str(model), "usage": Mapping() as counts}):
                return self._sum([(model, _usage_in(counts))])
            case _:
                return None

    def _sum(self, spent: Iterable[tuple[str, Usage]]) -> float | None:
        costs = [self._cost(name, usage) for name, usage in spent]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    def _cost(self, name: str, usage: Usage) -> float | None:
        if not isinstance(self.prices, Mapping):
            try:
                return self.prices(name, usage)
            except Exception:
                # The boundary to a function of the host: without a price a page shows no cost, and must not lose its events for it.
                log.exception("the function of prices failed for the model %r", name)
                return None
        if (price := self.prices.get(name)) is None:
            return None
        return ((sum(usage.counts) - usage.output_tokens) * price[0] + usage.output_tokens * price[1]) / MILLION


def _usage_in(counts: Mapping[str, object]) -> Usage:
    """Return the usage in an event of a sub-agent, which is JSON already."""
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    numbers = [counts.get(name) for name in names]
    return Usage(*(number if isinstance(number, int) else 0 for number in numbers))
