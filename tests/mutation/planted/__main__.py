"""The score of the tests: how many of the planted bugs they find.

python -m tests.mutation.planted              hunt all bugs, and print the score
python -m tests.mutation.planted WORD ...     hunt the bugs that have one of the words in their name
python -m tests.mutation.planted --list       print the names, and the tests that find each bug
python -m tests.mutation.planted --check      print each bug, here and in `tests/search`, that does not fit the library; takes seconds
"""

import argparse
import sys

from tests.mutation.planted import BUGS
from tests.mutation.planted.hunting import JOBS, check_sound, hunt_all
from tests.support.planting import misfits


def check() -> int:
    """Print each bug that does not fit the library; return 1 if there is one."""
    from tests.search.crashes import planted as crashes
    from tests.search.people import planted as people
    from tests.search.sessions import planted as sessions
    from tests.search.simulation import planted as simulation

    tables = {
        "tests.mutation.planted": misfits(BUGS),
        "tests.search.sessions.planted": misfits(sessions.BUGS),
        "tests.search.people.planted": misfits(people.BUGS),
        "tests.search.simulation.planted": misfits((), simulation.TARGETS),
        "tests.search.crashes.planted": misfits((), crashes.TARGETS),
    }
    count = 0
    for table, sentences in tables.items():
        for sentence in sentences:
            count += 1
            print(f"{table}: {sentence}")
    print(f"{count} do not fit the library" if count else "all fit the library")
    return 1 if count else 0


def main() -> int:
    """Hunt, and print the table; return 1 if a bug survived, or if the tests fail without any bug."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--list", action="store_true", help="print the names, and the tests that find each bug")
    parser.add_argument("--check", action="store_true", help="print the bugs that do not fit the library; run no test")
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--unchecked", action="store_true", help="do not run the tests without a bug first")
    options = parser.parse_args()
    if options.check:
        return check()
    chosen = [bug for bug in BUGS if not options.words or any(word in bug.name for word in options.words)]
    if options.list:
        for bug in chosen:
            print(f"{bug.name:<58}  {bug.module:<32}  {bug.function:<40}  {', '.join(bug.found_by)}")
        return 0
    if not options.unchecked and (wrong := check_sound(chosen)) is not None:
        print(f"without any bug the tests do not pass: {wrong}")
        return 1
    found = 0
    for hunted in hunt_all(chosen, options.jobs):
        found += hunted.is_found
        print(hunted, flush=True)
    print(f"found {found} of {len(chosen)}")
    return 0 if found == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
