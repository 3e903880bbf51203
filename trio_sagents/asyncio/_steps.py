"""The steps of Trio, run by the loop of asyncio.

Trio hands over one step at a time, in the thread of the loop or in its helper thread, which waits for input and for time. A loop that is
closed refuses steps, and drops the one that it has. They are kept: whoever comes next in this thread runs them, so that the agents settle
and the thread can run Trio again.
"""

import asyncio
import logging
import queue
import sys
import time
from collections.abc import Callable
from typing import Final

import attrs
import trio

from trio_sagents.data.json import Opaque

PAGE: Final = "docs/how-to/asyncio.md"
"""The page about asyncio."""
LATE: Final = 1.0
"""Seconds by which a wake-up of Trio may be late before a warning is logged."""
BETWEEN_WARNINGS: Final = 60.0
log: Final = logging.getLogger("trio_sagents")


@attrs.define(eq=False)
class Steps:
    """The steps of one guest run."""

    _loop: asyncio.AbstractEventLoop
    _next: Callable[[], None] | None = None
    # Invariant: the step that was handed to the loop and has not run; None while there is none. A step runs once.
    _stranded: "queue.SimpleQueue[Callable[[], object]]" = attrs.field(factory=queue.SimpleQueue, repr=False)
    """Steps that the closed loop has refused."""
    _hooks: tuple[Opaque, Opaque] = (None, None)
    """How Trio wants async generators to be finalised."""
    _stepped_at: float = attrs.field(factory=time.monotonic)
    _warned_at: float = -BETWEEN_WARNINGS

    def keep_hooks(self) -> None:
        """Keep the hooks for async generators that Trio has installed just now."""
        self._hooks = sys.get_asyncgen_hooks()

    def schedule(self, fn: Callable[[], object]) -> None:
        """Have the loop run a step. Call it in the thread of the loop."""
        self._schedule(self._loop.call_soon, fn)

    def schedule_threadsafe(self, fn: Callable[[], object]) -> None:
        """Have the loop run a step. Call it in any thread."""
        self._schedule(self._loop.call_soon_threadsafe, fn)

    def _schedule(self, soon: Callable[[Callable[[], None]], object], fn: Callable[[], object]) -> None:
        def step() -> None:
            if self._next is not step:
                return
            self._next = None
            if sys.get_asyncgen_hooks() != self._hooks:  # each `run_until_complete` puts the loop's own hooks back
                sys.set_asyncgen_hooks(*self._hooks)
            self._check_lateness()
            fn()

        self._next = step
        try:
            soon(step)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            self._stranded.put(step)

    def _check_lateness(self) -> None:
        """Log a warning if Trio is woken much too late: the host keeps the thread, or the interpreter lock, to itself."""
        now = time.monotonic()
        if now - self._stepped_at >= LATE and now - self._warned_at >= BETWEEN_WARNINGS:
            late = -trio.lowlevel.current_statistics().seconds_to_next_deadline
            if late >= LATE:
                self._warned_at = now
                log.warning(
                    "the agents were woken %.1f s late: the asyncio loop of this thread is busy, or was blocked; see %s, 'Limits'",
                    late,
                    PAGE,
                )
        self._stepped_at = now

    def drive(self, is_over: Callable[[], bool]) -> None:
        """Run the steps here until the run is over. Only if the loop is closed."""
        hooks = sys.get_asyncgen_hooks()
        if self._next is not None:
            self._stranded.put(self._next)  # the loop has dropped it
        while not is_over():
            self._stranded.get()()
        sys.set_asyncgen_hooks(*hooks)
