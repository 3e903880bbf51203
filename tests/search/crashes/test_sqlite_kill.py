"""kill -9 at any moment: what was acknowledged is there, and nothing is there by half.

The test runs this file as a program. That program stays single-threaded, so it can fork: each child opens the store, commits to
several conversations at once and acknowledges through a pipe; it is killed at a random moment, and the file is looked at.
TRIO_SAGENTS_KILLS sets how often (40 by default).
"""

import datetime
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from trio_sagents.data.records import Commit, DisplayMessage
from trio_sagents.persistence import SqliteStore

pytestmark = pytest.mark.slow

CONVERSATIONS = 5
KILLS = int(os.environ.get("TRIO_SAGENTS_KILLS", "40"))
DAMAGED = 3
"""Exit status of a child that found something wrong when it loaded."""


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_kill_nine(synchronous: str, tmp_path: Path) -> None:
    """Every acknowledged commit survives, revisions have no gaps, rows and messages agree, and the file is whole."""
    kills = -(-KILLS // 2)
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path / "kill.db"), synchronous, str(kills)], capture_output=True, text=True, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)
    report = json.loads(done.stdout)
    assert [] == report["violations"]
    assert kills == report["kills"]
    assert report["acknowledged"] >= kills  # or it tested nothing


def change(name: str, epoch: int, revision: int, size: int) -> Commit:
    text = f"{revision} " + "x" * size
    row = DisplayMessage(f"r{revision}", f"m{revision}", "user", "text", {"text": text}, "completed", now())
    return Commit(
        conversation_id=name,
        agent_id=name,
        owner=None,
        epoch=epoch,
        revision=revision,
        lifecycle="on_message",
        messages=[{"message_id": f"m{revision}", "text": text}],
        queued=[{"message_id": f"q{revision}"}],
        taken=[f"q{revision - 1}"] if revision > 1 else [],
        message_ids={f"m{revision}": "d"},
        state={"metadata": {"n": revision}},
        rows=[row],
    )


def now() -> datetime.datetime:
    return datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


async def converse(store: SqliteStore, name: str, size: int, out: int) -> None:
    found = await store.load(None, name)
    epoch, revision = (1, 0) if found is None else (found.epoch, found.revision)
    if found is not None and [f"m{n}" for n in range(1, revision + 1)] != [message["message_id"] for message in found.messages]:
        os._exit(DAMAGED)
    while True:
        revision = await store.commit(None, change(name, epoch, revision + 1, size))
        os.write(out, f"{name} {revision}\n".encode())


async def live(path: str, synchronous: str, out: int) -> None:
    store = SqliteStore(path, synchronous=synchronous)  # type: ignore[arg-type]  # one of the two
    async with store.open(), trio.open_nursery() as nursery:
        for n in range(CONVERSATIONS):
            nursery.start_soon(converse, store, f"c{n}", 6000 if n == 0 else 10 * n, out)


def run_and_kill(path: str, synchronous: str, life: float, least: int) -> tuple[bytes, int]:
    """Return what a child acknowledged before it was killed, and its status.

    Args:
        path: the file.
        synchronous: how it is written.
        life: seconds that the child lives, from its start or its last acknowledgement that is waited for.
        least: acknowledgements that are waited for, however slow the machine is.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            trio.run(live, path, synchronous, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        acknowledged = b"".join(pipe.readline() for _ in range(least))
        time.sleep(life)
        os.kill(child, signal.SIGKILL)
        acknowledged += pipe.read()
    _, status = os.waitpid(child, 0)
    return acknowledged, status


def violations(path: str, acknowledged: dict[str, int]) -> list[str]:
    """Return what is wrong with the file."""
    wrong: list[str] = []
    connection = sqlite3.connect(path)
    (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
    if integrity != "ok":
        wrong.append(integrity)
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'conversations'").fetchone():
        connection.close()
        return wrong + [f"nothing of {acknowledged}"] * bool(acknowledged)
    revisions: dict[str, int] = {}
    for number, name, revision, count in connection.execute(
        "SELECT number, conversation_id, revision, message_count FROM conversations"
    ).fetchall():
        revisions[name] = revision

        def column(query: str, number: int = number) -> list[object]:
            return [value for (value,) in connection.execute(query, (number,))]

        bodies = column("SELECT body FROM messages WHERE conversation = ? ORDER BY place")
        found = {
            "messages": [json.loads(str(body))["message_id"] for body in bodies],
            "message ids": sorted(
                map(str, column("SELECT message_id FROM messages WHERE conversation = ? AND message_id IS NOT NULL")),
                key=lambda text: int(text[1:]),
            ),
            "rows": [f"m{str(row_id)[1:]}" for row_id in column("SELECT row_id FROM transcript WHERE conversation = ? ORDER BY place")],
        }
        expected = [f"m{n}" for n in range(1, revision + 1)]
        wrong += [f"{name} at revision {revision} has {what} {ids[-3:]}" for what, ids in found.items() if ids != expected]
        queue = column("SELECT message_id FROM queue WHERE conversation = ?")
        state = [json.loads(str(body)) for body in column("SELECT body FROM state WHERE conversation = ?")]
        if (queue, state, count) != ([f"q{revision}"], [{"n": revision}], revision):
            wrong.append(f"{name} at revision {revision} has the queue {queue}, the state {state} and the count {count}")
    connection.close()
    wrong += [
        f"{name}: {n} was acknowledged, {revisions.get(name)} is there" for name, n in acknowledged.items() if revisions.get(name, 0) < n
    ]
    return wrong


def main(path: str, synchronous: str, kills: int) -> None:
    """Kill `kills` children and print a report."""
    choose = random.Random(20240229)
    acknowledged: dict[str, int] = {}
    total = 0
    wrong: list[str] = []
    for kill in range(kills):
        if kill % 25 == 0:
            for suffix in ("", "-wal", "-shm"):
                Path(path + suffix).unlink(missing_ok=True)
            acknowledged.clear()
        life, least = choose.choice(((choose.uniform(0, 0.1), 0), (choose.uniform(0, 0.02), 1), (choose.uniform(0, 0.2), 10)))
        lines, status = run_and_kill(path, synchronous, life, least)
        if not os.WIFSIGNALED(status):
            wrong.append(f"kill {kill}: the child ended by itself, with {os.waitstatus_to_exitcode(status)}")
        for line in lines.decode().splitlines():
            name, revision = line.split()
            acknowledged[name] = int(revision)
            total += 1
        if Path(path).exists():
            wrong += [f"kill {kill}: {what}" for what in violations(path, acknowledged)]
    sys.stdout.write(json.dumps({"kills": kills, "acknowledged": total, "violations": wrong[:10]}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
