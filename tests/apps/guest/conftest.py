"""Both loops, in real time: what a slow machine does late is no failure."""

import faulthandler
import math

import pytest

from tests.apps.guest._kit import HANGS, LOOPS
from trio_sagents.asyncio import _steps


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test more time than a wait of it has, and keep warnings about a late machine out of the log that it looks at."""
    faulthandler.dump_traceback_later(2 * HANGS, exit=True)
    monkeypatch.setattr(_steps, "LATE", math.inf)


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """The name of a loop."""
    return str(request.param)
