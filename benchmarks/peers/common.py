"""What every program of a peer does: seed conversations, and measure turns, tokens and memory. It imports the standard library alone."""

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Protocol

QUESTION = "q" * 512
ANSWER = "a" * 512
TOKENS = 2_000
TURNS = 15
KEPT = 1_000


class Program(Protocol):
    """One library, behind the calls that are measured. Conversations are kept in SQLite, but for `keep`."""

    async def open(self, folder: Path) -> None:
        """Open the store."""

    async def seed(self, name: str, messages: int) -> None:
        """Store a conversation of so many messages, of 512 bytes each."""

    async def turn(self, name: str) -> None:
        """Ask `QUESTION`, and read `ANSWER`, which comes in one piece; both are stored when this returns."""

    async def stream(self, name: str, tokens: int) -> int:
        """Ask, and read an answer of so many tokens, each when it comes; return how many pieces were read."""

    async def keep(self, name: str) -> None:
        """Keep a conversation of two messages in memory, in the way that the library has for that."""

    async def close(self) -> None:
        """Close the store."""


def main(program: Program, run: Callable[[Callable[[], Coroutine[None, None, None]]], None]) -> None:
    """Measure, and print the figures as one line of JSON.

    Args:
        program: the library.
        run: runs an async function in the library's event loop.
    """
    folder, *lengths = sys.argv[1:]

    async def measure() -> None:
        await program.open(Path(folder))
        figures: dict[str, float] = {}
        for length in map(int, lengths):
            await program.seed(f"long-{length}", length)
            for _ in range(3):
                await program.turn(f"long-{length}")
            gc.collect()
            costs = [await _cost(program, f"long-{length}") for _ in range(TURNS)]
            figures[f"turn.{length}"] = statistics.median(cost[0] for cost in costs)
            figures[f"written.{length}"] = statistics.median(cost[1] for cost in costs)
        await program.stream("streamed", 50)
        gc.collect()
        before = time.process_time()
        pieces = await program.stream("streamed", TOKENS)
        figures["token"] = (time.process_time() - before) / TOKENS
        if pieces < TOKENS / 2:
            raise RuntimeError(f"only {pieces} of {TOKENS} tokens were read one by one")
        for number in range(KEPT // 10):
            await program.keep(f"warm-up-{number}")
        begin = _resident()
        for number in range(KEPT):
            await program.keep(f"kept-{number}")
        figures["memory"] = (_resident() - begin) / KEPT
        await program.close()
        print(json.dumps(figures), flush=True)

    run(measure)


async def _cost(program: Program, name: str) -> tuple[float, int]:
    written, begin = _written(), time.process_time()
    await program.turn(name)
    return time.process_time() - begin, _written() - written


def _written() -> int:
    return _figure("/proc/self/io", "wchar:")


def _resident() -> int:
    gc.collect()
    return _figure("/proc/self/status", "VmRSS:") * 1024


def _figure(path: str, name: str) -> int:
    for line in Path(path).read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise RuntimeError(f"{path} has no {name}")
