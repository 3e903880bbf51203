"""The lines of the mutants in the nightly table: `python -m tests.mutation.generated` prints each survivor."""

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.mutation.generated._groups import GROUPS, TESTS
from tests.mutation.generated._making import Mutant, mutants_of
from tests.mutation.generated._running import JOBS, LIMIT, Map, Runner, Verdict, run
from tests.mutation.generated.survivors import EXPLAINED

SAMPLE: Final = 400
"""Mutants of each group, in a night."""
LEAST: Final = 5
MOST_TESTS: Final = 10_000


class Row(NamedTuple):
    """The result of one group."""

    group: str
    mutants: int
    killed: int
    explained: int
    """Survivors that are explained."""
    survived: int
    """Survivors that are not explained: violations."""
    timed_out: int
    """Found, too: a test hangs."""
    rate: float
    """Mutants in a second."""
    found: Sequence[Verdict]
    """The survivors, explained or not."""

    @property
    def stage(self) -> str:
        """What the nightly table calls it."""
        return f"mutants, {self.group}"

    @property
    def score(self) -> float:
        """Which part of those that can be noticed is noticed."""
        return 1.0 if self.mutants == self.explained else (self.killed + self.timed_out) / (self.mutants - self.explained)


def sampled(group: str, sample: int | None, seed: int) -> list[Mutant]:
    """Return mutants of a group: `sample` of them, drawn by `seed`, or all if it is None; in the order of the source."""

    def chosen(places: int) -> Sequence[int]:
        if sample is None or sample >= places:
            return range(places)
        return sorted(random.Random(f"{group} {seed}").sample(range(places), sample))

    return mutants_of(group, chosen)[1]


def row_of(group: str, verdicts: Sequence[Verdict], seconds: float) -> Row:
    """Count what came of a group."""
    left = [verdict for verdict in verdicts if verdict.how == "survived"]
    explained = sum(verdict.mutant.key in EXPLAINED for verdict in left)
    killed, timed_out = (sum(verdict.how == how for verdict in verdicts) for how in ("killed", "timed out"))
    return Row(group, len(verdicts), killed, explained, len(left) - explained, timed_out, len(verdicts) / max(seconds, 0.001), left)


def _mapped(runner: Runner, kept: Path | None) -> Map:
    if kept is not None and kept.exists():
        names, stored = json.loads(kept.read_text(encoding="utf-8"))
        return {(path, line): tuple(names[number] for number in numbers) for path, line, numbers in stored}
    with tempfile.TemporaryDirectory() as folder:
        lines = runner.map(Path(folder))
    if kept is not None:
        numbers = {name: number for number, name in enumerate(sorted({name for names in lines.values() for name in names}))}
        stored = [[*place, [numbers[name] for name in names]] for place, names in lines.items()]
        kept.write_text(json.dumps([list(numbers), stored]), encoding="utf-8")
    return lines


def hunt_groups(
    groups: Sequence[str] = tuple(GROUPS),
    *,
    sample: int | None,
    seed: int,
    tests: Sequence[str] = TESTS,
    most: int = MOST_TESTS,
    limit: float = LIMIT,
    jobs: int = JOBS,
    kept: Path | None = None,
    told: Callable[[Verdict], None] = lambda _: None,
) -> list[Row]:
    """Hunt mutants of some groups; the same arguments and the same tree give the same rows.

    Args:
        groups: of `GROUPS`.
        sample: mutants of each group; None for all.
        seed: draws them.
        tests: files and folders, from the root of the project.
        most: tests for one mutant.
        limit: seconds for one mutant.
        jobs: at once.
        kept: a file for the map of which tests run which lines: read where it is there, which saves minutes while nothing changes.
        told: called with each verdict as it comes.

    Raises:
        MutationError: the tests do not pass without a mutant.
    """
    found: list[Row] = []

    def hunt(runner: Runner) -> None:
        lines = _mapped(runner, kept)
        for group in groups:
            begun = time.monotonic()
            mutants = sampled(group, sample, seed)
            places = {mutant: place for place, mutant in enumerate(mutants)}
            verdicts: list[Verdict] = []
            for verdict in runner.hunt(mutants, lines, most, limit):
                verdicts.append(verdict)
                told(verdict)
            verdicts.sort(key=lambda verdict: places[verdict.mutant])
            found.append(row_of(group, verdicts, time.monotonic() - begun))

    run(tests, hunt, jobs)
    return found


def rows(scale: float = 1.0, seed: int | None = None) -> Iterator[Row]:
    """Hunt a sample of every group, and yield a row for each; what survives and is not explained is printed.

    Args:
        scale: of the sample; 1 is a night's.
        seed: draws the sample; None draws it, too, for each night looks elsewhere.
    """
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    sample = max(LEAST, int(SAMPLE * scale))
    for row in hunt_groups(sample=sample, seed=seed):
        for verdict in row.found:
            if verdict.mutant.key not in EXPLAINED:
                print(
                    f"python -m tests.mutation.generated --sample {sample} --seed {seed} --only {row.group!r}",
                    verdict.mutant,
                    sep="\n",
                    flush=True,
                )
        yield row
