"""A SQLite file in virtual time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_sagents.testing._threads import lockstep_threads


@pytest.fixture
def database(tmp_path: Path, autojump_clock: object) -> Iterator[Path]:
    """Return the path of a database; the clock is virtual, and waits for threads."""
    with lockstep_threads():
        yield tmp_path / "c.db"
