"""The library under a state machine, on both stores; every example has a schedule of its own.

In CI the same examples each time: a red build is red for its change. Each night (`TRIO_SAGENTS_NIGHTLY=1`) new ones. What fails is
shrunk, and printed as steps and as a blob for `@reproduce_failure`.
"""

import faulthandler
import os
import random

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import get_state_machine_test

from tests.search.sessions.machine import SessionMachine, SqliteSessionMachine

pytestmark = pytest.mark.slow

NIGHTLY = os.environ.get("TRIO_SAGENTS_NIGHTLY") == "1"
SHARDS = 100 if NIGHTLY else 10
"""How many tests there are. Each stays far below the time limit of a test."""
EXAMPLES = 20 if NIGHTLY else 10
PROFILE = settings(
    max_examples=EXAMPLES,
    stateful_step_count=60,
    deadline=None,
    database=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
FIRST = random.SystemRandom().randrange(10**9) if NIGHTLY else 0


def run_machine(machine: type[SessionMachine], shard: int, profile: settings = PROFILE) -> None:
    """Run the examples of one shard."""
    seed(FIRST + shard)(get_state_machine_test(machine, settings=profile))()


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("machine", [SessionMachine, SqliteSessionMachine])
def test_sessions_keep_their_promises(machine: type[SessionMachine], shard: int) -> None:
    """Whatever callers, agents, stores, clocks, viewers and readers do: I1-I5, I7-I20, I22, I23, and at the end everything works."""
    faulthandler.cancel_dump_traceback_later()  # shrinking takes longer; a run that hangs is found by the machine itself
    run_machine(machine, shard)
