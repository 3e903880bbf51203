"""One task that keeps the time for everybody, in buckets.

A timer lies in the bucket of its tick until the tick has passed; setting and cancelling one is a dictionary operation, at any
number of timers. Nothing is done when what a timer guards is renewed: when it is due, its callback looks whether it still has
to act, and may ask to be called again later. So no pass of the event loop is ever spent on sorting deadlines.
"""

import heapq
import math
from collections.abc import Callable
from typing import Final

import attrs
import trio

TICK: Final = 1 / 16
"""Seconds by which a timer may be late."""
BATCH: Final = 32
"""Callbacks in one pass of the event loop: ten thousand that are due at once must not stall it."""


@attrs.define(eq=False)
class Timer:
    """One callback with the time at which it is called."""

    deadline: float
    callback: Callable[[], float | None]
    _bucket: "dict[Timer, None]"

    def cancel(self) -> None:
        """Cancel the timer. Does nothing if its callback was called, or if the timer was cancelled before."""
        self._bucket.pop(self, None)


@attrs.define(eq=False)
class Timers:
    """Calls synchronous callbacks at Trio clock times, at most `TICK` late."""

    _buckets: dict[int, dict[Timer, None]] = attrs.field(factory=dict)
    _ticks: list[int] = attrs.field(factory=list)
    # Invariant: a heap of exactly the keys of _buckets.
    _sleep: trio.CancelScope | None = None
    """The scope in which `run` sleeps, until the first tick."""

    def call_at(self, deadline: float, callback: Callable[[], float | None]) -> Timer | None:
        """Call `callback` at `deadline` or up to `TICK` later; `math.inf` is never, and gives None.

        The callback returns the next deadline at which it wants to be called, or None. It must not raise.
        """
        if deadline == math.inf:
            return None
        tick = math.ceil(deadline / TICK)
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = {}
            heapq.heappush(self._ticks, tick)
            if self._sleep is not None and tick * TICK < self._sleep.deadline:
                self._sleep.deadline = tick * TICK
        timer = Timer(deadline, callback, bucket)
        bucket[timer] = None
        return timer

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.values())

    async def run(self) -> None:
        """Keep the time until cancelled."""
        while True:
            self._call_due()
            if self._ticks and self._ticks[0] * TICK <= trio.current_time():
                await trio.lowlevel.checkpoint()
                continue
            # No checkpoint between the look at the ticks and the sleep: a timer that is set later finds the scope.
            with trio.CancelScope(deadline=self._ticks[0] * TICK if self._ticks else math.inf) as self._sleep:
                await trio.sleep_forever()
            self._sleep = None

    def _call_due(self) -> None:
        now = trio.current_time()
        called = 0
        while self._ticks and self._ticks[0] * TICK <= now:
            bucket = self._buckets[self._ticks[0]]
            if not bucket:
                del self._buckets[heapq.heappop(self._ticks)]
                continue
            if called == BATCH:
                return
            called += 1
            timer, _ = bucket.popitem()  # from the end: a dict that is emptied from its front is searched through its holes
            again = timer.callback()
            if again is not None:
                self.call_at(max(again, now + TICK), timer.callback)
