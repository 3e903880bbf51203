"""Long use: `python -m tests.hostile.soak --sessions 1000 --rounds 5` prints, as JSON, what is left after each round.

A process of its own, so that its memory is that of the house alone. A round starts every conversation, talks, has viewers come, go,
lag and be cancelled, and stops it again; then nothing may be left of it, and no round may leave more than the one before.
"""

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.hostile.fuzz import ROOT
from trio_sagents import (
    Agent,
    ConversationStore,
    MemoryStore,
    SessionConfig,
    SessionPolicy,
    Sessions,
    SingleFactoryRouter,
    SqliteStore,
    open_sessions,
)
from trio_sagents.testing import ScriptedModel

AT_ONCE: Final = 100
OURS: Final = ("trio_sagents.sessions.", "trio_sagents.supervisor.", "trio_sagents.broadcast.", "trio_sagents.agent.")


@attrs.frozen
class Left:
    """What is there after a round."""

    rss: int
    """Bytes in memory."""
    tasks: int
    files: int
    ours: int
    """Living objects of the runtime's classes."""
    garbage: int
    """How many objects of the library only the cyclic collector found."""
    counts: Sequence[int]
    """`Sessions.statistics`: all of them."""
    seconds: float


def rss() -> int:
    """Return the bytes that this process has in memory."""
    if sys.platform == "linux":
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
    return int(shown.stdout) * 1024


def _is_ours(value: object) -> bool:
    return str(type(value).__module__).startswith(OURS)


def _garbage() -> int:
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    found = sum(_is_ours(item) for item in gc.garbage)
    gc.set_debug(0)
    gc.garbage.clear()
    gc.collect()
    return found


async def _use(sessions: Sessions, name: str, drawn: random.Random) -> None:
    """Have one conversation of one round."""
    async with sessions.open_subscriber() as reader:
        await sessions.ensure_running(name, reader)
        receipt = await sessions.post(name, "hello " * drawn.randrange(1, 20))
        async with trio.open_nursery() as nursery:
            for how in drawn.choices(("reads", "lags", "leaves", "is cancelled"), k=3):
                nursery.start_soon(_view, sessions, name, how)
            await receipt.wait()
            if drawn.random() < 0.2:
                await sessions.post(name, "one more", overlap="interrupt")
                await sessions.cancel_turn(name)
            await reader.__anext__()
            nursery.cancel_scope.cancel()
    await sessions.stop(name)


async def _view(sessions: Sessions, name: str, how: str) -> None:
    match how:
        case "reads":
            async with sessions.watch(name, viewer="v") as watch:
                async for _ in watch:
                    pass
        case "lags":
            async with sessions.open_subscriber() as subscriber:
                await subscriber.subscribe(name)
                await subscriber.subscribe(name, channel="debug")
                await trio.sleep_forever()
        case "leaves":
            async with sessions.open_subscriber() as subscriber:
                await subscriber.subscribe(name)
                await subscriber.__anext__()
        case _:
            with trio.CancelScope() as scope:
                async with sessions.watch(name):
                    scope.cancel()
                    await trio.sleep_forever()


async def _round(sessions: Sessions, names: Sequence[str], number: int) -> None:
    left = iter(names)

    async def work(worker: int) -> None:
        drawn = random.Random(number * 1000 + worker)
        for name in left:
            await _use(sessions, name, drawn)

    async with trio.open_nursery() as nursery:
        for worker in range(min(AT_ONCE, len(names))):
            nursery.start_soon(work, worker)


async def soak(count: int, rounds: int, store: ConversationStore, *, is_fresh: bool) -> list[Left]:
    """Use so many conversations in each round; `is_fresh` deletes them after it, so that the store stays as small as it was."""
    agent = Agent(model=ScriptedModel(lambda request: "so be it", chunk_size=2))
    config = SessionConfig(factory_router=SingleFactoryRouter(agent), store=store, policy=SessionPolicy(grace_period=1))
    lefts: list[Left] = []
    gc.collect()
    gc.disable()
    async with open_sessions(config) as sessions:
        agent.model.requests = _Forgetful()  # type: ignore[attr-defined]  # a script remembers what it was asked, for tests
        for number in range(rounds):
            began = time.perf_counter()
            names = [f"{number}-{index}" for index in range(count)]
            await _round(sessions, names, number)
            if is_fresh:
                for name in names:
                    await sessions.delete(name)
            took = time.perf_counter() - began
            garbage = _garbage()
            counts = attrs.astuple(sessions.statistics())
            ours = sum(map(_is_ours, gc.get_objects()))
            tasks, files = (
                trio.lowlevel.current_statistics().tasks_living,
                len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")),
            )
            lefts.append(Left(rss(), tasks, files, ours, garbage, counts, took))
    gc.enable()
    return lefts


class _Forgetful(list[Any]):
    """Keeps nothing."""

    def append(self, value: Any) -> None:
        """Forget it."""


def grown(lefts: Sequence[Left]) -> list[str]:
    """Return what grows from the second round on. The first round is a warm-up."""
    found: list[str] = []
    first, last = lefts[1], lefts[-1]
    for name in ("tasks", "files", "ours", "garbage"):
        values = [getattr(left, name) for left in lefts[1:]]
        if max(values) > values[0]:
            found.append(f"{name}: {values}")
    if any(left.garbage for left in lefts):
        found.append(f"cyclic garbage: {[left.garbage for left in lefts]}")
    if any(any(left.counts) for left in lefts):
        found.append(f"counts: {[left.counts for left in lefts]}")
    if last.rss > first.rss * 1.02 + 2_000_000:
        found.append(f"memory: {[left.rss // 1000 for left in lefts]} kB")
    return found


async def slow_subscriber(turns: int, percentile: int = 99) -> tuple[float, float]:
    """Return a percentile of the seconds of a turn, without and with a subscriber a thousand times slower than the agent.

    Turns of both kinds alternate, so what else the machine does falls on both, if not evenly on the few slowest of them.
    """
    agent = Agent(model=ScriptedModel(lambda request: "x" * 200, chunk_size=1))
    agent.model.requests = _Forgetful()  # type: ignore[attr-defined]  # as above
    took: dict[str, list[float]] = {"alone": [], "watched": []}
    policy = SessionPolicy(max_state_bytes=2**40)
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent), policy=policy)) as sessions:
        async with sessions.open_subscriber() as slow, trio.open_nursery() as nursery:
            await slow.subscribe("watched")

            async def read() -> None:
                while True:
                    await trio.sleep(0.2)
                    await slow.__anext__()

            nursery.start_soon(read)
            for number in range(turns):
                for name in ("alone", "watched") if number % 2 else ("watched", "alone"):
                    receipt = await sessions.post(name, "hi")
                    began = time.perf_counter()
                    await receipt.wait()
                    took[name].append(time.perf_counter() - began)
            nursery.cancel_scope.cancel()
    alone, watched = (statistics.quantiles(took[name][turns // 10 :], n=100)[percentile - 1] for name in ("alone", "watched"))
    return alone, watched


def run_soak(count: int, rounds: int, kind: str) -> list[Left]:
    """Soak in a process of its own."""
    command = [sys.executable, "-m", "tests.hostile.soak", "--sessions", str(count), "--rounds", str(rounds), "--store", kind]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return [Left(**fields) for fields in json.loads(done.stdout)]


def main() -> None:
    """Soak, and print what is left after each round as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--store", choices=("memory", "sqlite"), default="memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        store: Any = MemoryStore() if options.store == "memory" else SqliteStore(Path(name) / "chat.db", synchronous="NORMAL")

        async def run() -> list[Left]:
            return await soak(options.sessions, options.rounds, store, is_fresh=True)

        lefts = trio.run(run)
    json.dump([attrs.asdict(left) for left in lefts], sys.stdout)


if __name__ == "__main__":
    main()
