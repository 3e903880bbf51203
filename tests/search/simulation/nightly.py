"""The large volumes: `python -m tests.search.simulation.nightly` prints one row for each stage; `run` returns the rows.

TRIO_SAGENTS_SIM_STEPS is how many task steps the schedules take (50 million), TRIO_SAGENTS_SIM_SCALE how many times as much as by
default the sweeps do. Each stage is shared between as many processes as there are processors. All of it takes two hours of one
processor at 14,000 steps per second: half of them are the schedules, and the sweeps the other half.
"""

import gc
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs

from tests.search.simulation.lives import LIVES
from tests.search.simulation.mixed import MIXED
from tests.search.simulation.stories import STORIES
from trio_sagents.testing import Tally, simulate_many, sweep_cancels, sweep_crashes, sweep_faults
from trio_sagents.testing._scheduler import MODES

STEPS: Final = 50_000_000
SEEDS: Final = 20
"""Seeds for each story that is cancelled, times three schedulers. One seed of all stories is 850,000 steps."""
FAULT_SEEDS: Final = 2
"""Seeds for each story whose calls fail, times three schedulers: 2,300,000 steps, and 180 for each pair."""
PAIRS: Final = 200
"""Pairs of faults, of each story, seed and scheduler; there are about 8,000, and those of other seeds are others."""
CRASH_SEEDS: Final = 3
"""Seeds for each life, times three schedulers: 3,900,000 steps."""
TWICE: Final = 1_200
"""Second crashes, of each life, seed and scheduler: all of them."""


@attrs.frozen
class Row:
    """One row of the table."""

    stage: str
    volume: str
    violations: int
    rate: str
    seconds: float
    findings: Sequence[str] = ()
    """What was found, each with the command that replays it."""

    def __str__(self) -> str:
        return f"{self.stage:<34} {self.volume:>34} {self.violations:>10} {self.rate:>16} {self.seconds:>7.0f} s"


@attrs.frozen
class Job:
    """A share of one stage's work."""

    stage: str
    program: int
    seeds: range
    steps: float = 0.0
    pairs: int = PAIRS
    """Of faults, or of crashes."""


@attrs.frozen
class Done:
    """What came of a job: plain values, which travel between processes."""

    stage: str
    runs: int
    steps: int
    violations: int
    findings: Sequence[str]


def steps_wanted(default: int) -> int:
    """Return how many task steps to simulate: more if the environment says so."""
    return int(os.environ.get("TRIO_SAGENTS_SIM_STEPS", "0")) or default


def scale() -> int:
    """Return how many times the default volume is wanted."""
    return int(os.environ.get("TRIO_SAGENTS_SIM_SCALE", "1"))


def jobs() -> Iterator[Job]:
    """Yield the night's work, stage by stage."""
    steps = steps_wanted(STEPS)
    for share in range(64):  # the mixed program takes half of the steps, the stories the other half
        yield Job("schedules, mixed program", int(share % 4 == 3), range(share * 10**8, (share + 1) * 10**8), steps / 2 / 64)
    for number in range(len(STORIES)):
        for share in range(4):  # small jobs, because some stories are slow and nobody must wait for the last one
            yield Job("schedules, stories", number, range(share * 10**8, (share + 1) * 10**8), steps / 2 / len(STORIES) / 4)
    for number in range(len(STORIES)):
        for seed in range(0, SEEDS * scale(), 5):
            yield Job("cancel at each yield", number, range(seed, seed + 5))
        for seed in range(FAULT_SEEDS * scale() if STORIES[number].kinds else 0):
            yield Job("each call fails, and pairs", number, range(seed, seed + 1))
    for number in range(len(LIVES)):
        for seed in range(CRASH_SEEDS * scale()):
            yield Job("crash at each write, and twice", number, range(seed, seed + 1), pairs=TWICE)


def _in_all_modes(search: Callable[..., Tally], seeds: range) -> Tally:
    tally = Tally()
    for mode in MODES:
        tally.add(search(seeds=seeds, mode=mode, keep_going=True))
    return tally


def work(job: Job) -> Done:
    """Do one job."""
    warnings.simplefilter("error")
    match job.stage:
        case "schedules, mixed program":
            program: object = MIXED[job.program]
            tally = simulate_many(MIXED[job.program], job.seeds, steps=job.steps, keep_going=True)
        case "schedules, stories":
            program = STORIES[job.program]
            tally = simulate_many(STORIES[job.program], job.seeds, steps=job.steps, keep_going=True)
        case "cancel at each yield":
            program = STORIES[job.program]
            tally = _in_all_modes(lambda **more: sweep_cancels(STORIES[job.program], **more), job.seeds)
        case "each call fails, and pairs":
            program = story = STORIES[job.program]
            tally = _in_all_modes(lambda **more: sweep_faults(story, kinds=story.kinds, pairs=job.pairs, **more), job.seeds)
        case _:
            program = LIVES[job.program]
            tally = _in_all_modes(lambda **more: sweep_crashes(LIVES[job.program], twice=job.pairs, **more), job.seeds)
    findings = [f"{finding}\n    {finding.plan.command(program)}" for finding in tally.findings[:5]]
    return Done(job.stage, tally.runs, tally.steps, tally.violations, findings)


def run(
    work_to_do: Sequence[Job] | None = None, *, processes: int | None = None, tell: Callable[[Row], object] = lambda row: None
) -> Sequence[Row]:
    """Do all jobs, or the given ones, and return a row for each stage, in order. `tell` gets each row as it is done."""
    rows: list[Row] = []
    given = list(jobs()) if work_to_do is None else work_to_do
    # What a process has imported when it begins is not looked through again at each collection.
    with multiprocessing.get_context("spawn").Pool(processes or os.cpu_count(), gc.freeze) as pool:
        for stage in dict.fromkeys(job.stage for job in given):
            start = time.monotonic()
            done = pool.map(work, [job for job in given if job.stage == stage], chunksize=1)
            seconds = time.monotonic() - start
            runs, steps = sum(part.runs for part in done), sum(part.steps for part in done)
            found = [finding for part in done for finding in part.findings]
            volume = f"{steps:,} steps, {runs:,} runs"
            rows.append(Row(stage, volume, sum(part.violations for part in done), f"{steps / seconds:,.0f} steps/s", seconds, found))
            tell(rows[-1])
    return rows


def main() -> int:
    """Print the table; 1 where something was found."""
    print(f"{'stage':<34} {'volume':>34} {'violations':>10} {'rate':>16} {'time':>9}", flush=True)
    rows = run(tell=lambda row: print(row, flush=True))
    for row in rows:
        for finding in row.findings:
            print(f"{row.stage}: {finding}")
    return 1 if any(row.violations for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
