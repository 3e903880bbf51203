"""Mutation tests of what must not break: which small changes to the library's code no test notices.

python -m tests.mutation.generated                        every mutant, which takes hours
python -m tests.mutation.generated --sample 60 --seed 7   60 of each group, drawn by the seed
python -m tests.mutation.generated --only registry        one group; may be given again
"""

import argparse
import sys
from pathlib import Path

from tests.mutation.generated._groups import GROUPS
from tests.mutation.generated._running import JOBS, LIMIT, MutationError, Verdict
from tests.mutation.generated.nightly import MOST_TESTS, hunt_groups
from tests.mutation.generated.survivors import EXPLAINED


def tell(verdict: Verdict) -> None:
    """Print a verdict as it comes."""
    print(f"{verdict.how:<10}{verdict.asked:>5} tests  {verdict.mutant.path}:{verdict.mutant.line}  {verdict.test}", flush=True)


def main() -> int:
    """Hunt, and print the table and the survivors; return 1 if one is not explained, or if the tests fail without a mutant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=None, help="mutants of each group; by default all")
    parser.add_argument("--seed", type=int, default=0, help="draws the sample")
    parser.add_argument("--only", action="append", choices=GROUPS, help="a group; may be given again")
    parser.add_argument("--tests", type=int, default=MOST_TESTS, help="that are run for one mutant, at most")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for one mutant")
    parser.add_argument("--jobs", type=int, default=JOBS, help="mutants at once")
    parser.add_argument("--map", type=Path, default=None, help="a file to keep the map of tests and lines in")
    parser.add_argument("--verbose", action="store_true", help="print each verdict as it comes")
    given = parser.parse_args()
    try:
        found = hunt_groups(
            given.only or tuple(GROUPS),
            sample=given.sample,
            seed=given.seed,
            most=given.tests,
            limit=given.limit,
            jobs=given.jobs,
            kept=given.map,
            told=tell if given.verbose else lambda _: None,
        )
    except MutationError as exc:
        print(exc)
        return 1
    for row in found:
        for verdict in row.found:
            why = EXPLAINED.get(verdict.mutant.key)
            print(verdict.mutant, f"    {'SURVIVED' if why is None else 'explained: ' + why}; {verdict.asked} tests run it", sep="\n")
    print(f"{'group':<12}{'mutants':>9}{'killed':>8}{'explained':>11}{'survived':>10}{'timed out':>11}{'score':>9}{'rate':>9}")
    for row in found:
        counts = f"{row.mutants:>9}{row.killed:>8}{row.explained:>11}{row.survived:>10}{row.timed_out:>11}"
        print(f"{row.group:<12}{counts}{row.score:>9.1%}{row.rate:>7.1f}/s")
    return 1 if any(row.survived for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
