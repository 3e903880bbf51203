"""`open_sessions` for asyncio: the block, and how it ends.

    left normally             agents may finish within their grace; a cancellation meanwhile cuts them
    left by an error          agents are cut with the cause `host_failed`; the error leaves the block as that object
    left by a cancellation    agents are cut with the cause `host_cancelled`
    the sessions crash        the task that entered the block is cancelled, as a nursery would do; the crash leaves the block

Whatever happens, the block is left only when every agent has ended, and the last block of a loop ends the run of Trio.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType

import attrs

import trio_sagents
from trio_sagents import SessionConfig, SessionsClosed
from trio_sagents._trio.groups import unwrap
from trio_sagents.asyncio._block import Block
from trio_sagents.asyncio._guest import Guest
from trio_sagents.asyncio._job import Held, HostFailed
from trio_sagents.asyncio._sessions import Sessions
from trio_sagents.sessions import ScopeOf


def open_sessions(config: SessionConfig, *, recover: bool | ScopeOf = False) -> AbstractAsyncContextManager[Sessions]:
    """Open the sessions of one application, in its asyncio loop; leaving the block ends every agent.

    Trio runs as a guest of the loop, in the same thread, for as long as a block is open. Tools, factories, stores and middleware are code
    of Trio, also here; `call_asyncio` takes them to asyncio and back.

    The block ends as that of `trio_sagents.open_sessions`: left normally, turns may finish for `policy.grace_period`; after an error or a
    cancellation they are cut and settled at once. If an agent raised `KeyboardInterrupt` or `SystemExit`, the task that entered the block
    is cancelled, and that error leaves the block. The block may be left by another task than the one that entered it.

    Args:
        config: the settings.
        recover: whether conversations that a crash has cut are started; as of `trio_sagents.open_sessions`. A function runs in Trio.

    Raises:
        RuntimeError: no asyncio loop is running here, this is a task of Trio, or this thread runs Trio for another loop.
        TypeError: `config` is not a SessionConfig; or `recover` is True, and only you know the scopes.
        PersistenceError: the store could not be opened, or cannot list what is unfinished; nothing was started.

    Cancellation: every agent has ended and every turn is settled when the block is left.
    """
    return _Opening(config, recover)


@attrs.define(eq=False)
class _Opening(AbstractAsyncContextManager[Sessions]):
    _config: SessionConfig
    _recover: bool | ScopeOf
    _host: "asyncio.Task[object] | None" = None
    """The task that entered the block, while its crash would be its business."""
    _cancels: int = 0
    """How often the host was cancelled already when it entered."""
    _is_struck: bool = False
    """Whether this block has cancelled the host."""
    _is_leaving: bool = False
    _block: Block | None = None
    _held: Held[trio_sagents.Sessions] | None = None

    async def __aenter__(self) -> Sessions:
        if self._held is not None:
            raise RuntimeError("this block was entered before; call open_sessions again")
        guest = await Guest.join("trio_sagents.asyncio.open_sessions")
        try:
            held = self._held = Held(guest, trio_sagents.open_sessions(self._config, recover=self._recover))
            block = self._block = Block(guest, await held.enter())
        except BaseException as exc:
            await guest.leave_after(exc)
            raise
        self._host = asyncio.current_task()
        self._cancels = 0 if self._host is None else self._host.cancelling()
        held.job.on_end.append(self._strike)
        return Sessions(block)

    def _strike(self) -> None:
        """Cancel the block if the sessions have ended by themselves."""
        host = self._host
        if not self._is_leaving and host is not None and not host.done() and not host.get_loop().is_closed():
            self._is_struck = host.cancel("the sessions of this block crashed")

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        held, block = self._held, self._block
        assert held is not None
        assert block is not None
        self._is_leaving = True
        block.guest.settle_if_closed()
        if isinstance(exc, asyncio.CancelledError):
            held.job.cancel()
        else:
            held.leave(has_failed=exc is not None)
        try:
            cancelled = await held.job.settled()
        except BaseException:  # GeneratorExit: nothing can be awaited any more
            block.guest.release()
            raise
        block.close()
        try:
            await block.guest.leave(exc or cancelled)
        except asyncio.CancelledError as late:  # noqa: ASYNC103  # raised below, unless it is our own
            cancelled = late
        failed = _failure(held.job.error)
        if self._is_struck:
            failed = failed or SessionsClosed()
            if self._take_back():
                cancelled = None
                exc = None if isinstance(exc, asyncio.CancelledError) else exc
        _raise(exc, failed, cancelled)

    def _take_back(self) -> bool:
        """Take our cancellation of the host back, and return whether it was the only one. It was raised already: the host had to wait."""
        host = asyncio.current_task()
        # Compared with the count at entry, and not with 0: in 3.11 a failed `TaskGroup` leaves a count of 1 behind.
        return host is not None and host is self._host and host.uncancel() <= self._cancels


def _failure(error: BaseException | None) -> BaseException | None:
    """Return what the sessions raised, without what stands for the block's own error."""
    return unwrap(error.split(HostFailed)[1]) if isinstance(error, BaseExceptionGroup) else error


def _raise(exc: BaseException | None, failed: BaseException | None, cancelled: asyncio.CancelledError | None) -> None:
    """Raise what leaves the block. Returns if nothing does, or if what the block raised leaves it.

    Args:
        exc: what the block raised, unless this was its own doing.
        failed: what the sessions raised.
        cancelled: a cancellation of the task that left the block, while it waited.
    """
    if isinstance(failed, SessionsClosed) and exc is not None:
        failed = None  # what a block raised says more
    if failed is not None and exc is not None and not isinstance(exc, asyncio.CancelledError):
        raise BaseExceptionGroup("the block and the runtime of open_sessions both failed", [exc, failed])
    if failed is not None:
        raise failed
    if cancelled is not None and not isinstance(exc, asyncio.CancelledError):
        raise cancelled
