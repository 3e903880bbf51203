"""Planted bugs: the machine must find each of them with the examples that CI runs. One that survives is a missing oracle.

A mutant is a place in the library's text and what stands there instead. It is made in a copy of the package, and the machine is
run against that copy in a process of its own.

    python -m tests.search.sessions.planted            all, with the score
    python -m tests.search.sessions.planted NAME ...   some
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import attrs

ROOT: Final = Path(__file__).parents[3]
SHARDS: Final = 10
"""Of `test_sessions_machine`, over `MemoryStore`: what CI runs."""
PATIENCE: Final = 180.0
"""Seconds: a mutant that goes on for longer spins, and is found."""


@attrs.frozen
class Mutant:
    """One planted bug."""

    name: str
    path: str
    """In the package."""
    old: str
    """Stands there once."""
    new: str


MUTANTS: Final = (
    Mutant(
        "the idle timer decides, nobody looks again",
        "supervisor/_idle.py",
        "            live.wake()  # it looks again itself, and arms again where it stays",
        "            from trio_sagents.supervisor._registry import Phase\n            live.entry.phase, live.entry.reason = Phase.STOPPING, ShutdownReason.INACTIVITY\n            live.wake()",  # noqa: E501  # library text
    ),
    Mutant(
        "leaves while a message is being accepted",
        "supervisor/_live.py",
        "        if self.is_receiving or not self.ledger.is_at_rest:\n            return None\n",
        "",
    ),
    Mutant(
        "acknowledged before the commit",
        "supervisor/_intake.py",
        "        await write.wait()\n",
        "        await trio.lowlevel.checkpoint()\n",
    ),
    Mutant("the id is released before the last write", "supervisor/_agent_task.py", "        await live.wait_settled()\n", ""),
    Mutant(
        "no snapshot on enrolment",
        "broadcast/_subscription.py",
        "            self._first = feed.present(replaces=place)\n",
        "            feed.present(replaces=place)\n",
    ),
    Mutant(
        "every 50th event is dropped",
        "broadcast/_feed.py",
        "        seq = self.seq = self.seq + 1\n",
        "        seq = self.seq = self.seq + 1\n        if not seq % 50:\n            return\n",
    ),
    Mutant("a gap is not reported", "broadcast/_subscription.py", "if untaken is None and self._seen < last else ()", "if False else ()"),
    Mutant(
        "joined deltas have the number of the first",
        "broadcast/_feed.py",
        "attrs.evolve(run[0], seq=run[-1].seq, event",
        "attrs.evolve(run[0], event",
    ),
    Mutant(
        "the last word is not said",
        "supervisor/_live.py",
        "            say_last_word(self, self._feeds, reason)\n",
        "            pass\n",
    ),
    Mutant(
        "stop returns early",
        "supervisor/_handle.py",
        "        return\n    await entry.wait_ended()\n",
        "        return\n    await trio.lowlevel.checkpoint()\n",
    ),
    Mutant(
        "the status is not reset after a failure",
        "supervisor/_live.py",
        "        if not (self.ledger.queue and status not in HELD and self.is_accepting):\n",
        "        if status is not Status.ERROR and not (self.ledger.queue and status not in HELD and self.is_accepting):\n",
    ),
    Mutant(
        "a duplicate is not detected",
        "supervisor/_intake.py",
        "            if known is not None:\n                return",
        "            if False:\n                return",
    ),
    Mutant("a conflict is not detected", "supervisor/_intake.py", "            if digest != posted.digest:\n", "            if False:\n"),
    Mutant(
        "an interrupting message does not cut the turn",
        "supervisor/_live.py",
        "        if interrupts and self.turn is not None:\n",
        "        if False:\n",
    ),
    Mutant(
        "viewers are ignored",
        "supervisor/_idle.py",
        "        if self.viewers or not self.had_viewer or",
        "        if not self.had_viewer or",
    ),
    Mutant(
        "a checkpoint between the look and the reservation",
        "sessions/_starting.py",
        "                entry = self._reserve(",
        "                await trio.lowlevel.checkpoint()\n                entry = self._reserve(",
    ),
    Mutant(
        "the scope is not compared on a warm start",
        "sessions/_starting.py",
        "            elif not self.runtime.access.owns(scope, entry.owner):\n",
        "            elif False:\n",
    ),
    Mutant(
        "every start says that it started",
        "sessions/_sessions.py",
        "started, entry.started_is_taken = not entry.started_is_taken, True",
        "started = True",
    ),
    # Without the shield around `Turn._settle` nothing changes: the closing commit is submitted before the first checkpoint, and the
    # release of the agent waits for it. So this one is the other shield.
    Mutant(
        "the release of an agent is not shielded",
        "supervisor/_live.py",
        "            with trio.CancelScope(shield=True, deadline=deadline):\n                await self.ledger.wait_at_rest()",
        "            with trio.CancelScope(deadline=deadline):\n                await self.ledger.wait_at_rest()",
    ),
    Mutant(
        "a cut turn leaves its calls open",
        "supervisor/_turn_changes.py",
        "for one in opened.values() if one.result is None]\n        draft",
        "for one in opened.values() if False]\n        draft",
    ),
    Mutant(
        "a crash is not contained",
        "supervisor/_agent_task.py",
        "        crash, onward = split(exc)\n",
        "        crash, onward = None, exc\n",
    ),
    Mutant("a load does not raise the epoch", "persistence/memory.py", "        row.epoch += 1\n", ""),
    Mutant("what a turn takes stays in the queue", "supervisor/_turns.py", "            taken=ids,\n", "            taken=(),\n"),
    Mutant(
        "an agent may leave inside a turn",
        "supervisor/_live.py",
        "            if self.turn is None:\n                if self.is_leaving",
        "            if True:\n                if self.is_leaving",
    ),
    Mutant(
        "the end of a turn is no activity",
        "supervisor/_live.py",
        "        self.was_cut = isinstance(outcome, Cancelled)\n        self.touch()\n",
        "        self.was_cut = isinstance(outcome, Cancelled)\n",
    ),
    Mutant(
        "a message does not release the queue",
        "supervisor/_live.py",
        "        self.touch()\n        self.is_released = True\n        if self.status",
        "        self.touch()\n        if self.status",
    ),
    Mutant(
        "a closed subscription stays in the table", "broadcast/_subscriber.py", "        self._switchboard.withdraw(subscription)\n", ""
    ),
    Mutant(
        "the queue has no limit",
        "supervisor/_intake.py",
        "len(ledger.queue) + len(self.flights) >= live.policy.queue_limit",
        "False",
    ),
    Mutant(
        "the timer never looks",
        "supervisor/_idle.py",
        "        self._timer = live.runtime.timers.call_at(due, live.look)\n",
        "",
    ),
    Mutant(
        "memory is ahead of the store",
        "supervisor/_ledger.py",
        "        self._promised += grown\n",
        "        self._promised += grown\n        self.queue.update((one.message_id, one) for one in change.queued)\n",
    ),
    Mutant(
        "a cancelled caller withdraws what is submitted",
        "supervisor/_intake.py",
        "        await write.wait()\n",
        (
            "        try:\n            await write.wait()\n        except trio.Cancelled:\n            write._then = lambda saved, error: None\n            raise\n"  # noqa: E501  # library text
        ),
    ),
)


def plant(mutant: Mutant, folder: Path) -> None:
    """Make a copy of the package with the bug in it.

    Raises:
        ValueError: the text is not there, or more than once: the library has changed, so the mutant has to.
    """
    shutil.copytree(ROOT / "trio_sagents", folder / "trio_sagents", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "trio_sagents" / mutant.path
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: its text stands {text.count(mutant.old)} times in {mutant.path}")
    path.write_text(text.replace(mutant.old, mutant.new))


def hunt(mutant: Mutant) -> tuple[bool, str]:
    """Run the machine against a mutant; return whether it was found, and how."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        plant(mutant, Path(folder))
        command = [sys.executable, "-W", "ignore", "-m", "tests.search.sessions.planted", "--hunt"]
        kept = {name: value for name, value in os.environ.items() if name != "TRIO_SAGENTS_NIGHTLY"}
        environment = {**kept, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
        try:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            return True, "it hangs"
    seconds = time.perf_counter() - begun
    said = (done.stdout.strip() or done.stderr.strip() or "it says nothing").splitlines()[-1]
    return done.returncode == 1, f"{said[:150]} ({seconds:.0f} s)"


def _hunt_here() -> int:
    from hypothesis import Phase, seed, settings
    from hypothesis.stateful import get_state_machine_test

    from tests.search.sessions.machine import SessionMachine
    from tests.search.sessions.test_machine import PROFILE

    profile = settings(PROFILE, phases=[Phase.generate], print_blob=False)
    for shard in range(SHARDS):
        try:
            seed(shard)(get_state_machine_test(SessionMachine, settings=profile))()
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # whatever it is, the bug was found  # noqa: ASYNC103  # the wrong way, on purpose
            first = (str(exc).splitlines() or [""])[0]
            print(f"shard {shard}: {type(exc).__name__}: {first}")
            return 1  # noqa: ASYNC104  # the wrong way, on purpose
    print(f"nothing in {SHARDS} shards")
    return 0


def main() -> int:
    """Hunt some mutants, or all; print the score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--hunt", action="store_true", help="run the machine against the library as it is found")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.hunt:
        return _hunt_here()
    chosen = [one for one in MUTANTS if not arguments.names or any(name in one.name for name in arguments.names)]
    found = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, (killed, how) in zip(chosen, pool.map(hunt, chosen), strict=True):
            found += killed
            print(f"{'found   ' if killed else 'SURVIVED'}  {mutant.name:48} {how}", flush=True)
    print(f"{found} of {len(chosen)} found")
    return 0 if found == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
