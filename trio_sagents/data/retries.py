"""How a model that failed for the moment is asked again."""

import math
from typing import Final

import attrs

from trio_sagents.data.config import count_validator, seconds_validator

_DOUBLINGS: Final = 1000
"""More would not fit into a float, whatever the first wait is."""


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """Retries of one model call. Only what is `ModelFailed(retryable=True)` is retried; tools are never run again.

    The waits have no jitter: the same failures give the same waits.
    """

    attempts: int = attrs.field(default=3, validator=count_validator())
    """How often one model is asked in all; 1 is never again."""
    first_delay: float = attrs.field(default=1.0, validator=seconds_validator())
    """Seconds before the second attempt; each further one waits twice as long."""
    max_delay: float = attrs.field(default=30.0, validator=seconds_validator())
    """Seconds that one wait has at most; a provider that asks for more (`Retry-After`) is not asked again, but the next model is."""

    def delay_after(self, failures: int, retry_after: float | None = None) -> float | None:
        """Return the seconds until the same model is asked again; None where it is not.

        Args:
            failures: how often in a row the model has failed in this call; at least 1.
            retry_after: what its provider asked for, in seconds; None, or nonsense such as NaN, where it named nothing.
        """
        if failures >= self.attempts:
            return None
        if retry_after is not None and not math.isnan(retry_after):
            # Asked earlier than that, it would refuse again; so this is not shortened to `max_delay`.
            delay = max(0.0, retry_after)
            return None if delay > self.max_delay or math.isinf(delay) else delay
        delay = min(self.max_delay, self.first_delay * 2.0 ** min(failures - 1, _DOUBLINGS))
        return None if math.isinf(delay) else delay
