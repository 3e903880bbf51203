"""Hunt planted bugs with a state machine: the machine has to find each bug with the examples that CI runs.

A bug that survives shows that the machine looks at too little. Each bug is planted in a copy of the package, and the machine runs
against the copy in a process of its own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from hypothesis import Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, get_state_machine_test

from tests.support.planting import ROOT, PlantedBug, plant_copy

LIMIT: Final = 180.0
"""Seconds. A bug with which the machine runs longer makes it spin, and counts as found."""


def hunt(bug: PlantedBug, module: str) -> tuple[bool, str]:
    """Run a machine against a copy of the package that has the bug; return whether the machine found it, and how.

    Args:
        module: the program that runs the machine when it gets `--hunt`; see `main`.
    """
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        plant_copy(Path(folder), bug)
        command = [sys.executable, "-W", "ignore", "-m", module, "--hunt"]
        kept = {name: value for name, value in os.environ.items() if name != "TRIO_SAGENTS_NIGHTLY"}
        environment = {**kept, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
        try:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired:
            return True, "the machine hangs"
    last_words = (done.stdout.strip() or done.stderr.strip() or "the machine printed nothing").splitlines()[-1]
    return done.returncode == 1, f"{last_words[:150]} ({time.perf_counter() - begun:.0f} s)"


def run_machine(machine: type[RuleBasedStateMachine], profile: settings, shards: int) -> int:
    """Run the shards of a machine against the library as it is imported; return 1 at the first error, and print it."""
    quick = settings(profile, phases=[Phase.generate], print_blob=False)
    for shard in range(shards):
        try:
            seed(shard)(get_state_machine_test(machine, settings=quick))()
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # any error at all means that the bug was found  # noqa: ASYNC103  # nothing runs Trio here
            first = (str(exc).splitlines() or [""])[0]
            print(f"shard {shard}: {type(exc).__name__}: {first}")
            return 1  # noqa: ASYNC104  # likewise
    print(f"nothing found in {shards} shards")
    return 0


def main(bugs: Sequence[PlantedBug], module: str) -> int:
    """Hunt the bugs that the command line names, or all of them, and print the score; return 1 if a bug survived."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("words", nargs="*", help="hunt the bugs that have one of these words in their name")
    parser.add_argument("--jobs", type=int, default=2, help="how many are hunted at once")
    arguments = parser.parse_args()
    chosen = [bug for bug in bugs if not arguments.words or any(word in bug.name for word in arguments.words)]
    found = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for bug, (is_found, how) in zip(chosen, pool.map(lambda bug: hunt(bug, module), chosen), strict=True):
            found += is_found
            print(f"{'found   ' if is_found else 'SURVIVED'}  {bug.name:48} {how}", flush=True)
    print(f"found {found} of {len(chosen)}")
    return 0 if found == len(chosen) else 1
