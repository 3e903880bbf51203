"""The nightly run works: a night is a bad time to find out that it does not."""

import faulthandler

import pytest

from tests.hostile.nightly import STAGES, rows

pytestmark = pytest.mark.slow


def test_nightly_rows() -> None:
    """Every stage gives its line, at a thousandth of the volume."""
    faulthandler.cancel_dump_traceback_later()
    found = list(rows(scale=0.0002, processes=2))

    assert len(STAGES) == len(found)
    assert all(row.volume > 0 and row.rate > 0 for row in found)
    assert {"fuzzed blobs", "fuzzed rows", "fuzzed servers", "soak, memory", "soak, sqlite", "slow viewer"} == {row.stage for row in found}
    assert [] == [row for row in found if row.violations]
