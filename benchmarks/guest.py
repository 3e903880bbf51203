"""Trio as a guest of asyncio, next to Trio itself: what each call costs, and how late a token is.

Both sides run the same library with a `MemoryStore` and a scripted model, each in a loop of its own, in turns.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import attrs
import trio

import trio_sagents.asyncio
from benchmarks.rounds import Cpu, Wall, interleave, ratios
from benchmarks.table import Row, microseconds
from trio_sagents import Agent, Envelope, SessionConfig, SingleFactoryRouter, TextDelta, TurnEnded, TurnOutcome, open_sessions
from trio_sagents.asyncio import call_asyncio, call_trio
from trio_sagents.testing import ScriptedModel

INTERVAL: Final = 0.004
"""Seconds between two tokens, if they are paced."""
TOKENS: Final = 50
"""In each answer."""


class _Receipt(Protocol):
    async def wait(self) -> TurnOutcome: ...


class _Reader(Protocol):
    async def __anext__(self) -> Envelope: ...


@attrs.frozen
class Side:
    """The calls of one side, which are the same ones."""

    post: Callable[[str, str], Awaitable[_Receipt]]
    look: Callable[[str], Awaitable[bool]]
    watch: _Reader


Measure = Callable[[Side], Awaitable[float]]


def run(*, quick: bool) -> Sequence[Row]:
    """Measure calls, turns and tokens on both sides, and what it takes to open and to cross."""
    calls, turns, rounds = (50, 20, 3) if quick else (1000, 200, 7)
    rows = [
        _compare("`running`, CPU", _looking(calls, Cpu), calls, rounds),
        _compare("`post` returns, wall", _posting(turns), turns, rounds),
        _compare("`post` and `wait`, CPU", _asking(turns, Cpu), turns, rounds),
        _compare("`post` and `wait`, wall", _asking(turns, Wall), turns, rounds),
        _compare("`post` to the first token, wall", _first_token(turns), turns, rounds),
        _compare("a token, flat out, to a `watch`, CPU", _streaming(turns, Cpu), turns * TOKENS, rounds),
        _compare("how late a paced token is, wall", _lateness, 1, rounds, interval=INTERVAL),
    ]
    return [*rows, *_crossings(calls, rounds)]


def _config(interval: float) -> SessionConfig:
    agent = Agent(model=ScriptedModel(lambda request: "x" * TOKENS, chunk_size=1, chunk_interval=interval))
    return SessionConfig(factory_router=SingleFactoryRouter(agent), inactivity_timeout=3600.0)


def _compare(what: str, measure: Measure, count: int, rounds: int, *, interval: float = 0.0) -> Row:
    async def native() -> float:
        async with open_sessions(_config(interval)) as sessions, sessions.watch("c", viewer="v") as watch:
            return await measure(Side(sessions.post, sessions.running, watch))

    async def guest() -> float:
        async with trio_sagents.asyncio.open_sessions(_config(interval)) as sessions, sessions.watch("c", viewer="v") as watch:
            return await measure(Side(sessions.post, sessions.running, watch))

    costs = interleave({"native": lambda: trio.run(native), "guest": lambda: asyncio.run(guest())}, rounds)
    ours, baseline = ([cost / count for cost in costs[name]] for name in ("guest", "native"))
    return Row(
        name="guest", what=f"{what}; Trio itself", ours=microseconds(ours), baseline=microseconds(baseline), ratio=ratios(ours, baseline)
    )


def _looking(count: int, clock: type[Cpu]) -> Measure:
    async def measure(side: Side) -> float:
        with clock() as took:
            for _ in range(count):
                await side.look("c")
        return took.seconds

    return measure


def _posting(count: int) -> Measure:
    async def measure(side: Side) -> float:
        total = 0.0
        for _ in range(count):
            with Wall() as took:
                receipt = await side.post("c", "x")
            total += took.seconds
            await _end_of_turn(side)
            await receipt.wait()
        return total

    return measure


def _asking(count: int, clock: type[Cpu] | type[Wall]) -> Measure:
    async def measure(side: Side) -> float:
        with clock() as took:
            for _ in range(count):
                await (await side.post("unwatched", "x")).wait()
        return took.seconds

    return measure


def _first_token(count: int) -> Measure:
    async def measure(side: Side) -> float:
        total = 0.0
        for _ in range(count):
            with Wall() as took:
                await side.post("c", "x")
                while not isinstance((await anext(side.watch)).event, TextDelta):
                    pass
            total += took.seconds
            await _end_of_turn(side)
        return total

    return measure


def _streaming(count: int, clock: type[Cpu]) -> Measure:
    async def measure(side: Side) -> float:
        with clock() as took:
            for _ in range(count):
                await side.post("c", "x")
                await _end_of_turn(side)
        return took.seconds

    return measure


async def _lateness(side: Side) -> float:
    """Return how much longer a token takes than its pace; the timers of the system are part of that, on both sides."""
    await side.post("c", "x")
    while not isinstance((await anext(side.watch)).event, TextDelta):
        pass
    with Wall() as took:
        await _end_of_turn(side)
    return took.seconds / (TOKENS - 1) - INTERVAL


async def _end_of_turn(side: Side) -> None:
    while not isinstance((await anext(side.watch)).event, TurnEnded):
        pass


def _crossings(count: int, rounds: int) -> Sequence[Row]:
    """Measure what there is in a guest only, or not at all in Trio itself."""

    async def nothing() -> None:
        pass

    async def cross() -> float:
        with Cpu() as took:
            for _ in range(count):
                await call_asyncio(nothing)
        return took.seconds / count

    async def native() -> float:
        begin = time.perf_counter()
        for _ in range(count // 10):
            async with open_sessions(_config(0.0)):
                pass
        return (time.perf_counter() - begin) / (count // 10)

    async def guest() -> float:
        begin = time.perf_counter()
        for _ in range(count // 10):
            async with trio_sagents.asyncio.open_sessions(_config(0.0)):
                pass
        return (time.perf_counter() - begin) / (count // 10)

    crossing = [asyncio.run(call_trio(cross)) for _ in range(rounds)]
    costs = interleave({"native": lambda: trio.run(native), "guest": lambda: asyncio.run(guest())}, rounds)
    return (
        Row(name="guest", what="`call_asyncio` of nothing, and back, CPU", ours=microseconds(crossing)),
        Row(
            name="guest",
            what="open and close, wall; Trio itself",
            ours=microseconds(costs["guest"]),
            baseline=microseconds(costs["native"]),
            ratio=ratios(costs["guest"], costs["native"]),
        ),
    )
