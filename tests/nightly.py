"""The long proofs, as one table: `python -m tests.nightly`, or `nox -s nightly`.

Each stage is a program of its own, with volumes of its own for a night; `--scale 0.01` runs a hundredth of each. A stage that finds
something prints what, and the command that replays it, above the table.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import attrs

from tests.hostile import nightly as attacks
from tests.mutation.generated import nightly as mutation
from tests.mutation.planted import nightly as mutants
from tests.search.people import nightly as people
from tests.search.providers import nightly as providers
from tests.search.simulation import nightly as sim

ROOT: Final = Path(__file__).parents[1]
STEPS: Final = 50_000_000
"""How many task steps are simulated in a night."""
HISTORIES: Final = 10_000
KILLS: Final = 10_000
IMAGES: Final = 100_000
SHARE: Final = 240
"""The most kills of one program that kills."""


class Line(NamedTuple):
    """One row of the table."""

    stage: str
    volume: str
    violations: int
    rate: str


def simulated(scale: float) -> Iterator[Line]:
    """Simulate random schedules, cancellations, faults and crashes, in virtual time."""
    os.environ["TRIO_SAGENTS_SIM_STEPS"] = str(int(STEPS * scale))
    every = max(1, round(1 / scale))
    jobs = []
    counts: Counter[str] = Counter()
    for job in sim.jobs():
        if job.steps or counts[job.stage] % every == 0:  # at least one of each stage
            jobs.append(attrs.evolve(job, pairs=max(10, int(job.pairs * min(1.0, scale)))))
        counts[job.stage] += 1
    for stage in dict.fromkeys(job.stage for job in jobs):  # each row is printed as soon as it is done
        for row in sim.run([job for job in jobs if job.stage == stage]):
            print(*row.findings, sep="\n", end="\n" if row.findings else "", flush=True)
            yield Line(row.stage, row.volume, row.violations, row.rate)


def decided(scale: float) -> Iterator[Line]:
    """Run histories of people who decide."""
    os.environ.setdefault("TRIO_SAGENTS_NIGHTLY", "1")
    for row in people.run_night(max(50, int(HISTORIES * scale))):
        yield Line(row.stage, f"{row.volume:,} histories", row.violations, f"{row.rate:.1f}/s")


def attacked(scale: float) -> Iterator[Line]:
    """Run fuzzed state, soaks and slow viewers."""
    for row in attacks.rows(scale):
        yield Line(row.stage, f"{row.volume:,}", row.violations, f"{row.rate:,.0f}/s")


def streamed(scale: float) -> Iterator[Line]:
    """A fuzzed provider: mutated streams of both protocols."""
    for row in providers.rows(scale):
        yield Line(row.stage, f"{row.volume:,} streams", row.violations, f"{row.rate:,.0f}/s")


def killed(scale: float) -> Iterator[Line]:
    """Kill processes at random moments of their work."""
    each = max(10, int(KILLS * scale / 2))
    for synchronous, reports, seconds in _halves("kills", "kills", each, SHARE):
        count, acknowledged = _in_all(reports, "kills"), _in_all(reports, "acknowledged")
        volume = f"{count:,} kills, {acknowledged:,} acknowledged"
        yield Line(f"kill -9, {synchronous}", volume, _told(reports), f"{count / seconds:.1f} kills/s")


def cut_off(scale: float) -> Iterator[Line]:
    """Look at disks after a loss of power."""
    each = max(100, int(IMAGES * scale / 2))
    for synchronous, reports, seconds in _halves("power", "images", each, 20 * SHARE):
        count, lost = _in_all(reports, "images"), _in_all(reports, "with_loss")
        volume = f"{count:,} images, {lost:,} with a loss"
        yield Line(f"loss of power, {synchronous}", volume, _told(reports), f"{count / seconds:.0f} images/s")


def _halves(program: str, unit: str, each: int, most: int) -> Iterator[tuple[str, list[dict[str, Any]], float]]:
    """Run a program of tests/search/crashes over FULL and over NORMAL, in shares, at the same time, because they wait as much as they
    work.

    Yields: the kind, its reports, and the seconds since both began.
    """
    begun = time.monotonic()
    seed = random.SystemRandom().randrange(10**9)
    halves = ("FULL", "NORMAL")
    most = min(most, -(-each // (os.cpu_count() or 1)))
    first_is = "file" if program == "kills" else "disk"
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:

        def run(synchronous: str, first: int) -> dict[str, Any]:
            own = seed + halves.index(synchronous)  # with the same seed both kinds would draw the same lives
            options: dict[str, object] = {"seed": own, first_is: first, unit: min(most, each - first), "synchronous": synchronous}
            if program == "kills":
                options["folder"] = Path(folder, f"{synchronous}-{first}")
                Path(folder, f"{synchronous}-{first}").mkdir()
            words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
            command = [sys.executable, "-m", f"tests.search.crashes.{program}", *words]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            print(f"{program}, {synchronous}: {options[unit]} of {each:,} {unit} more", file=sys.stderr, flush=True)
            return report

        # A file or a disk has several conversations, so a share that begins at number n ends before number n + `most`.
        shares = [(synchronous, pool.submit(run, synchronous, first)) for first in range(0, each, most) for synchronous in halves]
        for synchronous in halves:
            reports = [share.result() for kind, share in shares if kind == synchronous]
            yield synchronous, reports, time.monotonic() - begun


def _in_all(reports: list[dict[str, Any]], name: str) -> int:
    return sum(report[name] for report in reports)


def _told(reports: list[dict[str, Any]]) -> int:
    """Print the violations, and return how many there are."""
    violations = [what for report in reports for what in report["violations"]]
    print(*violations, sep="\n", end="\n" if violations else "", flush=True)
    return len(violations)


def machines(scale: float) -> Iterator[Line]:
    """Run the state machines of the sessions."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-o", "faulthandler_timeout=0", "tests/search/sessions"]
    environ = {**os.environ, "TRIO_SAGENTS_NIGHTLY": "1"} if scale >= 1 else dict(os.environ)
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, flush=True)
    seconds = time.monotonic() - began
    yield Line(
        "session machines", "2,000 histories each" if scale >= 1 else "CI's histories", int(done.returncode != 0), f"{seconds:.0f} s"
    )


def planted(scale: float) -> Iterator[Line]:
    """Plant bugs on purpose; the tests have to find each of them."""
    for row in mutants.rows():
        yield Line(row.stage, f"{row.volume - row.violations} of {row.volume} found", row.violations, f"{row.rate:.2f}/s")


def mutated(scale: float) -> Iterator[Line]:
    """Make small changes in the code that must not break; some test has to notice each change."""
    for row in mutation.rows(scale):
        volume = f"{row.mutants} mutants, {row.score:.1%} noticed"
        yield Line(row.stage, volume, row.survived, f"{row.rate:.2f}/s")


STAGES: Final[dict[str, Callable[[float], Iterator[Line]]]] = {
    "simulated": simulated,
    "machines": machines,
    "people": decided,
    "attacks": attacked,
    "providers": streamed,
    "kills": killed,
    "power": cut_off,
    "planted": planted,
    "mutation": mutated,
}


def main() -> int:
    """Run the stages, and print each row as it comes; return 1 if anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the volumes; 1 is a night's")
    parser.add_argument("--only", action="append", choices=STAGES, help="a stage; may be given again")
    given = parser.parse_args()
    lines: list[Line] = []
    print(f"{'stage':<36} {'volume':>36} {'violations':>10} {'rate':>16}", flush=True)
    for name in given.only or STAGES:
        for line in STAGES[name](given.scale):
            lines.append(line)
            print(f"{line.stage:<36} {line.volume:>36} {line.violations:>10} {line.rate:>16}", flush=True)
    return 1 if any(line.violations for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
