"""The task of one agent, from its reservation to the release of its id.

From outside to inside: the release of the id, around the containment of exceptions, around the agent's cancel scope, around its
nursery. This is the second of the two places that contain exceptions: an agent that crashes is reported, and harms no other agent.
"""

import attrs
import trio

from trio_sagents._trio.groups import must_exit, split
from trio_sagents.sessions._boot import boot
from trio_sagents.sessions._commands import BootActions
from trio_sagents.sessions._config import SessionConfig
from trio_sagents.supervisor import Entry, Failure, OwnedAgent, Phase, Services, release_agent


@attrs.frozen(eq=False)
class Setup:
    """What the tasks of all agents share."""

    config: SessionConfig
    services: Services
    actions: BootActions = attrs.field(factory=BootActions)


async def run_agent(setup: Setup, entry: Entry) -> None:
    """Start an agent, let it serve, and release its id; a task of the supervisor nursery.

    Args:
        setup: what all agents share.
        entry: the reservation; this task owns it.

    Cancellation: the running turn is settled within `settle_timeout`, then the id is released.
    """
    services = setup.services
    entry.task = trio.lowlevel.current_task()
    live: OwnedAgent | None = None
    crash: BaseException | None = None
    onward: BaseException | None = None
    policy = setup.config.policy
    start_timeout = policy.start_timeout
    # Another node may have the conversation that does not answer any more: then the start waits for the end of that node's lease.
    patience = start_timeout if services.neighbours is None else start_timeout + policy.lease_ttl
    timer = services.timers.call_at(trio.current_time() + patience, lambda: _give_up(entry, start_timeout))
    try:
        with entry.cancel_scope:
            async with trio.open_nursery() as nursery:
                live = await boot(setup.config, services, entry, setup.actions, nursery)
                if entry.phase is not Phase.BOOTING:
                    await trio.lowlevel.checkpoint()  # the start was aborted during a last step that had no checkpoint
                # No checkpoint until the agent is live: a stop before this aborts a start, a stop after it finds an agent.
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
        await release_agent(services, entry, live if entry.has_booted else None, crash)
        if onward is not None:
            raise BaseExceptionGroup("an agent crashed on the way out", [onward, crash]) if crash and must_exit(onward) else onward
    finally:
        del live, crash, onward  # they hold this frame, which holds them


def _give_up(entry: Entry, start_timeout: float) -> None:
    """Abort a start that takes too long."""
    if entry.phase is Phase.BOOTING:
        error = trio.TooSlowError(
            f"the start took longer than start_timeout, {start_timeout:g} seconds; if it may take longer, set SessionPolicy.start_timeout"
        )
        entry.failure = Failure(entry.stage, error)
        entry.phase = Phase.STOPPING
        entry.cancel_scope.cancel()
