"""The nightly run does each stage, and says what it found."""

import faulthandler

import pytest

from tests.search.simulation.nightly import Job, jobs, run, work
from tests.search.simulation.stories import STORIES

pytestmark = pytest.mark.slow

STAGES = [
    "schedules, mixed program",
    "schedules, stories",
    "cancel at each yield",
    "each call fails, and pairs",
    "crash at each write, and twice",
]


def test_jobs_when_listed() -> None:
    """Every stage has jobs, and every story is in each stage that stories are in, if it depends on something that can fail."""
    listed = list(jobs())

    assert STAGES == list(dict.fromkeys(job.stage for job in listed))
    programs = [{job.program for job in listed if job.stage == stage} for stage in STAGES[1:4]]
    every = set(range(len(STORIES)))
    assert [every, every, {number for number in every if STORIES[number].kinds}] == programs
    assert 50_000_000 <= sum(job.steps for job in listed) + 1


def test_run_when_it_is_small() -> None:
    """A row for each stage, with its volume; the work is done in processes of their own."""
    faulthandler.dump_traceback_later(120, exit=True)
    start = next(number for number, story in enumerate(STORIES) if story.__qualname__ == "start")
    rows = run([Job("schedules, stories", start, range(10**6), 500), Job("cancel at each yield", start, range(1))], processes=1)

    assert STAGES[1:3] == [row.stage for row in rows]
    assert [0, 0] == [row.violations for row in rows]
    assert "steps" in str(rows[0])


def test_work_when_each_stage_is_done() -> None:
    """Each stage does its own."""
    faulthandler.dump_traceback_later(120, exit=True)
    start = next(number for number, story in enumerate(STORIES) if story.__qualname__ == "start")
    for stage in STAGES[:4]:
        done = work(Job(stage, 1 if "mixed" in stage else start, range(1), 200, 2))

        assert (stage, 0) == (done.stage, done.violations)
        assert 0 < done.runs < 100
