"""When a model that failed for the moment is asked again."""

import math
from typing import Final

import attrs

from trio_sagents.data.config import count_validator, seconds_validator

_DOUBLINGS: Final = 1000
"""More doublings would not fit into a float, even if the first wait is short."""


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """Retries of one model call. Only a `ModelFailed` that is `retryable` is retried; tools are never run again.

    An empty answer is asked for once more, if `attempts` allows that. The waits have no jitter: the same failures give the same waits.
    """

    attempts: int = attrs.field(default=3, validator=count_validator())
    """How often one model is asked in all; 1 disables retries."""
    first_delay: float = attrs.field(default=1.0, validator=seconds_validator())
    """Seconds before the second attempt; each further attempt waits twice as long."""
    max_delay: float = attrs.field(default=30.0, validator=seconds_validator())
    """The longest wait, in seconds. A provider that asks for more (`Retry-After`) is not asked again; the next model is."""

    def delay_after(self, failures: int, retry_after: float | None = None) -> float | None:
        """Return the seconds until the same model is asked again; None if it is not asked again.

        Args:
            failures: how often in a row the model has failed in this call; at least 1.
            retry_after: the wait that the provider asked for, in seconds; None, or NaN, if it named no wait.
        """
        if failures >= self.attempts:
            return None
        if retry_after is not None and not math.isnan(retry_after):
            # The provider would refuse an earlier request, so this wait is not shortened to `max_delay`.
            delay = max(0.0, retry_after)
            return None if delay > self.max_delay or math.isinf(delay) else delay
        delay = min(self.max_delay, self.first_delay * 2.0 ** min(failures - 1, _DOUBLINGS))
        return None if math.isinf(delay) else delay
