"""Adapters talk to servers in real time, of which they may need more than other tests."""

import faulthandler

import pytest

from tests.support.providers.adapter import PATIENCE


@pytest.fixture(autouse=True)
def _patience() -> None:
    """Let a wait of a test end before the test is taken for one that hangs."""
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
