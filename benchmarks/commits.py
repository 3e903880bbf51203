"""A thousand conversations that store their turns at once, against a transaction and a thread hop for each turn."""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

import trio

from benchmarks.rounds import Wall, interleave, ratios
from benchmarks.table import Aim, Row
from trio_sagents import Commit, SqliteStore

Synchronous = Literal["NORMAL", "FULL"]
AIMS: Final[Mapping[Synchronous, Aim]] = {"NORMAL": Aim("at least", 5.0), "FULL": Aim("at least", 8.0)}
CONVERSATIONS: Final = 1_000
TEXT: Final = "Lorem ipsum dolor sit amet, consectetur adipiscing elit. " * 9


def run(*, quick: bool) -> Sequence[Row]:
    """Return a row for each promise to the disk; fewer turns where each waits for a flush."""
    if quick:
        return [_row("NORMAL", 2, 2), _row("FULL", 1, 2)]
    return [_row("NORMAL", 4, 4), _row("FULL", 2, 3)]


def _row(synchronous: Synchronous, turns: int, rounds: int) -> Row:
    costs = interleave(
        {
            "ours": _in_a_folder(lambda path: trio.run(_grouped, path, synchronous, turns)),
            "own": _in_a_folder(lambda path: trio.run(_each_its_own, path, synchronous, turns)),
        },
        rounds,
        warm_up=False,
    )
    return Row(
        name="commits",
        what=f"{CONVERSATIONS:,} conversations commit 2 messages at once, {synchronous}; wall; baseline: a transaction each",
        ours=_rate(costs["ours"]),
        baseline=_rate(costs["own"]),
        ratio=ratios(costs["own"], costs["ours"]),
        aim=AIMS[synchronous],
    )


def _rate(costs: Sequence[float]) -> str:
    return f"{1e-3 / sorted(costs)[len(costs) // 2]:.1f} k/s"


def _in_a_folder(measure: Callable[[str], float]) -> Callable[[], float]:
    def once() -> float:
        with TemporaryDirectory() as folder:
            return measure(str(Path(folder, "commits.db")))

    return once


def _messages(turn: int) -> Sequence[Mapping[str, object]]:
    roles = ("user", "assistant")
    return [{"message_id": f"message-{turn}-{role}", "role": role, "parts": [{"type": "text", "text": TEXT}]} for role in roles]


async def _grouped(path: str, synchronous: Synchronous, turns: int) -> float:
    store = SqliteStore(path, synchronous=synchronous)

    async def converse(name: str) -> None:
        for turn in range(turns):
            await store.commit(
                None,
                Commit(
                    conversation_id=name,
                    agent_id=name,
                    owner=None,
                    epoch=1,
                    revision=turn + 1,
                    lifecycle="on_completion",
                    messages=_messages(turn),
                ),
            )

    async with store.open():
        with Wall() as wall:
            async with trio.open_nursery() as nursery:
                for number in range(CONVERSATIONS):
                    nursery.start_soon(converse, f"conversation-{number}")
        page = await store.conversations(None, after=None, limit=CONVERSATIONS)
        assert sum(item.message_count for item in page.items) == 2 * turns * CONVERSATIONS
    return wall.seconds / (turns * CONVERSATIONS)


async def _each_its_own(path: str, synchronous: Synchronous, turns: int) -> float:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("CREATE TABLE messages (key INTEGER PRIMARY KEY, conversation_id TEXT, position INTEGER, record TEXT)")
    limiter = trio.CapacityLimiter(1)

    def store(name: str, turn: int) -> None:
        rows = [(name, 2 * turn + place, json.dumps(record)) for place, record in enumerate(_messages(turn))]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO messages (conversation_id, position, record) VALUES (?, ?, ?)", rows)
        connection.execute("COMMIT")

    async def converse(name: str) -> None:
        for turn in range(turns):
            await trio.to_thread.run_sync(store, name, turn, limiter=limiter)

    with Wall() as wall:
        async with trio.open_nursery() as nursery:
            for number in range(CONVERSATIONS):
                nursery.start_soon(converse, f"conversation-{number}")
    (count,) = connection.execute("SELECT count(*) FROM messages").fetchone()
    assert count == 2 * turns * CONVERSATIONS
    connection.close()
    return wall.seconds / (turns * CONVERSATIONS)
