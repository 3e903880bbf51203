"""Signals while Trio is a guest.

SIGINT must not raise KeyboardInterrupt in the middle of a step of Trio: that tears the run apart. So our own handler takes the signal,
and the host's handler is called by the loop, between two steps. Trio's own handler is not installed, because ours is there first.

Other handlers are chained: a callback runs in the loop, and the host's handler is called as before.
"""

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final, TypeAlias

import attrs

Handler: TypeAlias = Callable[[int, FrameType | None], object]
SHUTDOWN_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
"""The signals that shut a server down."""


def handler_of(number: int) -> Handler | None:
    """Return the function that handles a signal; None if it is not Python's to handle, or if this is not the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None
    found: object = signal.getsignal(number)
    return found if callable(found) else None  # SIG_DFL and SIG_IGN are not callable


@attrs.define(eq=False)
class Interrupts:
    """Holds SIGINT while a guest run is there."""

    _loop: asyncio.AbstractEventLoop
    _host: Handler | None = None
    _ours: Handler | None = None
    _is_pending: bool = False
    """Whether a signal waits for the loop to come to it."""

    def take(self) -> None:
        """Handle SIGINT from now on. Call this before the guest run starts: Trio takes the signal if it finds the default handler."""
        host = self._host = handler_of(signal.SIGINT)
        if host is None:
            return

        def deliver(number: int) -> None:
            self._is_pending = False
            host(number, None)

        def handle(number: int, frame: FrameType | None) -> None:
            # If a second signal arrives before the loop has come to the first, the loop is stuck: the host is told at once.
            if self._is_pending or not self._loop.is_running():
                host(number, frame)
            else:
                self._is_pending = True
                self._loop.call_soon_threadsafe(deliver, number)

        self._ours = handle
        signal.signal(signal.SIGINT, handle)

    def give_back(self) -> None:
        """Restore the host's handler, unless somebody else has replaced ours."""
        ours, host, self._ours, self._host = self._ours, self._host, None, None
        if ours is None or host is None or handler_of(signal.SIGINT) is not ours:
            return
        signal.signal(signal.SIGINT, signal.default_int_handler if _is_stale(host) else host)


def _is_stale(handler: Handler) -> bool:
    """Return whether a handler is that of an `asyncio.Runner` whose main task is done: it would cancel nothing, and say nothing."""
    function = getattr(getattr(handler, "func", None), "__func__", None)
    if function is None or function is not getattr(asyncio.Runner, "_on_sigint", None):
        return False
    keywords = getattr(handler, "keywords", {})
    main_task = keywords.get("main_task")
    return isinstance(main_task, asyncio.Task) and main_task.done()


@attrs.define(eq=False)
class Chained:
    """A callback that is called in the loop when a signal arrives, besides what the host does."""

    _number: int
    _loop: asyncio.AbstractEventLoop
    callback: Callable[[], object] | None
    """None when this has ended."""
    host: Handler | None = None
    """The handler that was there before."""

    def begin(self) -> bool:
        """Chain the callback before the host's handler. Returns False if the host has no handler: then the signal is left alone."""
        self.host = handler_of(self._number)
        if self.host is None:
            return False
        signal.signal(self._number, self._handle)
        return True

    def end(self) -> None:
        """Restore the host's handler. If somebody has chained another one since, ours stays until that one ends, and calls the host's."""
        self.callback = None
        if handler_of(self._number) != self._handle:
            return
        host: Handler | None = self._handle
        while isinstance(chained := getattr(host, "__self__", None), Chained) and chained.callback is None:
            host = chained.host
        signal.signal(self._number, host)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.callback is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.callback)
        if self.host is not None:
            self.host(number, frame)
