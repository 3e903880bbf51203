"""A SQLite file that goes together with virtual time: a test takes `autojump_clock`, too."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_sagents.testing._threads import lockstep_threads


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    """Return the path of a database. A virtual clock waits for the threads of everything that uses the database."""
    with lockstep_threads():
        yield tmp_path / "c.db"
