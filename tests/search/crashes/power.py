"""Cut the power, thousands of times: `python -m tests.search.crashes.power --help`.

A kill leaves the operating system alive, and with it all that was written: it proves nothing about what is *synced*. So here a life of
busy conversations is recorded below the library's own store (`disk`), and images are made of what its disk might hold at random
moments (`images`). Each is opened and looked at. Then the power comes back: the next life goes on from one of these images, and
is recorded, too, its recovery included; and so on for some generations.

With "FULL" everything that was acknowledged before the moment must be there. With "NORMAL" the file must be whole, and exactly what it was
after one of its commits: how many of the last acknowledgements are gone is counted.
"""

import argparse
import json
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.search.crashes.disk import watch
from tests.search.crashes.images import Committed, Image, Recording, Sync, images, wrong_prefix
from tests.search.crashes.notes import Log
from tests.search.crashes.oracle import Oracle, Stored
from tests.search.crashes.planted import PLANTED
from tests.search.crashes.workload import Life, Note, close, live
from trio_sagents.persistence import _sqlite_tables as tables
from trio_sagents.persistence import sqlite
from trio_sagents.persistence._records import EncodedCommit
from trio_sagents.persistence._sqlite_schema import prepare

GENERATIONS: Final = 4
"""How many lives there are on one disk, each after a loss of power."""
NAME: Final = "power.db"
_MEMORY: Final = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112  # as the two libraries want it
"""Where images are written. Their content is computed, so the disk below need not be a real one."""
PATIENCE: Final = 20.0
"""Seconds until a life that should have ended counts as hanging."""
_RECOVERED: Final = 40
"""One image out of this many is also opened by the library, and every conversation has another turn."""


@contextmanager
def recording_commits(recording: Recording, checkpoint_pages: int | None) -> Iterator[None]:
    """Note commits, and copy the log into the file every `checkpoint_pages`, if given: a test has no time for 4,000."""
    commit = tables.commit

    def noted(connection: sqlite3.Connection, encoded: EncodedCommit, *rest: Any) -> int:
        revision = commit(connection, encoded, *rest)
        recording.entries.append(Committed(encoded.commit.conversation_id, revision))
        return revision

    def prepared(connection: sqlite3.Connection, path: str) -> None:
        prepare(connection, path)
        if checkpoint_pages is not None:
            connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages}")

    tables.commit = noted
    vars(sqlite)["prepare"] = prepared
    try:
        yield
    finally:
        tables.commit = commit
        vars(sqlite)["prepare"] = prepare


@attrs.define(eq=False)
class Campaign:
    """Many losses of power, and what they showed."""

    seed: int
    synchronous: str
    sync: Sync
    checkpoint_pages: int | None
    is_promised: bool
    """Whether all that was acknowledged must be there."""
    images: int = 0
    recovered: int = 0
    """How many images the library opened as well, and continued from."""
    steps: int = 0
    acknowledged: int = 0
    with_loss: int = 0
    """Of the images, how many lack something that was acknowledged."""
    most_lost: int = 0
    """The most acknowledged messages that one image lacks."""
    violations: list[str] = attrs.field(factory=list)
    _base: dict[str, int] = attrs.field(factory=dict)
    """By conversation, the revision in what the life that is looked at began with."""
    _before: dict[str, int] = attrs.field(factory=dict)
    """The same, of the image that the next life begins with."""

    def run(self, count: int, *, first: int = 0, stop_at: int = 10) -> None:
        """Make and look at this many images, of disks from number `first` on."""
        number = first
        per_life = max(1, min(250, count // GENERATIONS))
        while count > 0 and len(self.violations) < stop_at:
            with tempfile.TemporaryDirectory(prefix="power-", dir=_MEMORY) as folder:
                count -= self._run_disk(number, min(count, per_life * GENERATIONS), per_life, Path(folder))
            number += 1

    def _run_disk(self, number: int, count: int, per_life: int, folder: Path) -> int:
        choose = random.Random(f"{self.seed} {number}")
        left = count
        log: list[str] = []
        base: Image = Image(0, {})
        self._before = {}
        for generation in range(GENERATIONS):
            if left <= 0 or self.violations:
                break
            life = Life(
                path=str(folder / NAME),
                number=2 * generation,
                seed=choose.randrange(1 << 30),
                conversations=4,
                synchronous=self.synchronous,
                posts=4,
            )
            base.write(folder)
            recording = Recording(base.files)
            with watch(recording.watch), recording_commits(recording, self.checkpoint_pages):
                ended = _run(live, life, recording.note)
            self.steps += len(recording.entries)
            next_life = attrs.evolve(life, number=2 * generation + 1)
            found, base, log = self._look(recording, log, min(left, per_life), choose, next_life)
            found = found if ended else [*found, "the life does not end"]
            self.violations += [f"disk {number}, life {generation}: {what}; replay: {self._replay(number, count)}" for what in found[:3]]
            left -= per_life
        return count

    def _look(
        self, recording: Recording, log: list[str], count: int, choose: random.Random, next_life: Life
    ) -> tuple[list[str], Image, list[str]]:
        """Check images of a life; return the violations, the image that the next life begins with, and what was noted before it."""
        survivor = choose.randrange(count)
        self._base = self._before
        kept = Image(0, {}), log
        folder = Path(next_life.path).parent
        noted = Log()
        noted.take(log)
        lines = list(log)
        done = 0
        for place, image in enumerate(images(recording, count, choose, self.sync)):
            new = [entry for entry in recording.entries[done : image.moment] if isinstance(entry, str)]
            done = image.moment
            self.acknowledged += noted.take(new)
            lines += new
            wrong, found = self._check(image, recording, noted, folder)
            if not wrong and choose.randrange(_RECOVERED) == 0:
                wrong = self._recover(next_life, lines)
            if wrong:
                return [f"at entry {image.moment}: {what}" for what in wrong], *kept
            if place == survivor:
                kept = image, list(lines) if self.is_promised else []  # of what may be lost nothing is asked
                self._before = _revisions(found)
        return [], *kept

    def _check(self, image: Image, recording: Recording, noted: Log, folder: Path) -> tuple[list[str], dict[str, Stored]]:
        self.images += 1
        image.write(folder)
        oracle = Oracle(noted)
        if not (folder / NAME).exists():
            return (["the file is gone"] if self.is_promised and noted.count else []), {}
        wrong, found = oracle.check_image(str(folder / NAME), promised=self.is_promised)
        wrong += wrong_prefix(recording.entries[: image.moment], self._base, _revisions(found))
        accepted = {(name, message_id) for name, notes in noted.conversations.items() for message_id in notes.posted}
        lost = sum(message_id not in found[name].message_ids if name in found else True for name, message_id in accepted)
        self.with_loss += bool(lost)
        self.most_lost = max(self.most_lost, lost)
        return wrong, found

    def _recover(self, life: Life, lines: list[str]) -> list[str]:
        """Let the library open the file that was just checked. Each conversation has another turn."""
        self.recovered += 1
        oracle = Oracle()
        oracle.log.take(lines)
        if self.is_promised:
            oracle.check(life.path, "crashed")
        said: list[str] = []
        if not _run(close, attrs.evolve(life, is_last=True), lambda *words: said.append(" ".join(words))):
            return ["the library does not go on from it"]
        if not self.is_promised:
            oracle = Oracle()  # of what was lost nothing is expected
            return [f"after recovery: {what}" for what in oracle.check_image(life.path, promised=False)[0]]
        oracle.log.take(said)
        wrong = oracle.check(life.path, "closed")
        wrong += [
            f"{name}: one more turn ended as {conversation.closed}"
            for name, conversation in oracle.log.conversations.items()
            if conversation.closed != ["Completed"]
        ]
        return [f"after recovery: {what}" for what in wrong]

    def _replay(self, number: int, count: int) -> str:
        return f"python -m tests.search.crashes.power --seed {self.seed} --disk {number} --images {count} --synchronous {self.synchronous}"


def _run(work: Callable[[Life, Note], Awaitable[None]], life: Life, note: Note) -> bool:
    """Run a life; return False if it did not end normally."""

    async def bounded() -> bool:
        with trio.move_on_after(PATIENCE) as scope:
            await work(life, note)
        return not scope.cancelled_caught

    return trio.run(bounded)


def _revisions(found: dict[str, Stored]) -> dict[str, int]:
    return {name: stored.revision for name, stored in found.items()}


def main() -> None:
    """Run from the command line; the last line on stdout is a report as JSON."""
    parser = argparse.ArgumentParser(description="Cut the power of busy conversations, and look at what their disk may hold.")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=20240229)
    parser.add_argument("--disk", type=int, default=0, help="number of the first disk")
    parser.add_argument("--synchronous", choices=("FULL", "NORMAL"), default="FULL")
    parser.add_argument(
        "--sync", choices=("all", "none", "log_never"), default="all", help="which syncs the disk does, and does not lie about"
    )
    parser.add_argument("--as-full", action="store_true", help="promise what FULL does, whatever the store was told")
    parser.add_argument("--checkpoint-pages", type=int, help="the library's own setting, if it is not given")
    parser.add_argument("--planted", choices=sorted(PLANTED), help="break the library first")
    parser.add_argument("--stop-at", type=int, default=10, help="violations after which to stop")
    given = parser.parse_args()
    if given.planted is not None:
        PLANTED[given.planted]()
    campaign = Campaign(given.seed, given.synchronous, given.sync, given.checkpoint_pages, given.as_full or given.synchronous == "FULL")
    began = time.monotonic()
    campaign.run(given.images, first=given.disk, stop_at=given.stop_at)
    report = attrs.asdict(campaign, filter=lambda field, _: not field.name.startswith("_"))
    print(json.dumps({**report, "seconds": round(time.monotonic() - began, 2)}))


if __name__ == "__main__":
    main()
