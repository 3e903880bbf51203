"""Planted bugs: the people's machine must find each of them with the examples that CI runs; see `tests.search.sessions.planted`.

python -m tests.search.people.planted            all, with the score
python -m tests.search.people.planted NAME ...   some
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.search.sessions.planted import PATIENCE, ROOT, Mutant, plant

SHARDS: Final = 4
"""Of `test_machine`, over `MemoryStore`: what CI runs."""

MUTANTS: Final = (
    Mutant("whatever was decided runs", "agent/_gate.py", '    return record.kind in {"approve", "edit"}', "    return True"),
    Mutant(
        "an edited call runs as it was",
        "agent/_gate.py",
        '    if record.kind != "edit":\n        return attrs',
        "    if True:\n        return attrs",
    ),
    Mutant(
        "a sub-agent has its own gate alone",
        "agent/_gate.py",
        "    for gate in _outermost_first(pipeline):",
        "    for gate in (pipeline,):",
    ),
    Mutant(
        "a sub-agent begins anew",
        "agent/_nested.py",
        "            if record is None:\n                nested.ask(prompt)",
        "            if True:\n                nested.ask(prompt)",
    ),
    Mutant(
        "partial answers are forgotten",
        "supervisor/_decisions.py",
        "        decided=(*interrupt.decided, *records),",
        "        decided=interrupt.decided,",
    ),
    Mutant(
        "what is taken is not stored",
        "supervisor/_decisions.py",
        "    return attrs.evolve(change, actor=actor, interrupt=None, standing=left, decided=records), events",
        "    return attrs.evolve(change, actor=actor, interrupt=None, decided=records), events",
    ),
    Mutant("another decision is a duplicate", "supervisor/_decisions.py", "        elif not one.same_as(known):", "        elif False:"),
    Mutant("any digest will do", "supervisor/_decisions.py", "    if decision.digest != call.digest:", "    if False:"),
    Mutant("any interrupt will do", "supervisor/_decisions.py", "    if decision.interrupt_id != interrupt.interrupt_id:", "    if False:"),
    Mutant("any kind will do", "supervisor/_decisions.py", "    if decision.kind not in call.allowed:", "    if False:"),
    Mutant("a halt is decided like a call", "supervisor/_decisions.py", '    if interrupt.kind == "halt":', "    if False:"),
    Mutant(
        "one decision does not wait for the other",
        "supervisor/_answering.py",
        "            if self.live.landing is None and not live.intake.is_superseding and new_ones(live.ledger, decisions) == fresh:",
        "            if True:",
    ),
    Mutant(
        "acknowledged before the commit",
        "supervisor/_answering.py",
        "        await live.ledger.submit(change, landed).wait()",
        "        live.ledger.submit(change, landed)\n        await trio.lowlevel.checkpoint()",
    ),
    Mutant(
        "what could not be stored goes on all the same",
        "supervisor/_answering.py",
        "                live.write_failed(error)\n            elif not live.has_ended:",
        "                live.write_failed(error)\n                then()\n            elif not live.has_ended:",
    ),
    Mutant(
        "what a crash cut is left open",
        "supervisor/_ledger.py",
        "        if self.interrupt is not None:\n            return ()\n        return self.with_decisions(",
        "        if self.interrupt is not None or self.taken:\n            return ()\n        return self.with_decisions(",
    ),
)


def hunt(mutant: Mutant) -> tuple[bool, str]:
    """Run the machine against a mutant; return whether it was found, and how."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        plant(mutant, Path(folder))
        command = [sys.executable, "-W", "ignore", "-m", "tests.search.people.planted", "--hunt"]
        kept = {name: value for name, value in os.environ.items() if name != "TRIO_SAGENTS_NIGHTLY"}
        environment = {**kept, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
        try:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            return True, "it hangs"
    said = (done.stdout.strip() or done.stderr.strip() or "it says nothing").splitlines()[-1]
    return done.returncode == 1, f"{said[:150]} ({time.perf_counter() - begun:.0f} s)"


def _hunt_here() -> int:
    from hypothesis import Phase, seed, settings
    from hypothesis.stateful import get_state_machine_test

    from tests.search.people.machine import PeopleMachine
    from tests.search.people.test_machine import EXAMPLES, profile_of

    profile = settings(profile_of(EXAMPLES), phases=[Phase.generate], print_blob=False)
    for shard in range(SHARDS):
        try:
            seed(shard)(get_state_machine_test(PeopleMachine, settings=profile))()
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
    if "--hunt" in sys.argv:
        return _hunt_here()
    chosen = [one for one in MUTANTS if not sys.argv[1:] or any(name in one.name for name in sys.argv[1:])]
    found = 0
    for mutant in chosen:
        killed, how = hunt(mutant)
        found += killed
        print(f"{'found   ' if killed else 'SURVIVED'}  {mutant.name:48} {how}", flush=True)
    print(f"{found} of {len(chosen)} found")
    return 0 if found == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
