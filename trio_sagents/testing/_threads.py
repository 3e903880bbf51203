"""Threads in lockstep with the event loop, so that a schedule decides about threads, too."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeVar

import outcome
import trio

T = TypeVar("T")
PATIENCE: Final = 10.0
"""How many real seconds a function in a thread may take."""


@contextlib.contextmanager
def lockstep_threads(rounds: Callable[[], int] = lambda: 1) -> Iterator[None]:
    """While the block is open, have `trio.to_thread.run_sync` wait for its thread at once, and then pass some scheduler rounds.

    The function still runs in another thread, but the event loop does nothing until the function has returned. So nothing depends on
    which thread is faster, and a virtual clock cannot jump meanwhile. A function that calls back into Trio fails, because the thread
    is not a thread of Trio.

    Args:
        rounds: how many scheduler rounds pass before a call returns.
    """
    original = trio.to_thread.run_sync
    with ThreadPoolExecutor(2, thread_name_prefix="lockstep") as pool:

        async def run_sync(  # type: ignore[explicit-any]  # the signature is that of Trio
            sync_fn: Callable[..., T],
            *args: Any,
            thread_name: str | None = None,
            abandon_on_cancel: bool = False,
            limiter: trio.CapacityLimiter | None = None,
        ) -> T:
            await trio.lowlevel.checkpoint_if_cancelled()
            limiter = trio.to_thread.current_default_thread_limiter() if limiter is None else limiter
            holder = object()
            await limiter.acquire_on_behalf_of(holder)
            try:
                call = pool.submit(copy_context().run, partial(sync_fn, *args))
                result = outcome.capture(call.result, PATIENCE)
                for _ in range(rounds()):
                    await trio.lowlevel.cancel_shielded_checkpoint()
            finally:
                limiter.release_on_behalf_of(holder)
            return result.unwrap()

        setattr(trio.to_thread, "run_sync", run_sync)  # noqa: B010  # restored below
        try:
            yield
        finally:
            setattr(trio.to_thread, "run_sync", original)  # noqa: B010  # as above
