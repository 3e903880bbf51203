"""A process with many idle agents, or with as many hand-written ones, that measures what one more thing costs among them.

Commands: `spawn COUNT` starts and stops agents, `upkeep` renews all and lets every timer come due.
"""

import gc
import random
import sys
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import trio

from benchmarks.children import tell
from benchmarks.clock import JumpingClock, Passes
from benchmarks.host import INACTIVITY_TIMEOUT, live_agent, open_host
from benchmarks.rounds import Cpu
from trio_sagents import Sessions
from trio_sagents._trio.timers import BATCH

RENEWALS: Final = 200
"""Renewals in one pass of the event loop."""


class Crowd(Protocol):
    """Many agents, or many cancel scopes, that are alive."""

    def renewals(self) -> list[Callable[[], None]]:
        """Return, for each member of the crowd, the function that renews its time."""
        ...


def child(kind: str, live: str) -> None:
    """Build it, and answer commands until there are no more."""
    clock = JumpingClock()
    trio.run(_agents if kind == "agents" else _deadlines, int(live), clock, clock=clock)


class _Agents:
    def __init__(self, sessions: Sessions, live: int) -> None:
        self._sessions = sessions
        self._live = live

    async def spawn(self, count: int) -> None:
        """Start and stop `count` agents, one after the other."""
        for number in range(count):
            name = f"another-{number}"
            await self._sessions.start(name)
            await self._sessions.stop(name)

    def renewals(self) -> list[Callable[[], None]]:
        assert len(self._sessions.runtime.registry) == self._live  # none has left by itself
        return [live_agent(self._sessions, f"conversation-{number}").touch for number in range(self._live)]


async def _agents(live: int, clock: JumpingClock) -> None:
    gc.disable()  # for the building alone
    async with open_host() as sessions:
        for number in range(live):
            await sessions.start(f"conversation-{number}")
        agents = _Agents(sessions, live)
        await _answer(agents, live, clock, agents.spawn)


class _Deadlines:
    """The eager way: a cancel scope with a deadline for each session, which each renewal moves."""

    def __init__(self) -> None:
        self.scopes: list[trio.CancelScope] = []

    async def hold(self) -> None:
        with trio.CancelScope(deadline=trio.current_time() + 2 * INACTIVITY_TIMEOUT) as scope:
            self.scopes.append(scope)
            await trio.sleep_forever()

    def renewals(self) -> list[Callable[[], None]]:
        def renewal(scope: trio.CancelScope) -> Callable[[], None]:
            def renew() -> None:
                scope.deadline = trio.current_time() + 2 * INACTIVITY_TIMEOUT

            return renew

        return [renewal(scope) for scope in self.scopes]


async def _deadlines(live: int, clock: JumpingClock) -> None:
    gc.disable()
    crowd = _Deadlines()
    async with trio.open_nursery() as nursery:
        for number in range(live):
            nursery.start_soon(crowd.hold)
            if number % 100 == 0:
                await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        await _answer(crowd, live, clock)


async def _answer(crowd: Crowd, live: int, clock: JumpingClock, spawn: Callable[[int], Awaitable[None]] | None = None) -> None:
    """Answer the commands that come by standard input. A crowd without `spawn` knows only `upkeep`."""
    gc.enable()
    gc.collect()
    tell(live=live)
    while line := await trio.to_thread.run_sync(sys.stdin.readline):
        command, *arguments = line.split()
        if command == "spawn" and spawn is not None:
            gc.collect()
            with Cpu() as cpu:
                await spawn(int(arguments[0]))
            tell(seconds=cpu.seconds / int(arguments[0]))
        elif command == "upkeep":
            tell(**await _without_garbage_collection(lambda: _upkeep(crowd, live, clock)))
        else:
            raise ValueError(f"this crowd does not know the command {command!r}")


async def _without_garbage_collection(measure: Callable[[], Awaitable[dict[str, float]]]) -> dict[str, float]:
    """Run a measurement without garbage collection, whose pauses would be counted as the timers'."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        return await measure()
    finally:
        gc.enable()


async def _upkeep(crowd: Crowd, live: int, clock: JumpingClock) -> dict[str, float]:
    """Half way to their end all are renewed; then comes the time at which they would have ended, and all are renewed again."""
    renewals = crowd.renewals()
    random.Random(live).shuffle(renewals)
    passes = Passes()
    clock.jump(INACTIVITY_TIMEOUT / 2)
    await trio.lowlevel.checkpoint()
    trio.lowlevel.add_instrument(passes)
    await _renew(renewals, live // RENEWALS)
    clock.jump(INACTIVITY_TIMEOUT / 2 + 10)
    await _renew(renewals, 2 * max(live // RENEWALS, live // BATCH))
    trio.lowlevel.remove_instrument(passes)
    return {"longest": passes.longest, "passes": passes.count}


async def _renew(renewals: list[Callable[[], None]], passes: int) -> None:
    place = 0
    for _ in range(passes):
        for renew in renewals[place : place + RENEWALS]:
            renew()
        place = (place + RENEWALS) % len(renewals)
        await trio.lowlevel.checkpoint()
