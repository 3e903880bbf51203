"""One simulated run, as a value: the seed, and everything else that decides what happens. A plan can be written as a command line."""

import inspect
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import attrs

from trio_sagents.data.json import Opaque
from trio_sagents.testing._scheduler import MODES, Mode

FaultKind: TypeAlias = Literal["before", "after", "hang", "slow", "group", "wrong"]
FAULT_KINDS: Final[Sequence[FaultKind]] = get_args(FaultKind)
MAX_STEPS: Final = 50_000
HORIZON: Final = 200


@attrs.define(eq=False)
class CancelAt:
    """Cancel a named task at its n-th yield.

    "blocked": the operation that the task waits for is aborted. "ready": that operation has succeeded already, and the cancellation is
    raised at the next checkpoint.
    """

    name: str
    """As given to `Simulation.named`."""
    n: int
    """Counted from 1."""
    how: Literal["blocked", "ready"] = "blocked"
    was_hit: bool = False
    """Whether the task reached this yield."""

    def __attrs_post_init__(self) -> None:
        _check_place("CancelAt", self.n, 1, self.how, ("blocked", "ready"))

    def __str__(self) -> str:
        return f"{self.name}:{self.n}:{self.how}"


@attrs.frozen
class FaultAt:
    """Let the n-th call of what the program depends on go wrong (`Faults`).

    "before": the call raises, and nothing was done. "after": the call raises, although it was done. "hang": it never returns. "slow": it
    takes long. "group": it raises a group of two errors. "wrong": it returns a value that nobody can use.
    """

    n: int
    """The number of the call among all calls of the run, from 1."""
    how: FaultKind = "before"

    def __attrs_post_init__(self) -> None:
        _check_place("FaultAt", self.n, 1, self.how, FAULT_KINDS)

    def __str__(self) -> str:
        return f"{self.n}:{self.how}"


@attrs.frozen
class CrashAt:
    """Let the process die at the n-th write of one life (`CrashStore`)."""

    n: int
    """The number of the write, counted from 1 in each life; 0 lets this life end by itself."""
    how: Literal["before", "after"] = "before"
    """Whether this write is lost, or is the last write that was done."""

    def __attrs_post_init__(self) -> None:
        _check_place("CrashAt", self.n, 0, self.how, ("before", "after"))

    def __str__(self) -> str:
        return f"{self.n}:{self.how}"


def _check_place(what: str, n: object, least: int, how: object, known: Sequence[str]) -> None:
    if not isinstance(n, int) or n < least:
        raise ValueError(f"n of {what} must be a number from {least}, not {n!r}")
    if how not in known:
        raise ValueError(f"how of {what} must be one of {', '.join(known)}, not {how!r}")


def _check_planned(name: str, planned: object, kind: type) -> None:
    if not isinstance(planned, Sequence) or not all(isinstance(item, kind) for item in planned):
        raise TypeError(f"{name} must be a sequence of {kind.__name__}, not {planned!r}")


def mode_of(seed: int, mode: Mode | None = None) -> Mode:
    """Return the scheduler of a seed, if no scheduler was asked for; raise TypeError if the seed is not an int."""
    number: object = seed
    if not isinstance(number, int):
        raise TypeError(f"seed must be an int, not {number!r}")
    return MODES[number % len(MODES)] if mode is None else mode


def _known_mode(_plan: "Plan", _field: object, mode: object) -> None:
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")


@attrs.frozen(kw_only=True)
class Plan:
    """Everything that decides what happens in one simulated run."""

    seed: int
    mode: Mode = attrs.field(default=attrs.Factory(lambda plan: mode_of(plan.seed), takes_self=True), validator=_known_mode)
    """The scheduler; by default, the seed decides which one."""
    depth: int = 3
    """Mode pct: how many steps must come in a certain order for the bugs that it looks for."""
    horizon: int = HORIZON
    """Mode pct: the number of rounds within which priorities change."""
    jumps: bool = True
    """Whether the clock may jump while tasks can run, as on a slow machine. Switch this off if the program measures time."""
    cancels: Sequence[CancelAt] = ()
    """Which named tasks are cancelled, and when."""
    faults: Sequence[FaultAt] = ()
    """Which calls go wrong, for the program's `Simulation.faults`."""
    crashes: Sequence[CrashAt] = ()
    """At which write each life of the process ends, for the program's `Simulation.disk`."""
    max_steps: int = MAX_STEPS
    """How many task steps the program may take."""

    def __attrs_post_init__(self) -> None:
        for name, number, least in (("depth", self.depth, 1), ("horizon", self.horizon, 2), ("max_steps", self.max_steps, 1)):
            if number < least:
                raise ValueError(f"{name} must be at least {least}, not {number!r}")
        _check_planned("cancels", self.cancels, CancelAt)
        _check_planned("faults", self.faults, FaultAt)
        _check_planned("crashes", self.crashes, CrashAt)

    def __str__(self) -> str:
        words = [f"seed {self.seed}", f"scheduler {self.mode}"]
        if self.mode == "pct":
            words.append(f"depth {self.depth}")
        words += [] if self.jumps else ["no jumps"]
        for kind in ("cancel", "fault", "crash"):
            words += [f"{kind} {planned}" for planned in self._planned(kind)]
        return ", ".join(words)

    def _planned(self, kind: str) -> Sequence[CancelAt | FaultAt | CrashAt]:
        planned: dict[str, Sequence[CancelAt | FaultAt | CrashAt]] = {
            "cancel": self.cancels,
            "fault": self.faults,
            "crash": self.crashes,
        }
        return planned[kind]

    def options(self) -> Iterator[str]:
        """Yield the arguments of the command `replay`."""
        yield from ("--seed", str(self.seed), "--mode", self.mode)
        default = Plan(seed=self.seed)
        for name in ("depth", "horizon", "max_steps"):
            if getattr(self, name) != getattr(default, name):
                yield from (f"--{name.replace('_', '-')}", str(getattr(self, name)))
        if not self.jumps:
            yield "--no-jumps"
        for kind in ("cancel", "fault", "crash"):
            for one in self._planned(kind):
                yield from (f"--{kind}", str(one))

    def source(self) -> str:
        """Return the Python expression that makes this plan."""
        default = Plan(seed=self.seed)
        words = [f"seed={self.seed}", f"mode={self.mode!r}"]
        words += [
            f"{name}={getattr(self, name)!r}"
            for name in ("depth", "horizon", "jumps", "max_steps")
            if getattr(self, name) != getattr(default, name)
        ]
        if self.cancels:
            words.append(f"cancels=[{', '.join(f'CancelAt({one.name!r}, {one.n}, {one.how!r})' for one in self.cancels)}]")
        words += [f"{name}={list(planned)!r}" for name, planned in (("faults", self.faults), ("crashes", self.crashes)) if planned]
        return f"Plan({', '.join(words)})"

    def command(self, program: Opaque) -> str | None:
        """Return the command that runs this plan again; None if `program` has no name that a command could use."""
        name = name_of(program)
        return None if name is None else shlex.join(["python", "-m", "trio_sagents.testing", "replay", *self.options(), name])


def name_of(program: Opaque) -> str | None:
    """Return "module:name" or "file.py:name" of a program that can be imported from here; None if it cannot."""
    module, name = getattr(program, "__module__", None), getattr(program, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or "<" in name:
        return None
    there: Opaque = sys.modules.get(module)
    for part in name.split("."):
        there = inspect.getattr_static(there, part, None)
        if isinstance(there, staticmethod):
            there = there.__func__
    if there is not program:
        return None
    file = getattr(sys.modules[module], "__file__", None)
    here = None if file is None else Path(file).absolute()
    if here is None or not here.is_relative_to(Path.cwd()) or here == Path(*module.split(".")).with_suffix(".py").absolute():
        return None if module == "__main__" else f"{module}:{name}"
    # Test runners import a file under names that cannot be used from here.
    return f"{here.relative_to(Path.cwd())}:{name}"


def read_cancel(text: str) -> CancelAt:
    """Return the `CancelAt` with this `str`; raise ValueError if there is none."""
    match = re.fullmatch(r"(.+):(\d+):(blocked|ready)", text, re.DOTALL)  # a name may have colons
    if match is None:
        raise ValueError(f"a cancel must be NAME:N:blocked or NAME:N:ready, not {text!r}")
    return CancelAt(match[1], int(match[2]), "ready" if match[3] == "ready" else "blocked")


def read_fault(text: str) -> FaultAt:
    """Return the `FaultAt` with this `str`; raise ValueError if there is none."""
    number, _, how = text.partition(":")
    for kind in FAULT_KINDS:
        if number.isdecimal() and how == kind:
            return FaultAt(int(number), kind)
    raise ValueError(f"a fault must be N:KIND with a KIND of {', '.join(FAULT_KINDS)}, not {text!r}")


def read_crash(text: str) -> CrashAt:
    """Return the `CrashAt` with this `str`; raise ValueError if there is none."""
    match = re.fullmatch(r"(\d+):(before|after)", text)
    if match is None:
        raise ValueError(f"a crash must be N:before or N:after, not {text!r}")
    return CrashAt(int(match[1]), "after" if match[2] == "after" else "before")
