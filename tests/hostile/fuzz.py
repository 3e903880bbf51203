"""Decodes damaged conversations under guard: `python -m tests.hostile.fuzz --count 100000 --seed 1` prints a line of JSON.

A process of its own, for an audit hook stays for ever. `--rows` takes the long way: through rows of a SQLite file and `Sessions.start`.
`--plant` puts a decoder in place that does what none may, to see that the guard looks. Blob number N of a seed is always the same.
"""

import argparse
import base64
import builtins
import contextlib
import functools
import gc
import importlib
import json
import logging
import pickle
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.hostile.blobs import SEEDS, Blob, Loaded, Text, as_json, judge, mutated, restored, wrong_order
from tests.hostile.guard import Forbidden, Guard
from trio_sagents import (
    Agent,
    Completed,
    ConversationNotFound,
    SessionConfig,
    SessionPolicy,
    Sessions,
    SingleFactoryRouter,
    SqliteStore,
    StartFailed,
    StateError,
    open_sessions,
)
from trio_sagents.data.records import Conversation
from trio_sagents.testing import ScriptedModel

ROOT: Final = Path(__file__).parents[2]
WARM_UP: Final = 5000


@attrs.define(eq=False)
class Report:
    """What came of a run."""

    count: int = 0
    loaded: int = 0
    refused: int = 0
    found: Counter[str] = attrs.field(factory=Counter)
    """What is wrong, and how often."""
    examples: dict[str, Any] = attrs.field(factory=dict)
    """The shortest case of each."""
    forbidden: list[str] = attrs.field(factory=list)
    seconds: float = 0.0

    def note(self, wrong: str, number: int, blob: Blob) -> None:
        """Keep a violation."""
        self.found[wrong] += 1
        case = {"number": number, "blob": as_json(blob)}
        if wrong not in self.examples or len(json.dumps(case)) < len(json.dumps(self.examples[wrong])):
            self.examples[wrong] = case

    def add(self, other: Mapping[str, Any]) -> None:
        """Add what another process found."""
        self.count += other["count"]
        self.loaded += other["loaded"]
        self.refused += other["refused"]
        self.found.update(other["found"])
        self.examples = {**other["examples"], **self.examples}
        self.forbidden += other["forbidden"]
        self.seconds = max(self.seconds, other["seconds"])

    def line(self, stage: str) -> str:
        """Return the summary as one line."""
        wrong = sum(self.found.values()) + len(self.forbidden)
        rate = self.count / self.seconds if self.seconds else 0.0
        return f"{stage}: {self.count} ({self.loaded} loaded, {self.refused} refused), {wrong} violations, {rate:,.0f}/s"


def drawn(seed: int, number: int) -> Blob:
    """Return blob `number` of a seed."""
    return mutated(random.Random(seed * 1_000_000_007 + number))


def fuzz(count: int, seed: int, guard: Guard, restore: Callable[[Conversation], Loaded] = restored) -> Report:
    """Decode so many, under guard."""
    for blob in SEEDS:
        judge(blob)
    for number in range(WARM_UP):  # whatever is imported or compiled at first use is loaded now
        judge(drawn(seed, number))
    report = Report(count)
    began = time.perf_counter()
    for number in range(count):
        blob = drawn(seed, number)
        try:
            with guard.armed():
                became, wrong = judge(blob, restore)
        except Forbidden as exc:
            became, wrong = "forbidden", f"did {exc}"
        report.loaded += became == "loaded"
        report.refused += became == "refused"
        if wrong is not None:
            report.note(wrong, number, blob)
    report.seconds = time.perf_counter() - began
    report.forbidden = guard.found
    return report


# ── through rows of a file ────────────────────────────────────────────────────────────────────────────────────────────

_PARTS: Final = ("messages", "queue", "message_ids", "state", "transcript")


def _as_stored(draw: random.Random, text: Text) -> tuple[str, object]:
    """Return the SQL that writes a text, or a value that is not text, into a column."""
    if draw.random() < 0.01:
        return "?", draw.choice((7, 1.5, b"\x00\xff", b"{}"))
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    return "CAST(? AS TEXT)", data


def insert(file: sqlite3.Connection, number: int, blob: Blob, draw: random.Random) -> None:
    """Write a blob past the store, as an attacker with the file would."""
    counters: list[object] = [min(blob.epoch, 2**62), min(blob.revision, 2**62), len(blob.messages)]
    owner: object = "null"
    if draw.random() < 0.03:
        counters[draw.randrange(3)] = draw.choice((-1, 2**52, "x", b"x", 1.5))
    if draw.random() < 0.02:
        owner = draw.choice(('"other"', "1.5", "[", b"null", "NaN"))
    file.execute(
        "INSERT INTO conversations VALUES (?, ?, 'agent', ?, ?, ?, ?, ?, NULL, '2024-01-01T00:00:00+00:00')",
        (number, f"c{number}", owner, counters[0], counters[1], number, counters[2]),
    )
    for text in blob.messages:
        sql, value = _as_stored(draw, text)
        file.execute(f"INSERT INTO messages (conversation, body) VALUES (?, {sql})", (number, value))
    for text in blob.queue:
        sql, value = _as_stored(draw, text)
        try:
            name = json.loads(text)["message_id"]
            name = name if isinstance(name, str) and name.isascii() else "u2"
        except (ValueError, KeyError, TypeError, RecursionError):
            name = "u2"
        file.execute(f"INSERT OR IGNORE INTO queue (conversation, message_id, body) VALUES (?, ?, {sql})", (number, name, value))
    for name, text in blob.state:
        sql, value = _as_stored(draw, text)
        file.execute(f"INSERT OR IGNORE INTO state VALUES (?, ?, {sql})", (number, name, value))
    file.executemany(
        "INSERT OR IGNORE INTO message_ids VALUES (?, ?, ?)", [(number, *identifier) for identifier in blob.ids if identifier[0].isascii()]
    )


def image(file: sqlite3.Connection, number: int) -> Sequence[object]:
    """Return all that the file has of one conversation."""
    found: list[object] = [file.execute("SELECT * FROM conversations WHERE number = ?", (number,)).fetchall()]
    return [*found, *(file.execute(f"SELECT * FROM {part} WHERE conversation = ? ORDER BY 1, 2", (number,)).fetchall() for part in _PARTS)]


async def _try_row(sessions: Sessions, conversation_id: str) -> str | None:
    """Start a stored conversation, talk to it, and start it again. Return what is wrong, "refused", or None."""
    try:
        info = await sessions.start(conversation_id)
    except ConversationNotFound:
        return "refused"
    except StartFailed as exc:
        cause = exc.__cause__
        return "refused" if isinstance(cause, StateError) else f"raised {type(cause).__name__}"
    await info.agent.wait_idle()
    wrong = None
    for is_again in (False, True):
        try:
            outcome = await (await sessions.post(conversation_id, "go on")).wait()
        except StartFailed as exc:
            return f"it does not start again: {type(exc.__cause__).__name__}"
        handle = await sessions.get(conversation_id)
        if not isinstance(outcome, Completed):
            error = getattr(outcome, "error", None)
            wrong = f"it does not answer{' again' if is_again else ''}: {type(outcome).__name__} {type(error).__name__}"
        wrong = wrong or wrong_order((await handle.state()).messages, frozenset())
        await handle.stop()
    return wrong


async def fuzz_rows(count: int, seed: int, guard: Guard, folder: Path) -> Report:
    """Start so many damaged conversations of a real file."""
    path = folder / "chat.db"
    async with SqliteStore(path, synchronous="NORMAL").open():
        pass
    file = sqlite3.connect(path, isolation_level=None)
    file.text_factory = bytes
    file.execute("BEGIN")
    blobs = [*SEEDS, *(drawn(seed, number) for number in range(count))]
    for number, blob in enumerate(blobs):
        insert(file, number, blob, random.Random(seed + number) if number >= len(SEEDS) else random.Random(1))
    file.execute("COMMIT")
    agent = Agent(model=ScriptedModel(lambda _: "so be it"))
    store = SqliteStore(path, synchronous="NORMAL")
    config = SessionConfig(factory_router=SingleFactoryRouter(agent), store=store, policy=SessionPolicy())
    report = Report(len(blobs))
    began = time.perf_counter()
    async with open_sessions(config) as sessions:
        for number in range(len(SEEDS)):  # these warm up; the undamaged ones load
            if (await _try_row(sessions, f"c{number}")) is not None:
                report.note("a valid one was refused", number, blobs[number])
        for number in range(len(SEEDS), len(blobs)):
            before = image(file, number)
            with guard.armed():
                wrong = await _try_row(sessions, f"c{number}")
            if wrong == "refused":
                report.refused += 1
                wrong = None if before == image(file, number) else "a refused row was changed"
            elif wrong is not None and wrong.startswith("raised") and before != image(file, number):
                wrong = f"{wrong} and changed the row"
            report.loaded += wrong is None
            if wrong is not None:
                report.note(wrong, number, blobs[number])
    report.loaded -= report.refused
    file.close()
    report.seconds = time.perf_counter() - began
    report.forbidden = guard.found
    return report


# ── planted ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return str, ("trapped",)


_PICKLED: Final = base64.b64encode(pickle.dumps(_Trap()))


def _planted(deed: str, conversation: Conversation) -> Loaded:
    match deed:
        case "import":
            importlib.import_module("this")
        case "open":
            Path(__file__).read_text(encoding="utf-8")
        case "exec":
            builtins.exec("1")
        case "pickle":
            pickle.loads(base64.b64decode(_PICKLED))
        case "process":
            subprocess.run([sys.executable, "-V"], check=True, capture_output=True)
        case "hidden":
            with contextlib.suppress(Exception):
                builtins.eval("1")
        case _:
            raise ValueError(deed)
    return restored(conversation)


# ── processes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def spawn(count: int, seed: int, *more: str) -> "subprocess.Popen[str]":
    """Begin a run in a process of its own."""
    command = [sys.executable, "-m", "tests.hostile.fuzz", "--count", str(count), "--seed", str(seed), *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def gathered(processes: Sequence["subprocess.Popen[str]"]) -> Report:
    """Wait for runs, and add up what they found."""
    report = Report()
    for process in processes:
        out, _ = process.communicate()
        if process.returncode:
            report.found[f"a child ended with {process.returncode}"] += 1
        else:
            report.add(json.loads(out))
    return report


def main() -> None:
    """Run, and print the report as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", action="store_true")
    parser.add_argument("--plant", default="")
    options = parser.parse_args()
    gc.freeze()
    logging.disable()  # a log that shows a traceback reads the source, which the guard forbids
    if options.rows:
        guard = Guard("_thread.start_new_thread")
        with tempfile.TemporaryDirectory() as name:
            report = trio.run(fuzz_rows, options.count, options.seed, guard, Path(name))
    else:
        guard = Guard()
        restore = functools.partial(_planted, options.plant) if options.plant else restored
        report = fuzz(options.count, options.seed, guard, restore)
    json.dump(attrs.asdict(report), sys.stdout)


if __name__ == "__main__":
    main()
