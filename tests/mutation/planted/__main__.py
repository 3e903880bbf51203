"""The score of the tests: how many of the planted bugs they find.

python -m tests.mutation.planted              all, with the score
python -m tests.mutation.planted WORD ...     those with one of the words in their name
python -m tests.mutation.planted --list       their names, and who finds them
"""

import argparse
import sys

from tests.mutation.planted import MUTANTS
from tests.mutation.planted._planting import JOBS, check_sound, hunt_all


def main() -> int:
    """Hunt, and print the table; 1 where a mutant survived or the tests fail without one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--unchecked", action="store_true", help="do not run the tests without a mutant first")
    options = parser.parse_args()
    chosen = [one for one in MUTANTS if not options.words or any(word in one.name for word in options.words)]
    if options.list:
        for one in chosen:
            print(f"{one.name:<58}  {one.path:<32}  {', '.join(one.found_by)}")
        return 0
    if not options.unchecked and (wrong := check_sound(chosen)) is not None:
        print(f"without any mutant the tests do not pass: {wrong}")
        return 1
    found = 0
    for hunted in hunt_all(chosen, options.jobs):
        found += hunted.is_found
        print(hunted, flush=True)
    print(f"found {found} of {len(chosen)}")
    return 0 if found == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
