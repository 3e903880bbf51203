"""Waiting in asyncio for what Trio does, in the same thread.

Trio says that something has happened by setting an `asyncio.Event`, which carries no exception: nothing can be "never retrieved". The
asyncio side waits for it through any number of cancellations, because what it waits for has been told to end and takes its time to do so.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext


def set_event(event: asyncio.Event) -> None:
    """Set an event. Does nothing more if the loop of those who wait for it is closed: they never run again."""
    try:
        event.set()
    except RuntimeError:
        if not event.is_set():
            raise


async def wait_through(event: asyncio.Event, on_cancel: Callable[[], object]) -> asyncio.CancelledError | None:
    """Wait for an event, however often the waiting task is cancelled meanwhile.

    Args:
        event: will be set soon after `on_cancel` was called, at the latest.
        on_cancel: synchronous; called at each cancellation.

    Returns:
        The first `CancelledError`, which the caller must raise; None if there was none.

    Cancellation: it is passed on to `on_cancel`, and returned.
    """
    first: asyncio.CancelledError | None = None
    try:
        while not event.is_set():
            try:
                with nullcontext() if first is None else _anyio_shield():
                    await event.wait()
            except asyncio.CancelledError as exc:  # noqa: ASYNC103  # returned to the caller, who raises it
                first = first or exc
                on_cancel()
            except BaseException:  # GeneratorExit: the coroutine is closed while it waits
                on_cancel()
                raise
        return first
    finally:
        del first  # the error holds this frame, which would hold the error


def _anyio_shield() -> AbstractContextManager[object]:
    """Return a shield against the cancelled scopes of anyio, if anyio is in use.

    Such a scope cancels its tasks again at each pass of the loop. Without the shield, waiting in one is a busy loop.
    """
    anyio = sys.modules.get("anyio")
    if anyio is None:
        return nullcontext()
    shield: AbstractContextManager[object] = anyio.CancelScope(shield=True)
    return shield
