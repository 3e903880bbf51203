"""Commands of one socket: those for one conversation in the order in which they came, and those for different ones side by side."""

from collections import deque
from collections.abc import Awaitable, Callable

import attrs
import trio


@attrs.define(eq=False)
class Lanes:
    """Runs functions, in order within a lane. No task is there while nothing is to be done."""

    _nursery: trio.Nursery = attrs.field(repr=False)
    _waiting: dict[str, deque[Callable[[], Awaitable[None]]]] = attrs.field(factory=dict)
    # Invariant: a lane is here exactly while a task works on it.
    _count: int = 0

    def __len__(self) -> int:
        """Return how many functions have not returned."""
        return self._count

    def submit(self, lane: str | None, act: Callable[[], Awaitable[None]]) -> None:
        """Have a function called behind the others of its lane; without a lane, at once."""
        self._count += 1
        if lane is None:
            self._nursery.start_soon(self._run, act)
        elif lane in self._waiting:
            self._waiting[lane].append(act)
        else:
            self._waiting[lane] = deque([act])
            self._nursery.start_soon(self._work, lane)

    async def _work(self, lane: str) -> None:
        waiting = self._waiting[lane]
        while waiting:
            await self._run(waiting.popleft())
        del self._waiting[lane]

    async def _run(self, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        finally:
            self._count -= 1
