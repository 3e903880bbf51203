"""The library under a state machine, on both stores; every example has a schedule of its own."""

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machines.session_machine import SessionMachine, SqliteSessionMachine

NIGHTLY = os.environ.get("TRIO_SAGENTS_NIGHTLY") == "1"
PROFILE = settings(
    max_examples=2000 if NIGHTLY else 100,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=not NIGHTLY,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
"""In CI the same examples each time: a red build is red for its change. Each night new ones."""


@pytest.mark.parametrize("machine", [SessionMachine, SqliteSessionMachine])
def test_sessions_keep_their_promises(machine: type[SessionMachine]) -> None:
    """Whatever callers, agents, stores, clocks, viewers and readers do: I1-I5, I7-I20, I22, I23, and at the end everything works."""
    run_state_machine_as_test(machine, settings=PROFILE)
