"""How often something may happen: a bucket of tokens."""

import attrs


@attrs.define(eq=False)
class Rate:
    """Lets `burst` things happen at once, and `per_second` of them on average."""

    per_second: float
    burst: int
    _left: float = attrs.field(default=attrs.Factory(lambda self: float(self.burst), takes_self=True))
    _seen: float = 0.0

    def allows(self, now: float) -> bool:
        """Return whether another one may happen now, and count it."""
        self._left = min(float(self.burst), self._left + (now - self._seen) * self.per_second)
        self._seen = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
