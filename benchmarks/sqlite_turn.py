"""One turn on SQLite: how many commits it takes, what it hands to the system, and what it costs; and what a load costs.

The baseline is a hand-written turn: two transactions, each in a thread, that append one message each to a table with an index.
"""

import json
import sqlite3
import statistics
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import attrs
import trio

from benchmarks.host import open_host
from benchmarks.rounds import Cpu, Spread, Wall, ratios
from benchmarks.table import Aim, Row
from benchmarks.turns import bytes_written
from trio_sagents import Agent, Commit, Completed, Message, Sessions, SqliteStore, TextPart
from trio_sagents.data.wire import encode_message
from trio_sagents.testing import ScriptedModel

CONTENT: Final = 512
"""Bytes that each of the two messages of a turn says."""
TURNS: Final = 40
"""In each round; the median is one measurement."""
LENGTH: Final = 5_000
"""Messages of the conversation that is loaded."""


@attrs.frozen
class Cost:
    """What one turn costs."""

    commits: float
    written: float
    seconds: float


def run(*, quick: bool) -> Sequence[Row]:
    """Return rows for the commits, the bytes and the time of a turn, and for a load."""
    rounds = 2 if quick else 5
    ours: list[Cost] = []
    plain: list[Cost] = []
    for _ in range(rounds):
        with TemporaryDirectory() as folder:
            ours.append(trio.run(_ours, Path(folder, "ours.db")))
            plain.append(trio.run(_plain, Path(folder, "plain.db")))
    loads = [_load(LENGTH // 10 if quick else LENGTH) for _ in range(rounds)]
    kilobytes = 1e-3
    return (
        Row(
            name="sqlite_turn",
            what="one turn of two messages of 512 bytes, SqliteStore: commits",
            ours=f"{Spread.of([cost.commits for cost in ours]).median:.0f}",
            judged=Spread.of([cost.commits for cost in ours]).median,
            aim=Aim("at most", 2, "commits"),
        ),
        Row(
            name="sqlite_turn",
            what="the same: bytes handed to the system; baseline: a hand-written turn",
            ours=f"{Spread.of([cost.written for cost in ours]).median * kilobytes:.1f} KB",
            baseline=f"{Spread.of([cost.written for cost in plain]).median * kilobytes:.1f} KB",
            ratio=ratios([cost.written for cost in ours], [cost.written for cost in plain]),
            judged=Spread.of([cost.written for cost in ours]).median * kilobytes,
            aim=Aim("at most", 50, "KB"),
        ),
        Row(
            name="sqlite_turn",
            what="the same: CPU; baseline: a hand-written turn",
            ours=f"{Spread.of([cost.seconds for cost in ours]).median * 1e3:.2f} ms",
            baseline=f"{Spread.of([cost.seconds for cost in plain]).median * 1e3:.2f} ms",
            ratio=ratios([cost.seconds for cost in ours], [cost.seconds for cost in plain]),
        ),
        Row(
            name="sqlite_turn",
            what=f"start of a conversation of {LENGTH:,} messages; wall; baseline: the longest pass of the loop meanwhile",
            ours=f"{Spread.of([load[0] for load in loads]).median * 1e3:.0f} ms",
            baseline=f"{Spread.of([load[1] for load in loads]).median * 1e3:.1f} ms",
            judged=Spread.of([load[0] for load in loads]).median * 1e3,
            aim=Aim("at most", 80, "ms"),
        ),
    )


async def _ours(path: Path) -> Cost:
    agent = Agent(model=ScriptedModel(lambda request: "a" * CONTENT, chunk_size=CONTENT))
    store = SqliteStore(path, synchronous="NORMAL")
    async with open_host(agent, store=store) as sessions:
        for _ in range(5):
            await _turn(sessions)
        commits, written, seconds = [], [], []
        for _ in range(TURNS):
            before = bytes_written(), _transactions(store)
            with Cpu() as cpu:
                await _turn(sessions)
            written.append(bytes_written() - before[0])
            commits.append(_transactions(store) - before[1])
            seconds.append(cpu.seconds)
    return Cost(statistics.median(commits), statistics.median(written), statistics.median(seconds))


async def _turn(sessions: Sessions) -> None:
    receipt = await sessions.post("conversation", "q" * CONTENT)
    outcome = await receipt.wait()
    assert isinstance(outcome, Completed), outcome


async def _plain(path: Path) -> Cost:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE messages (place INTEGER PRIMARY KEY, conversation TEXT, body TEXT)")
    connection.execute("CREATE INDEX by_conversation ON messages (conversation)")
    limiter = trio.CapacityLimiter(1)

    def store(role: str, text: str) -> None:
        body = json.dumps({"role": role, "parts": [{"type": "text", "text": text}]})
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO messages (conversation, body) VALUES ('conversation', ?)", (body,))
        connection.execute("COMMIT")

    written, seconds = [], []
    for _ in range(TURNS):
        before = bytes_written()
        with Cpu() as cpu:
            await trio.to_thread.run_sync(store, "user", "q" * CONTENT, limiter=limiter)
            await trio.to_thread.run_sync(store, "assistant", "a" * CONTENT, limiter=limiter)
        written.append(bytes_written() - before)
        seconds.append(cpu.seconds)
    connection.close()
    return Cost(2, statistics.median(written), statistics.median(seconds))


def _load(length: int) -> tuple[float, float]:
    """Return the seconds that a start takes, and the longest pass of the loop meanwhile."""
    with TemporaryDirectory() as folder:
        return trio.run(_measure_load, Path(folder, "load.db"), length)


async def _measure_load(path: Path, length: int) -> tuple[float, float]:
    said = (TextPart("Lorem ipsum dolor sit amet, consectetur adipiscing elit. " * 9),)
    messages = [
        Message(f"seed-{index}", "assistant", said, "stop", f"turn-{index // 2}")
        if index % 2
        else Message(f"seed-{index}", "user", said, None, f"turn-{index // 2}")
        for index in range(length)
    ]
    store = SqliteStore(path, synchronous="NORMAL")
    async with store.open():
        await store.commit(
            None,
            Commit(
                conversation_id="long",
                agent_id="conversation-long",
                owner=None,
                epoch=1,
                revision=1,
                lifecycle="on_completion",
                messages=[encode_message(message) for message in messages],
            ),
        )
    async with open_host(store=store) as sessions:
        longest = 0.0

        async def beat() -> None:
            nonlocal longest
            while True:
                with Wall() as wall:
                    await trio.sleep(0.001)
                longest = max(longest, wall.seconds - 0.001)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat)
            await trio.sleep(0.05)
            longest = 0.0
            with Wall() as wall:
                await sessions.start("long")
            nursery.cancel_scope.cancel()
    return wall.seconds, longest


def _transactions(store: SqliteStore) -> int:
    """Return how many transactions an open store has made."""
    assert store._file is not None
    return store._file.group_commit.groups
