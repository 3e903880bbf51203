"""Both loops."""

import pytest

from tests.apps.guest._kit import LOOPS


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """The name of a loop."""
    return str(request.param)
