"""How all agents end: asked at once, given time to finish their turns, then cut. Decided for all in one step, waited for after."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from trio_sagents._trio.groups import is_cancelled
from trio_sagents._trio.tree import is_inside
from trio_sagents.data.status import CancelCause, ShutdownReason
from trio_sagents.sessions._reports import DrainReport
from trio_sagents.supervisor import Entry

if TYPE_CHECKING:
    from trio_sagents.sessions._sessions import Sessions


def ask_all(entries: Iterable[Entry], reason: ShutdownReason, cause: CancelCause, grace_period: float) -> None:
    """Ask every agent to leave: one with work when that is done or the grace is over, any other now."""
    now = trio.current_time()
    for entry in entries:
        live = entry.live
        works = live is not None and not live.is_at_rest
        entry.request_stop(reason, cause, deadline=now + grace_period if works else now)


async def close_agents(sessions: "Sessions", host: BaseException | None) -> None:
    """End every agent, because the block was left; `host` is what it raised, or None. The supervisor nursery then waits for them."""
    runtime = sessions.runtime
    sessions.close()
    entries = tuple(runtime.registry)
    if host is None:
        ask_all(entries, ShutdownReason.CLOSED, CancelCause.CLOSED, sessions.config.policy.grace_period)
    elif is_cancelled(host):
        ask_all(entries, ShutdownReason.HOST_CANCELLED, CancelCause.HOST_CANCELLED, 0.0)
    else:
        ask_all(entries, ShutdownReason.CLOSED, CancelCause.HOST_FAILED, 0.0)
    for entry in entries:
        await entry.wait_ended()


async def drain_agents(sessions: "Sessions") -> DrainReport:
    """End every agent with grace, and report."""
    runtime = sessions.runtime
    sessions.starter.is_closed = True
    entries = tuple(runtime.registry)
    lives = {entry: entry.live for entry in entries}
    working = {entry for entry in entries if entry.live is not None and not entry.live.is_at_rest}
    ask_all(entries, ShutdownReason.DRAINED, CancelCause.DRAINED, sessions.config.policy.grace_period)
    await trio.lowlevel.checkpoint()
    cut = 0
    queued = 0
    for entry in entries:
        if is_inside(entry.task):
            continue  # it cannot end before the tool that drains has
        await entry.wait_ended()
        if (live := lives[entry]) is not None:
            queued += len(live.ledger.queue)
            cut += entry in working and live.was_cut
    return DrainReport(len(entries) - len(working), len(working) - cut, cut, queued)
