"""How all agents end: asked at once, given time to finish their turns, then cut.

Who is asked, and until when, is decided for all agents in one step; only then does anything wait.
"""

from collections.abc import Iterable, Sequence

import trio

from trio_sagents._trio.groups import is_cancelled
from trio_sagents._trio.tree import is_inside
from trio_sagents.data.status import CancelCause, ShutdownReason
from trio_sagents.sessions._reports import DrainReport
from trio_sagents.supervisor import Entry


def ask_all(entries: Iterable[Entry], reason: ShutdownReason, cause: CancelCause, *, has_grace: bool) -> None:
    """Ask every agent to leave: a working agent when its work is done or its own `grace_period` is over, any other agent now."""
    now = trio.current_time()
    for entry in entries:
        live = entry.live
        grace = live.grace_period if has_grace and live is not None and not live.is_at_rest else 0.0
        entry.request_stop(reason, cause, deadline=now + grace)


async def close_agents(entries: Sequence[Entry], host: BaseException | None) -> None:
    """End all agents, because the block was left, and wait until they have ended. No agent may start any more.

    Args:
        entries: all of the registry.
        host: what the block raised, or None.
    """
    if host is None:
        ask_all(entries, ShutdownReason.CLOSED, CancelCause.CLOSED, has_grace=True)
    elif is_cancelled(host):
        ask_all(entries, ShutdownReason.HOST_CANCELLED, CancelCause.HOST_CANCELLED, has_grace=False)
    else:
        ask_all(entries, ShutdownReason.CLOSED, CancelCause.HOST_FAILED, has_grace=False)
    for entry in entries:
        await entry.wait_ended()


async def drain_agents(entries: Sequence[Entry]) -> DrainReport:
    """End all agents with grace, and report. No agent may start any more. An agent whose own tool drains is asked, and not waited for."""
    lives = {entry: entry.live for entry in entries if entry.live is None or not entry.live.is_remote}
    working = {entry for entry, live in lives.items() if live is not None and not live.is_at_rest}
    ask_all(entries, ShutdownReason.DRAINED, CancelCause.DRAINED, has_grace=True)
    await trio.lowlevel.checkpoint()
    cut = 0
    queued = 0
    for entry, live in lives.items():
        if is_inside(entry.task):
            continue  # it cannot end before the tool that drains has ended
        await entry.wait_ended()
        if live is not None:
            queued += live.queued
            cut += entry in working and live.was_cut
    return DrainReport(len(lives) - len(working), len(working) - cut, cut, queued)
