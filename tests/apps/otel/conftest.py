"""Each test has its own spans."""

import pytest

from tests.apps.otel._kit import Spans


@pytest.fixture
def spans() -> Spans:
    """Return an empty record of spans."""
    return Spans()
