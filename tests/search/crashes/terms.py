"""SIGTERM to processes with busy conversations, hundreds of times: `python -m tests.search.crashes.terms --help`.

A process that gets SIGTERM has time to end well, so more is asked of it than of one that is killed: every turn has finished, or is settled
with the cause for which it was cut. And nothing may be lost that a kill would have kept. So each child is stopped (SIGSTOP) at a random
moment, and its file is copied: that is what a kill would have left. Then it gets SIGTERM and goes on; when it has ended by itself, the
file is looked at, and compared with the copy.

Children end as hosts do: they drain; or leave the block of `open_sessions`; or that is cancelled; or it raises. Forks, as `kills` does.
"""

import argparse
import gc
import json
import os
import random
import select
import shutil
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, get_args

import attrs
import trio

from tests.search.crashes.kills import LIVES, PATIENCE, fork, read_all
from tests.search.crashes.notes import Notes
from tests.search.crashes.oracle import Oracle, Stored, read
from tests.search.crashes.planted import PLANTED
from tests.search.crashes.workload import Ending, Life, close, live_until_sigterm, noting_to
from tests.support.records import stored_draft
from trio_sagents.data.messages import Message

CAUSES: Final[Mapping[Ending, str]] = {"drain": "drained", "leave": "closed", "cancel": "host_cancelled", "raise": "host_failed"}
"""With which cause an ending cuts the turns that it gives no more time."""
OWN_CAUSES: Final = frozenset({"user", "superseded", "stopped"})
"""With which causes the people cut turns."""


@attrs.define(eq=False)
class Campaign:
    """Many SIGTERMs, and what they showed."""

    folder: Path
    seed: int
    planted: str | None = None
    terms: int = 0
    cut: Counter[str] = attrs.field(factory=Counter)
    """Turns that an ending cut, by cause."""
    left_waiting: int = 0
    """Messages that were left in a queue, for the next life."""
    acknowledged: int = 0
    turns: int = 0
    violations: list[str] = attrs.field(factory=list)

    def run(self, first: int, terms: int, *, stop_at: int = 10) -> None:
        """Send so many, to children on files from number `first` on."""
        number = first
        while terms > 0 and len(self.violations) < stop_at:
            self._run_file(number, min(LIVES, terms))
            number += 1
            terms -= LIVES

    def _run_file(self, number: int, lives: int) -> None:
        choose = random.Random(f"{self.seed} {number}")
        place = self.folder / f"file-{number}"
        place.mkdir()
        oracle = Oracle()
        life = Life(path=str(place / "term.db"), number=0, seed=0, conversations=choose.choice((4, 6, 8)))
        for count in range(lives):
            grace = choose.choice((0.0, 0.01, 30.0))
            life = attrs.evolve(life, number=2 * count, seed=choose.randrange(1 << 30), grace=grace)
            ending: Ending = choose.choice(get_args(Ending))
            wrong = self._end(life, ending, choose.choice((0.0, 0.03, 0.15)) * choose.random(), oracle)
            if wrong:
                replay = f"python -m tests.search.crashes.terms --seed {self.seed} --file {number} --terms {lives}"
                self.violations += [f"file {number}, life {count}, {ending} within {grace}: {what}; replay: {replay}" for what in wrong[:3]]
                return
        wrong = self._close(attrs.evolve(life, number=2 * lives, is_last=True), oracle)
        self.violations += [f"file {number}, in the last process: {what}" for what in wrong[:3]]
        if not wrong:
            shutil.rmtree(place)

    def _end(self, life: Life, ending: Ending, after: float, oracle: Oracle) -> list[str]:
        def work(pipe: int) -> None:
            if self.planted is not None:
                PLANTED[self.planted]()
            trio.run(live_until_sigterm, life, noting_to(pipe), ending)

        child, pipe = fork(work)
        select.select([pipe], [], [], PATIENCE)
        time.sleep(after)
        os.kill(child, signal.SIGSTOP)
        os.waitid(os.P_PID, child, os.WSTOPPED | os.WNOWAIT)
        killed = self._copy(life.path)
        os.kill(child, signal.SIGTERM)
        os.kill(child, signal.SIGCONT)
        try:
            lines = read_all(pipe)
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return ["it does not end"]
        _, status = os.waitpid(child, 0)
        self.terms += 1
        self.acknowledged += oracle.log.take(lines)
        if status or lines[-1] != "left":
            return [f"it ended with {os.waitstatus_to_exitcode(status)}, and said last {lines[-1:]}"]
        wrong = oracle.check(life.path, "left")
        after_term, _ = read(life.path)
        for name, stored in after_term.items():
            new = stored.history[self._known(name) :]
            self._seen[name] = len(stored.history)
            self.left_waiting += len(stored.queue)
            wrong += [f"{name}: {what}" for what in self._badly_cut(new, ending, oracle.log.conversations.get(name, Notes()).finished)]
            if ending == "drain":
                told = oracle.log.conversations.get(name, Notes())
                silent = [
                    message_id for message_id in told.posted if message_id.startswith(f"{life.number}.") and message_id not in told.outcomes
                ]
                wrong += [f"{name}: nobody was told what became of {silent[:3]}"] * bool(silent)
        return [*wrong, *(f"{name}: {what}" for name, kept in killed.items() for what in lost(kept, after_term.get(name)))]

    _seen: dict[str, int] = attrs.field(factory=dict)

    def _known(self, name: str) -> int:
        return self._seen.get(name, 0)

    def _copy(self, path: str) -> dict[str, Stored]:
        """Return what a kill would leave now."""
        folder = Path(path).parent / "copy"
        folder.mkdir()
        for suffix in ("", "-wal"):
            if Path(path + suffix).exists():
                shutil.copy(path + suffix, folder)
        kept, _ = read(str(folder / Path(path).name))
        shutil.rmtree(folder)
        return kept

    def _badly_cut(self, new: Sequence[Message], ending: Ending, finished: set[str]) -> list[str]:
        """Return the turns of a life that neither finished nor were settled with their cause."""
        wrong = []
        for message in new:
            if message.stop_reason == "crashed":
                wrong.append(f"the turn {message.turn_id} was not settled: a crash is said to have cut it")
            if message.stop_reason == "cancelled":
                cause = str(message.metadata.get("cause"))
                if cause not in OWN_CAUSES:
                    self.cut[cause] += 1
                if cause not in OWN_CAUSES | {CAUSES[ending]}:
                    wrong.append(f"the turn {message.turn_id} was cut because of {cause!r}")
            for result in message.results:
                if result.name == "think":  # the thread may continue
                    continue
                if result.status == "unknown" or (result.call_id in finished and result.status != "completed"):
                    wrong.append(
                        f"the call {result.call_id} is {result.status}, and {'' if result.call_id in finished else 'never '}returned"
                    )
        return wrong

    def _close(self, life: Life, oracle: Oracle) -> list[str]:
        child, pipe = fork(lambda pipe: trio.run(close, life, noting_to(pipe)))
        try:
            oracle.log.take(read_all(pipe))
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return ["it hung: a conversation does not go on"]
        _, status = os.waitpid(child, 0)
        ended = {name: notes.closed for name, notes in oracle.log.conversations.items()}
        self.turns += len(ended)
        wrong = [f"{name}: one more turn ended as {how}" for name, how in ended.items() if how != ["Completed"]]
        self._seen.clear()
        return [f"it ended with {status}"] * bool(status) + wrong + oracle.check(life.path, "closed")


def lost(killed: Stored, after: Stored | None) -> list[str]:
    """Return what a kill would have kept of a conversation, and SIGTERM did not."""
    if after is None:
        return ["all of it is gone"]
    wrong = []
    if list(after.bodies[: len(killed.bodies)]) != list(killed.bodies):
        wrong.append("the history that a kill would have left is not the beginning of what is there")
    there = {message.message_id: message for message in (*after.history, *after.waiting)}
    wrong += [f"the message {message.message_id}, which waited, is gone" for message in killed.waiting if message.message_id not in there]
    draft = stored_draft(killed.state)
    if draft is not None:
        said = "".join(part["text"] for part in draft["parts"] if part["type"] == "text")
        spoken = there.get(draft["message_id"])
        if spoken is None or not spoken.text.startswith(said):
            wrong.append(f"the draft of {draft['message_id']}, of {len(said)} characters, is gone")
    return wrong


def main() -> None:
    """Run from the command line; the last line on stdout is a report as JSON."""
    parser = argparse.ArgumentParser(description="Send SIGTERM to processes with busy conversations, and look at what they leave.")
    parser.add_argument("--terms", type=int, default=60)
    parser.add_argument("--seed", type=int, default=20240229)
    parser.add_argument("--file", type=int, default=0, help="number of the first file")
    parser.add_argument("--folder", type=Path, required=True, help="where the files go; those with violations stay there")
    parser.add_argument("--planted", choices=sorted(PLANTED), help="break the library first")
    parser.add_argument("--stop-at", type=int, default=10, help="violations after which to stop")
    given = parser.parse_args()
    campaign = Campaign(given.folder, given.seed, given.planted)
    began = time.monotonic()
    gc.freeze()
    campaign.run(given.file, given.terms, stop_at=given.stop_at)
    report = attrs.asdict(campaign, filter=lambda field, _: field.name not in {"folder", "_seen"})
    print(json.dumps({**report, "seconds": round(time.monotonic() - began, 2)}))


if __name__ == "__main__":
    main()
