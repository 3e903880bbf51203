"""Kill processes with busy conversations, thousands of times, and look at what they leave: `python -m tests.search.crashes.kills --help`.

This program stays single-threaded, so it can fork: each child costs a few milliseconds, not the start of an interpreter. A child is
killed with SIGKILL: at a random moment of one of three scales, or by itself, in the midst of the n-th thing that SQLite does to the
disk: before it, after half of it, behind it. Then the file is looked at, a second child opens it and has one more turn in each
conversation, and the file is looked at again. Now and then the next child to be killed comes in the place of the second one: it finds
what a crash has left, and may die while it mends that.

Several children live on one file, one after the other; then comes a new one. What a file's lives do follows from the seed and the
number of the file, so a violation is replayed from there. The moment of a timed kill is the machine's, so a replay may need some tries.

Most files are on a disk in memory, where there is one. A process that is killed leaves to the system all that it has written, synced or
not, so its kill proves there what it proves on any disk, and nobody waits for the syncs. (What syncs are for is the loss of power:
`power`.) With `synchronous="FULL"` one file of four is on a real disk all the same, and is synced.
"""

import argparse
import fcntl
import gc
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import attrs
import trio

from tests.search.crashes.disk import Step, watch
from tests.search.crashes.oracle import Oracle, forget
from tests.search.crashes.planted import PLANTED
from tests.search.crashes.workload import Life, close, live, noting_to
from tests.support.stores import make_first
from trio_sagents.persistence._sqlite_migration import migrate

LIVES: Final = 12
"""How many children use one file, one after the other."""
CONVERSATIONS: Final = (2, 2, 3, 4, 4, 4, 6, 16)
"""How many conversations are in one file."""
UPON: Final = 0.3
"""How often a crash is followed by another crash during the recovery."""
ON_DISK: Final = 4
"""One file out of this many is on a real disk, if syncs are wanted."""
MEMORY: Final = Path("/dev/shm")
STARTING: Final = (0.0, 0.08)
"""Seconds that a child lives from its fork on: it dies while it starts."""
WORKING: Final = ((0.0, 0.02), (0.01, 0.2))
"""Seconds that a child lives from its first acknowledgement on: it dies in its first turns, or at work."""
PATIENCE: Final = 30.0
"""Seconds until a child that should have ended counts as hanging."""
_PIPE_BYTES: Final = 1 << 20
Files: TypeAlias = Literal["new", "first", "migrated"]
Moment: TypeAlias = Literal["before", "half", "behind"]


@attrs.frozen
class Doom:
    """When a child dies."""

    after: float | None
    """Seconds of life; None for a process that dies in the middle of a step."""
    is_starting: bool = False
    """Whether the seconds count from the fork, not from the first acknowledgement."""
    step: int = 0
    moment: Moment = "before"

    @classmethod
    def drawn(cls, choose: random.Random) -> "Doom":
        """Return one of each four that dies in a step, and three that die at a time."""
        if choose.random() < 0.25:
            step = choose.choice((choose.randint(1, 40), choose.randint(1, 1500)))
            return cls(None, step=step, moment=choose.choice(("before", "half", "behind")))
        if choose.random() < 0.2:
            return cls(choose.uniform(*STARTING), is_starting=True)
        return cls(choose.uniform(*choose.choice(WORKING)))


@attrs.define(eq=False)
class Executioner:
    """A watcher of the disk that ends its process in the midst of a step."""

    doom: Doom
    _steps: int = 0

    def __call__(self, step: Step) -> bool:
        self._steps += 1
        if self._steps == self.doom.step:
            match self.doom.moment:
                case "half" if step.data:
                    step.finish(step.data[: len(step.data) // 2])
                case "behind" if step.data:
                    step.finish(step.data)
                case _:
                    pass
            os.kill(os.getpid(), signal.SIGKILL)
        return True


def fork(work: Callable[[int], object]) -> tuple[int, int]:
    """Run `work(pipe)` in a child; return its process id, and where to read what it writes."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # a full pipe would stop the child
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)
    status = 1
    try:
        work(writing)
        status = 0
    except BaseException as exc:  # noqa: ASYNC103  # the child ends here, and says why
        sys.excepthook(type(exc), exc, exc.__traceback__)
    finally:
        os._exit(status)


def read_all(pipe: int, patience: float = PATIENCE) -> list[str]:
    """Return the lines that a child wrote until it ended; TimeoutError if it does not end."""
    parts: list[bytes] = []
    deadline = time.monotonic() + patience
    with os.fdopen(pipe, "rb", buffering=0) as source:
        while True:
            if not select.select([source], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the child does not end")
            part = source.read(1 << 16)
            if not part:
                return b"".join(parts).decode().splitlines()
            parts.append(part)


@attrs.define(eq=False)
class Campaign:
    """Many kills, and what they showed."""

    folder: Path
    """Where files with violations stay."""
    memory: Path
    """Where files are made that need no real disk."""
    seed: int
    synchronous: str
    planted: str | None = None
    files: Files = "new"
    """What the children find: a new file; one of version 1; or one of version 1 that is migrated after the second child."""
    kills: int = 0
    in_steps: int = 0
    """Of the kills, how many came in the midst of a step."""
    silent: int = 0
    """Of the kills, how many came before anything was acknowledged."""
    acknowledged: int = 0
    turns: int = 0
    migrated: int = 0
    """How many files were migrated."""
    violations: list[str] = attrs.field(factory=list)

    def run(self, first: int, kills: int, *, stop_at: int = 10) -> None:
        """Kill this many children, on files from number `first` on; stop early after `stop_at` violations."""
        number = first
        while kills > 0 and len(self.violations) < stop_at:
            lives = min(LIVES, kills)
            self._run_file(number, lives)
            number += 1
            kills -= lives

    def _run_file(self, number: int, lives: int) -> None:
        is_on_disk = self.synchronous == "FULL" and number % ON_DISK == 0
        place = (self.folder if is_on_disk else self.memory) / f"file-{number}"
        place.mkdir()
        wrong = self._live_on(str(place / "kill.db"), random.Random(f"{self.seed} {number}"), lives)
        forget()
        if not wrong:
            shutil.rmtree(place)
            return
        replay = f"python -m tests.search.crashes.kills --seed {self.seed} --file {number} --kills {lives} --synchronous {self.synchronous}"
        replay += f" --files {self.files}"
        self.violations += [f"file {number}, {what}; replay: {replay}" for what in wrong[:3]]
        if not is_on_disk:
            shutil.move(place, self.folder)  # the file stays for further investigation

    def _live_on(self, path: str, choose: random.Random, lives: int) -> list[str]:
        """Run children on one file, one after the other; return the first violations."""
        oracle = Oracle()
        conversations = choose.choice(CONVERSATIONS)
        if self.files != "new":
            make_first(path)
        for count in range(lives):
            if count == 2 and self.files == "migrated":
                self.migrated += migrate(path, PATIENCE)
                wrong = [f"migrated: {what}" for what in oracle.check(path, "crashed")]
                if wrong:
                    return wrong
            life = Life(
                path=path,
                number=2 * count,
                seed=choose.randrange(1 << 30),
                conversations=conversations,
                synchronous=self.synchronous,
            )
            wrong = self._kill(life, Doom.drawn(choose), oracle)
            is_tidied = choose.random() >= UPON or count == lives - 1
            if not wrong and is_tidied:
                wrong = self._close(attrs.evolve(life, number=2 * count + 1, is_last=True), oracle)
            if wrong:
                return [f"life {count}: {what}" for what in wrong]
        return []

    def _kill(self, life: Life, doom: Doom, oracle: Oracle) -> list[str]:
        def work(pipe: int) -> None:
            if self.planted is not None:
                PLANTED[self.planted]()
            with watch(Executioner(doom)) if doom.after is None else nullcontext():
                trio.run(live, life, noting_to(pipe))

        child, pipe = fork(work)
        if doom.after is not None:
            if not doom.is_starting:
                select.select([pipe], [], [], PATIENCE)
            time.sleep(doom.after)
            os.kill(child, signal.SIGKILL)
        try:
            lines = read_all(pipe)
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return ["the child hung"]
        _, status = os.waitpid(child, 0)
        new = oracle.log.take(lines)
        self.kills += 1
        self.in_steps += doom.after is None
        self.silent += not new
        self.acknowledged += new
        if not os.WIFSIGNALED(status):
            return [f"the child ended by itself, with {os.waitstatus_to_exitcode(status)}"]
        return [f"after {doom}: {what}" for what in oracle.check(life.path, "crashed")] if Path(life.path).exists() else []

    def _close(self, life: Life, oracle: Oracle) -> list[str]:
        def work(pipe: int) -> None:
            if self.planted is not None:
                PLANTED[self.planted]()
            trio.run(close, life, noting_to(pipe))

        child, pipe = fork(work)
        try:
            lines = read_all(pipe)
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return ["the next process hung: a conversation does not go on"]
        _, status = os.waitpid(child, 0)
        if status:
            return [f"the next process failed, with {os.waitstatus_to_exitcode(status)}"]
        self.acknowledged += oracle.log.take(lines)
        wrong = oracle.check(life.path, "closed")
        for name, notes in oracle.log.conversations.items():
            last, notes.closed = notes.closed, []
            self.turns += last == ["Completed"]
            if last != ["Completed"]:
                wrong.append(f"{name}: one more turn, and it ended as {last}")
        return [f"in the next process: {what}" for what in wrong]


def main() -> None:
    """Run from the command line; the last line on stdout is a report as JSON."""
    parser = argparse.ArgumentParser(description="Kill processes with busy conversations, and look at what they leave.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20240229)
    parser.add_argument("--file", type=int, default=0, help="number of the first file")
    parser.add_argument("--folder", type=Path, required=True, help="where the files go; those with violations stay there")
    parser.add_argument("--synchronous", choices=("FULL", "NORMAL"), default="FULL")
    parser.add_argument("--files", choices=get_args(Files), default="new", help="new files, files of version 1, or such that are migrated")
    parser.add_argument("--planted", choices=sorted(PLANTED), help="break the library first")
    parser.add_argument("--stop-at", type=int, default=10, help="violations after which to stop")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as memory:
        campaign = Campaign(given.folder, Path(memory), given.seed, given.synchronous, given.planted, given.files)
        gc.freeze()  # existing objects are left alone, so that no page of them is copied in a child
        campaign.run(given.file, given.kills, stop_at=given.stop_at)
    report = attrs.asdict(campaign, filter=lambda field, _: field.type is not Path)
    print(json.dumps({**report, "seconds": round(time.monotonic() - began, 2)}))


if __name__ == "__main__":
    main()
