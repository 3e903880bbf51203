"""The bell of an agent: it wakes the agent's task, and whoever waits for the agent to come to rest."""

import attrs
import trio


@attrs.define(eq=False)
class Bell:
    """Nothing is handed over with a ring: whoever wakes looks for itself, so nothing can be lost on the way."""

    _sleeper: trio.lowlevel.Task | None = None
    # Invariant: a task that sleeps in `wait`. The first one that waits, usually the agent's own, parks here: an event would cost each
    # idle agent half a kilobyte.
    _rung: trio.Event | None = None
    """For all others; made when somebody waits beside the sleeper."""

    def ring(self) -> None:
        """Wake whoever waits."""
        if self._sleeper is not None:
            sleeper, self._sleeper = self._sleeper, None
            trio.lowlevel.reschedule(sleeper)
        if self._rung is not None:
            self._rung.set()
            self._rung = None

    @trio.lowlevel.enable_ki_protection  # an interrupt between the note of the task and its sleep would leave a task that does not sleep
    async def wait(self) -> None:
        """Wait for the next ring. Cancellation: nothing was done."""
        if self._sleeper is None:
            self._sleeper = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._forget_sleeper)
            return
        if self._rung is None:
            self._rung = trio.Event()
        await self._rung.wait()

    def _forget_sleeper(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        # Cancellation: a ring that came before has forgotten the task, and then this is not called.
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED
