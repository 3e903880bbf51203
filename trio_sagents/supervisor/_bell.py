"""The bell of an agent: it wakes the agent's task, and whoever waits for the agent to come to rest."""

import attrs
import trio


@attrs.define(eq=False)
class Bell:
    """Nothing is handed over with a ring: whoever wakes looks for itself, so nothing can be lost on the way."""

    _rung: trio.Event | None = None
    """Made when somebody waits."""

    def ring(self) -> None:
        """Wake whoever waits."""
        if self._rung is not None:
            self._rung.set()
            self._rung = None

    async def wait(self) -> None:
        """Wait for the next ring. Cancellation: nothing was done."""
        if self._rung is None:
            self._rung = trio.Event()
        await self._rung.wait()
