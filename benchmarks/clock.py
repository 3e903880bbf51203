"""A clock that runs as usual, and can be put forward: what is due in minutes is due at once."""

import math
import time

import attrs
import trio


@attrs.define(eq=False)
class JumpingClock(trio.abc.Clock):
    """Real time, plus all jumps."""

    _offset: float = 0.0

    def start_clock(self) -> None:
        """Do nothing: real time runs."""

    def current_time(self) -> float:
        """Return the seconds since some moment."""
        return self._offset + time.perf_counter()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Return how long the loop may sleep."""
        return math.inf if deadline == math.inf else deadline - self.current_time()

    def jump(self, seconds: float) -> None:
        """Put it forward. The caller passes a checkpoint next, so the loop looks again."""
        self._offset += seconds


@attrs.define(eq=False)
class Passes(trio.abc.Instrument):
    """How long passes of the event loop are, in seconds of this thread's processor time: waiting for a core is not counted."""

    longest: float = 0.0
    count: int = 0
    _begin: float | None = None
    """When the pass began; None in the one in which the measuring begins."""

    def after_io_wait(self, timeout: float) -> None:
        """Note the beginning of a pass."""
        self._begin = time.thread_time()

    def before_io_wait(self, timeout: float) -> None:
        """Note the end of a pass."""
        if self._begin is not None:
            self.longest = max(self.longest, time.thread_time() - self._begin)
            self.count += 1
