"""`python -m trio_sagents.testing replay --seed 7 --mode pct tests.chat:program`: show one simulated run again, step by step."""

import argparse
import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from trio_sagents.data.json import Opaque
from trio_sagents.testing._plan import HORIZON, MAX_STEPS, Plan, read_cancel, read_crash, read_fault
from trio_sagents.testing._scheduler import MODES
from trio_sagents.testing._simulation import Simulation
from trio_sagents.testing._simulator import run_plan


def _reader(read: Callable[[str], object]) -> Callable[[str], object]:
    def parse(text: str) -> object:
        try:
            return read(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from exc

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trio_sagents.testing", description="the test kit's own command")
    replay = parser.add_subparsers(required=True, metavar="replay").add_parser("replay", help="run a simulated schedule again")
    replay.add_argument("program", help="module:function or file.py:function; an async function of the Simulation")
    replay.add_argument("--seed", type=int, required=True)
    replay.add_argument("--mode", choices=MODES)
    replay.add_argument("--depth", type=int, default=3)
    replay.add_argument("--horizon", type=int, default=HORIZON)
    replay.add_argument("--max-steps", type=int, default=MAX_STEPS)
    replay.add_argument("--no-jumps", action="store_true")
    replay.add_argument("--cancel", action="append", default=[], type=_reader(read_cancel), metavar="NAME:N:HOW")
    replay.add_argument("--fault", action="append", default=[], type=_reader(read_fault), metavar="N:KIND")
    replay.add_argument("--crash", action="append", default=[], type=_reader(read_crash), metavar="N:HOW")
    replay.add_argument("--lines", type=int, default=200, help="how many lines of the story to print (default 200)")
    return parser


def load_program(name: str) -> Opaque:
    """Return the program that "module:function" or "file.py:function" names.

    Raises:
        ValueError: the file, the module or the function does not exist.
    """
    where, colon, what = name.rpartition(":")
    if not colon:
        raise ValueError(f"a program must be given as module:function or file.py:function, not {name!r}")
    found: Opaque = importlib.import_module(_module_of_file(Path(where)) if where.endswith(".py") else where)
    for part in what.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{where} has no {what!r}")
        found = getattr(found, part)
    return found


def _module_of_file(path: Path) -> str:
    """Make a file importable, as part of the packages that contain it, and return its dotted name."""
    path = path.absolute()
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    parts = [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    sys.path.insert(0, str(folder))
    return ".".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay one run, print its story, and return 1 if the run goes wrong, else 0."""
    parser = _parser()
    said = parser.parse_args(arguments)
    sys.path.insert(0, "")
    try:
        program = load_program(said.program)
    except (ValueError, ImportError) as exc:
        parser.error(str(exc))
    plan = Plan(
        seed=said.seed,
        mode=said.mode or MODES[said.seed % len(MODES)],
        depth=said.depth,
        horizon=said.horizon,
        jumps=not said.no_jumps,
        cancels=tuple(said.cancel),
        faults=tuple(said.fault),
        crashes=tuple(said.crash),
        max_steps=said.max_steps,
    )
    runs: list[Simulation] = []
    error: BaseException | None = None
    try:
        run_plan(program, plan, watched=runs.append)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # noqa: ASYNC103  # printed below; no Trio run is around this code
        error = exc
    (simulation,) = runs
    for step in tuple(simulation.story)[-said.lines :]:
        print(step)  # noqa: T201  # a command prints its result
    print(f"{plan}: {simulation.steps} steps, trace {simulation.trace}")  # noqa: T201  # as above
    if error is not None:
        traceback.print_exception(error, file=sys.stdout)
    return 0 if error is None else 1


if __name__ == "__main__":
    sys.exit(main())
