"""People in the loop under a state machine, on both stores; see `machine`."""

import faulthandler
import os
import random

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import get_state_machine_test

from tests.search.people.machine import PeopleMachine, SqlitePeopleMachine

pytestmark = pytest.mark.slow

NIGHTLY = os.environ.get("TRIO_SAGENTS_NIGHTLY") == "1"
SHARDS = 100 if NIGHTLY else 4
EXAMPLES = 50 if NIGHTLY else 10
FIRST = random.SystemRandom().randrange(10**9) if NIGHTLY else 0


def profile_of(examples: int, steps: int = 30) -> settings:
    """Return the settings of a run."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("machine", [PeopleMachine, SqlitePeopleMachine])
def test_people_are_asked_and_obeyed(machine: type[PeopleMachine], shard: int) -> None:
    """Whatever people, tools, stores and clocks do: I24 to I27 after every step, the history is valid, and it all can be answered."""
    faulthandler.cancel_dump_traceback_later()  # shrinking takes longer; a run that hangs is found by the machine itself
    seed(FIRST + shard)(get_state_machine_test(machine, settings=profile_of(EXAMPLES)))()
