"""The task of one agent, from its reservation to the release of its id.

From outside: registry release, around split-and-contain, around the agent's cancel scope, around its nursery. This is the
second of the two places that contain exceptions: an agent that crashes is reported, and harms no other.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from trio_sagents._trio.groups import must_exit, split
from trio_sagents.data.status import ShutdownReason
from trio_sagents.exceptions import AgentStopped
from trio_sagents.supervisor._live import LiveAgent
from trio_sagents.supervisor._registry import Entry, Failure, Phase
from trio_sagents.supervisor._runtime import Runtime

log: Final = logging.getLogger("trio_sagents")
Boot = Callable[[Entry, trio.Nursery], Awaitable[LiveAgent]]


async def run_agent(runtime: Runtime, entry: Entry, boot: Boot, start_timeout: float) -> None:
    """Boot an agent, let it serve, and release its id; a task of the supervisor nursery.

    Args:
        runtime: the shared services.
        entry: the reservation; this task owns it.
        boot: makes the agent, in the agent's nursery.
        start_timeout: seconds that the boot may take.

    Cancellation: the running turn is settled within `settle_timeout`, then the id is released.
    """
    entry.task = trio.lowlevel.current_task()
    crash: BaseException | None = None
    onward: BaseException | None = None
    timer = runtime.timers.call_at(trio.current_time() + start_timeout, lambda: _give_up(entry, start_timeout))
    try:
        with entry.cancel_scope:
            async with trio.open_nursery() as nursery:
                live = await boot(entry, nursery)
                while entry.openings:
                    opening, *entry.openings = entry.openings
                    await opening.run(live)
                if entry.phase is not Phase.BOOTING:
                    await trio.lowlevel.checkpoint()  # it was aborted while its last step did not look
                # No checkpoint until it is live: a stop from here on finds an agent, one from before it a boot to abort.
                live.go_live()
                if timer is not None:
                    timer.cancel()
                    timer = None
                await live.serve()
                if nursery.child_tasks:
                    nursery.cancel_scope.cancel()
    except BaseException as exc:  # noqa: ASYNC103, BLE001  # the agent boundary
        crash, onward = split(exc)
    if timer is not None:
        timer.cancel()
    try:
        await _release(runtime, entry, crash)
        if onward is not None:
            raise BaseExceptionGroup("an agent crashed on the way out", [onward, crash]) if crash and must_exit(onward) else onward
    finally:
        del crash, onward  # they hold this frame, which holds them


def _give_up(entry: Entry, start_timeout: float) -> None:
    if entry.phase is Phase.BOOTING:
        error = trio.TooSlowError(f"the boot took longer than start_timeout, {start_timeout:g} seconds")
        entry.failure = Failure(entry.stage, error)
        entry.phase = Phase.STOPPING
        entry.cancel_scope.cancel()


async def _release(runtime: Runtime, entry: Entry, crash: BaseException | None) -> None:
    live = entry.live
    entry.phase = Phase.STOPPING
    reason = ShutdownReason.CRASHED if crash is not None else entry.reason or ShutdownReason.HOST_CANCELLED
    if live is None:
        if entry.failure is None:
            entry.failure = Failure(entry.stage, crash if crash is not None else AgentStopped(entry.conversation_id))
    else:
        if crash is not None:
            entry.failure = Failure(entry.stage, crash)  # for whoever waits for the boot still
            log.error("the agent of conversation %r crashed", entry.conversation_id, exc_info=crash)
        await live.wait_settled()
    if runtime.leases is not None:
        await runtime.leases.release(entry)  # its writes have ended: another process may load
    # No checkpoint until the id is free: the last word, the end of the entry and the release are one step.
    try:
        if live is not None:
            live.end(reason)
    finally:
        runtime.commits.forget(entry.conversation_id)
        runtime.registry.release(entry)
        entry.become_ready()
