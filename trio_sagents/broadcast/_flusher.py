"""The flusher: one task that wakes the readers of streamed text at most once in an interval, for all agents together.

With `SessionPolicy.flush_interval`, a delta that continues the message being spoken only marks its feed. Every other event, the first delta
of a part included, wakes at once, and then the reader takes what was marked, too. So only the wake-up of text is late, by at most the
interval; order, numbers and places are the same as without the flusher.

The flusher is a service: it ends after the last agent has published its `AgentShutdown`, which wakes readers immediately.
So the readers of every delta are woken.
"""

from typing import Final

import attrs
import trio

from trio_sagents.broadcast._feed import Feed

BATCH: Final = 64
"""Feeds whose readers are woken in one pass of the event loop: a thousand answers at the same time must not stall the loop."""


@attrs.define(eq=False)
class Flusher:
    """Wakes the readers of feeds that have new text, `interval` seconds after the first of it."""

    interval: float
    """Seconds; greater than 0."""
    _marked: dict[Feed, None] = attrs.field(factory=dict)
    """The feeds with text that no reader was woken for, in the order in which they were marked."""
    _woken: trio.Event | None = None
    """While the task waits for the first mark."""

    def mark(self, feed: Feed) -> None:
        """Note that a feed has new text. Synchronous."""
        self._marked[feed] = None
        if self._woken is not None:
            self._woken.set()
            self._woken = None

    async def run(self) -> None:
        """Wake readers until cancelled.

        Cancellation: readers of feeds that are marked are woken by the next event of their feed that is not a delta.
        """
        while True:
            if not self._marked:
                # No checkpoint between the look and the wait: a feed that is marked later finds the event.
                self._woken = trio.Event()
                await self._woken.wait()
            await trio.sleep(self.interval)
            marked, self._marked = self._marked, {}
            for number, feed in enumerate(marked, 1):
                feed.wake()
                if number % BATCH == 0:
                    await trio.lowlevel.checkpoint()
