"""The end of one agent's task: its writes have ended, its last event is published, and its id is free.

The task itself is in `trio_sagents.sessions`, for it starts the agent before it serves.
"""

import logging
from typing import Final

from trio_sagents._trio.failures import log_failure
from trio_sagents.data.status import ShutdownReason
from trio_sagents.exceptions import AgentNotRunning, AgentStopped, ConversationNotFound, RunsElsewhere
from trio_sagents.supervisor._registry import Entry, Failure, OwnedAgent, Phase
from trio_sagents.supervisor._services import Services

EXPECTED: Final = (AgentStopped, ConversationNotFound, RunsElsewhere)
"""Ends of a start that are no failure."""


def _log_failed_start(entry: Entry, failure: Failure) -> None:
    """Log why an agent did not start; each caller that waited is given its own `StartFailed`."""
    if not isinstance(failure.error, EXPECTED) and not (entry.is_look and isinstance(failure.error, AgentNotRunning)):
        message = "the agent of conversation %r could not start; it failed at stage %r"
        log_failure(logging.ERROR, failure.error, message, entry.conversation_id, failure.stage)


async def release_agent(services: Services, entry: Entry, live: OwnedAgent | None, crash: BaseException | None) -> None:
    """End an entry, whether its agent has started or not: settle, give the lease back, publish the last event, and free the id.

    Args:
        services: the shared services.
        entry: the reservation; the caller is its task, and everything else in that task has ended.
        live: the agent; None if it never went live.
        crash: what the agent or its start raised; None if it raised nothing.

    Cancellation: the id is released all the same.
    """
    entry.phase = Phase.STOPPING
    reason = ShutdownReason.CRASHED if crash is not None else entry.reason or ShutdownReason.HOST_CANCELLED
    if live is None:
        if entry.failure is None:
            entry.failure = Failure(entry.stage, crash if crash is not None else AgentStopped(entry.conversation_id))
        _log_failed_start(entry, entry.failure)
    else:
        if crash is not None:
            entry.failure = Failure(entry.stage, crash)  # for whoever waits for the boot still
            log_failure(logging.ERROR, crash, "the agent of conversation %r crashed", entry.conversation_id)
        await live.wait_settled()
    if services.leases is not None:
        await services.leases.release(entry)  # its writes have ended: another process may load
    # No checkpoint until the id is free: the last event, the end of the entry and the release are one step.
    try:
        if live is not None:
            live.end(reason)
    finally:
        services.commits.forget(entry.conversation_id)
        services.registry.release(entry)
        entry.become_ready()
