"""The library under the sweeps: whatever is cancelled, fails or dies, everything promised holds, and a minute later it works.

How much: the environment's TRIO_SAGENTS_SIM_STEPS is how many task steps the schedules take.
All volumes: `python -m tests.search.simulation.nightly`.
"""

import faulthandler
import inspect
import subprocess
import sys
import types
from typing import Any

import pytest

import trio_sagents.files
from tests.search.simulation.lives import LIVES, Lives
from tests.search.simulation.mixed import MIXED, mixed
from tests.search.simulation.names import IMPLEMENTED, public_waits
from tests.search.simulation.nightly import steps_wanted
from tests.search.simulation.stories import STORIES
from tests.search.simulation.world import Story
from trio_sagents.testing import run_plain, simulate, simulate_many, sweep_cancels, sweep_crashes, sweep_faults

pytestmark = pytest.mark.slow

PER_STORY = 1_000
"""Task steps of the schedules of each story, and thirty times as many of the mixed program."""
NAMES = [story.__qualname__ for story in STORIES]
DEPENDENT = [story for story in STORIES if story.kinds]
"""Stories that depend on something that can fail."""


@pytest.fixture(autouse=True)
def _time_enough() -> None:
    """A sweep is many runs: it takes as long as the machine is busy."""
    faulthandler.dump_traceback_later(120, exit=True)


def test_names_when_one_has_no_story() -> None:
    """Every public coroutine and async context manager has a story, and no story is about a name that is gone."""
    told = {name for story in STORIES for name in story.names}

    assert set() == public_waits() - told, "write a story for it, in tests/search/simulation/stories.py"
    assert set() == told - public_waits()


def test_names_when_counted() -> None:
    """The list is computed from the public names: it holds methods, context managers, functions and readers."""
    assert {"Sessions.post", "Sessions.watch", "open_sessions", "Subscriber.__anext__", "Subscriber.batches"} <= public_waits()
    assert "ConversationStore.load" not in public_waits()


def code_of(name: str) -> types.CodeType:
    """Return the code of a public function or method."""
    first, *rest = name.split(".")
    found: Any = IMPLEMENTED.get(first) or getattr(trio_sagents, first, None) or getattr(trio_sagents.files, first)
    for part in rest:
        found = inspect.getattr_static(found, part)
    code = inspect.unwrap(getattr(found, "__func__", found)).__code__
    assert isinstance(code, types.CodeType)
    return code


@pytest.mark.parametrize("program", STORIES, ids=NAMES)
def test_story_when_it_calls_what_it_is_about(program: Story) -> None:
    """A story calls what it claims to be about. The hooks of a middleware are those of a middleware that overrides them all."""
    called: set[types.CodeType] = set()

    def note(frame: types.FrameType, event: str, _argument: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        simulate(program, 0, jumps=False)
    finally:
        sys.setprofile(before)

    assert [] == [name for name in program.names if not name.startswith("Middleware.") and code_of(name) not in called]


@pytest.mark.parametrize("program", STORIES, ids=NAMES)
def test_story_when_cancelled_at_each_yield(program: Story) -> None:
    """Cancelled at any yield, either way: nothing is lost that was acknowledged, nothing is left, and it works afterwards."""
    sweep_cancels(program, seeds=range(1 if program.follows else 2))


def test_story_when_it_is_swept() -> None:
    """A sweep strikes at each yield of the baseline, both ways: twice as many runs as yields, and one more."""
    program = STORIES[NAMES.index("reading")]
    simulation, _ = simulate(program, 0, jumps=False)

    assert 4 < simulation.yields["caller"]
    assert 1 + 2 * sum(simulation.yields.values()) == sweep_cancels(program).runs
    assert 1 + 2 * len(simulation.faults.calls) == sweep_faults(program).runs


@pytest.mark.parametrize("program", DEPENDENT, ids=lambda program: program.__qualname__)
def test_story_when_each_call_fails(program: Story) -> None:
    """Whichever call of a store, model, tool, router or factory goes wrong, in whichever way: the same holds."""
    sweep_faults(program, kinds=[kind for kind in program.kinds if not program.follows or kind in {"before", "after", "slow"}])


@pytest.mark.parametrize("program", LIVES, ids=lambda program: program.__qualname__)
def test_life_when_it_crashes_at_each_write(program: Lives) -> None:
    """After a crash at any write, before or after its effect, and again in the recovery, acknowledged messages are there once."""
    tally = sweep_crashes(program, twice=60)

    assert tally.runs > 60


def test_stories_on_many_schedules() -> None:
    """Whatever the order of the tasks, and however slow the machine."""
    for program in STORIES:
        simulate_many(program, range(10**9), steps=steps_wanted(len(STORIES) * PER_STORY) // len(STORIES))


@pytest.mark.parametrize("program", MIXED, ids=lambda program: program.__qualname__)
def test_mixed_program_on_many_schedules(program: Story) -> None:
    """Several callers at once, who ask anything in any order, of one process or of one of several."""
    tally = simulate_many(program, range(10**9), steps=steps_wanted(30 * PER_STORY // len(MIXED)))

    assert tally.runs > 25


def traces(seeds: int) -> list[str]:
    """Return a trace for each program and seed."""
    programs = [*STORIES, mixed, *LIVES]
    return [simulate(program, seed)[0].trace for program in programs for seed in range(seeds)]


def test_traces_in_another_process() -> None:
    """A seed is the same run of the whole library in another process, with another hash seed."""
    program = "from tests.search.simulation.test_sweeps import traces; print(*traces(3), sep='\\n')"
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": str(number), "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for number in (1, 2)
    ]

    assert printed[0] == printed[1]
    assert len(printed[0].splitlines()) == 3 * (len(STORIES) + 1 + len(LIVES))


def test_story_when_it_runs_plain() -> None:
    """The same programs run without the simulator, in real time."""
    for name in ("start", "get", "pubsub"):
        run_plain(next(story for story in STORIES if story.__qualname__ == name))
